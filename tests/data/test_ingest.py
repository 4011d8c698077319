"""The reading process, what it refuses, and the sources it reads from."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ptune_core.data.ingest import child_environment, ingest, ingest_text, load_source, open_table
from ptune_core.data.ingest_child import Task, answer, run
from ptune_core.data.kinds import ACCEPTED, kind_of_name
from ptune_core.data.limits import Limits
from ptune_core.data.table import ROW, Table, read_rows
from ptune_core.errors import DataError, DiskFull, PTuneError

Read = Callable[..., Table]


def rows(table: Table) -> list[tuple[str, ...]]:
    return [tuple(row.values()) for row in read_rows(table, table.columns)]


# --- the process


def test_a_file_becomes_a_table_of_text(tmp_path: Path) -> None:
    source = tmp_path / "upload.csv"
    source.write_bytes("\ufefftext,label\r\nNA,1\r\n\r\nnull,01\r\nbroken\r\n".encode())
    table = ingest(source, tmp_path / "out", display_name="my reviews.csv")
    assert (table.columns, table.num_rows, table.source) == (("text", "label"), 2, "my reviews.csv")
    assert table.preview == [{"text": "NA", "label": "1"}, {"text": "null", "label": "01"}]
    assert table.problems == ('Line 5: 1 column found, 2 expected ("broken", …)',)
    assert table.dropped == {"wrong number of columns": [5]}
    stored = pq.read_table(table.path)
    assert stored.schema.types == [pa.int64(), pa.string(), pa.string()]
    assert stored.to_pydict() == {ROW: [2, 4], "text": ["NA", "null"], "label": ["1", "01"]}
    assert open_table(tmp_path / "out") == table
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["table.json", "table.parquet"]


def test_a_file_that_cannot_be_used_leaves_the_table_before_it(tmp_path: Path) -> None:
    (tmp_path / "good.csv").write_text("text,label\na,1\n")
    (tmp_path / "bad.csv").write_text("text,label\n")
    table = ingest(tmp_path / "good.csv", tmp_path / "out")
    with pytest.raises(DataError, match="bad.csv has no rows"):
        ingest(tmp_path / "bad.csv", tmp_path / "out")
    assert open_table(tmp_path / "out") == table
    assert len(list((tmp_path / "out").iterdir())) == 2


def test_code_beside_the_upload_is_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`python -m` looks for modules in the current folder first, where uploads may lie."""
    for name in ("csv.py", "json.py", "sitecustomize.py"):
        (tmp_path / name).write_text("raise SystemExit('owned')")
    (tmp_path / "a.csv").write_text("text,label\na,1\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    assert ingest(Path("a.csv"), Path("out")).num_rows == 1


def test_the_reading_process_knows_no_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    assert "hf_secret" not in child_environment().values()


def test_a_file_that_takes_too_long_is_given_up(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("text,label\na,1\n")
    with pytest.raises(DataError, match="a.csv takes too long to read"):
        ingest(tmp_path / "a.csv", tmp_path / "out", Limits(wall_seconds=0.0))
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel limits address space on Linux only")
def test_a_file_that_takes_too_much_memory_is_refused(tmp_path: Path) -> None:
    """Four hundred cells of ten million letters in a small file."""
    bomb = pa.DictionaryArray.from_arrays(pa.array([0] * 400, pa.int32()), pa.array(["x" * 10_000_000]))
    pq.write_table(pa.table({"text": bomb}), tmp_path / "bomb.parquet", compression="zstd", store_schema=False)
    assert (tmp_path / "bomb.parquet").stat().st_size < 1_000_000
    with pytest.raises(DataError, match="bomb.parquet needs too much memory"):
        ingest(tmp_path / "bomb.parquet", tmp_path / "out", Limits(memory_bytes=2**30))


def test_deep_nesting_is_a_bad_row(tmp_path: Path) -> None:
    """pyarrow dies of the first and the second with SIGSEGV, and never ends with the third."""
    deep = [("[", "]", 100_000), ('{"a":', "}", 100_000), ('{"a":', "}", 5_000), ("[", "]", 990)]
    lines = [f'{{"text": {opening * depth}1{closing * depth}}}' for opening, closing, depth in deep]
    (tmp_path / "deep.jsonl").write_text("\n".join([*lines, *['{"text": "fine"}'] * 4]))
    table = ingest(tmp_path / "deep.jsonl", tmp_path / "out")
    assert rows(table) == [("fine",)] * 4
    assert [problem.split(":")[0] for problem in table.problems] == ["Line 1", "Line 2", "Line 3", "Line 4"]
    assert all("nested too deeply" in problem for problem in table.problems)


@pytest.mark.skipif(sys.platform == "win32", reason="no limits on file size")
def test_a_table_that_cannot_be_written(tmp_path: Path) -> None:
    """The kernel stops the write at the file size that the limit on characters allows, as it does on a full disk."""
    (tmp_path / "a.csv").write_text("text,label\na,1\n")
    with pytest.raises(DiskFull, match="no room to store a.csv"):
        ingest(tmp_path / "a.csv", tmp_path / "out", Limits(max_chars=10))
    assert list((tmp_path / "out").iterdir()) == []


def test_the_answer_of_the_process_is_json_with_every_part_of_the_error(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("a,b\n1\n2\n3,4\n")
    task = Task(tmp_path / "a.csv", "a.csv", kind_of_name("a.csv"), tmp_path, Limits(cpu_seconds=10**6))
    assert Task.from_json(task.to_json()) == task
    with pytest.raises(DataError) as error:
        run(task)
    assert error.value.problems[0].startswith("Line 2: ")
    assert "remove any lines above" in error.value.needed


# --- what is refused


@pytest.mark.parametrize("name", ["a.xls", "a.ods", "a.csv.gz", "a.zip", "a.dbf", "a.html", "a", "a.csv.exe", ".csv"])
def test_other_extensions_are_refused_with_the_list(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("text,label\na,1\n")
    with pytest.raises(DataError, match="This kind of file cannot be read") as error:
        ingest(tmp_path / name, tmp_path / "out")
    assert all(extension in error.value.needed for extension in ACCEPTED)


@pytest.mark.parametrize(
    ("name", "content", "found"),
    [
        ("a.csv", b"PK\x03\x04....", "ZIP"),
        ("a.csv", b"PAR1....", "Parquet"),
        ("a.txt", b"\x1f\x8b....", "gzip"),
        ("a.json", b"\xd0\xcf\x11\xe0....", "old Office"),
        ("a.csv", b"\n <!DOCTYPE html><html>", "web page"),
        ("a.jsonl", b"version https://git-lfs.github.com/spec/v1\n", "Git LFS"),
        ("a.parquet", b"text,label\n", "other first bytes"),
        ("a.xlsx", b"text,label\n", "other first bytes"),
        ("a.xlsx", b"PAR1....", "Parquet"),
    ],
)
def test_the_first_bytes_must_fit_the_name(read: Read, name: str, content: bytes, found: str) -> None:
    with pytest.raises(DataError, match="is not what its name says") as error:
        read(name, content)
    assert found in error.value.got


def test_what_is_no_file(tmp_path: Path) -> None:
    (tmp_path / "folder.csv").mkdir()
    (tmp_path / "empty.csv").touch()
    for name, text in [("none.csv", "cannot be opened"), ("folder.csv", "is not a file"), ("empty.csv", "is empty")]:
        with pytest.raises(DataError, match=text):
            ingest(tmp_path / name, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_file_over_the_limit_is_not_opened(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("text,label\na,1\n")
    with pytest.raises(DataError, match="too large"):
        ingest(tmp_path / "a.csv", tmp_path / "out", Limits(max_bytes=10))


@pytest.mark.parametrize(
    ("limits", "got"),
    [
        (Limits(max_rows=3), "more than 3 rows"),
        (Limits(max_chars=20), "characters of text"),
        (Limits(max_columns=1), "2"),
    ],
)
def test_a_table_over_the_limits(read: Read, limits: Limits, got: str) -> None:
    with pytest.raises(DataError, match="too large|too many columns") as error:
        read("a.csv", "text,label\n" + "some text,1\n" * 4, limits)
    assert got in error.value.got


@pytest.mark.parametrize("name", ["a.csv", "a.tsv", "a.txt", "a.json", "a.jsonl"])
@pytest.mark.parametrize("content", ["\n", " \r\n\r\n", "\ufeff"])
def test_nothing_but_blanks(read: Read, name: str, content: str) -> None:
    with pytest.raises(DataError, match="no rows"):
        read(name, content)


def test_a_header_alone(read: Read) -> None:
    with pytest.raises(DataError, match="a.csv has no rows. Got: only the columns text, label"):
        read("a.csv", "text,label\n")


# --- pasted rows and named sources


def test_pasted_rows(tmp_path: Path) -> None:
    table = ingest_text("fine\t1\r\nbad\t0", tmp_path)
    assert (table.source, rows(table)) == ("Pasted text", [("fine", "1"), ("bad", "0")])
    with pytest.raises(DataError, match="Pasted text is empty"):
        ingest_text("", tmp_path)


def test_a_path_is_a_source(tmp_path: Path) -> None:
    (tmp_path / "a.tsv").write_text("text\tlabel\na\t1\n")
    assert rows(load_source(str(tmp_path / "a.tsv"), tmp_path / "out")) == [("a", "1")]
    with pytest.raises(PTuneError, match="no.csv cannot be opened"):
        load_source(str(tmp_path / "no.csv"), tmp_path / "out")


def test_a_stored_table_that_is_gone_or_damaged(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no data here"):
        open_table(tmp_path)
    (tmp_path / "a.csv").write_text("text,label\na,1\n")
    table = ingest(tmp_path / "a.csv", tmp_path)
    table.path.write_bytes(b"PAR1")
    with pytest.raises(DataError, match="damaged"):
        open_table(tmp_path)
    (tmp_path / "table.json").write_text("[]")
    with pytest.raises(DataError, match="damaged"):
        open_table(tmp_path)


def test_the_process_answers_with_an_error_it_was_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Limits, "apply_to_this_process", lambda self: None)
    (tmp_path / "a.csv").write_text("text,label\n")
    reply = answer(Task(tmp_path / "a.csv", "a.csv", kind_of_name("a.csv"), tmp_path, Limits()).to_json())
    assert reply["error"]["what"] == "a.csv has no rows"
    assert DataError(**json.loads(json.dumps(reply))["error"]).got == "only the columns text, label"
