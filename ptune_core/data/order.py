"""In which batch an example comes: shuffled, rows of like length together, and the same again after a resume."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import torch

WINDOW_BATCHES = 32
"""Batches whose examples are sorted by length among themselves: enough to leave little padding, few enough that an
example's neighbours change from epoch to epoch."""


class BatchOrder:
    """Which examples are in batch number `position`, counted over all epochs.

    Each epoch is a permutation by seed and epoch. Every `WINDOW_BATCHES` batches of it are sorted by length and cut
    into batches, whose order is drawn again. All of it is a function of the arguments alone, so a resumed run repeats
    it.

    Args:
        lengths: Tokens of each example.
        batch_size: Examples per batch; an epoch's smallest batch may have fewer.
        seed: Another seed, another order.
    """

    def __init__(self, lengths: Sequence[int], batch_size: int, seed: int) -> None:
        self.lengths = torch.as_tensor(lengths)
        self.batch_size, self.seed = batch_size, seed
        self._epoch = lru_cache(maxsize=1)(self._order_of)

    @property
    def batches_per_epoch(self) -> int:
        """Batches in which every example comes once."""
        return -(-len(self.lengths) // self.batch_size)

    def indices(self, position: int) -> list[int]:
        """The examples of batch number `position`, from 0."""
        epoch, within = divmod(position, self.batches_per_epoch)
        order, bounds = self._epoch(epoch)
        start, end = bounds[within]
        found: list[int] = order[start:end].tolist()
        return found

    def _order_of(self, epoch: int) -> tuple[torch.Tensor, list[tuple[int, int]]]:
        """One epoch's examples batch after batch, and where each batch begins and ends."""
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + epoch)
        count = len(self.lengths)
        order = torch.randperm(count, generator=generator)
        window = WINDOW_BATCHES * self.batch_size
        parts = [part[self.lengths[part].argsort(stable=True)] for part in order.split(window)]
        bounds = [(start, min(start + self.batch_size, count)) for start in range(0, count, self.batch_size)]
        drawn = torch.randperm(len(bounds), generator=generator).tolist()
        return torch.cat(parts), [bounds[i] for i in drawn]


def by_length(lengths: Sequence[int], batch_size: int) -> list[list[int]]:
    """All examples in batches of like length, for an evaluation: shortest first, ties in their order."""
    order = sorted(range(len(lengths)), key=lengths.__getitem__)
    return [order[start : start + batch_size] for start in range(0, len(order), batch_size)]
