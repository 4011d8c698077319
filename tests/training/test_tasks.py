"""What a task hands to the loop and the text cache, and what it makes of examples that do not fit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from ptune_core.data.examples import ExampleSet
from ptune_core.data.table import ROW, Table
from ptune_core.errors import DataError
from ptune_core.model.base import load_base_model
from ptune_core.model.prompted import PromptedModel
from ptune_core.prompt.template import parse_template
from ptune_core.prompt.verbalizer import Verbalizer
from ptune_core.training import tasks
from ptune_core.training.metrics import Evaluation
from ptune_core.training.tasks import Batching, LabelTask, TextTask

COUNT = 40
TRAIN, VALIDATION = np.arange(30), np.arange(30, COUNT)


@pytest.fixture
def examples(tmp_path: Path) -> ExampleSet:
    """Texts of one to four words; labels in turn; an answer that is too long in every tenth row."""
    numbers = np.arange(COUNT)
    table = Table(tmp_path / "table.parquet", ("text", "label", "answer"), COUNT, [])
    columns = {
        ROW: numbers + 2,
        "text": [" ".join(["great", "film", "bad", "dog"][: 1 + i % 4]) + f" {i}" for i in range(COUNT)],
        "label": ["good", "bad"] * (COUNT // 2),
        "answer": [f"dog {i}" + " and film" * 40 * (i % 10 == 9) for i in range(COUNT)],
    }
    pq.write_table(pa.table(columns), table.path)
    mapping = {name: name for name in ("text", "label")}
    return ExampleSet(table, mapping, "label", numbers, numbers + 2, np.array([1, 0] * (COUNT // 2)))


def prompted(folder: Path, template: str, *, classifies: bool = True, max_length: int | None = None) -> PromptedModel:
    parsed = parse_template(template)
    base = load_base_model(str(folder), target=parsed.target.kind, num_labels=2, device="cpu", precision="fp32")
    verbalizer = Verbalizer.from_labels(["bad", "good"], None) if classifies else None
    return PromptedModel(base, parsed, verbalizer, max_length=max_length)


def label_task(model: PromptedModel, examples: ExampleSet, directory: Path) -> LabelTask:
    return LabelTask(model, examples.select(TRAIN), examples.select(VALIDATION), Batching(4, 3, 0), directory)


def text_task(model: PromptedModel, examples: ExampleSet, directory: Path, validation: np.ndarray) -> TextTask:
    columns = {"text": "text", "answer": "answer"}
    texts = ExampleSet(examples.table, columns, "answer", examples.places, examples.rows)
    return TextTask(model, texts.select(TRAIN), texts.select(validation), Batching(4, 3, 0), directory)


def test_contexts_are_those_that_come_again(
    tiny_gpt2: Path, examples: ExampleSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = label_task(prompted(tiny_gpt2, "{text} is [P*3][ANSWER:label]"), examples, tmp_path)
    validation = {row.context for row in task.validation_rows.rows(range(10))}
    everything = validation | {row.context for row in task.train_rows.rows(range(30))}

    def contexts(num_batches: int) -> set[tuple[int, ...]]:
        return {context for group in task.contexts(num_batches) for context in group}

    assert contexts(8) == validation, "in one epoch a training text comes once"
    assert contexts(9) == everything
    monkeypatch.setattr(tasks, "CACHED_AT_MOST", 29)
    assert contexts(9) == validation, "to know them, all rows would have to be tokenised"


def test_a_prompt_in_front_has_no_contexts(tiny_gpt2: Path, examples: ExampleSet, tmp_path: Path) -> None:
    task = label_task(prompted(tiny_gpt2, "[P*3] {text} [ANSWER:label]"), examples, tmp_path)
    assert list(task.contexts(100)) == []


def test_an_evaluation_does_not_depend_on_its_batches(tiny_gpt2: Path, examples: ExampleSet, tmp_path: Path) -> None:
    model = prompted(tiny_gpt2, "[P*3] {text} [ANSWER:label]")
    prompt = torch.randn(3, 32)
    one, many = (
        LabelTask(model, examples.select(TRAIN), examples.select(VALIDATION), Batching(4, size, 0), tmp_path)
        for size in (1, 64)
    )
    assert one.evaluate(prompt).loss == pytest.approx(many.evaluate(prompt).loss, abs=1e-4)
    assert one.evaluate(prompt).predicted == many.evaluate(prompt).predicted


def test_wrong_predictions_are_shown_first(tiny_gpt2: Path, examples: ExampleSet, tmp_path: Path) -> None:
    task = label_task(prompted(tiny_gpt2, "[P*3] {text} [ANSWER:label]"), examples, tmp_path)
    gold = task.validation_gold
    predicted = tuple(1 - label if i in (4, 7) else label for i, label in enumerate(gold))
    shown = task.samples(Evaluation(1.0, 0.8, predicted, (0.5,) * 10), torch.randn(3, 32))
    assert [sample["row"] for sample in shown] == [36, 39, 32, 33, 34, 35, 37, 38, 40, 41]
    assert [sample["label"] == sample["predicted"] for sample in shown] == [False] * 2 + [True] * 8
    assert shown[0]["text"] == "great film bad 34"


def test_cut_texts_are_told(tiny_gpt2: Path, examples: ExampleSet, tmp_path: Path) -> None:
    task = label_task(prompted(tiny_gpt2, "[P*3] {text} [ANSWER:label]", max_length=8), examples, tmp_path)
    cut = sum(row.num_cut > 0 for row in task.train_rows.rows(range(30)))
    assert 0 < cut < 30 and task.warnings == [f"{cut} of 30 texts were cut to 8 tokens"]


def test_answers_that_do_not_fit_are_left_out_and_told(tiny_gpt2: Path, examples: ExampleSet, tmp_path: Path) -> None:
    model = prompted(tiny_gpt2, "{text} [P*3] so[ANSWER:answer]", classifies=False)
    task = text_task(model, examples, tmp_path, VALIDATION)
    assert (task.num_examples, len(task.validation)) == (27, 9)
    assert task.warnings == [
        "3 training examples have too long an answer (rows 11, 21, 31), left out",
        "1 validation examples have too long an answer (rows 41), left out",
    ]
    with pytest.raises(DataError, match="No validation example fits"):
        text_task(model, examples, tmp_path, np.array([39]))


def test_without_the_prompt_a_long_text_leaves_room_for_its_answer(
    tiny_gpt2: Path, examples: ExampleSet, tmp_path: Path
) -> None:
    """The base model has 64 positions; a text cut to all of them left none for the answer."""
    template = "{text} " * 12 + "[P*1] so[ANSWER:answer]"
    task = text_task(prompted(tiny_gpt2, template, classifies=False), examples, tmp_path, VALIDATION)
    assert any(row.num_cut for row in task.validation_rows.rows(range(9)))
    assert np.isfinite(task.zero_shot.loss)
