"""What a classification head reads, what `auto` makes of it, and where the head starts."""

from __future__ import annotations

import itertools
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import numpy as np
import pytest
import torch
from transformers import AlbertConfig, AlbertModel, AutoTokenizer, ElectraConfig, ElectraModel

from ptune_core.adapters.format import load_adapter, save_adapter
from ptune_core.data.ingest import ingest_text
from ptune_core.data.table import Table
from ptune_core.errors import SettingsError
from ptune_core.inference.loaded import put_head_on
from ptune_core.model.base import BaseModel, load_base_model, with_head_input
from ptune_core.model.head_input import HeadInput
from ptune_core.model.prompted import PromptedModel
from ptune_core.prompt.template import TargetKind, parse_template
from ptune_core.prompt.verbalizer import Verbalizer
from ptune_core.training.evaluating import EvaluationPlan
from ptune_core.training.frozen import read_rows
from ptune_core.training.metrics import Evaluation
from ptune_core.training.probe import Probe
from ptune_core.training.tasks import LabelTask
from tests.training.recorder import Recorder
from tests.training.test_session import LABELLED, settings_for

HEAD = "[P*4] {text} [HEAD:label]"
WAYS = ["model", "mean", "last", "first"]


@pytest.fixture
def table(tmp_path: Path) -> Table:
    return ingest_text(LABELLED, tmp_path / "data")


def base_of(folder: Path, way: str) -> BaseModel:
    loaded = load_base_model(str(folder), target=TargetKind.HEAD, num_labels=2, device="cpu", precision="fp32")
    return with_head_input(loaded, HeadInput(way))


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("base", ["tiny_bert", "tiny_gpt2"])
def test_every_way_trains_exports_and_scores_as_in_training(
    request: pytest.FixtureRequest, tmp_path: Path, table: Table, base: str, way: str
) -> None:
    folder = request.getfixturevalue(base)
    recorder = Recorder()
    result = recorder.train(settings_for(folder, template=HEAD, head_input=way), table, tmp_path / "run")
    assert result["head"]["head_input"] == way and result["head"]["why"] == "set"
    [trained] = recorder.exported
    save_adapter(trained, tmp_path / "adapter")
    loaded = load_adapter(tmp_path / "adapter")
    assert loaded.head_input == way
    config = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    assert (config["peft_type"] == "P_TUNING") == (way == "model"), "stock PEFT would read something else"
    labels = Verbalizer.from_labels(loaded.labels, None)
    model = PromptedModel(base_of(folder, way), parse_template(HEAD), labels)
    put_head_on(model.base, loaded.head)
    texts = [line.rsplit(",", 1) for line in LABELLED.splitlines()[1:]]
    scores = model.scores(model.make_rows([{"text": text} for text, _ in texts]), loaded.prompt_embeddings)
    right = [loaded.labels[i] == label for i, (_, label) in zip(scores.argmax(dim=1).tolist(), texts, strict=True)]
    assert sum(right) / len(right) >= result["value"] - 0.2, "the adapter is what was measured"


@pytest.mark.parametrize("way", WAYS[1:])
@pytest.mark.parametrize("base", ["tiny_bert", "tiny_gpt2", "tiny_llama"])
def test_padding_and_other_rows_of_the_batch_change_nothing(
    request: pytest.FixtureRequest, base: str, way: str
) -> None:
    loaded = base_of(request.getfixturevalue(base), way)
    assert isinstance(loaded.head, torch.nn.Linear)
    torch.manual_seed(0)
    torch.nn.init.normal_(loaded.head.weight)
    model = PromptedModel(loaded, parse_template(HEAD), Verbalizer.from_labels(("a", "b"), None))
    prompt = 0.1 * torch.randn(4, loaded.hidden_size)
    texts = ["great film", "a", "it was a bad film and the food was bad", "great great great"]
    rows = model.make_rows([{"text": text} for text in texts])
    with torch.no_grad():
        together = model.label_logits(model.label_batch(rows), prompt)
        alone = torch.cat([model.label_logits(model.label_batch([row]), prompt) for row in rows])
        stored = model.scores(rows, prompt, model.prefix(prompt))
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(stored, alone, rtol=1e-4, atol=1e-4)


def test_the_mean_leaves_out_virtual_tokens_and_what_a_text_begins_with(tiny_bert: Path) -> None:
    base = base_of(tiny_bert, "mean")
    model = PromptedModel(base, parse_template(HEAD), Verbalizer.from_labels(("a", "b"), None))
    prompt = torch.randn(4, base.hidden_size)
    [row] = model.make_rows([{"text": "great film"}])
    batch, call = model.whole_batch([row], prompt)
    hidden = base.body(**call.inputs).last_hidden_state[0]
    kept = [i for i, number in enumerate(row.ids) if number >= 0 and number != base.tokenizer.cls_token_id]
    read = model.read(batch, call.inputs["inputs_embeds"], None, None)
    torch.testing.assert_close(read[0], hidden[kept].mean(dim=0), rtol=1e-4, atol=1e-4)


def test_a_decoders_text_before_the_prompt_cannot_be_read(tmp_path: Path, tiny_gpt2: Path, table: Table) -> None:
    settings = settings_for(tiny_gpt2, template="{text} [P*4] [HEAD:label]", head_input="mean")
    with pytest.raises(SettingsError, match=r"virtual tokens cannot change.*head_input: mean"):
        Recorder().train(settings, table, tmp_path / "run")


def test_auto_measures_and_says_what_it_found(tmp_path: Path, tiny_gpt2: Path, table: Table) -> None:
    recorder = Recorder()
    result = recorder.train(settings_for(tiny_gpt2, template=HEAD), table, tmp_path / "run")
    head = result["head"]
    assert head["why"] == "measured" and set(head["accuracies"]) == {"model", "mean", "first"}
    best = max(head["accuracies"].values())
    assert head["accuracies"][head["head_input"]] >= best - 0.005
    assert recorder.of("plan")[0]["head"] == head


@pytest.mark.parametrize(("mode", "way"), [("mean_tokens", "mean"), ("cls_token", "first"), ("lasttoken", "last")])
def test_auto_takes_what_the_base_model_was_trained_with(
    tmp_path: Path, tiny_bert: Path, table: Table, mode: str, way: str
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(tiny_bert, folder)
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text(json.dumps({f"pooling_mode_{mode}": True}))
    result = Recorder().train(settings_for(folder, template=HEAD, max_steps=1), table, tmp_path / "run")
    assert result["head"] == {"head_input": way, "why": "trained", "accuracies": {}, "rows": 0}


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"pooling_mode_max_tokens": true}', "[" * 5000])
def test_a_pooling_file_that_says_nothing_is_no_answer(
    tmp_path: Path, tiny_bert: Path, table: Table, content: str
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(tiny_bert, folder)
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text(content)
    result = Recorder().train(settings_for(folder, template=HEAD, max_steps=1), table, tmp_path / "run")
    assert result["head"]["why"] == "measured"


def test_a_head_starts_as_a_probe_and_the_result_stands_beside_one(
    tmp_path: Path, tiny_bert: Path, table: Table
) -> None:
    recorder = Recorder()
    settings = settings_for(tiny_bert, template=HEAD, head_input="mean", learning_rate=1e-6)
    result = recorder.train(settings, table, tmp_path / "run")
    baseline = recorder.of("baseline")[0]
    assert baseline["zero_shot"] is None, "a new head is no baseline"
    assert baseline["probe"] == result["baseline_probe"] > baseline["majority"]
    low, high = result["probe_interval"]
    assert low <= result["baseline_probe"] <= high and result["probe_reads"] == "mean"
    assert recorder.of("eval")[0]["value"] >= result["baseline_probe"] - 0.2, "from the first evaluation on"


def test_trials_that_start_alike_read_their_rows_once(
    tmp_path: Path, tiny_bert: Path, table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = MagicMock(side_effect=read_rows)
    monkeypatch.setattr("ptune_core.training.frozen.read_rows", read)
    sweep: dict[str, Any] = {"learning_rate": [0.05, 0.01, 0.002]}
    Recorder().train(settings_for(tiny_bert, template=HEAD, head_input="mean", sweep=sweep), table, tmp_path / "run")
    with_prompt = [call for call in read.call_args_list if call.args[3] is not None]
    assert len(with_prompt) == 1


def test_a_head_that_reads_what_is_another_behind_virtual_tokens_is_fitted_there(
    tmp_path: Path, tiny_bert: Path, table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Probe, "aligned", lambda probe, before, after: replace(probe, weight=-probe.weight))
    recorder = Recorder()
    settings = settings_for(tiny_bert, template=HEAD, head_input="mean", learning_rate=1e-6)
    result = recorder.train(settings, table, tmp_path / "run")
    assert recorder.of("eval")[0]["value"] >= result["baseline_probe"] - 0.2


def test_from_zero_all_labels_are_alike_at_first(tmp_path: Path, tiny_bert: Path, table: Table) -> None:
    recorder = Recorder()
    recorder.train(settings_for(tiny_bert, template=HEAD, head_start="zero"), table, tmp_path / "run")
    assert recorder.of("eval")[0]["loss"] == pytest.approx(torch.log(torch.tensor(2.0)).item(), abs=1e-6)


def test_a_sweep_over_what_is_read_trains_each_as_alone(tmp_path: Path, tiny_bert: Path, table: Table) -> None:
    """E.1: the second trial's start was measured through what the first one had left on the shared head."""
    together = Recorder()
    sweep: dict[str, Any] = {"head_input": ["mean", "model", "mean"]}
    result = together.train(settings_for(tiny_bert, template=HEAD, sweep=sweep), table, tmp_path / "sweep")
    assert len(result["sweep"]) == 3
    losses = [[line["loss"] for line in together.of("step") if line["trial"] == i] for i in range(3)]
    assert losses[0] == losses[2] != losses[1]
    for number, way in enumerate(["mean", "model"]):
        alone = Recorder()
        alone.train(settings_for(tiny_bert, template=HEAD, head_input=way), table, tmp_path / way)
        assert [line["loss"] for line in alone.of("step")] == pytest.approx(losses[number], rel=1e-4)


def test_trials_of_a_rate_sweep_have_one_start(tmp_path: Path, tiny_bert: Path, table: Table) -> None:
    """E.1: evaluations of one setting were 0.225 alone and 0.317 as the second trial of a sweep."""
    recorder = Recorder()
    sweep = {"learning_rate": [0.05, 0.01]}
    recorder.train(settings_for(tiny_bert, template=HEAD, head_input="model", sweep=sweep), table, tmp_path / "run")
    first, second = ([line for line in recorder.of("eval") if line["trial"] == i][0] for i in (0, 1))
    assert (first["loss"], first["value"]) == (second["loss"], second["value"])


@pytest.mark.parametrize("way", ["mean", "last"])
def test_a_stopped_run_resumes_exactly(tmp_path: Path, tiny_bert: Path, table: Table, way: str) -> None:
    settings = settings_for(tiny_bert, template=HEAD, head_input=way)
    whole, parts = Recorder(), Recorder()
    whole.train(settings, table, tmp_path / "whole")
    parts.train(settings, table, tmp_path / "parts", stop_at=5)
    parts.train(settings, table, tmp_path / "parts")
    (expected,), found = whole.exported, parts.exported[-1]
    assert all(torch.equal(expected.head[name], found.head[name]) for name in expected.head)
    assert [line["loss"] for line in parts.of("step")] == [line["loss"] for line in whole.of("step")]


def test_widths_that_differ_from_the_word_embeddings_give_an_adapter(
    tmp_path: Path, tiny_bert: Path, table: Table
) -> None:
    """E.8: ALBERT's words are narrower than its hidden states; its runs trained to the end and gave no adapter."""
    config = AlbertConfig(
        vocab_size=len(AutoTokenizer.from_pretrained(tiny_bert)), embedding_size=16, hidden_size=32,
        num_attention_heads=2, num_hidden_layers=1,
        intermediate_size=32, max_position_embeddings=34,
    )  # fmt: skip
    AlbertModel(config).save_pretrained(tmp_path / "albert")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(tiny_bert / name, tmp_path / "albert")
    for way in ("mean", "model"):
        recorder = Recorder()
        settings = settings_for(tmp_path / "albert", template=HEAD, head_input=way)
        recorder.train(settings, table, tmp_path / way)
        save_adapter(recorder.exported[0], tmp_path / f"adapter-{way}")
        loaded = load_adapter(tmp_path / f"adapter-{way}")
        assert loaded.prompt_embeddings.shape == (4, 16) and loaded.head["classifier.weight"].shape == (2, 32)


def test_a_resumed_seed_sweep_reads_through_the_layers_that_an_undisturbed_one_has(
    tmp_path: Path, tiny_bert: Path, table: Table
) -> None:
    """Bug: rows were read through the layers of whichever trial first came to it, another one after a resume."""
    config = ElectraConfig(
        vocab_size=len(AutoTokenizer.from_pretrained(tiny_bert)), embedding_size=32, hidden_size=32,
        num_attention_heads=2, num_hidden_layers=1, intermediate_size=32, max_position_embeddings=34,
    )  # fmt: skip
    ElectraModel(config).save_pretrained(tmp_path / "electra")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(tiny_bert / name, tmp_path / "electra")
    sweep: dict[str, Any] = {"seed": [0, 1]}
    settings = settings_for(tmp_path / "electra", template=HEAD, head_input="model", checkpoint_every=2, sweep=sweep)
    whole, parts = Recorder(), Recorder()
    expected = whole.train(settings, table, tmp_path / "whole")
    parts.train(settings, table, tmp_path / "parts", stop_at=3)
    result = parts.train(settings, table, tmp_path / "parts")
    of_second = [[line["loss"] for line in each.of("eval") if line["trial"] == 1] for each in (whole, parts)]
    assert of_second[0] == of_second[1] and of_second[0]
    assert result["baseline_probe"] == expected["baseline_probe"]


def test_a_tuned_base_model_keeps_its_own_head() -> None:
    with pytest.raises(SettingsError, match=r"base_weights: tuned and head_input: mean"):
        settings_for(Path("x"), template=HEAD, base_weights="tuned", head_input="mean")


def test_a_lucky_sample_does_not_keep_a_worse_state(
    tmp_path: Path, tiny_bert: Path, table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bug: step 0 was best on fifty rows, and a run went home with it whose last state was two points better."""
    monkeypatch.setattr("ptune_core.training.lesson.plan_evaluations", lambda work: EvaluationPlan(2, 2, 300))
    whole = LabelTask.evaluate

    def evaluate(task: LabelTask, prompt: torch.Tensor, chosen: np.ndarray | None = None) -> Evaluation:
        found = whole(task, prompt, chosen)
        is_sample = chosen is not None and len(chosen) == 2
        return replace(found, value=1.0 - next(worse) / 100 if is_sample else next(of_last_and_best))

    worse, of_last_and_best = itertools.count(), iter([0.9, 0.7])
    monkeypatch.setattr(LabelTask, "evaluate", evaluate)
    recorder = Recorder()
    settings = settings_for(tiny_bert, template=HEAD, head_input="mean", head_start="zero", learning_rate=0.05)
    result = recorder.train(settings, table, tmp_path / "run")
    assert [line["step"] for line in recorder.of("eval") if line["best"]] == [0], "each sample says less than the first"
    assert (result["best_step"], result["value"]) == (8, 0.9)
    assert recorder.of("final")[0]["rows"] == result["validation_examples"] > 2
