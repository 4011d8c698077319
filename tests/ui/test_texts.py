"""What a run's end is called, and when it was in vain."""

from __future__ import annotations

from typing import Any

import pytest

from ptune_core.ui import texts


@pytest.mark.parametrize(
    ("result", "told"),
    [
        ({"metric": "accuracy", "value": 0.51, "baseline_majority": 0.51, "baseline_zero_shot": 0.3}, "most frequent"),
        ({"metric": "accuracy", "value": 0.6, "baseline_majority": 0.5, "baseline_zero_shot": 0.7}, "zero-shot 0.700"),
        ({"metric": "loss", "value": 2.0, "baseline_majority": None, "baseline_zero_shot": 2.0}, "zero-shot 2.000"),
        ({"metric": "loss", "value": 1.0, "baseline_majority": None, "baseline_zero_shot": 2.0}, ""),
        ({"metric": "accuracy", "value": 0.8, "baseline_majority": 0.5, "baseline_zero_shot": None}, ""),
        ({"metric": None, "value": None, "baseline_majority": None, "baseline_zero_shot": None}, ""),
        ({}, ""),
    ],
)
def test_a_run_no_better_than_a_baseline_is_told_with_what_to_try(result: dict[str, Any], told: str) -> None:
    # Such a run used to end as "Done" like any other.
    warning = texts.no_better(result)
    assert told in warning and bool(told) == bool(warning)
    assert not warning or "Try " in warning


def test_runs_of_one_name_are_told_apart() -> None:
    assert texts.adapter("demo", 0.5, 0.0) != texts.adapter("demo", 0.5, 86_400.0)
    assert texts.adapter("demo", None, 0.0).startswith("demo · ")
