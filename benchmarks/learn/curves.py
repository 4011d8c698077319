"""Curves of test accuracy, read at moments and at steps; no torch is imported."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Point:
    """Test accuracy after so many seconds of a side's own time and so many optimizer steps."""

    seconds: float
    step: int
    accuracy: float


@dataclass(frozen=True)
class Curve:
    """One training, or one probe, from the start of its process to its end.

    Attributes:
        model: Key of the base model.
        data: Key of the data set.
        side: Key of the side.
        seed: Of the rows drawn, the start and the order.
        rate: Learning rate; None where the side has its own.
        majority: Test accuracy of always naming the most frequent training label: what one has before the first point.
        points: In the order of time.
        taken: Test accuracy of what the side ends with.
        seconds: When it had that.
    """

    model: str
    data: str
    side: str
    seed: int
    rate: float | None
    majority: float
    points: tuple[Point, ...]
    taken: float
    seconds: float

    @property
    def key(self) -> tuple[str, str, str, int, float | None]:
        """What was trained: two curves of one run of the benchmark never share it."""
        return self.model, self.data, self.side, self.seed, self.rate

    def at_seconds(self, seconds: float) -> float:
        """Accuracy of the last point that was there by then; when the side has ended, of what it ended with."""
        if seconds >= self.seconds:
            return self.taken
        return self._last(point.accuracy for point in self.points if point.seconds <= seconds)

    @property
    def moments(self) -> set[float]:
        """Seconds at which `at_seconds` may change."""
        return {0.0, *(point.seconds for point in self.points), self.seconds}

    def at_step(self, step: int) -> float:
        """Accuracy of the last point that was there by this step."""
        return self._last(point.accuracy for point in self.points if point.step <= step)

    def _last(self, values: Iterable[float]) -> float:
        return [self.majority, *values][-1]

    def to_json(self) -> dict[str, Any]:
        """JSON values that `from_json` makes the same curve of."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Curve:
        """The curve that `to_json` wrote."""
        return cls(**{**values, "points": tuple(Point(**point) for point in values["points"])})


def counted(curves: Sequence[Curve]) -> list[Curve]:
    """The curves, in the order they were made, without those of learning rates that were tried and not taken.

    The rate of a side is that which ends best with the first seed, on this base model and data set; of several the one
    with the higher accuracy along the way.
    """
    first: dict[tuple[str, str, str], int] = {}
    for curve in curves:
        first.setdefault((curve.model, curve.data, curve.side), curve.seed)
    taken = {}
    for group, seed in first.items():
        tried = [c for c in curves if (c.model, c.data, c.side) == group and c.seed == seed]
        taken[group] = best_rate(tried)
    return [curve for curve in curves if curve.rate == taken[curve.model, curve.data, curve.side]]


def best_rate(tried: Sequence[Curve]) -> float | None:
    """The learning rate among curves of one seed that ends best, see `counted`."""
    return max(tried, key=lambda c: (c.taken, statistics.fmean(p.accuracy for p in c.points))).rate


def mean_at_seconds(curves: Sequence[Curve], seconds: float) -> float:
    """Mean accuracy of some curves by then."""
    return statistics.fmean(curve.at_seconds(seconds) for curve in curves)


def mean_at_step(curves: Sequence[Curve], step: int) -> float:
    """Mean accuracy of some curves by this step."""
    return statistics.fmean(curve.at_step(step) for curve in curves)


def mean_over_time(curves: Sequence[Curve]) -> list[tuple[float, float]]:
    """Mean of some curves as `(seconds, accuracy)` at every moment it changes, and before the first point."""
    moments = sorted(set[float]().union(*(curve.moments for curve in curves)))
    return [(moment, mean_at_seconds(curves, moment)) for moment in moments]


def mean_over_steps(curves: Sequence[Curve]) -> list[tuple[float, float]]:
    """Mean of some curves as `(step, accuracy)` at every step that one of them was measured at."""
    steps = sorted({point.step for curve in curves for point in curve.points})
    return [(step, mean_at_step(curves, step)) for step in steps]
