"""Layers that compute their activations again for the gradient instead of keeping them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch.utils.checkpoint import checkpoint
from transformers import Cache
from transformers.modeling_layers import GradientCheckpointingLayer

from ptune_core.model.base import BaseModel


def with_gradient_checkpointing(base: BaseModel) -> BaseModel:
    """Make every layer of `base` compute its activations again in the backward pass, which saves their memory.

    transformers' own switch works only in train mode, which would bring dropout back. A layer that appends to keys and
    values cannot run twice; where there are such, little text has gradients and there is little to save.
    """
    for layer in base.body.modules():
        if isinstance(layer, GradientCheckpointingLayer):
            vars(layer)["forward"] = partial(_recomputed, layer.forward)
    return replace(base, gradient_checkpointing=True, row_wise=())


def _recomputed(forward: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    if not torch.is_grad_enabled() or any(isinstance(value, Cache) for value in (*args, *kwargs.values())):
        return forward(*args, **kwargs)
    return checkpoint(forward, *args, use_reentrant=False, **kwargs)
