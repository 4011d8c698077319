"""Where a training stands: the numbers in a checkpoint beside its tensors."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from ptune_core.training.metrics import Evaluation, Metric

LOSS_PROGRESS = 0.01
"""By what share the validation loss must fall to count as progress."""


def _chance(evaluation: Evaluation, metric: Metric) -> float:
    """How far an accuracy may be off by chance: one standard error of a sample, nothing where all rows are evaluated.

    Bug: fifty rows were best at step 0 by chance, and a run that still learned was ended after 90 of 150 steps.
    """
    if metric is not Metric.ACCURACY or evaluation.chosen is None:
        return 0.0
    share = min(max(evaluation.value, 0.5), 0.98)
    return math.sqrt(share * (1 - share) / len(evaluation.chosen))


@dataclass
class Progress:
    """Where training stands; all of it is in a checkpoint.

    Attributes:
        step: Optimizer steps done.
        evaluated_step: The last step that was evaluated, -1 before the first evaluation.
        best_value: The metric at `best_step`.
        best_loss: Validation loss at `best_step`; decides between equal values.
        best_step: Step of the best evaluation.
        lowest_loss: Lowest validation loss so far.
        evaluations_without_progress: For early stopping: neither a better metric nor a clearly lower loss.
        standings: `[best_value, best_loss]` as they were at every rung that is behind.
    """

    step: int = 0
    evaluated_step: int = -1
    best_value: float | None = None
    best_loss: float = math.inf
    best_step: int = 0
    lowest_loss: float = math.inf
    evaluations_without_progress: int = 0
    standings: list[list[float]] = field(default_factory=list)

    def record(self, evaluation: Evaluation, metric: Metric, rungs: Sequence[int] = ()) -> bool:
        """Take an evaluation into account; returns whether it is the best so far."""
        self.evaluated_step = self.step
        better = self.best_value is None or metric.better(evaluation.value, self.best_value)
        better = better or (evaluation.value == self.best_value and evaluation.loss < self.best_loss)
        if better:
            self.best_value, self.best_loss, self.best_step = evaluation.value, evaluation.loss, self.step
        # Accuracy can stay below an early lucky value while the loss falls: that is learning too.
        falls = evaluation.loss < self.lowest_loss * (1 - LOSS_PROGRESS)
        assert self.best_value is not None
        chance = _chance(evaluation, metric)
        if better or falls or (chance and evaluation.value > self.best_value - chance):
            self.evaluations_without_progress = 0
        else:
            self.evaluations_without_progress += 1
        self.lowest_loss = min(self.lowest_loss, evaluation.loss)
        behind = sum(rung <= self.step for rung in rungs)
        self.standings += [[self.best_value, self.best_loss] for _ in range(behind - len(self.standings))]
        return better
