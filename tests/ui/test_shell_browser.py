"""What is around the four tabs, in a real browser: strip, keyboard, colours, messages."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from ptune_core.app import texts
from ptune_core.runs.states import RunState
from ptune_core.ui.page import launch

pytestmark = [
    pytest.mark.browser,
    pytest.mark.filterwarnings("ignore::pandas.errors.Pandas4Warning"),
]

NewPage = Callable[..., Page]
App = tuple[Callable[[], str], Callable[[], None]]
"""Starts the app, again at the same address, and ends it."""

CONTRAST = Path(__file__).with_name("contrast.js").read_text(encoding="utf-8")
NOTIFICATIONS = """
window.notes = [];
window.Notification = class { constructor(title, options) { window.notes.push([title, options.body]); } };
Notification.permission = 'default';
Notification.requestPermission = async () => { window.asked = 1; return Notification.permission = 'granted'; };
"""


def add_named(service: Any, name: str, **fields: Any) -> Any:
    run = service.add(**fields)
    run.settings = run.settings.model_copy(update={"name": name})
    return run


@pytest.fixture
def app(
    service: Any, build_with: Callable[..., Any], free_port: Callable[[], int], in_loop: Callable[..., Any]
) -> Iterator[App]:
    page, port = build_with(ephemeral=False, period=100), free_port()

    def start() -> str:
        where = {"server_name": "127.0.0.1", "server_port": port}
        return str(in_loop(lambda: launch(page, service, prevent_thread_lock=True, quiet=True, **where))[1])

    yield start, lambda: page.close(verbose=False)
    page.close(verbose=False)


def test_a_lost_connection_is_told_and_comes_back_by_itself(app: App, service: Any, new_page: NewPage) -> None:
    start, stop = app
    run = service.add(step=5)
    page = new_page()
    page.goto(start())
    text = page.locator("#strip .st-text")
    expect(text).to_contain_text("step 5/300")
    stop()
    expect(text).to_have_text(texts.STRIP["lost"][0])
    expect(page.locator("#strip .st-line")).to_have_attribute("data-state", "lost")
    expect(page.locator("#strip-stop")).to_be_hidden()
    run.step = 9
    start()
    expect(text).to_contain_text("step 9/300")
    expect(page.locator("#strip-stop")).to_be_visible()


def test_the_strip_is_one_line_on_a_phone_and_lists_who_waits(site: str, service: Any, new_page: NewPage) -> None:
    running = add_named(service, "gpt2-medium on customer-reviews.csv", step=120)
    waiting = [service.add(state=RunState.QUEUED) for _ in range(2)]
    page = new_page()
    page.set_viewport_size({"width": 390, "height": 844})
    page.goto(site)
    text = page.locator("#strip .st-text")
    expect(text).to_contain_text("120/300")
    assert "gpt2" not in text.inner_text()
    assert page.title() == "120/300 · PTune"
    line = page.locator("#strip .st-line").bounding_box()
    assert line["height"] < 50 and text.evaluate("node => node.scrollWidth <= node.clientWidth")
    page.click("#strip-waiting")
    queue = page.locator("#strip-queue li")
    expect(queue).to_have_count(2)
    queue.nth(1).get_by_role("button", name=texts.STRIP["earlier"]).click()
    expect(queue.nth(0).get_by_role("button", name=texts.STRIP["earlier"])).to_be_hidden()
    queue.nth(0).get_by_role("button", name=texts.STRIP["remove"]).click()
    expect(queue).to_have_count(1)
    assert service.moved == [waiting[1].id]
    assert (waiting[0].state, running.state) == (RunState.STOPPED, RunState.RUNNING)
    page.set_viewport_size({"width": 1280, "height": 900})
    expect(text).to_contain_text("Training gpt2-medium on customer-reviews.csv · step 120/300")


def test_who_wants_to_know_is_notified_at_the_end(site: str, service: Any, new_page: NewPage) -> None:
    run = add_named(service, "mine", step=5)
    page = new_page()
    page.add_init_script(NOTIFICATIONS)
    page.goto(site)
    button = page.locator("#strip-notify")
    expect(button).to_have_text(texts.STRIP["notify"])
    assert page.evaluate("window.asked") is None, "asked before anybody pressed the button"
    button.click()
    expect(button).to_have_text(texts.STRIP["notifying"])
    run.state = RunState.FINISHED
    page.wait_for_function("window.notes.length === 1")
    assert page.evaluate("window.notes[0]") == ["mine", "Done."]
    expect(button).to_be_hidden()


def test_the_link_of_a_run_can_be_copied_and_leads_back_to_it(site: str, service: Any, new_page: NewPage) -> None:
    run = service.add(step=5, state=RunState.FINISHED)
    page = new_page(permissions=["clipboard-read", "clipboard-write"])
    page.goto(f"{site}?run={run.id}&__theme=light")
    page.click("#copy-link")
    expect(page.locator("#copy-link")).to_have_text(texts.LINK_COPIED)
    assert page.evaluate("navigator.clipboard.readText()") == f"{site}?run={run.id}"


def test_a_run_that_is_not_there_is_told_and_the_message_can_be_closed(site: str, new_page: NewPage) -> None:
    page = new_page()
    page.goto(f"{site}?run=ffffffffffffffff")
    message = page.get_by_test_id("toast-body")
    expect(message).to_contain_text(texts.NO_SUCH_RUN)
    message.get_by_test_id("toast-close").click()
    expect(message).to_have_count(0)


def test_a_first_run_needs_no_mouse(site: str, service: Any, new_page: NewPage) -> None:
    page = new_page()
    page.goto(site)
    expect(page.locator("#report")).to_contain_text("Using all")
    tab_to(page, "start")
    outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
    assert outline == "solid", "nobody sees where the keyboard is"
    page.keyboard.press("Enter")
    expect(page.locator("#plot .lp-state")).to_have_text("running", ignore_case=True)
    (run,) = service.runs.values()
    run.step, run.state = 300, RunState.FINISHED
    expect(page.locator("#try-it")).to_have_text("Try it")  # not the state of the run while it trained
    tab_to(page, "try-it")
    page.keyboard.press("Enter")
    expect(page.locator("#classify")).to_be_visible()
    tab_to(page, "try-input-0")
    page.keyboard.type("a fine film")
    tab_to(page, "classify")
    page.keyboard.press("Enter")
    expect(page.locator("#tuned-answer")).to_contain_text("97%")
    assert service.tries == [{"text": "a fine film"}]


def tab_to(page: Page, elem_id: str) -> None:
    """Press Tab until the focus is in the element, as somebody without a mouse does."""
    for _ in range(120):
        page.keyboard.press("Tab")
        if page.evaluate("id => !!document.activeElement.closest('#' + id)", elem_id):
            return
    raise AssertionError(f"Tab never came to {elem_id}")


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_all_text_can_be_read(site: str, service: Any, new_page: NewPage, theme: str) -> None:
    service.add(step=41, state=RunState.FAILED, reason="Loss became infinite")
    run = service.add(step=60, state=RunState.FINISHED, warning="No better")
    page = new_page()
    page.goto(f"{site}?__theme={theme}&run={run.id}")
    page.wait_for_selector("#plot .lp-loss.js-plotly-plot")
    expect(page.locator("#report")).to_contain_text("Using all")
    dim = {}
    for tab in ("Train", "Runs", "Try", "Export"):
        page.get_by_role("tab", name=tab).click()
        if found := page.evaluate(CONTRAST):
            dim[tab] = found
    assert dim == {}
