"""What the page shows of a run: the curve since a viewer's cursor, progress, and one line of status.

Each run's `metrics.jsonl` is read once, forward, into arrays that all viewers share; a viewer's cursor is the number of
lines it has seen. A first reply, or one after a resumed run went back to its checkpoint, replaces what the viewer has
and is thinned; the others carry only what is new.
"""

from __future__ import annotations

import json
import os
import threading
from array import array
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from functools import lru_cache
from math import nan
from pathlib import Path
from typing import Any

from ptune_core.files import read_lines
from ptune_core.runs.directory import RunDirectory
from ptune_core.runs.run import Run
from ptune_core.runs.states import RunState
from ptune_core.training.metrics import Metric, wilson_interval

MOST_POINTS = 1500
"""Points of one series in one reply."""

MOST_MOMENTS = 60
"""Evaluations whose virtual tokens are in one reply."""

SPARK_POINTS = 40
_OPEN_CURVES = 256
"""A list of more runs than this is read from their files at each look."""


class Series:
    """Points in the order they were written: the step of each, the number of its line, and its values."""

    def __init__(self, *names: str) -> None:
        self.x = array("q")
        self.line = array("q")
        self.values = {name: array("d") for name in names}

    def add(self, line_number: int, line: dict[str, Any]) -> None:
        """Take the values of one line; what is missing or null becomes NaN."""
        self.x.append(int(line["step"]))
        self.line.append(line_number)
        for name, values in self.values.items():
            value = line.get(name)
            values.append(nan if value is None else float(value))

    def since(self, cursor: int) -> range:
        """Indices of the points written after the first `cursor` lines."""
        return range(bisect_right(self.line, cursor), len(self.x))

    def as_json(self, indices: Sequence[int]) -> dict[str, list[Any]]:
        """The points at `indices` as lists of numbers with 6 digits; NaN becomes null."""
        columns = {name: [_short(values[i]) for i in indices] for name, values in self.values.items()}
        return {"x": [self.x[i] for i in indices], **columns}


class Curve:
    """All that a run's `metrics.jsonl` says, read as it grows; safe to use from several threads."""

    def __init__(self, path: Path) -> None:
        self.lock = threading.Lock()
        self._path = path
        self._clear(b"", 0)

    def _clear(self, first_line: bytes, inode: int) -> None:
        self._first_line, self._inode, self._offset = first_line, inode, 0
        self.edition = 1
        self.lines = 0
        self.steps = Series("loss", "learning_rate", "grad_norm", "seconds")
        self.evals = Series("loss", "value", "best", "seconds", "rows", "low", "high")
        self.only: list[str | None] = []  # of each evaluation, the label that every row is predicted as
        self.tokens: list[tuple[int, str]] = []  # as JSON, which takes a fifth of the memory
        self.epochs_per_step: float | None = None
        self.attempt_start = 0
        self._seconds = self._seconds_before = 0.0
        self.plan: dict[str, Any] | None = None
        self.baseline: dict[str, Any] | None = None
        self.final: dict[str, Any] | None = None
        self.samples: dict[str, Any] | None = None
        self.samples_line = 0
        self.phase = ""
        self.fetched = ""  # of a base model that is being downloaded

    def read_on(self) -> None:
        """Take in what was written since the last call; a last line without its end is left for the next."""
        try:
            descriptor = os.open(self._path, os.O_RDONLY)
        except FileNotFoundError:
            return
        try:
            first_line, newline, _ = os.pread(descriptor, 256, 0).partition(b"\n")
            status = os.fstat(descriptor)
            if not newline and status.st_size < 256:
                return  # not even the first line is whole
            if (first_line, status.st_ino) != (self._first_line, self._inode) or status.st_size < self._offset:
                self._clear(first_line, status.st_ino)
            data = os.pread(descriptor, status.st_size - self._offset, self._offset)
        finally:
            os.close(descriptor)
        whole = data[: data.rfind(b"\n") + 1]
        self._offset += len(whole)
        for line in read_lines(whole):
            self.lines += 1
            self._take(line)

    def _take(self, line: dict[str, Any]) -> None:
        if line.get("kind") in ("step", "eval") and line.get("seconds") is not None:
            # They count from the start of an attempt; the time axis goes on from the one before.
            line["seconds"] = self._seconds = self._seconds_before + float(line["seconds"])
        match line.get("kind"):
            case "step":
                self.steps.add(self.lines, line)
                self.epochs_per_step = line["epoch"] / line["step"] if "epoch" in line else None
            case "eval":
                self.evals.add(self.lines, _with_bounds(line))
                self.only.append(line.get("only"))
            case "tokens":
                self._take_tokens({name: value for name, value in line.items() if name not in ("kind", "trial")})
            case "sample":
                self.samples, self.samples_line = {"step": line["step"], "rows": line["rows"]}, self.lines
            case "plan":
                self.plan = {name: value for name, value in line.items() if name != "kind"}
            case "baseline":
                self.baseline = {name: value for name, value in line.items() if name not in ("kind", "trial")}
            case "final":
                known = ("step", "value", "loss", "rows", "low", "high")
                self.final = {name: _with_bounds(line).get(name) for name in known}
                self.baseline = line.get("baseline") or self.baseline  # some are measured when training has ended
            case "phase":
                self.phase, self.fetched = str(line["phase"]), _fetched(line)
            case "resume":
                self.attempt_start, self.final = len(self.steps.x), None
                self._seconds_before = self._seconds
            case "edition":
                self.edition = int(line["edition"])

    def _take_tokens(self, line: dict[str, Any]) -> None:
        self.tokens.append((self.lines, json.dumps(line)))
        if len(self.tokens) > 4 * MOST_MOMENTS:  # however long the run, memory is bounded
            self.tokens = [*self.tokens[:-1:2], self.tokens[-1]]

    def moments(self, cursor: int) -> list[dict[str, Any]]:
        """The virtual tokens after the first `cursor` lines, at no more than `MOST_MOMENTS` evaluations."""
        new = [line for number, line in self.tokens if number > cursor]
        if len(new) > MOST_MOMENTS:
            new = [new[i * (len(new) - 1) // (MOST_MOMENTS - 1)] for i in range(MOST_MOMENTS)]
        return [json.loads(line) for line in new]

    def since(self, cursor: int, epoch: int, most: int) -> dict[str, Any]:
        """The curve's part of `since`, with no more than `most` points of a series."""
        new: tuple[Sequence[int], Sequence[int]] = (self.steps.since(cursor), self.evals.since(cursor))
        is_known = 0 < cursor <= self.lines and epoch == self.edition
        reset = not is_known or max(map(len, new)) > most
        steps, evals = new
        if reset:
            steps = thinned(self.steps.values["loss"], most)
            evals = thinned(self.evals.values["value"], most)
        return {
            "reset": reset,
            "epoch": self.edition,
            "cursor": self.lines,
            "steps": self.steps.as_json(steps),
            "evals": self._evals_as_json(evals),
            "tokens": self.moments(0 if reset else cursor),
            "epochs_per_step": self.epochs_per_step,
            "baseline": self.baseline,
            "final": self.final,
            "plan": self.plan,
        }

    def _evals_as_json(self, indices: Sequence[int]) -> dict[str, list[Any]]:
        points = self.evals.as_json(indices)
        points["best"] = [flag == 1.0 for flag in points["best"]]
        plan = self.plan or {}
        if points["low"] and all(low is None for low in points["low"]):  # an older PTune wrote none
            count = plan.get("validation_examples") if plan.get("metric") == Metric.ACCURACY else None
            bounds = [_bounds(self.evals.values["value"][i], count) for i in indices]
            points["low"], points["high"] = ([_short(end) for end in ends] for ends in zip(*bounds, strict=True))
        if plan.get("metric") != Metric.ACCURACY:
            del points["low"], points["high"]
        return points

    @property
    def best(self) -> tuple[int, float] | None:
        """Step and value of the result on all validation rows; before there is one, of the best evaluation."""
        if self.final is not None:
            return self.final["step"], self.final["value"]
        flags = self.evals.values["best"]
        index = next((i for i in reversed(range(len(flags))) if flags[i] == 1.0), None)
        return None if index is None else (self.evals.x[index], self.evals.values["value"][index])

    @property
    def rate(self) -> float | None:
        """Steps per second, evaluations included, of the current attempt; None before its second step."""
        first, last = self.attempt_start, len(self.steps.x) - 1
        if last <= first:
            return None
        seconds = self.steps.values["seconds"][last] - self.steps.values["seconds"][first]
        return (self.steps.x[last] - self.steps.x[first]) / seconds if seconds > 0 else None


@lru_cache(maxsize=_OPEN_CURVES)
def curve_of(metrics: Path) -> Curve:
    """The one curve of a `metrics.jsonl`, for whoever reads it; `read_on` under its lock takes in what is new."""
    return Curve(metrics)


def since(run_dir: Path, cursor: int, epoch: int) -> dict[str, Any]:
    """What is new about a run, as JSON values for the browser.

    Args:
        run_dir: The run directory.
        cursor: The `cursor` of the viewer's last reply, 0 at first.
        epoch: The `epoch` of the viewer's last reply.

    Returns:
        ``reset``: whether the points replace what the viewer has; ``steps`` and ``evals``: a list for each value, those
        of accuracy with the ``low`` and ``high`` end of its 95 % interval on so many ``rows``; ``final``: the result on
        all validation rows, once there is one; ``seconds`` count from the first attempt's
        start, time between attempts left out; ``tokens``: how far the virtual tokens went, see `insight.Movement`;
        ``samples``: at most one, the newest, if it is new; ``done``: whether asking again is of no use until the run is
        resumed. The rest as its name says.
    """
    files = RunDirectory(run_dir)
    state, reason = files.recorded_state()  # before the curve: when it says done, the curve below is complete
    curve = curve_of(files.metrics)
    with curve.lock:
        curve.read_on()
        points = curve.since(cursor, epoch, MOST_POINTS)
        return {
            **points,
            "state": state,
            "phase": curve.phase,
            "status": _status(files, curve, state, reason),
            "progress": _progress(curve, state),
            "done": not state.is_active,
            "samples": [curve.samples] if curve.samples and (points["reset"] or curve.samples_line > cursor) else [],
        }


def curve_since(metrics: Path, cursor: int, epoch: int, most: int) -> dict[str, Any]:
    """The curve alone of one `metrics.jsonl`, also that of a sweep's trial: see `since`.

    Args:
        metrics: The file; without one the curve is empty.
        cursor: The `cursor` of the viewer's last reply, 0 at first.
        epoch: The `epoch` of the viewer's last reply.
        most: Points of one series in one reply.
    """
    curve = curve_of(metrics)
    with curve.lock:
        curve.read_on()
        best_step, best = curve.best or (None, None)
        return {**curve.since(cursor, epoch, most), "best": best and _short(best), "best_step": best_step}


def summary(run: Run) -> dict[str, Any]:
    """One run in a list: how far it is, its best value beside its baselines, and a small curve of the metric."""
    files = RunDirectory(run.directory)
    curve = curve_of(files.metrics)
    with curve.lock:
        curve.read_on()
        best_step, best = curve.best or (None, None)
        values = curve.evals.values["value"]
        return {
            "id": run.id,
            "name": run.name,
            "state": run.state,
            "attempt": run.attempt,
            "created": run.created,
            "status": _status(files, curve, run.state, run.reason),
            **_progress(curve, run.state),
            "metric": curve.plan and curve.plan.get("metric"),
            "best": best,
            "best_step": best_step,
            "baseline": curve.baseline,
            "spark": [_short(values[i]) for i in thinned(values, SPARK_POINTS)],
        }


def thinned(values: Sequence[float], limit: int) -> Sequence[int]:
    """At most `limit` indices of `values` whose line looks the same: the lowest and highest point of every bucket.

    The first and the last point are always there, and all of them if they are few enough.
    """
    count = len(values)
    if count <= limit:
        return range(count)
    kept = {0, count - 1}
    buckets = (limit - 2) // 2
    for bucket in range(buckets):
        indices = range(1 + bucket * (count - 2) // buckets, 1 + (bucket + 1) * (count - 2) // buckets)
        kept |= {min(indices, key=values.__getitem__), max(indices, key=values.__getitem__)}
    return sorted(kept)


def _with_bounds(line: dict[str, Any]) -> dict[str, Any]:
    """A line with the ends of its interval as two values."""
    low, high = line.get("interval") or (None, None)
    return {**line, "low": low, "high": high}


def _bounds(share: float, count: int | None) -> tuple[float, float]:
    return (nan, nan) if share != share or not count else wilson_interval(share, count)


def _progress(curve: Curve, state: RunState) -> dict[str, Any]:
    step = curve.steps.x[-1] if curve.steps.x else 0
    steps = curve.plan["steps"] if curve.plan else None
    rate = curve.rate
    left = (steps - step) / rate if state is RunState.RUNNING and steps and rate else None
    return {"step": step, "steps": steps, "rate": rate and _short(rate), "seconds_left": left and _short(left)}


def _fetched(line: Mapping[str, Any]) -> str:
    """``, 43% of 548 MB``: how much of a base model has come."""
    here, total = line.get("bytes"), line.get("of")
    if not isinstance(here, int) or not isinstance(total, int) or here >= total:
        return ""
    return f", {100 * here // total}% of {total / 1e6:,.0f} MB"


def _status(files: RunDirectory, curve: Curve, state: RunState, reason: str) -> str:
    """One line that says where the run stands."""
    progress = _progress(curve, state)
    parts = []
    if state is RunState.QUEUED:
        return "Waiting for its turn"
    if state is RunState.RUNNING and files.stop_requested():
        parts.append("Stopping; the best result so far is kept")
    elif state is RunState.RUNNING and curve.phase != "training":
        parts.append(f"{(curve.phase or 'starting').capitalize()}{curve.fetched}…")
    elif state is RunState.RUNNING and not progress["step"]:
        parts.append("First evaluation…")
    if progress["step"]:
        parts.append(f"Step {progress['step']:,} of {progress['steps']:,}" if progress["steps"] else "")
    if state is RunState.RUNNING and curve.phase == "training":
        if progress["rate"]:
            parts.append(f"{progress['rate']:.3g} steps/s")
        if progress["seconds_left"]:
            parts.append(f"at most {duration(max(1.0, progress['seconds_left']))} left")
    if curve.plan and "base" in curve.plan:
        parts.append(f"base model {curve.plan['base']['weights']}")
    if curve.best and curve.plan:
        step, value = curve.best
        parts.append(f"best {curve.plan['metric']} {value:.3f} at step {step:,}")
    if not state.is_active and reason and reason != state:
        parts.append(reason)
    return " · ".join(part for part in parts if part)


def duration(seconds: float) -> str:
    """A time span as people say it: 44 s, 3 min 20 s, 2 h 5 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def _short(value: float) -> float | None:
    return None if value != value else float(f"{value:.6g}")
