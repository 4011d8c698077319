"""The tensors in an adapter's files: checked against its config and sidecar, every problem collected."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from ptune_core.adapters import tensors
from ptune_core.adapters.names import ENCODER_FILE, TENSOR_FILE
from ptune_core.adapters.sidecar import FRONT, MASKED, TASK_TYPES, PeftConfig, Sidecar
from ptune_core.prompt.config import PromptEncoderConfig
from ptune_core.prompt.template import TargetKind

DEEP = "ptune.deep"
"""Name of what a deep prompt adds before each layer."""


def keys(peft_type: str) -> tuple[str, str]:
    """Name of the prompt embeddings and prefix of the head's tensors."""
    return ("prompt_embeddings", "base_model.") if peft_type == FRONT else ("ptune.prompt_embeddings", "ptune.head.")


def checked_tensors(
    content: bytes, config: PeftConfig | None, sidecar: Sidecar | None, problems: list[str]
) -> dict[str, Tensor]:
    """`prompt_embeddings`, of a deep prompt `deep`, and the head's tensors under their names in the base model."""
    try:
        names = tensors.tensor_names(content, TENSOR_FILE)
        peft_type = config.peft_type if config else FRONT
        prompt_key, head_prefix = keys(peft_type)
        expected: dict[str, tensors.Shape] = {prompt_key: ("P", "H")}
        if sidecar and sidecar.prompt_depth == "all":
            expected[DEEP] = ("L", "P", "H")
        if config is None or config.task_type in TASK_TYPES[TargetKind.HEAD]:
            layout = tensors.head_layout(name.removeprefix(head_prefix) for name in names)
            if layout is None and config is not None:
                problems.append(f"{TENSOR_FILE}: there is no classification head (score or classifier)")
            expected |= {head_prefix + name: shape for name, shape in (layout or {}).items()}
        if config and any(name.startswith(tensors.STATE_PREFIX) for name in names):  # of a prompted module
            expected |= _encoder_shapes(config, sidecar.encoder if sidecar else None, names, tensors.STATE_PREFIX)
        sizes = {"P": config.num_rows} if config else {}
        if config and config.token_dim:
            sizes["H"] = config.token_dim
        if sidecar and sidecar.labels:
            sizes["C"] = len(sidecar.labels)
        read = tensors.read_tensors(content, TENSOR_FILE, expected, sizes)
    except ValueError as error:
        problems += str(error).split("\n")
        return {}
    own = {prompt_key: "prompt_embeddings", DEEP: "deep"}
    return {own.get(name, name.removeprefix(head_prefix)): tensor for name, tensor in read.items()}


def checked_encoder(
    content: bytes, config: PeftConfig | None, kind: str | None, problems: list[str]
) -> dict[str, Tensor]:
    """State of the prompt encoder, and of its start if it has one."""
    if config is None:
        return {}
    try:
        names = tensors.tensor_names(content, ENCODER_FILE)
        return tensors.read_tensors(content, ENCODER_FILE, _encoder_shapes(config, kind, names))
    except ValueError as error:
        problems += str(error).split("\n")
        return {}


def _encoder_shapes(
    config: PeftConfig, kind: str | None, names: Sequence[str], prefix: str = ""
) -> dict[str, tensors.Shape]:
    """Name -> shape of a prompt's state, its names with `prefix`."""
    shapes = tensors.encoder_shapes(prompt_config(config, kind, inference_mode=False))
    if f"{prefix}start" in names:
        shapes["start"] = (config.num_rows, config.token_dim or "H")
    if f"{prefix}deep" in names:
        shapes |= {"deep": ("L", config.num_rows, config.token_dim or "H"), "hidden_lengths": ("L",)}
    return {prefix + name: shape for name, shape in shapes.items()}


def prompt_config(config: PeftConfig, kind: str | None, *, inference_mode: bool) -> PromptEncoderConfig:
    """The config of the prompt encoder; `kind` if it is one that PEFT's config cannot name."""
    own: dict[str, Any] = {"peft_type": FRONT, "inference_mode": inference_mode}
    if config.task_type == MASKED:
        own["task_type"] = None
    if kind is not None:
        own["encoder_reparameterization_type"] = kind
    return PromptEncoderConfig.from_dict(config.model_dump() | own)
