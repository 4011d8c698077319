"""The order of batches: every example once an epoch, like lengths together, a function of its arguments alone."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch

from ptune_core.data.order import WINDOW_BATCHES, BatchOrder, by_length, first_epoch, in_passes

LENGTHS = np.array([random.Random(i).randint(5, 200) for i in range(1003)])


def epoch(order: BatchOrder, number: int) -> list[list[int]]:
    start = number * order.batches_per_epoch
    return [order.indices(start + i) for i in range(order.batches_per_epoch)]


def test_every_epoch_shows_every_example_once_in_another_order() -> None:
    order = BatchOrder(LENGTHS.__getitem__, len(LENGTHS), 8, seed=3)
    first, second = epoch(order, 0), epoch(order, 1)
    assert sorted(sum(first, [])) == sorted(sum(second, [])) == list(range(len(LENGTHS)))
    assert first != second
    assert {frozenset(batch) for batch in first}.isdisjoint(frozenset(batch) for batch in second), "other neighbours"


def test_the_order_depends_on_nothing_else() -> None:
    first = epoch(BatchOrder(LENGTHS.__getitem__, len(LENGTHS), 8, seed=3), 1)
    torch.manual_seed(99)
    again = BatchOrder(LENGTHS.__getitem__, len(LENGTHS), 8, seed=3)
    assert [again.indices(again.batches_per_epoch + i) for i in range(5)] == first[:5], "a resume begins in the middle"
    assert epoch(BatchOrder(LENGTHS.__getitem__, len(LENGTHS), 8, seed=4), 1) != first


def test_batches_of_like_length_have_little_padding() -> None:
    def padding(batches: list[list[int]]) -> float:
        padded = sum(len(batch) * max(LENGTHS[i] for i in batch) for batch in batches)
        return 1 - LENGTHS.sum() / padded

    assert padding(epoch(BatchOrder(LENGTHS.__getitem__, len(LENGTHS), 8, seed=3), 0)) < 0.1
    assert padding(by_length(LENGTHS, 8)) < 0.02
    shuffled = torch.randperm(len(LENGTHS), generator=torch.Generator().manual_seed(0)).tolist()
    assert padding([shuffled[i : i + 8] for i in range(0, 1003, 8)]) > 0.3


def test_short_and_long_batches_are_mixed() -> None:
    batches = epoch(BatchOrder(LENGTHS.__getitem__, len(LENGTHS), 8, seed=3), 0)[:WINDOW_BATCHES]
    means = [sum(LENGTHS[i] for i in batch) / len(batch) for batch in batches]
    assert means != sorted(means)


def test_lengths_are_asked_for_one_window_at_a_time() -> None:
    asked: list[int] = []

    def lengths_of(indices: np.ndarray) -> np.ndarray:
        asked.extend(indices.tolist())
        return LENGTHS[indices]

    order = BatchOrder(lengths_of, len(LENGTHS), 8, seed=3)
    window = [i for position in range(WINDOW_BATCHES) for i in order.indices(position)]
    assert sorted(asked) == sorted(window) == sorted(first_epoch(len(LENGTHS), 3)[: 8 * WINDOW_BATCHES].tolist())
    order.indices(order.batches_per_epoch - 1)
    assert len(asked) == 8 * WINDOW_BATCHES + len(LENGTHS) % (8 * WINDOW_BATCHES)


@pytest.mark.parametrize("tokens", [1, 30, 50, 60, 100, 10_000])
def test_passes_of_a_batch_are_all_of_it_and_none_is_too_large(tokens: int) -> None:
    batch, lengths = [7, 3, 9, 1, 4], np.array([10, 12, 15, 20, 20])
    of = dict(zip(batch, lengths.tolist(), strict=True))
    passes = in_passes(batch, lengths, tokens)
    assert [example for some in passes for example in some] == batch
    assert all(len(some) == 1 or len(some) * max(of[example] for example in some) <= tokens for some in passes)
    assert max(map(len, passes)) - min(map(len, passes)) <= 1 and (tokens < 100 or len(passes) == 1)
