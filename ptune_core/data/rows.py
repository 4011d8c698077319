"""What every reader hands over: columns, rows of text, and the rows it could not read."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import date, time


@dataclass(frozen=True)
class Row:
    """One row that was read: its number in the source, and a cell for each column."""

    number: int
    cells: Sequence[str]


@dataclass(frozen=True)
class BadRow:
    """One row that could not be read.

    Attributes:
        number: Its number in the source.
        reason: A few words, the same for all rows with this trouble; they are counted by it.
        detail: What is wrong with this one.
    """

    number: int
    reason: str
    detail: str


@dataclass(frozen=True)
class Source:
    """A file being read.

    Attributes:
        columns: Names of the columns, as `name_columns` makes them.
        rows: The rows in order; read once, in one pass.
        notes: How it is read, where that is not plain. May grow while `rows` is read.
        unit: What the row numbers count: "Line" of a text, or "Row" of a table.
        needed: What its rows have to look like.
    """

    columns: tuple[str, ...]
    rows: Iterable[Row | BadRow]
    notes: list[str] = field(default_factory=list)
    unit: str = "Row"
    needed: str = "rows with the columns of the first one; remove any lines above the column names"


def to_text(value: object) -> str:
    """The text of a cell: true/false, ISO dates, nested values as JSON; nothing is an empty cell."""
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, date | time):
        return value.isoformat()
    if isinstance(value, dict | list | tuple):
        return json.dumps(value, ensure_ascii=False, default=to_text)
    return str(value)


def excerpt(text: str, length: int = 40) -> str:
    """The start of a text, in quotation marks, for messages."""
    shown = " ".join(text.split())
    return f'"{shown[:length]}…"' if len(shown) > length else f'"{shown}"'


def wrong_width(cells: Sequence[str], width: int) -> tuple[str, str]:
    """Reason and detail of a `BadRow` that has not the `width` cells of the columns."""
    plural = "s" * (len(cells) != 1)
    return "wrong number of columns", f"{len(cells)} column{plural} found, {width} expected ({excerpt(cells[0])}, …)"
