"""The Train tab's handlers, as plain functions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from ptune_core.ui.held import MAX_INPUT_COLUMNS, Held, answers_of
from ptune_core.ui.train_handlers import PLACEMENTS, TrainHandlers

NONE_CHOSEN = [""] * (MAX_INPUT_COLUMNS + 1)
TEMPLATE = "{text~} [P*8][ANSWER:label]"


@pytest.fixture
def handlers(service: Any) -> TrainHandlers:
    return TrainHandlers(service)


def write(tmp_path: Path, text: str) -> str:
    path = tmp_path / "rows.csv"
    path.write_text(text, encoding="utf-8")
    return str(path)


@pytest.fixture
def reviews(tmp_path: Path, handlers: TrainHandlers) -> str:
    """Token of 20 rows whose columns have names of their own."""
    rows = "".join(f"text number {i},{'good' if i % 2 else 'poor'},{i}\n" for i in range(20))
    token, _ = handlers.read_file(write(tmp_path, "review,verdict,stars\n" + rows))
    return token


def held(token: Any, answers: Any = None, **values: Any) -> Held:
    values = {"template": TEMPLATE, "base_model": "demo", **values}
    return Held(token, values, answers_of(answers), NONE_CHOSEN)


def test_columns_are_found_by_themselves_and_can_be_corrected(handlers: TrainHandlers, reviews: str) -> None:
    rows, *columns, report, answers, pieces = handlers.show_data(reviews, TEMPLATE, None, *NONE_CHOSEN)
    assert [column["value"] for column in columns if column["visible"]] == ["review", "verdict"]
    assert columns[0]["choices"] == ["review", "verdict", "stars"]
    assert "all 20 rows" in report
    assert answers["value"] == [["good", " good"], ["poor", " poor"]]
    assert ("text number 0", "column") in pieces

    corrected = ["review", "", "", "", "stars"]
    _, *columns, report, answers, _ = handlers.show_data(reviews, "{text} [P][HEAD:label]", None, *corrected)
    assert columns[-1]["value"] == "stars"
    assert not answers["visible"], "a classification head needs no answer words"


def test_answers_typed_by_hand_stay(handlers: TrainHandlers, reviews: str) -> None:
    typed = pd.DataFrame([["good", " yes"], ["other", " never"]], columns=["label", "answer words"])
    *_, answers, _ = handlers.show_data(reviews, TEMPLATE, typed, *NONE_CHOSEN)
    assert answers["value"] == [["good", " yes"], ["poor", " poor"]]


def test_two_input_columns_get_two_pickers(handlers: TrainHandlers, reviews: str) -> None:
    template = "{review} [P*3] {stars}[ANSWER:verdict]"
    _, *columns, _, _, _ = handlers.show_data(reviews, template, None, *NONE_CHOSEN)
    assert [column["value"] for column in columns if column["visible"]] == ["review", "stars", "verdict"]


def test_problems_of_a_file_are_numbered(handlers: TrainHandlers, tmp_path: Path) -> None:
    token, said = handlers.read_file(write(tmp_path, ""))
    assert token == "" and 'class="problem"' in said


def test_a_column_that_none_was_found_for_is_named_with_what_to_do(handlers: TrainHandlers) -> None:
    # The page told of a column '' that nobody had chosen, and not what to do.
    token, _ = handlers.read_pasted("hello\n")
    said = handlers.show_data(token, TEMPLATE, None, *NONE_CHOSEN)[6]
    assert "no column was found for {label}" in said and "Choose a data column" in said and "&#x27;&#x27;" not in said


def test_start_hands_over_what_the_form_says(handlers: TrainHandlers, service: Any, reviews: str) -> None:
    answers = pd.DataFrame([["good", " fine"], ["poor", " bad"]])
    run_id, _ = handlers.start("me", "key", held(reviews, answers=answers, max_steps=7, max_length=None, name=""))
    settings = service.runs[run_id].settings
    assert settings.columns == {"text": "review", "label": "verdict"}
    assert settings.labels == {"good": " fine", "poor": " bad"}
    assert (settings.max_steps, settings.max_length, settings.data) == (7, None, "rows.csv")
    again, _ = handlers.start("me", "key", held(reviews))
    assert again == run_id and len(service.runs) == 1


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"template": "{text} [P*2]"}, "target"),
        ({"learning_rate": 7.0}, "learning rate: "),
        ({"max_steps": -5}, "steps: "),
        ({"template": "{a} {b} {c} {d} [P][ANSWER:label]"}, "column"),
    ],
)
def test_what_cannot_start_says_why_under_the_button(
    handlers: TrainHandlers, service: Any, reviews: str, change: dict[str, Any], expected: str
) -> None:
    run_id, said = handlers.start("me", "key", held(reviews, **change))
    assert run_id is None and expected in said.lower() and 'class="problem"' in said
    assert not service.runs


def test_without_data_nothing_starts(handlers: TrainHandlers, service: Any) -> None:
    for token in ("", None, "../../etc", "0" * 32):
        run_id, said = handlers.start("me", "key", held(token))
        assert run_id is None and "data" in said
    assert not service.runs


def test_template_message_and_slider_follow_the_template(handlers: TrainHandlers, reviews: str) -> None:
    message, slider, pieces = handlers.check_template("{text} [P*2", reviews, *NONE_CHOSEN)
    assert message["visible"] and "^" in message["value"] and not slider["interactive"] and pieces == []
    message, slider, pieces = handlers.check_template("[P*5] {text}[ANSWER:label]", reviews, *NONE_CHOSEN)
    assert not message["visible"] and slider["value"] == 5 and ("P×5", "virtual tokens") in pieces
    _, slider, _ = handlers.check_template("[P*5] {text} [P*5][ANSWER:label]", reviews, *NONE_CHOSEN)
    assert not slider["interactive"], "one number cannot say the counts of two groups"


def test_slider_rewrites_the_only_group(handlers: TrainHandlers) -> None:
    assert handlers.write_count(12, TEMPLATE) == "{text~} [P*12][ANSWER:label]"


def test_a_model_for_classification_heads_brings_its_template(handlers: TrainHandlers) -> None:
    template, placement = handlers.suit_model("google-bert/bert-base-uncased", TEMPLATE)
    assert template == PLACEMENTS[placement] and "[HEAD:label]" in template
    kept, _ = handlers.suit_model("openai-community/gpt2", TEMPLATE)
    assert not isinstance(kept, str), "a template that suits the model is not replaced"
