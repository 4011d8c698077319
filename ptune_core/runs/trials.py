"""The trials of a sweep after it: their files, and another one in the place of the best."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ptune_core.errors import RunError
from ptune_core.files import Lock, atomic_write, sync
from ptune_core.runs.directory import RunDirectory

_SIDECAR = "ptune.json"
_OF_THE_RUN = ("seconds",)
"""Of a trial's measures, what is the run's to say."""

_LEAVING_SECONDS, _LOOK_SECONDS = 10.0, 0.05


def trial_files(run: RunDirectory, number: int) -> RunDirectory:
    """The files of trial `number`, from 0, for reading; nothing is made."""
    return RunDirectory(run.path / "sweep" / f"{number + 1:02d}")


def use_trial(run: RunDirectory, number: int, *, wait: Callable[[float], None] = time.sleep) -> None:
    """Make the adapter, predictions and numbers of a sweep's trial those of the run.

    What the best trial had stays in its own folder, so it can be chosen again. Asked for twice, it is done twice, one
    after the other.

    Args:
        wait: Sleeps for so many seconds.

    Raises:
        RunError: The run has not ended, or has no such trial with an adapter.
    """
    with _alone_with(run, wait):
        result = run.result()
        if result is None:
            raise _has_not_ended()
        _use(run, result, number)


@contextmanager
def _alone_with(run: RunDirectory, wait: Callable[[float], None]) -> Iterator[None]:
    """While nobody else changes the run. A worker that has written its result keeps the lock for another moment."""
    waited = 0.0
    while (lock := Lock.acquire(run.lock_file)) is None:
        if run.result() is None or waited >= _LEAVING_SECONDS:
            raise _has_not_ended()
        wait(_LOOK_SECONDS)
        waited += _LOOK_SECONDS
    with lock:
        yield


def _has_not_ended() -> RunError:
    return RunError("The run has not ended yet", remedy="Wait until it has ended, or stop it")


def _use(run: RunDirectory, result: dict[str, Any], number: int) -> None:
    trial = trial_files(run, number)
    ranked = {row["trial"]: row for row in result.get("sweep", ())}
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
