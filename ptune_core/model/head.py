"""Classification heads: the base model's own, or a plain layer on what is read of its last hidden states.

What a head reads differs little from row to row beside what all rows have in common, and some features differ far more
than others. AdamW moves each weight by its step size whatever its gradient, so what is common moves all scores
together, and a small feature hardly counts. A head that reads its inputs standardised, less their mean and in units of
their deviation at the start, has the differences alone to learn from. Weight and bias make up for both when the head
is written down, so it is the same plain head to everybody else.

H hidden size, W width of what is read, C labels.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional

from ptune_core.errors import BaseModelError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

ENCODER_HEAD = "classifier"

HEAD_NAMES = ("score", ENCODER_HEAD)
"""Attribute of the classification head, as PEFT looks for it: `score` on decoders, `classifier` on encoders."""

SMALLEST_DEVIATION = 1e-6
"""What a feature that is the same in all rows is divided by."""


def spread_of(features: Tensor, *, centered: bool = True) -> tuple[Tensor, Tensor]:
    """Mean and deviation `[W]` of each feature over the rows `[N, W]`; not centered, the mean is zero."""
    mean = features.mean(dim=0) if centered else torch.zeros_like(features[0])
    return mean, (features - mean).square().mean(dim=0).sqrt().clamp(min=SMALLEST_DEVIATION)


class StandardisedLinear(nn.Linear):
    """A layer that reads `(x - mean) / deviation`; both are buffers `[W]` of checkpoints, never of an adapter.

    Without a bias, as on decoders, nothing could make up for a mean: it stays zero then.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__(layer.in_features, layer.out_features, bias=layer.bias is not None, device="meta")
        self.weight, self.bias = layer.weight, layer.bias
        self.register_buffer("mean", torch.zeros_like(layer.weight[0]))
        self.register_buffer("deviation", torch.ones_like(layer.weight[0]))

    def forward(self, inputs: Tensor) -> Tensor:
        """`[..., W]` -> `[..., C]`."""
        return functional.linear((inputs - self.mean) / self.deviation, self.weight, self.bias)

    @torch.no_grad()
    def standardise_by(self, inputs: Tensor) -> None:
        """Take mean and deviation from the rows of `inputs`, `[N, W]`, in place of any before."""
        self.standardise_as(*spread_of(inputs, centered=self.bias is not None))

    @torch.no_grad()
    def standardise_as(self, mean: Tensor, deviation: Tensor) -> None:
        """Take this mean and deviation, `[W]` each; the mean is zero for a layer without a bias."""
        self.mean.copy_(mean)
        self.deviation.copy_(deviation)

    @torch.no_grad()
    def start_at(self, weight: Tensor, bias: Tensor) -> None:
        """Begin with these scores of standardised inputs: weight `[C, W]`, bias `[C]`, if it has one."""
        self.weight.copy_(weight)
        if self.bias is not None:
            self.bias.copy_(bias)


def own_head(model: PreTrainedModel, id: str) -> str:
    """Name of the base model's own classification head.

    Raises:
        BaseModelError: It has none that an adapter could carry.
    """
    name = next((name for name in HEAD_NAMES if isinstance(getattr(model, name, None), nn.Module)), None)
    if name is None:
        raise BaseModelError(
            f"The base model {id!r} has no classification head that an adapter could carry",
            got=type(model).__name__,
            needed="a model whose head is called " + " or ".join(HEAD_NAMES),
        )
    return name


def plain_head(width: int, num_labels: int) -> nn.Linear:
    """One layer `[C, W]` with a bias, all zeros."""
    head = nn.Linear(width, num_labels)
    nn.init.zeros_(head.weight)
    nn.init.zeros_(head.bias)
    return head


def learning_in_fp32(head: nn.Module) -> nn.Module:
    """`head`, from now on trainable and in fp32, whatever its inputs are."""
    head.float().requires_grad_(True)
    head.register_forward_pre_hook(lambda module, inputs: tuple(tensor.float() for tensor in inputs))
    return head


@torch.no_grad()
def draw_anew(head: nn.Module, seed: int, spread: float) -> None:
    """Give all layers of a head new random weights, as transformers draws them: normal, biases zero."""
    generator = torch.Generator().manual_seed(seed)
    for layer in head.modules():
        if isinstance(layer, nn.Linear):
            drawn = torch.randn(layer.weight.shape, generator=generator) * spread
            layer.weight.copy_(drawn)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


def last_linear(head: nn.Module) -> nn.Linear:
    """The layer of a head that scores the labels."""
    return [module for module in head.modules() if isinstance(module, nn.Linear)][-1]


def with_standardised_inputs(head: nn.Module) -> nn.Module:
    """`head` with its last layer reading its inputs standardised: changed in place, or another if it is that layer."""
    layer = last_linear(head)
    own = StandardisedLinear(layer)
    if layer is head:
        return learning_in_fp32(own)
    [place] = [name for name, module in head.named_modules() if module is layer]
    parent, _, attribute = place.rpartition(".")
    setattr(head.get_submodule(parent), attribute, own)
    return head


@contextmanager
def inputs_of(layer: nn.Module) -> Iterator[list[Tensor]]:
    """While this lasts, what a layer is called with, before it standardises it: one `[..., W]` a call."""
    found: list[Tensor] = []
    hook = layer.register_forward_pre_hook(lambda _, inputs: found.append(inputs[0].detach().float()))
    try:
        yield found
    finally:
        hook.remove()


@torch.no_grad()
def plain_state(head: nn.Module, prefix: str) -> dict[str, Tensor]:
    """The state of `head` as it is for everybody else: the same scores of inputs that are not standardised.

    Args:
        head: With a standardised layer or without.
        prefix: Before every key.
    """
    state = {f"{prefix}{name}": tensor for name, tensor in head.state_dict().items()}
    for name, layer in head.named_modules():
        if isinstance(layer, StandardisedLinear):
            place = f"{prefix}{name}." if name else prefix
            mean, deviation = state.pop(f"{place}mean"), state.pop(f"{place}deviation")
            state[f"{place}weight"] = layer.weight / deviation
            if layer.bias is not None:
                state[f"{place}bias"] = layer.bias - state[f"{place}weight"] @ mean
    return state
