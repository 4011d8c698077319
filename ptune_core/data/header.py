"""Column names: whether the first row has them, and what each column is called."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import count

from ptune_core.data.table import ROW

LABEL_NAMES = frozenset({"label", "labels", "category", "class", "sentiment", "target", "intent", "topic", "answer"})
TEXT_NAMES = frozenset({"text", "sentence", "review", "content", "comment", "document", "passage", "tweet", "message"})

NO_HEADER = (
    "The first row looks like data, not like column names, and is read as data. "
    "If it holds names, use common ones, such as text and label."
)
"""The note for a source whose columns had to be named here."""

_LONGEST_NAME = 120


def header_names(sample: Sequence[Sequence[str]]) -> list[str] | None:
    """Names for the columns of a table without a header; None if its first row is one.

    Args:
        sample: The first rows.

    Returns:
        `text` for one column; `text` (the longer one) and `label` for two; empty names for more.
    """
    if _is_header(sample):
        return None
    width = len(sample[0])
    if width == 1:
        return ["text"]
    if width == 2:
        lengths = [sum(len(cells[index]) for cells in sample if len(cells) == 2) for index in range(2)]
        return ["text", "label"] if lengths[0] >= lengths[1] else ["label", "text"]
    return [""] * width


def _is_header(sample: Sequence[Sequence[str]]) -> bool:
    """Whether the first row names the columns.

    It does if one of its cells is a usual name. Else it does not if one of them is a number, longer than any name, or
    stands in the same column of a later row too (as a label does).
    """
    first = sample[0]
    if any(cell.strip().lower() in TEXT_NAMES | LABEL_NAMES for cell in first):
        return True
    later = [{row[index] for row in sample[1:] if index < len(row)} for index in range(len(first))]
    return not any(
        cell.strip() and (_is_number(cell) or len(cell) > _LONGEST_NAME or cell in values)
        for cell, values in zip(first, later, strict=True)
    )


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def name_columns(header: Sequence[str], notes: list[str]) -> tuple[str, ...]:
    """Make every column name one short line of text that no other column has."""
    names: list[str] = []
    taken = {ROW}
    for number, cell in enumerate(header, start=1):
        wanted = " ".join(cell[:_LONGEST_NAME].split()) or f"column {number}"
        name = next(name for name in _numbered(wanted) if name not in taken)
        if name != wanted:
            notes.append(f"Column {number} is called {name!r} here: the name {wanted!r} is taken.")
        names.append(name)
        taken.add(name)
    return tuple(names)


def _numbered(name: str) -> Iterator[str]:
    yield name
    yield from (f"{name} ({number})" for number in count(2))
