"""What the validation split says: accuracy and its interval, macro-F1, confusion, calibration, the majority baseline.

Plain Python over class indices; N examples, C labels.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum


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
    """One evaluation of the validation split.

    Attributes:
        loss: Mean cross entropy, per example (labels) or per answer token (free text).
        value: The metric.
        predicted: `[N]` class indices; empty for free text.
        confidence: `[N]` probability of the predicted label; empty for free text.
    """

    loss: float
    value: float
    predicted: tuple[int, ...] = ()
    confidence: tuple[float, ...] = ()


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


def macro_f1(confusion: Sequence[Sequence[int]]) -> float:
    """Mean F1 over the labels that occur or are predicted."""
    scores = []
    for label in range(len(confusion)):
        right = confusion[label][label]
        occurs, named = sum(confusion[label]), sum(row[label] for row in confusion)
        if occurs + named:
            scores.append(2 * right / (occurs + named))
    return sum(scores) / len(scores) if scores else 0.0


def wilson_interval(share: float, count: int) -> tuple[float, float]:
    """95 % interval of a share measured on `count` examples (Wilson's score interval)."""
    z = 1.959964
    center = (share + z * z / (2 * count)) / (1 + z * z / count)
    half = z / (1 + z * z / count) * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    return max(0.0, center - half), min(1.0, center + half)


def calibration_error(gold: Sequence[int], predicted: Sequence[int], confidence: Sequence[float]) -> float:
    """Expected calibration error over ten equal bins of confidence: how far probability and accuracy differ."""
    bins: list[list[tuple[bool, float]]] = [[] for _ in range(10)]
    for a, b, p in zip(gold, predicted, confidence, strict=True):
        bins[min(9, int(p * 10))].append((a == b, p))
    gaps = (abs(sum(right - p for right, p in members)) for members in bins if members)
    return sum(gaps) / len(gold)
