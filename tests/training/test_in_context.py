"""The base model with examples in its context: what it reads is what a person would write by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from ptune_core.data.examples import ExampleSet
from ptune_core.data.table import ROW, Table
from ptune_core.model.base import load_base_model
from ptune_core.model.prompted import PromptedModel
from ptune_core.prompt.template import parse_template
from ptune_core.prompt.verbalizer import Verbalizer
from ptune_core.training import in_context as module
from ptune_core.training.in_context import in_context
from ptune_core.training.tasks import Batching, LabelTask, TextTask

TEMPLATE = "[P*3] {text} is[ANSWER:label]"
WORDS = {"bad": " bad", "good": " great"}


@pytest.fixture
def examples(tmp_path: Path) -> ExampleSet:
    """Twenty short texts, of which every fourth is good."""
    numbers = np.arange(20)
    table = Table(tmp_path / "table.parquet", ("text", "label"), 20, [])
    labels = ["good" if i % 4 == 0 else "bad" for i in range(20)]
    texts = [" ".join(["film", "dog", "great"][: 1 + i % 3]) + f" {i % 7}" for i in range(20)]
    pq.write_table(pa.table({ROW: numbers + 2, "text": texts, "label": labels}), table.path)
    indices = np.array([int(label == "good") for label in labels])
    return ExampleSet(table, {"text": "text", "label": "label"}, "label", numbers, numbers + 2, indices)


def task_of(
    folder: Path, examples: ExampleSet, tmp_path: Path, template: str = TEMPLATE, max_length: int | None = None
) -> LabelTask:
    parsed = parse_template(template)
    base = load_base_model(str(folder), target=parsed.target.kind, num_labels=2, device="cpu", precision="fp32")
    model = PromptedModel(base, parsed, Verbalizer.from_labels(list(WORDS), WORDS), max_length=max_length)
    split = examples.select(np.arange(14)), examples.select(np.arange(14, 20))
    return LabelTask(model, *split, Batching(4, 4, 0), tmp_path / "tokens")


@pytest.mark.parametrize("most", [1, 4])
def test_probabilities_are_those_of_the_text_written_by_hand(
    tiny_llama: Path, examples: ExampleSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, most: int
) -> None:
    """With one example whole rows are read, with four what they share is computed once: both are the plain model's."""
    monkeypatch.setattr(module, "MOST_EXAMPLES", most)
    task = task_of(tiny_llama, examples, tmp_path)
    found = in_context(task)
    assert found is not None and found.count == most
    shown = task.train.read(module._drawn(task)[:most])
    lead = "".join(f"{example.values['text']} is{WORDS[example.values['label']]}\n\n" for example in shown)
    tokenizer, model = AutoTokenizer.from_pretrained(tiny_llama), AutoModelForCausalLM.from_pretrained(tiny_llama)
    answers = [tokenizer(word, add_special_tokens=False)["input_ids"][0] for word in WORDS.values()]
    for i, example in enumerate(task.validation):
        # A run of text is tokenised by itself, as in every row.
        parts = [*lead.replace("\n\n", "\n\n|").split("|")[:-1], f"{example.values['text']} is"]
        ids = [tokenizer.eos_token_id] if tokenizer("a")["input_ids"][0] == tokenizer.eos_token_id else []
        for part in parts:
            text, word, end = part.partition(" is")
            ids += tokenizer(text + word, add_special_tokens=False)["input_ids"]
            answer, ending = end.split("\n")[0], "\n\n" * ("\n" in end)
            for each in filter(None, (answer, ending)):
                ids += tokenizer(each, add_special_tokens=False)["input_ids"]
        with torch.no_grad():
            expected = model(torch.tensor([ids])).logits[0, -1, answers].softmax(dim=0)
        assert found.evaluation.probabilities is not None
        torch.testing.assert_close(torch.tensor(found.evaluation.probabilities[i]), expected, atol=1e-4, rtol=1e-4)


def test_labels_take_turns_and_half_of_the_row_is_left_to_the_text(
    tiny_gpt2: Path, examples: ExampleSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = task_of(tiny_gpt2, examples, tmp_path)
    assert task.train.labels is not None
    labels = task.train.labels[module._drawn(task)].tolist()
    assert sorted(labels[:8]) == [0] * 4 + [1] * 4 and len(set(module._drawn(task))) == 14
    leads: list[int] = []

    class Rows(module.RowsAfter):
        def __init__(self, lead: Any, *arguments: Any) -> None:
            leads.append(len(lead))
            super().__init__(lead, *arguments)

    monkeypatch.setattr(module, "RowsAfter", Rows)
    found = in_context(task)
    assert found is not None and 1 <= found.count < 14
    assert 16 < leads[0] <= 32, "of 64 positions"


def test_fewer_rows_at_once_keep_the_examples(tiny_gpt2: Path, examples: ExampleSet, tmp_path: Path) -> None:
    """Each row of a batch has keys and values of all examples: as many rows as usual could take all memory."""
    task = task_of(tiny_gpt2, examples, tmp_path)
    rows = module.RowsAfter([1, 2], task.validation, task.model.base_rows_after(32), tmp_path)
    task.batching = Batching(4, 16, 0)
    assert [len(chosen) for chosen, _ in task._batches(task.validation_rows, None)] == [6]
    assert [len(chosen) for chosen, _ in task._batches(rows, None)] == [2, 2, 2]


def test_no_room_for_an_example(tiny_gpt2: Path, examples: ExampleSet, tmp_path: Path) -> None:
    assert in_context(task_of(tiny_gpt2, examples, tmp_path, max_length=10)) is None
    assert (
        in_context(task_of(tiny_gpt2, examples, tmp_path, "[P*3] {text} is the film great[ANSWER:label]", 14)) is None
    )


@pytest.mark.parametrize("template", ["[P*3] {text} [HEAD:label]", "[P*3] {text} is [MASK:label]"])
def test_only_a_model_that_continues_text_reads_examples(
    tiny_bert: Path, tiny_bert_lm: Path, examples: ExampleSet, tmp_path: Path, template: str
) -> None:
    folder = tiny_bert if "HEAD" in template else tiny_bert_lm
    assert in_context(task_of(folder, examples, tmp_path, template)) is None


def test_texts_to_generate_are_shown_without_their_end(tiny_gpt2: Path, examples: ExampleSet, tmp_path: Path) -> None:
    parsed = parse_template("{text}:[P*3][ANSWER:label]")
    base = load_base_model(str(tiny_gpt2), target=parsed.target.kind, device="cpu", precision="fp32")
    texts = ExampleSet(examples.table, examples.columns, "label", examples.places, examples.rows)
    model = PromptedModel(base, parsed, None)
    task = TextTask(model, texts.select(np.arange(14)), texts.select(np.arange(14, 20)), Batching(4, 4, 0), tmp_path)
    maker = model.base_rows_after(32)
    for ids in module._written(model, maker, task.train, [0, 1]):
        assert base.tokenizer.eos_token_id not in ids
        assert base.tokenizer.decode(ids).endswith(("good\n\n", "bad\n\n"))
    found = in_context(task)
    assert found is not None and found.evaluation.value > 0 and found.count > 1


def test_turns_of_a_chat_are_closed_as_the_model_closes_them(
    tiny_llama: Path, examples: ExampleSet, tmp_path: Path
) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_llama)
    each = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}"
    tokenizer.chat_template = each + "{% if add_generation_prompt %}<assistant>{% endif %}"
    folder = tmp_path / "chat"
    AutoModelForCausalLM.from_pretrained(tiny_llama).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    task = task_of(folder, examples, tmp_path, "user: [P*3]{text}\nassistant: [ANSWER:label]")
    maker = task.model.base_rows_after(64)
    [ids] = module._written(task.model, maker, task.train, [0])
    assert task.model.is_chat
    assert tokenizer.decode(ids) == f"<user>film 0<assistant> great{tokenizer.eos_token}\n"


def test_the_result_of_a_run_tells_it(tiny_gpt2: Path, tmp_path: Path) -> None:
    from ptune_core.data.ingest import ingest_text
    from ptune_core.data.table import Tables
    from ptune_core.training.session import run_training
    from ptune_core.training.settings import RunSettings

    rows = "text,label\n" + "".join(f"film {i},{'good' if i % 2 else 'bad'}\n" for i in range(30))
    settings = RunSettings.parse(
        {
            "base_model": str(tiny_gpt2),
            "data": "pasted",
            "template": "{text} [P*3][ANSWER:label]",
            "max_steps": 3,
            "eval_every": 3,
            "device": "cpu",
            "precision": "fp32",
            "encoder_hidden_size": 16,
        }  # fmt: skip
    )
    tables = Tables(ingest_text(rows, tmp_path / "data"))
    lines: list[dict[str, Any]] = []

    def run(name: str, stop_after: int) -> dict[str, Any]:
        lines.clear()
        return run_training(
            settings, tables, tmp_path / name, report=lines.append, export=lambda trained, directory: None,
            should_stop=lambda: sum(line["kind"] == "step" for line in lines) >= stop_after,
        )  # fmt: skip

    result = run("whole", 9)
    assert 0 <= result["baseline_few_shot"] <= 1 and 1 <= result["few_shot_examples"] <= module.MOST_EXAMPLES
    stopped = run("stopped", 1)
    assert stopped["stopped"] and stopped["baseline_few_shot"] is None, "somebody waits for it"
