"""Which way suits labels, and how far the steps reach: what is said before a run, and what the buttons change."""

from __future__ import annotations

from typing import Any

import pytest

from ptune_core.model.facts import BaseFacts
from ptune_core.prompt.template import TargetKind, parse_template
from ptune_core.training.checks import Check, Level, Machine, Rows, checks
from ptune_core.training.settings import RunSettings
from ptune_core.training.ways import head_instead, head_template, told

WRITER = BaseFacts((TargetKind.ANSWER, TargetKind.HEAD), 100_000_000, 768, 1024)
READER = BaseFacts((TargetKind.MASK, TargetKind.HEAD), 100_000_000, 768, 512)
TRANSLATOR = BaseFacts((TargetKind.ANSWER,), 100_000_000, 768, 512)
MANY = {f"intent{i}": 130 for i in range(77)}
ROWS = Rows(9000, 1003, MANY, {label: f" {label}" for label in MANY})
TWO = Rows(500, 100, {"bad": 300, "good": 300}, {"bad": " bad", "good": " good"})
HEAD = {"reads": "mean", "accuracy": 0.63, "rows": 1280}
WAYS = {"answer": {"accuracy": 0.33, "rows": 256}, "mask": {"accuracy": 0.33, "rows": 256}, "head": HEAD}
ANSWERS, MASK = "{text~} [P*8][ANSWER:label]", "[P*8] {text~} It is [MASK:label]."


def found(
    values: dict[str, Any], rows: Rows = ROWS, base: BaseFacts = WRITER, ways: dict[str, Any] | None = None
) -> dict[str, Check]:
    machine = Machine(8_000_000_000, 16_000_000_000)
    return {each.key: each for each in checks(RunSettings.parse(values), rows, base, machine, ways or {})}


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("{text~} [P*8][ANSWER:label]", "[P*20] {text~} [HEAD:label]"),
        ("[P*4] {text} [P*4][ANSWER:label]", "[P*20] {text} [HEAD:label]"),
        ("{a~} [P*3] Question: {b|strip_punct}? [P*3] Answer:[ANSWER:y]", "[P*20] {a~} {b|strip_punct} [HEAD:y]"),
        ("[CLS] {a} [SEP] {b} [P*2] It is [MASK:y] [SEP]", "[P*20] {a} [SEP] {b} [HEAD:y]"),
        ("system: [P*8]\nuser: {text~}\nassistant: [ANSWER:label]", "[P*20] {text~} [HEAD:label]"),
        ("{a} {a} {{x}} [P*2] [MASK*2:label].", "[P*20] {a} [HEAD:label]"),
    ],
)
def test_a_template_for_a_head_has_the_same_columns_and_its_virtual_tokens_in_front(
    template: str, expected: str
) -> None:
    assert head_template(template) == expected
    assert parse_template(expected).is_front and parse_template(expected).target.kind is TargetKind.HEAD


@pytest.mark.parametrize(("template", "base"), [(ANSWERS, WRITER), (MASK, READER)])
def test_many_labels_get_a_head_by_a_button_before_anything_is_measured(template: str, base: BaseFacts) -> None:
    check = found({"template": template}, base=base)["way"]
    assert check.level is Level.NOTE and "77 labels" in check.text and check.fix is not None
    fixed = {"template": template} | check.fix.values
    assert check.fix.values == {"template": "[P*20] {text~} [HEAD:label]"} and "way" not in found(fixed, base=base)


@pytest.mark.parametrize(("template", "base"), [(ANSWERS, WRITER), (MASK, READER)])
def test_what_was_measured_names_the_better_way(template: str, base: BaseFacts) -> None:
    check = found({"template": template}, TWO, base, WAYS)["way"]
    words = "words in the mask" if base is READER else "answer words"
    assert check.level is Level.NOTE and check.text == (
        "A classification head that reads the mean of the text's last hidden states starts at 0.63 here (measured on "
        f"1,280 rows), {words} at 0.33 (on 256 rows)."
    )
    assert check.fix is not None
    after = found({"template": template} | check.fix.values, TWO, base, WAYS)["way"]
    assert after.level is Level.GOOD and "starts at 0.63" in after.text and after.fix is None


def test_words_that_do_better_stay() -> None:
    better = WAYS | {"answer": {"accuracy": 0.62, "rows": 256}}
    check = found({"template": ANSWERS}, ROWS, WRITER, better)["way"]
    assert check.level is Level.GOOD and check.fix is None


@pytest.mark.parametrize(
    ("values", "rows", "base"),
    [
        ({"template": ANSWERS}, ROWS, TRANSLATOR),
        ({"template": ANSWERS}, ROWS, BaseFacts()),
        ({"template": ANSWERS}, TWO, WRITER),
        ({"template": ANSWERS}, Rows(500, 100), WRITER),
        ({"template": ANSWERS, "sweep": {"template": [ANSWERS, "[P*8] {text~} [ANSWER:label]"]}}, ROWS, WRITER),
        ({"template": ANSWERS, "labels": {"0": " {choice1}", "1": " {choice2}"}}, ROWS, WRITER),
    ],
)
def test_nothing_is_said_where_a_head_cannot_be_or_nothing_is_known(
    values: dict[str, Any], rows: Rows, base: BaseFacts
) -> None:
    assert "way" not in found(values, rows, base)


def test_a_head_of_few_rows_has_few_virtual_tokens() -> None:
    assert head_instead(RunSettings(template=ANSWERS), 40) == {"template": "[P*4] {text~} [HEAD:label]"}
    assert head_instead(RunSettings(template="[P*4] {text~} [HEAD:label]"), 40) == {}


def test_steps_that_do_not_reach_all_rows_are_told_with_those_that_do() -> None:
    """Bug: 60 steps saw a third of the rows, and every check passed."""
    check = found({"max_steps": 200, "batch_size": 16})["reach"]
    assert check.level is Level.NOTE and check.fix is not None
    assert check.text.startswith("200 steps of 16 see 3,200 of 9,000 training rows once")
    fixed = found({"batch_size": 16} | check.fix.values)["reach"]
    assert check.fix.values == {"max_steps": 563} and fixed.level is Level.GOOD and "1.0 times" in fixed.text


@pytest.mark.parametrize(
    ("values", "level"),
    [
        ({"max_steps": 562}, Level.NOTE),
        ({"max_steps": 563}, Level.GOOD),
        ({"max_steps": 282, "gradient_accumulation_steps": 2}, Level.GOOD),
        ({"epochs": 0.5}, Level.NOTE),
        ({"epochs": 2.0}, Level.GOOD),
    ],
)
def test_reach_counts_batches_accumulation_and_epochs(values: dict[str, Any], level: Level) -> None:
    check = found({"batch_size": 16} | values)["reach"]
    assert check.level is level
    if check.fix is not None:
        assert found({"batch_size": 16} | values | check.fix.values)["reach"].level is Level.GOOD


def test_a_terminal_is_told_the_same() -> None:
    assert told({}) == ""
    assert told({name: WAYS[name] for name in ("answer", "head")}) == (
        "A classification head that reads the mean of the text's last hidden states starts at 0.63 here (measured on "
        "1,280 rows); answer words start at 0.33 (on 256 rows)"
    )
