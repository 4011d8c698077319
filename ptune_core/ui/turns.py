"""Answers may come in another order than they were asked for: the newest question of a page is the one that counts."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TypeVar

from ptune_core.errors import PTuneError

Answer = TypeVar("Answer")


class Turns:
    """Which request of each page is its newest, of one kind of request; safe to use from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._newest: dict[str, object] = {}

    def take(self, page: str) -> object:
        """A new turn, which makes those before it old."""
        turn = object()
        with self._lock:
            self._newest[page] = turn
        return turn

    def is_newest(self, page: str, turn: object) -> bool:
        """Whether the page has asked for nothing since."""
        return self._newest.get(page) is turn

    def end(self, page: str, turn: object) -> bool:
        """Forget the page, unless it has asked again; whether it has not."""
        with self._lock:
            if was_newest := self._newest.get(page) is turn:
                del self._newest[page]
        return was_newest

    def answer(self, page: str, make: Callable[[], Answer], instead: Answer) -> Answer:
        """What `make` returns or raises, but `instead` if the page has asked again by then."""
        turn = self.take(page)
        try:
            made = make()
        except PTuneError:
            if self.end(page, turn):
                raise
            return instead
        return made if self.end(page, turn) else instead
