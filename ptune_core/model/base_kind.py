"""How a base model reads and writes, what loads it for a target, and how long a row may be: by its configuration."""

from __future__ import annotations

from enum import StrEnum
from typing import Any

from torch import nn
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    AutoModelForSeq2SeqLM,
    AutoModelForSequenceClassification,
    PreTrainedConfig,
)
from transformers.models.auto.modeling_auto import MODEL_FOR_MASKED_LM_MAPPING_NAMES

from ptune_core.errors import BaseModelError
from ptune_core.model.source import check_reachable, explained, place_of, quiet
from ptune_core.prompt.template import TargetKind

_POSITION_LIMITS = ("max_position_embeddings", "n_positions", "max_seq_len")


class BaseKind(StrEnum):
    """How a base model reads and writes."""

    DECODER = "decoder"  # GPT-2, Llama: a position sees only what stands before it
    ENCODER = "encoder"  # BERT: a position sees all others
    ENCODER_DECODER = "encoder-decoder"  # T5, BART: reads as an encoder, writes as a decoder


def most_positions(config: PreTrainedConfig, kind: BaseKind, model: nn.Module | None) -> int | None:
    """Longest sequence in tokens; None if there is no limit.

    Args:
        config: Of the base model.
        kind: How it reads and writes.
        model: Its layers, of which an encoder's table of positions is looked at; None: it has no such table.
    """
    config = config.get_text_config()
    # T5's files name `n_positions`, but it reads relative positions without end.
    names = _POSITION_LIMITS[:1] if kind is BaseKind.ENCODER_DECODER else _POSITION_LIMITS
    limit = next((value for name in names if (value := getattr(config, name, None))), None)
    padding = None if model is None else getattr(_position_embedding(model), "padding_idx", None)
    # RoBERTa counts positions from padding_idx + 1, so that many rows of its table are never reached.
    return limit if limit is None or padding is None else limit - padding - 1


def fills_masks(id: str, revision: str | None = None) -> bool:
    """Whether a base model is a masked one, so that its templates need [MASK]; only its configuration is read.

    Raises:
        BaseModelError: It does not exist, is gated, or cannot be fetched.
    """
    place = place_of(id)
    with explained(id), quiet():
        check_reachable(place, revision)
        config = AutoConfig.from_pretrained(place, revision=revision, trust_remote_code=False)
    return is_masked(config)


def is_masked(config: PreTrainedConfig) -> bool:
    """Whether a base model with this configuration is a masked one."""
    return config.model_type in MODEL_FOR_MASKED_LM_MAPPING_NAMES and not config.is_encoder_decoder


def auto_class_for(id: str, config: PreTrainedConfig, target: TargetKind) -> tuple[Any, BaseKind]:
    """What loads a base model for a target, and how it reads.

    Raises:
        BaseModelError: This kind of base model cannot do what the target asks for.
    """
    if config.is_encoder_decoder and target is TargetKind.ANSWER:
        return AutoModelForSeq2SeqLM, BaseKind.ENCODER_DECODER
    if config.is_encoder_decoder:
        raise BaseModelError(
            f"The base model {id!r} is an encoder-decoder model, which writes its answers",
            got=f"{config.model_type} and a template with [{target}]",
            needed="a template with [ANSWER], or another base model",
        )
    if target is TargetKind.HEAD:
        return AutoModelForSequenceClassification, BaseKind.DECODER
    if target is TargetKind.MASK:
        if is_masked(config):
            return AutoModelForMaskedLM, BaseKind.ENCODER
        raise BaseModelError(
            f"The base model {id!r} was not trained to fill masks",
            got=config.model_type,
            needed="a masked language model such as BERT or RoBERTa for a template with [MASK]",
            remedy="Let it write the answer, as in {text} [P*8][ANSWER:label], or choose another base model",
        )
    if is_masked(config):
        raise BaseModelError(
            f"The base model {id!r} reads in both directions and cannot write an answer",
            got=config.model_type,
            needed="a decoder such as GPT-2, Llama or Qwen for a template with [ANSWER]",
            remedy="Let it fill a mask, as in {text} [P*4] It was [MASK:label].; use a classification head, as in "
            "[P*20] {text} [HEAD:label]; or choose a decoder",
        )
    return AutoModelForCausalLM, BaseKind.DECODER


def _position_embedding(model: nn.Module) -> nn.Module | None:
    return next((m for name, m in model.named_modules() if name.endswith("embeddings.position_embeddings")), None)
