"""Each data set in the forms in which it is passed around -> the columns of the template."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ptune_core.data.ingest import ingest
from ptune_core.data.table import read_rows
from ptune_core.errors import DataError
from ptune_core.recipes.rows import LONGEST_SOLUTION, Split, adapt


def adapted(adapter: str, rows: list[dict[str, Any]], folder: Path, split: Split = Split.TEST) -> list[dict[str, str]]:
    """What becomes of JSON rows on the way every recipe takes."""
    file = folder / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    table = ingest(file, folder / "table")
    return list(adapt(adapter, read_rows(table, table.columns), split, "rows.jsonl"))


PLAIN = [
    ("lama", {"sub_label": "Paris", "obj_label": "France", "uuid": "x"}, {"sub_label": "Paris", "obj_label": "France"}),
    (
        "boolq",
        {"question": "is it", "passage": "It is.", "idx": 1, "label": True},
        {"question": "is it", "passage": "It is.", "label": "true"},
    ),
    (
        "boolq",
        {"question": "is it", "passage": "No.", "idx": 1, "label": 0},
        {"question": "is it", "passage": "No.", "label": "false"},
    ),
    (
        "cb",
        {"premise": "a", "hypothesis": "b", "label": 2, "idx": 0},
        {"premise": "a", "hypothesis": "b", "label": "neutral"},
    ),
    (
        "rte",
        {"premise": "a", "hypothesis": "b", "label": "not_entailment", "idx": 0},
        {"premise": "a", "hypothesis": "b", "label": "not_entailment"},
    ),
    (
        "wic",
        {"word": "wash", "sentence1": "a", "sentence2": "b", "idx": 1, "label": False, "start1": 3},
        {"word": "wash", "sentence1": "a", "sentence2": "b", "label": "false"},
    ),
    ("sst2", {"sentence": "fine", "label": 1, "idx": 0}, {"text": "fine", "label": "positive"}),
    ("sst2", {"text": "bad", "label": "negative"}, {"text": "bad", "label": "negative"}),
    ("ag_news", {"text": "a", "label": 3}, {"text": "a", "label": "Sci/Tech"}),
    ("ag_news", {"column 1": "2", "column 2": "T", "column 3": "D"}, {"text": "T. D", "label": "Sports"}),
    (
        "gsm8k",
        {"question": "1 + 1?", "answer": "It is <<1+1=2>>2.\n#### 2"},
        {"question": "1 + 1?", "answer": "It is <<1+1=2>>2.\nThe answer is: 2"},
    ),
    (
        "gsm8k",
        {"query": "q", "response": "The answer is: 7", "type": "x"},
        {"question": "q", "answer": "The answer is: 7"},
    ),
]


@pytest.mark.parametrize(("adapter", "raw", "expected"), PLAIN)
def test_a_row(adapter: str, raw: dict[str, Any], expected: dict[str, str], tmp_path: Path) -> None:
    assert adapted(adapter, [raw], tmp_path) == [expected]


def test_copa_trains_on_both_orders(tmp_path: Path) -> None:
    raw = {"premise": "It fell.", "choice1": "A.", "choice2": "B.", "question": "effect", "label": 1, "idx": 0}
    made = {"premise": "It fell.", "link": "so", "choice1": "A.", "choice2": "B.", "label": "1"}
    assert adapted("copa", [raw], tmp_path) == [made]
    mirrored = made | {"choice1": "B.", "choice2": "A.", "label": "0"}
    assert adapted("copa", [raw], tmp_path, Split.TRAIN) == [made, mirrored]


def test_multirc_is_one_row_for_each_answer(tmp_path: Path) -> None:
    answers = [{"text": "yes", "label": 1, "idx": 0}, {"text": "no", "label": 0, "idx": 1}]
    questions = [{"question": "q1?", "answers": answers}, {"question": "q2?", "answers": answers[:1]}]
    raw = {"idx": 5, "passage": {"text": "p", "questions": questions}}
    expected = [("q1?", "yes", "true", "0-0"), ("q1?", "no", "false", "0-0"), ("q2?", "yes", "true", "0-1")]
    names = ("question", "answer", "label", "group")
    assert adapted("multirc", [raw], tmp_path) == [
        {"passage": "p", **dict(zip(names, values, strict=True))} for values in expected
    ]
    place = {"paragraph": 3, "question": 4, "answer": 0}
    flat = {"paragraph": "p", "question": "q1?", "answer": "yes", "idx": place, "label": 1}
    [row] = adapted("multirc", [flat], tmp_path)
    assert row == {"passage": "p", "question": "q1?", "answer": "yes", "label": "true", "group": "3-4"}


def test_wsc_trains_on_right_spans_alone(tmp_path: Path) -> None:
    target = {"span2_index": 4, "span1_index": 0, "span1_text": "Ann", "span2_text": "she"}
    raws = [
        {"text": "Ann told Bea that she won.", "target": target, "idx": 0, "label": right} for right in (True, False)
    ]
    right = {"text": "Ann told Bea that *she* won.", "pronoun": "she", "span": "Ann", "label": "true"}
    assert adapted("wsc", raws, tmp_path, Split.TRAIN) == [right]
    assert adapted("wsc", raws, tmp_path) == [right, right | {"label": "false"}]
    flat = {"text": raws[0]["text"], **target, "idx": 0, "label": 1}
    assert adapted("wsc", [flat | {"span2_index": 3}], tmp_path) == [right], "the data is off by one at times"


def test_long_solutions_are_left_out_of_training_alone(tmp_path: Path) -> None:
    raws = [{"query": "q", "response": "r" * length} for length in (LONGEST_SOLUTION - 2, LONGEST_SOLUTION - 1)]
    assert len(adapted("gsm8k", raws, tmp_path, Split.TRAIN)) == 1
    assert len(adapted("gsm8k", raws, tmp_path)) == 2


@pytest.mark.parametrize(
    ("adapter", "raw"), [("cb", {"premise": "a", "hypothesis": "b", "label": 7}), ("boolq", {"text": "a", "label": 1})]
)
def test_another_form_is_told(adapter: str, raw: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"rows.jsonl is not in a form that the adapter"):
        adapted(adapter, [raw], tmp_path)
