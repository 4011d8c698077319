"""The page in a real browser, over runs that take the steps a test tells them to."""

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
HOSTILE = "<img src=x onerror='window.hit=1'><script>window.hit=1</script>${window.hit=1}{{value}}"


def wait_for_updates(page: Page, more: int) -> None:
    """Wait until the live plot has drawn `more` further answers."""
    before = int(page.locator("#plot .live-plot").first.get_attribute("data-updates") or 0)
    page.wait_for_function(
        "goal => Number(document.querySelector('#plot .live-plot').dataset.updates) >= goal", arg=before + more
    )


def loss_steps(page: Page) -> list[int]:
    """Steps of the training loss that is drawn."""
    steps: list[int] = page.evaluate("document.querySelector('#plot .lp-loss').data[0].x")
    return steps


def wait_for_step(page: Page, step: int) -> None:
    page.wait_for_function(
        "step => (document.querySelector('#plot .lp-loss')?.data?.[0].x.at(-1) ?? 0) >= step", arg=step
    )


def open_run(page: Page, site: str, run_id: str) -> None:
    page.goto(f"{site}?run={run_id}")
    page.wait_for_selector("#plot .lp-loss.js-plotly-plot")


def test_first_run_in_three_clicks(site: str, service: Any, new_page: NewPage, tmp_path: Path) -> None:
    page = new_page()
    page.goto(site)
    expect(page.locator("#report")).to_contain_text("Using all")
    page.click("#start")
    # Before the first point there is a sentence, and no empty plot.
    expect(page.locator("#plot .lp-empty")).to_have_text("The first points appear within seconds.")
    expect(page.locator("#plot .lp-panels")).to_be_hidden()
    (run,) = service.runs.values()
    run.step = 3
    page.wait_for_selector("#plot .lp-loss.js-plotly-plot")
    assert run.settings.base_model == "demo"
    assert run.settings.labels == {"negative": " terrible", "positive": " great"}
    run.step, run.state = 300, RunState.FINISHED
    expect(page.locator("#try-it")).to_have_text("Try it")  # not the state of the run while it trained
    page.click("#try-it")
    expect(page.locator("#classify")).to_be_visible()
    with page.expect_download() as download:
        page.click("#download")
    assert download.value.suggested_filename == "demo-adapter.zip"
    assert download.value.path().read_bytes() == service.zip.read_bytes()


def test_a_run_that_ends_before_its_first_point_has_no_plots(site: str, service: Any, new_page: NewPage) -> None:
    """Bug: when it failed while the page was open, its empty plots lay over each other."""
    run = service.add(step=0)
    page = new_page()
    page.goto(f"{site}?run={run.id}")
    expect(page.locator("#plot .lp-empty")).to_be_visible()
    run.state, run.reason = RunState.FAILED, "The answers cannot be told apart"
    expect(page.locator("#plot .lp-empty")).to_have_text("This run ended before its first step.")
    expect(page.locator("#plot .lp-panels")).to_be_hidden()
    expect(page.locator("#plot .lp-status")).to_have_text("")  # the alarm above says it


def test_start_pressed_twice_is_one_run(site: str, service: Any, new_page: NewPage) -> None:
    page = new_page()
    page.goto(site)
    expect(page.locator("#report")).to_contain_text("Using all")
    page.locator("#start").dblclick()
    expect(page.locator("#plot .lp-empty")).to_be_visible()
    assert len(service.runs) == 1


def test_zoom_and_hidden_traces_survive_updates(site: str, service: Any, new_page: NewPage) -> None:
    run = service.add(step=100)
    page = new_page()
    open_run(page, site, run.id)
    wait_for_step(page, 100)
    page.evaluate("Plotly.relayout(document.querySelector('#plot .lp-loss'), {'xaxis.range': [20, 60]})")
    page.evaluate("Plotly.restyle(document.querySelector('#plot .lp-loss'), {visible: 'legendonly'}, [0])")
    for step in range(110, 160, 10):
        run.step = step
        wait_for_updates(page, 1)
        wait_for_step(page, step)
    ranges = page.evaluate("document.querySelector('#plot .lp-loss').layout.xaxis.range")
    assert ranges == [20, 60]
    assert page.evaluate("document.querySelector('#plot .lp-loss').data[0].visible") == "legendonly"
    page.evaluate("document.body.classList.toggle('dark')")
    wait_for_updates(page, 1)
    assert page.evaluate("document.querySelector('#plot .lp-loss').layout.xaxis.range") == [20, 60]


def test_plot_shows_validation_and_all_baselines(site: str, service: Any, new_page: NewPage) -> None:
    run = service.add(step=60)
    page = new_page()
    open_run(page, site, run.id)
    wait_for_step(page, 60)
    loss = page.evaluate("document.querySelector('#plot .lp-loss').data.map(t => [t.name, t.x.length])")
    assert loss == [["train", 60], ["train, smoothed", 60], ["validation", 4], ["best", 1]]
    metric = page.evaluate("document.querySelector('#plot .lp-metric').data.map(t => [t.name, t.y, t.line?.dash])")
    band = ["95 % band, low", "95 % band"]
    baselines = ["majority", "zero-shot", "8 in context", "probe"]
    assert [name for name, _, _ in metric] == [*band, "accuracy", "best", *baselines]
    assert metric[4][1:] == [[0.51, 0.51], "dash"] and metric[5][1:] == [[0.52, 0.52], "dot"]
    assert metric[6][1:] == [[0.53, 0.53], "dashdot"] and metric[7][1:] == [[0.99, 0.99], "longdash"]


def test_updates_carry_only_what_is_new(site: str, service: Any, new_page: NewPage) -> None:
    run = service.add(step=50)
    page = new_page()
    open_run(page, site, run.id)
    for step in (60, 70):
        run.step = step
        wait_for_step(page, step)
    assert loss_steps(page) == list(range(1, 71))
    assert {question["cursor"] for question in service.polls} >= {0, 50, 60}


def test_reload_and_second_browser_show_all_history_and_can_stop(site: str, service: Any, new_page: NewPage) -> None:
    # The first click comes before the page has answered its own load: that answer used to hide the run again.
    run = service.add(step=80)
    first = new_page()
    first.goto(site)
    first.click("#strip-open")
    wait_for_step(first, 80)
    assert f"run={run.id}" in first.url
    run.step = 90
    wait_for_step(first, 90)
    first.reload()
    wait_for_step(first, 90)
    assert loss_steps(first) == list(range(1, 91))

    second = new_page()
    second.goto(first.url)
    wait_for_step(second, 90)
    second.click("#stop")
    expect(second.locator("#try-it")).to_have_text("Try it")
    assert run.state is RunState.STOPPED
    expect(first.locator("#resume")).to_be_visible()
    first.click("#resume")
    expect(first.locator("#stop")).to_be_visible()
    run.step = 120
    wait_for_step(first, 120)
    assert loss_steps(first) == list(range(1, 121))


def test_strip_stops_the_run_from_any_tab(site: str, service: Any, new_page: NewPage) -> None:
    run = service.add(step=5)
    page = new_page()
    page.goto(site)
    expect(page.locator("#strip")).to_contain_text("Training run 0")
    page.click("#strip-stop")
    expect(page.locator("#strip")).to_contain_text("Ready")
    assert run.state is RunState.STOPPED


def test_bad_csv_is_shown_as_numbered_problems(site: str, service: Any, new_page: NewPage, tmp_path: Path) -> None:
    bad = tmp_path / "bad.csv"
    bad.write_text("text,label\ngood,1\n,0\nfine,1\nbad,0,extra\nawful,0\n", encoding="utf-8")
    page = new_page()
    page.goto(site)
    page.get_by_role("radio", name="Upload").check()
    page.locator("#file input[type=file]").set_input_files(bad)
    problems = page.locator("#report ol li")
    expect(page.locator("#report")).to_contain_text("Using 3 of 5 rows")
    expect(problems.first).to_be_hidden()
    page.get_by_text("Show 2 remarks").click()
    expect(problems.first).to_be_visible()
    expect(problems).to_have_text(['Line 5: 3 columns found, 2 expected ("bad", …)', "empty text: row 3"])


def test_the_example_does_not_replace_rows_brought_meanwhile(
    site: str, service: Any, new_page: NewPage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Reading it takes seconds when the app was just started; its late token then stood for the upload.
    demo, answer = service.uploads.demo, threading.Event()
    monkeypatch.setattr(service.uploads, "demo", lambda: answer.wait(60) and demo())
    data = tmp_path / "mine.csv"
    data.write_text("text,label\ngood,1\nbad,0\nfine,1\npoor,0\n", encoding="utf-8")
    page = new_page()
    page.goto(site)
    page.get_by_role("radio", name="Upload").check()
    page.locator("#file input[type=file]").set_input_files(data)
    expect(page.locator("#report")).to_contain_text("Using all 4 rows")
    answer.set()
    page.click("#start")
    page.wait_for_selector("#plot .live-plot")
    expect(page.locator("#report")).to_contain_text("Using all 4 rows")
    (run,) = service.runs.values()
    assert run.settings.data == "mine.csv"


def test_unusable_file_says_why_and_loses_nothing(site: str, service: Any, new_page: NewPage, tmp_path: Path) -> None:
    one_class = tmp_path / "one.csv"
    one_class.write_text("text,label\ngood,1\nfine,1\ngreat,1\n", encoding="utf-8")
    page = new_page()
    page.goto(site)
    page.fill("#setting-max_steps input", "77")
    page.get_by_role("radio", name="Upload").check()
    page.locator("#file input[type=file]").set_input_files(one_class)
    expect(page.locator("#report .problem")).to_be_visible()
    expect(page.locator("#start")).to_be_disabled()
    expect(page.locator("#start-reason")).not_to_be_empty()
    assert not service.runs
    assert page.input_value("#setting-max_steps input") == "77"


def test_template_error_points_at_the_place_and_slider_rewrites_the_group(site: str, new_page: NewPage) -> None:
    page = new_page()
    page.goto(site)
    expect(page.locator("#report")).to_contain_text("Using all")
    page.fill("#template textarea", "{text~} [P*8]")
    expect(page.locator("#template-message .problem")).to_contain_text("target")
    page.fill("#template textarea", "{text~} [P*8] It was[ANSWER:label]")
    expect(page.locator("#template-message")).to_be_hidden()
    page.fill("#num-virtual-tokens input[type=number]", "12")
    page.keyboard.press("Enter")
    expect(page.locator("#template textarea")).to_have_value("{text~} [P*12] It was[ANSWER:label]")
    expect(page.locator("#preview .tp-pieces")).to_contain_text("P×12")


def test_what_people_type_never_becomes_markup(site: str, service: Any, new_page: NewPage, tmp_path: Path) -> None:
    rows = [f'"{HOSTILE} {i}",{label}' for i in range(3) for label in ("a", "<b>b</b>")]
    data = tmp_path / "hostile.csv"
    data.write_text("\n".join(['"<i>text</i>",label', *rows, ",a"]), encoding="utf-8")
    run = service.add(step=40, labels=(HOSTILE, "b"), reason=HOSTILE, state=RunState.FAILED)
    run.settings = run.settings.model_copy(update={"name": HOSTILE[:80]})
    page = new_page()
    page.goto(site)
    page.get_by_role("radio", name="Upload").check()
    page.locator("#file input[type=file]").set_input_files(data)
    expect(page.locator("#rows")).to_contain_text("onerror")
    page.fill("#template textarea", HOSTILE)
    expect(page.locator("#template-message .problem")).to_be_visible()
    page.goto(f"{site}?run={run.id}")
    expect(page.locator("#run-problem")).to_contain_text("onerror")
    page.get_by_role("tab", name="Try").click()
    page.get_by_role("tab", name="Export").click()
    assert page.evaluate("window.hit") is None


def test_a_run_in_vain_is_told_wherever_it_is_shown(site: str, service: Any, new_page: NewPage) -> None:
    run = service.add(step=10, state=RunState.FINISHED, warning=HOSTILE)
    page = new_page()
    page.goto(site)
    expect(page.locator("#newest-run .warning")).to_contain_text("onerror")
    expect(page.locator("#strip [data-state=warning], #strip[data-state=warning]").first).to_contain_text("onerror")
    page.click("#newest-open")
    expect(page.locator("#run-problem .warning")).to_contain_text("onerror")
    page.wait_for_url(f"**run={run.id}")
    assert page.evaluate("window.hit") is None


def test_deleting_asks_first(site: str, service: Any, new_page: NewPage) -> None:
    run = service.add(step=10, state=RunState.FINISHED)
    page = new_page()
    open_run(page, site, run.id)
    answers = iter([False, True])
    page.on("dialog", lambda dialog: dialog.accept() if next(answers) else dialog.dismiss())
    page.click("#delete")
    expect(page.locator("#delete")).to_be_visible()
    assert run.id in service.runs
    page.click("#delete")
    expect(page.locator("#run-detail")).to_be_hidden()
    assert run.id not in service.runs
    page.wait_for_url(lambda url: "run=" not in url)


@pytest.mark.parametrize("width", [390, 1280])
def test_nothing_is_wider_than_the_window(site: str, service: Any, new_page: NewPage, width: int) -> None:
    run = service.add(step=60, state=RunState.FINISHED)
    page = new_page()
    page.set_viewport_size({"width": width, "height": 844})
    page.goto(site)
    expect(page.locator("#report")).to_contain_text("Using all")
    for tab in ("Train", "Runs", "Try", "Export"):
        if tab != "Train":
            page.goto(f"{site}?run={run.id}")
            page.wait_for_selector("#plot .lp-loss.js-plotly-plot")
            page.get_by_role("tab", name=tab).click()
        assert page.evaluate("document.documentElement.scrollWidth") <= width, tab


def test_nothing_is_cut_or_crowded_on_a_phone(site: str, service: Any, new_page: NewPage) -> None:
    run = service.add(step=60, state=RunState.FINISHED)
    page = new_page()
    page.set_viewport_size({"width": 390, "height": 844})
    page.goto(f"{site}?run={run.id}")
    samples = page.locator("#plot .lp-scroll")
    expect(samples.locator("tbody tr")).to_have_count(3)
    assert samples.evaluate("node => node.scrollWidth <= node.clientWidth"), "the table's right column was cut"
    page.get_by_role("tab", name="Train").click()
    slider = page.locator("#num-virtual-tokens")
    help_, handle = slider.locator(".info-text").bounding_box(), slider.locator("input[type=range]").bounding_box()
    assert help_["y"] + help_["height"] < handle["y"], "the help touched the slider"
    name, arrow = page.locator("#base-model input"), page.locator("#base-model .icon-wrap").bounding_box()
    box = name.bounding_box()
    padding = float(name.evaluate("node => parseFloat(getComputedStyle(node).paddingRight)"))
    assert box["x"] + box["width"] - padding <= arrow["x"], "the model's name ran under the arrow"
