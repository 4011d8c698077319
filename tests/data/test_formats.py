"""Each format, encoding and kind of bad row, read in this process."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from datetime import date
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from openpyxl import Workbook

from ptune_core.data.ingest_child import MAX_PROBLEMS
from ptune_core.data.limits import Limits
from ptune_core.data.table import Table, numbered_rows, read_rows
from ptune_core.errors import DataError

Read = Callable[..., Table]


def rows(table: Table) -> list[tuple[str, ...]]:
    return [tuple(row.values()) for row in read_rows(table, table.columns)]


def numbers(table: Table) -> list[int]:
    return [number for number, _ in numbered_rows(table, [])]


def xlsx(path: Path, *sheets: list[list[object]]) -> bytes:
    book = Workbook()
    for index, content in enumerate(sheets):
        sheet = book.active if index == 0 else book.create_sheet()
        assert sheet is not None
        for line in content:
            sheet.append(line)
    book.save(path)
    return path.read_bytes()


# --- rows that are left out


def test_a_broken_header_is_told_with_all_its_rows(read: Read) -> None:
    with pytest.raises(DataError, match="Most rows of a.csv cannot be read") as error:
        read("a.csv", "Exported on Monday\n" + "a,b,c\n" * 200)
    assert len(error.value.problems) == MAX_PROBLEMS + 1
    assert error.value.problems[0] == 'Line 2: 3 columns found, 1 expected ("a", …)'
    assert error.value.problems[-1] == "… and 150 more rows like these"
    assert "1. Line 2: 3 columns" in str(error.value)


def test_dropped_rows_are_all_counted_though_not_all_told(read: Read) -> None:
    table = read("a.csv", "text,label\n" + "a,1\nb\n" * 100 + "c,0\n")
    assert table.dropped == {"wrong number of columns": list(range(3, 202, 2))}
    assert len(table.problems) == MAX_PROBLEMS + 1


@pytest.mark.parametrize(
    ("cell", "reason"),
    [('"' + "x" * 101 + '"', "cell too long"), ('"\\u0000"', "NUL character"), ('"\\ud800"', "half a character")],
)
def test_cells_that_cannot_be_stored(read: Read, cell: str, reason: str) -> None:
    table = read("a.json", f'[{{"text": "a"}}, {{"text": {cell}}}, {{"text": "😀"}}]', Limits(max_cell_chars=100))
    assert rows(table) == [("a",), ("😀",)]
    assert table.dropped == {reason: [2]}


# --- encodings


@pytest.mark.parametrize(
    ("encoding", "note"),
    [
        ("utf-8", None),
        ("utf-8-sig", None),
        ("utf-16", "UTF-16"),
        ("utf-16-le", "UTF-16-LE"),
        ("utf-16-be", "UTF-16-BE"),
        ("utf-32", "UTF-32"),
        ("cp1252", "byte 0xE9 at position 14, line 2); read as Windows-1252. Check the preview."),
    ],
)
@pytest.mark.parametrize("name", ["a.csv", "a.txt"])
def test_encodings(read: Read, encoding: str, note: str | None, name: str) -> None:
    table = read(name, "text,label\ncafé “là”,1\nplain,0\n".encode(encoding))
    assert table.columns == ("text", "label")
    assert rows(table) == [("café “là”", "1"), ("plain", "0")]
    assert note is None or note in table.notes[0]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"text,label\na\0,1\n", "NUL in line 2"),
        ("текст,метка\nотличный фильм,да\n".encode("cp1251"), "unknown encoding"),
        ("文章,ラベル\n素晴らしい映画,良い\n".encode("shift_jis"), "unknown encoding"),
        (b"text,label\n" + "café,1\n".encode() * 50 + b"caf\xe9,0\n", "byte 0xE9 at position 414, line 52"),
        ("text,label\ncafé,1\n".encode("utf-16")[:-1], "truncated"),
        ("text\na\0b\n".encode("utf-16"), "NUL in line 2"),
        (b"text\nna\xefve \x81\n", "near line 2"),
    ],
)
def test_what_decodes_as_nothing_is_refused(read: Read, content: bytes, message: str) -> None:
    with pytest.raises(DataError) as error:
        read("a.csv", content)
    assert message in error.value.got


def test_a_character_across_two_chunks_is_no_damage(read: Read) -> None:
    """The file is looked through in pieces of a mebibyte; one character ends in the next piece."""
    head = b"text\n"
    text = "x" * (2**20 - len(head) - 1) + "é" + "\n"
    table = read("a.csv", head + text.encode(), Limits(max_cell_chars=2**21))
    assert table.notes == () or table.notes == ("Every line is one text.",)
    assert rows(table)[0][0].endswith("xé")


# --- JSON


@pytest.mark.parametrize(
    "content",
    [
        '[{"text": "a", "label": 1}, {"text": "b", "label": 0}]',
        '{"text": "a", "label": 1}\n\n{"text": "b", "label": 0}\n',
        '{"data": [{"text": "a", "label": 1}, {"text": "b", "label": 0}], "version": 2}',
        '{"text": ["a", "b"], "label": [1, 0]}',
        '{"text": {"0": "a", "1": "b"}, "label": {"0": 1, "1": 0}}',
    ],
)
def test_shapes_of_json(read: Read, content: str) -> None:
    table = read("a.json", content)
    assert table.columns == ("text", "label")
    assert rows(table) == [("a", "1"), ("b", "0")]


def test_json_values_become_text(read: Read) -> None:
    values = '"NA", 1, 1.0, 1e5, 0.10, true, null, NaN, [1, {"a": 2.50}], "null"'.split(", ")
    values[8:10] = ['[1, {"a": 2.50}]']
    table = read("a.jsonl", "\n".join(f'{{"text": {value}, "id": 1}}' for value in values))
    expected = ["NA", "1", "1.0", "1e5", "0.10", "true", "", "", '[1, {"a": 2.50}]', "null"]
    assert [row[0] for row in rows(table)] == expected
    assert table.notes == ("Column 'text' holds nested values; they are read as JSON text.",)


def test_a_number_of_200_000_digits_is_only_a_long_cell(read: Read) -> None:
    """`int` refuses more than 4300 digits, and took minutes before it did."""
    table = read("a.json", f'[{{"text": {"9" * 200_000}}}, {{"text": {"9" * 5000}}}]')
    assert table.dropped == {"cell too long": [1]}
    assert rows(table) == [("9" * 5000,)]


def test_columns_of_all_objects_are_read(read: Read) -> None:
    table = read("a.jsonl", '{"a": 1}\n{"b": 2}\n')
    assert table.columns == ("a", "b")
    assert rows(table) == [("1", ""), ("", "2")]


def test_broken_lines_of_jsonl_are_told(read: Read) -> None:
    lines = ['{"a": 1}', '{"a": ', '{"a": 2}', "[1]", '{"a": 3}', '{"a": 1, "a": 2}', '{"a": 4}']
    table = read("a.jsonl", "\n".join(lines))
    assert [row[0] for row in rows(table)] == ["1", "2", "3", "4"]
    assert numbers(table) == [1, 3, 5, 7]
    assert table.dropped == {"not valid JSON": [2, 6], "not a JSON object": [4]}
    assert table.problems[0].startswith("Line 2: Expecting value")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("5", "holds no rows"),
        ("null", "holds no rows"),
        ("[]", "has no rows"),
        ("{}", "has no columns"),
        ("[1, 2]", "Most rows"),
        ('[["text"], ["a"]]', "Most rows"),
        ('[{"a": 1}, {"a": ', "not valid JSON. Got: row 2"),
        ('[{"a": 1} {"a": 2}]', "not valid JSON. Got: row 1: Expecting ',' or ']'"),
        ('[{"a": 1}] x', "Extra data"),
        ('[{"a": 1, "a": 2}]', 'the key "a" stands there twice'),
        ('{"a": [1, 2], "b": [1]}', "different lengths"),
        ('{"a": {"b": {"c": 1}}, "d": 1}', "holds no table"),
        ("text,label\na,1\n", "not valid JSON"),
    ],
)
def test_json_of_other_shapes(read: Read, content: str, message: str) -> None:
    with pytest.raises(DataError) as error:
        read("a.json", content)
    assert message in str(error.value)


# --- Parquet and XLSX


def test_parquet_values_become_text(read: Read, tmp_path: Path) -> None:
    columns = {
        "text": ["NA", None],
        "int": [1, None],
        "float": [1.0, 0.5],
        "bool": [True, None],
        "date": [date(2024, 1, 2), None],
        "list": [["a", 1.5 and "b"], None],
        "picture": [b"\x89PNG", None],
    }
    pq.write_table(pa.table(columns), tmp_path / "source")
    table = read("a.parquet", (tmp_path / "source").read_bytes())
    assert table.columns == ("text", "int", "float", "bool", "date", "list")
    assert rows(table) == [("NA", "1", "1.0", "true", "2024-01-02", '["a", "b"]'), ("", "", "0.5", "", "", "")]
    assert any("'picture' holds binary data" in note for note in table.notes)


def test_class_names_of_a_hub_file_are_the_labels(read: Read, tmp_path: Path) -> None:
    features = {"label": {"names": ["World", "Sports"], "_type": "ClassLabel"}, "text": {"_type": "Value"}}
    metadata = {"huggingface": json.dumps({"info": {"features": features}})}
    content = pa.table({"text": ["a", "b", "c"], "label": [1, 0, -1]}).replace_schema_metadata(metadata)
    pq.write_table(content, tmp_path / "source")
    table = read("a.parquet", (tmp_path / "source").read_bytes())
    assert rows(table) == [("a", "Sports"), ("b", "World"), ("c", "")]


def test_damaged_parquet(read: Read, tmp_path: Path) -> None:
    pq.write_table(pa.table({"text": ["some text"] * 100}), tmp_path / "source")
    content = (tmp_path / "source").read_bytes()
    for damaged in (content[: len(content) // 2], content[:-20] + b"\xff" * 12 + content[-8:]):
        with pytest.raises(DataError, match="Parquet file is damaged"):
            read("a.parquet", damaged)


def test_parquet_with_too_many_columns(read: Read, tmp_path: Path) -> None:
    pq.write_table(pa.table({f"c{index}": [1] for index in range(201)}), tmp_path / "source")
    with pytest.raises(DataError, match="too many columns. Got: 201"):
        read("a.parquet", (tmp_path / "source").read_bytes())


def test_xlsx_cells_are_text_as_a_spreadsheet_shows_it(read: Read, tmp_path: Path) -> None:
    sheet: list[list[object]] = [
        [],
        ["text", "label", "day", None],
        ["NA", 1.0, date(2024, 1, 2)],
        [],
        ["b", 0.5, None],
        ["c", 1, 2, 3],
    ]
    table = read("a.xlsx", xlsx(tmp_path / "source.xlsx", sheet, [["other"]]))
    assert table.columns == ("text", "label", "day")
    assert rows(table) == [("NA", "1", "2024-01-02T00:00:00"), ("b", "0.5", "")]
    assert numbers(table) == [3, 5]
    assert table.problems == ('Row 6: 4 columns found, 3 expected ("c", …)',)
    assert table.notes == ("Sheet 'Sheet' is read; the workbook has 2 sheets.",)


def test_what_openpyxl_leaves_out_of_a_workbook_is_no_fault(read: Read, tmp_path: Path) -> None:
    """Pins: a drop-down list or a chart beside the rows is warned of, and warnings are errors in tests."""
    whole = tmp_path / "source.xlsx"
    xlsx(whole, [["text"], ["fine film"]])
    marked = tmp_path / "marked.xlsx"
    with zipfile.ZipFile(whole) as source, zipfile.ZipFile(marked, "w") as target:
        for name in source.namelist():
            content = source.read(name)
            if name.startswith("xl/worksheets/"):
                content = content.replace(b"</worksheet>", b'<extLst><ext uri="{1}"/></extLst></worksheet>')
            target.writestr(name, content)
    assert rows(read("a.xlsx", marked.read_bytes())) == [("fine film",)]


def test_xlsx_without_names_or_rows(read: Read, tmp_path: Path) -> None:
    table = read("a.xlsx", xlsx(tmp_path / "source.xlsx", [], [["fine film", 1], ["bad film", 0]]))
    assert table.columns == ("text", "label")
    assert rows(table) == [("fine film", "1"), ("bad film", "0")]
    with pytest.raises(DataError, match="no rows"):
        read("b.xlsx", xlsx(tmp_path / "empty.xlsx", []))


def test_damaged_xlsx(read: Read, tmp_path: Path) -> None:
    content = xlsx(tmp_path / "source.xlsx", [["text"], ["a"]])
    middle = len(content) // 2
    for damaged in (content[:middle], content[:200] + b"\xff" * 50 + content[250:]):
        with pytest.raises(DataError, match="XLSX file is damaged"):
            read("a.xlsx", damaged)


def test_a_workbook_that_unpacks_to_too_much(read: Read, tmp_path: Path) -> None:
    content = xlsx(tmp_path / "source.xlsx", [["text"], ["a" * 30_000]])
    with pytest.raises(DataError, match="workbook is too large"):
        read("a.xlsx", content, Limits(max_bytes=5_000))


@pytest.mark.parametrize(
    ("pasted", "expected"),
    [
        ("text,label\nfine,1\nbad,0", [("fine", "1"), ("bad", "0")]),
        ("fine\t1\nbad\t0", [("fine", "1"), ("bad", "0")]),
        ('{"text": "fine", "label": 1}\n{"text": "bad", "label": 0}', [("fine", "1"), ("bad", "0")]),
        ('[{"text": "fine", "label": 1}]', [("fine", "1")]),
        ("Fine, really.\nBad!", [("Fine, really.",), ("Bad!",)]),
        ("Fine, really.\nBad, too.", [("Fine, really.",), ("Bad, too.",)]),
        ("[laughs] fine\n{bad}", [("[laughs] fine",), ("{bad}",)]),
    ],
)
def test_lines_of_text(read: Read, pasted: str, expected: list[tuple[str, ...]]) -> None:
    assert rows(read("a.txt", pasted)) == expected
