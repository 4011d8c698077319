"""Labelling a file: what stands in the output, held against what a stand-in classifier said."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from ptune_core.errors import AdapterError, DataError, InferenceError
from ptune_core.inference.batch import (
    ROWS_PER_REQUEST,
    InProcess,
    Progress,
    classify_file,
    escape_formula,
    label_file,
)
from ptune_core.inference.client import InferenceClient
from ptune_core.inference.protocol import Classification, Description
from ptune_core.model.device import BaseWeights

ADAPTER = Path("adapter")


class ByLength:
    """Says `long` with probability len / 100 of the filled columns together; fails at the text `fail`."""

    def __init__(self, columns: Sequence[str] = ("text",), data_columns: Mapping[str, str] | None = None) -> None:
        self.columns, self.data_columns = list(columns), dict(data_columns or {})
        self.task = "classify"
        self.requests: list[int] = []

    def describe(self, adapter: Path) -> Description:
        return {
            "task": self.task, "columns": self.columns, "data_columns": self.data_columns, "labels": ["short", "long"],
            "target": "label", "template": "", "base_model": "", "revision": None, "base_weights": BaseWeights.FROZEN,
            "num_virtual_tokens": 1, "is_chat": False,
        }  # fmt: skip

    def classify(self, adapter: Path, rows: Sequence[Mapping[str, str]], *, compare: bool = True) -> Classification:
        assert not compare, "nobody sees the base model's answer here"
        self.requests.append(len(rows))
        if any("fail" in row.values() for row in rows):
            raise InferenceError("The inference process ended")
        p = [min(1.0, sum(map(len, row.values())) / 100) for row in rows]
        return {"labels": ["short", "long"], "tuned": [[1 - x, x] for x in p], "base": None, "note": ""}


def read(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def write_csv(path: Path, *rows: Sequence[str]) -> Path:
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows(rows)
    return path


def test_the_inputs_columns_the_label_and_each_probability(tmp_path: Path) -> None:
    texts = ["a" * length for length in range(1, 2 * ROWS_PER_REQUEST)]
    source = write_csv(tmp_path / "in.csv", ["id", "text"], *[[f"n{len(text)}", text] for text in texts])
    classifier = ByLength()
    report = classify_file(ADAPTER, source, tmp_path / "out.csv", classifier=classifier)
    rows = read(tmp_path / "out.csv")
    assert list(rows[0]) == ["id", "text", "label", "p_short", "p_long"]
    assert [row["text"] for row in rows] == texts
    assert [float(row["p_long"]) for row in rows] == [min(1.0, len(text) / 100) for text in texts]
    assert [row["label"] for row in rows] == ["long" if len(text) > 50 else "short" for text in texts]
    assert report.labels == {"short": 50, "long": len(texts) - 50}
    assert max(classifier.requests) <= ROWS_PER_REQUEST


def test_columns_of_the_same_names_are_kept_under_another(tmp_path: Path) -> None:
    source = write_csv(tmp_path / "in.csv", ["text", "label", "input_label", "p_long"], ["abc", "gold", "x", "y"])
    classify_file(ADAPTER, source, tmp_path / "out.csv", classifier=ByLength())
    (row,) = read(tmp_path / "out.csv")
    assert row["label"] == "short" and row["p_long"] == "0.030000"
    assert {row["input_label"], row["input_input_label"], row["input_p_long"]} == {"gold", "x", "y"}


def test_rows_without_text_keep_their_place_and_get_no_label(tmp_path: Path) -> None:
    source = write_csv(tmp_path / "in.csv", ["id", "text"], ["1", "abc"], ["2", "  "], ["3", "NA"])
    report = classify_file(ADAPTER, source, tmp_path / "out.csv", classifier=ByLength())
    assert [(row["id"], row["label"], row["p_short"]) for row in read(tmp_path / "out.csv")] == [
        ("1", "short", "0.970000"), ("2", "", ""), ("3", "short", "0.980000"),
    ]  # fmt: skip
    assert report.blank == 1 and "1 rows without text" in str(report)


@pytest.mark.parametrize(
    ("cell", "written"),
    [
        ("=HYPERLINK(A1)", "'=HYPERLINK(A1)"),
        ("@SUM(A1)", "'@SUM(A1)"),
        ("+cmd|' /C calc'!A0", "'+cmd|' /C calc'!A0"),
        ("- a dash starts this", "'- a dash starts this"),
        ("-2+3+cmd", "'-2+3+cmd"),
        ("\t=1", "'\t=1"),
        ("-3.5", "-3.5"),
        ("+1,000.25", "+1,000.25"),
        ("-1e-05", "-1e-05"),
        ("plain = text", "plain = text"),
        ("", ""),
    ],
)
def test_no_cell_is_run_by_a_spreadsheet_and_numbers_stay(cell: str, written: str) -> None:
    assert escape_formula(cell) == written


def test_formulas_in_names_and_rows_are_disarmed_in_the_file(tmp_path: Path) -> None:
    source = write_csv(tmp_path / "in.csv", ["=A1", "text"], ["@x", "=1+1"])
    classify_file(ADAPTER, source, tmp_path / "out.csv", classifier=ByLength())
    (row,) = read(tmp_path / "out.csv")
    assert row["'=A1"] == "'@x" and row["text"] == "'=1+1"
    assert row["p_long"] == "0.040000", "the model sees the text as it is"


def test_columns_are_found_as_chosen_as_trained_as_named_or_alone(tmp_path: Path) -> None:
    source = write_csv(tmp_path / "in.csv", ["headline", "text", "other"], ["a" * 10, "a" * 20, "a" * 30])

    def p_long(classifier: ByLength, **options: object) -> float:
        classify_file(ADAPTER, source, tmp_path / "out.csv", classifier=classifier, **options)
        return float(read(tmp_path / "out.csv")[0]["p_long"])

    assert p_long(ByLength()) == 0.2
    assert p_long(ByLength(data_columns={"text": "headline"})) == 0.1
    assert p_long(ByLength(data_columns={"text": "gone"})) == 0.2
    assert p_long(ByLength(data_columns={"text": "headline"}), columns={"text": "other"}) == 0.3
    assert p_long(ByLength(columns=["text", "other"])) == 0.5
    source.write_text("comment\nabcde\n")
    assert p_long(ByLength()) == 0.05


def test_columns_that_cannot_be_filled_are_all_named_and_nothing_is_written(tmp_path: Path) -> None:
    source = write_csv(tmp_path / "in.csv", ["a", "b"], ["1", "2"])
    with pytest.raises(DataError) as raised:
        classify_file(
            ADAPTER,
            source,
            tmp_path / "out.csv",
            classifier=ByLength(columns=["text", "question"]),
            columns={"text": "c", "nothing": "a"},
        )
    assert raised.value.problems == (
        "there is no column 'c'", "the template has no column {nothing}", "no column for {question}",
    )  # fmt: skip
    assert not (tmp_path / "out.csv").exists()


def test_a_failure_leaves_the_old_output_as_it_was(tmp_path: Path) -> None:
    source = write_csv(tmp_path / "in.csv", ["text"], *[["abc"]] * ROWS_PER_REQUEST, ["fail"])
    (tmp_path / "out.csv").write_text("old")
    with pytest.raises(InferenceError):
        classify_file(ADAPTER, source, tmp_path / "out.csv", classifier=ByLength())
    assert (tmp_path / "out.csv").read_text() == "old"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.csv", "out.csv"]


def test_an_output_that_cannot_be_written_is_said_so(tmp_path: Path) -> None:
    source = write_csv(tmp_path / "in.csv", ["text"], ["abc"])
    with pytest.raises(DataError, match="cannot be written.*No such file"):
        classify_file(ADAPTER, source, tmp_path / "no" / "out.csv", classifier=ByLength())


def test_an_adapter_that_writes_text_has_no_labels_to_give(tmp_path: Path) -> None:
    classifier = ByLength()
    classifier.task = "generate"
    with pytest.raises(AdapterError, match="no labels to choose from"):
        classify_file(ADAPTER, tmp_path / "in.csv", tmp_path / "out.csv", classifier=classifier)


def test_this_process_and_the_inference_process_say_the_same(tiny_gpt2: Path, tmp_path: Path, make_adapter) -> None:
    """The real thing from file to file, both ways; and what the client says when the adapter is wrong."""
    labels = {"negative": " bad", "positive": " good"}
    adapter = make_adapter(tiny_gpt2, "{text~} [P*4][ANSWER:label]", labels=labels)
    source = write_csv(tmp_path / "in.csv", ["text"], ["the film was great"], ["a boring waste of time"])
    classify_file(adapter, source, tmp_path / "here.csv", classifier=InProcess())
    with InferenceClient(tmp_path / "log", tmp_path) as client:
        classify_file(adapter, source, tmp_path / "there.csv", classifier=client)
        with pytest.raises(AdapterError, match="There is no adapter at .*nothing"):
            client.describe(tmp_path / "nothing")
        with pytest.raises(DataError, match="row 1: no text"):
            client.classify(adapter, [{}])
    here, there = read(tmp_path / "here.csv"), read(tmp_path / "there.csv")
    assert list(here[0]) == ["text", "label", "p_negative", "p_positive"]
    for one, other in zip(here, there, strict=True):
        assert float(one["p_positive"]) == pytest.approx(float(other["p_positive"]), abs=1e-4)
        assert float(one["p_positive"]) + float(one["p_negative"]) == pytest.approx(1, abs=1e-4)


def test_labels_that_are_there_are_compared(tmp_path: Path) -> None:
    source = write_csv(
        tmp_path / "in.csv", ["text", "label"], ["a", "short"], ["b" * 99, "short"], ["c", "odd"], ["", "short"]
    )
    report = classify_file(ADAPTER, source, tmp_path / "out.csv", classifier=ByLength())
    assert (report.known, report.right, report.blank) == (2, 1, 1)
    assert report.head[0] == ("text", "input_label", "label", "p_short", "p_long") and len(report.head) == 5
    assert "1 of 2 rows that bring a label: 0.500" in str(report)


def test_progress_is_told_and_a_file_given_up_leaves_nothing(tmp_path: Path) -> None:
    source = write_csv(tmp_path / "in.csv", ["text"], *[["a"]] * (ROWS_PER_REQUEST + 1))
    total, output = ROWS_PER_REQUEST + 1, tmp_path / "out" / "out.csv"
    output.parent.mkdir()
    labelling = label_file(ADAPTER, source, output, classifier=ByLength())
    assert list(labelling) == [Progress(done, total) for done in (0, ROWS_PER_REQUEST, total)] and output.exists()
    output.unlink()
    labelling = label_file(ADAPTER, source, output, classifier=ByLength())
    assert [next(labelling).done, next(labelling).done] == [0, ROWS_PER_REQUEST]
    labelling.close()
    assert list(output.parent.iterdir()) == []
