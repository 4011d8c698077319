"""What one side is told to do, and how it tells what it reached; no torch is imported.

A side runs in a process of its own, whose clock begins when the process does: imports, loading and tokenising are a
part of its time. Only measuring the test accuracy is not.
"""

from __future__ import annotations

import csv
import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

MARK = "learned "
"""Begins each line of a side's output that is meant for the benchmark; libraries print others."""

EVAL_BATCH_SIZE = 64
"""Rows of a batch while features are computed or test accuracy is measured."""

Predict = Callable[[Sequence[str]], Sequence[str]]
"""Labels of texts."""


@dataclass(frozen=True)
class Job:
    """One side's training.

    Attributes:
        side: Key of `names.SIDES`.
        folder: Holds the rows as `Problem.write` left them.
        base_model: Folder of the base model.
        virtual_tokens: P of those sides that have any.
        template: PTune's.
        seed: Of start and order.
        steps: Optimizer steps at most.
        batch_size: PTune's default, for all sides.
        every: Steps between two points of a side that has no default of its own.
        rate: Learning rate; None where the side has its own.
        probe_rows: Training rows of logistic regression at most.
    """

    side: str
    folder: str
    base_model: str
    virtual_tokens: int
    template: str
    seed: int
    steps: int
    batch_size: int
    every: int
    rate: float | None
    probe_rows: int

    def to_text(self) -> str:
        """One line of JSON that `from_text` makes the same job of."""
        return json.dumps(asdict(self))

    @classmethod
    def from_text(cls, text: str) -> Job:
        """The job that `to_text` wrote."""
        return cls(**json.loads(text))

    def rows(self, split: str) -> list[tuple[str, str]]:
        """Text and label of each row of `train` or `test`."""
        with (Path(self.folder) / f"{split}.csv").open(newline="", encoding="utf-8") as file:
            return [(row["text"], row["label"]) for row in csv.DictReader(file)]

    @property
    def words(self) -> dict[str, str] | None:
        """Label -> answer word; None if there are none."""
        found: dict[str, str] | None = json.loads((Path(self.folder) / "words.json").read_text())
        return found


class Clock:
    """Seconds since a moment of `time.time()`, without those it stood still.

    Args:
        begun: The moment.
        now: Tells the present moment.
    """

    def __init__(self, begun: float, now: Callable[[], float] = time.time) -> None:
        self._begun, self._now, self._stood_still = begun, now, 0.0

    @property
    def seconds(self) -> float:
        """That have counted so far."""
        return self._now() - self._begun - self._stood_still

    @contextmanager
    def paused(self) -> Iterator[None]:
        """While inside, nothing counts."""
        began = self._now()
        try:
            yield
        finally:
            self._stood_still += self._now() - began


class Meter:
    """Measures test accuracy while the clock stands still, and tells each point as a line.

    Args:
        job: Names the test rows.
        clock: The side's.
        tell: Receives the lines.
    """

    def __init__(self, job: Job, clock: Clock, tell: Callable[[str], None] = print) -> None:
        self._clock, self._tell = clock, tell
        with clock.paused():
            self._rows = job.rows("test")

    def note(self, step: int, predict: Predict) -> float:
        """Measure and tell a point; returns its accuracy."""
        seconds = self._clock.seconds
        with self._clock.paused():
            predicted = predict([text for text, _ in self._rows])
            right = sum(one == label for one, (_, label) in zip(predicted, self._rows, strict=True))
            accuracy = right / len(self._rows)
            self._line(seconds=seconds, step=step, accuracy=accuracy)
        return accuracy

    def end(self, taken: float) -> None:
        """Tell that the side is done, and the test accuracy of what it ends with."""
        self._line(seconds=self._clock.seconds, taken=taken)

    def _line(self, **values: float) -> None:
        self._tell(MARK + json.dumps(values))
