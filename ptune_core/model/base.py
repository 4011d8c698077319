"""Load a base model, freeze it, and know what it can do. The only module that loads transformers' models."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import partial
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import is_bf16_available
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    AutoModelForSeq2SeqLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    Cache,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.models.auto.modeling_auto import MODEL_FOR_MASKED_LM_MAPPING_NAMES

from ptune_core.errors import BaseModelError, SettingsError
from ptune_core.model.kernels import fuse_activations, onednn_is_faster, use_onednn
from ptune_core.model.quantize import keep_layout, quantization
from ptune_core.model.source import check_reachable, explained, place_of, quiet
from ptune_core.model.targets import ReadAt, row_wise_modules
from ptune_core.prompt.config import TaskType
from ptune_core.prompt.template import TargetKind

ENCODER_HEAD = "classifier"

HEAD_NAMES = ("score", ENCODER_HEAD)
"""Attribute of the classification head, as PEFT looks for it: `score` on decoders, `classifier` on encoders."""

_POSITION_LIMITS = ("max_position_embeddings", "n_positions", "max_seq_len")


class BaseKind(StrEnum):
    """How a base model reads and writes."""

    DECODER = "decoder"  # GPT-2, Llama: a position sees only what stands before it
    ENCODER = "encoder"  # BERT: a position sees all others
    ENCODER_DECODER = "encoder-decoder"  # T5, BART: reads as an encoder, writes as a decoder


@dataclass(frozen=True)
class BaseModel:
    """A base model in eval mode, frozen unless it is tuned, and its tokenizer.

    Attributes:
        model: All parameters frozen unless `is_tuned`; a classification head, if there is one, is fp32 and trainable.
        tokenizer: The model's tokenizer.
        id: What the person wrote: `demo`, a Hub id or a folder.
        precision: Number format of the weights as a setting names it: `fp32`, `bf16`, `int8` or `int4`.
        revision: Commit of a Hub model, else None.
        kind: How it reads and writes.
        head_name: Name of the classification head, or None for a language model.
        row_wise: Modules of the last layer that need to compute target rows only, see `targets.row_wise_modules`.
        gradient_checkpointing: Whether layers compute their activations again for the gradient.
        is_tuned: Whether the base model's own weights learn too, see `tuned.tunable`.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    id: str
    precision: str
    revision: str | None
    kind: BaseKind
    head_name: str | None
    row_wise: tuple[nn.Module, ...] = ()
    gradient_checkpointing: bool = False
    is_tuned: bool = False

    @property
    def body(self) -> nn.Module:
        """The base model below its vocabulary or classification head."""
        return self.model.base_model

    @property
    def is_causal(self) -> bool:
        """Whether a position of what it reads sees only what stands before it."""
        return self.kind is BaseKind.DECODER

    def task_type(self, target: TargetKind) -> TaskType | None:
        """PEFT's name for what it does for a target; None: PEFT has none for filling masks."""
        if target is TargetKind.HEAD:
            return TaskType.SEQ_CLS
        if target is TargetKind.MASK:
            return None
        return TaskType.SEQ_2_SEQ_LM if self.kind is BaseKind.ENCODER_DECODER else TaskType.CAUSAL_LM

    @property
    def decoder_start_ids(self) -> list[int]:
        """What an encoder-decoder's answers begin with, which is never predicted; empty for the other kinds."""
        if self.kind is not BaseKind.ENCODER_DECODER:
            return []
        configs = (self.model.generation_config, self.model.config)
        ids = [
            next((id for config in configs if (id := getattr(config, name, None)) is not None), None)
            for name in ("decoder_start_token_id", "forced_bos_token_id")
        ]
        return [id for id in ids if id is not None]

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return self.model.device

    @property
    def word_embeddings(self) -> nn.Module:
        """The input embedding, `[V, H]`."""
        return self.model.get_input_embeddings()

    @property
    def embedding_weight(self) -> Tensor:
        """`[V, H]` in the model's precision."""
        weight: Any = self.word_embeddings.weight
        return weight

    @property
    def hidden_size(self) -> int:
        """H, the width of the input embeddings (for OPT-350m and ALBERT not the same as `config.hidden_size`)."""
        return int(self.embedding_weight.shape[1])

    @property
    def head(self) -> nn.Module | None:
        """The trainable classification head, or None."""
        return None if self.head_name is None else self.model.get_submodule(self.head_name)

    @property
    def has_token_types(self) -> bool:
        """Whether it tells a second text from the first by token types."""
        return self.accepts("token_type_ids") and getattr(self.model.config, "type_vocab_size", 0) > 1

    @property
    def adds_to_logits(self) -> bool:
        """Whether it adds a number for each word to the vocabulary head's logits, as BART does."""
        return hasattr(self.model, "final_logits_bias")

    @property
    def max_positions(self) -> int | None:
        """Longest sequence in tokens; None if the model has no limit."""
        return most_positions(self.model.config, self.kind, self.model)

    def accepts(self, argument: str) -> bool:
        """Whether the model's forward takes `argument`, such as `position_ids`."""
        return argument in inspect.signature(self.model.forward).parameters


def load_base_model(
    id: str,
    *,
    target: TargetKind,
    num_labels: int | None = None,
    revision: str | None = None,
    device: str = "auto",
    precision: str = "auto",
) -> BaseModel:
    """Load and freeze a base model through transformers' Auto classes, from safetensors only, never with remote code.

    Args:
        id: `demo`, a Hub id, or a local folder.
        target: ANSWER loads a causal language model or an encoder-decoder, MASK a masked language model, HEAD a
            sequence classifier (its head is new and trainable, initialised from torch's global random state).
        num_labels: Classes of the head; needed for HEAD.
        revision: Branch, tag or commit of a Hub model.
        device: `auto`, `cpu` or `cuda`.
        precision: `auto` (bf16 where the device computes in it), `fp32`, `bf16`, or `int8` and `int4`, which need
            bitsandbytes.

    Raises:
        BaseModelError: It does not exist, is gated, has no safetensors, needs remote code, is not of a kind that
            works here, or cannot be fetched.
        SettingsError: `device` is cuda and there is none, or `precision` needs a library that is missing.
    """
    place = place_of(id)
    where = _device(device)
    dtype, quantized = _dtype(precision, where), quantization(precision)
    common: dict[str, Any] = {"revision": revision, "trust_remote_code": False}
    with explained(id), quiet():
        check_reachable(place, revision)
        config = AutoConfig.from_pretrained(place, **common)
        auto_class, kind = auto_class_for(id, config, target)
        tokenizer = AutoTokenizer.from_pretrained(place, **common)
        common |= {"dtype": dtype, "use_safetensors": True, "output_loading_info": True}
        if quantized is not None:
            common |= {"quantization_config": quantized, "device_map": {"": where}}
        if target is TargetKind.HEAD:
            common |= {"num_labels": num_labels}
        model, report = auto_class.from_pretrained(place, **common)
    if quantized is None:
        model = model.to(where)
    else:
        keep_layout(model)
    model.eval().requires_grad_(False)
    fuse_activations(model)
    if onednn_is_faster():
        use_onednn(model.base_model if target is TargetKind.HEAD else model)
    head_name = _prepare_head(model, id) if target is TargetKind.HEAD else None
    _check_nothing_invented(id, report["missing_keys"], head_name)
    if target is not TargetKind.HEAD:
        _check_vocabulary_head(model, id)
    if head_name == ENCODER_HEAD or not getattr(config, "is_causal", True):
        kind = BaseKind.ENCODER if kind is BaseKind.DECODER else kind
    # What stands behind an encoder's last layer sees all of its rows, and LLM.int8 looks at all rows of a product.
    needs_all_rows = kind is BaseKind.ENCODER_DECODER or quantized is not None
    return BaseModel(
        model=model,
        tokenizer=tokenizer,
        id=id,
        precision=precision if quantized is not None else {torch.float32: "fp32", torch.bfloat16: "bf16"}[dtype],
        revision=getattr(config, "_commit_hash", None),
        kind=kind,
        head_name=head_name,
        row_wise=() if needs_all_rows else row_wise_modules(model, _read_at(kind, target)),
    )


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


def _check_vocabulary_head(model: PreTrainedModel, id: str) -> None:
    """Refuse a base model whose output embeddings are not one row for each word: logits could not be had for some."""
    weight: Any = getattr(model.get_output_embeddings(), "weight", None)
    inputs: Any = model.get_input_embeddings().weight
    words = len(inputs)
    if weight is None or len(weight) < words:
        raise BaseModelError(
            f"The base model {id!r} names words in a way that is not known here",
            got=f"{type(model).__name__}, with {'no' if weight is None else len(weight)} rows of output embeddings",
            needed=f"output embeddings with a row for each of its {words} words",
            remedy="Choose another base model",
        )


def _read_at(kind: BaseKind, target: TargetKind) -> ReadAt:
    """Where the result of a base model is read."""
    if kind is BaseKind.DECODER:
        return ReadAt.LAST
    return ReadAt.POOLED if target is TargetKind.HEAD else ReadAt.ANYWHERE


def _check_nothing_invented(id: str, missing: Collection[str], head_name: str | None) -> None:
    """Refuse a base model that stands on layers which no file holds, but for a new classification head.

    Args:
        missing: Names of the tensors that the base model's files do not have and transformers made up.
        head_name: Of the new head.
    """
    invented = sorted(key for key in missing if head_name is None or not key.startswith(f"{head_name}."))
    if not invented:
        return
    # They would be other random numbers at every load, and no adapter carries them.
    what = "lacks layers that its classification head stands on" if head_name else "lacks the layers that name words"
    raise BaseModelError(
        f"The base model {id!r} {what}",
        got=", ".join(invented),
        needed="a base model whose files hold everything" + (" below the head" if head_name else ""),
        remedy="Choose another base model, such as google-bert/bert-base-uncased",
    )


def _device(wanted: str) -> torch.device:
    if wanted == "cuda" and not torch.cuda.is_available():
        raise SettingsError("There is no GPU here", got="device: cuda", remedy="Set device to auto or cpu")
    return Accelerator(cpu=wanted == "cpu").device


def _dtype(wanted: str, device: torch.device) -> torch.dtype:
    if wanted in ("auto", "int8", "int4"):
        return torch.bfloat16 if _computes_in_bf16(device) else torch.float32
    return {"fp32": torch.float32, "bf16": torch.bfloat16}[wanted]


def _computes_in_bf16(device: torch.device) -> bool:
    """Whether bf16 is native. Accelerate says yes for every CPU, but without these instructions bf16 is the slower."""
    if device.type == "cpu":
        capabilities = torch.cpu.get_capabilities()
        return bool(capabilities.get("amx_bf16") or capabilities.get("avx512_bf16") or capabilities.get("bf16"))
    return bool(is_bf16_available())


def with_gradient_checkpointing(base: BaseModel) -> BaseModel:
    """Make every layer of `base` compute its activations again in the backward pass, which saves their memory.

    transformers' own switch works only in train mode, which would bring dropout back. A layer that appends to keys and
    values cannot run twice; where there are such, little text has gradients and there is little to save.
    """
    for layer in base.body.modules():
        if isinstance(layer, GradientCheckpointingLayer):
            vars(layer)["forward"] = partial(_recomputed, layer.forward)
    return replace(base, gradient_checkpointing=True, row_wise=())


def _recomputed(forward: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    if not torch.is_grad_enabled() or any(isinstance(value, Cache) for value in (*args, *kwargs.values())):
        return forward(*args, **kwargs)
    return checkpoint(forward, *args, use_reentrant=False, **kwargs)


def _prepare_head(model: PreTrainedModel, id: str) -> str:
    """Make the classification head trainable in fp32; returns its name."""
    name = next((name for name in HEAD_NAMES if isinstance(getattr(model, name, None), nn.Module)), None)
    if name is None:
        raise BaseModelError(
            f"The base model {id!r} has no classification head that an adapter could carry",
            got=type(model).__name__,
            needed="a model whose head is called " + " or ".join(HEAD_NAMES),
        )
    head = model.get_submodule(name).float().requires_grad_(True)
    head.register_forward_pre_hook(lambda module, inputs: tuple(tensor.float() for tensor in inputs))
    return name


def _position_embedding(model: nn.Module) -> nn.Module | None:
    return next((m for name, m in model.named_modules() if name.endswith("embeddings.position_embeddings")), None)
