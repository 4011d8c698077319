"""What the Train tab says about data and template before anything is trained. Plain Python, no gradio, no torch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ptune_core.data.examples import (
    Examples,
    Report,
    build_examples,
    describe_rows,
    guess_columns,
    map_columns,
)
from ptune_core.data.table import Table
from ptune_core.errors import DataError
from ptune_core.prompt.segments import Column, Literal, Special, Target, TargetKind, VirtualTokens
from ptune_core.prompt.template import Template
from ptune_core.prompt.verbalizer import answer_columns
from ptune_core.training.settings import RunSettings

_MAX_CELL = 400


@dataclass(frozen=True)
class DataReport:
    """What the rows give with this template.

    Attributes:
        text: The report line, such as "Using 312 of 320 rows; 8 dropped: ...".
        problems: Rows that are left out and other remarks, one line each.
        labels: Label -> number of rows; empty for free text.
        verbalizer: Label -> answer words; empty for free text and for a classification head.
    """

    text: str
    problems: tuple[str, ...]
    labels: dict[str, int]
    verbalizer: dict[str, str]


def needed_columns(template: Template) -> tuple[str, ...]:
    """The template's columns, the target's last."""
    return (*template.columns, template.target.column)


def varied_rows(rows: Sequence[Mapping[str, str]], column: str, count: int) -> list[Mapping[str, str]]:
    """At most `count` of `rows`: the first of each value of `column`, then the second of each, and so on.

    The first rows of a sorted file all have one label, which would look like all there is.
    """
    seen: Counter[str] = Counter()
    rounds = []
    for row in rows:
        value = row.get(column, "")
        rounds.append(seen[value])
        seen[value] += 1
    return [rows[i] for i in sorted(range(len(rows)), key=rounds.__getitem__)[:count]]


def choose_columns(table: Table, template: Template, chosen: Mapping[str, str]) -> dict[str, str]:
    """Data column for each template column that has one: what was chosen where it still exists, else the best guess.

    A template column for which "" was chosen has none.
    """
    wanted = {name: column for name, column in chosen.items() if name in needed_columns(template)}
    guess = guess_columns(table.columns, table.preview, template)
    kept = {name: column for name, column in wanted.items() if column in table.columns}
    free = {name: column for name, column in guess.items() if column not in kept.values() and wanted.get(name) != ""}
    return free | kept


def check_chosen(template: Template, chosen: Mapping[str, str]) -> None:
    """Refuse to guess where a person said that no data column is read.

    Raises:
        DataError: With the template's columns that would have none.
    """
    if missing := [f"{{{name}}}" for name in needed_columns(template) if chosen.get(name) == ""]:
        raise DataError(
            f"No column of the data is read for {', '.join(missing)}",
            remedy="Choose one over the columns of the table, or take it out of the template",
        )


def report_on(table: Table, settings: RunSettings) -> DataReport:
    """Read all rows as the run will.

    Raises:
        DataError: The rows cannot be trained on; with every problem.
        SettingsError: The verbalizer does not fit the labels.
    """
    examples = examples_of(table, settings)
    report = examples.report
    problems = (*table.problems, *_dropped(report, table), *report.warnings)
    return DataReport(report.summary(), problems, report.labels, answers_of(examples, settings))


def examples_of(table: Table, settings: RunSettings) -> Examples:
    """All rows as the run will read them.

    Raises:
        DataError: The rows cannot be trained on; with every problem.
        SettingsError: The verbalizer does not fit the labels.
    """
    template = settings.parsed_template
    labels = {} if settings.candidates else settings.labels
    columns = map_columns(table.columns, template, settings.columns, (), answer_columns(labels or {}))
    return build_examples(table, template, columns=columns, labels=labels, split=settings.split)


def answers_of(examples: Examples, settings: RunSettings) -> dict[str, str]:
    """Label -> answer words; empty for free text and for a classification head."""
    if examples.verbalizer is None or settings.parsed_template.target.kind is TargetKind.HEAD:
        return {}
    return dict(examples.verbalizer.answers)


def _dropped(report: Report, table: Table) -> list[str]:
    """Why rows are not used; those that could not even be read have their own lines in `table.problems`."""
    lines = []
    for reason, rows in report.dropped.items():
        if reason in table.dropped:
            continue
        lines.append(f"{reason}: {describe_rows(rows, most=8)}")
    return lines


Piece = tuple[str, str]
"""Text and its kind: `virtual`, `target`, `special`, `column`, or `text` for the template's own words."""


def example_pieces(template: Template, row: Mapping[str, str], columns: Mapping[str, str]) -> list[Piece]:
    """The template filled with one row, as pieces that are not cut into tokens."""
    return [_piece(segment, row, columns) for segment in template.segments]


def _piece(
    segment: Literal | Column | VirtualTokens | Special | Target, row: Mapping[str, str], columns: Mapping[str, str]
) -> Piece:
    def value(name: str) -> str:
        text = row.get(columns.get(name, name), "")
        return text if len(text) <= _MAX_CELL else text[:_MAX_CELL] + "…"

    match segment:
        case Literal(text=text):
            return text, "text"
        case Column():
            return segment.apply(value(segment.name)), "column"
        case VirtualTokens(count=count, init_text=init_text):
            return (f"P×{count}" if count else f"P “{init_text}”"), "virtual"
        case Special(kind=kind):
            return f"[{kind}]", "special"
        case Target():
            return value(segment.column), "target"
