"""The parts a template is made of. Pure data, no torch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
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


def tidy_spaces(segments: Sequence[Segment]) -> tuple[Segment, ...]:
    """Drop the spaces that only set brackets apart; keep those that are the prefix space of a word.

    A space before virtual tokens, a special token, [ANSWER] or [HEAD] goes; a space after virtual tokens stays if text
    or a column follows. Nothing stays between a group in front and the text, so that the text is what a user of PEFT
    would pass to the tokenizer. New lines at either end go.
    """
    front = is_front(segments)
    tidy: list[Segment] = []
    for index, segment in enumerate(segments):
        if not isinstance(segment, Literal):
            tidy.append(segment)
            continue
        text = segment.text
        before = segments[index - 1] if index > 0 else None
        after = segments[index + 1] if index + 1 < len(segments) else None
        if before is None:
            text = text.lstrip("\n")
        if after is None:
            text = text.rstrip()
        if isinstance(after, VirtualTokens | Special | Target) and not _is_mask(after):
            text = text.rstrip(" ")
        if isinstance(before, VirtualTokens):
            if front and index == 1:
                text = text.lstrip()
            elif not isinstance(after, Column) and not text.strip(" "):
                text = ""
        if text:
            tidy.append(Literal(text))
    return tuple(tidy)


def _is_mask(segment: Segment) -> bool:
    return isinstance(segment, Target) and segment.kind is TargetKind.MASK


def join_literals(segments: Sequence[Segment]) -> tuple[Segment, ...]:
    """The segments with neighbouring literals as one, so that they are tokenised as one, and none empty."""
    joined: list[Segment] = []
    for segment in segments:
        if isinstance(segment, Literal) and joined and isinstance(joined[-1], Literal):
            joined[-1] = Literal(joined[-1].text + segment.text)
        elif segment != Literal(""):
            joined.append(segment)
    return tuple(joined)


def is_front(segments: Sequence[Segment]) -> bool:
    """Whether the only virtual tokens stand before everything else."""
    is_virtual = [isinstance(segment, VirtualTokens) for segment in segments]
    return is_virtual[:1] == [True] and sum(is_virtual) == 1
