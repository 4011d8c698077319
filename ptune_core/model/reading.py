"""Which of a row's last hidden states a classification head reads, and what it makes of them.

B rows, T positions, N positions that are read, W width of a hidden state.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import torch
from torch import Tensor

from ptune_core.data.layout import Batch
from ptune_core.errors import SettingsError
from ptune_core.model.head_input import HeadInput
from ptune_core.prompt.segments import Column, VirtualTokens
from ptune_core.prompt.template import Template


@dataclass(frozen=True)
class Read:
    """Positions that are read.

    Attributes:
        places: `[N]` in the flattened `[B * T]`.
        rows: `[N]`, the row of each.
        count: B.
    """

    places: Tensor
    rows: Tensor
    count: int

    def mean(self, hidden: Tensor) -> Tensor:
        """The mean of each row's positions, of all hidden states `[B, T, W]`: `[B, W]` fp32."""
        picked = hidden.flatten(0, 1).index_select(0, self.places).float()
        sums = picked.new_zeros(self.count, picked.shape[1]).index_add(0, self.rows, picked)
        return sums / torch.bincount(self.rows, minlength=self.count).clamp(min=1)[:, None]


def read_at(way: HeadInput, batch: Batch, beginnings: Collection[int]) -> Read:
    """Which positions of a batch are read; at least one of every row.

    Args:
        way: MEAN, FIRST or LAST.
        batch: All text is in its last part, see `Arrangement.share_text`.
        beginnings: Ids of the tokens a text begins with, such as `[CLS]`: in first place no part of a mean. One that
            somebody wrote into a text is text.
    """
    shown = batch.attention_mask.bool()
    text = shown & (batch.virtual_index < 0)
    text = torch.where(text.any(dim=1, keepdim=True), text, shown)
    if way is HeadInput.MEAN:
        begins = torch.isin(batch.token_ids, torch.tensor(list(beginnings), device=shown.device))
        inner = text & ~(begins & (text.cumsum(dim=1) == 1))
        text = torch.where(inner.any(dim=1, keepdim=True), inner, text)
    else:
        order = torch.arange(text.shape[1], device=text.device)
        order = order if way is HeadInput.LAST else -order
        chosen = order.masked_fill(~text, -text.shape[1]).argmax(dim=1)
        text = torch.zeros_like(text).scatter(1, chosen[:, None], True)
    rows, columns = text.nonzero(as_tuple=True)
    return Read(rows * text.shape[1] + columns, rows, len(text))


def reads_text(way: HeadInput) -> bool:
    """Whether the text itself is read, so that all of it has to be computed with every row."""
    return way in (HeadInput.MEAN, HeadInput.FIRST)


def sees_prompt(way: HeadInput, template: Template, *, is_causal: bool) -> bool:
    """Whether virtual tokens of a resolved template change what is read; behind a decoder's text they do not."""
    if not is_causal or not reads_text(way):
        return True
    segments = template.segments
    first = next((i for i, segment in enumerate(segments) if isinstance(segment, VirtualTokens)), len(segments))
    columns = [i for i, segment in enumerate(segments) if isinstance(segment, Column)]
    return first < (min(columns, default=0) if way is HeadInput.FIRST else max(columns, default=0))


def check_sees_prompt(way: HeadInput, template: Template, *, is_causal: bool) -> None:
    """Refuse what virtual tokens cannot change.

    Raises:
        SettingsError: The head would read text of a decoder that stands before all virtual tokens.
    """
    if not sees_prompt(way, template, is_causal=is_causal):
        raise SettingsError(
            "The classification head would read text that the virtual tokens cannot change",
            got=f"head_input: {way}, and a decoder whose text stands before them",
            needed="virtual tokens before the text, as in [P*20] {text} [HEAD:label], or head_input: last",
            remedy="Move the virtual tokens to the front, or set head_input to auto",
        )
