"""Try's handlers, as plain functions: who asks again no longer wants the answer before."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from typing import Any

import pytest

from ptune_core.errors import InferenceError, SettingsError
from ptune_core.runs.states import RunState
from ptune_core.ui.try_tab import NOTHING_NEW, TryHandlers


def ask(handlers: TryHandlers, run: Any, text: str, page: str = "page") -> list[list[Any]]:
    return list(handlers.classify(page, "me", run.id, text))


@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize(("page", "given_up"), [("page", True), ("another", False)])
def test_a_later_request_of_the_page_wins(
    service: Any, monkeypatch: pytest.MonkeyPatch, fails: bool, page: str, given_up: bool
) -> None:
    # The answers were shown in the order they came, and a failure of the one given up was told.
    run, handlers, later = service.add(state=RunState.FINISHED), TryHandlers(service), []
    classify = service.classify

    def slow(run_id: str, viewer: str, values: Mapping[str, str]) -> Any:
        if values["text"] == "first":
            later.extend(ask(handlers, run, "second", page))
            if fails:
                raise InferenceError("It ended")
        return classify(run_id, viewer, values)

    monkeypatch.setattr(service, "classify", slow)
    if fails and not given_up:
        with pytest.raises(InferenceError):
            ask(handlers, run, "first")
    else:
        assert (ask(handlers, run, "first") == [NOTHING_NEW]) is given_up
    assert len(later) == 1 and later != [NOTHING_NEW]
    assert ask(handlers, run, "third") == later


def test_a_generation_given_up_is_stopped(service: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    run, handlers, closed = service.add(labels=(), state=RunState.FINISHED), TryHandlers(service), []

    def generate(*_: Any, **__: Any) -> Generator[dict[str, str], None, None]:
        try:
            while True:
                yield {"base": "and ", "tuned": "once "}
        finally:
            closed.append(True)

    monkeypatch.setattr(service, "generate", generate)
    first, second = (handlers.generate("page", "me", run.id, {}, ["a"]) for _ in range(2))
    next(first)
    next(second)
    assert list(first) == [NOTHING_NEW] and closed == [True]
    assert next(second)[2:] == ["and ", "once "]
    second.close()
    assert closed == [True, True]


def test_an_empty_text_is_refused(service: Any) -> None:
    run = service.add(state=RunState.FINISHED)
    with pytest.raises(SettingsError, match="no text"):
        ask(TryHandlers(service), run, "  ")
