"""Adapters with random virtual tokens, written by the same function as a run's."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from ptune_core.adapters.format import save_adapter
from ptune_core.model.trained import TrainedPrompt
from ptune_core.prompt.config import PromptEncoderConfig
from ptune_core.prompt.template import Segment, TargetKind, parse_template

HIDDEN = 32

MakeAdapter = Callable[..., Path]


@pytest.fixture
def make_adapter(tmp_path: Path) -> MakeAdapter:
    """`make_adapter(base, template, seed=..., labels=...)` writes an adapter and returns its folder."""

    def make(
        base: Path | str,
        template: str,
        *,
        seed: int = 0,
        labels: dict[str, str] | None = None,
        max_length: int | None = 48,
        segments: tuple[Segment, ...] | None = None,
        precision: str = "fp32",
    ) -> Path:
        generator = torch.Generator().manual_seed(seed)
        parsed = parse_template(template)
        is_head = parsed.target.kind is TargetKind.HEAD
        count = parsed.num_virtual_tokens
        head = {}
        if is_head:
            name = "classifier" if "bert" in str(base) else "score"
            head[f"{name}.weight"] = torch.randn(len(labels or {}), HIDDEN, generator=generator)
            if name == "classifier":
                head["classifier.bias"] = torch.randn(len(labels or {}), generator=generator)
        trained = TrainedPrompt(
            prompt_embeddings=torch.randn(count, HIDDEN, generator=generator),
            template=template,
            verbalizer=None if is_head else labels,
            labels=tuple(labels or ()),
            columns={},
            base_model=str(base),
            revision=None,
            head=head,
            encoder_state={},
            prompt_config=PromptEncoderConfig(
                task_type="SEQ_CLS" if is_head else "CAUSAL_LM", num_virtual_tokens=count, token_dim=HIDDEN
            ),
            max_length=max_length,
            precision=precision,
            segments=segments or parsed.segments,
        )
        folder = tmp_path / f"adapter-{len(list(tmp_path.iterdir()))}"
        save_adapter(trained, folder)
        return folder

    return make
