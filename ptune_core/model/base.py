"""Load a base model, freeze it, and know what it can do. The only module that loads transformers' models."""

from __future__ import annotations

import inspect
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import is_bf16_available
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from ptune_core.errors import BaseModelError, SettingsError
from ptune_core.model.base_kind import BaseKind, auto_class_for, most_positions
from ptune_core.model.head import ENCODER_HEAD, learning_in_fp32, own_head, plain_head, with_standardised_inputs
from ptune_core.model.head_input import HeadInput
from ptune_core.model.kernels import fuse_activations, onednn_is_faster, use_onednn
from ptune_core.model.quantize import keep_layout, quantization
from ptune_core.model.source import check_reachable, explained, place_of, quiet
from ptune_core.model.targets import ReadAt, row_wise_modules
from ptune_core.prompt.config import TaskType
from ptune_core.prompt.template import TargetKind


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
        head: The trainable classification head, which `with_head` puts on the model; None for a language model.
        head_input: What the classification head reads, see `with_head_input`.
        invented: Layers that its own head stands on and no file holds: then its head cannot read as `model` does.
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
    head: nn.Module | None = None
    head_input: HeadInput = HeadInput.MODEL
    invented: tuple[str, ...] = ()

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
    head_name = own_head(model, id) if target is TargetKind.HEAD else None
    head = None if head_name is None else learning_in_fp32(model.get_submodule(head_name))
    invented = _invented(id, model, report["missing_keys"], head_name)
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
        head=head,
        invented=invented,
    )


@torch.no_grad()
def with_head_input(base: BaseModel, head_input: HeadInput, *, standardised: bool = False) -> BaseModel:
    """`base` with a classification head that reads `head_input`: its own for MODEL, else one plain layer.

    The head is put on the model in place of any other; what was made with one of them can be put on again by `put_on`.

    Args:
        base: With its own head.
        head_input: Not AUTO.
        standardised: Whether the head is to be trained with standardised inputs.

    Raises:
        BaseModelError: The base model's own head stands on layers that no file holds, and is to read as MODEL.
    """
    if base.head is None or base.head_name is None:
        return base
    if head_input.is_models and base.invented:
        what, remedy = "layers that its classification head stands on", "Set head_input to mean or auto"
        raise _lacks(base.id, what, base.invented, f"{remedy}, which do not need them")
    head, row_wise = base.head, base.row_wise
    if not head_input.is_models:
        ids = torch.zeros(1, 2, dtype=torch.long, device=base.device)
        width = base.body(inputs_embeds=base.word_embeddings(ids)).last_hidden_state.shape[-1]
        head = learning_in_fp32(plain_head(width, int(base.model.config.num_labels or 0)).to(base.device))
        if base.kind is BaseKind.ENCODER and row_wise:  # those that leave all but the pooler's row out
            row_wise = row_wise_modules(base.model, ReadAt.ANYWHERE)
    if standardised:
        head = with_standardised_inputs(head)
    made = replace(base, head=head, head_input=head_input, row_wise=row_wise)
    put_on(made)
    return made


def put_on(base: BaseModel) -> None:
    """Put the classification head of `base` on its model, which other heads may have been on since."""
    if base.head is not None and base.head_name is not None:
        setattr(base.model, base.head_name, base.head)


@contextmanager
def put_on_for_now(base: BaseModel) -> Iterator[None]:
    """While this lasts, the classification head of `base` is on its model."""
    if base.head_name is None:
        yield
        return
    before = base.model.get_submodule(base.head_name)
    put_on(base)
    try:
        yield
    finally:
        setattr(base.model, base.head_name, before)


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


def _invented(id: str, model: PreTrainedModel, missing: Collection[str], head_name: str | None) -> tuple[str, ...]:
    """Layers between the base model's last hidden states and its own head that no file holds.

    Args:
        id: What the person wrote.
        model: The base model.
        missing: Names of the tensors that its files do not have and transformers made up.
        head_name: Of the new head.

    Raises:
        BaseModelError: The base model itself stands on such layers.
    """
    invented = sorted(key for key in missing if head_name is None or not key.startswith(f"{head_name}."))
    body, pooler = f"{model.base_model_prefix}.", f"{model.base_model_prefix}.pooler."
    if head_name is None or any(key.startswith(body) and not key.startswith(pooler) for key in invented):
        if invented:
            what = "the layers that name words" if head_name is None else "layers that its hidden states stand on"
            raise _lacks(id, what, invented, "Choose another base model, such as google-bert/bert-base-uncased")
    return tuple(invented)


def _lacks(id: str, what: str, invented: Sequence[str], remedy: str) -> BaseModelError:
    """They would be other random numbers at every load, and no adapter carries them."""
    return BaseModelError(
        f"The base model {id!r} lacks {what}",
        got=", ".join(invented),
        needed="a base model whose files hold everything but a new classification head",
        remedy=remedy,
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
