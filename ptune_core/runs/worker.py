"""The only place that runs a training: ``python -m ptune_core.runs.worker RUN_DIR``, or `train_here` in a terminal.

The command is idempotent: whoever has the run's lock trains, from the last checkpoint if there is one; a run that has
ended stays as it is. Exit codes: 0 the run has a result (finished, stopped or failed, see result.json), 75 another
worker has it, 1 this is not a run directory.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from ptune_core.errors import DataError, DiskFull, OutOfMemory, PTuneError, RunError
from ptune_core.files import NO_ROOM, Lock
from ptune_core.model.device import Device
from ptune_core.model.lease import training_lease
from ptune_core.runs.causes import machine_start, memory_kills, memory_remedy
from ptune_core.runs.directory import LOCK_VARIABLE, RunDirectory
from ptune_core.runs.metrics_log import MetricsLog
from ptune_core.runs.names import default_name
from ptune_core.runs.states import RunState
from ptune_core.steady import keep_steady
from ptune_core.training.settings import RunSettings

if TYPE_CHECKING:
    from ptune_core.model.trained import TrainedPrompt

EXIT_LOCKED = 75
Report = Callable[[dict[str, Any]], None]
logger = logging.getLogger(__name__)

_UNKNOWN = dict.fromkeys(
    ("metric", "value", "best_step", "steps", "baseline_majority", "baseline_zero_shot", "reason", "error")
)
"""What every result.json has, for a run that ended before it knew."""


Train = Callable[..., dict[str, Any]]
"""`ptune_core.training.session.run_training`, or something with its parameters that stands in for it."""


def main() -> int:
    """Work on the run directory that the command line names."""
    keep_steady()
    try:
        return work(Path(sys.argv[1]).absolute())
    except PTuneError as error:
        print(error, file=sys.stderr)
        return 1


def work(directory: Path, train: Train | None = None) -> int:
    """Do what is left to do for the run in `directory`; returns the exit code.

    Args:
        train: Stands in for `run_training` in tests.

    Raises:
        RunError: `directory` is no run directory.
    """
    files = RunDirectory(directory)
    files.run()
    if _rank() > 0:
        if files.result() is None:
            _follow(files, files.settings(), train or _real_training)
        return 0
    lock = _take_lock(files)
    if lock is None:
        return EXIT_LOCKED
    # The data directory holds `runs/RUN_DIR`. The inference process looks at its lease and leaves a GPU to the run.
    with lock, training_lease(directory.parent.parent):
        if files.result() is None:
            _attempt(files, train or _real_training, report=lambda _: None, should_stop=lambda: False)
    return 0


def train_here(
    settings: RunSettings,
    out: Path,
    *,
    report: Report = lambda _: None,
    should_stop: Callable[[], bool] = lambda: False,
    train: Train | None = None,
) -> dict[str, Any]:
    """Train in this process, with `out` as the run directory; called again, go on where the last call ended.

    A process in which torch has multiplied before is too late for `keep_steady`: there MKL_CBWR is the caller's to set.

    Args:
        report: Receives every line of `metrics.jsonl`.
        should_stop: Asked before every step; True ends training with the best result so far.
        train: Stands in for `run_training` in tests.

    Returns:
        What `result.json` holds, also for a training that failed. Empty in a process that only takes part, as
        `accelerate launch` starts them: the main one has it.

    Raises:
        RunError: `out` is in use, or holds a run with other settings.
        PTuneError: The data cannot be read; nothing was started.
    """
    keep_steady()
    files = RunDirectory(out.absolute())
    if _rank() > 0:
        # The main process leaves a finished run alone as well; else both wait for each other.
        return {} if _is_finished(files) else _follow(files, settings, train or _real_training)
    files.path.mkdir(parents=True, exist_ok=True)
    lock = Lock.acquire(files.lock_file)
    if lock is None:
        raise RunError("Another process is training in this directory", got=str(out), remedy="Choose another directory")
    with lock:
        if files.exists():
            if files.settings() != settings:
                remedy = "Choose another directory"
                raise RunError("The directory holds a run with other settings", got=str(out), remedy=remedy)
            if _is_finished(files):
                return files.result() or {}
            files.reopen(files.attempt() + 1)
        else:
            _prepare(files, settings)
        return _attempt(files, train or _real_training, report=report, should_stop=should_stop)


def _prepare(files: RunDirectory, settings: RunSettings) -> None:
    from ptune_core.data.ingest import load_source

    table = load_source(settings.data, files.data)
    if settings.validation_data is not None:
        load_source(settings.validation_data, files.validation)
    name = settings.name or default_name(settings, table.source)
    files.create({"id": files.path.name, "name": name, "owner": "", "settings": settings.model_dump(mode="json")})


def _take_lock(files: RunDirectory) -> Lock | None:
    """The lock that the launcher handed down, or else the lock as it can be taken now."""
    with suppress(KeyError, ValueError):
        if inherited := Lock.inherited(int(os.environ.pop(LOCK_VARIABLE)), files.lock_file):
            return inherited
    return Lock.acquire(files.lock_file)


def _attempt(files: RunDirectory, train: Train, *, report: Report, should_stop: Callable[[], bool]) -> dict[str, Any]:
    """Train until there is a result of one kind or another, and write it last."""
    began = time.monotonic()
    files.ballast.hold()
    files.record(
        "started",
        attempt=files.attempt(),
        pid=os.getpid(),
        process_start=psutil.Process().create_time(),
        machine_start=machine_start(),
        memory_kills=memory_kills(),
    )
    phase = ""
    with ExitStack() as stack:
        stack.enter_context(_log_to(files.log))
        terminated = stack.enter_context(_stop_on_sigterm())
        metrics = stack.enter_context(MetricsLog(files.metrics))
        of_trials: dict[int, MetricsLog] = {}
        shown = 0  # the run's own curve is that of the first trial, or of a better one if the first ended early

        def note(line: dict[str, Any]) -> None:
            nonlocal phase, shown
            phase = line.get("phase", phase)
            trial = line.get("trial")
            if trial is not None and trial not in of_trials:
                of_trials[trial] = stack.enter_context(MetricsLog(files.trial(trial).metrics))
            if trial is not None:
                of_trials[trial].append(line)
            if line["kind"] == "follow":
                shown = line["to"]
                metrics.follow(files.trial(shown).metrics)
            if trial is None or trial == shown:
                metrics.append(line)
                report(line)

        def stopping() -> bool:
            return terminated() or files.stop_requested() or should_stop()

        try:
            if _has_company():
                _meet(files.settings())
            outcome = _train(files, train, note, stopping)
            stopped = outcome.pop("stopped", False)
            outcome["state"] = RunState.STOPPED if stopped else RunState.FINISHED
        except Exception as error:
            files.ballast.release()  # a full disk must not keep the reason from being written
            logger.exception("The run failed")
            outcome = {"state": RunState.FAILED, "error": describe(error, phase)}
    files.ballast.release()
    result = {**_UNKNOWN, "seconds": round(time.monotonic() - began, 3), "attempt": files.attempt(), **outcome}
    files.write_result(result)
    return result


def _is_finished(files: RunDirectory) -> bool:
    result = files.result()
    return result is not None and result["state"] == RunState.FINISHED


def _rank() -> int:
    """Number of this process among those that `accelerate launch` started; 0 is the main one."""
    return int(os.environ.get("RANK", "0")) if _has_company() else 0


def _has_company() -> bool:
    return "WORLD_SIZE" in os.environ


def _follow(files: RunDirectory, settings: RunSettings, train: Train) -> dict[str, Any]:
    """Take part in a run that the main process holds, reports and saves."""
    _meet(settings)
    return _train(files, train, lambda _: None, lambda: False)


def _meet(settings: RunSettings) -> None:
    """Wait until the main process has put data and settings there; it does so before it comes here itself."""
    from ptune_core.training.processes import join_processes, wait_for_all

    join_processes(cpu=settings.device is Device.CPU)
    wait_for_all()


def _train(files: RunDirectory, train: Train, report: Report, should_stop: Callable[[], bool]) -> dict[str, Any]:
    from ptune_core.data.table import Tables, open_table
    from ptune_core.runs.starts import read_starts

    if _rank() == 0 and not files.data_is_intact():
        raise DataError("The run's data were changed after it was started", remedy="Start a new run")
    settings = files.settings()
    validation = open_table(files.validation) if files.validation.exists() else None
    return train(
        settings,
        Tables(open_table(files.data), validation, read_starts(settings, files.starts, keep=_rank() == 0)),
        files.path,
        should_stop=should_stop,
        report=report,
        export=_export,
    )


def _real_training(*arguments: Any, **options: Any) -> dict[str, Any]:
    from ptune_core.training.session import run_training

    return run_training(*arguments, **options)


def _export(trained: TrainedPrompt, directory: Path) -> None:
    """Write an adapter and its zip into a run directory, or into a trial's directory within it."""
    from ptune_core.adapters.export import export_adapter

    files = RunDirectory(directory)
    export_adapter(trained, files.adapter, files.adapter_zip)


def describe(error: Exception, phase: str) -> Mapping[str, str]:
    """An error in `phase` for result.json: the name of its class, and a text for people."""
    if isinstance(error, PTuneError):
        known = error
    elif _is_out_of_memory(error):
        what = f"Memory ran out while {phase}" if phase else "Memory ran out"
        known = OutOfMemory(what, got=_first_line(error), remedy=memory_remedy(phase))
    elif _is_disk_full(error):
        known = DiskFull(
            "The disk is full", got=_first_line(error),
            remedy="Delete old runs or other files, then resume: training goes on from the last checkpoint",
        )  # fmt: skip
    else:
        known = PTuneError(
            "The run failed for a reason PTune does not know", got=f"{type(error).__name__}: {_first_line(error)}",
            remedy="The end of the log says where. Resuming goes on from the last checkpoint",
        )  # fmt: skip
        return {"kind": type(error).__name__, "text": str(known)}
    return {"kind": type(known).__name__, "text": str(known)}


def _is_out_of_memory(error: Exception) -> bool:
    """Whether RAM or GPU memory ran out; torch says so by a class on GPUs and only by the text on CPUs."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    return isinstance(error, RuntimeError) and any(
        text in str(error).lower() for text in ("out of memory", "can't allocate memory")
    )


def _is_disk_full(error: Exception) -> bool:
    """Whether a write failed for lack of room; libraries that write in Rust or C++ say so only in their text."""
    if isinstance(error, OSError) and error.errno in NO_ROOM:
        return True
    return any(text in str(error) for text in ("No space left on device", "os error 28", "inline_container"))


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), "")[:300]


@contextmanager
def _stop_on_sigterm() -> Iterator[Callable[[], bool]]:
    """While inside, SIGTERM asks to stop at the next step, which is what the yielded function tells."""
    told = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield told.is_set
        return
    previous = signal.signal(signal.SIGTERM, lambda *_: told.set())
    try:
        yield told.is_set
    finally:
        signal.signal(signal.SIGTERM, previous)


@contextmanager
def _log_to(path: Path) -> Iterator[None]:
    """While inside, what PTune logs goes to the run's log, where the rest of the worker's output is."""
    handler = logging.FileHandler(path, delay=True)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    logger = logging.getLogger("ptune_core")
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        with suppress(OSError):
            handler.close()  # what it could not write for lack of room is lost


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # everything is on disk; taking torch down in order would keep the device for another second
