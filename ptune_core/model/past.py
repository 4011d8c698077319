"""Keys and values of what stands before the part of a batch that is computed.

B rows, T positions, h key/value heads, d their size. A past is padded on the left, so that its end touches what comes
next: sliding windows and position ids then need no care, and the mask hides the padding.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import Cache, DynamicCache, StaticCache
from transformers.cache_utils import DynamicLayer

from ptune_core.data.batching import Row
from ptune_core.model.base import BaseModel
from ptune_core.model.base_kind import BaseKind
from ptune_core.model.targets import last_layer_at
from ptune_core.model.virtual import Added, adding

LayerStates = list[tuple[Tensor, Tensor]]
"""Keys and values `[B, h, T, d]` of each layer."""

WRITTEN_OUT_AT_MOST = 16 * 2**20
"""Bytes of one layer's attention weights up to which they may be kept."""

_PROBE_TOKENS = 8


@dataclass(frozen=True)
class Past:
    """What B rows have behind them.

    Attributes:
        layers: Keys and values `[B, h, T, d]` of each layer.
        lengths: Positions of each row that are not padding.
    """

    layers: LayerStates
    lengths: tuple[int, ...]

    @property
    def width(self) -> int:
        """T."""
        return self.layers[0][0].shape[2]

    def cache(self) -> DynamicCache:
        """For the base model's forward. It keeps whole layers: a sliding window is a matter of the mask."""
        return DynamicCache(self.layers)

    def tile(self, times: int) -> Past:
        """All rows, `times` times over; one row is not copied."""
        return Past(self._map(lambda states: _expand(states, 0, times)), self.lengths * times)

    def each(self, times: int) -> Past:
        """Each row `times` times in a row; one row is not copied."""
        lengths = tuple(length for length in self.lengths for _ in range(times))
        return Past(self._map(lambda states: _expand(states, 1, times)), lengths)

    def first(self, width: int) -> Past:
        """The first `width` positions of rows without padding."""
        return Past(self._map(lambda states: states[:, :, :width]), (width,) * len(self.lengths))

    def _map(self, change: Callable[[Tensor], Tensor]) -> LayerStates:
        return [(change(keys), change(values)) for keys, values in self.layers]

    def mask(self, new: int) -> Tensor | None:
        """`[B, T + new]`, 0 at the padding; None if there is none."""
        if len(set(self.lengths)) == 1 and self.lengths[0] == self.width:
            return None
        keys = self.layers[0][0]
        starts = self.width - torch.tensor(self.lengths, device=keys.device)
        places = torch.arange(self.width + new, device=keys.device)
        return (places >= starts[:, None]).long()

    def positions(self, new: int) -> Tensor | None:
        """Position ids `[B, new]` of what comes next; None if counting on from T is right."""
        if len(set(self.lengths)) == 1 and self.lengths[0] == self.width:
            return None
        device = self.layers[0][0].device
        return torch.tensor(self.lengths, device=device)[:, None] + torch.arange(new, device=device)


@dataclass(frozen=True)
class Prefix:
    """What every row of a template begins with, computed for one prompt: reused for every request.

    Attributes:
        numbers: Token ids and virtual tokens, as in `Row`.
        past: Their keys and values, one row.
    """

    numbers: tuple[int, ...]
    past: Past

    def covers(self, rows: Sequence[Row]) -> int:
        """How many of the rows' first numbers it spares; at least one of each row is left."""
        assert all(row.ids[: len(self.numbers)] == self.numbers for row in rows), "rows of another template"
        return min(len(self.numbers), min(len(row.ids) for row in rows) - 1)


class LastCache(DynamicCache):
    """A cache for the last part of rows: what a layer adds is handed to that layer and not kept."""

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """All keys and values of a layer, with what it adds."""
        keys, values = _states(self.layers[layer_idx])
        return torch.cat([keys, key_states], dim=2), torch.cat([values, value_states], dim=2)


def inputs_after(base: BaseModel, past: Past | None, inputs_embeds: Tensor, *, is_last: bool = False) -> dict[str, Any]:
    """What a causal base model is called with for the positions after `past`, `[B, T, H]`.

    Args:
        base: The base model.
        past: What is behind them.
        inputs_embeds: The positions.
        is_last: Nothing comes after them, so their keys and values need not be kept.
    """
    if past is None:
        return {"inputs_embeds": inputs_embeds, "use_cache": False}
    inputs: dict[str, Any] = {
        "inputs_embeds": inputs_embeds,
        "past_key_values": LastCache(past.layers) if is_last else past.cache(),
        "use_cache": True,
        "attention_mask": past.mask(inputs_embeds.shape[1]),
    }
    if base.accepts("position_ids"):
        inputs["position_ids"] = past.positions(inputs_embeds.shape[1])
    return inputs


@contextmanager
def attention_for(base: BaseModel, inputs: dict[str, Any]) -> Iterator[None]:
    """While this lasts, attention is computed in the way that trains fastest with these `inputs` of the base model.

    On a CPU the backward pass of torch's flash attention in bf16 takes as long as three of the layer's matrices.
    transformers' written-out attention takes next to nothing, for memory that is small where little text is.
    """
    if not _is_written_out(base, inputs):
        yield
        return
    usual = base.model.config._attn_implementation
    base.model.set_attn_implementation("eager")
    try:
        yield
    finally:
        base.model.set_attn_implementation(usual)


def _is_written_out(base: BaseModel, inputs: dict[str, Any]) -> bool:
    embeddings, past = inputs["inputs_embeds"], inputs.get("past_key_values")
    if embeddings.device.type != "cpu" or embeddings.dtype != torch.bfloat16 or not torch.is_grad_enabled():
        return False
    if base.kind is BaseKind.ENCODER_DECODER:  # not each of its kinds of attention is written out
        return False
    if base.gradient_checkpointing:  # a layer that is computed again must be computed in the same way
        return False
    rows, new = embeddings.shape[:2]
    heads = base.model.config.get_text_config().num_attention_heads
    seen = new + (0 if past is None else past.get_seq_length())
    return bool(rows * heads * new * seen * 4 <= WRITTEN_OUT_AT_MOST)


def go_on(base: BaseModel, past: Past | None, inputs_embeds: Tensor, added: Added | None = None) -> Past:
    """The past of rows of equal length, after `inputs_embeds` `[B, T, H]` and what is added before the layers too."""
    nowhere = torch.empty(0, dtype=torch.long, device=base.device)
    inputs = inputs_after(base, past, inputs_embeds)
    cache = inputs.setdefault("past_key_values", DynamicCache())
    with last_layer_at(base.row_wise, nowhere), adding(base, added):
        base.body(**(inputs | {"use_cache": True}))
    assert isinstance(cache, DynamicCache)
    lengths = (0,) * len(inputs_embeds) if past is None else past.lengths
    new = inputs_embeds.shape[1]
    return Past([_states(layer) for layer in cache.layers], tuple(length + new for length in lengths))


def filled_cache(base: BaseModel, past: Past | None, length: int | None) -> Cache:
    """A cache as transformers' `generate` makes it, with `past` in it already.

    Args:
        base: Whose keys and values they are.
        past: Without padding; None: an empty cache.
        length: Positions of a static cache; None: a dynamic one, which grows.
    """
    config = base.model.config.get_text_config(decoder=True)
    cache = DynamicCache(config=config) if length is None else StaticCache(config=config, max_cache_len=length)
    for i, (keys, values) in enumerate([] if past is None else past.layers):
        cache.update(keys, values, i)
    return cache


def _expand(states: Tensor, place: int, times: int) -> Tensor:
    """Repeat `[B, ...]` as a whole (`place` 0) or row by row (`place` 1)."""
    if len(states) == 1:
        return states.expand(times, *states.shape[1:])
    shape = [-1] * (states.ndim + 1)
    shape[place] = times
    return states.unsqueeze(place).expand(shape).flatten(0, 1)


def _states(layer: object) -> tuple[Tensor, Tensor]:
    assert isinstance(layer, DynamicLayer) and layer.keys is not None and layer.values is not None
    return layer.keys, layer.values


@torch.no_grad()
def why_not_in_parts(base: BaseModel) -> str | None:
    """Why rows of this base model cannot be computed part after part; None if they can.

    What a model's class promises is not relied on: a few tokens are computed both ways and compared.
    """
    if not base.is_causal:
        return "the base model reads in both directions"
    if base.model.training or any(parameter.requires_grad for parameter in base.body.parameters()):
        return "the base model itself is being trained"
    cache = DynamicCache(config=base.model.config)
    if not base.accepts("past_key_values") or any(cache.is_linear):
        return "the base model does not keep keys and values"
    ids = torch.arange(_PROBE_TOKENS, device=base.device)[None] % len(base.embedding_weight)
    embeddings = base.word_embeddings(ids)
    whole = base.body(**inputs_after(base, None, embeddings)).last_hidden_state[:, -1].float()
    half = _PROBE_TOKENS // 2
    inputs = inputs_after(base, go_on(base, None, embeddings[:, :half]), embeddings[:, half:], is_last=True)
    parts = base.body(**inputs).last_hidden_state[:, -1].float()
    tolerance = 0.05 if base.embedding_weight.dtype == torch.bfloat16 else 1e-3
    if not float((whole - parts).abs().max()) <= tolerance * float(whole.abs().max()):  # NaN is not the same either
        return "the base model's keys and values depend on the text after them"
    return None
