"""The plots and the overlay in a real browser: axes, zoom, CSV, and what differs between ticked runs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from ptune_core.runs.states import RunState
from ptune_core.training.settings import RunSettings

pytestmark = [
    pytest.mark.browser,
    # gradio 6.31's queue and Dataframe use what pandas 3.1 deprecates
    pytest.mark.filterwarnings("ignore::pandas.errors.Pandas4Warning"),
]

NewPage = Callable[..., Page]
LAST_X = "document.querySelector('#plot .lp-loss').data[0].x.at(-1)"


def wait_for(page: Page, expression: str) -> None:
    page.wait_for_function(expression)


def test_axis_scale_and_zoom_stay_over_updates_themes_and_runs(site: str, service: Any, new_page: NewPage) -> None:
    other, run = service.add(step=90, state=RunState.FINISHED), service.add(step=60)
    page = new_page()
    page.goto(f"{site}?run={run.id}")
    wait_for(page, "document.querySelector('#plot .lp-loss')?.data?.[0].x.at(-1) === 60")
    page.get_by_label("x axis").first.wait_for(state="attached")
    page.locator("#plot .lp-axis").select_option("time")
    assert page.evaluate(LAST_X) == pytest.approx(14)
    page.locator("#plot .lp-axis").select_option("epoch")
    assert page.evaluate(LAST_X) == pytest.approx(1.2)
    page.locator("#plot .lp-log").check()
    page.evaluate("Plotly.relayout(document.querySelector('#plot .lp-loss'), {'xaxis.range': [0.2, 1]})")
    run.step = 75
    wait_for(page, f"Math.abs({LAST_X} - 1.5) < 1e-9")
    page.evaluate("document.body.classList.toggle('dark')")
    page.locator(f"#run-list [data-run='{other.id}']").click()
    wait_for(page, f"Math.abs({LAST_X} - 1.8) < 1e-9")
    layout = page.evaluate(
        "(({xaxis, yaxis}) => [xaxis.range, yaxis.type])(document.querySelector('#plot .lp-loss').layout)"
    )
    assert layout == [[0.2, 1], "log"]
    page.locator("#plot .lp-unzoom").click()
    assert page.evaluate("document.querySelector('#plot .lp-loss').layout.xaxis.range") == [0, 6]

    # Bug: a range in which the next run has nothing was kept, and its plot was empty.
    page.evaluate("Plotly.relayout(document.querySelector('#plot .lp-loss'), {'xaxis.range': [1, 2]})")
    short = service.add(step=20, state=RunState.FINISHED)
    page.locator(f"#run-list [data-run='{short.id}']").click()
    wait_for(page, f"Math.abs({LAST_X} - 0.4) < 1e-9")
    assert page.evaluate("document.querySelector('#plot .lp-loss').layout.xaxis.range[0]") < 0.4


def test_each_plot_is_there_as_csv(site: str, service: Any, new_page: NewPage) -> None:
    run = service.add(step=30, state=RunState.FINISHED)
    page = new_page()
    page.goto(f"{site}?run={run.id}")
    wait_for(page, "document.querySelector('#plot .lp-tokens')?.data?.length === 2")
    found = {}
    for plot in ("loss", "metric", "rate", "tokens"):
        with page.expect_download() as download:
            page.locator(f"#plot [data-plot={plot}] .lp-csv").click()
        assert download.value.suggested_filename == f"ptune-{run.id[:8]}-{plot}.csv"
        found[plot] = download.value.path().read_text().splitlines()
    assert found["loss"][0] == "step,epoch,seconds,train_loss,validation_loss" and len(found["loss"]) == 31
    assert found["loss"][14].endswith(",") and not found["loss"][15].endswith(","), "evaluated at step 15 only"
    assert found["metric"][0] == "step,epoch,seconds,accuracy,low_95,high_95,is_best,rows"
    assert found["metric"][1].endswith(",1,") and found["metric"][3:] == ["30,0.6,,0.942,0.93,0.95,1,2000"]
    assert found["rate"][1].split(",")[0] == "1" and float(found["rate"][1].split(",")[3]) == pytest.approx(
        0.01, rel=0.01
    )
    assert found["tokens"][1] == "15,P1,0.3,3,'=great,<b>good,fine", "no spreadsheet may take a word for a formula"


NAMES = """[...document.querySelectorAll('#plot .lp-metric .annotation')].map(node => {
  const box = node.getBoundingClientRect();
  return [node.textContent, box.top, box.bottom];
})"""


@pytest.mark.parametrize("width", [1280, 390])
def test_names_of_baselines_do_not_meet_and_the_star_is_the_result(
    site: str, service: Any, new_page: NewPage, width: int
) -> None:
    run = service.add(step=60, state=RunState.FINISHED)
    page = new_page()
    page.set_viewport_size({"width": width, "height": 900})
    page.goto(f"{site}?run={run.id}")
    wait_for(page, "document.querySelector('#plot .lp-metric')?.data?.length === 8")
    wait_for(page, "document.querySelectorAll('#plot .lp-metric .annotation').length === 4")
    names = sorted(page.evaluate(NAMES), key=lambda name: -name[1])
    said = [text for text, _, _ in names]
    assert said == ["majority 0.51", "zero-shot 0.52", "8 in context 0.53", "probe 0.99"]
    tops, bottoms = [top for _, top, _ in names], [bottom for _, _, bottom in names]
    assert all(bottom <= top + 1 for top, bottom in zip(tops, bottoms[1:], strict=False)), names
    star = "document.querySelector('#plot .lp-metric').data.filter(t => t.name === 'result').map(t => [t.x, t.y])"
    assert page.evaluate(star) == [[[60], [0.942]]]
    expect(page.locator("#plot .lp-notes")).to_have_text("The head reads <b>the mean</b>.")


def test_ticked_runs_are_laid_over_each_other_with_what_differs(site: str, service: Any, new_page: NewPage) -> None:
    runs = [service.add(step=45, state=RunState.FINISHED) for _ in range(3)]
    for rate, run in zip((0.01, 0.02, 0.03), runs, strict=True):
        run.settings = RunSettings(name=f"<b>rate</b> {rate}", learning_rate=rate)
    page = new_page()
    page.goto(f"{site}?run={runs[0].id}")
    ticks = page.locator("#run-list .rl-tick")
    ticks.nth(0).check()
    expect(page.locator("#run-list")).to_contain_text("Tick a second run to compare.")
    ticks.nth(1).check()
    cells = page.locator("#overlay tbody tr").filter(has_text="Learning rate").locator("td")
    expect(cells).to_have_text(["0.03", "0.02"])
    expect(page.locator("#overlay thead")).to_contain_text("A  <b>rate</b> 0.03")
    expect(page.locator("#run-detail")).to_be_hidden()
    for plot in ("loss", "metric"):
        traces = f"document.querySelector('#overlay .ov-{plot}').data.map(t => [t.name, t.x.length, t.line.dash])"
        assert page.evaluate(traces) == [["A", 3, "solid"], ["B", 3, "dash"]]
    ticks.nth(2).check()
    expect(cells).to_have_text(["0.03", "0.02", "0.01"])
    page.locator(f"#run-list [data-run='{runs[1].id}']").click()
    expect(page.locator("#overlay .ov")).to_be_hidden()
    expect(page.locator("#run-detail")).to_be_visible()
    page.get_by_role("button", name="Compare 3 runs").click()
    expect(page.locator("#overlay .ov")).to_be_visible()

    sweep = service.add(step=45, state=RunState.FINISHED)
    sweep.settings = RunSettings(name="sweep", sweep={"learning_rate": [0.01, 0.02], "seed": [1, 2]})
    page.locator(f"#run-list [data-run='{sweep.id}']").click()
    expect(page.locator("#run-list .rl-trial")).to_have_count(4)
    expect(page.locator("#run-list .rl-trial").nth(3)).to_have_text("4  learning rate 0.02, seed 2")
    page.get_by_label("Compare trial 4").check()
    expect(page.locator("#overlay .ov-title")).to_have_text("Comparing 4 runs")


def test_an_empty_list_leads_to_the_example_and_a_long_one_can_be_filtered(
    site: str, service: Any, new_page: NewPage
) -> None:
    page = new_page()
    page.goto(site)
    page.get_by_role("tab", name="Runs").click()
    page.get_by_role("button", name="Train the example").click()
    expect(page.locator("#start")).to_be_visible()
    for _ in range(10):
        service.add(step=15, state=RunState.FINISHED)
    page.get_by_role("tab", name="Runs").click()
    page.get_by_label("Filter runs by name or state").fill("RUN 7")
    expect(page.locator("#run-list .rl-name")).to_have_text(["run 7"])
