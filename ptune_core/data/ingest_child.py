"""The process that reads one file from a stranger: `python -m ptune_core.data.ingest_child`.

It gets its task as JSON on standard input, puts limits on itself, writes the table into a folder, and answers with one
JSON object on standard output: `{}` or `{"error": {...}}`. Whatever a file does to a parser happens to this process.
"""

from __future__ import annotations

import contextlib
import errno
import json
import re
import sys
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

import pyarrow as pa
import pyarrow.parquet as pq

from ptune_core.data.binary_rows import read_parquet, read_xlsx, too_many_columns
from ptune_core.data.decoding import detect_encoding
from ptune_core.data.delimited import ALL_DELIMITERS, read_delimited, read_text
from ptune_core.data.json_rows import read_json, read_jsonl
from ptune_core.data.kinds import HEAD_BYTES, Kind, check_first_bytes
from ptune_core.data.limits import Limits
from ptune_core.data.rows import BadRow, Row, Source, excerpt
from ptune_core.data.table import PREVIEW_ROWS, ROW, Table, table_file
from ptune_core.errors import DataError

MAX_PROBLEMS = 50
"""Problems that are told one by one; the rest are counted."""

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""What the system says when a file cannot grow."""

_ROWS_AT_ONCE = 10_000
_JSON_START = re.compile(r'\s*(\{\s*"|\[\s*\{)')


@dataclass(frozen=True)
class Task:
    """What to read, and where to write the table.

    Attributes:
        source: The file.
        name: What people call it.
        kind: What it is said to be.
        out: Existing folder for the table.
        limits: What it may cost.
    """

    source: Path
    name: str
    kind: Kind
    out: Path
    limits: Limits

    def to_json(self) -> str:
        """The task as text."""
        values = {"source": str(self.source), "name": self.name, "kind": self.kind, "out": str(self.out)}
        return json.dumps(values | {"limits": vars(self.limits)})

    @classmethod
    def from_json(cls, text: str) -> Task:
        """The task that `to_json` wrote."""
        values = json.loads(text)
        limits = Limits(**values["limits"])
        return cls(Path(values["source"]), values["name"], Kind(values["kind"]), Path(values["out"]), limits)


@dataclass
class _Losses:
    """The rows that could not be read: counted all, told up to `MAX_PROBLEMS`."""

    unit: str
    dropped: dict[str, list[int]] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    count: int = 0

    def add(self, bad: BadRow) -> None:
        self.count += 1
        self.dropped.setdefault(bad.reason, []).append(bad.number)
        if len(self.problems) < MAX_PROBLEMS:
            self.problems.append(f"{self.unit} {bad.number}: {bad.detail}")

    def told(self) -> list[str]:
        more = self.count - len(self.problems)
        return [*self.problems, f"… and {more} more rows like these"] if more else self.problems


def run(task: Task) -> None:
    """Read the file and write the table.

    Raises:
        DataError: The file cannot be used.
    """
    with contextlib.ExitStack() as stack:
        source = _open_source(task, stack)
        if len(source.columns) > task.limits.max_columns:
            raise too_many_columns(len(source.columns), task.limits)
        _write(task, source)


def _open_source(task: Task, stack: contextlib.ExitStack) -> Source:
    with task.source.open("rb") as file:
        check_first_bytes(task.kind, task.name, file.read(HEAD_BYTES))
    if task.kind is Kind.PARQUET:
        return read_parquet(task.source, task.limits)
    if task.kind is Kind.XLSX:
        # openpyxl warns of charts, drop-down lists and the like, which it leaves out: no rows are lost by it.
        stack.enter_context(warnings.catch_warnings())
        warnings.filterwarnings("ignore", category=UserWarning, module="openpyxl")
        return read_xlsx(task.source, task.limits)
    encoding = detect_encoding(task.source, task.name)
    source = _open_text(task, stack, encoding.codec)
    if encoding.note:
        source.notes.insert(0, encoding.note)
    return source


def _open_text(task: Task, stack: contextlib.ExitStack, codec: str) -> Source:
    kind, max_chars = task.kind, task.limits.max_cell_chars
    lines: TextIO = stack.enter_context(task.source.open(encoding=codec, newline=""))
    if kind is Kind.TXT and _JSON_START.match(lines.read(1000)):
        kind = Kind.JSON
    lines.seek(0)
    if kind is Kind.JSON:
        return read_json(task.source, codec)
    if kind is Kind.JSONL:
        return read_jsonl(task.source, codec)
    if kind is Kind.TXT:
        return read_text(lines, max_chars)
    return read_delimited(lines, "\t" if kind is Kind.TSV else ALL_DELIMITERS, max_chars)


def _write(task: Task, source: Source) -> None:
    losses = _Losses(source.unit)
    schema = pa.schema([(ROW, pa.int64()), *((name, pa.string()) for name in source.columns)])
    preview: list[dict[str, str]] = []
    count = 0
    with pq.ParquetWriter(table_file(task.out), schema) as writer:
        for rows in _batches(_usable(source, task.limits, losses)):
            cells = list(zip(*(row.cells for row in rows), strict=True))
            writer.write_table(pa.table([[row.number for row in rows], *cells], schema=schema))
            for row in rows[: PREVIEW_ROWS - len(preview)]:
                preview.append(dict(zip(source.columns, row.cells, strict=True)))
            count += len(rows)
    _check_enough(task, source, losses, count)
    Table(
        path=table_file(task.out),
        columns=source.columns,
        num_rows=count,
        preview=preview,
        notes=tuple(source.notes),
        problems=tuple(losses.told()),
        dropped=losses.dropped,
        source=task.name,
    ).save_report()


def _check_enough(task: Task, source: Source, losses: _Losses, count: int) -> None:
    if count == 0 and losses.count == 0:
        raise DataError(
            f"{task.name} has no rows",
            got=f"only the columns {', '.join(source.columns[:10])}" if source.columns else "nothing",
            needed="at least one row",
        )
    if losses.count > count:
        reasons = ", ".join(f"{len(rows)} {reason}" for reason, rows in losses.dropped.items())
        raise DataError(
            f"Most rows of {task.name} cannot be read",
            got=f"{losses.count} of {losses.count + count} rows ({reasons})",
            needed=source.needed,
            remedy="Mend the rows named below",
            problems=losses.told(),
        )
    if not source.columns:
        raise DataError(f"{task.name} has no columns", got=f"{count} rows without any cell", needed=source.needed)


def _batches(rows: Iterator[Row]) -> Iterator[list[Row]]:
    batch: list[Row] = []
    for row in rows:
        batch.append(row)
        if len(batch) == _ROWS_AT_ONCE:
            yield batch
            batch = []
    if batch:
        yield batch


def _usable(source: Source, limits: Limits, losses: _Losses) -> Iterator[Row]:
    """The rows within the limits; those that are not are added to `losses`."""
    rows = chars = 0
    for item in source.rows:
        bad = item if isinstance(item, BadRow) else _check_cells(item, source, limits)
        if bad:
            losses.add(bad)
            continue
        assert isinstance(item, Row)
        rows += 1
        chars += sum(map(len, item.cells))
        if rows > limits.max_rows or chars > limits.max_chars:
            is_long = rows > limits.max_rows
            raise DataError(
                "The table is too large",
                got=f"more than {limits.max_rows:,} rows" if is_long else f"{chars:,} characters of text",
                needed=f"at most {limits.max_rows:,} rows and {limits.max_chars:,} characters of text",
                remedy="Keep a part of the rows",
            )
        yield item


def _check_cells(row: Row, source: Source, limits: Limits) -> BadRow | None:
    for column, cell in zip(source.columns, row.cells, strict=True):
        if len(cell) > limits.max_cell_chars:
            detail = f"{len(cell):,} characters in {excerpt(column)}, at most {limits.max_cell_chars:,} are allowed"
            return BadRow(row.number, "cell too long", detail)
        if "\0" in cell:
            return BadRow(row.number, "NUL character", f"a NUL character in {excerpt(column)}")
        if not (cell.isascii() or _is_encodable(cell)):
            return BadRow(row.number, "half a character", f"half a surrogate pair in {excerpt(column)}")
    return None


def _is_encodable(text: str) -> bool:
    """JSON can write half of a surrogate pair, which no encoding has."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def answer(text: str) -> dict[str, Any]:
    """Do the task in `text`; return what to tell the process that gave it."""
    task = Task.from_json(text)
    task.limits.apply_to_this_process()
    try:
        run(task)
    except DataError as error:
        parts = {name: getattr(error, name) for name in ("what", "got", "needed", "remedy", "problems")}
        return {"error": parts}
    except RecursionError:
        return {"error": {"what": f"{task.name} is nested too deeply", "needed": "rows of plain texts and numbers"}}
    except MemoryError:
        return {"error": too_much_memory(task)}
    except OSError as error:
        if error.errno not in FULL:
            raise
        return {"disk_full": True}
    return {}


def too_much_memory(task: Task) -> dict[str, str]:
    """The parts of the error for a file that unpacks to more than the memory it may take."""
    return {
        "what": f"{task.name} needs too much memory to read",
        "needed": f"at most {task.limits.memory_bytes / 2**30:.1f} GB",
        "remedy": "Keep a part of the rows",
    }


if __name__ == "__main__":
    json.dump(answer(sys.stdin.read()), sys.stdout)
