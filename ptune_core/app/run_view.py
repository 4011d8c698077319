"""What the page shows of one run directory, in plain Python. No gradio, no torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from ptune_core.app import texts
from ptune_core.app.texts import outcome
from ptune_core.model.device import BaseWeights
from ptune_core.runs import live
from ptune_core.runs.baselines import findings, of_line
from ptune_core.runs.directory import RunDirectory, has_diverged
from ptune_core.runs.evaluations import plan
from ptune_core.runs.run import Run
from ptune_core.runs.states import RunState

ENDED_BADLY = frozenset({RunState.FAILED, RunState.INTERRUPTED})


@dataclass(frozen=True)
class RunView:
    """One run as the page shows it.

    Attributes:
        headline: The result or the state in one sentence.
        problem: Why it ended, if it did not end well.
        warning: That the adapter is of no use, if it is not.
        base_weights: Whether the base model was frozen, or is in the adapter's zip because it was tuned.
        settings: The settings as YAML.
        files: Name and bytes of everything in the adapter's zip.
        zip_bytes: Of the zip; 0 without one.
        score: The result beside its baselines, with Markdown; empty without one.
        num_trials: Of a sweep; 0 without one.
        trial: The one of them whose adapter it is.
        can_resume: Whether it ended early and would do something else if it went on.
        notes: What is to be known beside the number, a sentence each.
    """

    id: str
    name: str
    state: RunState
    headline: str
    problem: str
    warning: str
    has_adapter: bool
    base_weights: BaseWeights
    settings: str
    files: tuple[tuple[str, int], ...]
    zip_bytes: int
    score: str = ""
    num_trials: int = 0
    trial: int | None = None
    can_resume: bool = False
    notes: tuple[str, ...] = ()


def view_of(run: Run, position: int) -> RunView:
    """One run, for the Runs, Try and Export tabs.

    Args:
        position: In the queue, if it waits there.
    """
    directory = RunDirectory(run.directory)
    state, reason = directory.recorded_state()  # as the live plot does; the store hears of the end a moment later
    result, is_there = directory.result() or {}, has_adapter(directory)
    return RunView(
        id=run.id,
        name=run.name,
        state=state,
        headline=texts.queued(run.name, position) if state is RunState.QUEUED else texts.headline(state, result),
        problem=reason if state in ENDED_BADLY else "",
        warning=outcome.in_vain(result),
        has_adapter=is_there,
        base_weights=run.base_weights,
        settings=yaml.safe_dump(run.setting_values, sort_keys=False, allow_unicode=True),
        files=_files(directory.adapter) if is_there else (),
        zip_bytes=directory.adapter_zip.stat().st_size if is_there else 0,
        score=outcome.score(result),
        num_trials=0 if run.outdated or not run.settings.sweep else len(run.settings.trials),
        trial=result.get("trial"),
        can_resume=state.can_resume and not has_diverged(result) and not run.outdated,
        notes=tuple(notes_of(run)),
    )


def notes_of(run: Run) -> list[str]:
    """What is to be known of a run beside its number, as far as it has come."""
    directory = RunDirectory(run.directory)
    result = directory.result() or {}
    if result.get("value") is None:
        result = of_line(live.summary(run)["baseline"] or {})
    return findings(plan(directory.metrics), result)


def row_of(run: Run) -> dict[str, Any]:
    summary = live.summary(run)
    return {
        "id": run.id,
        "name": run.name,
        "state": run.state,
        "created": run.created,
        "best": texts.number(summary["best"]),
        "metric": summary["metric"],
        "sweep": run.setting_values.get("sweep") or {},
        "spark": [value for value in summary["spark"] if value is not None],
    }


def has_adapter(directory: RunDirectory) -> bool:
    """Whether there is all of it: one damaged run must not keep the page from showing the others."""
    return directory.adapter_zip.exists() and (directory.adapter / "snippet.py").exists()


def _files(adapter: Path) -> tuple[tuple[str, int], ...]:
    files = (path for path in sorted(adapter.rglob("*")) if path.is_file())
    return tuple((path.relative_to(adapter).as_posix(), path.stat().st_size) for path in files)
