"""A linear probe: what can be read off a frozen model's features, by a regularised logistic regression.

The penalty is `penalty / N * |W|^2` beside the mean cross entropy, so that one penalty means the same for any number of
rows. N rows, W features, C labels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from ptune_core.model.head import spread_of

PENALTIES = (300.0, 30.0, 3.0)
"""Strongest first: each begins where the one before ended."""

FOLDS = 3
COMPARED_ON = 2000
"""Rows on which penalties and features are compared, at most."""

RIDGE = 1.0
"""Pull to features that stay as they are, in units of a standardised feature's variance."""

ITERATIONS, COMPARED_ITERATIONS = 60, 20


@dataclass(frozen=True)
class Probe:
    """A fitted probe.

    Attributes:
        mean: `[W]` of the features it was fitted on.
        deviation: `[W]` of them.
        weight: `[C, W]` of standardised features.
        bias: `[C]`.
        penalty: Chosen by cross-validation.
        accuracy: Of rows that were left out, by cross-validation; of few rows it is as uncertain as they are few.
        rows: N.
    """

    mean: Tensor
    deviation: Tensor
    weight: Tensor
    bias: Tensor
    penalty: float
    accuracy: float
    rows: int

    def scores(self, features: Tensor) -> Tensor:
        """`[N, W]` -> `[N, C]`."""
        return functional.linear((features - self.mean) / self.deviation, self.weight, self.bias)

    def right(self, features: Tensor, labels: Tensor) -> float:
        """Share of the rows `[N, W]` whose label `[N]` scores highest."""
        return float((self.scores(features).argmax(dim=1) == labels).float().mean())

    def aligned(self, before: Tensor, after: Tensor) -> Probe:
        """The same probe for features that have changed, by what the change made of some rows.

        A ridge regression says how the features were, from how they are, both standardised; what few rows do not tell
        stays as it is. Labels are not asked.

        Args:
            before: `[N, W]` of rows as this probe knows them.
            after: `[N, W]` of the same rows as they are now.

        Returns:
            With penalty, accuracy and rows as they were.
        """
        mean, deviation = spread_of(after)
        known, now = (before - self.mean) / self.deviation, (after - mean) / deviation
        middle, unchanged = known.mean(dim=0), torch.eye(after.shape[1])
        back = torch.linalg.solve(
            now.T @ now / len(now) + RIDGE * unchanged, now.T @ (known - middle) / len(now) + RIDGE * unchanged
        )
        bias = self.bias + self.weight @ middle
        return replace(self, mean=mean, deviation=deviation, weight=self.weight @ back.T, bias=bias)


@dataclass(frozen=True)
class Validated:
    """What cross-validation found.

    Attributes:
        penalty: With the lowest loss on rows left out.
        accuracy: There, with that penalty.
    """

    penalty: float
    accuracy: float


def fit_probe(
    features: Tensor, labels: Tensor, num_labels: int, validated: Validated | None = None, *, centered: bool = True
) -> Probe:
    """Fit a probe on all rows, with the penalty that does best on rows left out.

    Args:
        features: `[N, W]` fp32 on a CPU.
        labels: `[N]` class indices.
        num_labels: C.
        validated: Of these features, if it is known.
        centered: False for a layer without a bias, which reads its features with their mean and must do so.
    """
    validated = cross_validate(features, labels, num_labels) if validated is None else validated
    mean, deviation = spread_of(features, centered=centered)
    start = _zeros(features.shape[1], num_labels)
    standardised = (features - mean) / deviation
    weight, bias = _fit(standardised, labels, start, validated.penalty, ITERATIONS, has_bias=centered)
    return Probe(mean, deviation, weight, bias, validated.penalty, validated.accuracy, len(features))


def cross_validate(features: Tensor, labels: Tensor, num_labels: int) -> Validated:
    """Compare the penalties on up to `COMPARED_ON` rows; arguments as `fit_probe`."""
    features, labels = features[:COMPARED_ON], labels[:COMPARED_ON]
    folds = _folds(labels.tolist())
    losses, right = np.zeros(len(PENALTIES)), np.zeros(len(PENALTIES))
    for fold in range(FOLDS):
        held = torch.from_numpy(folds == fold)
        if not held.any() or held.all():
            continue
        mean, deviation = spread_of(features[~held])
        known, unknown = ((features[part] - mean) / deviation for part in (~held, held))
        found = _zeros(features.shape[1], num_labels)
        for i, penalty in enumerate(PENALTIES):
            found = _fit(known, labels[~held], found, penalty, COMPARED_ITERATIONS)
            scores = functional.linear(unknown, *found)
            losses[i] += float(functional.cross_entropy(scores, labels[held], reduction="sum"))
            right[i] += int((scores.argmax(dim=1) == labels[held]).sum())
    best = int(losses.argmin())
    return Validated(PENALTIES[best], float(right[best]) / len(features))


def _folds(labels: Sequence[int]) -> np.ndarray:
    """`[N]` fold of each row: those of one label one after the other, so that each fold has its share of each."""
    seen: dict[int, int] = {}
    folds = np.empty(len(labels), dtype=np.int64)
    for i, label in enumerate(labels):
        # Labels begin at different folds: else the rare ones would all be in the first.
        folds[i] = (label + seen.get(label, 0)) % FOLDS
        seen[label] = seen.get(label, 0) + 1
    return folds


def _zeros(width: int, num_labels: int) -> tuple[Tensor, Tensor]:
    return torch.zeros(num_labels, width), torch.zeros(num_labels)


def _fit(
    features: Tensor,
    labels: Tensor,
    start: tuple[Tensor, Tensor],
    penalty: float,
    iterations: int,
    *,
    has_bias: bool = True,
) -> tuple[Tensor, Tensor]:
    """Weight `[C, W]` and bias `[C]` after L-BFGS from `start`."""
    weight, bias = (tensor.clone().requires_grad_(True) for tensor in start)
    optimizer = torch.optim.LBFGS(
        [weight, bias] if has_bias else [weight],
        max_iter=iterations,
        history_size=10,
        line_search_fn="strong_wolfe",
        tolerance_change=1e-6,
    )

    def loss() -> Tensor:
        optimizer.zero_grad()
        scores = functional.linear(features, weight, bias)
        value = functional.cross_entropy(scores, labels) + penalty / len(features) * weight.square().sum()
        value.backward()
        return value

    with torch.enable_grad():
        optimizer.step(loss)
    return weight.detach(), bias.detach()
