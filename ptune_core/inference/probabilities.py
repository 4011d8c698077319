"""Labels' scores -> probabilities."""

from __future__ import annotations

import torch
from torch import Tensor

from ptune_core.errors import InferenceError


def probabilities(scores: Tensor) -> Tensor:
    """A softmax over the labels' scores alone, `[B, C]`; a score of -inf is no label.

    Raises:
        InferenceError: A score is NaN or infinite.
    """
    found = torch.softmax(scores, dim=-1)
    if not bool(found.isfinite().all()):
        raise InferenceError(
            "The model computes no usable numbers for this text",
            got="NaN or infinity",
            remedy="Train again in fp32 or with a lower learning rate",
        )
    return found
