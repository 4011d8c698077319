"""Load a base model, freeze it, and know what it can do. The only module that loads transformers' models."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
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
    AutoModelForSequenceClassification,
    AutoTokenizer,
    Cache,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.models.auto.modeling_auto import MODEL_FOR_MASKED_LM_MAPPING_NAMES

from ptune_core.errors import BaseModelError, SettingsError
from ptune_core.model.kernels import fuse_activations, onednn_is_faster, use_onednn
from ptune_core.model.quantize import keep_layout, quantization
from ptune_core.model.source import check_reachable, explained, place_of, quiet
from ptune_core.model.targets import row_wise_modules
from ptune_core.prompt.template import TargetKind

ENCODER_HEAD = "classifier"

HEAD_NAMES = ("score", ENCODER_HEAD)
"""Attribute of the classification head, as PEFT looks for it: `score` on decoders, `classifier` on encoders."""

_POSITION_LIMITS = ("max_position_embeddings", "n_positions", "max_seq_len")


@dataclass(frozen=True)
class BaseModel:
    """A base model in eval mode, frozen unless it is tuned, and its tokenizer.

    Attributes:
        model: All parameters frozen unless `is_tuned`; a classification head, if there is one, is fp32 and trainable.
        tokenizer: The model's tokenizer.
        id: What the person wrote: `demo`, a Hub id or a folder.
        precision: Number format of the weights as a setting names it: `fp32`, `bf16`, `int8` or `int4`.
        revision: Commit of a Hub model, else None.
        is_causal: True for decoders: a position sees only what stands before it.
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
    is_causal: bool
    head_name: str | None
    row_wise: tuple[nn.Module, ...] = ()
    gradient_checkpointing: bool = False
    is_tuned: bool = False

    @property
    def body(self) -> nn.Module:
        """The base model below its vocabulary or classification head."""
        return self.model.base_model

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
    def max_positions(self) -> int | None:
        """Longest sequence in tokens; None if the model has no limit."""
        config = self.model.config.get_text_config()
        limit = next((value for name in _POSITION_LIMITS if (value := getattr(config, name, None))), None)
        padding = getattr(_position_embedding(self.model), "padding_idx", None)
        # RoBERTa counts positions from padding_idx + 1, so that many rows of its table are never reached.
        return limit if limit is None or padding is None else limit - padding - 1

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
        target: ANSWER loads a causal language model, HEAD a sequence classifier (its head is new and trainable,
            initialised from torch's global random state).
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
        if config.is_encoder_decoder:
            raise BaseModelError(
                f"The base model {id!r} is an encoder-decoder model",
                got=config.model_type,
                needed="a decoder such as GPT-2, Llama or Qwen, or for [HEAD] also an encoder such as BERT",
            )
        tokenizer = AutoTokenizer.from_pretrained(place, **common)
        common |= {"dtype": dtype, "use_safetensors": True, "output_loading_info": True}
        if quantized is not None:
            common |= {"quantization_config": quantized, "device_map": {"": where}}
        if target is TargetKind.HEAD:
            loaded: Any = AutoModelForSequenceClassification.from_pretrained(place, num_labels=num_labels, **common)
        elif config.model_type in MODEL_FOR_MASKED_LM_MAPPING_NAMES:
            raise BaseModelError(
                f"The base model {id!r} reads in both directions and cannot write an answer",
                got=config.model_type,
                needed="a decoder such as GPT-2, Llama or Qwen for a template with [ANSWER]",
                remedy="Use a classification head, as in [P*20] {text} [HEAD:label], or choose a decoder",
            )
        else:
            loaded = AutoModelForCausalLM.from_pretrained(place, **common)
    model, report = loaded
    if quantized is None:
        model = model.to(where)
    else:
        keep_layout(model)
    model.eval().requires_grad_(False)
    fuse_activations(model)
    if onednn_is_faster():
        use_onednn(model.base_model)
    head_name = _prepare_head(model, id, report["missing_keys"]) if target is TargetKind.HEAD else None
    is_causal = head_name != ENCODER_HEAD and getattr(config, "is_causal", True)
    return BaseModel(
        model=model,
        tokenizer=tokenizer,
        id=id,
        precision=precision if quantized is not None else {torch.float32: "fp32", torch.bfloat16: "bf16"}[dtype],
        revision=getattr(config, "_commit_hash", None),
        is_causal=is_causal,
        head_name=head_name,
        # LLM.int8 looks at all rows of a product together, so a row depends on the others there.
        row_wise=() if quantized is not None else row_wise_modules(model, is_causal=is_causal),
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


def _prepare_head(model: PreTrainedModel, id: str, missing: Collection[str]) -> str:
    """Make the classification head trainable in fp32; returns its name.

    Args:
        missing: Names of the tensors that the base model's files do not have and transformers made up.
    """
    name = next((name for name in HEAD_NAMES if isinstance(getattr(model, name, None), nn.Module)), None)
    if name is None:
        raise BaseModelError(
            f"The base model {id!r} has no classification head that an adapter could carry",
            got=type(model).__name__,
            needed="a model whose head is called " + " or ".join(HEAD_NAMES),
        )
    if invented := sorted(key for key in missing if not key.startswith(f"{name}.")):
        # They would be other random numbers at every load, and no adapter carries them.
        raise BaseModelError(
            f"The base model {id!r} lacks layers that its classification head stands on",
            got=", ".join(invented),
            needed="a base model whose files hold everything below the head",
            remedy="Choose another base model, such as google-bert/bert-base-uncased",
        )
    head = model.get_submodule(name).float().requires_grad_(True)
    head.register_forward_pre_hook(lambda module, inputs: tuple(tensor.float() for tensor in inputs))
    return name


def _position_embedding(model: PreTrainedModel) -> nn.Module | None:
    return next((m for name, m in model.named_modules() if name.endswith("embeddings.position_embeddings")), None)
