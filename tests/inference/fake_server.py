"""An inference process with a fake engine: what a row's `text` says is what it does. No model, starts in a moment."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Hashable, Iterator
from pathlib import Path

from ptune_core.errors import AdapterError, TemplateError
from ptune_core.inference.protocol import EXIT_IDLE, Classify, Generate, Request
from ptune_core.inference.server import main


class FakeEngine:
    """Leaves traces in the data directory, so that a test sees what happened in here."""

    def __init__(self, data_directory: Path) -> None:
        self._data = data_directory
        (data_directory / "pids").open("a").write(f"{os.getpid()}\n")

    def base_key(self, request: Request) -> Hashable | None:
        return "base"

    def answer(self, request: Request) -> Iterator[object]:
        if isinstance(request, Classify):
            yield from self._classify(request)
        elif isinstance(request, Generate):
            yield from self._generate(request)

    def idle_limit(self) -> float:
        return 0.0 if (self._data / "leave-when-idle").exists() else 3600.0

    def _classify(self, request: Classify) -> Iterator[object]:
        for row in request.rows:
            self._obey(row["text"])
            p = len(row["text"]) / 100
            base = [[0.5, 0.5]] if request.compare else None
            yield {"labels": ["no", "yes"], "tuned": [[1 - p, p]], "base": base, "note": ""}

    def _generate(self, request: Generate) -> Iterator[object]:
        text = ""
        try:
            while request.values["text"] == "endless" or len(text) < request.max_new_tokens:
                self._obey(request.values["text"])
                text += "x"
                yield {"tuned": text[-1000:], "base": "b"}
        finally:
            (self._data / "closed").touch()

    def _obey(self, order: str) -> None:
        match order:
            case "die":
                os.kill(os.getpid(), signal.SIGKILL)
            case "bug":
                raise RuntimeError("a bug in the engine")
            case "hang":
                time.sleep(3600)
            case "start":
                (self._data / "started").touch()
            case "chatter":
                print("library output " * 70_000, flush=True)
                os.write(1, b'{"id": 1, "kind": "done"}\n')
            case "leave once" if not (self._data / "left").exists():
                (self._data / "left").touch()
                os._exit(EXIT_IDLE)
            case "bad adapter":
                raise AdapterError("The adapter is broken", got="3 tensors", needed="1", remedy="Download it again")
            case "bad template":
                raise TemplateError("Two targets", template="[P][ANSWER:a][ANSWER:b]", position=13)


if __name__ == "__main__":
    main(FakeEngine, sys.argv[1:])
