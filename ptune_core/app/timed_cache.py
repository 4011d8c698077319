"""Answers that were found a moment ago, so that a control that is moved does not ask anew at every step."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

Answer = TypeVar("Answer")


class Recent(Generic[Answer]):
    """Keeps answers by their question.

    Args:
        seconds: For how long.
        most: How many.
    """

    def __init__(self, seconds: float, most: int = 32) -> None:
        self._seconds, self._most = seconds, most
        self._known: dict[Hashable, tuple[float, Answer]] = {}
        self._lock = threading.Lock()

    def get(self, question: Hashable, find: Callable[[], Answer]) -> Answer:
        """The answer to `question`, from `find` if it is not known. What `find` raises is not kept."""
        with self._lock:
            known = self._known.get(question)
        if known is not None and time.monotonic() - known[0] < self._seconds:
            return known[1]
        answer = find()
        with self._lock:
            self._known.pop(question, None)
            self._known[question] = time.monotonic(), answer
            for oldest in list(self._known)[: -self._most]:
                del self._known[oldest]
        return answer
