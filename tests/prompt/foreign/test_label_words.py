"""Verbalizers of OpenPrompt."""

from __future__ import annotations

import json

import pytest

from ptune_core.errors import TemplateError
from ptune_core.prompt.foreign.label_words import read_label_words


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({"no": ["bad"], "yes": "good"}, {"no": " bad", "yes": " good"}),
        ([["bad"], ["good"]], {"0": " bad", "1": " good"}),
        (["bad", "<!>good"], {"0": " bad", "1": "good"}),
        ([{"a": ["x"], "b": ["y"]}, {"a": ["z"], "b": ["y"]}], {"a": " x", "b": " y"}),
    ],
)
def test_json(value: object, expected: dict[str, str]) -> None:
    assert read_label_words(json.dumps(value), is_json=True) == (expected, [])


def test_text_has_a_line_for_each_label_and_an_empty_one_between_verbalizers() -> None:
    text = "bad,awful\ngood\n\n\nterrible\ngreat\n"
    answers, [note] = read_label_words(text, is_json=False)
    assert answers == {"0": " bad", "1": " good"} and "0 (1 more)" in note
    assert read_label_words(text, is_json=False, choice=1, prefix="") == ({"0": "terrible", "1": "great"}, [])


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('{"a": 1, "b": [], "c": [""], "d": [2]}', "'a'.*'b'.*'c'.*'d'"),
        ("[[]", "JSON"),
        ("[" * 100_000, "cannot be read"),
        ('"x"', "no verbalizer"),
        ("{}", "too few"),
        ('{"a": "x"}', "too few"),
        (json.dumps({str(number): "x" for number in range(2000)}), "too many"),
        ("[" + " " * (1 << 20), "too many"),
    ],
)
def test_what_is_no_verbalizer_is_told(text: str, told: str) -> None:
    with pytest.raises(TemplateError, match=f"(?s){told}"):
        read_label_words(text, is_json=True)


def test_a_verbalizer_that_is_not_there_is_told() -> None:
    with pytest.raises(TemplateError, match="0 to 0"):
        read_label_words("bad\ngood\n", is_json=False, choice=1)
