"""Try and Export in a real browser: which adapter they show, and what happens while an answer is on its way."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
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
    expect(page.locator("#tuned-answer .written")).to_have_text("once once once once once ")
    expect(page.locator("#base-answer .written")).to_have_text("and and and and and ")
    assert service.tries == [{"text": "Once upon"}]


def test_classifying_shows_both_models(site: str, service: Any, new_page: NewPage) -> None:
    run = service.add(step=10, state=RunState.FINISHED)
    page = new_page()
    open_run(page, site, run.id)
    page.click("#try-it")
    page.locator("#try-examples button").nth(1).click()
    expect(page.locator("#try-input-0 textarea")).to_have_value("I would go again tomorrow.")
    page.click("#classify")
    expect(page.locator("#tuned-answer")).to_contain_text("97%")
    expect(page.locator("#base-answer")).to_contain_text("51%")
    assert service.tries == [{"text": "I would go again tomorrow."}]


def test_an_answer_goes_with_its_adapter_and_no_sooner(site: str, service: Any, new_page: NewPage) -> None:
    """Bug: whatever showed an adapter emptied its answer, also when it was the one that had just answered.

    So did the end of a run, seconds after it offered to try its result.
    """
    run, other = (service.add(step=10, state=RunState.FINISHED) for _ in range(2))
    page = new_page()
    open_run(page, site, run.id)
    page.click("#try-it")
    page.fill("#try-input-0 textarea", "a fine film")
    page.click("#classify")
    answer = page.locator("#tuned-answer")
    expect(answer).to_contain_text("97%")

    run.settings = run.settings.model_copy(update={"name": "shown again"})
    page.get_by_role("tab", name="Runs").click()
    page.locator(f"#run-list [data-run='{run.id}']").click()
    page.get_by_role("tab", name="Try").click()
    expect(page.locator("#try-adapter input")).to_have_value("shown again")
    expect(answer).to_contain_text("97%")
    expect(page.locator("#try-input-0 textarea")).to_have_value("a fine film")

    page.get_by_role("tab", name="Runs").click()
    page.locator(f"#run-list [data-run='{other.id}']").click()
    page.get_by_role("tab", name="Try").click()
    expect(page.locator("#try-adapter input")).to_have_value("run 1")
    for pane in ("#tuned-answer", "#base-answer", "#try-note"):
        expect(page.locator(pane)).to_have_text("")


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

    def slow(adapter: str, viewer: str, values: dict[str, str], **options: Any) -> Any:
        found = classify(adapter, viewer, values, **options)
        if values["text"] == "slow":
            answer.wait(60)
            found["tuned"] = [[0.89, 0.11]]
        return found

    monkeypatch.setattr(service, "classify", slow)
    page = new_page()
    open_run(page, site, run.id)
    page.click("#try-it")
    tuned, working = page.locator("#tuned-answer"), page.locator("#try-working .working")
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
    expect(page.locator("#try-problem")).to_contain_text("There is no text yet")
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
    expect(page.locator("#tuned-answer .written")).to_have_text("once")
    page.click("#try-stop")
    expect(page.locator("#try-stop")).to_be_hidden()
    expect(page.locator("#try-working .working")).to_have_count(0)
    assert closed.wait(60), "the model goes on"


def test_a_file_in_and_the_labelled_file_out(site: str, service: Any, new_page: NewPage, tmp_path: Path) -> None:
    run = service.add(step=10, state=RunState.FINISHED)
    page = new_page()
    open_run(page, site, run.id)
    page.click("#try-it")
    expect(page.locator("#try-about")).to_contain_text("2 labels")
    for pane in ("#base-answer", "#tuned-answer"):
        expect(page.locator(pane)).to_be_hidden()  # nothing stands empty before the first answer
    page.locator("#batch button").first.click()
    (tmp_path / "mine.csv").write_text("text,label\na,positive\nb,negative\n")
    page.set_input_files("#batch-file input[type=file]", tmp_path / "mine.csv")
    expect(page.locator("#batch-file")).to_contain_text("mine")
    page.click("#batch-label")
    expect(page.locator("#batch-said")).to_contain_text("Accuracy 50.0%")
    with page.expect_download() as download:
        page.click("#batch-download")
    assert download.value.path().read_text() == "text,label\na,positive\nb,positive\n"
    assert download.value.suggested_filename == "mine-labelled.csv"


def test_an_adapter_from_elsewhere_is_brought_tried_and_removed(
    site: str, service: Any, new_page: NewPage, tmp_path: Path
) -> None:
    run = service.add(step=10, state=RunState.FINISHED)
    page = new_page()
    open_run(page, site, run.id)
    page.click("#try-it")
    page.fill("#try-input-0 textarea", "typed before")

    def bring(name: str, content: bytes) -> None:
        (tmp_path / name).write_bytes(content)
        with page.expect_file_chooser() as chooser:
            page.click("#try-bring")
        chooser.value.set_files(tmp_path / name)

    bring("bad.zip", b"")
    expect(page.locator("#try-bring-problem")).to_contain_text("2. another")
    bring("good.zip", b"PK")
    expect(page.locator("#try-adapter input")).to_have_value("good")
    expect(page.locator("#try-bring-problem .problem")).to_have_count(0)
    expect(page.locator("#try-input-0 textarea")).to_have_value("typed before")
    page.click("#classify")
    expect(page.locator("#tuned-answer")).to_contain_text("97%")
    expect(page.locator("#try-usage")).to_be_visible()
    page.get_by_role("tab", name="Export").click()
    expect(page.locator("#export-adapter input")).to_have_value("good")
    page.on("dialog", lambda dialog: dialog.accept())
    page.click("#export-remove")
    expect(page.locator("#export-adapter input")).to_have_value("run 0")
    assert service.adapters.brought == {}


def test_a_run_that_trains_offers_its_newest_state(site: str, service: Any, new_page: NewPage) -> None:
    run = service.add(step=10)
    page = new_page()
    open_run(page, site, run.id)
    expect(page.locator("#try-it")).to_have_text("Try newest")
    page.click("#try-it")
    expect(page.locator("#try-body")).to_be_visible()
    page.fill("#try-input-0 textarea", "good")
    page.click("#classify")
    expect(page.locator("#tuned-answer")).to_contain_text("97%")
    page.get_by_role("tab", name="Export").click()
    expect(page.locator("#export-message")).to_contain_text("when the run has ended")
