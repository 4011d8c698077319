"""The results of a run in a real browser: a cell of the matrix opens its rows, a trial is chosen, an alarm mended."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from ptune_core.errors import RunError
from ptune_core.files import json_line
from ptune_core.runs.states import RunState
from ptune_core.training.settings import RunSettings

pytestmark = [
    pytest.mark.browser,
    pytest.mark.filterwarnings("ignore::pandas.errors.Pandas4Warning"),
]

NewPage = Callable[..., Page]
HOSTILE = "<img src=x onerror='window.hit=1'>"


def write_predictions(run: Any) -> None:
    labels = ["bad", HOSTILE]
    header = {"kind": "labels", "labels": labels, "columns": ["text"], "step": 30, "rows": 30, "kept": 30, "changed": 9}
    lines = [
        {"row": i, "input": {"text": f"{HOSTILE} {i}"}, "gold": i % 2, "tuned": [0.8, 0.2] if i % 3 else [0.3, 0.7],
         "base": [0.5, 0.5]}
        for i in range(30)
    ]  # fmt: skip
    (run.directory / "predictions.jsonl").write_bytes(b"".join(map(json_line, [header, *lines])))


def test_a_cell_of_the_matrix_opens_its_rows_by_keyboard(site: str, service: Any, new_page: NewPage) -> None:
    run = service.add(step=60, state=RunState.FINISHED)
    write_predictions(run)
    page = new_page()
    page.goto(f"{site}?run={run.id}")
    samples = page.locator(".rs-samples tbody tr")
    expect(samples).to_have_count(10)
    page.get_by_role("button", name="Show more").click()
    expect(samples).to_have_count(20)
    page.get_by_role("tab", name="Samples").press("ArrowRight")
    cell = page.get_by_role("button", name=f"bad predicted as {HOSTILE}: 5 rows, 33%")
    cell.press("Enter")
    expect(samples).to_have_count(5)
    rows = [int(row) for row in samples.evaluate_all("rows => rows.map(row => row.dataset.row)")]
    assert sorted(rows) == [0, 6, 12, 18, 24]
    expect(page.get_by_role("tab", name="Samples")).to_be_focused()
    page.get_by_label("Predicted", exact=True).select_option("")
    expect(page.locator(".rs-note")).to_contain_text("15 rows")
    page.get_by_role("tab", name="Calibration").click()
    expect(page.locator(".rs-bins tbody tr")).to_have_count(2)
    page.get_by_role("tab", name="Settings").click()
    expect(page.locator(".results pre").first).to_contain_text("python -m ptune_core train")
    assert page.evaluate("window.hit") is None


def test_a_trial_is_chosen_and_an_alarm_mended(site: str, service: Any, new_page: NewPage) -> None:
    run = service.add(
        step=60, state=RunState.FINISHED, warning="No better.", fixes=[{"key": "flat-0", "label": "Mend"}]
    )
    run.settings = RunSettings(name="swept", sweep={"learning_rate": [0.01, 0.001]})
    ranking = [
        {"trial": number, "settings": {"learning_rate": 0.01}, "value": 0.5, "loss": 0.5, "best_step": 3, "steps": 3,
         "reason": "all steps done", "error": None}
        for number in (1, 0)
    ]  # fmt: skip
    result = {"state": "finished", "metric": "accuracy", "sweep": ranking, "trial": 1}
    (run.directory / "result.json").write_bytes(json_line(result))
    trial = run.directory / "sweep" / "01"
    trial.mkdir(parents=True)
    (trial / "adapter.zip").touch()
    page = new_page()
    page.goto(f"{site}?run={run.id}")
    expect(page.locator(".rs-sweep tbody tr")).to_have_count(2)
    expect(page.locator(".rs-sweep tr[data-trial='1']")).to_contain_text("In use")
    page.get_by_role("button", name="Use this one").click()
    expect(page.get_by_text("Trial 1 is now what Try")).to_be_visible()
    assert service.used == [(run.id, 0)]
    page.locator("#run-problem").get_by_role("button", name="Mend").click()
    page.wait_for_url(f"**run={1:016x}")
    assert service.fixed == [(run.id, "flat-0")]


def test_what_failed_once_is_asked_again_and_can_be_pressed_again(site: str, service: Any, new_page: NewPage) -> None:
    """Bug: one error in one question ended the plot and the alarms for good, and a button that came to nothing."""
    run = service.add(step=10, warning="No better.", fixes=[{"key": "flat-0", "label": "Mend"}])
    service.failing = {name: RunError("The disk is full") for name in ("poll", "alarms", "fix")}
    page = new_page()
    page.goto(f"{site}?run={run.id}")
    page.wait_for_selector("#plot .lp-loss.js-plotly-plot")
    button = page.get_by_role("button", name="Mend")
    button.click()
    expect(page.get_by_text("The disk is full")).to_be_visible()
    expect(button).to_be_enabled()
    assert service.fixed == [] and service.failing == {}
    button.click()
    expect(page.locator("#run-title")).to_contain_text("run 1")
    assert service.fixed == [(run.id, "flat-0")]
