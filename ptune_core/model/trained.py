"""What a training run hands over: a trained prompt, everything needed to use it again, and the run's numbers."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ptune_core.model.head_input import HeadInput
from ptune_core.prompt.config import PromptEncoderConfig
from ptune_core.prompt.template import Segment

MAX_ABSOLUTE_VALUE = 1e6
"""No trained value that works is anywhere near; larger ones would turn every output into NaN."""


@dataclass(frozen=True)
class TrainedPrompt:
    """A trained prompt without its base model.

    Attributes:
        prompt_embeddings: `[P, H]` fp32, the rows of all vector groups in the order of their first appearance.
        template: Template text as the user wrote it.
        verbalizer: Label -> answer words. None: the target is a classification head, or free text to generate.
        labels: Class names in the order of the logits; empty if the target is free text.
        columns: Template column -> data column, as used by the run.
        base_model: Hub id or local folder of the base model. If it was tuned: of the one it was tuned from.
        revision: Branch, tag or commit of the base model; None for the default one.
        head: Classification head by parameter name in the base model (`score.weight`; `classifier.weight`,
            `classifier.bias`); empty unless the target is a head.
        encoder_state: State dict of the prompt (`encoder.*`, `start`), so that training can go on. May be empty.
        prompt_config: Configuration of the prompt encoder.
        max_length: Tokens per example, virtual tokens included; what an example is cut to. None: what the base model
            has, at most 512 (an adapter of PEFT does not say).
        metrics: The run's numbers, as in `result.json`.
        settings: The run's `RunSettings` as plain values.
        precision: Number format of the base model during training: `fp32`, `bf16`, `int8` or `int4`. An adapter that is
            taken home runs over the whole base model, in bf16 after the last two.
        segments: The template as it was trained: every group's count known, a chat expanded. May stay empty when
            parsing `template` gives just that.
        tuned_base: Where the base model is that was trained together with the prompt, the only one the prompt works
            with: its folder, or the zip of the adapter, whose `base_model/` it is. None: the base model was frozen.
        head_input: What the classification head reads; MODEL for any other target.
        deep: What virtual tokens add to their hidden states before each layer, `[L, P, H]` fp32; None: nothing.
    """

    prompt_embeddings: Tensor
    template: str
    verbalizer: dict[str, str] | None
    labels: tuple[str, ...]
    columns: dict[str, str]
    base_model: str
    revision: str | None
    head: dict[str, Tensor]
    encoder_state: dict[str, Tensor]
    prompt_config: PromptEncoderConfig
    max_length: int | None
    metrics: dict[str, Any] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    precision: str = "fp32"
    segments: tuple[Segment, ...] = ()
    tuned_base: Path | None = None
    head_input: HeadInput = HeadInput.MODEL
    deep: Tensor | None = None

    @property
    def prompt(self) -> Tensor:
        """What a prompted model takes: `[P, H]`, of a deep prompt `[(1 + L) * P, H]`, see `model.virtual`."""
        if self.deep is None:
            return self.prompt_embeddings
        return torch.cat([self.prompt_embeddings, self.deep.flatten(0, 1)])
