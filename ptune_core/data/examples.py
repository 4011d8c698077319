"""Rows of a table -> training and validation examples, and an account of every row that is not used."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from ptune_core.data.columns import guess_columns, map_columns
from ptune_core.data.example_set import Example, ExampleSet
from ptune_core.data.labels import (
    MAX_LABELS,
    check_labels,
    is_label_column,
    odd_labels,
    quoted,
    sort_labels,
    too_many_labels,
    unknown_labels,
)
from ptune_core.data.scan import count_different, hash_all, repeated, scan_table
from ptune_core.data.split import SplitOptions, few_of_each, split_by_group
from ptune_core.data.table import Table, read_rows
from ptune_core.errors import DataError
from ptune_core.prompt.template import TargetKind, Template
from ptune_core.prompt.verbalizer import Verbalizer, answer_columns

__all__ = [
    "Example",
    "ExampleSet",
    "Examples",
    "Report",
    "SplitOptions",
    "build_examples",
    "guess_columns",
    "map_columns",
    "read_rows",
]


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
        few: In words, how many of the examples a few-shot run uses; empty: all.
    """

    used: int
    total: int
    dropped: dict[str, list[int]] = field(default_factory=dict)
    labels: dict[str, int] = field(default_factory=dict)
    duplicates: int = 0
    warnings: tuple[str, ...] = ()
    few: str = ""

    def summary(self) -> str:
        """One line: "Using 312 of 320 rows; 8 dropped: 5 empty text, 3 unknown label"."""
        few = f"; {self.few}" * bool(self.few)
        if not self.dropped:
            return ("Using 1 row" if self.total == 1 else f"Using all {self.total} rows") + few
        by_count = sorted(self.dropped.items(), key=lambda item: -len(item[1]))
        reasons = ", ".join(f"{len(rows)} {reason}" for reason, rows in by_count)
        return f"Using {self.used} of {self.total} rows; {self.total - self.used} dropped: {reasons}{few}"


@dataclass(frozen=True)
class Examples:
    """What a run trains and validates on.

    Attributes:
        train: Examples to learn from, in the order of the rows.
        validation: Examples to measure on, none of which says the same as one in `train`.
        verbalizer: Label -> answer words. None: the target is text to generate.
        report: What became of the rows.
    """

    train: ExampleSet
    validation: ExampleSet
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
        labels: Label -> answer words, perhaps filled from columns. None: the labels of the data, each its own answer.
            Empty: there are none, the target is text however few different values it has.
        split: How to set validation examples aside.
        validation: Rows to validate on; then none are set aside.

    Raises:
        DataError: Columns that do not fit, no usable rows, fewer than two labels, or more than `MAX_LABELS`.
        SettingsError: `labels` has an empty answer.
    """
    of_answers = answer_columns(labels or {})
    mapping = map_columns(table.columns, template, columns, table.preview, of_answers)
    used = _UsedRows(table, mapping, template, of_answers)
    answers = None if not labels else {label.strip(): answer for label, answer in labels.items()}
    names = list(answers) if answers is not None else used.label_names() if labels is None else None
    if names is not None:
        used.keep_labels(names)
    if len(used.facts) < (2 if validation is None else 1):
        raise DataError(
            "There are too few usable rows",
            got=used.report().summary(),
            needed="at least 2 rows with a text and a target",
            problems=used.told(),
        )
    if names is not None:
        check_labels(used.label_counts(), template.target.column)
    train = used.examples()
    warnings: list[str] = []
    if validation is None:
        is_aside = split_by_group(used.facts.inputs, train.labels, split)
        train, held_out = train.select(~is_aside), train.select(is_aside)
    else:
        second, warnings = _second_file(validation, used)
        held_out = second.examples()
        shared = second.facts.rows[np.isin(second.facts.inputs, used.facts.inputs)].tolist()
        if template.columns and shared:
            told = f"{_rows(len(shared))} of the validation data with a text that is in the training data too"
            warnings.append(f"{told}: {describe_rows(shared)}.")
    few = ""
    if split.per_label:
        chosen = few_of_each(np.zeros(len(train)) if train.labels is None else train.labels, split)
        train, each = train.select(chosen), " for each label" if names is not None else ""
        few = f"{len(train)} to train on, at most {split.per_label}{each}, and {len(held_out)} to validate on"
    guessed = [name for name, column in mapping.items() if name != column and name not in columns]
    warnings += [f"{{{name}}} of the template is read from the column {mapping[name]!r}" for name in guessed]
    if names is not None and answers is None and template.messages:
        # After a chat format's line break an answer's first token has no space in front.
        answers = {name: name for name in names}
    verbalizer = None if names is None else Verbalizer.from_labels(names, answers)
    return Examples(train, held_out, verbalizer, replace(used.report(warnings), few=few))


class _UsedRows:
    """The rows of one table that are used, and an account of those that are not.

    Attributes:
        facts: Of the rows that are used.
        names: The labels that `keep_labels` was told; None: the target is text.
    """

    def __init__(self, table: Table, columns: Mapping[str, str], template: Template, of_answers: Sequence[str]) -> None:
        self.table, self.columns, self.template, self.of_answers = table, columns, template, of_answers
        self.target = template.target.column
        scan = scan_table(table, columns, (*of_answers, self.target))
        self.facts, self.gaps = scan.facts, scan.gaps
        self._dropped = {reason: list(rows) for reason, rows in table.dropped.items()}
        for reason, rows in scan.dropped.items():
            self._dropped.setdefault(reason, []).extend(rows)
        self._unknown = ""
        self.names: Sequence[str] | None = None
        self._indices: np.ndarray | None = None

    def label_names(self) -> list[str] | None:
        """The labels there are, in the order of their indices; None if the target is text to generate.

        Raises:
            DataError: The target is a classification head's, and there are more than `MAX_LABELS`.
        """
        is_head = self.template.target.kind is TargetKind.HEAD
        _, first = np.unique(self.facts.labels, return_index=True)
        if not len(first) or not (is_head or is_label_column(len(first), len(self.facts))):
            return None
        if len(first) > MAX_LABELS:
            raise too_many_labels(len(first), self.target)
        return sort_labels(self._targets(first))

    def keep_labels(self, names: Sequence[str]) -> None:
        """Use only the rows whose target is one of the labels, without the spaces around it."""
        hashes, first, found, counts = np.unique(
            self.facts.labels, return_index=True, return_inverse=True, return_counts=True
        )
        index_of = dict(zip(hash_all(names).tolist(), range(len(names)), strict=True))
        index = np.array([index_of.get(hashed, -1) for hashed in hashes.tolist()], dtype=np.int32)
        unknown = np.flatnonzero(index < 0)
        if len(unknown):
            # The most frequent first; of equals, what comes first.
            most = unknown[np.lexsort((first[unknown], -counts[unknown]))[:10]]
            told = dict(zip(self._targets(first[most]), counts[most].tolist(), strict=True))
            self._unknown = unknown_labels(told, len(unknown), names)
            rows = self.facts.rows[index[found] < 0].tolist()
            self._dropped.setdefault(f"unknown {self.target}", []).extend(rows)
        is_known = index[found] >= 0
        self.facts, self.names, self._indices = self.facts.select(is_known), names, index[found][is_known]

    def label_counts(self) -> dict[str, int]:
        """Label -> rows; empty if the target is text to generate."""
        if self.names is None or self._indices is None:
            return {}
        return dict(zip(self.names, np.bincount(self._indices, minlength=len(self.names)).tolist(), strict=True))

    def examples(self) -> ExampleSet:
        """The rows that are used."""
        return ExampleSet(self.table, self.columns, self.target, self.facts.places, self.facts.rows, self._indices)

    def told(self) -> list[str]:
        """Every reason with its row numbers, and the unknown labels."""
        lines = [f"{reason}: {describe_rows(rows)}" for reason, rows in self._dropped.items()]
        return lines + [self._unknown] * bool(self._unknown)

    def report(self, warnings: Sequence[str] = ()) -> Report:
        """What became of the rows."""
        facts, counts = self.facts, self.label_counts()
        found = [self._unknown] * bool(self._unknown) + odd_labels(counts)
        found += [f"{_rows(count)} without {name}: used as they are." for name, count in self.gaps.items()]
        if self.names is None:
            values = count_different(facts.targets)
            if 0 < values <= MAX_LABELS and 2 * values <= len(facts):
                found.append(
                    f"{self.target!r} has {values} different values and is taken as text to generate; "
                    "give the labels, or use [HEAD:…], to choose between them."
                )
        keys = facts.targets if self.names is None else facts.labels
        copies = facts.rows[repeated(facts.inputs, keys)].tolist()
        if copies:
            told = f"{_rows(len(copies))} the same as an earlier one: copies are kept, on one side of the split"
            found.append(f"{told} ({describe_rows(copies)}).")
        if self.names is not None:
            torn = np.setdiff1d(facts.rows[repeated(facts.inputs)], copies).tolist()
            if torn:
                told = f"{_rows(len(torn))} with the text of an earlier row, but another label"
                found.append(f"{told}: {describe_rows(torn)}.")
        dropped = sum(map(len, self._dropped.values()))
        return Report(
            used=len(facts),
            total=len(facts) + dropped,
            dropped=self._dropped,
            labels=counts,
            duplicates=len(copies),
            warnings=(*found, *warnings),
        )

    def _targets(self, indices: np.ndarray) -> list[str]:
        """The targets of some rows, without the spaces around them, in the order of `indices`."""
        examples = replace(self.examples(), columns={self.target: self.columns[self.target]})
        return [example.values[self.target].strip() for example in examples.read(indices.tolist())]


def _rows(count: int) -> str:
    return f"{count} row{'s' * (count != 1)}"


def describe_rows(rows: Sequence[int], most: int = 20) -> str:
    """Row numbers for a message: "rows 3, 17, 20 and 5 more"."""
    shown = ", ".join(map(str, sorted(rows)[:most]))
    more = f" and {len(rows) - most} more" if len(rows) > most else ""
    return f"row{'s' * (len(rows) > 1)} {shown}{more}"


def _second_file(table: Table, first: _UsedRows) -> tuple[_UsedRows, list[str]]:
    """The rows of a table of their own to validate on, and what to tell about them."""
    kept = {name: column for name, column in first.columns.items() if column in table.columns}
    mapping = map_columns(table.columns, first.template, kept, table.preview, first.of_answers)
    used = _UsedRows(table, mapping, first.template, first.of_answers)
    if first.names is not None:
        used.keep_labels(first.names)
    report = used.report()
    if not len(used.facts):
        raise DataError(
            "The validation data has no usable rows",
            got=report.summary(),
            needed="rows with a text, and labels that the training data has",
            problems=used.told(),
        )
    told = [f"Validation data: {report.summary()}."] if report.dropped else []
    if missing := [label for label, count in report.labels.items() if not count]:
        told.append(f"The validation data has no row with the label {quoted(missing)}.")
    return used, told
