"""The predictions a run leaves behind: those of the exported adapter, and of the base model alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ptune_core.data.examples import SplitOptions, build_examples
from ptune_core.data.ingest import ingest_text
from ptune_core.data.table import Table, Tables
from ptune_core.model.base import load_base_model
from ptune_core.model.prompted import PromptedModel
from ptune_core.model.trained import TrainedPrompt
from ptune_core.runs.directory import RunDirectory
from ptune_core.runs.predictions import changed_answers, read_predictions
from ptune_core.training import predictions
from ptune_core.training.session import run_training
from ptune_core.training.settings import RunSettings
from ptune_core.training.sweep import directory_of
from ptune_core.training.tasks import Batching, LabelTask

LABELLED = "text,label\n" + "".join(
    f"{text} {i},{label}\n"
    for i in range(12)
    for text, label in (("great film", "good"), ("bad food", "bad"), ("I loved it", "good"))
)


def settings_for(folder: Path, **changes: Any) -> RunSettings:
    values = {
        "base_model": str(folder), "data": "pasted", "template": "{text~} [P*4][ANSWER:label]", "max_steps": 8,
        "eval_every": 4, "checkpoint_every": 3, "batch_size": 4, "encoder_hidden_size": 16, "device": "cpu",
        "precision": "fp32", "learning_rate": 0.01, "halving": False, "validation_fraction": 0.4,
    }  # fmt: skip
    return RunSettings.parse(values | changes)


def train(settings: RunSettings, table: Table, directory: Path, stop_at: int | None = None) -> TrainedPrompt:
    exported, steps = [], []

    def report(line: dict[str, Any]) -> None:
        if line["kind"] == "step":
            steps.append(line["step"])

    run_training(
        settings, Tables(table), directory, should_stop=lambda: stop_at in steps, report=report,
        export=lambda trained, _: exported.append(trained),
    )  # fmt: skip
    return exported[-1]


def written(directory: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in RunDirectory(directory).predictions.read_text().splitlines()]


@pytest.fixture
def table(tmp_path: Path) -> Table:
    return ingest_text(LABELLED, tmp_path / "data")


def test_they_are_those_of_the_adapter_and_of_the_base_model_alone(
    tmp_path: Path, tiny_gpt2: Path, table: Table
) -> None:
    settings = settings_for(tiny_gpt2)
    trained = train(settings, table, tmp_path / "run")
    header, *rows = written(tmp_path / "run")
    base = load_base_model(str(tiny_gpt2), target=settings.parsed_template.target.kind, device="cpu", precision="fp32")
    split = SplitOptions(settings.validation_fraction, settings.max_validation_rows, settings.seed)
    examples = build_examples(table, settings.parsed_template, columns={}, labels=None, split=split)
    model = PromptedModel(base, settings.parsed_template, examples.verbalizer)
    fresh = LabelTask(model, examples.train, examples.validation, Batching(4, 5, 0), tmp_path)
    again, alone = fresh.evaluate(trained.prompt_embeddings), fresh.zero_shot
    assert again.probabilities is not None and alone is not None and alone.probabilities is not None
    assert np.allclose([row["tuned"] for row in rows], again.probabilities, atol=1e-4)
    assert np.allclose([row["base"] for row in rows], alone.probabilities, atol=1e-4)
    assert [row["row"] for row in rows] == examples.validation.rows.tolist()
    assert [row["gold"] for row in rows] == fresh.validation_gold
    assert [row["input"]["text"] for row in rows] == [example.values["text"] for example in examples.validation]
    changed = sum(a != b for a, b in zip(again.predicted, alone.predicted, strict=True))
    assert header == {
        "kind": "labels", "labels": ["bad", "good"], "columns": ["text"], "step": trained.metrics["best_step"],
        "rows": len(rows), "kept": len(rows), "changed": changed, "compared": len(rows),
    }  # fmt: skip
    found = read_predictions(RunDirectory(tmp_path / "run").predictions)
    assert found is not None and found.confusion == trained.metrics["confusion"]
    assert changed_answers(RunDirectory(tmp_path / "run").predictions) == (changed, len(rows))


@pytest.mark.parametrize("changes", [{}, {"base_weights": "tuned", "base_learning_rate": 1e-3}])
def test_a_resumed_run_writes_the_same_file(
    tmp_path: Path, tiny_gpt2: Path, table: Table, changes: dict[str, Any]
) -> None:
    settings = settings_for(tiny_gpt2, **changes)
    train(settings, table, tmp_path / "whole")
    train(settings, table, tmp_path / "parts", stop_at=5)
    train(settings, table, tmp_path / "parts")
    assert written(tmp_path / "whole") == written(tmp_path / "parts")


def test_a_new_head_has_nothing_to_compare_with(tmp_path: Path, tiny_bert: Path, table: Table) -> None:
    train(settings_for(tiny_bert, template="[P*4] {text} [HEAD:label]"), table, tmp_path / "run")
    header, *rows = written(tmp_path / "run")
    assert header["changed"] is None and {row["base"] for row in rows} == {None}


def test_generated_texts_stand_beside_their_targets(tmp_path: Path, tiny_gpt2: Path) -> None:
    table = ingest_text("text,answer\n" + "".join(f"dog {i},the dog is {i}\n" for i in range(30)), tmp_path / "data")
    train(settings_for(tiny_gpt2, template="{text} [P*4] so[ANSWER:answer]", eval_every=8), table, tmp_path / "run")
    header, *rows = written(tmp_path / "run")
    assert header["kind"] == "text" and header["labels"] is None and header["kept"] == len(rows) == 3
    assert all(row["gold"].startswith("the dog is") and isinstance(row["tuned"], str) for row in rows)


def test_words_to_choose_are_named(tmp_path: Path, tiny_gpt2: Path, table: Table) -> None:
    words = ["good", "bad"]
    train(settings_for(tiny_gpt2, template="{text} [P*4] [ANSWER:label]", candidates=words), table, tmp_path / "run")
    header, *rows = written(tmp_path / "run")
    assert header["kind"] == "words" and {row["gold"] for row in rows} == set(words)
    assert all(row["tuned"] in words and row["base"] in words and 0 < row["p"] <= 1 for row in rows)


def test_every_trial_has_its_own_and_the_run_the_bests(tmp_path: Path, tiny_gpt2: Path, table: Table) -> None:
    trained = train(settings_for(tiny_gpt2, sweep={"learning_rate": [0.01, 0.0001]}), table, tmp_path / "run")
    of_trials = [written(directory_of(tmp_path / "run", number)) for number in (0, 1)]
    assert of_trials[0] != of_trials[1]
    best = [0.01, 0.0001].index(trained.settings["learning_rate"])
    assert written(tmp_path / "run") == of_trials[best]


def test_of_very_many_rows_some_are_kept_evenly(
    tmp_path: Path, tiny_gpt2: Path, table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(settings_for(tiny_gpt2), table, tmp_path / "all")
    monkeypatch.setattr(predictions, "MOST_NUMBERS", 8)
    monkeypatch.setattr(predictions, "MOST_CHARACTERS", 5)
    train(settings_for(tiny_gpt2), table, tmp_path / "some")
    (_, *all_rows), (header, *rows) = written(tmp_path / "all"), written(tmp_path / "some")
    assert header["kept"] == len(rows) == 4 and header["rows"] == len(all_rows)
    places = [i * len(all_rows) // 4 for i in range(4)]
    assert [row["tuned"] for row in rows] == [all_rows[place]["tuned"] for place in places]
    whole = [all_rows[place]["input"]["text"] for place in places]
    assert [row["input"]["text"] for row in rows] == [text[:5] + "…" for text in whole]
