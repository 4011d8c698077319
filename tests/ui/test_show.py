"""Every error becomes a sentence; nothing a person typed becomes markup."""

from __future__ import annotations

import html
import logging
from collections.abc import Iterator

import gradio as gr
import pytest

from ptune_core.app import texts
from ptune_core.errors import DataError, SettingsError, TemplateError
from ptune_core.ui.show import answered, inline_error, inline_problems, shown, table


def test_our_errors_are_shown_as_they_are_and_escaped() -> None:
    @shown
    def handler() -> None:
        raise SettingsError("Too many <b>", got="9", needed="at most 5")

    with pytest.raises(gr.Error) as caught:
        handler()
    assert caught.value.message == "Too many &lt;b&gt;. Got: 9. Needed: at most 5."


def test_other_errors_are_logged_and_told_in_a_plain_sentence(caplog: pytest.LogCaptureFixture) -> None:
    @shown
    def handler() -> None:
        raise KeyError("internal detail")

    with caplog.at_level(logging.ERROR), pytest.raises(gr.Error) as caught:
        handler()
    assert html.unescape(caught.value.message) == texts.UNEXPECTED
    assert "internal detail" in caplog.text


def test_streams_are_wrapped_too_and_closed_with_their_page() -> None:
    closed = []

    def handler() -> Iterator[int]:
        try:
            yield 1
            raise DataError("No rows")
        finally:
            closed.append(True)

    stream = shown(handler)()
    assert next(stream) == 1
    with pytest.raises(gr.Error, match="No rows"):
        next(stream)

    stream = shown(handler)()
    next(stream)
    stream.close()
    assert closed == [True, True]


def test_a_browser_gets_errors_as_text() -> None:
    def answer(question: dict[str, object]) -> dict[str, object]:
        raise (SettingsError("Wrong") if question else ValueError("hidden"))

    assert answered(answer)({"a": 1}) == {"error": "Wrong."}
    assert answered(answer)({}) == {"error": texts.UNEXPECTED}


def test_inline_messages_and_tables_escape() -> None:
    hostile = "<script>\n\nx"
    for text in (
        inline_error(TemplateError(hostile, template="a\n\nb", position=3)),
        inline_problems(hostile, [hostile]),
        table([hostile], [[hostile]]),
    ):
        assert "<script>" not in text
    assert "\n\n" not in inline_error(TemplateError(hostile)), "a blank line would end the block of HTML in Markdown"


def test_long_problem_lists_are_cut_and_say_so() -> None:
    shown_text = inline_problems("Please check", [f"row {i}" for i in range(20)])
    assert shown_text.count("<li>") == 12 and "8 more" in shown_text
