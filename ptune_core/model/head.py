"""A new classification head that learns around the mean of what it reads.

What a head reads differs little from row to row beside what all rows have in common. AdamW moves each weight by its
step size whatever its gradient, so what is common moves all weights one way, and all scores jump together: for
many steps every row gets the same label. A head that reads its inputs less their mean at the start has only the
differences to learn from. Its bias makes up for the mean when it is written down, so it is the same plain head to
everybody else.

H hidden size, C labels.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

CENTER = "center"
"""Name of the buffer `[H]` that is taken from the inputs; a part of checkpoints, never of an adapter."""


def last_linear(head: nn.Module) -> nn.Linear | None:
    """The layer of a head that scores the labels, if it has the bias that can make up for a mean; else None.

    Decoders' heads have none.
    """
    layers = [module for module in head.modules() if isinstance(module, nn.Linear)]
    return layers[-1] if layers and layers[-1].bias is not None else None


class Inputs:
    """While inside, collects what a layer is called with: `mean` is that of all rows so far, `[H]`."""

    def __init__(self, layer: nn.Linear) -> None:
        self._layer = layer
        self._sum, self._rows = torch.zeros_like(layer.weight[0]), 0

    def __enter__(self) -> Inputs:
        self._hook = self._layer.register_forward_pre_hook(self._note)
        return self

    def __exit__(self, *_: object) -> None:
        self._hook.remove()

    @property
    def mean(self) -> Tensor:
        return self._sum / self._rows

    def _note(self, layer: nn.Module, inputs: tuple[Any, ...]) -> None:
        rows = inputs[0].detach().flatten(0, -2)
        self._sum, self._rows = self._sum + rows.sum(dim=0), self._rows + len(rows)


def center_on(layer: nn.Linear, mean: Tensor) -> None:
    """Let `layer` read its inputs less `mean` `[H]` from now on, in place of any mean before."""
    if not hasattr(layer, CENTER):
        layer.register_forward_pre_hook(lambda module, inputs: (inputs[0] - getattr(module, CENTER),))
    layer.register_buffer(CENTER, mean.clone())


@torch.no_grad()
def plain_state(head: nn.Module, prefix: str) -> dict[str, Tensor]:
    """The state of `head` as it is without a center: the same scores, the mean in the bias.

    Args:
        head: Centered or not.
        prefix: Before every key.
    """
    state = {f"{prefix}{name}": tensor for name, tensor in head.state_dict().items()}
    for name, layer in head.named_modules():
        if isinstance(layer, nn.Linear) and hasattr(layer, CENTER):
            place = f"{prefix}{name}." if name else prefix
            center = state.pop(f"{place}{CENTER}")
            state[f"{place}bias"] = layer.bias - layer.weight @ center
    return state
