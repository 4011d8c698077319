"""The rows that stand for all."""

from __future__ import annotations

from ptune_core.app.data_report import varied_rows


def test_every_label_is_among_the_first_rows() -> None:
    # The example's first eight rows are positive: its preview looked as if there were one label.
    rows = [{"text": str(i), "label": label} for i, label in enumerate("aaaaabbc")]
    assert [row["text"] for row in varied_rows(rows, "label", 5)] == ["0", "5", "7", "1", "6"]


def test_few_rows_and_a_missing_column_are_no_trouble() -> None:
    rows = [{"text": "x"}, {"text": "y"}]
    assert varied_rows(rows, "label", 5) == rows and varied_rows([], "label", 5) == []
