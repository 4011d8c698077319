"""From settings to what the loop needs: the task, the schedule, the prompt encoder and its start."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from torch import Tensor

from ptune_core.data.examples import Examples
from ptune_core.model.base import BaseKind, BaseModel
from ptune_core.model.prompted import PromptedModel
from ptune_core.prompt.config import PromptEncoderConfig, TaskType
from ptune_core.prompt.init import start_embeddings
from ptune_core.prompt.template import TargetKind, Template
from ptune_core.training.loop import Schedule
from ptune_core.training.settings import PromptInit, RunSettings
from ptune_core.training.tasks import AnyTask, Batching, CandidateTask, LabelTask, TextTask

DEFAULT_ENCODER_HIDDEN_SIZE = 768
"""Widest prompt encoder unless asked for: PEFT takes the base model's width, which at 3072 makes an LSTM of 434 M."""


def make_task(model: PromptedModel, examples: Examples, settings: RunSettings, directory: Path) -> AnyTask:
    """The task these examples are: labels if there is a verbalizer, one of the candidates if there are any, else text.

    Args:
        model: The prompted model.
        examples: Both splits.
        settings: Candidates, batch sizes and seed are taken from them.
        directory: Where tokenised rows are kept.
    """
    batching = Batching(settings.batch_size, settings.eval_batch_size, settings.seed)
    splits = examples.train, examples.validation
    if settings.candidates:
        return CandidateTask(model, *splits, batching, directory, candidates=settings.candidates)
    kind = LabelTask if model.classifies else TextTask
    return kind(model, *splits, batching, directory)


def make_schedule(settings: RunSettings, num_examples: int) -> Schedule:
    """Count steps and batches for `num_examples` training examples; every process takes `batch_size` of them."""
    processes = PartialState().num_processes
    steps = settings.steps_for(num_examples, processes)
    return Schedule(
        steps=steps,
        eval_every=settings.eval_every_for(steps),
        checkpoint_every=settings.checkpoint_every,
        batches_per_step=settings.gradient_accumulation_steps,
        batches_per_epoch=-(-num_examples // (settings.batch_size * processes)),
        learning_rate=settings.learning_rate,
        warmup_steps=round(settings.warmup_ratio * steps),
        weight_decay=settings.weight_decay,
        max_grad_norm=settings.max_grad_norm,
        patience=settings.patience,
        seed=settings.seed,
    )


def task_type(kind: BaseKind, target: TargetKind) -> TaskType | None:
    """PEFT's name for what a base model of this kind does for a target; None: it has none for filling masks."""
    if target is TargetKind.HEAD:
        return TaskType.SEQ_CLS
    if target is TargetKind.MASK:
        return None
    return TaskType.SEQ_2_SEQ_LM if kind is BaseKind.ENCODER_DECODER else TaskType.CAUSAL_LM


def prompt_config(settings: RunSettings, base: BaseModel, template: Template) -> PromptEncoderConfig:
    """The prompt encoder's configuration for this base model; `template` is resolved."""
    text_config = base.model.config.get_text_config()
    return PromptEncoderConfig(
        task_type=task_type(base.kind, template.target.kind),
        base_model_name_or_path=base.id,
        revision=base.revision,
        num_virtual_tokens=template.num_virtual_tokens,
        token_dim=base.hidden_size,
        num_transformer_submodules=1,
        num_attention_heads=text_config.num_attention_heads,
        num_layers=text_config.num_hidden_layers,
        encoder_reparameterization_type=str(settings.encoder_reparameterization_type),
        encoder_hidden_size=settings.encoder_hidden_size or min(base.hidden_size, DEFAULT_ENCODER_HIDDEN_SIZE),
        encoder_num_layers=settings.encoder_num_layers,
        encoder_dropout=settings.encoder_dropout,
    )


def initial_prompt_embeddings(settings: RunSettings, base: BaseModel, template: Template) -> Tensor | None:
    """`[P, H]` fp32 to start from, or None to start from the random encoder alone, as PEFT does."""

    def encode(text: str) -> list[int]:
        ids: list[int] = base.tokenizer(text, add_special_tokens=False)["input_ids"]
        return ids

    return start_embeddings(
        template.groups,
        base.embedding_weight,
        encode,
        sample=settings.prompt_init is PromptInit.VOCABULARY,
        generator=torch.Generator().manual_seed(settings.seed),
    )


def describe_text_cache(model: PromptedModel) -> dict[str, Any]:
    """What `plan` says of the text cache: tokens and MiB of room, and where it is or why there is none."""
    if model.texts is None:
        return {"tokens": 0, "mib": 0.0, "place": f"none: {model.why_not_in_parts}"}
    return {"tokens": model.texts.num_tokens, "mib": round(model.texts.mib, 1), "place": str(model.texts.place)}
