"""A template looked at before there is an adapter: the worked examples of the design, on tiny real tokenizers."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any, cast

import pytest
from transformers import AutoTokenizer

from ptune_core.errors import BaseModelError, DataError, NotOnThisMachine, SettingsError
from ptune_core.inference.engine import Engine
from ptune_core.inference.protocol import Look, Looked, Measure, Measured
from ptune_core.model.base import load_base_model
from ptune_core.model.outline import load_outline
from ptune_core.model.prompted import PromptedModel
from ptune_core.prompt.template import TargetKind, parse_template
from ptune_core.prompt.verbalizer import Verbalizer

YES_NO = {"0": " no", "1": " yes"}


def look(base: Path | str, template: str, values: dict[str, str], **options: Any) -> Looked:
    request = Look.model_validate({"base_model": str(base), "template": template, "values": values, **options})
    engine = Engine()
    assert engine.base_key(request) is None, "no base model is needed"
    (seen,) = engine.answer(request)
    return cast(Looked, seen)


def measure(base: Path | str, template: str, rows: list[dict[str, str]], **options: Any) -> Measured:
    request = Measure.model_validate({"base_model": str(base), "template": template, "rows": rows, **options})
    (measured,) = Engine().answer(request)
    return cast(Measured, measured)


def drawn(seen: Looked) -> str:
    """The pieces as one line: virtual tokens as a dot each, the target in brackets, what is cut in braces."""
    shown = {"virtual": "•", "target": "[{}]", "cut": "{{{}}}"}
    return "".join(shown.get(piece["kind"], "{}").format(piece["text"]) for piece in seen["pieces"])


@pytest.fixture(scope="session")
def tiny_chat(tiny_llama: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tiny-chat") / "model"
    shutil.copytree(tiny_llama, folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.chat_template = "{% for m in messages %}<{{ m.role }}>\n{{ m.content }}\n{% endfor %}"
    tokenizer.save_pretrained(folder)
    return folder


EXAMPLES = {
    "1 BoolQ": (
        "tiny_gpt2",
        "{passage~} [P*3] Question: {question}? [P*3] Answer:[ANSWER:label]",
        {"passage": "the film was great", "question": "is the film great", "label": "1"},
        YES_NO,
        "the film was great••• Question: is the film great?••• Answer:[ yes]",
    ),
    "2 CB": (
        "tiny_bert_lm",
        "{premise~} Question: {hypothesis|strip_punct}? [P*4] Answer: [MASK:label].",
        {"premise": "the film was great .", "hypothesis": "the food was bad .", "label": "0"},
        {"0": "no", "1": "yes"},
        "[CLS] the film was great. question: the food was bad?•••• answer:[[MASK]].[SEP]",
    ),
    "3 head, decoder": (
        "tiny_gpt2",
        "[P*10] {text~} [HEAD:label]",
        {"text": "the food was bad", "label": "1"},
        YES_NO,
        "••••••••••the food was bad[1]",
    ),
    "3 head, encoder": (
        "tiny_bert",
        "[P*10] {text~} [HEAD:label]",
        {"text": "the food was bad", "label": "1"},
        None,
        "••••••••••[CLS] the food was bad[SEP][1]",
    ),
    "4 chat": (
        "tiny_chat",
        "system: the film was great. [P*2:task]\nuser: {context~}\nassistant: [ANSWER:answer]",
        {"context": "a small dog", "answer": "once upon a time"},
        None,
        "<system>\nthe film was great.••\n<user>\na small dog\n<assistant>\n[once][ upon][ a][ time][<|endoftext|>]",
    ),
    "4 plain": (
        "tiny_gpt2",
        '[P="the film was great"] {dialogue~}\nSummary:[ANSWER:summary]',
        {"dialogue": "once upon a time", "summary": "a dog"},
        None,
        "••••once upon a time\nSummary:[ a][ dog][<|endoftext|>]",
    ),
    "5 LAMA, GPT": (
        "tiny_gpt2",
        "[P*3] {sub_label} [P*3][ANSWER:obj_label]",
        {"sub_label": "France", "obj_label": "Paris"},
        {"Paris": " Paris", "film": " film"},
        "••• France•••[ Paris]",
    ),
    "5 LAMA, BERT": (
        "tiny_bert_lm",
        "[P*3] {sub_label} [P*3] [MASK:obj_label] [P*3]",
        {"sub_label": "france", "obj_label": "paris"},
        {"paris": "paris", "film": "film"},
        "[CLS]••• france•••[[MASK]]•••[SEP]",
    ),
    "6 RTE": (
        "tiny_bert_lm",
        "{premise~} [P*3] {hypothesis|strip_punct}? [P*3] [MASK:label]",
        {"premise": "the film was great", "hypothesis": "the food was bad !", "label": "1"},
        {"0": "no", "1": "yes"},
        "[CLS] the film was great••• the food was bad?•••[[MASK]][SEP]",
    ),
    "7 sentiment": (
        "tiny_gpt2",
        "{text~} [P*8][ANSWER:label]",
        {"text": "the film was great", "label": "positive"},
        {"negative": " terrible", "positive": " great"},
        "the film was great••••••••[ great]",
    ),
}
"""Worked examples of the design: base model, template, a row, answers, and what it looks like."""


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_worked_examples_look_as_they_are_read(name: str, request: pytest.FixtureRequest) -> None:
    base, template, values, labels, expected = EXAMPLES[name]
    seen = look(request.getfixturevalue(base), template, values, labels=labels)
    assert drawn(seen) == expected
    assert not any(answer["problem"] for answer in seen["answers"])
    virtual = sum(piece["kind"] == "virtual" for piece in seen["pieces"])
    assert seen["num_virtual_tokens"] == virtual


@pytest.mark.parametrize("name", EXAMPLES)
def test_it_is_the_row_that_a_run_trains_on(name: str, request: pytest.FixtureRequest) -> None:
    """Without weights the preview must say what the loaded model would: tokens, their number, the longest row."""
    base, text, values, labels, _ = EXAMPLES[name]
    folder, template = request.getfixturevalue(base), parse_template(text)
    kind = template.target.kind
    loaded = load_base_model(str(folder), target=kind, num_labels=2, device="cpu", precision="fp32")
    verbalizer = Verbalizer.from_labels(list(labels), labels) if labels and kind is not TargetKind.HEAD else None
    model = PromptedModel(loaded, template, verbalizer)
    row = model.make_rows([values])[0]
    seen = look(folder, text, values, labels=labels)
    assert seen["length"] - seen["num_answer"] == len(row.ids)
    assert seen["max_length"] == model.max_length
    assert seen["num_reused"] == (len(row.context) if loaded.is_causal else 0)
    assert load_outline(str(folder), target=kind).max_positions == loaded.max_positions
    measured = measure(folder, text, [values, values], labels=labels)
    assert measured["lengths"] == [seen["length"]] * 2 and measured["cut"] == [0, 0]


def test_a_long_text_shows_what_is_cut(tiny_gpt2: Path) -> None:
    values = {"text": "great film " * 100, "label": "1"}
    seen = look(tiny_gpt2, "{text~} [P*8][ANSWER:label]", values, labels=YES_NO, max_length=32)
    assert seen["length"] == seen["max_length"] == 32
    assert seen["num_cut"] > 100 and sum(piece["kind"] == "cut" for piece in seen["pieces"]) > 100
    assert seen["num_reused"] == 24
    measured = measure(tiny_gpt2, "{text~} [P*8][ANSWER:label]", [values], labels=YES_NO, max_length=32)
    assert measured == {"lengths": [32], "cut": [seen["num_cut"]], "max_length": 32}


def test_an_answer_without_room_is_told_and_counted(tiny_gpt2: Path) -> None:
    rows = [{"text": "great", "label": "film " * 100}, {"text": "great", "label": "film"}]
    with pytest.raises(DataError, match="answer is too long"):
        look(tiny_gpt2, "{text~} [P*8][ANSWER:label]", rows[0])
    lengths = measure(tiny_gpt2, "{text~} [P*8][ANSWER:label]", rows)["lengths"]
    assert lengths[0] == -1 and lengths[1] > 8


def test_answers_come_with_their_tokens_and_what_makes_them_alike(tiny_gpt2: Path, tiny_bert_lm: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_gpt2)
    labels = {"a": " great film", "b": " great food", "c": " bad"}
    seen = look(tiny_gpt2, "{text~} [P*8][ANSWER:label]", {"text": "film", "label": "a"}, labels=labels)
    for answer in seen["answers"]:
        assert answer["ids"] == tokenizer(labels[answer["label"]])["input_ids"]
        assert "".join(answer["tokens"]) == labels[answer["label"]]
    problems = {answer["label"]: answer["problem"] for answer in seen["answers"]}
    assert "begin with the same token" in problems["a"] and problems["a"] == problems["b"] and not problems["c"]

    labels = {"a": "great film", "b": "bad"}
    seen = look(tiny_bert_lm, "{text} [P*2] [MASK:label]", {"text": "film", "label": "a"}, labels=labels)
    problems = {answer["label"]: answer["problem"] for answer in seen["answers"]}
    assert "has 2 tokens, the template 1 mask" in problems["a"] and not problems["b"]


def test_answers_filled_from_the_row_are_this_rows(tiny_gpt2: Path) -> None:
    labels = {"0": " {one}", "1": " {two}"}
    values = {"text": "the film", "one": "great", "two": "bad", "label": "1"}
    seen = look(tiny_gpt2, "{text} [P*2][ANSWER:label]", values, labels=labels)
    assert drawn(seen).endswith("••[ bad]")
    assert ["".join(answer["tokens"]) for answer in seen["answers"]] == [" great", " bad"]


def test_an_encoder_decoder_reads_without_its_answer(tiny_t5: Path) -> None:
    seen = look(tiny_t5, "[P*4] {text~} [ANSWER:answer]", {"text": "the film", "answer": "great"})
    assert seen["num_answer"] == 0 and seen["num_reused"] == 0
    assert [piece["text"] for piece in seen["pieces"] if piece["kind"] == "target"][0].strip() == "great"


def test_no_weights_are_loaded(tiny_gpt2: Path, tmp_path: Path) -> None:
    without = tmp_path / "model"
    shutil.copytree(tiny_gpt2, without, ignore=shutil.ignore_patterns("*.safetensors"))
    seen = look(without, "{text~} [P*8][ANSWER:label]", {"text": "the film", "label": "1"}, labels=YES_NO)
    assert drawn(seen) == "the film••••••••[ yes]"


def test_a_folder_that_changed_is_read_again(tiny_llama: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(tiny_llama, folder)
    engine = Engine()
    request = Look(base_model=str(folder), template="user: {a} [P]\nassistant: [ANSWER:b]", values={"a": "x", "b": "y"})
    with pytest.raises(SettingsError, match="not a chat model"):
        list(engine.answer(request))
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.chat_template = "{% for m in messages %}{{ m.content }};{% endfor %}"
    tokenizer.save_pretrained(folder)
    (seen,) = engine.answer(request)
    assert drawn(cast(Looked, seen)).startswith("x•;[ ][y]")


@pytest.mark.parametrize(
    ("base_model", "template", "error", "message"),
    [
        ("someone/not-here", "{text} [P][ANSWER:label]", NotOnThisMachine, "not on this machine yet"),
        ("no such folder", "{text} [P][ANSWER:label]", BaseModelError, "There is no base model"),
        ("demo", "{text} [P] [MASK:label]", BaseModelError, "not trained to fill masks"),
        ("demo", "{text} {other} [P][ANSWER:label]", DataError, "no other"),
        ("demo", "user: {text} [P]\nassistant: [ANSWER:label]", SettingsError, "not a chat model"),
    ],
)
def test_what_cannot_be_looked_at_says_why(
    base_model: str, template: str, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        look(base_model, template, {"text": "x", "label": "1"})


def test_fetching_offline_is_a_plain_sentence() -> None:
    with pytest.raises(BaseModelError, match="the Hub cannot be reached"):
        look("someone/not-here", "{text} [P][ANSWER:label]", {"text": "x", "label": "1"}, fetch=True)
