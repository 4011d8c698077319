"""The page's side of the inference process: starts it on demand, again after a crash, and asks it. Imports no torch."""

from __future__ import annotations

import contextlib
import os
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Generator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, Self

import ptune_core
from ptune_core.errors import InferenceError
from ptune_core.inference.protocol import (
    EXIT_IDLE,
    Cancel,
    Classification,
    Classify,
    Describe,
    Description,
    Envelope,
    Generate,
    Generated,
    Import,
    Look,
    Looked,
    Measure,
    Measured,
    Preview,
    Request,
    Seen,
    Usage,
    build_request,
    decode_reply,
    join_parts,
    rebuild_error,
)

# -P: the folder the app was started in, where anything may lie, is not searched for modules.
_SERVER = (sys.executable, "-P", "-m", "ptune_core.inference.server")
_MAX_LOG_BYTES = 5_000_000
_CLOSE_SECONDS = 5.0


class InferenceClient:
    """Asks the inference process; any number of threads may use one client.

    Args:
        log_path: Where the process's output goes. Kept below some megabytes over restarts.
        data_dir: The data directory; the process finds the device lease there.
        command: What to start, before its arguments. Tests give their own.
        silence_limit: Seconds without any sign of life while a request waits, after which the process is ended.
            Loading a large base model over the network is silent.
    """

    def __init__(
        self, log_path: Path, data_dir: Path, *, command: Sequence[str] = _SERVER, silence_limit: float = 1800.0
    ) -> None:
        self._log_path = log_path
        self._argv = [*command, "--data-dir", str(data_dir)]
        self._silence_limit = silence_limit
        self._lock = threading.Lock()
        self._child: _Child | None = None
        self._next_number = 0

    def describe(self, adapter: Path) -> Description:
        """What `adapter` (folder or zip) is for; loads no base model.

        Raises:
            AdapterError: It cannot be read.
            InferenceError: The process did not answer.
        """
        return self._only_part(build_request(Describe, {"adapter": str(adapter.resolve())}))

    def preview(self, adapter: Path, values: Mapping[str, str]) -> Seen:
        """What the model sees for `values` (template column -> text).

        Raises:
            PTuneError: As `describe`; DataError if a column is missing.
        """
        return self._only_part(build_request(Preview, {"adapter": str(adapter.resolve()), "values": values}))

    def look(self, fields: Mapping[str, object]) -> Looked:
        """What a base model would see of a row in a template; loads no weights.

        Args:
            fields: Those of `protocol.Look`.

        Raises:
            PTuneError: The template, its answers or the base model cannot be used, or the process did not answer.
        """
        return self._only_part(build_request(Look, fields))

    def measure(self, fields: Mapping[str, object]) -> Measured:
        """How many tokens rows have in a template; loads no weights.

        Args:
            fields: Those of `protocol.Measure`.

        Raises:
            PTuneError: As `look`.
        """
        return self._only_part(build_request(Measure, fields))

    def classify(self, adapter: Path, rows: Sequence[Mapping[str, str]], *, compare: bool = True) -> Classification:
        """Label probabilities for each row.

        Args:
            adapter: Folder or zip.
            rows: Template column -> text, one mapping a row; at most `protocol.MAX_ROWS`.
            compare: Also ask the base model alone.

        Raises:
            PTuneError: The adapter, its base model or the rows cannot be used, or the process did not answer.
        """
        fields = {"adapter": str(adapter.resolve()), "rows": list(rows), "compare": compare}
        return join_parts(list(self._parts(build_request(Classify, fields))))

    def generate(self, adapter: Path, values: Mapping[str, str], **options: object) -> Generator[Generated, None, None]:
        """The tuned model's text beside the base model's, growing; both start from the same seed.

        Closing the iterator (`close()`, or leaving a `for`) stops the model.

        Args:
            adapter: Folder or zip.
            values: Template column -> text.
            options: `max_new_tokens`, `temperature` (0: likeliest token), `seed`, `compare`, `history`; see
                `protocol.Generate`.

        Raises:
            PTuneError: At once for values out of bounds, else while iterating, as `classify`.
        """
        fields = {"adapter": str(adapter.resolve()), "values": values, **options}
        return self._parts(build_request(Generate, fields))

    def take_in(self, adapter: Path, out: Path, usage: Usage) -> Description:
        """Check an adapter from elsewhere and write it as one of ours: `out/adapter/` and `out/adapter.zip`.

        Raises:
            AdapterError: All that is wrong with its files, or what they do not say and `usage` does not either.
            DiskFull: There is no room.
            InferenceError: The process did not answer.
        """
        fields = {"adapter": str(adapter.resolve()), "out": str(out.resolve()), "usage": usage}
        return self._only_part(build_request(Import, fields))

    def close(self) -> None:
        """End the process. A later request starts a new one."""
        with self._lock:
            if self._child is not None:
                self._child.end(_CLOSE_SECONDS)
            self._child = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _only_part(self, request: Request) -> Any:
        (part,) = self._parts(request)
        return part

    def _parts(self, request: Request) -> Generator[Any, None, None]:
        """The parts of the reply as they come; a process that left for idleness just then is asked again once."""
        for is_last_try in (False, True):
            child, number = self._running_child()
            answered = False
            try:
                with contextlib.closing(child.ask(number, request, self._silence_limit)) as parts:
                    for part in parts:
                        answered = True
                        yield part
                return
            except _ChildEnded as ended:
                if answered or is_last_try or ended.exit_code != EXIT_IDLE:
                    raise self._explain(ended.exit_code) from None

    def _running_child(self) -> tuple[_Child, int]:
        with self._lock:
            if self._child is None or self._child.has_ended:
                try:
                    self._child = _Child(self._argv, self._log_path)
                except OSError as error:
                    raise InferenceError("The inference process cannot be started", got=str(error)) from error
            self._next_number += 1
            return self._child, self._next_number

    def _explain(self, exit_code: int) -> InferenceError:
        if exit_code == _SILENT:
            got = f"no sign of life for {self._silence_limit:g} seconds, so it was ended"
        elif exit_code < 0:
            got = f"it was killed by signal {-exit_code}, often because memory ran out"
        elif exit_code == 0:
            got = "it was closed"
        else:
            got = f"exit code {exit_code}"
        return InferenceError(
            "The inference process ended before it had answered",
            got=got,
            remedy=f"Try again: it starts anew. Details: {self._log_path}",
        )


_SILENT = 1 << 16
"""Stands for the exit code of a process that was ended for its silence; no real one is this large."""


class _ChildEnded(Exception):
    """The process is gone; `exit_code` as `Popen` gives it: negative for a signal."""

    def __init__(self, exit_code: int) -> None:
        super().__init__(exit_code)
        self.exit_code = exit_code


class _Child:
    """One inference process and the thread that hands its replies to those who wait for them."""

    def __init__(self, argv: Sequence[str], log_path: Path) -> None:
        with _open_log(log_path) as log:
            self._process = subprocess.Popen(
                argv,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env=_environment(),
                start_new_session=True,  # Ctrl-C in the app's terminal is the app's to handle
            )
        assert self._process.stdin is not None and self._process.stdout is not None  # both were asked for
        self._requests, self._replies = self._process.stdin, self._process.stdout
        self._write_lock = threading.Lock()
        self._inboxes: dict[int, queue.SimpleQueue[Any]] = {}
        self._inboxes_lock = threading.Lock()
        self._exit_code: int | None = None
        self._last_heard = time.monotonic()
        self._was_silent = self._has_hung_up = False
        threading.Thread(target=self._route, name="inference replies", daemon=True).start()

    @property
    def has_ended(self) -> bool:
        # `poll` sees a dead child before `_route` does, but says nothing while `_route` waits for its exit code.
        return self._has_hung_up or self._process.poll() is not None

    def ask(self, number: int, request: Request, silence_limit: float) -> Generator[Any, None, None]:
        """Send the request and yield the parts of its reply; closed early, it cancels the request.

        Raises:
            PTuneError: What the child answered.
            _ChildEnded: It has ended, or was ended because it stayed silent for `silence_limit` seconds.
        """
        inbox: queue.SimpleQueue[Any] = queue.SimpleQueue()
        with self._inboxes_lock:
            if self._exit_code is not None:
                raise _ChildEnded(self._exit_code)
            self._inboxes[number] = inbox
        is_over = False
        try:
            self._send(Envelope(id=number, request=request))
            while True:
                reply = self._wait(inbox, silence_limit)
                is_over = reply["kind"] != "part"
                if reply["kind"] == "done":
                    return
                if reply["kind"] == "error":
                    raise rebuild_error(reply["value"])
                yield reply["value"]
        except _ChildEnded:
            is_over = True
            raise
        finally:
            with self._inboxes_lock:
                self._inboxes.pop(number, None)
            if not is_over:
                self._send(Envelope(id=number, request=Cancel()))

    def end(self, seconds: float) -> None:
        """Close stdin, at which the child exits; kill it if it has not after `seconds`."""
        if self._write_lock.acquire(timeout=seconds):  # else: a request is stuck in a full pipe
            with contextlib.suppress(BrokenPipeError):
                self._requests.close()
            self._write_lock.release()
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _wait(self, inbox: queue.SimpleQueue[Any], silence_limit: float) -> Any:
        asked = time.monotonic()
        while True:
            quiet_since = max(asked, self._last_heard)
            try:
                reply = inbox.get(timeout=max(0.0, quiet_since + silence_limit - time.monotonic()))
            except queue.Empty:
                if self._last_heard > quiet_since:
                    continue
                self._was_silent = True
                self._process.kill()
                reply = inbox.get()  # `_route` sees the end and tells everyone
            if isinstance(reply, _ChildEnded):
                raise reply
            return reply

    def _send(self, envelope: Envelope) -> None:
        # A pipe that is broken or closed belongs to a child that has ended; `_route` tells whoever waits.
        with self._write_lock, contextlib.suppress(BrokenPipeError, ValueError):
            self._requests.write(envelope.to_line())
            self._requests.flush()

    def _route(self) -> None:
        with self._replies as replies:
            for line in replies:
                if not line.endswith(b"\n"):
                    break  # cut short by the child's end
                self._last_heard = time.monotonic()
                reply = decode_reply(line)
                with self._inboxes_lock:
                    inbox = self._inboxes.get(reply["id"])
                if inbox is not None:  # else: cancelled
                    inbox.put(reply)
        self._has_hung_up = True
        exit_code = self._process.wait()
        if self._was_silent:
            exit_code = _SILENT
        with self._inboxes_lock:
            self._exit_code = exit_code
            inboxes = list(self._inboxes.values())
        for inbox in inboxes:
            inbox.put(_ChildEnded(exit_code))
        with self._write_lock, contextlib.suppress(BrokenPipeError):
            self._requests.close()


def _open_log(path: Path) -> IO[bytes]:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists() and path.stat().st_size > _MAX_LOG_BYTES:
        path.replace(path.with_name(path.name + ".1"))
    return path.open("ab")


def _environment() -> dict[str, str]:
    """The app's environment, with this package importable from wherever the app was started."""
    here = str(Path(ptune_core.__file__).resolve().parent.parent)
    paths = [here, *filter(None, [os.environ.get("PYTHONPATH")])]
    # As in a worker: threads that wait by spinning take the cores from a training beside them, and lose to it.
    return {
        "OMP_WAIT_POLICY": "PASSIVE",
        **os.environ,
        "PYTHONPATH": os.pathsep.join(paths),
        "TOKENIZERS_PARALLELISM": "false",
    }
