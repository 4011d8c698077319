"""Reading predictions: answers, confusion, what the adapter changes, and files that are not whole."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ptune_core.files import json_line
from ptune_core.runs.predictions import Predictions, changed_answers, read_predictions

HEADER = {
    "kind": "labels", "labels": ["bad", "good"], "columns": ["text"], "step": 30, "rows": 9, "kept": 3, "changed": 2,
}  # fmt: skip
ROWS = [
    {"row": 2, "input": {"text": "a"}, "gold": 0, "tuned": [0.9, 0.1], "base": [0.2, 0.8]},
    {"row": 5, "input": {"text": "b"}, "gold": 1, "tuned": [0.7, 0.3], "base": [0.4, 0.6]},
    {"row": 7, "input": {"text": "c"}, "gold": 1, "tuned": [0.25, 0.75], "base": [0.1, 0.9]},
]


def write(path: Path, *lines: dict[str, Any]) -> Path:
    path.write_bytes(b"".join(map(json_line, lines)))
    return path


def read(path: Path) -> Predictions:
    found = read_predictions(path)
    assert found is not None
    return found


def test_labels_are_named_and_counted(tmp_path: Path) -> None:
    path = write(tmp_path / "p.jsonl", HEADER, *ROWS)
    found = read(path)
    assert [(row.gold, row.predicted, row.p, row.base) for row in found.rows] == [
        ("bad", "bad", 0.9, "good"), ("good", "bad", 0.7, "good"), ("good", "good", 0.75, "good"),
    ]  # fmt: skip
    assert found.rows[1].p_gold == 0.3 and not found.rows[1].is_right
    assert found.confusion == [[1, 0], [1, 1]]
    bad, good = found.scores
    assert (bad.count, bad.precision, bad.recall) == (1, 0.5, 1.0) and good.f1 == pytest.approx(2 / 3)
    tenths = [None if of is None else (of.count, of.right) for of in found.reliability]
    assert tenths == [None] * 7 + [(2, 0.5), None, (1, 1.0)]
    assert changed_answers(path) == (2, 3)


def test_a_base_model_without_an_answer_proves_nothing(tmp_path: Path) -> None:
    path = write(tmp_path / "p.jsonl", HEADER | {"changed": None}, *(row | {"base": None} for row in ROWS))
    assert changed_answers(path) is None and read(path).rows[0].base is None


def test_texts_stand_beside_their_targets(tmp_path: Path) -> None:
    header = HEADER | {"kind": "text", "labels": None, "changed": None}
    line = {"row": 2, "input": {"text": "a"}, "gold": "one", "tuned": "one", "p": None, "base": None, "base_p": None}
    (row,) = read(write(tmp_path / "p.jsonl", header, line)).rows
    assert (row.gold, row.predicted, row.is_right, row.p) == ("one", "one", True, None)


@pytest.mark.parametrize("content", [b"", b"{", b"[]\n", b'{"labels": ["a"]}\n', json_line(HEADER) + b'{"row": 1}\n'])
def test_a_damaged_file_is_no_predictions(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "p.jsonl"
    assert read_predictions(path) is None and changed_answers(path) is None
    path.write_bytes(content)
    assert read_predictions(path) is None


def test_a_file_that_was_replaced_is_read_again(tmp_path: Path) -> None:
    path = write(tmp_path / "p.jsonl", HEADER, *ROWS)
    assert len(read(path).rows) == 3
    write(path, HEADER, *ROWS[:1])
    assert len(read(path).rows) == 1
