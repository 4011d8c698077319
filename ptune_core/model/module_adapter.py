"""An adapter in a prompted module: its prompt, the head it trains, and how that gets into the base model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers.modeling_layers import GradientCheckpointingLayer

from ptune_core.errors import SettingsError
from ptune_core.prompt.config import PromptEncoderConfig, TaskType
from ptune_core.prompt.init import Prompt

if TYPE_CHECKING:
    from transformers import PreTrainedModel

TASK_HEADS: dict[TaskType, tuple[str, ...]] = {
    TaskType.SEQ_CLS: ("classifier", "score"),
    TaskType.TOKEN_CLS: ("classifier", "score"),
    TaskType.QUESTION_ANS: ("qa_outputs",),
}
"""Modules that PEFT trains and saves for a task, where the base model has them."""

_NEEDED = {
    TaskType.SEQ_CLS: "labels",
    TaskType.TOKEN_CLS: "labels",
    TaskType.CAUSAL_LM: "labels",
    TaskType.SEQ_2_SEQ_LM: "decoder_input_ids",
    TaskType.QUESTION_ANS: "start_positions",
}
"""What the base model's forward must take for a task."""

_LAYERS = ("num_hidden_layers", "num_layers", "n_layer")
_HEADS = ("num_attention_heads", "n_head", "num_heads", "encoder_attention_heads")


class FinishedPrompt(nn.Module):
    """Prompt embeddings without an encoder: to use, not to train.

    Args:
        embeddings: `[P, H]`.
    """

    embeddings: Tensor

    def __init__(self, embeddings: Tensor) -> None:
        super().__init__()
        self.register_buffer("embeddings", embeddings.detach().to(torch.float32, copy=True))

    def forward(self) -> Tensor:
        """The prompt embeddings `[P, H]`, fp32."""
        return self.embeddings


class ModuleAdapter(nn.Module):
    """The prompt and the head of one adapter.

    The head is a copy of some of the base model's parameters in fp32, which takes their place while the adapter is in
    use; the base model's own are never changed.

    Args:
        base: The base model.
        config: Completed by `completed`. In inference mode the adapter is finished and nothing of it is trained.
        start: Prompt embeddings before the first step, or the finished ones, `[P, H]`.

    Attributes:
        config: As given.
        prompt: Makes the prompt embeddings.
        head: Its parameters have the names that they have in the base model.
        in_front: 0-d bool, whether the prompt was only ever trained in front of everything, where PEFT puts it.

    Raises:
        SettingsError: A size is not usable, or a module to save does not exist.
    """

    in_front: Tensor

    def __init__(self, base: PreTrainedModel, config: PromptEncoderConfig, start: Tensor | None) -> None:
        super().__init__()
        self.config = config
        self.prompt = FinishedPrompt(_finished(config, start)) if config.inference_mode else Prompt(config, start)
        self.head = nn.Module()
        for name, parameter in head_parameters(base, config).items():
            _put(self.head, name, nn.Parameter(parameter.detach().to(torch.float32, copy=True)))
        self.register_buffer("in_front", torch.tensor(True))
        self.to(word_embedding_weight(base).device)
        self.activate(False)

    @property
    def is_trainable(self) -> bool:
        """Whether it has an encoder to train."""
        return not self.config.inference_mode

    def activate(self, active: bool) -> None:
        """Whether its parameters get gradients."""
        self.requires_grad_(active and self.is_trainable)

    def prompt_embeddings(self) -> Tensor:
        """`[P, H]` as they are saved: without the encoder's dropout, whatever mode it is in."""
        modes = {module: module.training for module in self.prompt.modules()}
        self.prompt.eval()
        try:
            with torch.no_grad():
                return self.prompt()
        finally:
            for module, training in modes.items():
                module.training = training


def word_embedding_weight(base: PreTrainedModel) -> Tensor:
    """`[V, H]`, on the device that inputs go to."""
    weight: Any = base.get_input_embeddings().weight
    return weight


def completed(config: PromptEncoderConfig, base: PreTrainedModel) -> PromptEncoderConfig:
    """A copy of `config` with what it leaves open taken from the base model, as PEFT does.

    `token_dim` is the true width of the word embeddings, which for OPT-350m and ALBERT is not `hidden_size`.

    Raises:
        SettingsError: The config does not fit the base model.
    """
    width = int(word_embedding_weight(base).shape[1])
    of_base = base.config.get_text_config()
    task = _task(config)
    config = replace(
        config,
        task_type=task,
        token_dim=width if config.token_dim is None else config.token_dim,
        num_layers=config.num_layers or _first(of_base, _LAYERS),
        num_attention_heads=config.num_attention_heads or _first(of_base, _HEADS),
        num_transformer_submodules=config.num_transformer_submodules or (2 if task is TaskType.SEQ_2_SEQ_LM else 1),
        encoder_hidden_size=config.encoder_hidden_size or config.token_dim or width,
        base_model_name_or_path=config.base_model_name_or_path or getattr(base, "name_or_path", None) or None,
        modules_to_save=None if config.modules_to_save is None else list(config.modules_to_save),
    )
    config.check_complete()
    if config.token_dim != width:
        raise SettingsError(
            "token_dim is not the width of the base model's word embeddings",
            got=str(config.token_dim),
            needed=str(width),
            remedy="Leave token_dim empty",
        )
    return config


def check_fits(base: PreTrainedModel, task: TaskType, arguments: Sequence[str]) -> None:
    """Whether prompts can be put into this base model for this task.

    Args:
        base: The base model.
        task: What it is to do.
        arguments: What its forward takes.

    Raises:
        SettingsError: They cannot.
    """
    is_encoder_decoder = "decoder_input_ids" in arguments
    problem = None
    if "inputs_embeds" not in arguments or (is_encoder_decoder and task is TaskType.SEQ_CLS):
        problem = "takes no embeddings in place of token ids"
    elif task in _NEEDED and _NEEDED[task] not in arguments:
        problem = f"takes no {_NEEDED[task]}"
    elif task is TaskType.CAUSAL_LM and (is_encoder_decoder or base.get_output_embeddings() is None):
        problem = "is not a causal language model"
    elif getattr(base.config.get_text_config(), "hidden_size_per_layer_input", None):
        problem = "reads token ids in every layer, and a virtual token has none"
    if problem is not None:
        raise SettingsError(f"The base model {problem}", got=type(base).__name__, needed=f"a base model for {task}")


def head_modules(base: PreTrainedModel, config: PromptEncoderConfig) -> list[str]:
    """Names of the modules that are trained and saved beside the prompt.

    Raises:
        SettingsError: One that the config names does not exist, or is the word embeddings.
    """
    usual = TASK_HEADS.get(_task(config), ())
    wanted = dict.fromkeys([*(config.modules_to_save or ()), *usual])
    names = [name for name, _ in base.named_modules(remove_duplicate=False)]
    found = {name: [each for each in names if f".{each}".endswith(f".{name}")] for name in wanted}
    if missing := [name for name in wanted if not found[name] and name not in usual]:
        raise SettingsError(
            "The base model lacks modules that modules_to_save names",
            got=", ".join(missing),
            needed=type(base).__name__,
        )
    modules = list(dict.fromkeys(each for matches in found.values() for each in matches))
    words = base.get_input_embeddings()
    if any(part is words for name in modules for part in base.get_submodule(name).modules()):
        raise SettingsError(
            "modules_to_save names the word embeddings, whose trained copy PEFT would not use for the text",
            got=", ".join(wanted),
        )
    return modules


def head_parameters(base: PreTrainedModel, config: PromptEncoderConfig) -> dict[str, nn.Parameter]:
    """The base model's parameters that an adapter trains a copy of.

    Raises:
        SettingsError: As `head_modules`, or one of them is quantized.
    """
    found: dict[str, nn.Parameter] = {}
    for name in head_modules(base, config):
        found |= {f"{name}.{leaf}": parameter for leaf, parameter in base.get_submodule(name).named_parameters()}
    if quantized := [name for name, parameter in found.items() if not parameter.is_floating_point()]:
        raise SettingsError("A quantized module cannot be trained", got=", ".join(quantized))
    return found


def position_limit(base: PreTrainedModel) -> int | None:
    """Most positions that the base model has vectors for; None if it computes them.

    OPT and BART keep two rows of their table, and RoBERTa those up to `padding_idx`, for nothing that stands in a text.
    """
    reader: Any = base.get_encoder() if base.config.is_encoder_decoder else base
    for name, module in reader.named_modules():
        if name.rpartition(".")[2] in _POSITION_TABLES and isinstance(module, nn.Embedding):
            kept = getattr(module, "offset", 0)
            if not kept and module.padding_idx is not None:
                kept = module.padding_idx + 1
            return module.num_embeddings - kept
    return None


_POSITION_TABLES = ("wpe", "position_embeddings", "embed_positions")


@contextmanager
def in_place_of(base: nn.Module, parameters: Mapping[str, Tensor]) -> Iterator[None]:
    """While this lasts, `parameters` are those of the base model with their names, in its precision."""
    before: dict[str, Any] = {}
    try:
        for name, parameter in parameters.items():
            owner, leaf = _owner(base, name)
            own = owner._parameters[leaf]
            assert own is not None
            before[name] = own
            # Not as an attribute: what a cast returns is no Parameter, and gradients must flow through it.
            slots: dict[str, Any] = owner._parameters
            slots[leaf] = parameter.to(own.dtype)
        yield
    finally:
        for name, own in before.items():
            owner, leaf = _owner(base, name)
            owner._parameters[leaf] = own


@contextmanager
def recomputed_layers(base: nn.Module, parameters: Mapping[str, Tensor]) -> Iterator[None]:
    """While this lasts, layers compute their activations again in the backward pass, with `parameters` in place.

    transformers' own switch works only in train mode, which would bring dropout back into the frozen base model.
    """
    layers = [layer for layer in base.modules() if isinstance(layer, GradientCheckpointingLayer)]

    def run(forward: Any, args: Any, kwargs: Any) -> Any:
        with in_place_of(base, parameters):
            return forward(*args, **kwargs)

    def forward_of(forward: Any, *args: Any, **kwargs: Any) -> Any:
        return checkpoint(run, forward, args, kwargs, use_reentrant=False)

    try:
        for layer in layers:
            vars(layer)["forward"] = partial(forward_of, layer.forward)
        yield
    finally:
        for layer in layers:
            vars(layer).pop("forward", None)


@contextmanager
def pooled_at(head: nn.Module, last: Tensor) -> Iterator[None]:
    """While this lasts, a classification head reads `[B]` positions alone: a decoder would pool padding.

    transformers finds padding by token ids, which embeddings do not have, and takes the last position.
    """

    def select(module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        hidden = inputs[0]
        rows = torch.arange(len(hidden), device=hidden.device)
        return (hidden[rows, last.to(hidden.device)][:, None],)

    handle = head.register_forward_pre_hook(select)
    try:
        yield
    finally:
        handle.remove()


def _task(config: PromptEncoderConfig) -> TaskType:
    if config.task_type is None:
        raise SettingsError(
            "The config has no task_type, which says how the base model is used", needed=", ".join(TaskType)
        )
    return TaskType(config.task_type)


def _finished(config: PromptEncoderConfig, embeddings: Tensor | None) -> Tensor:
    needed = (config.total_virtual_tokens, config.token_dim)
    if embeddings is None or tuple(embeddings.shape) != needed or not torch.isfinite(embeddings).all():
        raise SettingsError(
            "A config in inference mode needs finished prompt embeddings",
            got="none" if embeddings is None else str(tuple(embeddings.shape)),
            needed=f"{needed} finite numbers",
            remedy="Give them as start, or set inference_mode to False to train",
        )
    return embeddings


def _first(of_base: object, names: Sequence[str]) -> int | None:
    values = (getattr(of_base, name, None) for name in names)
    return next((value for value in values if isinstance(value, int)), None)


def _owner(module: nn.Module, name: str) -> tuple[nn.Module, str]:
    path, _, leaf = name.rpartition(".")
    return module.get_submodule(path), leaf


def _put(tree: nn.Module, name: str, parameter: nn.Parameter) -> None:
    """Register a parameter under a dotted name."""
    *path, leaf = name.split(".")
    for part in path:
        if part not in tree._modules:
            tree.add_module(part, nn.Module())
        tree = tree.get_submodule(part)
    tree.register_parameter(leaf, parameter)
