"""Measures against numbers worked out by hand."""

from __future__ import annotations

import pytest

from ptune_core.recipes.scores import SCORES, final_number, majority, mean_and_deviation


def rows(*labels: str) -> list[dict[str, str]]:
    return [{"label": label} for label in labels]


def test_cb() -> None:
    gold = rows("yes", "yes", "no", "maybe")
    numbers = SCORES["accuracy, macro-F1"].measure(gold, ["yes", "no", "no", "yes"], "label")
    # yes: 1 of 2 named, 1 of 2 found: 1/2; no: 1 of 2, 1 of 1: 2/3; maybe: never named: 0.
    assert numbers == {"accuracy": 0.5, "macro-F1": pytest.approx((1 / 2 + 2 / 3 + 0) / 3)}
    assert majority(SCORES["accuracy, macro-F1"], gold, "label") == {
        "accuracy": 0.5, "macro-F1": pytest.approx((2 * 0.5 / 1.5 + 0 + 0) / 3),
    }  # fmt: skip


def test_multirc() -> None:
    gold = [
        {"label": label, "group": group}
        for label, group in (("true", "a"), ("false", "a"), ("true", "b"), ("true", "b"), ("false", "c"))
    ]
    numbers = SCORES["EM, F1a"].measure(gold, ["true", "false", "true", "false", "true"], "label")
    # Question a alone is right; 2 hits, 3 named, 3 there.
    assert numbers == {"EM": pytest.approx(1 / 3), "F1a": pytest.approx(2 * 2 / 6)}
    assert SCORES["EM, F1a"].measure(gold, ["false"] * 5, "label")["F1a"] == 0.0


def test_wsc() -> None:
    gold = [
        {"span": span, "label": label}
        for span, label in (("The councilmen", "true"), ("Ann", "false"), ("Bea", "true"), ("Bea", "false"))
    ]
    numbers = SCORES["span"].measure(gold, ["the councilmen.", "Bea", "", "bea"], "span")
    assert numbers == {"accuracy": 0.5}, "true and right, false and right, false and wrong, true and wrong"
    assert majority(SCORES["span"], gold[:3], "span") == {"accuracy": pytest.approx(2 / 3)}


@pytest.mark.parametrize(
    ("text", "number"),
    [("so 3 + 4 = 7.\nThe answer is: 7", 7.0), ("#### 1,234", 1234.0), ("it is 12 or 13.50", 13.5), ("none", None),
     ("The answer is: -3 of 8", -3.0), ("2 cats. The answer is: many", 2.0)],
)  # fmt: skip
def test_final_number(text: str, number: float | None) -> None:
    assert final_number(text) == number


def test_gsm8k() -> None:
    gold = [{"answer": "The answer is: 7"}, {"answer": "The answer is: 1,000"}]
    numbers = SCORES["final number"].measure(gold, ["... 7.0", "no idea"], "answer")
    assert numbers == {"exact match": 0.5}
    assert majority(SCORES["final number"], gold, "answer") is None


def test_lama_majority_is_the_most_frequent_object() -> None:
    gold = [{"obj": word} for word in ("France", "France", "Spain")]
    assert majority(SCORES["P@1"], gold, "obj") == {"P@1": pytest.approx(2 / 3)}


def test_mean_and_deviation() -> None:
    assert mean_and_deviation([0.5]) == (0.5, None)
    assert mean_and_deviation([0.4, 0.6]) == (0.5, pytest.approx(0.02**0.5))
