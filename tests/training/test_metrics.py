"""Metrics against numbers worked out by hand."""

from __future__ import annotations

import math

import pytest

from ptune_core.training.metrics import (
    Metric,
    accuracy,
    calibration_error,
    confusion_matrix,
    macro_f1,
    majority_accuracy,
    wilson_interval,
)

GOLD = [0, 0, 0, 1, 1, 2]
PREDICTED = [0, 0, 1, 1, 1, 1]


def test_accuracy_majority_and_confusion() -> None:
    assert accuracy(GOLD, PREDICTED) == pytest.approx(4 / 6)
    assert majority_accuracy(GOLD) == 0.5
    assert confusion_matrix(GOLD, PREDICTED, 3) == [[2, 1, 0], [0, 2, 0], [0, 1, 0]]


def test_macro_f1_is_the_mean_over_labels_that_occur() -> None:
    f1 = [2 * 2 / (3 + 2), 2 * 2 / (2 + 4), 0.0]
    assert macro_f1(confusion_matrix(GOLD, PREDICTED, 3)) == pytest.approx(sum(f1) / 3)
    assert macro_f1(confusion_matrix([0, 1], [0, 1], 5)) == 1.0


def test_wilson_interval_of_a_known_case() -> None:
    low, high = wilson_interval(0.5, 100)
    assert (low, high) == (pytest.approx(0.4038, abs=1e-4), pytest.approx(0.5962, abs=1e-4))
    assert wilson_interval(1.0, 10)[1] == pytest.approx(1.0) and wilson_interval(1.0, 10)[0] < 0.75


def test_calibration_error_is_zero_only_when_confidence_is_accuracy() -> None:
    assert calibration_error([0, 0, 1, 1], [0, 0, 0, 0], [0.5] * 4) == pytest.approx(0.0)
    assert calibration_error([0, 0, 1, 1], [0, 0, 0, 0], [0.95] * 4) == pytest.approx(0.45)


def test_which_value_is_better() -> None:
    assert Metric.ACCURACY.better(0.6, 0.5) and not Metric.ACCURACY.better(0.5, 0.5)
    assert Metric.LOSS.better(0.4, 0.5) and not Metric.LOSS.better(math.nan, 0.5)
