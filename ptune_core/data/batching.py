"""Examples -> token rows.

Notation: T positions of a row, A answer tokens. In a row a number >= 0 is a token id of the base model's
tokenizer and -(i + 1) stands for virtual token i, so that one list of numbers says where everything stands.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from typing import TYPE_CHECKING

from ptune_core.data.affixes import space_is_a_token, special_affixes
from ptune_core.data.choices import Choices, encode_choices
from ptune_core.errors import BaseModelError, DataError, SettingsError
from ptune_core.prompt.template import Column, Literal, Special, Target, TargetKind, Template, VirtualTokens
from ptune_core.prompt.verbalizer import Verbalizer

if TYPE_CHECKING:
    from tokenizers import Encoding
    from transformers import PreTrainedTokenizerBase

_CHARS_AT_ONCE = 1 << 20

Piece = tuple[list[int], Column | None]
"""Numbers of a row, and the column that may be cut of which they are."""

Cut = tuple[list[int], list[int]]
"""Numbers of a piece that are kept, and those that are cut."""

_Part = list[int] | tuple[Literal | Column, ...]


@dataclass(frozen=True)
class Row:
    """One tokenised example, without its answer.

    Attributes:
        ids: `[T]` token ids >= 0 and virtual tokens -(i + 1).
        num_cut: Column tokens that were cut so that the row fits.
        choices: The row's own answers; none where all rows have the same, or their target is text.
    """

    ids: tuple[int, ...]
    num_cut: int = 0
    choices: Choices = ()

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
        writes_apart: Whether the base model writes an answer apart from what it reads, as encoder-decoders do.
        verbalizer: Where it is filled from columns, rows come with their choices, and with room for the longest.

    Raises:
        BaseModelError: The tokenizer is not a fast one, or lacks a special token the template names.
        SettingsError: Literals and virtual tokens alone exceed `max_length`.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        template: Template,
        max_length: int,
        *,
        special_tokens: bool = True,
        writes_apart: bool = False,
        verbalizer: Verbalizer | None = None,
    ) -> None:
        if not tokenizer.is_fast:
            raise BaseModelError(
                "The base model has no fast tokenizer",
                got=type(tokenizer).__name__,
                needed="a tokenizer.json, as nearly all models on the Hub have",
                remedy="Choose another base model",
            )
        self.tokenizer, self.template, self.max_length = tokenizer, template, max_length
        brings_choices = verbalizer is not None and verbalizer.columns and template.target.kind is not TargetKind.HEAD
        self.choices = verbalizer if brings_choices else None
        self._group_start = _group_starts(template)
        self._drop_leading_space = space_is_a_token(tokenizer)
        self._answer_starts_line = _answer_starts_line(template)
        self._answer_follows = template.target.kind is TargetKind.ANSWER and not writes_apart
        self.mask_id = self._special_id("mask") if template.target.kind is TargetKind.MASK else None
        prefix, suffix = special_affixes(tokenizer, template) if special_tokens else ((), ())
        suffix = () if self._answer_follows else suffix
        self._parts = self._make_parts(prefix, suffix)
        empty = self._encode([{name: "" for name in template.columns}])[0]
        fixed = sum(len(ids) for ids, _ in empty)
        if fixed >= max_length:
            raise SettingsError(
                "The template's own text and virtual tokens leave no room for data",
                got=f"{fixed} tokens",
                needed=f"fewer than {max_length}, the longest row of this base model and these settings",
                remedy="Use fewer virtual tokens or less text in the template, or raise max_length",
            )
        # No text has more tokens than bytes, wherever it is cut into tokens together with a column.
        literals = (segment.text for segment in template.segments if isinstance(segment, Literal))
        self._most_fixed = fixed + sum(len(text.encode()) for text in literals)

    def row(self, values: Mapping[str, str], *, reserve: int = 0) -> Row:
        """Tokenise one example; only columns are cut, never literals, virtual tokens or the `reserve`d answer.

        Args:
            values: Template column -> text.
            reserve: Tokens to keep free for an answer.

        Raises:
            DataError: The answer alone leaves no room, or there is nothing at all for the model to read.
        """
        return all_rows(self.rows([values], [reserve]))[0]

    def rows(
        self, examples: Sequence[Mapping[str, str]], reserve: Sequence[int] | None = None
    ) -> list[Row | DataError]:
        """Tokenise examples together, several times faster than one by one: the row of each, or why it has none.

        Args:
            examples: N times template column -> text.
            reserve: Tokens to keep free for the answer of each, `[N]`; None: nowhere any.
        """
        choices = encode_choices(self.choices, examples, self.encode_answers)
        if self.choices is not None and (self._answer_follows or self.mask_id is not None):
            reserve = [max(map(len, each)) for each in choices]
        elif reserve is None or not self._answer_follows:
            reserve = [0] * len(examples)
        whole = self._encode(examples)
        long = [i for i, parts in enumerate(whole) if self._excess(parts, reserve[i]) > 0]
        cut = dict(zip(long, self._encode([examples[i] for i in long], in_pieces=True), strict=True))
        rows: list[Row | DataError] = []
        for i, parts in enumerate(whole):
            try:
                kept = self._cut(cut[i], reserve[i]) if i in cut else [(ids, []) for ids, _ in parts]
                rows.append(_joined(kept, choices[i]))
            except DataError as error:
                rows.append(error)
        return rows

    def pieces(self, values: Mapping[str, str], *, reserve: int = 0) -> list[Cut]:
        """What `row` keeps and what it cuts, piece by piece in the order of the row: `(kept, cut)` numbers.

        Raises:
            DataError: The answer alone leaves no room.
        """
        return self._cut(self._encode([values], in_pieces=True)[0], reserve)

    @cached_property
    def fingerprint(self) -> str:
        """Changes when anything does that decides which row a text becomes."""
        choices = () if self.choices is None else tuple(self.choices.answers.values())
        segments = repr((self.template.segments, self._parts, self.max_length, choices))
        return hashlib.sha256((segments + self.tokenizer.backend_tokenizer.to_str()).encode()).hexdigest()

    @cached_property
    def fixed_prefix(self) -> tuple[int, ...]:
        """Numbers that every row begins with, whatever is in its columns.

        All that stands before the text with the first column: a literal beside a column may be tokenised with it.
        """
        fixed: list[int] = []
        for part in self._parts:
            if isinstance(part, tuple):
                if any(isinstance(segment, Column) for segment in part):
                    break
                [pieces] = self._encode_run(part, [[_text(segment, {}) for segment in part]], False)
                part = [number for ids, _ in pieces for number in ids]
            fixed += part
        return tuple(fixed)

    def fits(self, num_answer: int) -> bool | None:
        """Whether an answer of so many tokens fits; None if that depends on what is in the columns."""
        if self.mask_id is not None:
            return num_answer == self.template.target.count
        if not self._answer_follows:
            return num_answer <= self.max_length
        return True if num_answer + self._most_fixed <= self.max_length else None

    def encode_answer(self, text: str) -> list[int]:
        """Token ids of answer words as they continue the row, without special tokens, `[A]`."""
        return self.encode_answers([text])[0]

    def encode_answers(self, texts: Sequence[str]) -> list[list[int]]:
        """`encode_answer` of N texts, `[N][A]`."""
        if self._drop_leading_space:
            texts = [text.removeprefix(" ") for text in texts]
        return [list(encoded.ids) for encoded in self._batch(texts, with_offsets=False)]

    def answers(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of texts to generate, closed by the end-of-text token unless they fill masks, `[N][A]`.

        A space goes in front unless the template's last literal already ends a line, as chat templates do.
        """
        texts = [text.strip() if self._answer_starts_line else f" {text.strip()}" for text in texts]
        end = self.tokenizer.eos_token_id
        closing = [] if end is None or self.mask_id is not None else [end]
        return [[*ids, *closing] for ids in self.encode_answers(texts)]

    def answer_ids(self, text: str) -> list[int]:
        """The `answers` of one text, `[A]`."""
        return self.answers([text])[0]

    def _make_parts(self, prefix: Sequence[int], suffix: Sequence[int]) -> list[_Part]:
        """The row as parts that are tokenised apart: numbers that are always the same, and runs of text."""
        parts: list[_Part] = []
        run: list[Literal | Column] = []
        for segment in self.template.segments:
            if isinstance(segment, Literal | Column):
                run.append(segment)
                continue
            if self.mask_id is not None and isinstance(segment, Target) and run and isinstance(run[-1], Literal):
                run[-1] = Literal(run[-1].text.rstrip(" "))  # no tokenizer puts a space before a mask token
            parts += [tuple(run)] if run else []
            run = []
            parts.append(self._fixed_ids(segment))
        parts += [tuple(run)] if run else []
        parts.insert(1 if self.template.is_front else 0, list(prefix))
        return [*parts, list(suffix)]

    def _encode(self, examples: Sequence[Mapping[str, str]], *, in_pieces: bool = False) -> list[list[Piece]]:
        """Each example's pieces in the order of the row, uncut.

        Args:
            examples: Template column -> text.
            in_pieces: Whether a run of text is told apart by segment, as cutting needs; else it is one piece.
        """
        encoded: list[list[Piece]] = [[] for _ in examples]
        for part in self._parts:
            if isinstance(part, list):
                for pieces in encoded:
                    pieces.append((part, None))
                continue
            texts = [[_text(segment, values) for segment in part] for values in examples]
            for pieces, found in zip(encoded, self._encode_run(part, texts, in_pieces), strict=True):
                pieces += found
        return encoded

    def _encode_run(
        self, run: Sequence[Literal | Column], texts: Sequence[Sequence[str]], in_pieces: bool
    ) -> Iterator[list[Piece]]:
        """Tokenise text without a break as one string, then give every token to the piece it ends in.

        One string, because a tokenizer may treat a piece's first word differently from a word inside a text.
        """
        joined = ["".join(parts) for parts in texts]
        if self._drop_leading_space:
            joined = [text.removeprefix(" ") for text in joined]
        for parts, text, encoded in zip(texts, joined, self._batch(joined, with_offsets=in_pieces), strict=True):
            ids = encoded.ids if self.mask_id is None else self._without_masks(encoded.ids)
            if not in_pieces:
                yield [(ids, None)]
                continue
            ends = list(accumulate(map(len, parts)))
            dropped = ends[-1] - len(text)
            grouped: list[list[int]] = [[] for _ in parts]
            piece = 0
            for token_id, (start, end) in zip(ids, encoded.offsets, strict=True):
                # RoBERTa says that a token of spaces alone stands behind them, so that the last one would be nowhere.
                while max(start, end - 1) >= ends[piece] - dropped and piece < len(ends) - 1:
                    piece += 1
                grouped[piece].append(token_id)
            columns = [segment if isinstance(segment, Column) else None for segment in run]
            yield list(zip(grouped, columns, strict=True))

    def _without_masks(self, ids: Sequence[int]) -> list[int]:
        """Tokens of a text in which a mask token, which somebody may have written there, is an unknown word."""
        unknown = self.tokenizer.unk_token_id
        other = self.tokenizer.pad_token_id if unknown is None else unknown
        return [other if token_id == self.mask_id else token_id for token_id in ids]

    def _batch(self, texts: Sequence[str], *, with_offsets: bool) -> Iterator[Encoding]:
        """Tokenise texts without special tokens, some characters at a time: an encoding takes a hundred times more."""
        backend = self.tokenizer.backend_tokenizer
        # A tokenizer.json may say that texts are cut or padded.
        backend.no_truncation()
        backend.no_padding()
        encode = backend.encode_batch if with_offsets else backend.encode_batch_fast
        start = chars = 0
        for i, text in enumerate(texts):
            chars += len(text)
            if chars >= _CHARS_AT_ONCE or i + 1 == len(texts):
                yield from encode(list(texts[start : i + 1]), add_special_tokens=False)
                start, chars = i + 1, 0

    def _excess(self, pieces: Sequence[Piece], reserve: int) -> int:
        return sum(len(ids) for ids, _ in pieces) + reserve - self.max_length

    def _cut(self, pieces: list[Piece], reserve: int) -> list[Cut]:
        """The pieces shortened to fit, and what was cut of each."""
        cut: list[list[int]] = [[] for _ in pieces]
        while (excess := self._excess(pieces, reserve)) > 0:
            where = _piece_to_cut(pieces)
            if where is None:
                raise DataError(
                    "An answer is too long for the base model's positions",
                    got=f"{reserve} answer tokens",
                    needed=f"at most {self.max_length} tokens together with the template",
                    remedy="Shorten the answer or raise max_length",
                )
            ids, column = pieces[where]
            kept = max(0, len(ids) - excess)
            pieces[where], cut[where] = (ids[:kept], column), ids[kept:]
        return [(ids, gone) for (ids, _), gone in zip(pieces, cut, strict=True)]

    def _fixed_ids(self, segment: VirtualTokens | Special | Target) -> list[int]:
        match segment:
            case VirtualTokens(group=group, count=count):
                assert count is not None, "the template is resolved"
                return [-(self._group_start[group] + i + 1) for i in range(count)]
            case Special(kind=kind):
                return [self._special_id(kind.lower())]
            case Target(kind=TargetKind.MASK, count=count):
                assert self.mask_id is not None, "the target is a mask"
                return [self.mask_id] * count
            case Target():
                return []

    def _special_id(self, name: str) -> int:
        token_id: int | None = getattr(self.tokenizer, f"{name}_token_id")
        if token_id is None:
            raise BaseModelError(
                f"The template uses [{name.upper()}], which this base model's tokenizer does not have",
                remedy=f"Remove [{name.upper()}] from the template or choose another base model",
            )
        return token_id


def all_rows(rows: Sequence[Row | DataError]) -> list[Row]:
    """The rows that `RowMaker.rows` made, if it made all.

    Raises:
        DataError: The first reason why an example has no row.
    """
    made = []
    for row in rows:
        if isinstance(row, DataError):
            raise row
        made.append(row)
    return made


def _text(segment: Literal | Column, values: Mapping[str, str]) -> str:
    return segment.text if isinstance(segment, Literal) else segment.apply(values[segment.name])


def _joined(pieces: Sequence[Cut], choices: Choices) -> Row:
    ids = tuple(number for kept, _ in pieces for number in kept)
    if not ids:  # no base model takes a row of no tokens
        raise DataError("The text is empty", needed="at least one word")
    if not all(choices):
        raise DataError("One of the answers to choose from is empty", needed="at least one word in each")
    return Row(ids, sum(len(cut) for _, cut in pieces), choices)


def _piece_to_cut(pieces: Sequence[Piece]) -> int | None:
    """The piece to shorten next: a column marked `~` that has tokens left, else the longest column."""
    best, best_priority = None, (False, 0)
    for i, (ids, column) in enumerate(pieces):
        if column is not None and ids and (column.shorten_first, len(ids)) > best_priority:
            best, best_priority = i, (column.shorten_first, len(ids))
    return best


def _group_starts(template: Template) -> dict[int, int]:
    """Group -> its first row in the prompt embeddings."""
    starts, total = {}, 0
    for group in template.groups:
        assert group.count is not None, "the template is resolved"
        starts[group.group] = total
        total += group.count
    return starts


def _answer_starts_line(template: Template) -> bool:
    before = template.segments[-2] if len(template.segments) > 1 else None
    return isinstance(before, Literal) and before.text.endswith(("\n", " "))
