"""From settings to what the loop needs: the examples, the task, the schedule, the prompt encoder and its start."""

from __future__ import annotations

import math
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from accelerate import PartialState
from torch import Tensor

from ptune_core.data.examples import Examples, build_examples
from ptune_core.data.table import Tables
from ptune_core.demo import DEMO, DEMO_LABELS
from ptune_core.errors import DiskFull, SettingsError
from ptune_core.model.base import BaseModel
from ptune_core.model.device import BaseWeights
from ptune_core.model.head_input import HeadStart
from ptune_core.model.prompted import PromptedModel
from ptune_core.model.text_cache import free_memory
from ptune_core.model.tuned import learning
from ptune_core.model.virtual import hidden_lengths, why_not_deep
from ptune_core.prompt.config import PromptEncoderConfig
from ptune_core.prompt.kinds import (
    TRAINING_BYTES,
    PromptDepth,
    PromptInit,
    count_parameters,
    kind_of,
    large_warning,
    narrower,
)
from ptune_core.prompt.starts import (
    Source,
    in_turn,
    label_vectors,
    normal,
    start_embeddings,
    text_vectors,
    vocabulary,
)
from ptune_core.prompt.template import Template
from ptune_core.prompt.verbalizer import Verbalizer
from ptune_core.training.loop import Schedule
from ptune_core.training.settings import RunSettings
from ptune_core.training.tasks import AnyTask, Batching, CandidateTask, LabelTask, TextTask

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

RUNGS = (1 / 10, 1 / 5, 2 / 5)
"""Shares of the steps after which the settings of a sweep are compared; four or fewer only at the later ones."""

FROM_PROBE, FROM_ZERO = 1 / 3, 3.0
"""A classification head's learning rate, in the prompt encoder's. One that begins as a probe is nearly where it will
end, and larger steps undo that before the prompt has learned (benchmarks/RESULTS.md); from nothing it is far."""

MAX_DEEP_VALUES = 2**25
"""Numbers that a deep prompt may add in all layers together: half of what an adapter's file may hold."""


_MIB = 2**20


def labels_of(settings: RunSettings) -> Mapping[str, str] | None:
    """Label -> answer words as they were chosen; None: as the data says."""
    return DEMO_LABELS if settings.labels is None and settings.data == DEMO else settings.labels


def load_examples(settings: RunSettings, tables: Tables) -> Examples:
    """The examples of a run with these settings, of a sweep of those with its first template.

    Raises:
        DataError: The data do not fit, see `build_examples`.
    """
    return build_examples(
        tables.table,
        settings.parsed_template,
        columns=settings.columns,
        labels={} if settings.candidates else labels_of(settings),
        split=settings.split,
        validation=tables.validation,
    )


def make_task(model: PromptedModel, examples: Examples, settings: RunSettings, directory: Path) -> AnyTask:
    """The task these examples are: labels if there is a verbalizer, one of the candidates if there are any, else text.

    Args:
        model: The prompted model.
        examples: Both splits.
        settings: Candidates, batch sizes and seed are taken from them.
        directory: Where tokenised rows are kept.
    """
    batching = Batching(settings.examples_per_batch, settings.eval_batch_size, settings.seed)
    splits = examples.train, examples.validation
    if settings.candidates:
        return CandidateTask(model, *splits, batching, directory, candidates=settings.candidates)
    kind = LabelTask if model.classifies else TextTask
    return kind(model, *splits, batching, directory)


def make_schedule(settings: RunSettings, num_examples: int) -> Schedule:
    """Count steps and batches for `num_examples` training examples; every process takes a batch of them."""
    processes = PartialState().num_processes
    steps = settings.steps_for(num_examples, processes)
    return Schedule(
        steps=steps,
        eval_every=settings.eval_every_for(steps),
        checkpoint_every=settings.checkpoint_every,
        batches_per_step=settings.gradient_accumulation_steps,
        batches_per_epoch=-(-num_examples // (settings.examples_per_batch * processes)),
        learning_rate=settings.learning_rate,
        warmup_steps=round(settings.warmup_ratio * steps),
        weight_decay=settings.weight_decay,
        max_grad_norm=settings.max_grad_norm,
        patience=settings.patience,
        seed=settings.seed,
        base_learning_rate=settings.base_learning_rate,
        head_learning_rate=settings.head_learning_rate or _head_times(settings) * settings.learning_rate,
        rungs=tuple(math.ceil(share * steps) for share in RUNGS),
    )


def _head_times(settings: RunSettings) -> float:
    is_tuned = settings.base_weights is BaseWeights.TUNED
    return FROM_ZERO if settings.head_start is HeadStart.ZERO or is_tuned else FROM_PROBE


def prompt_config(settings: RunSettings, base: BaseModel, template: Template) -> PromptEncoderConfig:
    """The prompt encoder's configuration for this base model; `template` is resolved."""
    text_config = base.model.config.get_text_config()
    kind = settings.encoder_reparameterization_type
    default = kind.default_width(base.hidden_size)
    return PromptEncoderConfig(
        task_type=base.task_type(template.target.kind),
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


def check_encoder_room(config: PromptEncoderConfig, base: BaseModel) -> None:
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


def layers_to_train(settings: RunSettings, base: BaseModel, template: Template) -> Tensor | None:
    """How long the hidden states of words are before each layer, `[L]`, for a deep prompt; None for any other.

    Args:
        settings: Whether it is deep.
        base: The base model.
        template: Resolved.

    Raises:
        SettingsError: The prompt should be deep, and this base model's layers are not made for it, or an adapter could
            not hold what it would add.
    """
    if settings.prompt_depth is not PromptDepth.ALL:
        return None
    if (why := why_not_deep(base)) is not None:
        raise SettingsError(
            "Virtual tokens cannot be trained in every layer of this base model",
            got=f"{base.id}: {why}",
            needed="a decoder or an encoder with layers of its own, as wide as its word embeddings",
            remedy="Set prompt_depth to input, or choose another base model",
        )
    lengths = hidden_lengths(base)
    most = MAX_DEEP_VALUES // (len(lengths) * base.hidden_size)
    if (count := template.num_virtual_tokens) > most:
        raise SettingsError(
            "So many virtual tokens are too large for an adapter if they are trained in every layer",
            got=f"{count} in {len(lengths)} layers of width {base.hidden_size}",
            needed=f"at most {most}",
            remedy="Write fewer, such as [P*20], or set prompt_depth to input",
        )
    return lengths


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
    init = settings.prompt_init
    if init is PromptInit.AUTO:
        init = PromptInit.VOCABULARY if base.head is None or base.is_tuned else PromptInit.SEPARATOR
    source: Source | None
    match init:
        case PromptInit.RANDOM:
            source = None
        case PromptInit.NORMAL:
            source = normal(weight, generator)
        case PromptInit.VOCABULARY:
            source = vocabulary(weight, generator)
        case PromptInit.SEPARATOR:
            source = in_turn(text_vectors(weight, separator_ids(base.tokenizer)))
        case PromptInit.LABELS:
            words = _words_of_labels(verbalizer, template).token_ids(encode)
            source = in_turn(label_vectors(weight, words), vocabulary(weight, generator))
        case PromptInit.TEXT:
            source = in_turn(text_vectors(weight, encode(settings.prompt_init_text or "")))
        case PromptInit.ADAPTER:
            source = in_turn(_prompt_of_adapter(settings.prompt_init_adapter or "", starts, base))
    return start_embeddings(template.groups, weight, encode, source, generator)


def separator_ids(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """The token that ends a text, as one id; nothing where the tokenizer has none."""
    named = (tokenizer.sep_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id)
    return [id for id in named if id is not None][:1]


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


def describe_base(base: BaseModel, trials: int) -> dict[str, Any]:
    """What `plan` says of the base model: whether it learns, and what that means for disk and download."""
    if not base.is_tuned:
        return {"weights": str(BaseWeights.FROZEN)}
    return {
        "weights": str(BaseWeights.TUNED),
        "parameters": sum(weight.numel() for _, weight in learning(base)),
        "disk_mib": round(disk_bytes(base, trials) / _MIB, 1),
        "download_mib": round(_tuned_bytes(base) / _MIB, 1),
    }


def disk_bytes(base: BaseModel, trials: int) -> int:
    """The most that `trials` one after the other have on disk if they tune `base`; what is small beside it left out.

    Each keeps two checkpoints, three times the base model each, the best, the adapter and its zip. A third checkpoint
    is there while it is written; a sweep has the untrained base model too, and the best trial's zip once more.
    """
    return (9 * trials + (1 if trials == 1 else 3)) * _tuned_bytes(base)


def check_room(base: BaseModel, directory: Path, trials: int) -> None:
    """Refuse to tune `base` where the disk cannot hold what will be written: told now, not hours later.

    Args:
        base: With weights that learn.
        directory: The run directory; what an interrupted run has there already counts.
        trials: How many there are.

    Raises:
        DiskFull: There is no room.
    """
    directory.mkdir(parents=True, exist_ok=True)
    needed = disk_bytes(base, trials) - sum(path.stat().st_size for path in directory.rglob("*.safetensors"))
    if (free := shutil.disk_usage(directory).free) < needed:
        raise DiskFull(
            "There is no room for the checkpoints of a tuned base model",
            got=f"{free / _MIB:,.0f} MiB free",
            needed=f"{needed / _MIB:,.0f} MiB, ten times its weights for each of {trials} trials",
            remedy="Free some space, choose a smaller base model, or set base_weights to frozen",
        )


def _tuned_bytes(base: BaseModel) -> int:
    return sum(weight.nbytes for _, weight in learning(base))
