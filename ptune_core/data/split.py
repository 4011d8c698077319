"""The validation split: seeded, stratified by label, and without a text on both sides."""

from __future__ import annotations

import math
import random
from collections import Counter, defaultdict
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

from ptune_core.errors import DataError


@dataclass(frozen=True)
class SplitOptions:
    """How many examples are set aside for validation, and which.

    Attributes:
        fraction: Share of the examples, above 0 and below 1.
        max_rows: At most this many.
        seed: Same seed and examples, same split.
    """

    fraction: float
    max_rows: int
    seed: int


def split_by_group(groups: Sequence[Hashable], labels: Sequence[str] | None, options: SplitOptions) -> list[bool]:
    """Choose which of n examples are set aside for validation.

    Examples of one group (the same text) stay together, so that nothing is validated that was learnt by heart. Each
    label gets its share; every label with two groups or more is on both sides as far as `max_rows` and half of the
    examples allow.

    Args:
        groups: A key per example [n].
        labels: A label per example [n], or None not to stratify. A group counts as its first label.
        options: How many, and the seed.

    Returns:
        Per example [n], whether it is for validation.

    Raises:
        DataError: No group can be set aside without leaving its label, or training, without any.
    """
    members: dict[Hashable, list[int]] = defaultdict(list)
    for index, group in enumerate(groups):
        members[group].append(index)
    strata: dict[str, list[list[int]]] = defaultdict(list)
    for indices in members.values():
        strata["" if labels is None else labels[indices[0]]].append(indices)
    divisible = {label: found for label, found in strata.items() if len(found) > 1}
    if not divisible:
        raise DataError(
            "No rows can be set aside for validation",
            got="only one different text for each label" if labels is not None else "only one different text",
            needed="at least two different texts of some label, one to learn from and one to validate on",
        )
    sizes = {label: sum(map(len, found)) for label, found in divisible.items()}
    wanted = max(1, round(options.fraction * len(groups)), min(len(divisible), len(groups) // 2))
    quotas = _quotas(sizes, min(wanted, options.max_rows))
    aside = [False] * len(groups)
    generator = random.Random(options.seed)
    for label, found in divisible.items():
        generator.shuffle(found)
        for index in _take(found, quotas[label]):
            aside[index] = True
    if not any(aside):
        for index in min((group for found in divisible.values() for group in found), key=len):
            aside[index] = True
    return aside


def _quotas(sizes: Mapping[str, int], wanted: int) -> Counter[str]:
    """Share out `wanted` rows by size: each label its rounded share, one at least and one less than it has at most."""
    total = sum(sizes.values())
    ideal = {label: wanted * size / total for label, size in sizes.items()}
    quotas = Counter({label: min(max(1, math.floor(ideal[label])), size - 1) for label, size in sizes.items()})
    while (spare := wanted - quotas.total()) != 0:
        step = 1 if spare > 0 else -1
        open_to = [label for label in sizes if 0 <= quotas[label] + step < sizes[label]]
        if not open_to:
            break
        # A label loses its only row last.
        open_to = [label for label in open_to if quotas[label] + step > 0] or open_to
        quotas[max(open_to, key=lambda label: step * (ideal[label] - quotas[label]))] += step
    return quotas


def _take(found: Sequence[Sequence[int]], quota: int) -> list[int]:
    """Members of the first groups that fit into `quota`, leaving at least one group."""
    taken: list[int] = []
    left = len(found)
    for indices in found:
        if left > 1 and len(taken) + len(indices) <= quota:
            taken.extend(indices)
            left -= 1
    return taken
