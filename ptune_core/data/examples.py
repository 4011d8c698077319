"""Rows of a table -> training and validation examples, and an account of every row that is not used."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from ptune_core.data.columns import guess_columns, map_columns
from ptune_core.data.labels import (
    MAX_LABELS,
    check_labels,
    is_label_column,
    odd_labels,
    quoted,
    sort_labels,
    unknown_labels,
)
from ptune_core.data.split import SplitOptions, split_by_group
from ptune_core.data.table import Table, numbered_rows, read_rows
from ptune_core.errors import DataError
from ptune_core.prompt.template import TargetKind, Template
from ptune_core.prompt.verbalizer import Verbalizer

__all__ = [
    "Example",
    "Examples",
    "Report",
    "SplitOptions",
    "build_examples",
    "guess_columns",
    "map_columns",
    "read_rows",
]


@dataclass(frozen=True)
class Example:
    """One usable row.

    Attributes:
        row: Its number in the source.
        values: Template column -> text, the target's column included.
    """

    row: int
    values: dict[str, str]


@dataclass(frozen=True)
class Report:
    """What became of the rows.

    Attributes:
        used: Rows that are examples, for training or validation.
        total: Rows in the source.
        dropped: Reason -> numbers of the rows that are not used for it.
        labels: Label -> number of examples, in the order of the label indices; empty for free text.
        duplicates: Examples that say the same as an earlier one.
        warnings: What may be a mistake, one sentence each.
    """

    used: int
    total: int
    dropped: dict[str, list[int]] = field(default_factory=dict)
    labels: dict[str, int] = field(default_factory=dict)
    duplicates: int = 0
    warnings: tuple[str, ...] = ()

    def summary(self) -> str:
        """One line: "Using 312 of 320 rows; 8 dropped: 5 empty text, 3 unknown label"."""
        if not self.dropped:
            return f"Using all {self.total} rows"
        by_count = sorted(self.dropped.items(), key=lambda item: -len(item[1]))
        reasons = ", ".join(f"{len(rows)} {reason}" for reason, rows in by_count)
        return f"Using {self.used} of {self.total} rows; {self.total - self.used} dropped: {reasons}"


@dataclass(frozen=True)
class Examples:
    """What a run trains and validates on.

    Attributes:
        train: Examples to learn from, in the order of the rows.
        validation: Examples to measure on, none of which says the same as one in `train`.
        verbalizer: Label -> answer words. None: the target is text to generate.
        report: What became of the rows.
    """

    train: tuple[Example, ...]
    validation: tuple[Example, ...]
    verbalizer: Verbalizer | None
    report: Report


def build_examples(
    table: Table,
    template: Template,
    *,
    columns: Mapping[str, str],
    labels: Mapping[str, str] | None,
    split: SplitOptions,
    validation: Table | None = None,
) -> Examples:
    """Turn rows into examples for a template.

    The target is a label if `labels` are given, if it is a classification head, or if its column has at most
    `MAX_GUESSED_LABELS` different values and two rows for each on average; else it is text to generate.

    Args:
        table: The rows.
        template: Says which columns are wanted.
        columns: Template column -> data column, where they are not to be guessed.
        labels: Label -> answer words. None: the labels of the data, each its own answer.
        split: How to set validation examples aside.
        validation: Rows to validate on; then none are set aside.

    Raises:
        DataError: Columns that do not fit, no usable rows, fewer than two labels, or more than `MAX_LABELS`.
        SettingsError: `labels` has an empty answer.
    """
    target = template.target.column
    loss = _Loss(table)
    mapping = map_columns(table.columns, template, columns, table.preview)
    rows = _filled(table, mapping, target, loss)
    is_head = template.target.kind is TargetKind.HEAD
    answers = None if labels is None else {label.strip(): answer for label, answer in labels.items()}
    names = _label_names(rows, target, answers, is_head)
    if names is not None:
        rows = _labelled(rows, target, names, loss)
    if len(rows) < (2 if validation is None else 1):
        raise DataError(
            "There are too few usable rows",
            got=loss.report(rows, target, names).summary(),
            needed="at least 2 rows with a text and a target",
            problems=loss.told(),
        )
    if names is not None:
        check_labels(_counts(rows, target, names), target)
    warnings: list[str] = []
    if validation is None:
        keys = None if names is None else [row.values[target] for row in rows]
        is_aside = split_by_group([_inputs(row, target) for row in rows], keys, split)
        train = tuple(row for row, aside in zip(rows, is_aside, strict=True) if not aside)
        held_out = tuple(row for row, aside in zip(rows, is_aside, strict=True) if aside)
    else:
        train = tuple(rows)
        held_out, warnings = _second_file(validation, template, mapping, names)
        texts = {_inputs(row, target) for row in train}
        if shared := sum(_inputs(row, target) in texts for row in held_out):
            warnings.append(f"{_rows(shared)} of the validation data with a text that is in the training data too.")
    guessed = [name for name, column in mapping.items() if name != column and name not in columns]
    warnings += [f"{{{name}}} of the template is read from the column {mapping[name]!r}" for name in guessed]
    report = loss.report(rows, target, names, warnings)
    if names is not None and answers is None and template.messages:
        # After a chat format's line break an answer's first token has no space in front.
        answers = {name: name for name in names}
    verbalizer = None if names is None else Verbalizer.from_labels(names, answers)
    return Examples(train, held_out, verbalizer, report)


class _Loss:
    """The rows of one table that are not used, by reason."""

    def __init__(self, table: Table) -> None:
        self._dropped: dict[str, list[int]] = {reason: list(rows) for reason, rows in table.dropped.items()}
        self._unknown = ""
        self.gaps: Counter[str] = Counter()

    def add(self, reason: str, row: int) -> None:
        self._dropped.setdefault(reason, []).append(row)

    def add_unknown(self, rows: Sequence[Example], target: str, names: Sequence[str]) -> None:
        for row in rows:
            self.add(f"unknown {target}", row.row)
        if rows:
            self._unknown = unknown_labels((row.values[target] for row in rows), names)

    def told(self) -> list[str]:
        """Every reason with its row numbers, and the unknown labels."""
        lines = [f"{reason}: {describe_rows(rows)}" for reason, rows in self._dropped.items()]
        return lines + [self._unknown] * bool(self._unknown)

    def report(
        self, rows: Sequence[Example], target: str, names: Sequence[str] | None, warnings: Sequence[str] = ()
    ) -> Report:
        """What became of the rows, of which `rows` are used."""
        counts = {} if names is None else _counts(rows, target, names)
        found = [self._unknown] * bool(self._unknown) + odd_labels(counts)
        found += [f"{_rows(count)} without {name}: used as they are." for name, count in self.gaps.items()]
        if names is None and 0 < len(values := {row.values[target] for row in rows}) <= MAX_LABELS:
            if 2 * len(values) <= len(rows):
                found.append(
                    f"{target!r} has {len(values)} different values and is taken as text to generate; "
                    "give the labels, or use [HEAD:…], to choose between them."
                )
        seen = Counter(tuple(row.values.values()) for row in rows)
        duplicates = len(rows) - len(seen)
        if duplicates:
            found.append(f"{_rows(duplicates)} the same as an earlier one: copies are kept, on one side of the split.")
        if names is not None and (torn := len(seen) - len({_inputs(row, target) for row in rows})):
            found.append(f"{_rows(torn)} with the text of an earlier row, but another label.")
        dropped = sum(map(len, self._dropped.values()))
        return Report(
            used=len(rows),
            total=len(rows) + dropped,
            dropped=self._dropped,
            labels=counts,
            duplicates=duplicates,
            warnings=(*found, *warnings),
        )


def _rows(count: int) -> str:
    return f"{count} row{'s' * (count != 1)}"


def describe_rows(rows: Sequence[int], most: int = 20) -> str:
    """Row numbers for a message: "rows 3, 17, 20 and 5 more"."""
    shown = ", ".join(map(str, sorted(rows)[:most]))
    more = f" and {len(rows) - most} more" if len(rows) > most else ""
    return f"row{'s' * (len(rows) > 1)} {shown}{more}"


def _filled(table: Table, mapping: Mapping[str, str], target: str, loss: _Loss) -> list[Example]:
    """The rows in which the target and at least one input have text: instructions often come without an input."""
    rows = []
    inputs = [name for name in mapping if name != target]
    for number, cells in numbered_rows(table, list(mapping.values())):
        values = {name: cells[column] for name, column in mapping.items()}
        empty = [name for name in inputs if not values[name].strip()]
        if inputs and empty == inputs:
            loss.add(f"empty {' and '.join(inputs)}", number)
        elif not values[target].strip():
            loss.add(f"empty {target}", number)
        else:
            loss.gaps.update(empty)
            rows.append(Example(number, values))
    return rows


def _label_names(
    rows: Sequence[Example], target: str, answers: Mapping[str, str] | None, is_head: bool
) -> list[str] | None:
    """The labels in the order of their indices; None if the target is text to generate."""
    if answers is not None:
        return list(answers)
    values = [row.values[target].strip() for row in rows]
    return sort_labels(values) if values and (is_head or is_label_column(values)) else None


def _labelled(rows: Sequence[Example], target: str, names: Sequence[str], loss: _Loss) -> list[Example]:
    """The rows whose target is one of the labels, without the spaces around it."""
    known = set(names)
    kept: list[Example] = []
    unknown: list[Example] = []
    for row in rows:
        label = row.values[target].strip()
        example = Example(row.row, {**row.values, target: label})
        (kept if label in known else unknown).append(example)
    loss.add_unknown(unknown, target, names)
    return kept


def _second_file(
    table: Table, template: Template, columns: Mapping[str, str], names: Sequence[str] | None
) -> tuple[tuple[Example, ...], list[str]]:
    """The validation examples of a table of their own, and what to tell about it."""
    target = template.target.column
    loss = _Loss(table)
    kept = {name: column for name, column in columns.items() if column in table.columns}
    rows = _filled(table, map_columns(table.columns, template, kept, table.preview), target, loss)
    if names is not None:
        rows = _labelled(rows, target, names, loss)
    report = loss.report(rows, target, names)
    if not rows:
        raise DataError(
            "The validation data has no usable rows",
            got=report.summary(),
            needed="rows with a text, and labels that the training data has",
            problems=loss.told(),
        )
    told = [f"Validation data: {report.summary()}."] if report.dropped else []
    if missing := [label for label, count in report.labels.items() if not count]:
        told.append(f"The validation data has no row with the label {quoted(missing)}.")
    return tuple(rows), told


def _counts(rows: Sequence[Example], target: str, names: Sequence[str]) -> dict[str, int]:
    counts = Counter(row.values[target] for row in rows)
    return {name: counts[name] for name in names}


def _inputs(row: Example, target: str) -> tuple[str, ...]:
    """What the base model reads of a row; rows of a template without input columns are all different."""
    return tuple(text for name, text in row.values.items() if name != target) or (str(row.row),)
