"""Labels: which there are, in which order, and what is odd about them."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

from ptune_core.data.columns import MAX_GUESSED_LABELS
from ptune_core.errors import DataError

MAX_LABELS = 1000


def sort_labels(labels: Iterable[str]) -> list[str]:
    """Labels in the order people count in: 2 before 10, "item 2" before "item 10"."""

    def key(label: str) -> tuple[object, ...]:
        number = _number(label)
        return (number is None, number or 0.0, _natural(label), label)

    return sorted(set(labels), key=key)


def is_label_column(different: int, rows: int) -> bool:
    """Whether a target's values look like labels: few different ones, with two rows for each on average."""
    return different <= MAX_GUESSED_LABELS and 2 * different <= rows


def check_labels(counts: Mapping[str, int], column: str) -> None:
    """Refuse what no classifier can learn.

    Args:
        counts: Label -> number of examples.
        column: The target's column, for the message.

    Raises:
        DataError: Fewer than two labels have examples, or there are more than `MAX_LABELS`.
    """
    present = [label for label, count in counts.items() if count]
    if len(present) == 1:
        raise DataError(
            f'All rows have the label "{present[0]}"',
            got=f"one label in {column!r}",
            needed="at least two",
            remedy="Add rows with other labels, or choose another column",
        )
    if len(counts) > MAX_LABELS:
        raise too_many_labels(len(counts), column)


def too_many_labels(different: int, column: str) -> DataError:
    """The error for a target with more than `MAX_LABELS` different values."""
    return DataError(
        "There are too many labels",
        got=f"{different:,} different values in {column!r}",
        needed=f"at most {MAX_LABELS:,}",
        remedy="Choose another column, or use [ANSWER:column] to generate its text",
    )


def odd_labels(counts: Mapping[str, int]) -> list[str]:
    """What may be a mistake about the labels, one sentence each."""
    found = []
    if absent := [label for label, count in counts.items() if not count]:
        found.append(f"No row has the label {quoted(absent)}.")
    if single := [label for label, count in counts.items() if count == 1]:
        found.append(f"Labels with one row only: {quoted(single)}.")
    by_number: dict[float, list[str]] = defaultdict(list)
    by_case: dict[str, list[str]] = defaultdict(list)
    for label in counts:
        if (number := _number(label)) is not None:
            by_number[number].append(label)
        by_case[label.casefold()].append(label)
    for labels in by_number.values():
        if len(labels) > 1:
            found.append(f"The labels {quoted(labels)} are one number in different writing; each is its own label.")
    for labels in by_case.values():
        if len(labels) > 1:
            found.append(f"The labels {quoted(labels)} differ only in upper and lower case; each is its own label.")
    return found


def unknown_labels(most: Mapping[str, int], different: int, labels: Sequence[str]) -> str:
    """One sentence about values that are none of the labels.

    Args:
        most: The most frequent ones -> their rows, at most ten.
        different: How many there are.
        labels: The labels.
    """
    shown = ", ".join(f'"{value[:40]}" ({count})' for value, count in most.items())
    more = f" and {different - len(most)} more" if different > len(most) else ""
    return f"Unknown labels, with their rows: {shown}{more}. The labels are {quoted(labels)}."


def quoted(labels: Sequence[str], most: int = 10) -> str:
    """Labels for a message, the first `most` of them."""
    shown = ", ".join(f'"{label[:40]}"' for label in labels[:most])
    return shown if len(labels) <= most else f"{shown} and {len(labels) - most} more"


def _number(label: str) -> float | None:
    return float(label) if re.fullmatch(r"[+-]?\d{1,15}(\.\d{1,15})?", label) else None


def _natural(label: str) -> list[tuple[int, int, str]]:
    parts = re.findall(r"\d+|\D+", label.casefold())
    return [(0, len(part.lstrip("0")), part.lstrip("0")) if part.isdecimal() else (1, 0, part) for part in parts]
