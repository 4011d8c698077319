"""Label every row of a file: the file's columns, and beside them `label` and one `p_<label>` each, as CSV."""

from __future__ import annotations

import csv
import os
import re
import tempfile
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import IO, Protocol

from ptune_core.data.ingest import ingest
from ptune_core.data.table import Table, read_rows
from ptune_core.errors import AdapterError, DataError, DiskFull
from ptune_core.files import NO_ROOM
from ptune_core.inference.protocol import Classification, Classify, Describe, Description, build_request

ROWS_PER_REQUEST = 64
ROWS_SHOWN = 20
"""Rows of the output that a report shows."""

Ask = Callable[[Sequence[Mapping[str, str]]], Classification]

_NO_LABEL = ""

_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")
_NUMBER = re.compile(r"[+-]?(\d+([.,]\d+)*|[.,]\d+)(e[+-]?\d+)?\s*%?", re.IGNORECASE)


class Classifier(Protocol):
    """Who knows adapters: `InferenceClient`, or `InProcess`."""

    def describe(self, adapter: Path) -> Description:
        """What the adapter is for."""

    def classify(self, adapter: Path, rows: Sequence[Mapping[str, str]], *, compare: bool = True) -> Classification:
        """Label probabilities of the rows."""


class InProcess:
    """Classifies in this very process, for the command line. Imports torch when it is made."""

    def __init__(self) -> None:
        from ptune_core.inference.engine import Engine

        self._engine = Engine()

    def describe(self, adapter: Path) -> Description:
        return self._engine.describe(build_request(Describe, {"adapter": str(adapter)}))

    def classify(self, adapter: Path, rows: Sequence[Mapping[str, str]], *, compare: bool = True) -> Classification:
        fields = {"adapter": str(adapter), "rows": list(rows), "compare": compare}
        return self._engine.classify(build_request(Classify, fields))


@dataclass(frozen=True)
class Progress:
    """Rows that have their label, and rows there are."""

    done: int
    rows: int


@dataclass(frozen=True)
class BatchReport:
    """What `classify_file` did.

    Attributes:
        output: The file it wrote.
        labels: Label -> number of rows that got it.
        blank: Rows without text, which got no label.
        problems: Rows of the input that could not be read and are not in the output, one line each.
        columns: Template column -> column of the input it was filled from.
        known: Rows that bring a label which is one of the adapter's.
        right: Those of them that got it.
        head: The first rows of the output, its header before them.
    """

    output: Path
    labels: dict[str, int]
    blank: int
    problems: tuple[str, ...]
    columns: dict[str, str]
    known: int = 0
    right: int = 0
    head: tuple[tuple[str, ...], ...] = ()

    def __str__(self) -> str:
        counts = ", ".join(f"{count} {label}" for label, count in self.labels.items())
        lines = [f"{sum(self.labels.values())} rows labelled in {self.output}: {counts}"]
        lines += [f"{{{name}}} was filled from the column {column!r}" for name, column in self.columns.items()]
        if self.known:
            share = self.right / self.known
            lines.append(f"Right in {self.right} of {self.known} rows that bring a label: {share:.3f}")
        if self.blank:
            lines.append(f"{self.blank} rows without text got no label")
        return "\n".join([*lines, *self.problems])


def classify_file(
    adapter: Path,
    source: Path,
    output: Path,
    *,
    classifier: Classifier | None = None,
    columns: Mapping[str, str] | None = None,
) -> BatchReport:
    """`label_file` without a look at how far it is."""
    return finish(label_file(adapter, source, output, classifier=classifier, columns=columns))


def finish(labelling: Generator[Progress, None, BatchReport]) -> BatchReport:
    """Go through all of `label_file` without a look at how far it is."""
    while True:
        try:
            next(labelling)
        except StopIteration as end:
            report: BatchReport = end.value
            return report


def label_file(
    adapter: Path,
    source: Path,
    output: Path,
    *,
    classifier: Classifier | None = None,
    columns: Mapping[str, str] | None = None,
) -> Generator[Progress, None, BatchReport]:
    """Label every row of `source`, in any format that `ingest` reads, and write them all to `output` as CSV (UTF-8).

    A column of the input that has the name of an added one is kept as `input_<name>`. A cell that a spreadsheet would
    run as a formula (it begins with = + - @, a tab or a carriage return, and is not a number) gets a ' in front. Rows
    without any text keep their place, with empty cells for the answer. `output` appears when it is complete; closing
    the generator before leaves nothing behind.

    Args:
        adapter: Folder or zip of a classification adapter.
        source: The rows.
        output: CSV file to write; replaced if it exists.
        classifier: Who classifies; None: this process.
        columns: Template column -> column of `source`, where neither the names of the run's data nor the template's do.

    Yields:
        How far it is: at first, and after every `ROWS_PER_REQUEST` rows.

    Raises:
        PTuneError: The file, its columns, the adapter or its base model cannot be used, or the disk is full.
    """
    classifier = InProcess() if classifier is None else classifier
    about = classifier.describe(adapter)
    if about["task"] != "classify":
        raise AdapterError("This adapter writes text, it has no labels to choose from", remedy="Use chat")
    ask = partial(classifier.classify, adapter, compare=False)
    with tempfile.TemporaryDirectory() as folder:
        table = ingest(source, Path(folder))
        filled_from = match_columns(about, table, columns or {})
        tally = _Tally(about, table, filled_from)
        yield Progress(0, table.num_rows)
        with _replaced(output) as file:
            writer = csv.writer(file, lineterminator="\n")
            tally.head.append([*map(escape_formula, _header(table.columns, about["labels"]))])
            writer.writerow(tally.head[0])
            for rows in _chunks(read_rows(table, table.columns), ROWS_PER_REQUEST):
                values = [{name: row[column] for name, column in filled_from.items()} for row in rows]
                for row, added in zip(rows, _added_cells(ask, values, len(about["labels"])), strict=True):
                    cells = [*map(escape_formula, [*row.values(), *added])]
                    tally.count(row, added[0], cells)
                    writer.writerow(cells)
                yield Progress(sum(tally.labels.values()), table.num_rows)
    return tally.report(output, table.problems)


class _Tally:
    """What is counted while a file is labelled."""

    def __init__(self, about: Description, table: Table, filled_from: dict[str, str]) -> None:
        self.labels = dict.fromkeys([*about["labels"], _NO_LABEL], 0)
        self.filled_from = filled_from
        self.gold = _label_column(about, table, filled_from)
        self.known = self.right = 0
        self.head: list[list[str]] = []

    def count(self, row: Mapping[str, str], label: str, cells: list[str]) -> None:
        self.labels[label] += 1
        gold = row[self.gold].strip() if self.gold else _NO_LABEL
        if gold != _NO_LABEL and label != _NO_LABEL and gold in self.labels:
            self.known += 1
            self.right += gold == label
        if len(self.head) <= ROWS_SHOWN:
            self.head.append(cells)

    def report(self, output: Path, problems: tuple[str, ...]) -> BatchReport:
        labels = dict(self.labels)
        blank, head = labels.pop(_NO_LABEL), tuple(map(tuple, self.head))
        return BatchReport(output, labels, blank, problems, self.filled_from, self.known, self.right, head)


def _label_column(about: Description, table: Table, filled_from: Mapping[str, str]) -> str | None:
    """The column that says the right label: named as in the run's data, else the first with nothing but labels."""
    free = [column for column in table.columns if column not in filled_from.values()]
    wanted = about["data_columns"].get(about["target"], about["target"])
    if wanted in free:
        return wanted
    known = {*about["labels"], _NO_LABEL}
    values = {column: {row[column].strip() for row in table.preview} for column in free}
    return next((column for column in free if values[column] - {_NO_LABEL} and values[column] <= known), None)


def match_columns(about: Description, table: Table, chosen: Mapping[str, str]) -> dict[str, str]:
    """Template column -> table column: as chosen, else named as in the run's data, else as in the template, else the
    only column there is.

    Raises:
        DataError: Names all columns that cannot be filled, or are chosen but not there.
    """
    found: dict[str, str] = {}
    problems = [f"there is no column {column!r}" for column in chosen.values() if column not in table.columns]
    problems += [f"the template has no column {{{name}}}" for name in chosen if name not in about["columns"]]
    for name in about["columns"]:
        wanted = [chosen[name]] if name in chosen else [about["data_columns"].get(name, name), name]
        if len(table.columns) == len(about["columns"]) == 1:
            wanted += table.columns
        match = next((column for column in wanted if column in table.columns), None)
        if match is not None:
            found[name] = match
        elif name not in chosen:
            problems.append(f"no column for {{{name}}}")
    if problems:
        raise DataError(
            f"The columns of {table.source or 'the file'} do not fit the adapter",
            problems=problems,
            got=", ".join(table.columns),
            needed=", ".join(about["columns"]),
            remedy="Rename the file's columns, or say which is which (command line: --column NAME=COLUMN)",
        )
    return found


def escape_formula(cell: str) -> str:
    """`cell` as a spreadsheet shows it instead of running it."""
    if cell.startswith(_FORMULA_STARTS) and not _NUMBER.fullmatch(cell.strip()):
        return f"'{cell}"
    return cell


def _header(columns: Sequence[str], labels: Sequence[str]) -> list[str]:
    added = ["label", *(f"p_{label}" for label in labels)]
    header: list[str] = []
    for column in columns:
        while column in added or column in header:
            column = f"input_{column}"
        header.append(column)
    return header + added


def _added_cells(ask: Ask, rows: Sequence[Mapping[str, str]], num_labels: int) -> Iterator[list[str]]:
    """The cells `label, p_…` of each row; all empty for a row without any text."""
    has_text = [any(text.strip() for text in row.values()) for row in rows]
    asked = [row for row, wanted in zip(rows, has_text, strict=True) if wanted]
    answer = ask(asked) if asked else None
    tuned = iter(answer["tuned"] if answer else ())
    for wanted in has_text:
        if answer is None or not wanted:
            yield [_NO_LABEL] * (1 + num_labels)
        else:
            probabilities = next(tuned)
            label = answer["labels"][probabilities.index(max(probabilities))]
            yield [label, *(f"{p:.6f}" for p in probabilities)]


def _chunks(rows: Iterable[dict[str, str]], size: int) -> Iterator[list[dict[str, str]]]:
    rows = iter(rows)
    while chunk := list(islice(rows, size)):
        yield chunk


@contextmanager
def _replaced(path: Path) -> Iterator[IO[str]]:
    """A text file that takes the place of `path` when the block ends well, and leaves nothing behind when not."""
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with unfinished.open("w", encoding="utf-8", newline="") as file:
            yield file
        os.replace(unfinished, path)
    except OSError as error:
        if error.errno in NO_ROOM:
            raise DiskFull("There is no room to write the labelled rows", got=str(path)) from error
        raise DataError(f"{path} cannot be written", got=error.strerror or str(error)) from error
    finally:
        with suppress(OSError):  # such as a folder that is a file: the error above says so
            unfinished.unlink(missing_ok=True)
