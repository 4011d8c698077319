"""Where everything of a batch stands in what a base model reads, and where what comes out belongs in the text.

B rows, C columns of the input, T text positions, W positions that the base model reads, V virtual tokens.

The base model reads the visible positions of a row one after the other, and what the attention mask hides behind them
(or, to generate, before them). So padding on either side, or anywhere, has no effect on anything: not on position ids,
not on sliding windows, not on what stands next to a virtual token, and padding that no row needs is not computed.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from ptune_core.errors import DataError

IGNORED = -100
"""The label that transformers' losses leave out."""


@dataclass(frozen=True)
class Placement:
    """A batch as the base model reads it.

    Attributes:
        numbers: `[B, W]` token ids >= 0, and virtual tokens -(i + 1) as in `data.batching.Row`.
        mask: `[B, W]`, False where a row has ended.
        num_virtual: V.
        columns: C, the width of `input_ids`.
        added: Columns put in front of the input: V, or 0 if every row brings its own virtual tokens.
        brings_own: `[B]`, whether a row holds virtual tokens.
        order: `[B, W]`, the column of each position, counted with the added ones.
        text: `[B, T]`, the column of each text position, counted with the added ones.
        places: `[B, T]`, the position of each text position; -1 where the row is hidden, or has less text than others.
    """

    numbers: Tensor
    mask: Tensor
    num_virtual: int
    columns: int
    added: int
    brings_own: Tensor
    order: Tensor
    text: Tensor
    places: Tensor

    @property
    def width(self) -> int:
        """W."""
        return self.numbers.shape[1]

    @property
    def virtual_index(self) -> Tensor:
        """`[B, W]`, the row of the prompt embeddings that stands there, or -1."""
        return torch.where(self.numbers < 0, -self.numbers - 1, -1)

    @property
    def token_ids(self) -> Tensor:
        """`[B, W]` ids to look up; 0 where a virtual token stands."""
        return self.numbers.clamp(min=0)

    @property
    def last(self) -> Tensor:
        """`[B]`, the last visible position of each row."""
        places = torch.arange(self.width, device=self.mask.device)
        return torch.where(self.mask, places, 0).max(dim=1).values

    @cached_property
    def attention_mask(self) -> Tensor | None:
        """`[B, W]` as the base model takes it; None if every position is visible."""
        return None if bool(self.mask.all()) else self.mask.long()

    @property
    def is_front(self) -> bool:
        """Whether all virtual tokens stand in front of their rows, in their order, as PEFT would put them."""
        if not bool(self.brings_own.any()):
            return True
        index = self.virtual_index.masked_fill(~self.mask, -1)
        count = (index >= 0).sum(dim=1, keepdim=True)
        places = torch.arange(self.width, device=index.device)
        return bool(torch.equal(index, torch.where(places < count, places, -1)) and (count == self.num_virtual).all())

    def to_text(self, values: Tensor, fill: float | None = None) -> Tensor:
        """What the base model made, `[B, W, ...]`, at the text's positions: `[B, T, ...]`.

        Args:
            values: Of the base model.
            fill: What stands where the text is hidden; None: anything will do. Then it is a view where it can be one,
                because the logits of a large vocabulary are not to be copied.
        """
        if fill is None and self._first is not None:
            return values[:, self._first : self._first + self.text.shape[1]]
        rows = torch.arange(len(values), device=values.device)[:, None]
        places = self.places.to(values.device)
        picked = values[rows, places.clamp(min=0)]
        return picked.masked_fill((places < 0).view(*places.shape, *[1] * (values.ndim - 2)), fill or 0.0)

    @cached_property
    def _first(self) -> int | None:
        """Where the text begins, if it is one piece at the same place in every row: then a view of it will do."""
        num_text = self.text.shape[1]
        first = self.width - num_text
        expected = torch.arange(first, self.width, device=self.places.device)
        return first if first >= 0 and bool(((self.places == expected) | (self.places < 0)).all()) else None

    def spread(self, values: Tensor, fill: int, name: str) -> Tensor:
        """What belongs to the columns of the input, `[B, C]` -> `[B, W]`; `fill` at added and hidden positions.

        Raises:
            DataError: It has another shape.
        """
        values = self._checked(values, (self.columns,), name)
        return self._ordered(torch.cat([values.new_full((len(values), self.added), fill), values], dim=1), fill)

    def spread_embeddings(self, values: Tensor) -> Tensor:
        """`[B, C, H]` -> `[B, W, H]`."""
        padded = torch.cat([values.new_zeros(len(values), self.added, values.shape[2]), values], dim=1)
        return padded.gather(1, self.order.unsqueeze(-1).expand(-1, -1, values.shape[2]))

    def spread_labels(self, labels: Tensor) -> Tensor:
        """`[B, C]` or `[B, T]` labels of tokens -> `[B, W]`; a virtual or hidden position has none.

        Raises:
            DataError: It has another shape.
        """
        labels = self._checked(labels, (self.columns, self.text.shape[1]), "labels")
        if labels.shape[1] == self.columns:
            spread = self.spread(labels, IGNORED, "labels")
        else:
            every = labels.new_full((len(labels), self.added + self.columns), IGNORED)
            spread = self._ordered(every.scatter(1, self.text, labels), IGNORED)
        return spread.masked_fill(self.numbers < 0, IGNORED)

    def spread_positions(self, position_ids: Tensor) -> Tensor:
        """Position ids `[B, C]` or `[1, C]` -> `[B, W]`.

        Rows that bring their own virtual tokens count them. Where they are put in front they come before the first
        position, and the text is moved by them.
        """
        if len(position_ids) == 1:
            position_ids = position_ids.expand(len(self.numbers), -1)
        position_ids = self._checked(position_ids, (self.columns,), "position_ids")
        if not self.added:
            return self._ordered(position_ids, 0)
        moved = position_ids + self.added * (~self.brings_own[:, None]).long()
        first = position_ids.gather(1, self._first_shown[:, None])
        in_front = first + torch.arange(self.added, device=position_ids.device)
        return self._ordered(torch.cat([in_front, moved], dim=1), 0)

    def to_positions(self, text_positions: Tensor) -> Tensor:
        """Places in the text, `[B]`, as positions of the base model; W, which losses ignore, if out of reach."""
        wanted = text_positions.reshape(-1, 1).clamp(min=0)
        num_text = self.text.shape[1]
        found = self.places.gather(1, wanted.clamp(max=num_text - 1))
        return torch.where((wanted >= num_text) | (found < 0), self.width, found)[:, 0]

    @property
    def _first_shown(self) -> Tensor:
        """`[B]`, the first visible column of the input."""
        shown = torch.zeros(len(self.order), self.added + self.columns, dtype=torch.long, device=self.order.device)
        shown.scatter_(1, self.order, self.mask.long())
        return shown[:, self.added :].argmax(dim=1)

    def _ordered(self, values: Tensor, fill: int) -> Tensor:
        return values.gather(1, self.order).masked_fill(~self.mask, fill)

    def _checked(self, values: Tensor, widths: tuple[int, ...], name: str) -> Tensor:
        rows = len(self.numbers)
        if values.ndim != 2 or len(values) != rows or values.shape[1] not in widths:
            needed = " or ".join(str((rows, width)) for width in dict.fromkeys(widths))
            raise DataError(f"{name} has another shape than the text", got=str(tuple(values.shape)), needed=needed)
        return values.to(self.order.device)


def place(
    numbers: Tensor, attention_mask: Tensor | None, num_virtual_tokens: int, *, at_the_end: bool = False
) -> Placement:
    """Put virtual tokens in front of the rows that have none, and all that is visible side by side.

    Args:
        numbers: `[B, C]` token ids >= 0 and virtual tokens -(i + 1).
        attention_mask: `[B, C]`, 0 hides a position; None: everything is visible.
        num_virtual_tokens: V.
        at_the_end: Whether rows end at the last position, as generating needs, or begin at the first.

    Raises:
        DataError: A shape is wrong, or there is a virtual token that the prompt does not have.
    """
    _check(numbers, attention_mask, num_virtual_tokens)
    virtual = numbers < 0
    shown = torch.ones_like(virtual) if attention_mask is None else attention_mask.to(numbers.device).bool()
    brings_own = virtual.any(dim=1)
    columns, added = numbers.shape[1], 0
    left_padded = at_the_end or bool((~shown[:, :1]).any() & shown[:, -1:].all())
    if not bool(brings_own.all()):
        added = num_virtual_tokens
        prompt = -torch.arange(1, added + 1, device=numbers.device).expand(len(numbers), -1)
        numbers = torch.cat([prompt, numbers], dim=1)
        virtual = numbers < 0
        shown = torch.cat([~brings_own[:, None].expand(-1, added), shown], dim=1)
    width = max(1, int(shown.sum(dim=1).max()))
    order = _by(shown)[:, shown.shape[1] - width :] if at_the_end else _by(~shown)[:, :width]
    mask = shown.gather(1, order)
    places = torch.full_like(numbers, -1)
    places.scatter_(1, order, torch.arange(width, device=numbers.device).expand_as(order))
    places = places.masked_fill(~shown | virtual, -1)
    num_text = int((~virtual).sum(dim=1).max())
    # A row with less text than others is filled up where the batch is padded.
    if left_padded:
        text = _by(~virtual)[:, numbers.shape[1] - num_text :]
    else:
        text = _by(virtual)[:, :num_text]
    places = places.gather(1, text)
    return Placement(
        numbers=numbers.gather(1, order), mask=mask, num_virtual=num_virtual_tokens, columns=columns,
        added=added, brings_own=brings_own, order=order, text=text, places=places,
    )  # fmt: skip


def _by(key: Tensor) -> Tensor:
    """Columns where `key` is False, then those where it is True, each in their order."""
    return torch.argsort(key.to(torch.uint8), dim=1, stable=True)


def _check(numbers: Tensor, attention_mask: Tensor | None, num_virtual_tokens: int) -> None:
    if numbers.ndim != 2 or not numbers.numel():
        raise DataError(
            "The input is not a batch of rows", got=str(tuple(numbers.shape)), needed="[B, T], with at least one token"
        )
    if attention_mask is not None and attention_mask.shape != numbers.shape:
        raise DataError(
            "attention_mask has another shape than the text",
            got=str(tuple(attention_mask.shape)),
            needed=str(tuple(numbers.shape)),
        )
    lowest = int(numbers.min())
    if lowest < -num_virtual_tokens:
        raise DataError(
            "The input names a virtual token that the prompt does not have",
            got=str(lowest),
            needed=f"token ids from 0, or -1 to -{num_virtual_tokens} for virtual tokens",
            remedy="Use attention_mask, not negative ids, to hide padding",
        )
