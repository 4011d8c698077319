"""The layers of a frozen base model, compiled by torch while a run trains.

B rows, T positions, h key/value heads, d their size. A layer is compiled by itself and for any B and T, so that what is
compiled for one serves all that are like it, and batches of other lengths. What has no gradients or no past, a mask or
a single row is compiled apart: a handful of graphs, whatever the base model's depth.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import platformdirs
import torch
from torch import Tensor, nn
from torch._dynamo.exc import FailOnRecompileLimitHit, TorchDynamoException
from torch.fx.experimental import _config
from transformers import Cache, DynamicCache
from transformers.cache_utils import DynamicLayer
from transformers.modeling_layers import GradientCheckpointingLayer

from ptune_core.errors import SettingsError
from ptune_core.model.base import BaseModel
from ptune_core.model.kernels import leave_onednn
from ptune_core.model.past import LastCache

MOST_GRAPHS = 64
"""Graphs of all layers together. What comes beyond them is computed as it is without compiling."""


class LayerPast:
    """What one layer has behind it, in the place of transformers' cache of all layers.

    With the whole cache every layer would be compiled anew: its number is then a part of what is compiled.

    Args:
        keys: `[B, h, T, d]`; None if there is nothing behind the layer.
        values: Likewise.
        keeps: Whether `made` is of use.

    Attributes:
        made: If it keeps them, the keys and values that the layer added.
    """

    def __init__(self, keys: Tensor | None, values: Tensor | None, *, keeps: bool) -> None:
        self.keys, self.values, self.keeps = keys, values, keeps
        self.made: tuple[Tensor, Tensor] | None = None

    def update(self, keys: Tensor, values: Tensor, *_: Any) -> tuple[Tensor, Tensor]:
        """What the layer attends to: all that is behind it and what it adds. As `Cache.update`."""
        if self.keeps:
            self.made = keys, values
        if self.keys is None or self.values is None:
            return keys, values
        return torch.cat([self.keys, keys], dim=2), torch.cat([self.values, values], dim=2)

    def get_seq_length(self, *_: Any) -> int:
        """T. As `Cache.get_seq_length`."""
        return 0 if self.keys is None else self.keys.shape[2]


def compile_layers(base: BaseModel, backend: str | Callable[..., Any] = "inductor") -> None:
    """Let every layer of `base` be compiled when it is first called, but for the one that computes target rows alone.

    To be called when all that tries the base model out is done: each way of calling a layer is compiled for itself.

    Args:
        base: Frozen, with whole weights and without gradient checkpointing.
        backend: As `torch.compile` takes it.

    Raises:
        SettingsError: Not here but by the first call of a layer: torch cannot compile it.
    """
    # torch's own default is in /tmp, where somebody else may have put what it would load.
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(platformdirs.user_cache_path("ptune") / "inductor"))
    # Of this base model alone: graphs of another one, in the same process, would count towards the most.
    own: dict[str, Any] = {"isolate_recompiles": True, "recompile_limit": MOST_GRAPHS}
    compiled = torch.compile(_call, backend=backend, dynamic=True, fullgraph=True, **own)
    row_wise = set(base.row_wise)
    for layer in base.body.modules():
        if isinstance(layer, GradientCheckpointingLayer) and row_wise.isdisjoint(layer.modules()):
            leave_onednn(layer)
            vars(layer)["forward"] = partial(_forward, layer, compiled, layer.forward, _number(layer))


def _number(layer: nn.Module) -> int:
    """The layer's place in a cache; -1 if it has not exactly one."""
    numbers: set[int] = {vars(module)["layer_idx"] for module in layer.modules() if "layer_idx" in vars(module)}
    return numbers.pop() if len(numbers) == 1 else -1


def _call(layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    return type(layer).forward(layer, *args, **kwargs)


def _forward(
    layer: nn.Module,
    compiled: Callable[..., Any],
    plain: Callable[..., Any],
    number: int,
    *args: Any,
    **kwargs: Any,
) -> Any:
    values = (*args, *kwargs.values())
    cache = next((value for value in values if isinstance(value, Cache)), None)
    hidden = next(value for value in values if isinstance(value, Tensor))
    if hidden.shape[:-1].numel() == 1:  # one token of a text that is written: as fast as its weights are read
        return plain(*args, **kwargs)
    past = None if cache is None else _past(cache, number)
    if cache is not None and past is None:
        return plain(*args, **kwargs)
    own = tuple(past if isinstance(value, Cache) else value for value in args)
    named = {name: past if isinstance(value, Cache) else value for name, value in kwargs.items()}
    try:
        with _apart():
            found = compiled(layer, own, named)
    except FailOnRecompileLimitHit:
        return plain(*args, **kwargs)
    except TorchDynamoException as error:
        raise SettingsError(
            "torch.compile cannot compile the layers of this base model here",
            got=" ".join(str(error).split())[:300],
            needed="a C++ compiler such as g++ on a CPU, triton on a GPU, and layers that torch.compile knows",
            remedy="Set compile to off (false)",
        ) from error
    if cache is not None and past is not None and past.made is not None:
        cache.update(*past.made, number)
    return found


@contextmanager
def _apart() -> Iterator[None]:
    """While inside, as many rows as there are heads are not taken for one number: fewer graphs."""
    before, _config.use_duck_shape = _config.use_duck_shape, False
    try:
        yield
    finally:
        _config.use_duck_shape = before


def _past(cache: Cache, number: int) -> LayerPast | None:
    """What the layer has behind it; None if this kind of cache does more than to grow."""
    if not isinstance(cache, DynamicCache) or number < 0:
        return None
    keeps = not isinstance(cache, LastCache)
    if number >= len(cache.layers):
        return LayerPast(None, None, keeps=keeps)
    layer = cache.layers[number]
    if type(layer) is not DynamicLayer:
        return None
    return LayerPast(layer.keys, layer.values, keeps=keeps)
