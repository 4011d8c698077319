"""What the validation split says: accuracy and its interval, macro-F1, confusion, calibration, the majority baseline.

Plain Python over class indices; N examples, C labels.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np


class Metric(StrEnum):
    """What decides which checkpoint is best."""

    ACCURACY = "accuracy"
    LOSS = "loss"

    def better(self, value: float, than: float) -> bool:
        """Whether `value` is a strict improvement over `than`."""
        return value > than if self is Metric.ACCURACY else value < than

    @property
    def worst(self) -> tuple[float, float]:
        """A value and a loss to stand for no result."""
        return (-math.inf if self is Metric.ACCURACY else math.inf, math.inf)

    def order(self, value: float, loss: float) -> tuple[float, float]:
        """What puts results in order, best first: the metric, and the loss where it is the same."""
        return (-value if self is Metric.ACCURACY else value, loss)


@dataclass(frozen=True)
class Evaluation:
    """One evaluation of the validation split, or of a sample of its rows.

    Attributes:
        loss: Mean cross entropy, per example (labels) or per answer token (free text).
        value: The metric.
        predicted: `[K]` class indices; empty for free text.
        confidence: `[K]` probability of the predicted label; empty for free text.
        probabilities: `[K, C]` fp32 of every label; None where there are no labels.
        chosen: `[K]` ascending indices of the rows that were evaluated; None: all.
    """

    loss: float
    value: float
    predicted: tuple[int, ...] = ()
    confidence: tuple[float, ...] = ()
    probabilities: np.ndarray | None = field(default=None, compare=False, repr=False)
    chosen: np.ndarray | None = field(default=None, compare=False, repr=False)

    def numbers(self) -> dict[str, Any]:
        """Everything but the probabilities and the rows, as JSON values for a checkpoint."""
        return {"loss": self.loss, "value": self.value, "predicted": self.predicted, "confidence": self.confidence}

    @property
    def only(self) -> int | None:
        """The one label that every row is predicted as, if there is no other."""
        return self.predicted[0] if len(set(self.predicted)) == 1 else None


def accuracy(gold: Sequence[int], predicted: Sequence[int]) -> float:
    """Share of right predictions."""
    return sum(a == b for a, b in zip(gold, predicted, strict=True)) / len(gold)


def majority_accuracy(gold: Sequence[int]) -> float:
    """Accuracy of always naming the most frequent label."""
    return max(Counter(gold).values()) / len(gold)


def confusion_matrix(gold: Sequence[int], predicted: Sequence[int], num_labels: int) -> list[list[int]]:
    """`[C][C]` counts: row is the gold label, column the predicted one."""
    matrix = [[0] * num_labels for _ in range(num_labels)]
    for a, b in zip(gold, predicted, strict=True):
        matrix[a][b] += 1
    return matrix


@dataclass(frozen=True)
class LabelScore:
    """How well one label is found.

    Attributes:
        count: Rows that have it.
        precision: Share of the rows predicted as it that have it; None if none is predicted.
        recall: Share of the rows that have it that are predicted as it; None if none has it.
        f1: Their harmonic mean; None if it neither occurs nor is predicted.
    """

    count: int
    precision: float | None
    recall: float | None
    f1: float | None


def label_scores(confusion: Sequence[Sequence[int]]) -> list[LabelScore]:
    """`[C]` scores of a confusion matrix, row gold and column predicted."""
    scores = []
    for label, row in enumerate(confusion):
        right, occurs, named = row[label], sum(row), sum(other[label] for other in confusion)
        scores.append(
            LabelScore(
                count=occurs,
                precision=right / named if named else None,
                recall=right / occurs if occurs else None,
                f1=2 * right / (occurs + named) if occurs + named else None,
            )
        )
    return scores


def macro_f1(confusion: Sequence[Sequence[int]]) -> float:
    """Mean F1 over the labels that occur or are predicted."""
    scores = [score.f1 for score in label_scores(confusion) if score.f1 is not None]
    return sum(scores) / len(scores) if scores else 0.0


def wilson_interval(share: float, count: int) -> tuple[float, float]:
    """95 % interval of a share measured on `count` examples (Wilson's score interval)."""
    z = 1.959964
    center = (share + z * z / (2 * count)) / (1 + z * z / count)
    half = z / (1 + z * z / count) * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    return max(0.0, center - half), min(1.0, center + half)


@dataclass(frozen=True)
class Bin:
    """The predictions whose probability lies between two tenths.

    Attributes:
        count: How many there are.
        said: Their mean probability.
        right: Share of them that is right.
    """

    count: int
    said: float
    right: float


def reliability(gold: Sequence[int], predicted: Sequence[int], confidence: Sequence[float]) -> list[Bin | None]:
    """Ten equal bins of confidence, from 0 to 1; None where no prediction is."""
    bins: list[list[tuple[bool, float]]] = [[] for _ in range(10)]
    for a, b, p in zip(gold, predicted, confidence, strict=True):
        bins[min(9, int(p * 10))].append((a == b, p))
    return [
        Bin(len(of), sum(p for _, p in of) / len(of), sum(right for right, _ in of) / len(of)) if of else None
        for of in bins
    ]


def calibration_error(gold: Sequence[int], predicted: Sequence[int], confidence: Sequence[float]) -> float:
    """Expected calibration error over ten equal bins of confidence: how far probability and accuracy differ."""
    bins = [found for found in reliability(gold, predicted, confidence) if found is not None]
    return sum(found.count * abs(found.right - found.said) for found in bins) / len(gold)
