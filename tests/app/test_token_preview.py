"""What the page asks of a base model's tokenizer, without a browser and, but for one test, without a tokenizer."""

from __future__ import annotations

from typing import Any

import pytest

from ptune_core.app.token_preview import Lengths, look_at_row, measure_rows, question_of
from ptune_core.errors import DataError, PTuneError
from ptune_core.inference.look import Outlines
from ptune_core.ui.train.data_view import lengths_html

TEMPLATE = "{text~} [P*8][ANSWER:label]"
ROWS = "text,label\nthe film was great,positive\na waste of time,negative\n"
LABELS = {"negative": " terrible", "positive": " great"}


@pytest.fixture
def token(service: Any) -> str:
    return str(service.uploads.add_text(ROWS))


def question(token: str, template: str = TEMPLATE, model: tuple[str, ...] = ("demo", "", ""), **more: Any) -> Any:
    return {**question_of(token, template, {"text": "text", "label": "label"}, LABELS, model), **more}


def test_without_a_tokenizer_the_row_is_shown_as_it_is(service: Any, token: str) -> None:
    shown = look_at_row(service, question(token, row=1))
    assert (shown["row"], shown["rows"], shown["can_fetch"]) == (1, 2, True)
    assert shown["plain"] == [("a waste of time", "column"), ("P×8", "virtual"), ("negative", "target")]
    assert "not on this machine yet" in shown["error"] and "pieces" not in shown


def test_with_one_it_is_shown_token_by_token(service: Any, token: str) -> None:
    service.outlines = Outlines()
    shown = look_at_row(service, question(token, row=0))
    assert "".join(piece["text"] for piece in shown["pieces"] if piece["kind"] == "text") == "the film was great"
    assert shown["pieces"][-1] == {"text": " great", "kind": "target"}
    assert [answer["label"] for answer in shown["answers"]] == ["negative", "positive"]
    assert shown["num_reused"] == shown["length"] - 8
    short = look_at_row(service, question(token, model=("demo", "", "10")))
    assert short["max_length"] == 10 and short["num_cut"] > 0
    wrong = look_at_row(service, question(token, template="{text} [P] [MASK:label]"))
    assert "not trained to fill masks" in wrong["error"] and not wrong["can_fetch"] and wrong["plain"]


def test_any_row_number_leads_to_a_row(service: Any, token: str) -> None:
    for row in (-5, 99, "1", None, 1e9, True):
        assert 0 <= look_at_row(service, question(token, row=row))["row"] <= 1


def test_what_is_not_there_is_a_sentence(service: Any, token: str) -> None:
    asked = question(token)
    changes: list[dict[str, Any]] = [{"token": text} for text in ("../../etc", None, "0" * 32)]
    changes += [{"template": 3}, {"template": "no target"}, {"columns": "text"}]
    for change in changes:
        with pytest.raises(PTuneError):
            look_at_row(service, asked | change)


def test_nonsense_in_the_other_fields_is_a_sentence_beside_the_row(service: Any, token: str) -> None:
    service.outlines = Outlines()
    for change in ({"labels": ["x"]}, {"max_length": 10**12}, {"base_model": "x" * 500}, {"columns": {"text": 7}}):
        shown = look_at_row(service, question(token, **change))
        assert shown["rows"] == 2 and ("error" in shown or "pieces" in shown)


def test_lengths_are_tokens_with_a_tokenizer_and_words_without(service: Any, token: str) -> None:
    words = measure_rows(service, question(token))
    assert (words.unit, words.lengths, words.cut) == ("words", (4, 4), None)
    service.outlines = Outlines()
    tokens = measure_rows(service, question(token, model=("demo", "", "11")))
    assert tokens.unit == "tokens" and tokens.cut and tokens.max_length == 11 and max(tokens.lengths) == 11


def test_the_histogram_has_every_row_once() -> None:
    found = Lengths("tokens", (3, 3, 4, 90, 41), 12_000, cut=1, max_length=90)
    bars = found.bars()
    assert sum(count for _, _, count in bars) == 5 and bars[0][0] == 3 and bars[-1][1] >= 90 and len(bars) <= 17
    drawn = lengths_html(found)
    assert "3 to 90 tokens" in drawn and "20% of them are cut at 90" in drawn and "5 of 12,000 rows" in drawn
    assert "None is cut" in lengths_html(Lengths("tokens", (3,), 1, cut=0, max_length=512))
    assert "once the base model" in lengths_html(Lengths("words", (3,), 1))


def test_a_question_without_anything_is_a_sentence(service: Any, token: str) -> None:
    with pytest.raises(DataError, match="nothing that there is"):
        look_at_row(service, {})
