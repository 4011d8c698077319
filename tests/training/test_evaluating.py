"""How many validation rows are evaluated when, and which."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from ptune_core.training.evaluating import BACKWARD, SMALLEST_COMPARED, SMALLEST_SAMPLE, Work, plan_evaluations, sample
from ptune_core.training.metrics import Evaluation, Metric
from ptune_core.training.progress import Progress

USUAL = Work(
    steps=150, rows_per_step=16, train_length=40.0, validation_length=40.0, validation_rows=1000, evaluations=11,
    of_base=1.0,
)  # fmt: skip


def _share(work: Work) -> float:
    plan = plan_evaluations(work)
    training = work.steps * work.rows_per_step * work.train_length * BACKWARD
    rows = plan.between * work.evaluations + plan.of_base * work.of_base + plan.at_end(work.validation_rows)
    evaluating = rows * work.validation_length
    return evaluating / (training + evaluating)


@pytest.mark.parametrize("rows", [40, 200, 600, 1000])
@pytest.mark.parametrize("steps", [100, 150, 1000])
@pytest.mark.parametrize("of_base", [1.0, 4.0])
def test_a_run_mostly_trains(rows: int, steps: int, of_base: float) -> None:
    work = replace(USUAL, validation_rows=rows, steps=steps, of_base=of_base)
    plan = plan_evaluations(work)
    is_smallest = plan.between <= SMALLEST_SAMPLE and plan.at_end(rows) <= 2 * SMALLEST_COMPARED + rows
    assert _share(work) < 0.25 or is_smallest, "all rows once, at the end, are the most of so short a run"


@pytest.mark.parametrize("rows", [1000, 10_000, 100_000])
@pytest.mark.parametrize("evaluations", [3, 11])
def test_states_are_compared_on_no_fewer_rows_than_they_were_measured_on(rows: int, evaluations: int) -> None:
    """Bug: of many rows the best state and the last, both measured on 1,866, were compared on 300."""
    plan = plan_evaluations(replace(USUAL, validation_rows=rows, steps=2000, evaluations=evaluations))
    assert SMALLEST_COMPARED <= plan.compared and plan.between <= plan.compared <= rows


def test_where_there_is_time_all_rows_are_evaluated() -> None:
    plan = plan_evaluations(replace(USUAL, steps=10_000))
    assert plan.between == plan.of_base == plan.compared == 1000 and plan.at_end(1000) == 0


def test_few_rows_are_never_a_sample_of_fewer_than_make_sense() -> None:
    plan = plan_evaluations(replace(USUAL, steps=5, validation_rows=50))
    assert plan.between == SMALLEST_SAMPLE
    assert plan_evaluations(replace(USUAL, steps=1)).between == SMALLEST_SAMPLE


def test_a_sample_has_each_labels_share_and_fewer_are_among_more() -> None:
    labels = np.array([0] * 600 + [1] * 300 + [2] * 100)
    large = sample(1000, 200, labels, seed=3)
    small = sample(1000, 50, labels, seed=3)
    assert large is not None and small is not None
    assert np.bincount(labels[large]).tolist() == pytest.approx([120, 60, 20], abs=1)
    assert np.bincount(labels[small]).tolist() == pytest.approx([30, 15, 5], abs=1)
    assert set(small) <= set(large) and (np.diff(large) > 0).all()
    other = sample(1000, 200, labels, seed=4)
    assert other is not None and set(other) != set(large)


def test_all_rows_are_no_sample() -> None:
    assert sample(10, 10, None, seed=0) is None
    assert sample(10, 4, None, seed=0) is not None


def test_patience_is_not_lost_on_what_a_sample_may_say_by_chance() -> None:
    """Bug: fifty rows were best at step 0 by chance, and a run that still learned was ended after 90 of 150 steps."""
    sampled, whole = Progress(), Progress()
    for step, value in enumerate([0.90, 0.88, 0.87, 0.88, 0.70]):
        for progress, chosen in ((sampled, np.arange(48)), (whole, None)):
            progress.step = step
            progress.record(Evaluation(1.0, value, chosen=chosen), Metric.ACCURACY)
    assert sampled.evaluations_without_progress == 1, "0.70 on 48 rows is no chance any more"
    assert whole.evaluations_without_progress == 4


def test_a_loss_that_rises_is_no_progress_on_a_sample_either() -> None:
    progress = Progress()
    for step, loss in enumerate([1.0, 1.1, 1.2]):
        progress.step = step
        progress.record(Evaluation(loss, loss, chosen=np.arange(48)), Metric.LOSS)
    assert progress.evaluations_without_progress == 2
