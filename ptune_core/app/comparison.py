"""Several runs beside each other: their curves, and the settings that differ. Plain Python."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ptune_core.app import texts
from ptune_core.errors import RunError
from ptune_core.runs import live
from ptune_core.runs.baselines import baseline_list, of_line
from ptune_core.runs.directory import RunDirectory
from ptune_core.runs.run import Run

MOST_COMPARED = 8
MOST_POINTS = 400
"""Points of one series of one run in one reply."""

_LONGEST_VALUE = 160
_NO_DIFFERENCE = frozenset({"name", "sweep", "halving"})
_LINES = {"steps": ("x", "loss", "seconds"), "evals": ("x", "loss", "value", "seconds")}

Find = Callable[[str], Run]
"""The run of an id, or `RunError` if there is none for this viewer."""


@dataclass(frozen=True)
class _Curve:
    """One curve that is asked for: that of a run, or of one trial of a sweep, and what the browser has of it."""

    run: Run
    trial: int | None
    cursor: int
    epoch: int

    @property
    def metrics(self) -> Path:
        if self.trial is None:
            return RunDirectory(self.run.directory).metrics
        return RunDirectory(self.run.directory / "sweep" / f"{self.trial + 1:02d}").metrics

    @property
    def settings(self) -> dict[str, Any]:
        """As they were submitted, unchecked: the run may be of another version of PTune."""
        settings = self.run.setting_values
        if self.trial is not None:
            sweep = settings["sweep"]
            settings |= dict(zip(sweep, list(itertools.product(*sweep.values()))[self.trial], strict=True))
        return settings


def compare(asked: object, find: Find) -> dict[str, Any]:
    """What is new about several runs, as JSON values for the browser.

    Args:
        asked: A list of ``{"run", "trial", "cursor", "epoch"}``; ``trial`` is null for a run's own curve. Anybody may
            have written it.
        find: Finds a run for this viewer.

    Returns:
        ``curves``, in the order asked for, each with what `live.curve_since` says of it, ``name``, ``state``,
        ``created``, ``baselines`` and ``head``, what a classification head reads; ``differing``: the settings that are
        not the same in all, ``setting`` and ``values``, or None if nothing is asked for anew.

    Raises:
        RunError: There is no such run for this viewer, or too many are asked for.
    """
    if not isinstance(asked, list) or not 1 <= len(asked) <= MOST_COMPARED:
        got = f"{len(asked)}" if isinstance(asked, list) else "no list"
        raise RunError("So many runs cannot be compared", got=got, needed=f"1 to {MOST_COMPARED}")
    curves = [_parse(each, find) for each in asked]
    is_new = any(curve.cursor == 0 for curve in curves)
    return {"curves": [_reply(curve) for curve in curves], "differing": _differing(curves) if is_new else None}


def _parse(asked: object, find: Find) -> _Curve:
    question: Mapping[str, Any] = asked if isinstance(asked, dict) else {}
    run_id, trial = question.get("run"), question.get("trial")
    run = find(run_id if isinstance(run_id, str) and len(run_id) <= 64 else "")
    if trial is not None and not (type(trial) is int and 0 <= trial < _trials(run)):
        raise RunError("There is no such trial", got=repr(trial)[:40], needed=f"a number below {_trials(run)}")
    return _Curve(run, trial, *(_number(question.get(name)) for name in ("cursor", "epoch")))


def _trials(run: Run) -> int:
    sweep = run.setting_values.get("sweep") or {}
    return math.prod(map(len, sweep.values())) if sweep else 0


def _number(value: object) -> int:
    return value if type(value) is int and 0 <= value < 2**53 else 0


def _reply(curve: _Curve) -> dict[str, Any]:
    found = live.curve_since(curve.metrics, curve.cursor, curve.epoch, MOST_POINTS)
    state, _ = RunDirectory(curve.run.directory).recorded_state()
    points = {series: {name: found[series][name] for name in names} for series, names in _LINES.items()}
    known = ("reset", "epoch", "cursor", "epochs_per_step", "best", "best_step")
    return {
        **{name: found[name] for name in known},
        **points,
        "baselines": [
            {"name": one.name, "value": one.value, "band": one.band}
            for one in baseline_list(of_line(found["baseline"] or {}))
        ],
        "head": ((found["plan"] or {}).get("head") or {}).get("head_input"),
        "metric": found["plan"] and found["plan"].get("metric"),
        "name": curve.run.name if curve.trial is None else f"{curve.run.name}, trial {curve.trial + 1}",
        "state": state,
        "created": curve.run.created,
        "done": not state.is_active,
    }


def _differing(curves: Sequence[_Curve]) -> list[dict[str, Any]]:
    """The settings in which not all curves are the same, in the order of their declaration."""
    all_settings = [curve.settings for curve in curves]
    rows = []
    for name in (name for name in all_settings[0] if name not in _NO_DIFFERENCE):
        values = [settings.get(name) for settings in all_settings]
        if any(value != values[0] for value in values):
            rows.append({"setting": texts.label(name), "values": [_as_text(value) for value in values]})
    digests = [str(RunDirectory(curve.run.directory).run().get("data_sha256", ""))[:8] for curve in curves]
    if len(set(digests)) > 1:
        rows.append({"setting": texts.ROWS_FINGERPRINT, "values": digests})
    return rows


def _as_text(value: object) -> str:
    match value:
        case None | "" | [] | {}:
            text = "–"
        case bool():
            text = "yes" if value else "no"
        case list():
            text = ", ".join(map(str, value))
        case dict():
            text = ", ".join(f"{name}: {each}" for name, each in value.items())
        case _:
            text = str(value)
    return text if len(text) <= _LONGEST_VALUE else text[: _LONGEST_VALUE - 1] + "…"
