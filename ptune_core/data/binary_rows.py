"""Parquet and XLSX, a thousand rows at a time, so that a small file that unpacks to a huge table costs little."""

from __future__ import annotations

import json
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain, islice
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import ParseError

import pyarrow as pa
import pyarrow.parquet as pq

from ptune_core.data.header import NO_HEADER, header_names, name_columns
from ptune_core.data.limits import Limits
from ptune_core.data.rows import BadRow, Row, Source, to_text, wrong_width
from ptune_core.errors import DataError

_ROWS_AT_ONCE = 1000
_SAMPLE_ROWS = 50
_PARQUET_DAMAGE = (pa.ArrowException, OSError)
_XLSX_DAMAGE = (zipfile.BadZipFile, zlib.error, ParseError, KeyError, ValueError, EOFError, OSError)
"""What openpyxl lets through of what a damaged workbook does to the libraries below it."""


def read_parquet(path: Path, limits: Limits) -> Source:
    """Read a Parquet file; integer columns that the Hub knows the class names of become these names.

    Raises:
        DataError: The file is damaged, or has too many columns.
    """
    with _damage_explained("Parquet", *_PARQUET_DAMAGE):
        file = pq.ParquetFile(path)
        schema = file.schema_arrow
    if len(schema) > limits.max_columns:
        raise too_many_columns(len(schema), limits)
    if len(set(schema.names)) < len(schema):
        raise DataError("The Parquet file has two columns of one name", got=", ".join(schema.names))
    notes: list[str] = []
    kept = []
    for field in schema:
        if pa.types.is_binary(field.type) or pa.types.is_large_binary(field.type):
            notes.append(f"Column {field.name!r} holds binary data and is left out.")
            continue
        if pa.types.is_nested(field.type):
            notes.append(f"Column {field.name!r} holds nested values; they are read as JSON text.")
        kept.append(field.name)
    names = _class_names(schema.metadata or {})
    notes += [f"The numbers in {name!r} are read as the class names in the file." for name in kept if name in names]

    def rows() -> Iterator[Row]:
        number = 0
        with _damage_explained("Parquet", *_PARQUET_DAMAGE):
            for batch in file.iter_batches(_ROWS_AT_ONCE, columns=kept, use_threads=False):
                cells = [_column_texts(batch.column(name).to_pylist(), names.get(name)) for name in batch.schema.names]
                for values in zip(*cells, strict=True):
                    number += 1
                    yield Row(number, values)

    return Source(name_columns(kept, notes), rows(), notes)


def _column_texts(values: list[Any], names: list[str] | None) -> list[str]:
    if names is None:
        return [to_text(value) for value in values]
    # -1 is how the Hub marks a row without a label.
    return [names[v] if isinstance(v, int) and 0 <= v < len(names) else to_text(v if v != -1 else None) for v in values]


def _class_names(metadata: dict[bytes, bytes]) -> dict[str, list[str]]:
    """Class names by column, as the `datasets` library stores them in a Parquet file's metadata."""
    try:
        features = json.loads(metadata.get(b"huggingface", b"{}"))["info"]["features"]
        found = {name: feature["names"] for name, feature in features.items() if feature.get("_type") == "ClassLabel"}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return {}
    return {name: names for name, names in found.items() if all(isinstance(text, str) for text in names)}


def read_xlsx(path: Path, limits: Limits) -> Source:
    """Read the first sheet with rows of a workbook: stored values, no formulas. Its first row names the columns.

    Raises:
        DataError: The file is damaged, unpacks to too much, or has no rows.
    """
    # Only here: no other kind of file needs it, and importing it takes longer than reading a small file.
    import openpyxl

    with _damage_explained("XLSX", *_XLSX_DAMAGE):
        _check_archive(path, limits)
        book = openpyxl.load_workbook(path, read_only=True, data_only=True, keep_links=False)
        sheet_rows: Iterator[tuple[int, list[str]]] = iter(())
        for sheet in book.worksheets:
            sheet_rows = _sheet_rows(sheet)
            if sample := list(islice(sheet_rows, _SAMPLE_ROWS)):
                break
        else:
            raise DataError("The workbook has no rows", got=f"{len(book.worksheets)} empty sheets")
    notes: list[str] = []
    if len(book.sheetnames) > 1:
        notes.append(f"Sheet {sheet.title!r} is read; the workbook has {len(book.sheetnames)} sheets.")
    names = header_names([cells for _, cells in sample])
    if names is not None:
        notes.append(NO_HEADER)
    columns = name_columns(sample[0][1] if names is None else names, notes)

    def rows() -> Iterator[Row | BadRow]:
        with _damage_explained("XLSX", *_XLSX_DAMAGE):
            for number, cells in chain(sample[names is None :], sheet_rows):
                if len(cells) > len(columns):
                    yield BadRow(number, *wrong_width(cells, len(columns)))
                else:
                    yield Row(number, [*cells, *[""] * (len(columns) - len(cells))])

    return Source(columns, rows(), notes)


def _sheet_rows(sheet: Any) -> Iterator[tuple[int, list[str]]]:
    """Number and texts of every row of a sheet that is not empty, without its empty cells at the end."""
    # A sheet may claim a size of 16,384 x 1,048,576; without the claim every row is as long as it is.
    sheet.reset_dimensions()
    for number, values in enumerate(sheet.iter_rows(values_only=True), start=1):
        cells = [_cell_text(value) for value in values]
        while cells and not cells[-1].strip():
            cells.pop()
        if cells:
            yield number, cells


def _cell_text(value: object) -> str:
    """Every number of a workbook is a float; whole ones are shown without a fraction, as spreadsheets do."""
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        return str(int(value))
    return to_text(value)


def _check_archive(path: Path, limits: Limits) -> None:
    """Refuse what is another kind of archive, or unpacks to more than any table within the limits needs."""
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
    if not any(entry.filename == "xl/workbook.xml" for entry in entries):
        raise DataError("The file is not an XLSX workbook", got="a ZIP archive of something else")
    unpacked = sum(entry.file_size for entry in entries)
    allowed = 4 * limits.max_bytes
    if unpacked > allowed:
        got, needed = f"{unpacked / 2**20:,.0f} MB after unpacking", f"at most {allowed / 2**20:,.0f} MB"
        raise DataError("The workbook is too large", got=got, needed=needed, remedy="Save the sheet as .csv")


def too_many_columns(count: int, limits: Limits) -> DataError:
    """The error for a table wider than the limits."""
    needed, remedy = f"at most {limits.max_columns}", "Keep only the columns of texts and labels"
    return DataError("The table has too many columns", got=f"{count:,}", needed=needed, remedy=remedy)


@contextmanager
def _damage_explained(kind: str, *causes: type[Exception]) -> Iterator[None]:
    """Turn what the library for this `kind` of file raises on a damaged one into a `DataError`."""
    try:
        yield
    except MemoryError:  # pyarrow's own is one, and an ArrowException as well
        raise
    except causes as error:
        reason = str(error).strip().splitlines()[0][:200] if str(error).strip() else type(error).__name__
        raise DataError(f"The {kind} file is damaged", got=reason, remedy="Save or download it again") from error
