"""Data and template cards in a real browser: roles of columns, and rows as the demo model's tokenizer reads them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from ptune_core.app import texts
from ptune_core.inference.look import Outlines

pytestmark = [
    pytest.mark.browser,
    pytest.mark.filterwarnings("ignore::pandas.errors.Pandas4Warning"),  # gradio 6.31's queue
]

NewPage = Callable[..., Page]
ROWS = "passage,question,premise,hypothesis,label\n" + "".join(
    f"the film was great{more},is it great,a dog ran,a dog was there,yes\n"
    f"the food was bad{more},is it good,a cat slept,a cat ran,no\n"
    for more in ("", " again", " as ever")
)


def write_template(page: Page, text: str) -> None:
    page.fill("#template textarea", text)
    page.keyboard.press("Tab")


DRAWN = """expected => [...document.querySelector('#preview .tp-pieces').children].map(node => {
  const kind = node.className.split(' ')[0];
  return {'tp-virtual': '•', 'tp-more': '…', 'tp-target': `[${node.textContent}]`}[kind] ?? node.textContent;
}).join('') === expected"""
"""Whether the row is drawn so: pills as dots, the target in brackets."""


def expect_pieces(page: Page, expected: str) -> None:
    expect(page.locator("#preview .tp-line")).to_contain_text("virtual")
    page.wait_for_function(DRAWN, arg=expected)


def test_a_template_is_seen_token_by_token(site: str, service: Any, new_page: NewPage, tmp_path: Path) -> None:
    service.outlines = Outlines()
    data = tmp_path / "rows.csv"
    data.write_text(ROWS, encoding="utf-8")
    page = new_page()
    page.goto(site)
    page.get_by_role("radio", name="Upload").check()
    page.locator("#file input[type=file]").set_input_files(data)
    expect(page.locator("#report")).to_contain_text("Using all 6 rows")

    # Worked examples 1 and 7 of the design, and one with its only group in front
    write_template(page, "{passage~} [P*3] Question: {question}? [P*3] Answer:[ANSWER:label]")
    expect_pieces(page, "the film was great••• Question: is it great?••• Answer:[ yes]")
    line = page.locator("#preview .tp-line")
    expect(line).to_contain_text("reused text: 4 of")
    expect(page.locator("#preview .tp-reused").first).to_have_text("the")
    page.get_by_role("button", name="Next row").click()
    expect_pieces(page, "the food was bad••• Question: is it good?••• Answer:[ no]")
    expect(page.locator("#preview .tp-row")).to_have_text("row 2 of 6")
    write_template(page, "[P*20] {passage~} [ANSWER:label]")
    expect_pieces(page, "•••…•the food was bad[ no]")
    expect(line).to_contain_text("4 tokens + 20 virtual = 24 of")

    # A chip goes where the caret was, the target to the end
    page.fill("#template textarea", "[P*2] It was")
    page.get_by_role("button", name="Insert {premise}").click()
    page.get_by_role("button", name="Insert [ANSWER:label]").click()
    expect(page.locator("#template textarea")).to_have_value("[P*2] It was {premise}[ANSWER:label]")

    # Answer words that begin alike are told beside them
    page.get_by_label("Answer words for no").fill(" yes indeed")
    expect(page.locator("#answers .aw-problem").first).to_contain_text("begin with the same token")
    page.get_by_label("Answer words for no").fill(" no")
    expect(page.locator("#answers .aw-problem").first).to_be_hidden()

    # What the model cannot do is a sentence, and the row stays there without tokens
    write_template(page, "{premise~} [P*3] {hypothesis|strip_punct}? [P*3] [MASK:label]")
    expect(page.locator("#preview .tp-why")).to_contain_text("not trained to fill masks")
    expect(page.locator("#preview .tp-pieces")).to_contain_text("a cat slept")


def test_roles_are_chosen_over_the_columns(site: str, service: Any, new_page: NewPage, tmp_path: Path) -> None:
    data = tmp_path / "rows.csv"
    data.write_text("a,b,verdict\none,two,x\nthree,four,y\nfive,six,x\nseven,eight,y\n", encoding="utf-8")
    page = new_page()
    page.goto(site)
    page.get_by_role("radio", name="Upload").check()
    page.locator("#file input[type=file]").set_input_files(data)
    first, second = page.get_by_label("Column a is"), page.get_by_label("Column b is")
    expect(page.get_by_label("Column verdict is")).to_have_value("label")
    first.select_option("not used")
    second.select_option("{text}")
    expect(first).to_have_value("")
    expect(page.locator("#report")).to_contain_text("Using all 4 rows")
    expect(page.locator("#preview .tp-pieces")).to_contain_text("two")
    second.select_option("not used")
    expect(page.locator("#report .problem")).to_contain_text("No column of the data is read for {text}")
    second.select_option("{text}")
    expect(page.locator("#report")).to_contain_text("Using all 4 rows")
    page.click("#report summary")
    expect(page.locator("#report .bar-row")).to_have_count(2)
    page.click("#start")
    page.wait_for_selector("#plot .live-plot")
    (run,) = service.runs.values()
    assert run.settings.columns == {"text": "b", "label": "verdict"}


def test_a_template_that_names_the_columns_mends_the_data_card(
    site: str, service: Any, new_page: NewPage, tmp_path: Path
) -> None:
    """Bug: the problem and the roles of the template before stayed on the card, though the preview was right."""
    data = tmp_path / "rows.csv"
    data.write_text("what,why\n" + "".join(f"a {i},because of {i} things\n" for i in range(60)), encoding="utf-8")
    page = new_page()
    page.goto(site)
    page.get_by_role("radio", name="Upload").check()
    page.locator("#file input[type=file]").set_input_files(data)
    expect(page.locator("#report .problem")).to_contain_text("no column was found for {label}")
    page.fill("#template textarea", "{what} [P*4] [ANSWER:why]")
    page.keyboard.press("Tab")
    expect(page.locator("#report")).to_contain_text("Using all 60 rows")
    expect(page.get_by_label("Column what is")).to_have_value("what")


def test_what_stands_in_the_box_is_what_is_trained_on(site: str, service: Any, new_page: NewPage) -> None:
    """Bug: rows that nobody had read stood in the box, and Start trained on the example or on the rows of before."""
    page = new_page()
    page.goto(site)
    report, start, box = page.locator("#report"), page.locator("#start"), page.locator("#pasted textarea")
    expect(report).to_contain_text("Using all")
    page.get_by_role("radio", name="Paste").check()
    expect(report).to_have_text(texts.NO_ROWS["Paste"])
    expect(start).to_be_disabled()

    pasted = "text,label\n" + "".join(f"text {i},{'yes' if i % 2 else 'no'}\n" for i in range(6))
    box.fill(pasted)
    expect(report).to_have_text(texts.NOT_READ["Paste"])
    expect(start).to_be_disabled()
    box.blur()
    expect(report).to_contain_text("Using all 6 rows")
    expect(start).to_be_enabled()

    box.press("End")
    box.press_sequentially("one more,yes")
    expect(report).to_have_text(texts.NOT_READ["Paste"])
    page.get_by_role("radio", name="Example").check()
    expect(report).to_contain_text("Using all 611 rows")
    page.get_by_role("radio", name="Paste").check()
    expect(report).to_contain_text("Using all 7 rows")
    start.click()
    page.wait_for_selector("#plot .live-plot")
    assert len(service.runs) == 1
