"""Tuning and Run card in a real browser: a fix, folded settings, and settings saved and loaded."""

from __future__ import annotations

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


def opened(page: Page, site: str) -> Page:
    page.goto(site)
    expect(page.locator("#checks summary")).to_contain_text("passed")
    return page


def test_a_fix_sets_its_control_and_settings_survive_a_file(
    site: str, service: Any, new_page: NewPage, tmp_path: Path
) -> None:
    page = opened(new_page(), site)
    page.fill("#setting-learning_rate input", "7")
    expect(page.locator("#start")).to_be_disabled()
    expect(page.locator("#start-reason")).to_contain_text("Learning rate: ")
    page.get_by_role("button", name="Fix: set it to 0.003").click()
    expect(page.locator("#setting-learning_rate input")).to_have_value("0.003")
    expect(page.locator("#start")).to_be_enabled()

    page.locator("#preset").get_by_role("radio", name="Quick").check()
    expect(page.locator("#setting-max_steps input")).to_have_value("60")
    page.locator("#setting-encoder_reparameterization_type").get_by_role("radio", name="LSTM", exact=True).check()
    page.fill("#template textarea", "{text~} [P*3][ANSWER:label]")
    page.click("#advanced > button")
    page.locator("#advanced").get_by_role("button", name="Prompt encoder").click()
    page.fill("#setting-encoder_num_layers input", "3")
    expect(page.locator("#advanced > button")).to_contain_text("1 changed")
    page.click("#settings-file > button")
    expect(page.locator("#command .cm-content")).to_contain_text("encoder_num_layers=3")
    with page.expect_download() as download:
        page.click("#save-settings")
    download.value.save_as(tmp_path / "settings.yaml")

    fresh = opened(new_page(), site)
    fresh.click("#settings-file > button")
    fresh.locator("#settings-file input[type=file]").set_input_files(tmp_path / "settings.yaml")
    expect(fresh.locator("#setting-max_steps input")).to_have_value("60")
    expect(fresh.locator("#template textarea")).to_have_value("{text~} [P*3][ANSWER:label]")
    expect(fresh.locator("#command .cm-content")).to_contain_text("encoder_num_layers=3")
    for each in (page, fresh):
        expect(each.locator("#start")).to_be_enabled()
        each.click("#start")
        expect(each.locator("#run-detail")).to_be_visible()
    first, second = service.runs.values()
    assert first.settings == second.settings and first.settings.encoder_num_layers == 3


def test_settings_of_a_past_run_are_copied_and_start_says_that_it_waits(
    site: str, service: Any, new_page: NewPage
) -> None:
    past = service.add(state=RunState.FINISHED, step=300)
    past.settings = past.settings.model_copy(update={"max_steps": 77, "seed": 5})
    page = new_page()
    page.set_viewport_size({"width": 390, "height": 844})
    page.goto(f"{site}?run={past.id}")
    page.click("#copy-settings")
    expect(page.locator("#setting-max_steps input")).to_have_value("77")
    expect(page.locator("#start")).to_be_in_viewport()
    expect(page.locator("#start")).to_contain_text("Start training")
    service.add()
    expect(page.locator("#start")).to_contain_text("starts after 1 run")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
