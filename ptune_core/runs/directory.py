"""A run's directory, which is the truth about the run, and where run directories live.

run.json        what was asked for: id, name, settings, owner, versions, hash of the data; never changes
history.jsonl   what became of it: queued, started, interrupted, queued again, ...
data/           the rows (table.parquet, table.json); validation/ likewise if they came as a second file
lock            held by the worker for life
stop            exists when the run was asked to stop
log.txt         everything the worker printed
metrics.jsonl   the curve
tokens/         tokenised rows, until training is finished
checkpoints/ best/ prompts/ adapter/ adapter.zip   written by training and export
sweep/NN/       of a sweep: the same five, metrics.jsonl and predictions.jsonl, of trial NN
predictions.jsonl  what the best step answers on the validation rows, see `predictions`
result.json     the end record, written last
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import platformdirs

from ptune_core import __version__
from ptune_core.errors import RunError, TrainingDiverged
from ptune_core.files import NO_ROOM, Ballast, Lock, atomic_write, json_line, read_lines, sync, write_all
from ptune_core.runs.states import RunState
from ptune_core.training.settings import RunSettings

if TYPE_CHECKING:
    from ptune_core.data.table import Table

LOCK_VARIABLE = "PTUNE_LOCK_DESCRIPTOR"
"""Environment variable with the number of the open lock file that a worker inherits."""

RUN_BALLAST = 1 << 20
SPACE_DISK = Path("/data")
_RUN_ID = re.compile(r"[0-9a-f]{16}")
_END_STATES = (RunState.FINISHED, RunState.STOPPED, RunState.FAILED)
_LIBRARIES = ("torch", "transformers", "accelerate", "safetensors")


def is_run_id(text: str) -> bool:
    """Whether `text` could be the id of a run; nothing else may ever become part of a path."""
    return _RUN_ID.fullmatch(text) is not None


def data_directory(environ: Mapping[str, str] = os.environ, space_disk: Path = SPACE_DISK) -> Path:
    """The directory that holds all runs: `PTUNE_DATA_DIR`, else the disk of a Space, else the user's data folder.

    Raises:
        RunError: It cannot be created or written to; the message names it.
    """
    if chosen := environ.get("PTUNE_DATA_DIR"):
        directory = Path(chosen).expanduser().absolute()
    elif _has_space_disk(environ, space_disk):
        directory = space_disk / "ptune"
    else:
        directory = platformdirs.user_data_path("ptune")
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=directory):
            pass
    except OSError as error:
        raise RunError(
            "The data directory cannot be used",
            got=f"{directory}: {error.strerror or error}",
            needed="a directory that can be created and written to",
            remedy="Set PTUNE_DATA_DIR to one",
        ) from error
    return directory


def is_ephemeral(environ: Mapping[str, str] = os.environ, space_disk: Path = SPACE_DISK) -> bool:
    """Whether runs are lost at a restart: on a Space without a disk of its own and without `PTUNE_DATA_DIR`."""
    if environ.get("PTUNE_DATA_DIR"):
        return False
    return bool(environ.get("SPACE_ID")) and not _has_space_disk(environ, space_disk)


def _has_space_disk(environ: Mapping[str, str], space_disk: Path) -> bool:
    return bool(environ.get("SPACE_ID")) and space_disk.is_dir() and os.access(space_disk, os.W_OK)


class RunDirectory:
    """The files of one run, by meaning. Cheap to make: it holds nothing but the path."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.data = path / "data"
        self.validation = path / "validation"
        self.starts = path / "starts"
        self.lock_file = path / "lock"
        self.log = path / "log.txt"
        self.metrics = path / "metrics.jsonl"
        self.adapter = path / "adapter"
        self.adapter_zip = path / "adapter.zip"
        self.predictions = path / "predictions.jsonl"
        self.result_file = path / "result.json"
        self.ballast = Ballast(path / "ballast", RUN_BALLAST)
        self._run_file = path / "run.json"
        self._history_file = path / "history.jsonl"
        self._stop_file = path / "stop"

    def trial(self, number: int) -> RunDirectory:
        """The files of one trial of a sweep: metrics, checkpoints, adapter. People count from 1; made if missing."""
        path = self.path / "sweep" / f"{number + 1:02d}"
        path.mkdir(parents=True, exist_ok=True)
        return RunDirectory(path)

    def exists(self) -> bool:
        """Whether `create` was done here."""
        return self._run_file.exists()

    def create(self, run: Mapping[str, Any]) -> None:
        """Turn a directory with data into one with a run: write `run.json` from `run`, and begin the history.

        Args:
            run: id, name, settings, owner and whatever else is to be kept.
        """
        atomic_write(
            self._run_file,
            json.dumps(
                {**run, "created": time.time(), "versions": _versions(), "data_sha256": self._hash_of_data()},
                ensure_ascii=False, indent=1,
            ).encode(),
        )  # fmt: skip
        self.record("queued", attempt=1)
        sync(self.path)

    def run(self) -> dict[str, Any]:
        """What `run.json` holds.

        Raises:
            RunError: There is no `run.json`, or it is damaged.
        """
        try:
            run = json.loads(self._run_file.read_bytes())
        except (OSError, ValueError) as error:
            raise RunError("This is not a run directory", got=f"{self.path}: {error}", needed="a run.json") from error
        if not isinstance(run, dict):
            raise RunError("run.json is damaged", got=type(run).__name__, needed="a JSON object")
        return run

    def copy_table(self, table: Table, folder: Path) -> None:
        """Copy the rows into `folder`, which is `data` or `validation`."""
        folder.mkdir()
        for name in ("table.parquet", "table.json"):
            with (table.path.parent / name).open("rb") as source, (folder / name).open("wb") as target:
                shutil.copyfileobj(source, target)
                target.flush()
                os.fsync(target.fileno())
        sync(folder)

    def settings(self) -> RunSettings:
        """The settings in `run.json`, checked again.

        Raises:
            RunError: There is no readable `run.json`.
            SettingsError: They are not valid for this version.
        """
        return RunSettings.parse(self.run().get("settings", {}))

    def data_is_intact(self) -> bool:
        """Whether the data are still those the run was submitted with."""
        return self.run().get("data_sha256") == self._hash_of_data()

    def history(self) -> list[dict[str, Any]]:
        """The lines of `history.jsonl`: {"event", "attempt", "time", ...}, oldest first."""
        try:
            return read_lines(self._history_file.read_bytes())
        except FileNotFoundError:
            return []

    def attempt(self) -> int:
        """Number of the current attempt: 1, and one more for each time the run was queued again."""
        return max((line.get("attempt", 1) for line in self.history()), default=1)

    def record(self, event: str, **details: Any) -> None:
        """Append one line to the history, on disk when this returns."""
        line = json_line({"event": event, "time": time.time(), **details})
        self._with_ballast(lambda: self._append_history(line))

    def result(self) -> dict[str, Any] | None:
        """What `result.json` holds, or None while there is none."""
        try:
            result = json.loads(self.result_file.read_bytes())
        except (FileNotFoundError, ValueError):
            return None
        return result if isinstance(result, dict) and result.get("state") in _END_STATES else None

    def write_result(self, result: Mapping[str, Any]) -> None:
        """Write the end record; after this the run has ended, whatever happens to anybody."""
        data = json_line({**result, "ended": time.time()})
        self._with_ballast(lambda: atomic_write(self.result_file, data))

    def recorded_state(self) -> tuple[RunState, str]:
        """The state and its reason by the files alone; a worker that just died still counts as running."""
        if result := self.result():
            error = result.get("error") or {}
            return RunState(result["state"]), str(error.get("text") or result.get("reason") or "")
        last = next(iter(self.history()[-1:]), {"event": "queued"})
        match last["event"]:
            case "started":
                return RunState.RUNNING, ""
            case "interrupted":
                return RunState.INTERRUPTED, str(last.get("reason", ""))
            case _:
                return RunState.QUEUED, ""

    def waits_for_a_worker(self) -> bool:
        """Whether no worker has begun with the current attempt."""
        return self.result() is None and self.recorded_state()[0] is RunState.QUEUED

    def reopen(self, attempt: int) -> None:
        """Make a run that has ended ready for another attempt, which goes on from its last checkpoint."""
        self.record("queued", attempt=attempt)
        self._stop_file.unlink(missing_ok=True)
        self.result_file.unlink(missing_ok=True)

    def request_stop(self) -> None:
        """Ask the worker to stop at its next step and keep the result."""
        self._with_ballast(self._stop_file.touch)

    def stop_requested(self) -> bool:
        """Whether `request_stop` was called for this attempt."""
        return self._stop_file.exists()

    def is_alive(self) -> bool:
        """Whether a worker holds the lock."""
        return Lock.is_held(self.lock_file)

    def _append_history(self, line: bytes) -> None:
        descriptor = os.open(self._history_file, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            size = os.fstat(descriptor).st_size
            torn = size > 0 and os.pread(descriptor, 1, size - 1) != b"\n"
            write_all(descriptor, b"\n" + line if torn else line)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def _with_ballast(self, write: Callable[[], None]) -> None:
        try:
            write()
        except OSError as error:
            if error.errno not in NO_ROOM or not self.ballast.path.exists():
                raise
            self.ballast.release()
            write()

    def _hash_of_data(self) -> str:
        digest = hashlib.sha256()
        for folder in (self.data, self.validation):
            if (folder / "table.parquet").exists():
                with (folder / "table.parquet").open("rb") as file:
                    digest.update(hashlib.file_digest(file, "sha256").digest())
        return digest.hexdigest()


def has_diverged(result: Mapping[str, Any]) -> bool:
    """Whether a run's result says that it diverged; going on from its last checkpoint, it would do so again."""
    return (result.get("error") or {}).get("kind") == TrainingDiverged.__name__


def _versions() -> dict[str, str]:
    ours = {"ptune": __version__, "python": platform.python_version()}
    return ours | {name: metadata.version(name) for name in _LIBRARIES}
