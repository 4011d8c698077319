"""Virtual tokens in what a base model computes: in its input, and where a prompt is deep before each layer.

B rows, T positions, S prompts, P virtual tokens, L layers, H hidden size. A deep prompt is one tensor
`[(1 + L) * P, H]`: the prompt embeddings, then for each layer P rows which are added to the hidden states of the
virtual tokens before that layer. Its depth is known by its size alone, so that whatever hands prompts on need not know.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from ptune_core.model.base import BaseKind, BaseModel
from ptune_core.model.targets import layers_of

_PROBE_TOKENS = 8
_MEASURED_WORDS = 32


@dataclass(frozen=True)
class Added:
    """What is added to hidden states before each layer.

    Attributes:
        layers: `[S * P, H]` of each of L layers, rows as in the prompt embeddings.
        index: `[B, n]` for the first n positions: the row to add there, or -1.
    """

    layers: tuple[Tensor, ...]
    index: Tensor

    def before(self, layer: int, hidden: Tensor) -> Tensor:
        """The hidden states `[B, T, H]` that layer number `layer`, from 0, is to read."""
        rows = functional.embedding(self.index.clamp(min=0), self.layers[layer])
        rows = rows.masked_fill((self.index < 0).unsqueeze(-1), 0.0).to(hidden.dtype)
        return hidden + functional.pad(rows, (0, 0, 0, hidden.shape[1] - self.index.shape[1]))


@dataclass(frozen=True)
class Call:
    """What a base model is called with, and what is added before its layers meanwhile; None: nothing."""

    inputs: dict[str, Any]
    added: Added | None = None


def parts_of(prompt: Tensor, num_virtual_tokens: int, prompts: int = 1) -> tuple[Tensor, tuple[Tensor, ...]]:
    """The prompt embeddings `[S * P, H]` and, of deep prompts, what each of L layers adds, likewise.

    Args:
        prompt: `[S * P, H]` or `[S * (1 + L) * P, H]`, one prompt below the other.
        num_virtual_tokens: P.
        prompts: S.
    """
    if len(prompt) == prompts * num_virtual_tokens:
        return prompt, ()
    first, *layers = prompt.unflatten(0, (prompts, -1, num_virtual_tokens)).unbind(1)
    return first.flatten(0, 1), tuple(layer.flatten(0, 1) for layer in layers)


def combine(text_embeddings: Tensor, virtual_index: Tensor, prompt_embeddings: Tensor | None) -> Tensor:
    """Put virtual tokens in their places.

    Args:
        text_embeddings: `[B, T, H]`.
        virtual_index: `[B, T]`, the row of `prompt_embeddings` to put there, or -1.
        prompt_embeddings: `[P, H]`, or None to leave the text as it is.

    Returns:
        `[B, T, H]` in the precision of the text embeddings.
    """
    if prompt_embeddings is None:
        return text_embeddings
    # Indexed first: a batch may use a few rows of the prompts of very many adapters.
    placed = prompt_embeddings[virtual_index.clamp(min=0)].to(text_embeddings.dtype)
    return torch.where((virtual_index >= 0).unsqueeze(-1), placed, text_embeddings)


@contextmanager
def adding(base: BaseModel, added: Added | None, *, once: bool = False) -> Iterator[None]:
    """While this lasts, `added` is added before the layers of `base`; with `once` only when each is first called."""
    if added is None:
        yield
        return
    with ExitStack() as stack:
        for number, layer in enumerate(layers_of(base.body)):
            stack.enter_context(_before(layer, _adder(added, number), once=once))
        yield


def _adder(added: Added, number: int) -> Callable[[Tensor], Tensor]:
    return lambda hidden: added.before(number, hidden)


@contextmanager
def _before(layer: nn.Module, change: Callable[[Tensor], Tensor], *, once: bool = False) -> Iterator[None]:
    """While this lasts, a layer reads hidden states that `change` has changed."""

    def hook(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        if once:
            handle.remove()
        if args:
            return (change(args[0]), *args[1:]), kwargs
        # One that names them otherwise is left as it is: `why_not_deep` then finds fewer layers than there are.
        named = {name: change(value) for name, value in kwargs.items() if name == "hidden_states"}
        return args, kwargs | named

    handle = layer.register_forward_pre_hook(hook, with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()


@torch.no_grad()
def _layer_inputs(base: BaseModel, ids: Sequence[int]) -> list[Tensor]:
    """The hidden states that the base model's layers read for one text, in the order in which they are called."""
    found: list[Tensor] = []

    def note(hidden: Tensor) -> Tensor:
        found.append(hidden)
        return hidden

    with ExitStack() as stack:
        for layer in layers_of(base.body):
            stack.enter_context(_before(layer, note))
        base.body(inputs_embeds=base.word_embeddings(torch.tensor([ids], device=base.device)))
    return found


def why_not_deep(base: BaseModel) -> str | None:
    """Why virtual tokens cannot add to their hidden states before each layer of this base model; None if they can.

    What a model's class promises is not relied on: a few tokens are computed, and the layers watched.
    """
    if base.kind is BaseKind.ENCODER_DECODER:
        return "an encoder-decoder reads with layers of one kind and writes with others"
    if not (layers := layers_of(base.body)):
        return "its layers are of no kind that is known here"
    read = _layer_inputs(base, range(_PROBE_TOKENS))
    if len(read) != len(layers):
        return f"for one text its {len(layers)} layers are called {len(read)} times, as where layers share weights"
    needed = (1, _PROBE_TOKENS, base.hidden_size)
    if other := next((tuple(hidden.shape) for hidden in read if tuple(hidden.shape) != needed), None):
        return f"a layer reads hidden states {list(other)} for word embeddings {list(needed)}"
    return None


def hidden_lengths(base: BaseModel) -> Tensor:
    """How long the hidden states of words are where each layer reads them, `[L]` fp32 on the CPU.

    The median over words from all of the vocabulary: the first position of many decoders is thousands of times longer.
    """
    vocabulary = len(base.embedding_weight)
    count = min(_MEASURED_WORDS, vocabulary, base.max_positions or _MEASURED_WORDS)
    read = _layer_inputs(base, [i * vocabulary // count for i in range(count)])
    return torch.stack([hidden[0].float().norm(dim=1).median() for hidden in read]).cpu()
