"""From handlers to people: how every error becomes a sentence on the page."""

from __future__ import annotations

import functools
import html
import inspect
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import gradio as gr

from ptune_core.app import texts
from ptune_core.errors import DataError, PTuneError

log = logging.getLogger(__name__)

EVENT: dict[str, Any] = {"api_visibility": "private", "concurrency_limit": None, "show_progress": "hidden"}
"""How cheap handlers are registered: not in the API's list, as many at once as threads allow, no spinner.

Gradio 6.31's spinner leaves the key `common.complete` in the page's text, for screen readers to read out.
"""

Updates = dict[gr.blocks.Block, Any]
"""What a handler gives to which component. gradio leaves the other outputs alone; it takes no empty one."""

LATEST: dict[str, Any] = EVENT | {"trigger_mode": "always_last"}
"""For what follows from what a person set: what was set while the handler was busy is looked at when it is done.

Gradio drops an event whose handler is under way, unless it is told otherwise: right for a button, whose second press is
no second order, and wrong for everything else. Not for handlers that read the event: they would be given the first's.
"""

EACH: dict[str, Any] = EVENT | {"trigger_mode": "multiple"}
"""For events that say themselves what was chosen, and for what tells by its turn whether it still counts."""

ERROR_SECONDS = 20.0
"""How long an error stays on the page; a click closes it before."""


class _Told(Exception):
    """Carries the sentence that a person gets to read instead of the exception it was raised from."""


@contextmanager
def _telling() -> Iterator[None]:
    try:
        yield
    except PTuneError as error:
        raise _Told(str(error)) from error
    except Exception as error:
        log.exception("A handler of the page failed")
        raise _Told(texts.UNEXPECTED) from error


def shown(handler: Callable[..., Any]) -> Callable[..., Any]:
    """`handler`, with every exception turned into a message on the page.

    A `PTuneError` is shown as it is. Anything else is our own mistake: the traceback goes to the log, a plain sentence
    to the page.
    """
    if inspect.isgeneratorfunction(handler):

        @functools.wraps(handler)
        def stream(*args: Any, **kwargs: Any) -> Any:
            try:
                with _telling():
                    yield from handler(*args, **kwargs)
            except _Told as told:
                raise _message(told) from told

        return stream

    @functools.wraps(handler)
    def call(*args: Any, **kwargs: Any) -> Any:
        try:
            with _telling():
                return handler(*args, **kwargs)
        except _Told as told:
            raise _message(told) from told

    return call


def told(endpoint: Callable[..., Any]) -> Callable[..., Any]:
    """`endpoint`, with every exception turned into plain text for the program that called it."""

    @functools.wraps(endpoint)
    def call(*args: Any, **kwargs: Any) -> Any:
        try:
            with _telling():
                return endpoint(*args, **kwargs)
        except _Told as error:
            raise gr.Error(str(error), print_exception=False) from error

    return call


def answered(answer: Callable[[dict[str, Any]], dict[str, Any]]) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """A server function for the browser, whose errors become `{"error": text}`; a script shows that as text."""

    @functools.wraps(answer)
    def call(question: dict[str, Any]) -> dict[str, Any]:
        try:
            with _telling():
                return answer(question)
        except _Told as told:
            return {"error": str(told)}

    return call


def _message(told: _Told) -> gr.Error:
    text = html.escape(str(told)).replace("\n", "<br>")
    return gr.Error(text, duration=ERROR_SECONDS, print_exception=False, title=texts.DID_NOT_WORK)


def inline_error(error: PTuneError) -> str:
    """An error for the place it belongs to, safe inside Markdown; its line breaks and its caret stay in place."""
    if isinstance(error, DataError) and error.problems:
        return inline_problems(PTuneError.__str__(error), error.problems)  # with what to do about them
    text = html.escape(str(error)).replace("\n", "&#10;")  # a blank line would end the block of HTML
    return f'<div class="problem" role="alert"><pre>{text}</pre></div>'


def inline_problems(heading: str, problems: Sequence[str], most: int = 12) -> str:
    """A sentence and a numbered list under it, as Markdown-safe HTML; empty without problems."""
    if not problems:
        return ""
    items = "".join(f"<li>{html.escape(problem)}</li>" for problem in problems[:most])
    more = f"<p>{texts.and_more(len(problems) - most)}</p>" if len(problems) > most else ""
    return f'<div class="problem" role="alert"><p>{html.escape(heading)}</p><ol>{items}</ol>{more}</div>'


def in_browser(writes: Mapping[gr.blocks.Block, str]) -> dict[str, Any]:
    """For an event: what the browser writes by itself, at once; a script's literal for each component."""
    literals = ", ".join(writes.values())
    return {"fn": None, "inputs": None, "outputs": list(writes), "js": f"() => [{literals}]", **EVENT}


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Rows of text as an HTML table; everything in it is escaped."""
    head = "".join(f"<th>{html.escape(column)}</th>" for column in columns)
    body = "".join("<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f'<div class="table"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'
