"""What every reader hands over: columns, rows of text, and the rows it could not read."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import date, time
from itertools import count

from ptune_core.data.table import ROW


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
    """

    columns: tuple[str, ...]
    rows: Iterable[Row | BadRow]
    notes: list[str] = field(default_factory=list)
    unit: str = "Row"


def name_columns(header: Sequence[str], notes: list[str]) -> tuple[str, ...]:
    """Make every column name one line of text that no other column has."""
    names: list[str] = []
    taken = {ROW}
    for number, cell in enumerate(header, start=1):
        wanted = " ".join(cell.split()) or f"column {number}"
        name = next(name for name in _numbered(wanted) if name not in taken)
        if name != wanted:
            notes.append(f"Column {number} is called {name!r} here: the name {wanted!r} is taken.")
        names.append(name)
        taken.add(name)
    return tuple(names)


def _numbered(name: str) -> Iterator[str]:
    yield name
    yield from (f"{name} ({number})" for number in count(2))


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
