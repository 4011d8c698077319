from __future__ import annotations

from collections.abc import Mapping, Sequence

import pytest

from ptune_core.data.examples import guess_columns, map_columns
from ptune_core.errors import DataError
from ptune_core.prompt.template import parse_template

SIMPLE = "{text} [P*4][ANSWER:label]"
PAIR = "{premise} [P*4] {hypothesis}? [P*4][ANSWER:label]"


@pytest.mark.parametrize(
    ("template", "columns", "expected"),
    [
        (SIMPLE, ["label", "text"], {"text": "text", "label": "label"}),
        (SIMPLE, ["ID", "Review ", "Sentiment"], {"text": "Review ", "label": "Sentiment"}),
        (SIMPLE, ["sentence", "text", "class"], {"text": "text", "label": "class"}),
        (SIMPLE, ["message", "sentence", "category"], {"text": "sentence", "label": "category"}),
        (
            PAIR,
            ["idx", "sentence1", "sentence2", "label"],
            {"premise": "sentence1", "hypothesis": "sentence2", "label": "label"},
        ),
        (PAIR, ["Premise", "HYPOTHESIS", "gold"], {"premise": "Premise", "hypothesis": "HYPOTHESIS", "label": "gold"}),
        (
            "{article} [P*4][ANSWER:summary]",
            ["document", "highlights"],
            {"article": "document", "summary": "highlights"},
        ),
        ("{question} [P*4][ANSWER:answer]", ["prompt", "response"], {"question": "prompt", "answer": "response"}),
        (SIMPLE, ["question", "answer"], {"text": "question", "label": "answer"}),
        (SIMPLE, ["instruction", "output"], {"text": "instruction", "label": "output"}),
        (SIMPLE, ["output", "input"], {"text": "input", "label": "output"}),
        (SIMPLE, ["answer", "text", "label"], {"text": "text", "label": "label"}),
        (SIMPLE, ["x", "y"], {}),
    ],
)
def test_columns_are_found_by_name(template: str, columns: Sequence[str], expected: Mapping[str, str]) -> None:
    assert guess_columns(columns, [], parse_template(template)) == expected


def rows(columns: Sequence[str], *cells: Sequence[str]) -> list[dict[str, str]]:
    return [dict(zip(columns, row, strict=True)) for row in cells]


def test_columns_are_found_by_content() -> None:
    columns = ["a", "b", "c"]
    content = rows(columns, *((f"{i}", f"a long text {i}", "yes" if i % 2 else "no") for i in range(10)))
    assert guess_columns(columns, content, parse_template(SIMPLE)) == {"text": "b", "label": "c"}


def test_the_text_is_found_though_the_label_is_not() -> None:
    columns = ["a", "b"]
    content = rows(columns, *((f"{i}", f"a long text {i}") for i in range(10)))
    assert guess_columns(columns, content, parse_template(SIMPLE)) == {"text": "b"}


def test_two_texts_are_not_told_apart_by_content() -> None:
    columns = ["a", "b", "label"]
    content = rows(columns, *((f"first {i}", f"second {i}", f"{i % 2}") for i in range(10)))
    assert guess_columns(columns, content, parse_template(PAIR)) == {"label": "label"}


def test_no_column_is_guessed_twice() -> None:
    guess = guess_columns(["text"], [{"text": "a"}], parse_template("{text} {sentence} [P*4][ANSWER:label]"))
    assert guess == {"text": "text"}


def test_what_is_chosen_goes_before_what_is_guessed() -> None:
    template = parse_template(SIMPLE)
    assert map_columns(["text", "body", "label"], template, {"text": "body"}) == {"text": "body", "label": "label"}
    # `text` is taken, so it is not guessed for {text}.
    assert map_columns(["text", "body"], template, {"label": "text"}) == {"text": "body", "label": "text"}


def test_one_column_may_be_chosen_twice() -> None:
    chosen = {"text": "x", "label": "x"}
    assert map_columns(["x", "y"], parse_template(SIMPLE), chosen) == chosen


def test_every_misfit_is_told_at_once() -> None:
    template = parse_template("{premise} {hypothesis} [P*4][ANSWER:label]")
    with pytest.raises(DataError) as error:
        map_columns(["a", "b", "c"], template, {"premise": "nope", "text": "a"})
    assert error.value.problems == (
        "the template has no column {text}; its columns are premise, hypothesis, label",
        "the data has no column 'nope', chosen for {premise}",
        "no column was found for {hypothesis}",
        "no column was found for {label}",
    )
    assert "a, b, c" in error.value.needed
