"""The inference process: `python -m ptune_core.inference.server --data-dir DIR`.

A thread reads requests; the main thread, which alone touches the model, lets every active request take one step (a
token, a batch of rows) in turn, so nobody waits for another's long text. Requests for another base model than the one
loaded wait until the active ones are done. The process ends when its stdin closes, so it never outlives the app, and
when it has had nothing to do for a while, so it never holds memory for nothing.

An error that is not one of ours is a bug: it ends the process, with the traceback in the log; the client says so to
whoever waits, and its next request starts a new process.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
import queue
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Hashable, Iterator
from pathlib import Path
from typing import BinaryIO, Protocol

from pydantic import ValidationError

from ptune_core.errors import InferenceError, PTuneError
from ptune_core.inference.protocol import EXIT_IDLE, Cancel, Envelope, Reply, Request, encode_reply, error_fields

MAX_ACTIVE = 4
"""Requests that take turns; each may hold keys and values of two texts."""

MAX_WAITING = 100

_IDLE_POLL_SECONDS = 1.0
"""How often an idle process asks the engine for its limit, which shrinks when a training run wants the memory."""


class Answerer(Protocol):
    """What the server needs of an engine. Every method may raise a `PTuneError`."""

    def base_key(self, request: Request) -> Hashable | None:
        """Which base model the request needs; None if none. Cheap: called again while the request waits."""

    def answer(self, request: Request) -> Iterator[object]:
        """The parts of the reply. Each `next` is one step; `close` frees what the request held."""

    def idle_limit(self) -> float:
        """Seconds without a request after which the process should end."""


class Server:
    """Lets active requests take turns on one engine.

    Args:
        engine: Answers requests, one step at a time.
        send: Writes one reply to the client.
    """

    def __init__(self, engine: Answerer, send: Callable[[Reply], None]) -> None:
        self._engine, self._send = engine, send
        self._waiting: deque[tuple[int, Request]] = deque()
        self._active: dict[int, Iterator[object]] = {}
        self._active_key: Hashable | None = None

    def run(self, inbox: queue.SimpleQueue[Envelope]) -> None:
        """Serve until idle for longer than the engine's limit."""
        while self._receive(inbox):
            self._admit()
            for number in list(self._active):
                self._step(number)

    def _receive(self, inbox: queue.SimpleQueue[Envelope]) -> bool:
        """Take what has arrived, waiting for it only if there is nothing else to do; False if that took too long."""
        idle_since = time.monotonic()
        while not (self._active or self._waiting):
            left = idle_since + self._engine.idle_limit() - time.monotonic()
            try:
                self._take(inbox.get(timeout=max(0.0, min(left, _IDLE_POLL_SECONDS))))
            except queue.Empty:
                if left <= 0:
                    return False
        with contextlib.suppress(queue.Empty):
            while True:
                self._take(inbox.get_nowait())
        return True

    def _take(self, envelope: Envelope) -> None:
        if isinstance(envelope.request, Cancel):
            self._waiting = deque(entry for entry in self._waiting if entry[0] != envelope.id)
            self._finish(envelope.id)
        elif len(self._waiting) >= MAX_WAITING:
            self._fail(envelope.id, InferenceError("Too many requests are waiting", remedy="Try again in a minute"))
        else:
            self._waiting.append((envelope.id, envelope.request))

    def _admit(self) -> None:
        """Activate waiting requests in their order, as long as they can share the base model with the active ones."""
        while self._waiting and len(self._active) < MAX_ACTIVE:
            number, request = self._waiting[0]
            try:
                key = self._engine.base_key(request)
            except PTuneError as error:
                self._waiting.popleft()
                self._fail(number, error)
                continue
            if key is not None and self._active and self._active_key not in (None, key):
                return
            self._active_key = key if key is not None or not self._active else self._active_key
            self._waiting.popleft()
            self._active[number] = self._engine.answer(request)

    def _step(self, number: int) -> None:
        try:
            part = next(self._active[number])
        except StopIteration:
            self._finish(number)
            self._send({"id": number, "kind": "done", "value": None})
        except PTuneError as error:
            self._fail(number, error)
        else:
            self._send({"id": number, "kind": "part", "value": part})

    def _fail(self, number: int, error: PTuneError) -> None:
        self._finish(number)
        self._send({"id": number, "kind": "error", "value": error_fields(error)})

    def _finish(self, number: int) -> None:
        parts = self._active.pop(number, None)
        close = getattr(parts, "close", None)
        if close is not None:
            close()


def main(build_engine: Callable[[Path], Answerer], arguments: list[str]) -> None:
    """Serve stdin to stdout. Does not return: the process ends here.

    Args:
        build_engine: Makes the engine from the data directory.
        arguments: Command line after the program's name.
    """
    parser = argparse.ArgumentParser(prog="ptune_core.inference.server")
    parser.add_argument("--data-dir", type=Path, required=True)
    data_directory = parser.parse_args(arguments).data_dir
    requests, replies = _reserve_pipes()
    inbox: queue.SimpleQueue[Envelope] = queue.SimpleQueue()
    threading.Thread(target=_read, args=(requests, inbox), daemon=True).start()

    def send(reply: Reply) -> None:
        replies.write(encode_reply(reply))
        replies.flush()

    exit_code = EXIT_IDLE
    try:
        Server(build_engine(data_directory), send).run(inbox)
    except BrokenPipeError:  # the app has gone between two replies
        exit_code = 0
    except Exception:
        logging.getLogger(__name__).exception("The inference process ends because of a bug")
        exit_code = 1
    # Not a normal exit: the reading thread still holds stdin, which interpreter shutdown cannot take from it.
    sys.stderr.flush()
    os._exit(exit_code)


def _reserve_pipes() -> tuple[BinaryIO, BinaryIO]:
    """Stdin and stdout for the protocol alone: what libraries print goes to stderr, which is the log."""
    requests, replies = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    os.dup2(2, 1)
    return requests, replies


def _read(requests: BinaryIO, inbox: queue.SimpleQueue[Envelope]) -> None:
    """Pass requests on until the app has gone; then nobody reads an answer any more."""
    try:
        for line in requests:
            inbox.put(Envelope.from_line(line))
    except ValidationError:
        logging.getLogger(__name__).exception("The app sent a request that breaks the protocol")
        os._exit(1)
    os._exit(0)


def _build_engine(data_directory: Path) -> Answerer:
    from ptune_core.inference.engine import Engine

    return Engine(data_directory)


if __name__ == "__main__":
    main(_build_engine, sys.argv[1:])
