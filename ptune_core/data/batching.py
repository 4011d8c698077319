"""Examples -> token rows.

Notation: T positions of a row, A answer tokens. In a row a number >= 0 is a token id of the base model's
tokenizer and -(i + 1) stands for virtual token i, so that one list of numbers says where everything stands.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ptune_core.errors import BaseModelError, DataError, SettingsError
from ptune_core.prompt.template import Column, Literal, Special, Target, TargetKind, Template, VirtualTokens

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

NO_PIECE = -1


@dataclass(frozen=True)
class Row:
    """One tokenised example, without its answer.

    Attributes:
        ids: `[T]` token ids >= 0 and virtual tokens -(i + 1).
        num_cut: Column tokens that were cut so that the row fits.
    """

    ids: tuple[int, ...]
    num_cut: int = 0

    @property
    def context(self) -> tuple[int, ...]:
        """The text before the first virtual token; empty if there is no virtual token."""
        first = next((i for i, number in enumerate(self.ids) if number < 0), 0)
        return self.ids[:first]


class RowMaker:
    """Turns an example's values into a `Row`, by one template and one tokenizer.

    Args:
        tokenizer: A fast tokenizer (it must give character offsets).
        template: Resolved and without chat messages (see `Template.resolve`, `Template.expand_chat`).
        max_length: Longest row in tokens, virtual tokens and a given answer included.
        special_tokens: Whether the tokenizer's own leading and trailing special tokens are added.

    Raises:
        BaseModelError: The tokenizer is not a fast one, or lacks a special token the template names.
        SettingsError: Literals and virtual tokens alone exceed `max_length`.
    """

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, template: Template, max_length: int, *, special_tokens: bool = True
    ) -> None:
        if not tokenizer.is_fast:
            raise BaseModelError(
                "The base model has no fast tokenizer",
                got=type(tokenizer).__name__,
                needed="a tokenizer.json, as nearly all models on the Hub have",
                remedy="Choose another base model",
            )
        self.tokenizer, self.template, self.max_length = tokenizer, template, max_length
        prefix, suffix = _special_affixes(tokenizer) if special_tokens else ((), ())
        self._prefix = () if _starts_special(template) else prefix
        self._suffix = () if _ends_special(template) or template.target.kind is TargetKind.ANSWER else suffix
        self._group_start = _group_starts(template)
        self._drop_leading_space = _space_is_a_token(tokenizer)
        self._answer_starts_line = _answer_starts_line(template)
        empty = self._pieces({name: "" for name in template.columns})
        fixed = sum(len(ids) for ids, _ in empty)
        if fixed >= max_length:
            raise SettingsError(
                "The template's own text and virtual tokens leave no room for data",
                got=f"{fixed} tokens",
                needed=f"fewer than {max_length}, the longest row of this base model and these settings",
                remedy="Use fewer virtual tokens or less text in the template, or raise max_length",
            )

    def row(self, values: Mapping[str, str], *, reserve: int = 0) -> Row:
        """Tokenise one example; only columns are cut, never literals, virtual tokens or the `reserve`d answer.

        Args:
            values: Template column -> text.
            reserve: Tokens to keep free for an answer.

        Raises:
            DataError: The answer alone leaves no room, or there is nothing at all for the model to read.
        """
        pieces = self.pieces(values, reserve=reserve)
        ids = tuple(number for kept, _ in pieces for number in kept)
        if not ids:  # no base model takes a row of no tokens
            raise DataError("The text is empty", needed="at least one word")
        return Row(ids, sum(len(cut) for _, cut in pieces))

    def pieces(self, values: Mapping[str, str], *, reserve: int = 0) -> list[tuple[list[int], list[int]]]:
        """What `row` keeps and what it cuts, piece by piece in the order of the row: `(kept, cut)` numbers.

        Raises:
            DataError: The answer alone leaves no room.
        """
        pieces = self._pieces(values)
        cut: list[list[int]] = [[] for _ in pieces]
        excess = sum(len(ids) for ids, _ in pieces) + reserve - self.max_length
        while excess > 0:
            where = self._piece_to_cut(pieces)
            if where is None:
                raise DataError(
                    "An answer is too long for the base model's positions",
                    got=f"{reserve} answer tokens",
                    needed=f"at most {self.max_length} tokens together with the template",
                    remedy="Shorten the answer or raise max_length",
                )
            ids, column = pieces[where]
            kept = max(0, len(ids) - excess)
            excess -= len(ids) - kept
            pieces[where], cut[where] = (ids[:kept], column), ids[kept:]
        return [(ids, gone) for (ids, _), gone in zip(pieces, cut, strict=True)]

    def encode_answer(self, text: str) -> list[int]:
        """Token ids of answer words as they continue the row, without special tokens, `[A]`."""
        if self._drop_leading_space:
            text = text.removeprefix(" ")
        ids: list[int] = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        return ids

    def answer_ids(self, text: str) -> list[int]:
        """Token ids of a text to generate, closed by the end-of-text token, `[A]`.

        A space goes in front unless the template's last literal already ends a line, as chat templates do.
        """
        text = text.strip()
        ids = self.encode_answer(text if self._answer_starts_line else f" {text}")
        end = self.tokenizer.eos_token_id
        return ids if end is None else [*ids, end]

    def _pieces(self, values: Mapping[str, str]) -> list[tuple[list[int], int]]:
        """`(ids, index of the column segment or NO_PIECE)` in the order of the row."""
        pieces: list[tuple[list[int], int]] = []
        run: list[tuple[str, int]] = []
        for index, segment in enumerate(self.template.segments):
            match segment:
                case Literal(text=text):
                    run.append((text, NO_PIECE))
                case Column():
                    run.append((segment.apply(values[segment.name]), index))
                case _:
                    pieces += self._run(run)
                    run = []
                    pieces.append((self._fixed_ids(segment), NO_PIECE))
        pieces += self._run(run)
        prefix = (list(self._prefix), NO_PIECE)
        pieces.insert(1 if self.template.is_front else 0, prefix)
        return [*pieces, (list(self._suffix), NO_PIECE)]

    def _fixed_ids(self, segment: VirtualTokens | Special | Target) -> list[int]:
        match segment:
            case VirtualTokens(group=group, count=count):
                assert count is not None, "the template is resolved"
                return [-(self._group_start[group] + i + 1) for i in range(count)]
            case Special(kind=kind):
                token_id = getattr(self.tokenizer, f"{kind.lower()}_token_id")
                if token_id is None:
                    raise BaseModelError(
                        f"The template uses [{kind}], which this base model's tokenizer does not have",
                        remedy=f"Remove [{kind}] from the template or choose another base model",
                    )
                return [token_id]
            case Target():
                return []

    def _run(self, run: Sequence[tuple[str, int]]) -> Iterator[tuple[list[int], int]]:
        """Tokenise text without a break as one string, then give every token to the piece it ends in.

        One string, because a tokenizer may treat a piece's first word differently from a word inside a text.
        """
        text = "".join(part for part, _ in run)
        if self._drop_leading_space:
            dropped = len(text) - len(text.removeprefix(" "))
            text = text[dropped:]
        else:
            dropped = 0
        if not text:
            return
        # verbose=False: it would say that a long text leads to indexing errors, before it is cut.
        encoded = self.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
        ends, position = [], -dropped
        for part, _ in run:
            position += len(part)
            ends.append(position)
        grouped: list[list[int]] = [[] for _ in run]
        piece = 0
        for token_id, (start, end) in zip(encoded["input_ids"], encoded["offset_mapping"], strict=True):
            while max(start, end - 1) >= ends[piece]:
                piece += 1
            grouped[piece].append(token_id)
        yield from zip(grouped, (column for _, column in run), strict=True)

    def _piece_to_cut(self, pieces: Sequence[tuple[list[int], int]]) -> int | None:
        """The piece to shorten next: a column marked `~` that has tokens left, else the longest column."""
        cuttable = [i for i, (ids, column) in enumerate(pieces) if column != NO_PIECE and ids]
        if not cuttable:
            return None
        segments = self.template.segments

        def priority(i: int) -> tuple[bool, int]:
            segment = segments[pieces[i][1]]
            return (isinstance(segment, Column) and segment.shorten_first, len(pieces[i][0]))

        return max(cuttable, key=priority)


def _group_starts(template: Template) -> dict[int, int]:
    """Group -> its first row in the prompt embeddings."""
    starts, total = {}, 0
    for group in template.groups:
        assert group.count is not None, "the template is resolved"
        starts[group.group] = total
        total += group.count
    return starts


def _special_affixes(tokenizer: PreTrainedTokenizerBase) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The special tokens this tokenizer puts before and after a text."""
    plain = tokenizer("a", add_special_tokens=False)["input_ids"]
    full = tokenizer("a")["input_ids"]
    for start in range(len(full) - len(plain) + 1):
        if full[start : start + len(plain)] == plain:
            return tuple(full[:start]), tuple(full[start + len(plain) :])
    return (), ()


def _space_is_a_token(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether the tokenizer already puts a word boundary before a text, so that a space in front would be a token."""
    spaced = tokenizer(" a", add_special_tokens=False)["input_ids"]
    return len(spaced) > len(tokenizer("a", add_special_tokens=False)["input_ids"])


def _answer_starts_line(template: Template) -> bool:
    before = template.segments[-2] if len(template.segments) > 1 else None
    return isinstance(before, Literal) and before.text.endswith(("\n", " "))


def _starts_special(template: Template) -> bool:
    rest = [segment for segment in template.segments if not isinstance(segment, VirtualTokens)]
    return bool(rest) and isinstance(rest[0], Special) and rest[0].kind in ("CLS", "BOS")


def _ends_special(template: Template) -> bool:
    rest = [segment for segment in template.segments if not isinstance(segment, VirtualTokens | Target)]
    return bool(rest) and isinstance(rest[-1], Special) and rest[-1].kind in ("SEP", "EOS")
