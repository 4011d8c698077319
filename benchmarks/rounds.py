"""Rounds: each side in turn, again and again, so that what else the machine does meets all of them alike."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeVar

import torch

T = TypeVar("T")


def wall() -> float:
    """Seconds that pass, when a GPU has done what it was given."""
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()
    return time.perf_counter()


CLOCKS: dict[str, Callable[[], float]] = {"wall": wall, "cpu": time.process_time}
"""Seconds that pass, or seconds of the processor that this process had: with one thread, what other work on the machine
takes away is not counted."""


@dataclass(frozen=True)
class Round:
    """What one side did in one round.

    Attributes:
        seconds: Of each optimizer step.
        batch_size: Examples per step.
        flops: That all the steps needed at least; 0 if it was not counted.
    """

    seconds: list[float]
    batch_size: int
    flops: float = 0.0

    @property
    def examples_per_second(self) -> float:
        """Examples trained on per second of the whole round."""
        return self.batch_size * len(self.seconds) / sum(self.seconds)


@dataclass(frozen=True)
class Spread:
    """Median, smallest and largest of the rounds."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: list[float]) -> Spread:
        """Of one value per round."""
        return cls(statistics.median(values), min(values), max(values))

    def __str__(self) -> str:
        digits = 2 if self.median < 10 else 1 if self.median < 100 else 0
        return f"{self.median:.{digits}f} ({self.low:.{digits}f} to {self.high:.{digits}f})"


def interleave(sides: Mapping[str, Callable[[], T]], rounds: int) -> dict[str, list[T]]:
    """Call every side once per round; side -> what it gave, round by round."""
    found: dict[str, list[T]] = {name: [] for name in sides}
    for _ in range(rounds):
        for name, side in sides.items():
            found[name].append(side())
    return found


def ratio(faster: list[Round], slower: list[Round]) -> Spread:
    """How many times as many examples per second, compared round by round."""
    pairs = zip(faster, slower, strict=True)
    return Spread.of([one.examples_per_second / other.examples_per_second for one, other in pairs])
