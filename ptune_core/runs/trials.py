"""The trials of a sweep after it: their files, and another one in the place of the best."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

from ptune_core.errors import RunError
from ptune_core.files import atomic_write, sync
from ptune_core.runs.directory import RunDirectory

_SIDECAR = "ptune.json"
_OF_THE_RUN = ("seconds",)
"""Of a trial's measures, what is the run's to say."""


def trial_files(run: RunDirectory, number: int) -> RunDirectory:
    """The files of trial `number`, from 0, for reading; nothing is made."""
    return RunDirectory(run.path / "sweep" / f"{number + 1:02d}")


def use_trial(run: RunDirectory, number: int) -> None:
    """Make the adapter, predictions and numbers of a sweep's trial those of the run.

    What the best trial had stays in its own folder, so it can be chosen again.

    Raises:
        RunError: The run has not ended, or has no such trial with an adapter.
    """
    result, trial = run.result(), trial_files(run, number)
    ranked = {row["trial"]: row for row in (result or {}).get("sweep", ())}
    if result is None or run.is_alive():
        raise RunError("The run has not ended yet", remedy="Wait until it has ended, or stop it")
    if number not in ranked or not trial.adapter_zip.exists():
        raise RunError("This trial has no adapter", got=f"trial {number + 1}", remedy="Choose another one")
    numbers = json.loads((trial.adapter / _SIDECAR).read_bytes())["metrics"]
    _replace_folder(trial.adapter, run.adapter)
    for theirs, ours in ((trial.adapter_zip, run.adapter_zip), (trial.predictions, run.predictions)):
        if theirs.exists():
            _replace_file(theirs, ours)
    kept = {name: value for name, value in numbers.items() if name not in _OF_THE_RUN}
    chosen = {"trial": number, "reason": ranked[number]["reason"]}
    atomic_write(run.result_file, json.dumps({**result, **kept, **chosen}, ensure_ascii=False).encode() + b"\n")


def _replace_folder(source: Path, target: Path) -> None:
    building, old = target.with_name(".tmp-adapter"), target.with_name(".tmp-old-adapter")
    for leftover in (building, old):
        shutil.rmtree(leftover, ignore_errors=True)
    shutil.copytree(source, building)
    if target.exists():
        os.replace(target, old)
    os.replace(building, target)
    sync(target.parent)
    shutil.rmtree(old, ignore_errors=True)


def _replace_file(source: Path, target: Path) -> None:
    building = target.with_name(f".tmp-{target.name}")
    shutil.copyfile(source, building)
    sync(building)
    os.replace(building, target)
