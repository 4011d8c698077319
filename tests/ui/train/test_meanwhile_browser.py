"""What a person does while the page is still busy with what they did before is not lost.

The tests hold a handler up, do something, and let it go on: no time has to be hit.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from ptune_core.errors import NotOnThisMachine
from ptune_core.inference.look import Outlines
from ptune_core.ui.train.handlers import TrainHandlers

pytestmark = [
    pytest.mark.browser,
    pytest.mark.filterwarnings("ignore::pandas.errors.Pandas4Warning"),  # gradio 6.31's queue
]

NewPage = Callable[..., Page]
LATE = "<p>a late answer</p>"


def rows(count: int) -> str:
    return "text,label\n" + "".join(f"the film was great {i},{('yes', 'no')[i % 2]}\n" for i in range(count))


class Gate:
    """Holds up the first call of a handler after `shut`, until `open`."""

    def __init__(self) -> None:
        self._is_shut = False
        self._entered, self._opened = threading.Event(), threading.Event()

    def shut(self) -> None:
        self._is_shut = True

    def wait_for_somebody(self) -> None:
        assert self._entered.wait(60)

    def open(self) -> None:
        self._opened.set()

    def passed(self) -> bool:
        """Whether this call was held up; returns when it may go on."""
        was_shut, self._is_shut = self._is_shut, False
        if was_shut:
            self._entered.set()
            assert self._opened.wait(60)
        return was_shut


Gates = dict[str, Gate]


@pytest.fixture
def gates(monkeypatch: pytest.MonkeyPatch) -> Iterator[Gates]:
    """Before some handlers, by name. An answer of `show_data` that was held up is marked in the report."""
    gates = {name: Gate() for name in ("show_data", "read_pasted", "place")}
    for name, gate in gates.items():
        monkeypatch.setattr(TrainHandlers, name, behind(gate, getattr(TrainHandlers, name)))
    yield gates
    for gate in gates.values():
        gate.open()


def behind(gate: Gate, method: Callable[..., Any]) -> Callable[..., Any]:
    def through(*arguments: Any) -> Any:
        found = method(*arguments)
        if gate.passed() and isinstance(found, list):
            found[1] += LATE
        return found

    return through


@pytest.fixture
def page(gates: Gates, site: str, service: Any, new_page: NewPage) -> Page:
    """The page with six rows; `gates` comes first, since the page takes hold of the handlers when it is built."""
    service.outlines = Outlines()
    page = new_page()
    page.goto(site)
    expect(page.locator("#report")).to_contain_text("Using all")
    page.get_by_role("radio", name="Paste").check()
    paste(page, 6)
    expect(page.locator("#report")).to_contain_text("Using all 6 rows")
    return page


def paste(page: Page, count: int) -> None:
    page.fill("#pasted textarea", rows(count))
    page.click("#read-pasted")


def test_words_typed_while_the_rows_are_read_stay_and_are_judged(page: Page, gates: Gates) -> None:
    """Bug: the answer to leaving the template, which knew the words of before, put them back in their place."""
    words, problem = page.get_by_label("Answer words for no"), page.locator("#answers .aw-problem").first
    expect(words).to_have_value(" no")
    gate = gates["show_data"]
    gate.shut()
    page.fill("#template textarea", "[P*3] {text} [ANSWER:label]")
    words.focus()
    gate.wait_for_somebody()
    words.fill(" yes indeed")
    expect(problem).to_contain_text("begin with the same token")
    gate.open()
    expect(page.locator("#report")).to_contain_text("a late answer")
    expect(words).to_have_value(" yes indeed")
    words.press("End")
    words.press_sequentially("!")
    expect(words).to_have_value(" yes indeed!")
    expect(problem).to_contain_text("begin with the same token")
    expect(page.locator("#preview [data-state=working]")).to_have_count(0)


def test_a_template_changed_while_another_is_shown_is_the_one_that_is_shown(
    page: Page, gates: Gates, service: Any
) -> None:
    """Bug: the row stood in the template of before until the field was left once more."""
    gate = gates["show_data"]
    gate.shut()
    page.fill("#template textarea", "[P*3] First: {text} [ANSWER:label]")
    page.keyboard.press("Tab")
    gate.wait_for_somebody()
    page.fill("#template textarea", "[P*3] Second: {text} [ANSWER:label]")
    expect(page.locator("#preview .tp-pieces")).to_contain_text("Second")
    look, looked = service.look, threading.Event()

    def noted(fields: Mapping[str, object]) -> Any:
        looked.set()
        return look(fields)

    service.look = noted
    gate.open()
    expect(page.locator("#report")).to_contain_text("a late answer")
    assert looked.wait(60), "the late answer is a row in the template of before, which the preview asks for at first"
    page.wait_for_function("!document.querySelector('[data-state=working]')")
    expect(page.locator("#preview .tp-pieces")).to_contain_text("Second")


def test_rows_given_while_others_are_read_are_read_after_them(page: Page, gates: Gates) -> None:
    """Bug: a second press, or a second file, was dropped, and the first rows were trained on."""
    gate = gates["read_pasted"]
    gate.shut()
    paste(page, 8)
    gate.wait_for_somebody()
    paste(page, 10)
    gate.open()
    expect(page.locator("#report")).to_contain_text("Using all 10 rows")


def test_a_place_chosen_while_another_is_put_in_is_put_in_after_it(page: Page, gates: Gates) -> None:
    """Bug: of two quick choices the second was dropped, though its button was the one that was lit."""
    gate = gates["place"]
    gate.shut()
    page.get_by_role("radio", name="Around the text").check()
    gate.wait_for_somebody()
    page.get_by_role("radio", name="After the text").check()
    gate.open()
    expect(page.locator("#template textarea")).to_have_value("{text~} [P*8][ANSWER:label]")
    expect(page.get_by_role("radio", name="After the text")).to_be_checked()


def test_fetch_pressed_while_the_row_is_read_is_asked_next(site: str, service: Any, new_page: NewPage) -> None:
    """Bug: the answer to the question that was under way took the press away."""
    gate = Gate()

    def look(fields: Mapping[str, object]) -> Any:
        gate.passed()
        raise NotOnThisMachine("It is fetched" if fields["fetch"] else "It is not here")

    service.look = look
    page = new_page()
    page.goto(site)
    expect(page.locator("#preview .tp-why")).to_contain_text("It is not here")
    gate.shut()
    page.fill("#template textarea", "[P*3] {text} [ANSWER:label]")
    gate.wait_for_somebody()
    page.click("#preview .tp-fetch")
    gate.open()
    expect(page.locator("#preview .tp-why")).to_contain_text("It is fetched")
