"""What a forward needs to compute at the target rows alone: the vocabulary head, and most of the last layer.

B rows, T positions, N targets, H hidden size, V vocabulary. Behind the last layer only targets are looked at. Within it
the other positions are needed for their keys and values, for nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from enum import StrEnum
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.modeling_layers import GradientCheckpointingLayer

from ptune_core.model.kernels import product_of

_PROBE_TOKENS = 8


class ReadAt(StrEnum):
    """Which position of a row a result is read at."""

    LAST = "last"
    ANYWHERE = "anywhere"  # where the mask tokens stand
    POOLED = "pooled"  # what a classification head makes of the first

    @property
    def probe(self) -> int:
        """One such position among the probe's."""
        return {ReadAt.LAST: -1, ReadAt.ANYWHERE: _PROBE_TOKENS // 2, ReadAt.POOLED: 0}[self]


def layers_of(body: nn.Module) -> list[nn.Module]:
    """The layers of a base model, in their order."""
    return [module for module in body.modules() if isinstance(module, GradientCheckpointingLayer)]


@contextmanager
def only_rows(head: nn.Module, targets: Tensor, vocabulary: Tensor | None = None) -> Iterator[None]:
    """While this lasts, a base model computes its vocabulary head at N target positions alone: logits `[1, N, V]`.

    It is the model's own forward that runs, so what it does to logits afterwards (caps, scales) is done.

    Args:
        head: The base model's output embeddings.
        targets: `[N]` positions in the flattened `[B * T]`.
        vocabulary: `[C]` token ids; then only their logits are computed, in fp32: `[1, N, C]`.
    """

    def select(module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return (inputs[0].flatten(0, 1).index_select(0, targets).unsqueeze(0),)

    handles, before = [head.register_forward_pre_hook(select)], vars(head).get("forward")
    if vocabulary is not None and type(head) is nn.Linear:
        weight = head.weight.index_select(0, vocabulary).float()
        bias = None if head.bias is None else head.bias.index_select(0, vocabulary).float()
        multiply = product_of(head)
        vars(head)["forward"] = lambda hidden: multiply(hidden.float(), weight, bias)
    elif vocabulary is not None:
        handles.append(head.register_forward_hook(lambda _, __, logits: logits.index_select(-1, vocabulary)))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
        vars(head).pop("forward", None)
        if before is not None:
            vars(head)["forward"] = before


@contextmanager
def last_layer_at(row_wise: Sequence[nn.Module], targets: Tensor) -> Iterator[None]:
    """While this lasts, `row_wise` modules compute N target positions and put zeros everywhere else.

    Args:
        row_wise: From `row_wise_modules`.
        targets: `[N]` positions in the flattened `[B * T]`; none where only keys and values are asked for.
    """
    before = [vars(module).get("forward") for module in row_wise]
    for module in row_wise:
        vars(module)["forward"] = partial(_at, module.forward, targets)
    try:
        yield
    finally:
        for module, forward in zip(row_wise, before, strict=True):
            del vars(module)["forward"]
            if forward is not None:
                vars(module)["forward"] = forward


def _at(forward: Callable[[Tensor], Tensor], targets: Tensor, hidden: Tensor) -> Tensor:
    flat = hidden.flatten(0, 1)
    computed = forward(flat.index_select(0, targets).unsqueeze(0))[0]
    every = computed.new_zeros(len(flat), computed.shape[1])
    return every.index_copy(0, targets, computed).unflatten(0, hidden.shape[:2])


@torch.no_grad()
def row_wise_modules(model: PreTrainedModel, read_at: ReadAt) -> tuple[nn.Module, ...]:
    """Modules of the last layer whose work at other positions than the target's changes nothing at the target.

    What a model's class promises is not relied on: a few tokens are computed with and without it, and compared bit by
    bit. Such are the MLP, the attention's output and, where it is a module of its own, its queries.

    Args:
        model: In eval mode.
        read_at: Where the result is read.
    """
    layers = layers_of(model.base_model)
    if not layers:
        return ()
    layer, target = layers[-1], read_at.probe
    options = {"use_cache": False} if read_at is ReadAt.LAST else {}
    ids = torch.arange(_PROBE_TOKENS, device=model.device)[None] % model.config.get_text_config().vocab_size
    calls: list[tuple[tuple[Any, ...], dict[str, Any], Any]] = []

    def whole() -> Tensor:
        if read_at is ReadAt.POOLED:
            pooled: Tensor = model(input_ids=ids).logits
            return pooled
        result: Tensor = model.base_model(input_ids=ids, **options).last_hidden_state[:, target]
        return result

    def alone() -> Tensor:
        args, kwargs, _ = calls[0]
        result: Tensor = layer(*args, **kwargs)[:, target]
        return result

    with _watched(layer, lambda *call: calls.append(call[1:])):
        candidates = _one_to_one(layer, whole)
    if not calls or not isinstance(calls[0][-1], Tensor) or not _rest_is_unused(layer, whole, target):
        return ()
    return tuple(_row_wise_within(layer, candidates, alone, target))


def _one_to_one(layer: nn.Module, run: Callable[[], Tensor]) -> set[nn.Module]:
    """Modules in the layer that multiply by weights and make one `[B, T, ...]` of one `[B, T, ...]`."""
    found: set[nn.Module] = set()

    def note(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        tensors = [*args, *kwargs.values(), output]
        if len(tensors) == 2 and all(isinstance(each, Tensor) and each.ndim == 3 for each in tensors):
            if tensors[0].shape[:2] == output.shape[:2] and any(p.ndim > 1 for p in module.parameters()):
                found.add(module)

    with ExitStack() as stack:
        for module in layer.modules():
            stack.enter_context(_watched(module, note))
        run()
    return found


@contextmanager
def _watched(module: nn.Module, hook: Callable[..., Tensor | None]) -> Iterator[None]:
    handle = module.register_forward_hook(hook, with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()


def _row_wise_within(
    module: nn.Module, candidates: set[nn.Module], run: Callable[[], Tensor], target: int
) -> Iterator[nn.Module]:
    for child in module.children():
        if child in candidates and _rest_is_unused(child, run, target):
            yield child
        else:
            yield from _row_wise_within(child, candidates, run, target)


def _rest_is_unused(module: nn.Module, run: Callable[[], Tensor], target: int) -> bool:
    """Whether `run` gives the same bits when only `target` of what the module makes is left, and zeros elsewhere."""

    def wipe(_: nn.Module, __: tuple[Any, ...], ___: dict[str, Any], output: Tensor) -> Tensor:
        kept = torch.zeros_like(output)
        kept[:, target] = output[:, target]
        return kept

    expected = run()
    with _watched(module, wipe):
        return torch.equal(run(), expected)
