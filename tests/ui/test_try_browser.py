"""Try and Export in a real browser: which adapter they show, and what happens while an answer is on its way."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from ptune_core.runs.states import RunState

pytestmark = [
    pytest.mark.browser,
    # gradio 6.31's queue and Dataframe use what pandas 3.1 deprecates
    pytest.mark.filterwarnings("ignore::pandas.errors.Pandas4Warning"),
]

NewPage = Callable[..., Page]


def open_run(page: Page, site: str, run_id: str) -> None:
    page.goto(f"{site}?run={run_id}")
    page.wait_for_selector("#plot .lp-loss.js-plotly-plot")


def test_generating_run_streams_two_panes(site: str, service: Any, new_page: NewPage) -> None:
    run = service.add(step=10, labels=(), state=RunState.FINISHED)
    page = new_page()
    open_run(page, site, run.id)
    page.click("#try-it")
    page.fill("#try-input-0 textarea", "Once upon")
    page.click("#generate")
    expect(page.locator("#tuned-text textarea")).to_have_value("once once once once once ")
    expect(page.locator("#base-text textarea")).to_have_value("and and and and and ")
    assert service.tries == [{"text": "Once upon"}]


def test_classifying_shows_both_models(site: str, service: Any, new_page: NewPage) -> None:
    run = service.add(step=10, state=RunState.FINISHED)
    page = new_page()
    open_run(page, site, run.id)
    page.click("#try-it")
    page.locator("#try-examples button").nth(1).click()
    expect(page.locator("#try-input-0 textarea")).to_have_value("I would go again tomorrow.")
    page.click("#classify")
    expect(page.locator("#tuned-label")).to_contain_text("97%")
    expect(page.locator("#base-label")).to_contain_text("51%")
    assert service.tries == [{"text": "I would go again tomorrow."}]


def test_a_fresh_page_shows_the_newest_adapter(site: str, service: Any, new_page: NewPage) -> None:
    # Try and Export were empty until a run was chosen in Runs, also after a reload.
    for state in (RunState.FINISHED, RunState.FINISHED, RunState.RUNNING):
        service.add(step=10, state=state)
    page = new_page()
    page.goto(site)
    for _ in range(2):
        for tab, chooser in (("Try", "#try-adapter input"), ("Export", "#export-adapter input")):
            page.get_by_role("tab", name=tab).click()
            expect(page.locator(chooser)).to_have_value("run 1")
        assert "run=" not in page.url, "the runs tab shows none of itself"
        expect(page.locator("#snippet")).to_contain_text("PeftModel")
        page.reload()
    page.get_by_role("tab", name="Runs").click()
    page.locator("#run-list [data-run]").first.click()  # the one that runs has no adapter: the newest stays
    expect(page.locator("#stop")).to_be_visible()
    page.get_by_role("tab", name="Try").click()
    expect(page.locator("#try-adapter input")).to_have_value("run 1")
    expect(page.locator("#classify")).to_be_visible()


def test_the_late_answer_to_the_load_does_not_replace_a_chosen_adapter(
    site: str, service: Any, new_page: NewPage, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(2):
        service.add(step=10, state=RunState.FINISHED)
    choices, asked, answer = service.choices, threading.Event(), threading.Event()

    def first_is_late(viewer: str) -> Any:
        if not asked.is_set():
            asked.set()
            answer.wait(60)
        return choices(viewer)

    monkeypatch.setattr(service, "choices", first_is_late)
    page = new_page()
    page.goto(site)
    asked.wait(60)
    page.get_by_role("tab", name="Runs").click()
    page.locator("#run-list [data-run]").last.click()
    expect(page.locator("#run-title")).to_contain_text("run 0")
    expect(page.locator("#try-it")).to_be_visible()
    answer.set()
    page.click("#try-it")
    expect(page.locator("#try-adapter input")).to_have_value("run 0")


def test_a_new_request_clears_the_answer_before_and_says_that_it_works(
    site: str, service: Any, new_page: NewPage, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The old answer stood beside the new text while the model was loaded, and a second press was dropped.
    run, answer = service.add(step=10, state=RunState.FINISHED), threading.Event()
    classify = service.classify

    def slow(run_id: str, viewer: str, values: dict[str, str]) -> Any:
        found = classify(run_id, viewer, values)
        if values["text"] == "slow":
            answer.wait(60)
            found["tuned"] = [[0.89, 0.11]]
        return found

    monkeypatch.setattr(service, "classify", slow)
    page = new_page()
    open_run(page, site, run.id)
    page.click("#try-it")
    tuned, working = page.locator("#tuned-label"), page.locator("#try-working .working")
    page.fill("#try-input-0 textarea", "quick")
    page.click("#classify")
    expect(tuned).to_contain_text("97%")
    page.fill("#try-input-0 textarea", "slow")
    page.click("#classify")
    expect(working).to_be_visible()
    expect(tuned).not_to_contain_text("%")
    page.fill("#try-input-0 textarea", "later")
    page.keyboard.press("Shift+Enter")
    expect(tuned).to_contain_text("97%")
    answer.set()
    page.locator("#try-examples button").nth(1).click()  # its reply comes after that of the slow one
    expect(page.locator("#try-input-0 textarea")).to_have_value("I would go again tomorrow.")
    expect(tuned).to_contain_text("97%")
    page.fill("#try-input-0 textarea", " ")
    page.click("#classify")
    expect(page.locator(".toast-wrap")).to_contain_text("There is no text yet")
    expect(working).to_have_count(0)
    assert [values["text"] for values in service.tries] == ["quick", "slow", "later"]


def test_a_generation_can_be_stopped(
    site: str, service: Any, new_page: NewPage, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The button was there but never shown.
    run, closed = service.add(step=10, labels=(), state=RunState.FINISHED), threading.Event()

    def endless(*_: Any, **__: Any) -> Any:
        try:
            while not closed.wait(0.02):
                yield {"base": "and", "tuned": "once"}
        finally:
            closed.set()

    monkeypatch.setattr(service, "generate", endless)
    page = new_page()
    open_run(page, site, run.id)
    page.click("#try-it")
    page.fill("#try-input-0 textarea", "Once upon")
    page.keyboard.press("Shift+Enter")
    expect(page.locator("#tuned-text textarea")).to_have_value("once")
    page.click("#try-stop")
    expect(page.locator("#try-stop")).to_be_hidden()
    expect(page.locator("#try-working .working")).to_have_count(0)
    assert closed.wait(60), "the model goes on"
