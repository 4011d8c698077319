"""Starts workers, finds them again, stops them, and records the end of those that could not do so themselves.

One scheduler thread of one app does the work: a flock on the data directory decides which, and when that app ends
another takes over. Asking for a stop or a resume works from any app: both only change files and the store.
"""

from __future__ import annotations

import logging
import math
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

import ptune_core
from ptune_core.errors import PTuneError, RunError
from ptune_core.files import Lock
from ptune_core.runs.causes import why_it_died
from ptune_core.runs.directory import LOCK_VARIABLE, RunDirectory, has_diverged
from ptune_core.runs.metrics_log import last_phase
from ptune_core.runs.run import Run
from ptune_core.runs.standby import Standby, has_room
from ptune_core.runs.states import RunState
from ptune_core.runs.store import Store
from ptune_core.steady import STEADY

WORKER = (sys.executable, "-P", "-m", "ptune_core.runs.worker")
"""-P: nothing in the directory the app was started from can stand in for a module."""

PASSED_ON = (
    "PATH", "HOME", "USER", "LANG", "TZ", "TMPDIR", "VIRTUAL_ENV", "LD_LIBRARY_PATH", "SPACE_ID",
    "SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy",
    "https_proxy", "no_proxy",
)  # fmt: skip
PASSED_ON_PREFIXES = (
    "LC_", "XDG_", "PTUNE_", "HF_", "TRANSFORMERS_", "TORCH_", "PYTORCH_", "ACCELERATE_", "TOKENIZERS_", "CUDA_",
    "NVIDIA_", "NCCL_", "OMP_", "GOMP_", "MKL_", "OPENBLAS_", "KMP_", "MALLOC_",
)  # fmt: skip
LOG_LIMIT = 10 << 20
EXPECTED_SECONDS = 600.0
"""How long a worker waits after somebody looked, and how long none does after one that could not begin."""

SAME_START_SECONDS = 1.0
"""Between two readings of when a process began: the system reckons it from when the machine was started."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Patience:
    """How long a worker that was asked to stop may take, in seconds since it was asked.

    A worker stops at its next step and then evaluates and exports, so it is given time; SIGTERM repeats the request,
    SIGKILL ends it. What the last checkpoint holds is kept in every case.
    """

    terminate: float = 30.0
    kill: float = 120.0


@dataclass
class _Stop:
    """A stop that this app is waiting for, since when (monotonic seconds), and whether it has sent SIGTERM."""

    since: float
    terminated: bool = False


class Launcher:
    """The five things that are done to runs from outside: start, find again, stop, resume, settle.

    Args:
        store: The runs.
        worker_argv: Command of a worker; the run directory is appended.
        patience: How long a stop may take.
        interval: Seconds between two looks of the scheduler; the end of a worker wakes it at once.
        standby: Starts a worker in waiting, given its environment; None: there is never one.
    """

    def __init__(
        self,
        store: Store,
        *,
        worker_argv: Sequence[str] = WORKER,
        patience: Patience = Patience(),
        interval: float = 0.5,
        standby: Callable[[dict[str, str]], Standby] | None = None,
    ) -> None:
        self.store = store
        self._argv = tuple(worker_argv)
        self._patience = patience
        self._interval = interval
        self._wake = threading.Event()
        self._closing = threading.Event()
        self._thread: threading.Thread | None = None
        self._children: dict[str, subprocess.Popen[bytes]] = {}
        self._exit_codes: dict[str, int] = {}
        self._stop_seen: dict[str, _Stop] = {}
        self._held_up: set[str] = set()  # runs whose lock somebody had when they were to start
        self._make_standby = standby
        self._standby: Standby | None = None
        self._expected_until = self._no_standby_until = -math.inf  # monotonic seconds

    def start_scheduler(self) -> None:
        """Start runs as the queue allows, from now until `close`, in a thread."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._schedule, name="scheduler", daemon=True)
            self._thread.start()

    def close(self) -> None:
        """End the scheduler thread. Workers go on; the next app finds them again."""
        self._closing.set()
        self._wake.set()
        if self._thread is not None:
            self._thread.join()
        self._forget_standby()

    def expect(self) -> None:
        """Say that somebody may start a run soon: for some minutes, a worker waits for it while none works."""
        self._expected_until = time.monotonic() + EXPECTED_SECONDS

    def wake(self) -> None:
        """Look at the queue now instead of at the next look."""
        self._wake.set()

    def stop(self, run_id: str, owner: str | None = None) -> None:
        """Stop the run and keep its result; one that still waits leaves the queue. Asking twice is the same as once.

        Raises:
            RunError: It was not found, or it has ended without being asked to.
        """
        run = self.store.get(run_id, owner)
        if run.state is RunState.QUEUED:
            with suppress(RunError), self.store.moving(run_id, RunState.STOPPED, "stopped before it began"):
                RunDirectory(run.directory).write_result({"state": "stopped", "reason": "stopped before it began"})
                return
            run = self.store.get(run_id, owner)  # a worker was quicker, or somebody else who stops it
        directory = RunDirectory(run.directory)
        if run.state is RunState.STOPPED or directory.stop_requested():  # what came of the first press is no error
            return
        if run.state is not RunState.RUNNING:
            raise RunError("The run cannot be stopped", got=f"it is {run.state}", needed="a queued or running one")
        directory.request_stop()
        self._wake.set()

    def resume(self, run_id: str, owner: str | None = None) -> None:
        """Queue a run that was stopped, failed or interrupted again; it goes on from its last checkpoint.

        Raises:
            RunError: It was not found, it is in another state, it diverged, or another version made it.
        """
        run = self.store.get(run_id, owner)
        if not run.state.can_resume:
            needed = "one that is stopped, failed or interrupted"
            raise RunError("The run cannot be resumed", got=f"it is {run.state}", needed=needed)
        if has_diverged(RunDirectory(run.directory).result() or {}):
            raise RunError(
                "The run diverged, and would do so again at the same step",
                remedy="Start it anew with a lower learning rate",
            )
        if run.outdated:
            raise RunError(
                "The run was made by another version of PTune, which knew other settings",
                got=run.outdated,
                remedy="Start it anew",
            )
        with suppress(RunError):  # settled already, unless its worker wrote the result only just now
            self.store.set_state(run_id, run.state, run.reason, attempt=run.attempt)
        with self.store.moving(run_id, RunState.QUEUED) as queued:
            RunDirectory(run.directory).reopen(queued.attempt)
        self._wake.set()

    def reconcile(self) -> None:
        """Compare every run that should be running with what is there; settle those whose worker is gone."""
        for run in self.store.running():
            directory = RunDirectory(run.directory)
            is_ending = run.id in self._children and directory.result() is None  # its exit code is about to be known
            if directory.is_alive() or is_ending:
                self._press(run, directory)
                _limit(directory.log)
            elif run.id in self._held_up and directory.waits_for_a_worker():
                self._start(run)
            else:
                self._settle(run, directory)

    def tick(self) -> None:
        """One look: settle what has ended, start what may start."""
        self.reconcile()
        while run := self.store.claim_next():
            self._start(run)
        self._keep_standby()
        self.store.ballast.hold()

    def _keep_standby(self) -> None:
        now = time.monotonic()
        if self._standby is not None and not self._standby.is_alive:  # it could not be had: a run will say why
            self._forget_standby()
            self._no_standby_until = now + EXPECTED_SECONDS
        is_wanted = self._no_standby_until < now < self._expected_until
        if self._standby is not None and not is_wanted:
            self._forget_standby()
        if self._make_standby and self._standby is None and is_wanted and not self.store.running() and has_room():
            self._standby = self._make_standby(worker_environment())

    def _forget_standby(self) -> None:
        if self._standby is not None:
            self._standby.end()
            self._standby = None

    def _schedule(self) -> None:
        lock = None
        while not self._closing.is_set():
            self._wake.clear()
            try:
                lock = lock or Lock.acquire(self.store.data_dir / ".scheduler")
                if lock:
                    self.tick()
            except (OSError, sqlite3.Error, PTuneError):
                logger.exception("The scheduler goes on after an error")  # such as a full disk: room may come back
            self._wake.wait(self._interval)
        if lock:
            lock.release()

    def _start(self, run: Run) -> None:
        directory = RunDirectory(run.directory)
        try:
            lock = Lock.acquire(directory.lock_file)
            if lock is None:
                # Somebody started a worker by hand, which is watched like any other; or the last attempt's has written
                # its result and is not quite gone, or somebody just looks whether there is one: then `reconcile` starts
                # it.
                self._held_up.add(run.id)
                return
            self._held_up.discard(run.id)
            with lock:
                process = self._spawn(directory, lock)
        except OSError as error:
            text = str(RunError("The worker could not be started", got=str(error)))
            directory.write_result({"state": "failed", "error": {"kind": "RunError", "text": text}})
            self.store.set_state(run.id, RunState.FAILED, text)
            return
        self._children[run.id] = process
        threading.Thread(target=self._wait, args=(run.id, process), name=f"worker {run.id}", daemon=True).start()

    def _spawn(self, directory: RunDirectory, lock: Lock) -> subprocess.Popen[bytes]:
        """The worker inherits the lock, so there is no instant in which it is alive but does not look so."""
        with directory.log.open("ab") as log:
            waiting, self._standby = self._standby, None
            if waiting and (process := waiting.order(directory.path, lock.descriptor, log.fileno())):
                return process
            return subprocess.Popen(
                [*self._argv, str(directory.path)],
                start_new_session=True,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**worker_environment(), LOCK_VARIABLE: str(lock.descriptor)},
                pass_fds=(lock.descriptor,),
            )

    def _wait(self, run_id: str, process: subprocess.Popen[bytes]) -> None:
        # Not reaped yet, it keeps its number: the group that is killed cannot be a stranger's.
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)  # nothing that the worker started outlives it
        code = process.wait()
        if self._children.get(run_id) is process:  # else it was settled by its result before it was quite gone
            self._exit_codes[run_id] = code
            del self._children[run_id]
        self._wake.set()

    def _press(self, run: Run, directory: RunDirectory) -> None:
        """Insist on a stop that was asked for."""
        if not directory.stop_requested():
            self._stop_seen.pop(run.id, None)
            return
        stop = self._stop_seen.setdefault(run.id, _Stop(time.monotonic()))
        waited = time.monotonic() - stop.since
        if waited >= self._patience.terminate and not stop.terminated:
            stop.terminated = True
            _signal_worker(directory, signal.SIGTERM)
        if waited >= self._patience.kill:
            _signal_worker(directory, signal.SIGKILL)

    def _settle(self, run: Run, directory: RunDirectory) -> None:
        """Bring the store up to date with a run whose worker is gone."""
        self._held_up.discard(run.id)
        self._stop_seen.pop(run.id, None)
        self._children.pop(run.id, None)
        exit_code = self._exit_codes.pop(run.id, None)
        if not directory.exists():  # deleted since the store was asked, or tidied up by hand
            with suppress(RunError):
                self.store.set_state(run.id, RunState.INTERRUPTED, "its files are gone", attempt=run.attempt)
            return
        if directory.result() is None:
            last = next(iter(directory.history()[-1:]), {})
            started = last if last.get("event") == "started" else None
            reason = why_it_died(started, exit_code, last_phase(directory.metrics))
            if directory.stop_requested():
                text = f"stopped, but not by itself. {reason} Resuming goes on from the last checkpoint"
                directory.write_result({"state": "stopped", "reason": text})
            elif last.get("event") != "interrupted":
                directory.record("interrupted", attempt=run.attempt, reason=reason)
        state, reason = directory.recorded_state()
        directory.ballast.release()
        with suppress(RunError):  # resumed meanwhile
            self.store.set_state(run.id, state, reason, attempt=run.attempt)


def worker_environment() -> dict[str, str]:
    """What a worker may know of the app's environment: where things are, and the settings of the libraries it uses."""
    environment = {
        name: value for name, value in os.environ.items() if name in PASSED_ON or name.startswith(PASSED_ON_PREFIXES)
    }
    # Threads that wait by spinning lose to whatever else needs their cores, such as the page or the inference process:
    # beside 1 to 1.5 busy cores of 2 a step took about 4 times as long. With all cores free, sleeping costs a tenth.
    return {
        **STEADY,
        "OMP_WAIT_POLICY": "PASSIVE",
        **environment,
        "PYTHONPATH": str(Path(ptune_core.__file__).resolve().parents[1]),
        "PYTHONUNBUFFERED": "1",
        "PYTHONFAULTHANDLER": "1",
    }


def _signal_worker(directory: RunDirectory, number: signal.Signals) -> None:
    """Signal the worker of this run and all it started, if the process is beyond doubt that worker.

    A recorded process number may belong to a stranger by now, who began at another time.
    """
    started = [line for line in directory.history() if line.get("event") == "started"]
    if not started:
        return
    try:
        process = psutil.Process(started[-1]["pid"])
        if abs(process.create_time() - started[-1].get("process_start", 0.0)) > SAME_START_SECONDS:
            return
        leads_group = os.getpgid(process.pid) == process.pid
        logger.warning("Sending %s to the worker %s of run %s", number.name, process.pid, directory.path.name)
        (os.killpg if leads_group else os.kill)(process.pid, number)
    except (psutil.Error, ProcessLookupError, PermissionError):
        return  # gone meanwhile; the next look settles it


def _limit(log: Path) -> None:
    """Move the text of a log that has grown too long to `log.old.txt`, in place of what that held."""
    with suppress(FileNotFoundError):
        if log.stat().st_size > LOG_LIMIT:
            with log.open("rb") as file:
                file.seek(-LOG_LIMIT, os.SEEK_END)
                log.with_name("log.old.txt").write_bytes(file.read())
            os.truncate(log, 0)  # the worker appends, so it goes on at the start
