"""Writing `metrics.jsonl`, so that the curve of a run that was interrupted and resumed has no gap and no step twice.

The first line is ``{"kind": "edition", "edition": n}``. Lines are only ever appended to an edition; when a resumed run
goes back to its last checkpoint, the lines after it are dropped by replacing the file with edition n + 1, which tells
readers that what they have read before may no longer be true. So does the file of a sweep when the
trial it shows ends early.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ptune_core.files import atomic_write, json_line, read_lines, write_all

AT_A_STEP = ("step", "eval", "sample", "tokens")
_ABOUT_THE_RESULT = (*AT_A_STEP, "baseline", "final")
_TAIL_BYTES = 1 << 16


class MetricsLog:
    """The open `metrics.jsonl` of one attempt; a context manager.

    Args:
        path: The file. What an earlier attempt wrote stays visible until this one says where it goes on.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor = _open(path)
        self._earlier = _drop_torn_line(self._descriptor)
        if self._earlier == 0:
            write_all(self._descriptor, _edition(1))

    def __enter__(self) -> MetricsLog:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._descriptor)

    def append(self, line: Mapping[str, Any]) -> None:
        """Write one line.

        Before the first line that says where this attempt stands, what contradicts it is dropped: with
        ``{"kind": "resume", "step": k}`` everything after step k, with anything else the whole earlier attempt.

        Raises:
            OSError: The disk is full. No part of the line is left.
        """
        if self._earlier and line["kind"] == "resume":
            self._rewrite(keep_until=line["step"])
        elif self._earlier and line["kind"] in _ABOUT_THE_RESULT:
            self._rewrite(keep_until=None)
        size = os.fstat(self._descriptor).st_size
        try:
            write_all(self._descriptor, json_line(line))
        except OSError:
            os.ftruncate(self._descriptor, size)
            raise

    def follow(self, other: Path) -> None:
        """Show the curve of another trial, from its beginning, in place of what is there."""
        lines = read_lines(self._path.read_bytes())
        kept = [line for line in lines if line.get("kind") not in (*_ABOUT_THE_RESULT, "resume", "edition", "follow")]
        theirs = [line for line in read_lines(other.read_bytes()) if line.get("kind") != "edition"]
        self._replace(lines, b"".join(json_line(line) for line in [*kept, *theirs]))

    def _rewrite(self, keep_until: int | None) -> None:
        data = self._path.read_bytes()
        lines = read_lines(data[: self._earlier])
        kept = [] if keep_until is None else [line for line in lines if _stands(line, keep_until)]
        self._replace(lines, b"".join(json_line(line) for line in kept) + data[self._earlier :])

    def _replace(self, lines: Iterable[Mapping[str, Any]], content: bytes) -> None:
        """Write `content` as the next edition after that of `lines`."""
        edition = max((line["edition"] for line in lines if line.get("kind") == "edition"), default=1)
        atomic_write(self._path, _edition(edition + 1) + content)
        os.close(self._descriptor)
        self._descriptor = _open(self._path)
        self._earlier = 0


def last_phase(path: Path) -> str:
    """What the run of this `metrics.jsonl` was doing last; empty where that cannot be told from the end of the file."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - _TAIL_BYTES))
            lines = read_lines(file.read())
    except FileNotFoundError:
        return ""
    return next((str(line["phase"]) for line in reversed(lines) if line.get("kind") == "phase"), "")


def _stands(line: Mapping[str, Any], step: int) -> bool:
    """Whether what an earlier attempt wrote still holds when training goes on after `step`."""
    if line.get("kind") in ("edition", "final"):  # it goes on, so that was not the end
        return False
    return line.get("kind") not in AT_A_STEP or bool(line["step"] <= step)


def _edition(number: int) -> bytes:
    return json_line({"kind": "edition", "edition": number})


def _open(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)


def _drop_torn_line(descriptor: int) -> int:
    """Cut off a last line that a power cut or a full disk tore; returns the size then."""
    size = os.fstat(descriptor).st_size
    end = size
    while end > 0:
        start = max(0, end - 65536)
        newline = os.pread(descriptor, end - start, start).rfind(b"\n")
        end = start + newline + 1 if newline >= 0 else start
        if newline >= 0:
            break
    if end < size:
        os.ftruncate(descriptor, end)
    return end
