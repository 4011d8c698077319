"""A table as `ingest` leaves it: one Parquet file with text in every cell, and beside it what people should know."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ptune_core.errors import DataError

ROW = "__row__"
"""Name of the int64 column with the row's number in its source, as people count it."""

PREVIEW_ROWS = 50
_ROWS_AT_ONCE = 1000
_TABLE_FILE = "table.parquet"
_REPORT_FILE = "table.json"


@dataclass(frozen=True)
class Table:
    """Rows that were read, every cell as text.

    Attributes:
        path: Parquet file: the columns as text without nulls, and `ROW`.
        columns: Names of the columns, in the order of the source.
        num_rows: Rows in `path`.
        preview: The first rows.
        notes: How the source was read, where that was not plain.
        problems: Rows that could not be read, one line each with its number; capped.
        dropped: Reason -> numbers of all rows that could not be read.
        source: Name of the source, as people know it.
    """

    path: Path
    columns: tuple[str, ...]
    num_rows: int
    preview: list[dict[str, str]]
    notes: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()
    dropped: dict[str, list[int]] = field(default_factory=dict)
    source: str = ""

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the rows."""
        with self.path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    def save_report(self) -> None:
        """Write everything but the rows beside the rows, as `open_table` reads it."""
        values = asdict(self)
        del values["path"]
        report = self.path.with_name(_REPORT_FILE)
        report.write_text(json.dumps(values, ensure_ascii=False, indent=1), encoding="utf-8")


@dataclass(frozen=True)
class Tables:
    """The data of one run.

    Attributes:
        table: The rows to train on.
        validation: Rows to validate on; None sets a share of `table` aside.
        starts: Prompt embeddings `[N, H]` fp32 of the adapters that the settings start from, by what they call them.
    """

    table: Table
    validation: Table | None = None
    starts: Mapping[str, np.ndarray] = field(default_factory=dict)


def table_file(directory: Path) -> Path:
    """Where the rows of the table in `directory` are."""
    return directory / _TABLE_FILE


def open_table(directory: Path) -> Table:
    """Read back the table that `ingest` wrote into `directory`.

    Raises:
        DataError: There is no table, or it is damaged.
    """
    try:
        values = json.loads((directory / _REPORT_FILE).read_text(encoding="utf-8"))
        table = Table(
            path=table_file(directory),
            columns=tuple(values["columns"]),
            num_rows=values["num_rows"],
            preview=values["preview"],
            notes=tuple(values["notes"]),
            problems=tuple(values["problems"]),
            dropped=values["dropped"],
            source=values["source"],
        )
        schema = pq.read_schema(table.path)
    except FileNotFoundError as error:
        raise DataError("There is no data here", got=str(directory), remedy="Choose the data again") from error
    except (ValueError, KeyError, TypeError, pa.ArrowException) as error:
        raise DataError("The stored data is damaged", got=str(directory), remedy="Choose the data again") from error
    if missing := {ROW, *table.columns}.difference(schema.names):
        raise DataError("The stored data is damaged", got=f"no column {', '.join(sorted(missing))} in {table.path}")
    return table


def record_batches(table: Table, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
    """`ROW` and `columns` of every row, in order, a thousand rows in memory at a time."""
    with _open(table) as file:
        yield from file.iter_batches(_ROWS_AT_ONCE, columns=[ROW, *dict.fromkeys(columns)], use_threads=False)


def cells_at(table: Table, columns: Sequence[str], places: np.ndarray) -> Iterator[list[list[str]]]:
    """Cells of some rows: lists with the texts of each of `columns`, for as many rows at a time as lie together.

    Args:
        table: The rows.
        columns: Names of columns.
        places: Which rows, counted from 0, ascending.
    """
    with _open(table) as file:
        read: dict[str, Any] = {"columns": list(dict.fromkeys(columns)), "use_threads": False}
        start = 0
        for group in range(file.num_row_groups):
            end = start + file.metadata.row_group(group).num_rows
            if np.searchsorted(places, start) == np.searchsorted(places, end):
                start = end
                continue
            for batch in file.iter_batches(_ROWS_AT_ONCE, row_groups=[group], **read):
                low, high = np.searchsorted(places, [start, start + len(batch)])
                within = places[low:high] - start
                start += len(batch)
                if len(within):
                    yield [batch.column(name).take(pa.array(within)).to_pylist() for name in columns]


def numbered_rows(table: Table, columns: Sequence[str]) -> Iterator[tuple[int, dict[str, str]]]:
    """Every row's number and its values in `columns`, in order."""
    for batch in record_batches(table, columns):
        for values in batch.to_pylist():
            yield values.pop(ROW), values


def read_rows(table: Table, columns: Sequence[str]) -> Iterator[dict[str, str]]:
    """Every row's values in `columns`, in order."""
    return (values for _, values in numbered_rows(table, columns))


def _open(table: Table) -> pq.ParquetFile:
    # With a buffer ahead, pyarrow would read the whole file into memory first.
    return pq.ParquetFile(table.path, pre_buffer=False)
