"""Rows as a base model's tokenizer reads them: questions of the page to the inference process. No gradio, no torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from ptune_core.app.data_report import example_pieces
from ptune_core.app.uploads import Uploads
from ptune_core.data.columns import inputs_of
from ptune_core.data.table import Table, cells_at
from ptune_core.errors import DataError, NotOnThisMachine, PTuneError
from ptune_core.inference.protocol import MAX_REQUEST_CHARACTERS, MAX_ROWS, Looked, Measured
from ptune_core.prompt.template import Template, parse_template
from ptune_core.prompt.verbalizer import answer_columns

MOST_VALUE_CHARACTERS = 100_000
BARS = 16


class Looker(Protocol):
    """What of `Service` is asked."""

    uploads: Uploads

    def look(self, fields: Mapping[str, object]) -> Looked:
        """As `InferenceClient.look`."""

    def measure(self, fields: Mapping[str, object]) -> Measured:
        """As `InferenceClient.measure`."""


@dataclass(frozen=True)
class Lengths:
    """How long rows are.

    Attributes:
        unit: `tokens` or `words`.
        lengths: Of the rows that were measured.
        num_rows: Rows there are.
        cut: How many of the measured ones are cut; None where only words were counted.
        max_length: Tokens of the longest row.
        why: Why words were counted.
    """

    unit: str
    lengths: tuple[int, ...]
    num_rows: int
    cut: int | None = None
    max_length: int = 0
    why: str = field(default="")

    def bars(self) -> list[tuple[int, int, int]]:
        """Shortest and longest length of each bar of a histogram, and its rows."""
        low, high = min(self.lengths), max(self.lengths)
        width = max(1, -(-(high - low + 1) // BARS))
        counts = np.bincount((np.array(self.lengths) - low) // width)
        return [(low + i * width, min(high, low + (i + 1) * width - 1), int(count)) for i, count in enumerate(counts)]


def question_of(
    token: str, template_text: str, columns: Mapping[str, str], answers: Mapping[str, str], model: Sequence[Any]
) -> dict[str, Any]:
    """What the preview's script asks with, but for the row.

    Args:
        token: Of the data.
        template_text: The template.
        columns: Template column -> data column.
        answers: Label -> answer words; empty where the target is text or a classification head.
        model: Base model, revision and longest row, as their controls hold them.
    """
    base_model, revision, max_length = model
    longest = str(max_length or "").strip()
    return {
        "token": token,
        "template": template_text,
        "columns": dict(columns),
        "labels": dict(answers) or None,
        "base_model": str(base_model or "").strip(),
        "revision": str(revision or "").strip() or None,
        "max_length": int(longest) if longest.isdecimal() and len(longest) < 9 else None,
    }


def look_at_row(service: Looker, question: Mapping[str, Any]) -> dict[str, Any]:
    """One row token by token: the fields of `Looked`, or `error` and `plain`, the pieces of the row without tokens.

    `row` and `rows` say which row it is, from 0, and of how many; `can_fetch` whether its base model's tokenizer is
    somewhere else. Open to anybody who can reach the page: every field may be anything.

    Raises:
        PTuneError: There is no such data, or no such template.
    """
    asked, table, template, columns = _checked(service, question)
    place = question.get("row")
    place = min(max(place, 0), table.num_rows - 1) if isinstance(place, int) else 0
    (values,) = _values(table, template, asked, columns, np.array([place]))
    shown: dict[str, Any] = {"row": place, "rows": table.num_rows}
    try:
        fetch = question.get("fetch") is True
        return shown | service.look({**asked, "fetch": fetch, "values": values})
    except PTuneError as error:
        pieces = example_pieces(template, values, {})
        return shown | {"error": str(error), "plain": pieces, "can_fetch": isinstance(error, NotOnThisMachine)}


def measure_rows(service: Looker, question: Mapping[str, Any]) -> Lengths:
    """The lengths of rows spread over the table, in tokens, or in words where there is no tokenizer.

    Raises:
        PTuneError: There is no such data, or no such template.
    """
    asked, table, template, columns = _checked(service, question)
    count = min(table.num_rows, MAX_ROWS)
    places = np.unique(np.linspace(0, table.num_rows - 1, count).astype(np.int64))
    rows = _values(table, template, asked, columns, places)
    total = 0
    for i, values in enumerate(rows):
        total += sum(map(len, values.values()))
        if total > MAX_REQUEST_CHARACTERS:
            rows = rows[: max(1, i)]
            break
    try:
        measured = service.measure({**asked, "rows": rows})
    except PTuneError as error:
        inputs = inputs_of(template, ())
        words = tuple(sum(len(values[name].split()) for name in inputs) for values in rows)
        return Lengths("words", words, table.num_rows, why=str(error))
    found = [(length, cut) for length, cut in zip(measured["lengths"], measured["cut"], strict=True) if length >= 0]
    cut = sum(cut > 0 for _, cut in found) + len(rows) - len(found)
    lengths = tuple(length for length, _ in found) or (measured["max_length"],)
    return Lengths("tokens", lengths, table.num_rows, cut, measured["max_length"])


def _checked(service: Looker, question: Mapping[str, Any]) -> tuple[dict[str, Any], Table, Template, dict[str, str]]:
    """The fields to ask with, and the data, template and columns they are about."""
    token, text, columns = (question.get(name) for name in ("token", "template", "columns"))
    if not isinstance(token, str) or not isinstance(text, str) or not isinstance(columns, dict):
        raise DataError("The preview was asked for nothing that there is", remedy="Reload the page")
    table, template = service.uploads.open(token), parse_template(text[:4000])
    known = {str(name): column for name, column in columns.items() if column in table.columns}
    if not table.num_rows:
        raise DataError("There are no rows to look at")
    names = ("base_model", "revision", "template", "labels", "max_length")
    return {name: question.get(name) for name in names}, table, template, known


def _values(
    table: Table, template: Template, asked: Mapping[str, Any], columns: Mapping[str, str], places: np.ndarray
) -> list[dict[str, str]]:
    """Template column -> text of some rows; a column that no data column is read for is empty."""
    labels = asked["labels"] if isinstance(asked["labels"], dict) else {}
    answers = answer_columns({str(label): str(answer) for label, answer in labels.items()})
    of_answers = {name: name for name in answers if name in table.columns}
    wanted = (*inputs_of(template, answers), template.target.column)
    read = {name: column for name, column in (of_answers | dict(columns)).items() if name in wanted}
    rows = []
    for cells in cells_at(table, list(read.values()), places):
        for texts in zip(*cells, strict=True):
            found = dict(zip(read, (text[:MOST_VALUE_CHARACTERS] for text in texts), strict=True))
            rows.append({name: found.get(name, "") for name in wanted})
    return rows or [dict.fromkeys(wanted, "")]
