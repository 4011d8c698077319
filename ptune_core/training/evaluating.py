"""How much of the validation split is evaluated when, so that a run mostly trains.

All rows are evaluated at the end, with the best state; in between a sample of them, always the same. How large it is
follows from numbers of tokens alone, so a run with the same seed evaluates the same rows on every machine. N rows, K of
them chosen, C labels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ptune_core.training.metrics import Evaluation, accuracy

SHARE = 0.2
"""Share of a run's work that evaluations are to take; of its time it is less than a quarter then."""

BACKWARD = 2.2
"""What a step costs, in forward passes over its rows: measured with a frozen base model on a CPU."""

SMALLEST_SAMPLE = 48

SMALLEST_COMPARED = 300
"""Rows on which the best state by a smaller sample and the last one are compared at the end, at least: fifty rows once
kept step 0 of a run whose last state was two points better."""

IN_CONTEXT = 2
"""Evaluations that one with examples in the context takes as long as, about: its rows attend to more text."""


@dataclass(frozen=True)
class Work:
    """What decides how much may be evaluated; lengths in tokens.

    Attributes:
        steps: Optimizer steps.
        rows_per_step: Training rows of one.
        train_length: Mean length of a training row.
        validation_length: Mean length of a validation row.
        validation_rows: N.
        evaluations: Between steps, step 0 and the last one included.
        of_base: Evaluations of the frozen base model, in those of all rows.
    """

    steps: int
    rows_per_step: int
    train_length: float
    validation_length: float
    validation_rows: int
    evaluations: int
    of_base: float


@dataclass(frozen=True)
class EvaluationPlan:
    """How many rows are evaluated when.

    Attributes:
        between: Rows of an evaluation between steps.
        of_base: Rows on which the frozen base model is measured.
        compared: Rows on which the best state so far and the last one are compared at the end; the better one is then
            evaluated on all of them.
    """

    between: int
    of_base: int
    compared: int

    def at_end(self, rows: int) -> int:
        """Rows that are evaluated at the end, of so many validation rows; none if all were each time."""
        if self.between >= rows:
            return 0
        return 2 * self.compared + (rows if self.compared < rows else 0)


def plan_evaluations(work: Work) -> EvaluationPlan:
    """All rows every time where that is little beside the training, else as many as leave it the time."""
    training = work.steps * work.rows_per_step * work.train_length * BACKWARD
    room = int(training * SHARE / (1 - SHARE) / work.validation_length)  # in rows
    count = work.validation_rows
    if room >= count * (work.evaluations + work.of_base):
        return EvaluationPlan(count, count, count)
    smallest, compared = min(count, SMALLEST_SAMPLE), min(count, SMALLEST_COMPARED)
    if count <= 2 * SMALLEST_COMPARED or room >= 2 * count + smallest * (work.evaluations + work.of_base):
        compared = count  # both states on all rows are fewer than both on some and one on all, or there is room
    left = room - EvaluationPlan(0, 0, compared).at_end(count)
    of_base = _between(smallest, left / 3 / work.of_base, count) if work.of_base else 0
    between = _between(smallest, (left - of_base * work.of_base) / work.evaluations, count)
    return EvaluationPlan(between, of_base, max(compared, between))


def _between(least: int, wanted: float, most: int) -> int:
    return min(most, max(least, int(wanted)))


def sample(count: int, size: int, labels: np.ndarray | None, seed: int) -> np.ndarray | None:
    """`size` of `count` rows, each label with its share of them; fewer are among more.

    Args:
        count: N.
        size: K.
        labels: `[N]` label indices; None: there are none.
        seed: Decides which.

    Returns:
        `[K]` ascending indices; None: all rows.
    """
    if size >= count:
        return None
    drawn = np.random.default_rng(seed).permutation(count)
    if labels is None:
        return np.sort(drawn[:size])
    by_label = drawn[np.argsort(labels[drawn], kind="stable")]  # within a label the drawn order stays
    ordered = labels[by_label]
    rank = np.arange(count) - np.searchsorted(ordered, ordered)
    sizes = np.bincount(labels, minlength=int(labels.max()) + 1)[ordered]
    # A label's rows lie evenly between 0 and 1, so the first ones hold each label's share.
    return np.sort(by_label[np.argsort((rank + 0.5) / sizes, kind="stable")[:size]])


def rows_of(evaluation: Evaluation, count: int) -> np.ndarray:
    """`[K]` indices of the rows that were evaluated, of `count` validation rows."""
    return np.arange(count) if evaluation.chosen is None else evaluation.chosen


def num_evaluations(steps: int, eval_every: int) -> int:
    """Evaluations of a run of so many steps, step 0 and the last one included."""
    return 1 + math.ceil(steps / eval_every)


def evaluation_of(probabilities: Tensor, gold: Sequence[int], chosen: np.ndarray | None) -> Evaluation:
    """What label probabilities say.

    Args:
        probabilities: `[K, C]` of the chosen validation rows.
        gold: `[N]` class indices of all of them.
        chosen: `[K]` ascending indices; None: all rows, K is N.
    """
    wanted = np.asarray(gold) if chosen is None else np.asarray(gold)[chosen]
    confidence, predicted = probabilities.max(dim=1)
    right = probabilities[torch.arange(len(wanted)), torch.from_numpy(wanted)]
    indices = tuple(predicted.tolist())
    return Evaluation(
        loss=float(-right.clamp(min=torch.finfo(torch.float32).tiny).log().mean()),
        value=accuracy(wanted.tolist(), indices),
        predicted=indices,
        confidence=tuple(confidence.tolist()),
        probabilities=probabilities.numpy(),
        chosen=chosen,
    )
