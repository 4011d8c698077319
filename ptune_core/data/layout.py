"""Rows -> a padded batch, cut into the parts that the base model computes apart.

B rows, T positions, N targets. A row of a causal model has up to three parts, in this order:

- its *context*: the text before its first virtual token, which nothing that is trained can change;
- what *all rows of the batch share* from there on, such as a front prompt, computed once for all of them;
- the rest, which is padded on the right. Later positions change nothing before them, so padding needs no mask.

Of an encoder-decoder the row is what it reads, and what it writes stands apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import takewhile

import torch
from torch import Tensor

from ptune_core.data.batching import Row

MIN_SHARED = 2
"""Fewest numbers worth a pass of their own, where virtual tokens are among them."""

MIN_SHARED_TEXT = 32
"""The same of text alone, such as examples in the context of every row."""


@dataclass(frozen=True)
class ChoiceTargets:
    """Which answer each target is a token of, where rows bring their own C answers.

    Attributes:
        token_ids: `[S * N]` long, the token wanted at each target.
        answers: `[S * N]` long, the answer it belongs to, from 0 over all rows and their answers.
        count: Answers in all, S * B.
        per_row: C.
    """

    token_ids: Tensor
    answers: Tensor
    count: int
    per_row: int

    def copies(self, count: int) -> ChoiceTargets:
        """As `Batch.copies`."""
        answers = (self.answers + torch.arange(count)[:, None] * self.count).flatten()
        return ChoiceTargets(self.token_ids.repeat(count), answers, self.count * count, self.per_row)

    def to(self, device: torch.device) -> ChoiceTargets:
        """The same on `device`."""
        return replace(self, token_ids=self.token_ids.to(device), answers=self.answers.to(device))


@dataclass(frozen=True)
class Batch:
    """B rows, once for each of S prompts; numbers are token ids, or -(i + 1) for virtual token i, as in `Row`.

    Attributes:
        contexts: B texts before the first virtual token, as token ids; empty if no row has one.
        shared: `[S, n]` long, what all rows of a copy have next, as numbers; n may be 0.
        token_ids: `[S * B, T]` long, the rest; an arbitrary valid id where a virtual token or padding stands.
        virtual_index: `[S * B, T]` long; the row of the prompt embeddings to put there, or -1.
        attention_mask: `[S * B, T]` long; 0 at padding. Only a model that reads in both directions needs it.
        targets: `[S * N]` long, positions in the flattened `[S * B * T]` whose output is wanted: each row's last one,
            its mask tokens, or those that the tokens of its answer follow (of an encoder-decoder in `[S * B * A]`).
        labels: `[S * N]` long: class indices, or the token ids of the answers; None if there are none.
        decoder_ids: `[S * B, A]` long, what an encoder-decoder has written so far; None for other base models.
        choices: Where rows bring their own answers, each row stands here C times, followed by an answer; B counts rows
            so often, and `labels` rows once.
    """

    contexts: tuple[tuple[int, ...], ...]
    shared: Tensor
    token_ids: Tensor
    virtual_index: Tensor
    attention_mask: Tensor
    targets: Tensor
    labels: Tensor | None = None
    decoder_ids: Tensor | None = None
    choices: ChoiceTargets | None = None

    def copies(self, count: int, num_virtual_tokens: int) -> Batch:
        """The rows once for each of S prompts, whose embeddings stand one below the other, `[S * P, H]`.

        Args:
            count: S.
            num_virtual_tokens: P.
        """
        if count == 1:
            return self
        rows, width = self.token_ids.shape
        outputs = rows * (width if self.decoder_ids is None else self.decoder_ids.shape[1])
        first_tokens = torch.arange(count) * num_virtual_tokens
        tiled = self.virtual_index.repeat(count, 1)
        shifted = tiled + first_tokens.repeat_interleave(rows)[:, None]
        return Batch(
            contexts=self.contexts,
            shared=torch.where(self.shared < 0, self.shared - first_tokens[:, None], self.shared),
            token_ids=self.token_ids.repeat(count, 1),
            virtual_index=torch.where(tiled < 0, -1, shifted),
            attention_mask=self.attention_mask.repeat(count, 1),
            targets=(self.targets + torch.arange(count)[:, None] * outputs).flatten(),
            labels=None if self.labels is None else self.labels.repeat(count),
            decoder_ids=None if self.decoder_ids is None else self.decoder_ids.repeat(count, 1),
            choices=None if self.choices is None else self.choices.copies(count),
        )

    def to(self, device: torch.device) -> Batch:
        """The same batch on `device`; to a GPU from pinned memory, without waiting for the copy."""
        if device.type == "cpu":
            return self
        moved = {
            name: value.pin_memory().to(device, non_blocking=True)
            for name, value in vars(self).items()
            if isinstance(value, Tensor)
        }
        choices = None if self.choices is None else self.choices.to(device)
        return Batch(**{**vars(self), **moved, "choices": choices})


@dataclass(frozen=True)
class Arrangement:
    """What of the base model and the template decides how rows are laid out.

    Attributes:
        in_parts: Whether contexts and what the rows share are set apart; else whole rows are "the rest".
        share: Whether what the rows share is set apart too, not only contexts.
        share_text: Whether text may be among it; else virtual tokens alone, so that all text is in the rest.
        mask_id: The mask token, whose places are the targets; None if the target is not a mask.
        decoder_start: What an encoder-decoder's answers begin with; empty for other base models.
    """

    in_parts: bool = False
    share: bool = True
    share_text: bool = True
    mask_id: int | None = None
    decoder_start: tuple[int, ...] = ()


WHOLE = Arrangement()
"""Rows of a decoder or an encoder as they are."""


def make_batch(
    rows: Sequence[Row],
    arrangement: Arrangement = WHOLE,
    *,
    answers: Sequence[Sequence[int]] | None = None,
    labels: Sequence[int] | None = None,
) -> Batch:
    """Lay out rows.

    Args:
        rows: B rows.
        arrangement: Where what stands.
        answers: The answer of each row, which is what is to be predicted: after the row, or at its mask tokens.
        labels: For classification: class indices, one per row. Rows with choices are laid out once for each.
    """
    per_row = len(rows[0].choices)
    if per_row:
        answers = [answer for row in rows for answer in row.choices]
        rows = [_for_answer(row, answer, arrangement.mask_id) for row in rows for answer in row.choices]
    contexts, shared = _parts(rows) if arrangement.in_parts else ((), ())
    if not arrangement.share_text:
        shared = tuple(takewhile(lambda number: number < 0, shared))
    shared = shared if arrangement.share else ()
    begins = [len(shared) + (len(contexts[i]) if contexts else 0) for i in range(len(rows))]
    rests = [list(row.ids[begin:]) for row, begin in zip(rows, begins, strict=True)]
    decoder_ids = None
    if arrangement.mask_id is not None:
        places = [[j for j, number in enumerate(rest) if number == arrangement.mask_id] for rest in rests]
    elif arrangement.decoder_start:
        places, written = _after([list(arrangement.decoder_start)] * len(rows), answers)
        decoder_ids = _pad(written, 0)
    else:
        places, rests = _after(rests, answers)
    choices = None
    if answers is not None:
        wanted = [token_id for answer in answers for token_id in answer]
        if per_row:
            lengths = torch.tensor(list(map(len, answers)))
            answer_of = torch.arange(len(rows)).repeat_interleave(lengths)
            choices = ChoiceTargets(torch.tensor(wanted), answer_of, len(rows), per_row)
        else:
            labels = wanted
    ids = _pad(rests, 0)
    width = ids.shape[1] if decoder_ids is None else decoder_ids.shape[1]
    targets = [i * width + place for i, found in enumerate(places) for place in found]
    return Batch(
        contexts=contexts,
        shared=torch.tensor([shared], dtype=torch.long),
        token_ids=ids.clamp(min=0),
        virtual_index=torch.where(ids < 0, -ids - 1, -1),
        attention_mask=_pad([[1] * len(numbers) for numbers in rests], 0),
        targets=torch.tensor(targets, dtype=torch.long),
        labels=None if labels is None else torch.tensor(labels, dtype=torch.long),
        decoder_ids=decoder_ids,
        choices=choices,
    )


def _for_answer(row: Row, answer: Sequence[int], mask_id: int | None) -> Row:
    """The row with as many mask tokens as the answer has tokens, where it has any."""
    if mask_id is None:
        return row
    at = row.ids.index(mask_id)
    rest = [number for number in row.ids[at:] if number != mask_id]
    return replace(row, ids=(*row.ids[:at], *[mask_id] * len(answer), *rest))


def _after(
    begun: Sequence[list[int]], answers: Sequence[Sequence[int]] | None
) -> tuple[list[list[int]], list[list[int]]]:
    """Where each answer token is predicted, and all that is read for it: the last one is only ever predicted."""
    counts = [1] * len(begun) if answers is None else [len(answer) for answer in answers]
    places = [list(range(len(start) - 1, len(start) - 1 + count)) for start, count in zip(begun, counts, strict=True)]
    if answers is None:
        return places, list(begun)
    return places, [[*start, *answer[:-1]] for start, answer in zip(begun, answers, strict=True)]


def _parts(rows: Sequence[Row]) -> tuple[tuple[tuple[int, ...], ...], tuple[int, ...]]:
    """Contexts, and what all rows share after them: at least one number of every row is left."""
    contexts = tuple(row.context for row in rows)
    if len(set(contexts)) > 1:
        return contexts, ()
    start = len(contexts[0])
    end = min(len(row.ids) for row in rows) - 1
    first = rows[0].ids
    shared = start
    while shared < end and all(row.ids[shared] == first[shared] for row in rows):
        shared += 1
    numbers = first[start:shared]
    at_least = MIN_SHARED if min(numbers, default=0) < 0 else MIN_SHARED_TEXT
    is_worth_it = len(rows) > 1 and len(numbers) >= at_least
    return contexts if start else (), numbers if is_worth_it else ()


def _pad(sequences: Sequence[Sequence[int]], value: int) -> Tensor:
    tensors = [torch.tensor(sequence, dtype=torch.long) for sequence in sequences]
    return torch.nn.utils.rnn.pad_sequence(tensors, batch_first=True, padding_value=value)
