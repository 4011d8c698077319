"""A row as one string, for whoever has a tokenizer and no PTune.

Training tokenises text between virtual tokens as strings of their own. How the whole must be written, special tokens
and spaces included, so that the tokenizer alone makes the same row of it is found by trying: tokenizers differ in what
they do to text beside a special token.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from ptune_core.data.batching import RowMaker
from ptune_core.errors import AdapterError
from ptune_core.prompt.template import Column, Literal, Segment, Special, Template, VirtualTokens

_SPACINGS: tuple[Callable[[str], str], ...] = (
    lambda text: text,
    lambda text: " " + text.removeprefix(" "),
    lambda text: text.removeprefix(" "),
)
"""What a text may need that stands after a virtual token or at the start."""

PROBES = ("the film was great", "A", " (so it goes)", "1984?", "naïve café — 東京", "Write a text here.\nTwo lines.")
"""Texts that tokenizers treat in different ways."""


@dataclass(frozen=True)
class RowText:
    """How rows of one template are written for one tokenizer, which then adds no special tokens of its own.

    Attributes:
        template: Resolved and expanded.
        names: Of the virtual tokens, P; empty strings leave them out.
        specials: The tokenizer, for its special tokens.
        before: What the tokenizer would put before a text.
        after: What it would put after it.
        spacing: Applied to every text that stands together.
    """

    template: Template
    names: Sequence[str]
    specials: Any
    before: str
    after: str
    spacing: Callable[[str], str]

    def __call__(self, values: Mapping[str, str]) -> str:
        """The string for one row, from template column -> text."""
        return self._written(lambda column: column.apply(values[column.name]))

    @property
    def pattern(self) -> str:
        """The string with each column in braces, its filters behind bars."""
        return self._written(lambda column: "{" + "|".join([column.name, *column.filters]) + "}")

    def _written(self, show: Callable[[Column], str]) -> str:
        parts: list[str] = []
        first_rows = _first_rows(self.template)
        for is_text, group in groupby(self.template.segments, key=lambda part: isinstance(part, Literal | Column)):
            if is_text:
                texts = [part.text if isinstance(part, Literal) else show(_column(part)) for part in group]
                parts.append(self.spacing("".join(texts)))
                continue
            for part in group:
                if isinstance(part, VirtualTokens):
                    start = first_rows[part.group]
                    parts.append("".join(self.names[start : start + (part.count or 0)]))
                elif isinstance(part, Special):
                    parts.append(str(getattr(self.specials, f"{part.kind.lower()}_token")))
        # PEFT puts the prompt before the tokenizer's own first special token too.
        parts.insert(1 if self.template.is_front else 0, self.before)
        return "".join([*parts, self.after])


def find_row_text(rows: RowMaker, tokenizer: Any, names: Sequence[str]) -> RowText:
    """How to write rows so that `tokenizer(text, add_special_tokens=False)` gives what training gave.

    Args:
        rows: Makes the rows of training.
        tokenizer: That of the base model; it knows `names`, P of them. Empty names: rows without virtual tokens.
        names: In the order of the prompt embeddings.

    Raises:
        AdapterError: No way of writing them does.
    """
    before, after = _affixes(rows.tokenizer)
    ids = tokenizer.convert_tokens_to_ids([name for name in names if name])
    probes = [dict.fromkeys(rows.template.columns, probe) for probe in PROBES]
    # Only columns are cut, by tokens and not by text.
    whole = [(values, row) for values in probes if not (row := rows.row(values)).num_cut]
    expected = [_ids(row.ids, ids) for _, row in whole]
    for around in (("", ""), (before, ""), ("", after), (before, after)):
        for spacing in _SPACINGS:
            candidate = RowText(rows.template, names, tokenizer, *around, spacing)
            texts = [candidate(values) for values, _ in whole]
            if texts and tokenizer(texts, add_special_tokens=False)["input_ids"] == expected:
                return candidate
    raise AdapterError(
        "The base model's tokenizer makes other tokens of the template as one text than training did of its parts",
        got=rows.template.text,
        remedy="Export it in the format peft, whose zip has a script that makes the rows as in training",
    )


def _ids(numbers: Sequence[int], new_ids: Sequence[int]) -> list[int]:
    """A row as token ids: virtual tokens by their new ids, or left out where there are none."""
    if not new_ids:
        return [number for number in numbers if number >= 0]
    return [number if number >= 0 else new_ids[-number - 1] for number in numbers]


def _column(part: Segment) -> Column:
    assert isinstance(part, Column)
    return part


def _first_rows(template: Template) -> dict[int, int]:
    """Group -> its first row in the prompt embeddings."""
    starts, total = {}, 0
    for group in template.groups:
        starts[group.group] = total
        total += group.count or 0
    return starts


def _affixes(tokenizer: Any) -> tuple[str, str]:
    """The special tokens a tokenizer puts before and after a text, as text."""
    plain, full = tokenizer("a", add_special_tokens=False)["input_ids"], tokenizer("a")["input_ids"]
    starts = [i for i in range(len(full) - len(plain) + 1) if full[i : i + len(plain)] == plain]
    if not starts:
        return "", ""
    sides = full[: starts[0]], full[starts[0] + len(plain) :]
    before, after = ("".join(tokenizer.convert_ids_to_tokens(side)) for side in sides)
    return before, after
