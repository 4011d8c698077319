"""Time and memory of a run before it starts: `python -m ptune_core estimate` in a process of its own. No gradio.

One measurement at a time on the machine, and none while a run trains: both would make the times of the other wrong. The
process writes to files and is ended with all it started when it takes too long, is called off, or a run begins.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

from ptune_core.app import texts
from ptune_core.errors import RunError
from ptune_core.model.lease import is_training
from ptune_core.runs.launcher import worker_environment
from ptune_core.training.settings import RunSettings

ESTIMATE = (sys.executable, "-P", "-m", "ptune_core", "estimate")
"""-P: nothing in the directory the app was started from can stand in for a module."""

MOST_SECONDS = 900.0
"""A base model may have to be fetched first."""

MOST_KEPT = 64
"""Viewers whose last measurement is remembered."""

_LOOK_SECONDS = 0.2
_MOST_OUTPUT = 100_000


class Stage(StrEnum):
    """Where a measurement stands."""

    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    CALLED_OFF = "called off"


@dataclass
class Measurement:
    """One measurement; its thread alone writes to it.

    Attributes:
        fingerprint: Of the settings and rows it is of.
        begun: `time.monotonic()` when it began.
        stage: Where it stands.
        numbers: What `Estimate.as_numbers` says, when it is done.
        error: Why it failed, in sentences for people.
        settings: What was measured.
        token: Of the rows.
        unasked: Whether it began by itself; then nobody is told why it failed.
        stop: Set to call it off.
        ended: Set when its process is gone.
    """

    fingerprint: str
    begun: float = field(default_factory=time.monotonic)
    stage: Stage = Stage.RUNNING
    numbers: dict[str, Any] = field(default_factory=dict)
    error: str = ""
    settings: RunSettings | None = None
    token: str = ""
    unasked: bool = False
    stop: threading.Event = field(default_factory=threading.Event)
    ended: threading.Event = field(default_factory=threading.Event)

    def fail(self, error: str) -> None:
        """End it for that reason; one that began by itself just ends."""
        self.error, self.stage = error, Stage.CALLED_OFF if self.unasked else Stage.FAILED

    def ways_for(self, settings: RunSettings, token: str) -> dict[str, Any]:
        """How well labels can be told apart in which way, as far as that holds for other settings too."""
        ways = self.numbers.get("ways")
        if self.settings is None or not isinstance(ways, dict) or not self.is_of(settings, token):
            return {}
        has_other_words = settings.labels is not None and settings.labels != self.settings.labels
        return {name: found for name, found in ways.items() if name == "head" or not has_other_words}

    def is_of(self, settings: RunSettings, token: str) -> bool:
        """Whether labels can be told apart as well with those settings and rows as with what was measured."""
        return self.settings is not None and self.token == token and _asked(self.settings) == _asked(settings)


class Measures:
    """The newest measurement of every viewer.

    Args:
        data_dir: The data directory; its lease says whether a run trains.
        command: What to start, before its arguments. Tests give their own.
        most_seconds: How long a measurement may take.
    """

    def __init__(
        self, data_dir: Path, *, command: Sequence[str] = ESTIMATE, most_seconds: float = MOST_SECONDS
    ) -> None:
        self._data_dir, self._command, self._most_seconds = data_dir, tuple(command), most_seconds
        self._lock = threading.Lock()
        self._of: dict[str, Measurement] = {}
        self._threads: set[threading.Thread] = set()

    def start(self, viewer: str, settings: RunSettings, rows: Path, *, unasked: bool = False) -> Measurement:
        """Begin to measure, in a thread; what this viewer measures and what began by itself is called off.

        Args:
            viewer: Who asks.
            settings: Of the run.
            rows: Folder of the table.
            unasked: Whether it begins by itself.

        Raises:
            RunError: A run trains, or somebody else measures.
        """
        if is_training(self._data_dir):
            raise RunError(
                "A run is training, and beside it the times would be wrong", remedy="Measure when it has ended"
            )
        with self._lock:
            others = [each for who, each in self._of.items() if who != viewer and each.stage is Stage.RUNNING]
            if unasked and others or not all(each.unasked for each in others):
                raise RunError("Somebody else is measuring", remedy="Try again in a minute")
            before = [*others, *filter(None, [self._of.pop(viewer, None)])]
            found = self._of[viewer] = Measurement(
                fingerprint_of(settings, rows.name), settings=settings, token=rows.name, unasked=unasked
            )
            for old in list(self._of)[: -MOST_KEPT or None]:
                if self._of[old].stage is not Stage.RUNNING:
                    del self._of[old]
            thread = threading.Thread(
                target=self._measure, args=(found, before, settings, rows), name="measure", daemon=True
            )
            self._threads.add(thread)
        thread.start()
        return found

    def of(self, viewer: str) -> Measurement | None:
        """The newest measurement of a viewer."""
        return self._of.get(viewer)

    def cancel(self, viewer: str) -> None:
        """Call off what a viewer measures; nothing happens if that is nothing."""
        if (found := self._of.get(viewer)) is not None:
            found.stop.set()

    def close(self) -> None:
        """Call off everything, and wait until no process is left."""
        for found in list(self._of.values()):
            found.stop.set()
        for thread in list(self._threads):
            thread.join()

    def _measure(self, found: Measurement, before: list[Measurement], settings: RunSettings, rows: Path) -> None:
        """Until the end of those before, two processes would be beside each other."""
        try:
            for each in before:
                each.stop.set()
                each.ended.wait()
            self._run(found, settings, rows)
        except OSError as error:
            found.fail(f"The measurement could not be started: {error}")
        finally:
            found.ended.set()
            self._threads.discard(threading.current_thread())

    def _run(self, found: Measurement, settings: RunSettings, rows: Path) -> None:
        with tempfile.TemporaryDirectory(prefix="ptune-measure-") as folder:
            place = Path(folder)
            (place / "settings.yaml").write_text(settings.to_yaml(), encoding="utf-8")
            with (place / "out").open("wb") as out, (place / "err").open("wb") as err:
                process = subprocess.Popen(
                    [*self._command, str(place / "settings.yaml"), "--json", "--rows", str(rows)],
                    start_new_session=True,
                    stdin=subprocess.DEVNULL,
                    stdout=out,
                    stderr=err,
                    env=worker_environment() | {"TMPDIR": folder},
                )
            why = self._wait(found, process)
            self._conclude(found, place, process.returncode, why)

    def _wait(self, found: Measurement, process: subprocess.Popen[bytes]) -> str:
        """Why the process was ended; empty if it ended by itself."""
        why = ""
        while True:
            with suppress(subprocess.TimeoutExpired):
                process.wait(_LOOK_SECONDS)
                return ""
            if found.stop.is_set():
                why = _CALLED_OFF
            elif time.monotonic() - found.begun > self._most_seconds:
                why = texts.MEASURED_TOO_LONG.format(self._most_seconds / 60)
            elif is_training(self._data_dir):
                why = texts.RUN_BEGAN
            if why:  # not reaped yet, it keeps its number: the group cannot be a stranger's
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
                return why

    def _conclude(self, found: Measurement, place: Path, code: int, why: str) -> None:
        if why == _CALLED_OFF:
            found.stage = Stage.CALLED_OFF
            return
        if not why and code == 0:
            try:
                found.numbers = _numbers((place / "out").read_text(encoding="utf-8", errors="replace"))
                found.stage = Stage.DONE
                return
            except ValueError:
                why = texts.MEASURED_NOTHING
        found.fail(why or _error((place / "err").read_text(encoding="utf-8", errors="replace"), code))


_CALLED_OFF = "called off"


def fingerprint_of(settings: RunSettings, token: str) -> str:
    """The same for settings and rows that take the same time: the name does not matter."""
    values = settings.model_dump_json(exclude={"name"})
    return hashlib.sha256(f"{token} {values}".encode()).hexdigest()


def _asked(settings: RunSettings) -> tuple[object, ...]:
    """What decides how well labels can be told apart, whatever stands around the columns."""
    template = settings.parsed_template
    return (
        settings.base_model, settings.revision, settings.base_weights, settings.columns, settings.split,
        sorted(template.columns), template.target.column, settings.candidates,
    )  # fmt: skip


def _numbers(output: str) -> dict[str, Any]:
    """The JSON object in the last line.

    Raises:
        ValueError: There is none.
    """
    lines = output[-_MOST_OUTPUT:].strip().splitlines()
    numbers = json.loads(lines[-1] if lines else "")
    if not isinstance(numbers, dict):
        raise ValueError("no JSON object")
    return numbers


def _error(errors: str, code: int) -> str:
    """What the command said of a mistake, else how it ended."""
    _, is_told, told = errors[-_MOST_OUTPUT:].rpartition("error: ")
    if code == 2 and is_told:
        return told.strip()
    if code < 0:
        return texts.MEASURE_KILLED.format(-code)
    last = errors.strip().splitlines()[-1:] or [f"exit code {code}"]
    return f"It broke off: {last[0][:300]}"
