"""What can be read of a base model's last hidden states, all ways at once: the features of probes and heads.

B rows, W width of a feature, P virtual tokens, H hidden size.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from ptune_core.data.batching import Row
from ptune_core.model.base_kind import BaseKind
from ptune_core.model.head import ENCODER_HEAD, inputs_of, last_linear
from ptune_core.model.head_input import HeadInput
from ptune_core.model.prompted import PromptedModel
from ptune_core.model.reading import read_at
from ptune_core.model.virtual import adding


@torch.no_grad()
def features(
    model: PromptedModel, rows: list[Row], prompt_embeddings: Tensor | None, ways: Collection[HeadInput]
) -> dict[HeadInput, Tensor]:
    """What a head would read of B rows, way -> `[B, W]` fp32 on the CPU, in one pass.

    Args:
        model: The base model with its template; a head that it has is not used, but for what its own reads.
        rows: From `make_rows`, with or without virtual tokens as `prompt_embeddings` is given or None.
        prompt_embeddings: `[P, H]` or None.
        ways: Of `head_input.MEASURED`; MODEL only where the base model has its own head.
    """
    base = model.base
    # Answers that rows bring are not read.
    batch, call = model.whole_batch([replace(row, choices=()) for row in rows], prompt_embeddings)
    found: dict[HeadInput, Tensor] = {}
    with adding(base, call.added), _body_output(base.body) as outputs:
        if HeadInput.MODEL in ways and base.head_name == ENCODER_HEAD:
            assert base.head is not None
            with inputs_of(last_linear(base.head)) as read:
                base.model(**call.inputs)
            found[HeadInput.MODEL] = read[0].cpu()
        else:
            base.body(**call.inputs)
    writes_apart = base.kind is BaseKind.ENCODER_DECODER
    hidden: Tensor = outputs[0].encoder_last_hidden_state if writes_apart else outputs[0].last_hidden_state
    for way in ways:
        if way is HeadInput.MEAN or way is HeadInput.FIRST or (way is HeadInput.LAST and not base.is_causal):
            found[way] = read_at(way, batch, model.beginnings).mean(hidden).cpu()
        elif way not in found:
            found[way] = hidden.flatten(0, 1).index_select(0, batch.targets).float().cpu()
    return found


@contextmanager
def _body_output(body: nn.Module) -> Iterator[list[Any]]:
    outputs: list[Any] = []
    hook = body.register_forward_hook(lambda _, __, output: outputs.append(output))
    try:
        yield outputs
    finally:
        hook.remove()
