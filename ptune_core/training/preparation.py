"""From settings to what the loop needs: the task, the schedule, the prompt encoder and its start."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from accelerate import PartialState
from torch import Tensor

from ptune_core.data.examples import Examples
from ptune_core.errors import SettingsError
from ptune_core.model.base import BaseModel
from ptune_core.model.prompted import PromptedModel
from ptune_core.model.text_cache import free_memory
from ptune_core.prompt.config import PromptEncoderConfig
from ptune_core.prompt.kinds import TRAINING_BYTES, count_parameters, kind_of, large_warning, narrower
from ptune_core.prompt.starts import (
    Source,
    in_turn,
    label_vectors,
    normal,
    start_embeddings,
    text_vectors,
    vocabulary,
)
from ptune_core.prompt.template import TargetKind, Template
from ptune_core.prompt.verbalizer import Verbalizer
from ptune_core.training.loop import Schedule
from ptune_core.training.settings import PromptInit, RunSettings
from ptune_core.training.tasks import Batching, LabelTask, TextTask


def make_task(model: PromptedModel, examples: Examples, settings: RunSettings, directory: Path) -> LabelTask | TextTask:
    """The task these examples are: labels if there is a verbalizer, else text to generate.

    Args:
        model: The prompted model.
        examples: Both splits.
        settings: Batch sizes and seed are taken from them.
        directory: Where tokenised rows are kept.
    """
    kind = LabelTask if model.classifies else TextTask
    batching = Batching(settings.batch_size, settings.eval_batch_size, settings.seed)
    return kind(model, examples.train, examples.validation, batching, directory)


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


def prompt_config(settings: RunSettings, base: BaseModel, template: Template) -> PromptEncoderConfig:
    """The prompt encoder's configuration for this base model; `template` is resolved."""
    text_config = base.model.config.get_text_config()
    kind = settings.encoder_reparameterization_type
    default = kind.default_width(base.hidden_size)
    return PromptEncoderConfig(
        task_type="SEQ_CLS" if template.target.kind is TargetKind.HEAD else "CAUSAL_LM",
        base_model_name_or_path=base.id,
        revision=base.revision,
        num_virtual_tokens=template.num_virtual_tokens,
        token_dim=base.hidden_size,
        num_transformer_submodules=1,
        num_attention_heads=text_config.num_attention_heads,
        num_layers=text_config.num_hidden_layers,
        encoder_reparameterization_type=str(kind),
        encoder_hidden_size=None if default is None else settings.encoder_hidden_size or default,
        encoder_num_layers=settings.encoder_num_layers,
        encoder_dropout=settings.encoder_dropout,
    )


def check_room(config: PromptEncoderConfig, base: BaseModel) -> None:
    """Refuse a prompt encoder whose training does not fit into the memory that is free where the base model is.

    Raises:
        SettingsError: With the sizes, and a width that fits.
    """
    count = count_parameters(config)
    free = torch.cuda.mem_get_info(base.device)[0] if base.device.type == "cuda" else free_memory()
    if count * TRAINING_BYTES > free:
        raise SettingsError(
            "The prompt encoder does not fit into memory",
            got=f"{kind_of(config)} of width {config.encoder_hidden_size}, {count:,} parameters, "
            f"{count * TRAINING_BYTES / 2**30:.1f} GiB to train",
            needed=f"at most {free / 2**30:.1f} GiB, which are free on {base.device}",
            remedy=narrower(config, free // (2 * TRAINING_BYTES)),
        )


def settings_warnings(trials: Sequence[RunSettings], base: BaseModel, template: Template) -> list[str]:
    """What is not wrong with the settings of a run's trials, but should be known before it starts.

    Args:
        trials: The settings of each.
        base: The base model.
        template: Resolved; one of the trials'.
    """
    configs = [prompt_config(settings, base, template) for settings in trials]
    warnings = [large_warning(config, base.model.num_parameters()) for config in configs]
    inits = {settings.prompt_init for settings in trials}
    for option, init in (("prompt_init_text", PromptInit.TEXT), ("prompt_init_adapter", PromptInit.ADAPTER)):
        if init not in inits and any(getattr(settings, option) for settings in trials):
            warnings.append(f"{option} is given but not used: prompt_init is {', '.join(sorted(inits))}, not {init}")
    return list(dict.fromkeys(filter(None, warnings)))


def initial_prompt_embeddings(
    settings: RunSettings,
    base: BaseModel,
    template: Template,
    *,
    verbalizer: Verbalizer | None = None,
    starts: Mapping[str, np.ndarray] = MappingProxyType({}),
) -> Tensor | None:
    """`[P, H]` fp32 to start from, or None to start from the random encoder alone, as PEFT does.

    Args:
        settings: What to start from.
        base: The base model.
        template: Resolved.
        verbalizer: The labels' words, for `labels`.
        starts: Prompt embeddings of adapters, for `adapter`, see `Tables`.

    Raises:
        SettingsError: There is nothing there to start from, or it does not fit the base model.
    """

    def encode(text: str) -> list[int]:
        ids: list[int] = base.tokenizer(text, add_special_tokens=False)["input_ids"]
        return ids

    weight, generator = base.embedding_weight, torch.Generator().manual_seed(settings.seed)
    source: Source | None
    match settings.prompt_init:
        case PromptInit.RANDOM:
            source = None
        case PromptInit.NORMAL:
            source = normal(weight, generator)
        case PromptInit.VOCABULARY:
            source = vocabulary(weight, generator)
        case PromptInit.LABELS:
            words = _words_of_labels(verbalizer, template).token_ids(encode)
            source = in_turn(label_vectors(weight, words), vocabulary(weight, generator))
        case PromptInit.TEXT:
            source = in_turn(text_vectors(weight, encode(settings.prompt_init_text or "")))
        case PromptInit.ADAPTER:
            source = in_turn(_prompt_of_adapter(settings.prompt_init_adapter or "", starts, base))
    return start_embeddings(template.groups, weight, encode, source, generator)


def _words_of_labels(verbalizer: Verbalizer | None, template: Template) -> Verbalizer:
    if verbalizer is None:
        raise SettingsError(
            "There are no labels whose words the virtual tokens could start from",
            got=f"text to generate, from the column {template.target.column!r}",
            needed="a verbalizer (labels), or a classification head",
            remedy="Choose another prompt_init, such as vocabulary or text",
        )
    return verbalizer


def _prompt_of_adapter(name: str, starts: Mapping[str, np.ndarray], base: BaseModel) -> Tensor:
    vectors = torch.from_numpy(starts[name])
    if vectors.shape[1] != base.hidden_size:
        raise SettingsError(
            "The virtual tokens cannot start from an adapter of another size than the base model's words",
            got=f"virtual tokens of size {vectors.shape[1]} in {name}",
            needed=f"size {base.hidden_size}, that of {base.id}",
            remedy="Choose an adapter that was trained on this base model, or another prompt_init",
        )
    return vectors.to(base.device)


def describe_text_cache(model: PromptedModel) -> dict[str, Any]:
    """What `plan` says of the text cache: tokens and MiB of room, and where it is or why there is none."""
    if model.texts is None:
        return {"tokens": 0, "mib": 0.0, "place": f"none: {model.why_not_in_parts}"}
    return {"tokens": model.texts.num_tokens, "mib": round(model.texts.mib, 1), "place": str(model.texts.place)}
