"""What the strip and the list of runs show: one answer to one question a second. No gradio, no torch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ptune_core.app import texts
from ptune_core.app.run_view import ENDED_BADLY, row_of
from ptune_core.app.texts import outcome
from ptune_core.runs import live
from ptune_core.runs.directory import RunDirectory
from ptune_core.runs.run import Run
from ptune_core.runs.states import RunState


def overview(runs: Sequence[Run], position: Callable[[str], int], device: Sequence[str]) -> dict[str, Any]:
    """What goes on, for one viewer.

    Args:
        runs: All runs that this viewer may see, newest first.
        position: Id of a run -> its place in the queue of everybody, 1 for the next one.
        device: What to say when nothing goes on, the longest form first.
    """
    queued = [(position(run.id), run) for run in runs if run.state is RunState.QUEUED]
    waiting = sorted(queued, key=lambda each: each[0])
    active = next((run for run in runs if run.state is RunState.RUNNING), None)
    if active is None and waiting:
        active = waiting.pop(0)[1]
    return {
        "active": active and _active(active, position(active.id)),
        "idle": list(device),
        "newest": _newest(runs[0]) if runs else None,
        "waiting": [{"id": run.id, "line": texts.in_queue(place, run.name)} for place, run in waiting],
        "runs": [row_of(run) for run in runs],
    }


def _active(run: Run, position: int) -> dict[str, Any]:
    """`lines` say the same in less and less room; the browser takes the first one that fits."""
    active = {"id": run.id, "name": run.name, "state": run.state, "progress": "", "can_stop": True}
    names = _names(run)
    if run.state is RunState.QUEUED:
        return {**active, "lines": [texts.queued(name, position) for name in names]}
    summary = live.summary(run)
    doing, step, steps = summary["status"].partition(" · ")[0], summary["step"], summary["steps"]
    progress = f"{step:,}/{steps:,}" if step and steps else ""
    if doing.startswith("Step "):  # nothing but what `progress` says
        doing = ""
    left = summary["seconds_left"]
    remaining = live.duration(max(1.0, left)) if left else ""
    lines = texts.training(names, doing, progress, remaining, (summary["metric"], summary["best"]))
    can_stop = not RunDirectory(run.directory).stop_requested()
    return {**active, "progress": progress, "can_stop": can_stop, "lines": lines}


def _names(run: Run) -> list[str]:
    """The run's name and, if it was given none, its name without the base model's."""
    _, on, data = run.name.partition(" on ")
    was_named = run.setting_values.get("name")
    return [run.name, data] if on and not was_named else [run.name]


def _newest(run: Run) -> dict[str, Any]:
    """The run that was started last, for the strip and for the card that started it."""
    directory = RunDirectory(run.directory)
    state, reason = directory.recorded_state()
    result = directory.result() or {}
    ended = not state.is_active
    line = texts.plain_headline(state, result) if ended else live.summary(run)["status"]
    warning = reason if state in ENDED_BADLY else outcome.in_vain(result)
    said = warning.split(". ")[0] if warning else line  # what to do about it stands in Runs
    return {
        "id": run.id,
        "name": run.name,
        "state": state,
        "ended": ended,
        "line": line,
        "lines": texts.ended(_names(run), said),
        "warning": warning,
    }
