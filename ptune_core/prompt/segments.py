"""The parts a template is made of. Pure data, no torch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal as OneOf


class TargetKind(StrEnum):
    """What the model is trained to produce, and where."""

    ANSWER = "ANSWER"  # words after the text, by a causal or seq2seq model
    MASK = "MASK"  # words in place of mask tokens, by a masked model
    HEAD = "HEAD"  # a label, by a classification head


SENTENCE_PUNCTUATION = ".,;:!?…。，、；：！？"

FILTERS: dict[str, Callable[[str], str]] = {
    # Makes room for the template's own anchor, as in `{hypothesis|strip_punct}?`; quotes and brackets stay paired.
    "strip_punct": lambda value: value.rstrip(SENTENCE_PUNCTUATION + " \t\n"),
    "lower_first": lambda value: value[:1].lower() + value[1:],
    "upper_first": lambda value: value[:1].upper() + value[1:],
    "lower": str.lower,
    "strip": str.strip,
}
"""Every filter a column may pass through, by name."""


@dataclass(frozen=True)
class Literal:
    """Text that stands as it is: an anchor."""

    text: str


@dataclass(frozen=True)
class Column:
    """A data column. `shorten_first`: cut before the other columns when the input is too long."""

    name: str
    shorten_first: bool = False
    filters: tuple[str, ...] = ()

    def apply(self, value: str) -> str:
        """`value` after the filters, in the order they are written."""
        for name in self.filters:
            value = FILTERS[name](value)
        return value


@dataclass(frozen=True)
class VirtualTokens:
    """One occurrence of a group of virtual tokens.

    Attributes:
        group: Index of the group among the template's groups; occurrences of one group share their vectors.
        count: Virtual tokens in the group; None until `init_text`, given without a count, has been tokenised.
        name: Name of the group, if it has one.
        init_text: Text whose tokens the vectors start from, if given.
    """

    group: int
    count: int | None
    name: str | None = None
    init_text: str | None = None


@dataclass(frozen=True)
class Special:
    """A special token of the tokenizer."""

    kind: OneOf["SEP", "CLS", "BOS", "EOS"]


@dataclass(frozen=True)
class Target:
    """Where the result stands. `count`: mask tokens of a MASK target; 1 for the other kinds."""

    kind: TargetKind
    column: str
    count: int = 1


Segment = Literal | Column | VirtualTokens | Special | Target


@dataclass(frozen=True)
class Message:
    """One block of a chat template; `role` is system, user or assistant."""

    role: str
    segments: tuple[Segment, ...]
