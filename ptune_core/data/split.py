"""The validation split: seeded, stratified by label, and without a text on both sides."""

from __future__ import annotations

import math
import random
from array import array
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ptune_core.errors import DataError


@dataclass(frozen=True)
class SplitOptions:
    """How many examples are set aside for validation, and which.

    Attributes:
        fraction: Share of the examples, above 0 and below 1.
        max_rows: At most this many.
        seed: Same seed and examples, same split.
        per_label: Training examples of each label that are used, for a few-shot run; 0: all. The validation examples
            are the same whatever it is.
    """

    fraction: float
    max_rows: int
    seed: int
    per_label: int = 0


def few_of_each(labels: np.ndarray, options: SplitOptions) -> np.ndarray:
    """Which of n training examples a few-shot run uses: `per_label` of each label, drawn by the seed.

    Fewer are among more: those of 8 a label are some of those of 16.

    Args:
        labels: A label per example `[n]`; all the same where there are none.
        options: How many, and the seed.

    Returns:
        Indices, ascending.
    """
    drawn = np.random.default_rng(options.seed).permutation(len(labels))
    by_label = drawn[np.argsort(labels[drawn], kind="stable")]  # within a label the drawn order stays
    ordered = labels[by_label]
    rank = np.arange(len(ordered)) - np.searchsorted(ordered, ordered)
    return np.sort(by_label[rank < options.per_label])


def split_by_group(groups: np.ndarray, labels: np.ndarray | None, options: SplitOptions) -> np.ndarray:
    """Choose which of n examples are set aside for validation.

    Examples of one group (the same text) stay together, so that nothing is validated that was learnt by heart. Each
    label gets its share; every label with two groups or more is on both sides as far as `max_rows` and half of the
    examples allow.

    Args:
        groups: A key per example `[n]`.
        labels: A label per example `[n]`, or None not to stratify. A group counts as its first label.
        options: How many, and the seed.

    Returns:
        Per example `[n]`, whether it is for validation.

    Raises:
        DataError: No group can be set aside without leaving its label, or training, without any.
    """
    first, group_of = _by_appearance(groups)
    sizes = np.bincount(group_of)
    # The groups of each label, by number; there may be a million of them, so they are not lists.
    _, label_of = _by_appearance(np.zeros(len(sizes)) if labels is None else labels[first])
    strata = np.split(np.argsort(label_of, kind="stable"), np.cumsum(np.bincount(label_of))[:-1])
    divisible = [array("q", found.tobytes()) for found in strata if len(found) > 1]
    if not divisible:
        raise DataError(
            "No rows can be set aside for validation",
            got="only one different text for each label" if labels is not None else "only one different text",
            needed="at least two different texts of some label, one to learn from and one to validate on",
        )
    wanted = max(1, round(options.fraction * len(groups)), min(len(divisible), len(groups) // 2))
    quotas = _quotas([int(sizes[found].sum()) for found in divisible], min(wanted, options.max_rows))
    taken: list[int] = []
    generator = random.Random(options.seed)
    for found, quota in zip(divisible, quotas, strict=True):
        generator.shuffle(found)
        taken += _take(found, sizes, quota)
    if not taken:
        taken = [min((group for found in divisible for group in found), key=sizes.__getitem__)]
    is_taken = np.zeros(len(sizes), dtype=bool)
    is_taken[taken] = True
    return is_taken[group_of]


def _by_appearance(keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Different keys numbered as they first appear: where each does, and the number of every key `[n]`."""
    _, first, found = np.unique(keys, return_index=True, return_inverse=True)
    order = np.argsort(first)
    number = np.empty(len(order), dtype=np.int64)
    number[order] = np.arange(len(order))
    return first[order], number[found]


def _quotas(sizes: Sequence[int], wanted: int) -> list[int]:
    """Share out `wanted` rows by size: each label its rounded share, one at least and one less than it has at most."""
    total = sum(sizes)
    ideal = [wanted * size / total for size in sizes]
    quotas = [min(max(1, math.floor(share)), size - 1) for share, size in zip(ideal, sizes, strict=True)]
    while (spare := wanted - sum(quotas)) != 0:
        step = 1 if spare > 0 else -1
        open_to = [label for label, size in enumerate(sizes) if 0 <= quotas[label] + step < size]
        if not open_to:
            break
        # A label loses its only row last.
        open_to = [label for label in open_to if quotas[label] + step > 0] or open_to
        quotas[max(open_to, key=lambda label: step * (ideal[label] - quotas[label]))] += step
    return quotas


def _take(found: Sequence[int], sizes: np.ndarray, quota: int) -> list[int]:
    """The first groups that fit into `quota` together, leaving at least one group."""
    taken: list[int] = []
    for group in found:
        if quota == 0 or len(taken) == len(found) - 1:
            break
        if sizes[group] <= quota:
            taken.append(group)
            quota -= int(sizes[group])
    return taken
