"""A worker in waiting: a process that has imported what a training needs and has no run yet.

Importing torch and transformers takes longer than anything else between Start and the first point of a plot. The
process waits at a socket for one order: a run directory, with the lock and the log that come along as descriptors.
Then it is that run's worker like any other, and outlives the app. Without an order it ends with the app, at the
socket's end.

``python -m ptune_core.runs.standby DESCRIPTOR`` is the process; no torch is imported in this module itself.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from contextlib import suppress
from importlib import import_module
from pathlib import Path

import psutil

from ptune_core.runs.directory import LOCK_VARIABLE

STANDBY = (sys.executable, "-P", "-m", "ptune_core.runs.standby")
"""-P: nothing in the directory the app was started from can stand in for a module."""

LEAST_FREE_BYTES = 2 << 30
"""Main memory that must be free for a process to wait: it keeps some hundred MiB."""

_LONGEST_ORDER = 4096


class Standby:
    """The app's side of one such process.

    Args:
        environment: Of the process, as of a worker.
        argv: Its command; the socket's descriptor is appended. Tests give their own.
    """

    def __init__(self, environment: dict[str, str], argv: tuple[str, ...] = STANDBY) -> None:
        self._socket, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [*argv, str(theirs.fileno())],
                start_new_session=True,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env=environment,
                pass_fds=(theirs.fileno(),),
            )

    @property
    def is_alive(self) -> bool:
        """Whether it can take an order."""
        return self._process.poll() is None

    def order(self, directory: Path, lock: int, log: int) -> subprocess.Popen[bytes] | None:
        """Make it the worker of a run; its process, or None if it is gone.

        Args:
            directory: The run directory.
            lock: Descriptor of the run's lock, which it shares from now on.
            log: Descriptor of the run's log.
        """
        try:
            socket.send_fds(self._socket, [os.fsencode(directory)], [lock, log])
        except OSError:
            self.end()
            return None
        self._socket.close()
        return self._process

    def end(self) -> None:
        """End it, and wait until it is gone."""
        self._socket.close()
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)  # not reaped yet, it keeps its number
        self._process.wait()


def has_room() -> bool:
    """Whether this machine has memory for a process that waits."""
    return psutil.virtual_memory().available >= LEAST_FREE_BYTES


def main() -> int:
    """Import, wait for an order, and work on it."""
    from ptune_core.runs import worker

    for module in ("ptune_core.training.session", "ptune_core.adapters.export"):  # as a worker that has read its run
        import_module(module)

    with socket.socket(fileno=int(sys.argv[1])) as ours:
        order, descriptors, _, _ = socket.recv_fds(ours, _LONGEST_ORDER, 2)
    if not order:  # the app has ended, or has no use for this
        return 0
    lock, log = descriptors
    for stream in (1, 2):
        os.dup2(log, stream)
    os.close(log)
    os.environ[LOCK_VARIABLE] = str(lock)
    sys.argv[1] = os.fsdecode(order)
    return worker.main()


if __name__ == "__main__":
    sys.exit(main())
