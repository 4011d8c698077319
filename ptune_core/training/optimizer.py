"""What AdamW is given: the prompt's weights, and those of a tuned base model with a peak step size of their own."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import nn

BASE_WEIGHT_DECAY = 0.1
"""Of a tuned base model's matrices (the paper's code); biases and norms, which have one dimension, have none."""


def parameter_groups(parameters: Iterable[nn.Parameter], peak: float, weight_decay: float) -> list[dict[str, Any]]:
    """One group, or none for no parameters; `peak` stays in it as the learning rate that the schedule comes to."""
    learning = list(parameters)
    return [{"params": learning, "lr": peak, "peak": peak, "weight_decay": weight_decay}] if learning else []


def base_parameter_groups(parameters: Iterable[nn.Parameter], peak: float) -> list[dict[str, Any]]:
    """The groups of a tuned base model; none for a frozen one, which has no parameters to train."""
    matrices: list[nn.Parameter] = []
    others: list[nn.Parameter] = []
    for parameter in parameters:
        (matrices if parameter.ndim > 1 else others).append(parameter)
    return parameter_groups(matrices, peak, BASE_WEIGHT_DECAY) + parameter_groups(others, peak, 0.0)
