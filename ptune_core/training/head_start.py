"""What a classification head reads, where `auto` leaves it open, and where it starts.

N rows, W width of what is read, P virtual tokens, H hidden size, C labels.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ptune_core.model.base import BaseModel
from ptune_core.model.head import StandardisedLinear, draw_anew, last_linear
from ptune_core.model.head_input import HeadInput, HeadStart, Why
from ptune_core.model.prompted import PromptedModel
from ptune_core.training.frozen import AS_GOOD_AS, Frozen, trained_with
from ptune_core.training.probe import COMPARED_ON

STANDARDISED_ON = 256
"""Training rows by whose mean and deviation, with the start's virtual tokens in place, a head that starts from zero
reads its inputs; a probe has its own."""


@dataclass(frozen=True)
class HeadChoice:
    """What a head reads, and why.

    Attributes:
        way: What it reads.
        why: Why that.
        accuracies: Way -> accuracy of a probe by cross-validation, where it was measured.
        rows: Training rows that it was measured on.
    """

    way: HeadInput
    why: Why
    accuracies: Mapping[HeadInput, float] = field(default_factory=dict)
    rows: int = 0

    def values(self) -> dict[str, Any]:
        """As JSON values for `metrics.jsonl` and `result.json`."""
        accuracies = {str(way): round(value, 4) for way, value in self.accuracies.items()}
        return {"head_input": str(self.way), "why": str(self.why), "accuracies": accuracies, "rows": self.rows}


def choose_head_input(wanted: HeadInput, base: BaseModel, frozen: Frozen | None) -> HeadChoice:
    """What a head is to read.

    Args:
        wanted: As it was set.
        base: The base model, with its own head.
        frozen: What it tells without virtual tokens; None for a tuned one.
    """
    if wanted is not HeadInput.AUTO:
        return HeadChoice(wanted, Why.SET)
    if frozen is None:
        return HeadChoice(HeadInput.MODEL, Why.TUNED)
    if (known := trained_with(base)) is not None and known in frozen.ways:
        return HeadChoice(known, Why.TRAINED)
    accuracies = frozen.accuracies()
    best = max(accuracies, key=lambda way: accuracies[way])
    own = accuracies.get(HeadInput.MODEL)
    if own is not None and own >= accuracies[best] - AS_GOOD_AS:
        best = HeadInput.MODEL
    return HeadChoice(best, Why.MEASURED, accuracies, min(len(frozen.chosen), COMPARED_ON))


def draw_head(base: BaseModel, seed: int) -> None:
    """Draw the layers of the base model's head anew, before anything is read through them."""
    assert base.head is not None, "there is a head to draw"
    draw_anew(base.head, seed, getattr(base.model.config, "initializer_range", 0.02))


@torch.no_grad()
def start_head(
    model: PromptedModel, frozen: Frozen | None, prompt_embeddings: Tensor, start: HeadStart, seed: int
) -> None:
    """Put the head that is on the base model where it starts: the same for the same seed, whatever was trained before.

    Args:
        model: Its base model has a classification head.
        frozen: What the base model tells without virtual tokens; None for a tuned one, whose head starts as
            transformers draws it, since what it reads does not stay where it began.
        prompt_embeddings: `[P, H]` before the first step; of a deep prompt `[(1 + L) * P, H]`.
        start: ZERO, or a probe of what the head reads with these virtual tokens in place.
        seed: Draws what lies below the last layer of some heads; all that share `frozen` have the same.
    """
    base = model.base
    assert base.head is not None, "there is a head to start"
    layer = last_linear(base.head)
    draw_head(base, seed)
    if frozen is None or not isinstance(layer, StandardisedLinear):
        return
    prompt = prompt_embeddings.to(base.device)
    if start is HeadStart.ZERO:
        layer.standardise_by(frozen.read_prompted(model, STANDARDISED_ON, prompt).to(base.device))
        layer.start_at(torch.zeros_like(layer.weight), torch.zeros(len(layer.weight)))
        return
    probe = frozen.prompted_probe(model, prompt)
    layer.standardise_as(probe.mean, probe.deviation)
    layer.start_at(probe.weight, probe.bias)
