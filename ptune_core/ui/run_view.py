"""What the page shows of one run directory, in plain Python. No gradio, no torch."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from ptune_core.data.table import open_table
from ptune_core.errors import DataError
from ptune_core.model.device import BaseWeights
from ptune_core.runs import live
from ptune_core.runs.directory import RunDirectory
from ptune_core.runs.states import RunState
from ptune_core.runs.store import Run
from ptune_core.training.settings import RunSettings
from ptune_core.ui import texts
from ptune_core.ui.preview import varied_rows

_EXAMPLES = 4
ENDED_BADLY = frozenset({RunState.FAILED, RunState.INTERRUPTED})


@dataclass(frozen=True)
class RunView:
    """One run as the page shows it.

    Attributes:
        headline: The result or the state in one sentence.
        problem: Why it ended, if it did not end well.
        warning: That the adapter is of no use, if it is not.
        columns: The template's input columns, to be filled in Try.
        labels: Class names; empty if the run generates text.
        examples: Some rows for Try, template column -> text.
        base_weights: Whether the base model was frozen, or is in the adapter's zip because it was tuned.
        settings: The settings as YAML.
        snippet: Code that uses the adapter; empty without one.
        files: Name and bytes of everything in the adapter's zip.
        score: The result beside its baselines, with Markdown; empty without one.
        num_trials: Of a sweep; 0 without one.
        trial: The one of them whose adapter it is.
    """

    id: str
    name: str
    state: RunState
    headline: str
    problem: str
    warning: str
    has_adapter: bool
    columns: tuple[str, ...]
    labels: tuple[str, ...]
    examples: tuple[dict[str, str], ...]
    base_weights: BaseWeights
    settings: str
    snippet: str
    files: tuple[tuple[str, int], ...]
    score: str = ""
    num_trials: int = 0
    trial: int | None = None


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
        warning=texts.no_better(result),
        has_adapter=is_there,
        columns=run.settings.input_columns,
        labels=tuple(result.get("labels") or ()),
        examples=_examples(directory, run.settings) if is_there else (),
        base_weights=run.settings.base_weights,
        settings=yaml.safe_dump(run.settings.model_dump(mode="json"), sort_keys=False, allow_unicode=True),
        snippet=(directory.adapter / "snippet.py").read_text(encoding="utf-8") if is_there else "",
        files=_files(directory.adapter) if is_there else (),
        score=texts.score(result),
        num_trials=len(run.settings.trials) if run.settings.sweep else 0,
        trial=result.get("trial"),
    )


def row_of(run: Run) -> dict[str, Any]:
    summary = live.summary(run)
    return {
        "id": run.id,
        "name": run.name,
        "state": run.state,
        "created": run.created,
        "best": texts.number(summary["best"]),
        "metric": summary["metric"],
        "sweep": json.loads(run.settings_json).get("sweep") or {},
        "spark": [value for value in summary["spark"] if value is not None],
    }


def has_adapter(directory: RunDirectory) -> bool:
    """Whether there is all of it: one damaged run must not keep the page from showing the others."""
    return directory.adapter_zip.exists() and (directory.adapter / "snippet.py").exists()


def _examples(directory: RunDirectory, settings: RunSettings) -> tuple[dict[str, str], ...]:
    try:
        table = open_table(directory.data)
    except DataError:
        return ()  # the adapter is of use without its data
    names = {name: settings.columns.get(name, name) for name in settings.input_columns}
    target = settings.parsed_template.target.column
    rows = varied_rows(table.preview, settings.columns.get(target, target), _EXAMPLES)
    return tuple({name: row.get(column, "") for name, column in names.items()} for row in rows)


def _files(adapter: Path) -> tuple[tuple[str, int], ...]:
    files = (path for path in sorted(adapter.rglob("*")) if path.is_file())
    return tuple((path.relative_to(adapter).as_posix(), path.stat().st_size) for path in files)
