"""What is looked at before a run: each problem is found, and its fix ends it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from ptune_core.model.facts import BaseFacts
from ptune_core.prompt.template import TargetKind
from ptune_core.training.checks import Check, Level, Machine, Rows, checks, value_checks
from ptune_core.training.settings import RunSettings

WRITER = BaseFacts((TargetKind.ANSWER, TargetKind.HEAD), 100_000_000, 768, 1024)
READER = BaseFacts((TargetKind.MASK, TargetKind.HEAD), 100_000_000, 768, 512)
ROWS = Rows(500, 100, {"bad": 300, "good": 300}, {"bad": " bad", "good": " good"})
FEW = Rows(34, 6, {"bad": 20, "good": 20}, {"bad": " bad", "good": " good"})
MACHINE = Machine(8_000_000_000, 16_000_000_000)


def found(
    values: dict[str, Any], rows: Rows = ROWS, base: BaseFacts | None = WRITER, machine: Machine = MACHINE
) -> dict[str, Check]:
    return {check.key: check for check in checks(RunSettings.parse(values), rows, base, machine)}


def test_defaults_pass_everything() -> None:
    all_of_them = found({}).values()
    assert {check.level for check in all_of_them} == {Level.GOOD}
    assert {"target", "memory", "labels", "answers", "virtual tokens", "learning rate"} <= {c.key for c in all_of_them}


@pytest.mark.parametrize(
    ("key", "level", "values", "circumstances"),
    [
        ("learning rate", Level.NOTE, {"learning_rate": 5e-5}, {}),
        ("learning rate", Level.NOTE, {"learning_rate": 0.5}, {}),
        ("learning rate", Level.NOTE, {"encoder_reparameterization_type": "none", "learning_rate": 5e-4}, {}),
        ("virtual tokens", Level.NOTE, {"template": "[P*20] {text} [ANSWER:label]"}, {"rows": FEW}),
        ("target", Level.STOP, {"template": "[P*8] {text} [ANSWER:label]"}, {"base": READER}),
        ("target", Level.STOP, {"template": "[P*8] {text} It is [MASK:label]."}, {"base": WRITER}),
        ("batch", Level.NOTE, {"batch_size": 64}, {"rows": FEW}),
        ("precision", Level.STOP, {"precision": "int4"}, {}),
        ("device", Level.STOP, {"device": "cuda"}, {}),
        ("memory", Level.NOTE, {"base_weights": "tuned"}, {"machine": Machine(10**9, 16 * 10**9)}),
        ("memory", Level.STOP, {"base_weights": "tuned"}, {"machine": Machine(10**9, 10**9)}),
        ("memory", Level.NOTE, {}, {"machine": Machine(3 * 10**8, 16 * 10**9)}),
        ("length", Level.STOP, {"max_length": 2048}, {}),
        ("validation", Level.NOTE, {}, {"rows": FEW}),
    ],
)
def test_problem_is_found_and_its_fix_ends_it(
    key: str, level: Level, values: dict[str, Any], circumstances: dict[str, Any]
) -> None:
    check = found(values, **circumstances)[key]
    assert check.level is level and check.fix is not None
    fixed = found(values | check.fix.values, **circumstances)
    if key == "validation":  # the rows are split anew
        assert fixed[key].fix is None or check.fix.values["validation_fraction"] == 0.5
    else:
        assert key not in fixed or fixed[key].level is Level.GOOD


@pytest.mark.parametrize(
    ("answers", "expected"),
    [
        ({"a": " very good", "b": " very bad"}, {"a": " a", "b": " b"}),
        ({"very good": " very good", "very bad": " very bad"}, {"very good": " A", "very bad": " B"}),
        ({"x": " yes", "y": "yes"}, {"x": " x", "y": " y"}),
    ],
)
def test_answers_that_begin_alike_get_others(answers: dict[str, str], expected: dict[str, str]) -> None:
    check = found({}, Rows(500, 100, dict.fromkeys(answers, 300), answers))["answers"]
    assert check.level is Level.STOP and check.fix is not None and check.fix.values == {"labels": expected}


def test_a_masks_answers_may_begin_alike() -> None:
    rows = Rows(500, 100, {"a": 1, "b": 1}, {"a": " very good", "b": " very bad"})
    values = {"template": "[P*8] {text} It is [MASK*2:label]."}
    assert found(values, rows, READER)["answers"].level is Level.GOOD
    rows = Rows(500, 100, {"a": 1, "b": 1}, {"a": " good", "b": " good"})
    assert found(values, rows, READER)["answers"].level is Level.STOP


def test_answers_from_the_rows_are_not_compared() -> None:
    rows = Rows(500, 100, {"0": 1, "1": 1}, {"0": " {choice1}", "1": " {choice1}"})
    assert "answers" not in found({}, rows)


def test_one_label_cannot_be_learnt() -> None:
    check = found({}, Rows(10, 5, {"good": 15}))["labels"]
    assert check.level is Level.STOP and "good" in check.text


def test_several_groups_are_not_rewritten() -> None:
    check = found({"template": "[P*6] {text} [P*6][ANSWER:label]"}, FEW)["virtual tokens"]
    assert check.level is Level.NOTE and check.fix is None


def test_all_problems_come_at_once() -> None:
    values = {"template": "[P*20] {text} [ANSWER:label]", "batch_size": 64, "learning_rate": 0.5, "precision": "int8"}
    wrong = {key for key, check in found(values, FEW, READER).items() if check.level is not Level.GOOD}
    assert wrong == {"target", "virtual tokens", "validation", "batch", "learning rate", "precision"}


def test_nothing_is_said_of_what_is_not_known() -> None:
    known = {check.key for check in checks(RunSettings(), None, None, MACHINE)}
    assert known == {"learning rate"}


def test_wrong_values_are_named_each_and_the_rest_is_still_looked_at() -> None:
    wrong, settings = value_checks({"max_steps": -5, "learning_rate": 7, "batch_size": 8})
    assert {check.key for check in wrong} == {"max_steps", "learning_rate"}
    assert all(check.level is Level.STOP and check.fix is not None for check in wrong)
    assert settings is not None and settings.batch_size == 8


@pytest.mark.parametrize(
    "values",
    [
        {"base_weights": "tuned", "precision": "int8"},
        {"revision": "main"},
        {"prompt_init": "text"},
        {"prompt_depth": "all", "template": "{text} [P*4][ANSWER:label]"},
        {"prompt_depth": "all", "template": "[P*4] {text} [HEAD:label]", "base_weights": "tuned"},
        {"sweep": {"learning_rate": list(range(1, 100))}},
    ],
)
def test_settings_that_do_not_go_together_get_a_fix(values: dict[str, Any]) -> None:
    ((check,), settings) = value_checks(values)
    assert check.level is Level.STOP and check.fix is not None and settings is not None
    assert value_checks(values | check.fix.values)[0] == []


def test_an_encoder_decoder_is_told_from_a_decoder_before_the_start() -> None:
    values = {"prompt_depth": "all", "template": "[P*4] {text}[ANSWER:label]"}
    writer = replace(WRITER, targets=(TargetKind.ANSWER,))
    check = found(values, base=writer)["depth"]
    assert check.level is Level.STOP and check.fix is not None
    assert "depth" not in found(values | check.fix.values, base=writer)
    assert "depth" not in found(values)


def test_a_start_that_needs_a_text_is_not_wrong_of_itself() -> None:
    wrong, settings = value_checks({"prompt_init": "text", "prompt_init_text": "Is it good?", "max_steps": 0})
    assert [check.key for check in wrong] == ["max_steps"]
    assert settings is not None and settings.prompt_init == "text"
