"""Which data column fills which column of a template."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType

from ptune_core.errors import DataError
from ptune_core.prompt.template import Template

MAX_GUESSED_LABELS = 50
"""A column with more different values is text to generate, unless labels were given or the target is a head."""

_SYNONYMS = (
    ("text", "sentence", "review", "content", "comment", "document", "passage", "tweet", "message", "body"),
    ("label", "labels", "category", "class", "sentiment", "target", "intent", "topic", "gold", "labeltext"),
    ("answer", "answers", "output", "response", "completion", "reply", "target", "summary", "highlights"),
    ("question", "query", "prompt", "instruction", "input"),
    ("text", "question", "query", "prompt", "instruction", "input"),
    ("label", "answer", "answers", "output", "response", "completion", "reply", "summary"),
    ("context", "passage", "document", "article", "dialogue", "text"),
    ("premise", "sentence1", "text1", "texta"),
    ("hypothesis", "sentence2", "text2", "textb"),
    ("title", "headline", "subject"),
)
"""Names that are used for the same thing. A name finds the others of its groups, the first ones first."""


def guess_columns(
    columns: Sequence[str],
    rows: Sequence[Mapping[str, str]],
    template: Template,
    chosen: Mapping[str, str] = MappingProxyType({}),
    of_answers: Sequence[str] = (),
) -> dict[str, str]:
    """Data column for each template column that one can be found for, no data column twice.

    By the same name first, then by names used for the same thing, last by content: the target is the column with the
    fewest different values, a single input the column with the longest texts.

    Args:
        columns: Data columns.
        rows: Some rows, to look at the content; may be empty.
        template: The template whose input and target columns are wanted.
        chosen: Template column -> data column that need no guess; they are part of the answer.
        of_answers: Columns that the verbalizer's answers are filled from.
    """
    guess = dict(chosen)
    target = template.target.column
    inputs = inputs_of(template, of_answers)
    for similarity in (_same, _alike, _synonym):
        for name in (target, *inputs):
            free = [column for column in columns if column not in guess.values()]
            if name not in guess and (found := similarity(name, free)):
                guess[name] = found
    free = [column for column in columns if column not in guess.values()]
    if target not in guess and (label := _label_column(free, rows)):
        guess[target] = label
        free.remove(label)
    missing = [name for name in inputs if name not in guess]
    if len(missing) == 1 and missing[0] in template.columns and (text := _text_column(free, rows)):
        guess[missing[0]] = text
    return {name: guess[name] for name in (*inputs, target) if name in guess}


def inputs_of(template: Template, of_answers: Sequence[str]) -> tuple[str, ...]:
    """Every column but the target's that an example is made from, each once: the template's, then those of answers."""
    return tuple(dict.fromkeys((*template.columns, *of_answers)))


def map_columns(
    columns: Sequence[str],
    template: Template,
    chosen: Mapping[str, str],
    rows: Sequence[Mapping[str, str]] = (),
    of_answers: Sequence[str] = (),
) -> dict[str, str]:
    """Data column for every template column, the target's last: what was chosen, else what is guessed.

    Args:
        columns: Data columns.
        template: The template.
        chosen: Template column -> data column.
        rows: Some rows, which help guessing.
        of_answers: Columns that the verbalizer's answers are filled from.

    Raises:
        DataError: Columns that were chosen but do not exist, and columns that none was found for; all at once.
    """
    wanted = (*inputs_of(template, of_answers), template.target.column)
    problems = [
        f"the template has no column {{{name}}}; its columns are {_listed(wanted)}"
        for name in chosen
        if name not in wanted
    ]
    problems += [
        f"the data has no column {column!r}, chosen for {{{name}}}"
        for name, column in chosen.items()
        if name in wanted and column not in columns
    ]
    mapping = guess_columns(columns, rows, template, chosen, of_answers)
    problems += [f"no column was found for {{{name}}}" for name in wanted if name not in mapping]
    if problems:
        raise DataError(
            "The template's columns and the data's do not fit together",
            needed=f"columns of the data: {_listed(columns)}",
            remedy="Choose a data column for each column of the template, or write its name into the template",
            problems=problems,
        )
    return {name: mapping[name] for name in wanted}


def _same(name: str, columns: Iterable[str]) -> str | None:
    return next((column for column in columns if column == name), None)


def _alike(name: str, columns: Iterable[str]) -> str | None:
    return next((column for column in columns if _plain(column) == _plain(name)), None)


def _synonym(name: str, columns: Sequence[str]) -> str | None:
    plain = {_plain(column): column for column in reversed(columns)}
    for group in _SYNONYMS:
        if _plain(name) in group:
            for other in group:
                if other in plain:
                    return plain[other]
    return None


def _plain(name: str) -> str:
    return "".join(char for char in name.casefold() if char.isalnum())


def _label_column(columns: Sequence[str], rows: Sequence[Mapping[str, str]]) -> str | None:
    """The column with the fewest different values, if these come twice on average; of equals, the last."""
    best = None
    fewest = MAX_GUESSED_LABELS
    for column in columns:
        values = {row[column].strip() for row in rows} - {""}
        if 2 <= len(values) <= fewest and 2 * len(values) <= len(rows):
            best, fewest = column, len(values)
    return best


def _text_column(columns: Sequence[str], rows: Sequence[Mapping[str, str]]) -> str | None:
    if len(columns) <= 1 or not rows:
        return columns[0] if len(columns) == 1 else None
    return max(columns, key=lambda column: sum(len(row[column]) for row in rows))


def _listed(names: Sequence[str], most: int = 30) -> str:
    shown = ", ".join(names[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"
