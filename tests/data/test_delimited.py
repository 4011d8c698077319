from __future__ import annotations

from collections.abc import Iterator

import pytest

from ptune_core.data.delimited import ALL_DELIMITERS, Dialect, Record, read_delimited, read_text, records
from ptune_core.data.rows import BadRow, Row, Source
from ptune_core.errors import DataError

LONGEST = 1000


def lines(text: str) -> Iterator[str]:
    return iter(text.splitlines(keepends=True))


def csv(text: str, delimiters: str = ALL_DELIMITERS) -> Source:
    return read_delimited(lines(text), delimiters, LONGEST)


def cells(source: Source) -> list[tuple[int, list[str]]]:
    return [(row.number, list(row.cells)) for row in source.rows if isinstance(row, Row)]


def bad(source: Source) -> list[tuple[int, str]]:
    return [(row.number, row.reason) for row in source.rows if isinstance(row, BadRow)]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_any_usual_delimiter_and_line_end(delimiter: str, end: str) -> None:
    table = [["text", "label"], ["good, really; yes", "1"], ["a | b\tc", "0"]]
    quoted = end.join(delimiter.join(f'"{cell}"' for cell in row) for row in table)
    source = csv(quoted)
    assert source.columns == ("text", "label")
    assert [row for _, row in cells(source)] == table[1:]


def test_a_row_has_the_number_of_the_line_it_starts_in() -> None:
    source = csv('text,label\n\n"two\nlines",1\n\n\nlast,0\n')
    assert cells(source) == [(3, ["two\nlines", "1"]), (7, ["last", "0"])]


def test_ragged_rows_are_told_by_line_and_the_others_kept() -> None:
    source = csv("text,label\na,1\nb\nc,0,x\nd,0\n")
    rows = list(source.rows)
    assert [row.number for row in rows if isinstance(row, Row)] == [2, 5]
    assert [row for row in rows if isinstance(row, BadRow)] == [
        BadRow(3, "wrong number of columns", '1 column found, 2 expected ("b", …)'),
        BadRow(4, "wrong number of columns", '3 columns found, 2 expected ("c", …)'),
    ]


def test_empty_cells_after_the_last_column_are_no_trouble() -> None:
    source = csv("text,label,,\na,1,,\nb,0\nc,1,,,,\n")
    assert source.columns == ("text", "label")
    assert [row for _, row in cells(source)] == [["a", "1"], ["b", "0"], ["c", "1"]]


def test_an_unclosed_quotation_costs_one_line_only() -> None:
    """Not the rest of the file, which `csv` and pandas read into one cell."""
    source = csv('text,label\na,1\n"never closed,0\nb,1\nc,0\nd,1\n')
    rows = list(source.rows)
    assert [row.number for row in rows if isinstance(row, Row)] == [2, 4, 5, 6]
    assert [row.number for row in rows if isinstance(row, BadRow)] == [3]


def test_a_quotation_mark_inside_a_quoted_cell_costs_one_line_only() -> None:
    source = csv('text,label\n"a ""b"" c",1\n"say "hi" now",0\n"d",1\n')
    assert bad(csv('text,label\n"a ""b"" c",1\n"say "hi" now",0\n"d",1\n')) == [(3, "broken quotation marks")]
    assert cells(source) == [(2, ['a "b" c', "1"]), (4, ["d", "1"])]


def test_a_cell_that_spans_lines_may_not_be_longer_than_the_limit() -> None:
    long = '"' + "word\n" * LONGEST + '",1\n'
    found = list(records(lines("a,b\n" + long + "c,d\n"), Dialect(","), LONGEST))
    assert found[0] == Record(1, ["a", "b"])
    assert "too long" in found[1].error
    assert found[-1].cells == ["c", "d"]


def test_thousands_of_broken_quotations_end_the_reading() -> None:
    """Each is looked for up to the longest cell: without an end this takes quadratic time."""
    with pytest.raises(DataError, match="More than 1000 lines"):
        list(csv("text,label\n" + "a,1\n" * 300 + '"x,0\n' * 1500).rows)


def test_backslashes_before_quotation_marks() -> None:
    source = csv('text,label\n"a \\"b\\" c",1\n"d \\"e\\", f",0\n')
    assert [row for _, row in cells(source)] == [['a "b" c', "1"], ['d "e", f', "0"]]


def test_a_space_before_a_quoted_cell() -> None:
    assert cells(csv('id, text\n1, "a, b"\n2, "c"\n')) == [(2, ["1", "a, b"]), (3, ["2", "c"])]


def test_tabs_with_loose_quotation_marks() -> None:
    source = csv('text\tlabel\n"Great" film\t1\n5" disk\t0\n"odd\t1\n', "\t")
    assert [row for _, row in cells(source)] == [['"Great" film', "1"], ['5" disk', "0"], ['"odd', "1"]]


def test_texts_with_commas_under_one_name_are_one_column() -> None:
    assert cells(csv("text\nGood, really\nBad, sadly\nNo, no, no\n")) == [
        (2, ["Good, really"]),
        (3, ["Bad, sadly"]),
        (4, ["No, no, no"]),
    ]


@pytest.mark.parametrize("first", ["a fine film\t1", "a bad film\t0"])
def test_without_names_the_first_line_is_a_row(first: str) -> None:
    """SST-2 and many others: a text, a tab and 0 or 1, no header."""
    source = csv(f"{first}\nlovely\t1\nawful\t0\nso so\t0\n", "\t")
    assert source.columns == ("text", "label")
    assert len(cells(source)) == 4
    assert "first row" in source.notes[0]


def test_label_words_in_the_first_line_are_seen_by_their_return() -> None:
    source = csv("positive,a fine film\nnegative,an awful one\npositive,lovely\n")
    assert source.columns == ("label", "text")
    assert len(cells(source)) == 3


def test_usual_names_are_names_even_if_they_return() -> None:
    assert csv("text,label\nlabel,text\ntext,label\n").columns == ("text", "label")


def test_column_names_are_one_line_and_differ() -> None:
    source = csv('"  a\n name ",__row__,a name,,a name\n1st,2nd,3rd,4th,5th\n')
    assert source.columns == ("a name", "__row__ (2)", "a name (2)", "column 4", "a name (3)")
    assert len(source.notes) == 3


@pytest.mark.parametrize("text", ["", "\n \n\t\n"])
def test_nothing(text: str) -> None:
    with pytest.raises(DataError, match="no rows"):
        csv(text)


def test_pasted_lines_are_texts() -> None:
    source = read_text(lines("Good, really.\n\nBad.\nSo, so, so.\n"), LONGEST)
    assert source.columns == ("text",)
    assert cells(source) == [(1, ["Good, really."]), (3, ["Bad."]), (4, ["So, so, so."])]


@pytest.mark.parametrize("delimiter", [",", "\t", ";"])
def test_pasted_lines_that_split_alike_are_a_table(delimiter: str) -> None:
    source = read_text(lines(f"fine{delimiter}1\nawful{delimiter}0\ngood{delimiter}1\n"), LONGEST)
    assert source.columns == ("text", "label")
    assert [row for _, row in cells(source)] == [["fine", "1"], ["awful", "0"], ["good", "1"]]


def test_pasted_lines_under_usual_names_are_a_table_with_bad_rows() -> None:
    source = read_text(lines("text,label\nfine,1\noops\nawful,0\n"), LONGEST)
    assert source.columns == ("text", "label")
    assert bad(source) == [(3, "wrong number of columns")]


def test_reading_goes_on_after_the_sample() -> None:
    source = csv("text,label\n" + "".join(f"text {i},{i % 2}\n" for i in range(5000)))
    assert cells(source)[-1] == (5001, ["text 4999", "1"])
