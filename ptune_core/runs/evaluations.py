"""What is known of evaluations while a run goes on: of the run itself, and of each trial of its sweep.

A `metrics.jsonl` is read forward, each part once, and only its lines about evaluations are taken apart.
"""

from __future__ import annotations

import os
import threading
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from ptune_core.files import read_lines

_EVAL = b'{"kind":"eval"'
_PLAN = b'{"kind":"plan"'
_OPEN_FILES = 256


@dataclass(frozen=True)
class Evaluated:
    """One evaluation.

    Attributes:
        only: The label that every validation row is predicted as, if it is one and the same.
    """

    step: int
    loss: float
    value: float
    best: bool
    only: str | None


class _Reader:
    """The evaluations in one file, as it grows."""

    def __init__(self, path: Path) -> None:
        self.lock = threading.Lock()
        self._path = path
        self._clear(b"", 0)

    def _clear(self, first: bytes, inode: int) -> None:
        self._first, self._inode, self._offset = first, inode, 0
        self.found: list[Evaluated] = []
        self.plan: dict[str, Any] = {}

    def read_on(self) -> None:
        try:
            descriptor = os.open(self._path, os.O_RDONLY)
        except FileNotFoundError:
            return
        try:
            first, status = os.pread(descriptor, 256, 0).partition(b"\n")[0], os.fstat(descriptor)
            # A resumed run replaces the file by one that begins with another line.
            if (first, status.st_ino) != (self._first, self._inode) or status.st_size < self._offset:
                self._clear(first, status.st_ino)
            data = os.pread(descriptor, status.st_size - self._offset, self._offset)
        finally:
            os.close(descriptor)
        whole = data[: data.rfind(b"\n") + 1]
        self._offset += len(whole)
        wanted = b"\n".join(line for line in whole.split(b"\n") if line.startswith((_EVAL, _PLAN)))
        for line in read_lines(wanted):
            if line["kind"] == "plan":
                self.plan = line
                continue
            loss, value = line.get("loss"), line.get("value")
            nan = float("nan")
            self.found.append(
                Evaluated(
                    step=int(line["step"]),
                    loss=nan if loss is None else float(loss),
                    value=nan if value is None else float(value),
                    best=bool(line.get("best")),
                    only=line.get("only"),
                )
            )


@lru_cache(maxsize=_OPEN_FILES)
def _reader(path: Path) -> _Reader:
    return _Reader(path)


def evaluations(metrics: Path) -> tuple[Evaluated, ...]:
    """Every evaluation in a `metrics.jsonl`, in their order; none while there is no such file."""
    reader = _reader(metrics)
    with reader.lock:
        reader.read_on()
        return tuple(reader.found)


def plan(metrics: Path) -> dict[str, Any]:
    """The `plan` line of a `metrics.jsonl`; empty while there is none."""
    reader = _reader(metrics)
    with reader.lock:
        reader.read_on()
        return dict(reader.plan)
