"""From handlers to people: how every error becomes a sentence on the page."""

from __future__ import annotations

import functools
import html
import inspect
import logging
from collections.abc import Callable, Sequence
from typing import Any

import gradio as gr

from ptune_core.errors import PTuneError

log = logging.getLogger(__name__)

EVENT: dict[str, Any] = {"api_visibility": "private", "concurrency_limit": None, "show_progress": "hidden"}
"""How cheap handlers are registered: not in the API's list, as many at once as threads allow, no spinner."""

UNEXPECTED = (
    "Something went wrong inside PTune; your data and runs are untouched. Try again, or reload the page. "
    "The details are in the app's log."
)


def shown(handler: Callable[..., Any]) -> Callable[..., Any]:
    """`handler`, with every exception turned into a message on the page.

    A `PTuneError` is shown as it is. Anything else is our own mistake: the traceback goes to the log, a plain sentence
    to the page.
    """
    if inspect.isgeneratorfunction(handler):

        @functools.wraps(handler)
        def stream(*args: Any, **kwargs: Any) -> Any:
            try:
                yield from handler(*args, **kwargs)
            except Exception as error:
                raise _as_message(error) from error

        return stream

    @functools.wraps(handler)
    def call(*args: Any, **kwargs: Any) -> Any:
        try:
            return handler(*args, **kwargs)
        except Exception as error:
            raise _as_message(error) from error

    return call


def answered(answer: Callable[[dict[str, Any]], dict[str, Any]]) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """A server function for the browser, whose errors become `{"error": text}`; a script shows that as text."""

    @functools.wraps(answer)
    def call(question: dict[str, Any]) -> dict[str, Any]:
        try:
            return answer(question)
        except Exception as error:
            return {"error": _text(error)}

    return call


def _as_message(error: Exception) -> gr.Error:
    if isinstance(error, gr.Error):
        return error
    text = html.escape(_text(error)).replace("\n", "<br>")
    return gr.Error(text, duration=None, print_exception=False, title="This did not work")


def _text(error: Exception) -> str:
    if isinstance(error, PTuneError):
        return str(error)
    log.error("A handler of the page failed", exc_info=error)
    return UNEXPECTED


def inline_error(error: PTuneError) -> str:
    """An error for the place it belongs to, safe inside Markdown; its line breaks and its caret stay in place."""
    text = html.escape(str(error)).replace("\n", "&#10;")  # a blank line would end the block of HTML
    return f'<div class="problem" role="alert"><pre>{text}</pre></div>'


def inline_problems(heading: str, problems: Sequence[str], most: int = 12) -> str:
    """A sentence and a numbered list under it, as Markdown-safe HTML; empty without problems."""
    if not problems:
        return ""
    items = "".join(f"<li>{html.escape(problem)}</li>" for problem in problems[:most])
    more = f"<p>… and {len(problems) - most} more.</p>" if len(problems) > most else ""
    return f'<div class="problem" role="alert"><p>{html.escape(heading)}</p><ol>{items}</ol>{more}</div>'
