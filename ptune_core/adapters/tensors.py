"""The tensors of an adapter: which there must be, in which shape, and nothing else."""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from ptune_core.model.trained import MAX_ABSOLUTE_VALUE
from ptune_core.plain_json import tensor_header
from ptune_core.prompt.config import PromptEncoderConfig
from ptune_core.prompt.encoders import make_encoder
from ptune_core.prompt.kinds import EncoderKind, kind_of

Shape = tuple[int | str, ...]

HEAD_LAYOUTS: tuple[dict[str, Shape], ...] = (
    {"score.weight": ("C", "W")},
    {"score.weight": ("C", "W"), "score.bias": ("C",)},
    {"classifier.weight": ("C", "W"), "classifier.bias": ("C",)},
    {
        "classifier.dense.weight": ("W", "W"),
        "classifier.dense.bias": ("W",),
        "classifier.out_proj.weight": ("C", "W"),
        "classifier.out_proj.bias": ("C",),
    },
)
"""Classification heads an adapter can carry (decoders, their own and those that read something else; BERT; RoBERTa),
with the shape of each tensor: C classes, W width of a hidden state, which for some (ALBERT, OPT-350m) is not that of
the word embeddings. A head of any other shape would be half saved by PEFT too, so it is refused."""

LAST_LAYERS = ("score.weight", "classifier.weight", "classifier.out_proj.weight")
"""The tensors with one row per class."""

STATE_PREFIX = "ptune.prompt."
"""Before the names of a prompt encoder's state in a prompted module's tensor file. No model has such parameters, so
PEFT leaves them alone."""

_MAX_HEADER_BYTES = 2**20
_MAX_TENSORS = 100
_FLOATS = ("F32", "F16", "BF16")


def read_tensors(
    content: bytes, name: str, expected: Mapping[str, Shape], sizes: dict[str, int] | None = None
) -> dict[str, Tensor]:
    """Exactly the `expected` tensors of a safetensors file, as fp32.

    Args:
        content: The file.
        name: Its name, for messages.
        expected: Tensor name -> shape. A letter stands for a size that must be the same wherever it occurs.
        sizes: Letter -> size, as far as known.

    Raises:
        ValueError: One line per problem: a missing, unknown or doubled tensor, a wrong type, shape or value.
    """
    header = _header(content, name)
    sizes = dict(sizes or {})
    problems = [f"{name}: the tensor {key!r} is missing" for key in expected if key not in header]
    problems += [f"{name}: the tensor {key!r} does not belong here" for key in header if key not in expected]
    for key in [key for key in expected if key in header]:
        problems += _entry_problems(header[key], f"{name}: {key}", expected[key], sizes)
    if problems:
        raise ValueError("\n".join(problems))
    try:
        tensors = {key: tensor.float() for key, tensor in safetensors.torch.load(content).items()}
    except SafetensorError as error:
        raise ValueError(f"{name} is damaged: {error}") from None
    for key, tensor in tensors.items():
        if not torch.isfinite(tensor).all() or tensor.abs().max() > MAX_ABSOLUTE_VALUE:
            problems.append(f"{name}: {key} holds values that are not finite or larger than {MAX_ABSOLUTE_VALUE:g}")
    if problems:
        raise ValueError("\n".join(problems))
    return tensors


def tensor_names(content: bytes, name: str) -> list[str]:
    """Names of the tensors in a safetensors file.

    Raises:
        ValueError: The file has no valid header.
    """
    return list(_header(content, name))


def head_layout(names: Iterable[str]) -> dict[str, Shape] | None:
    """The layout that most of `names` belong to; None if none of them is part of a head."""
    given = set(names)
    best = max(HEAD_LAYOUTS, key=lambda layout: (len(layout.keys() & given), -len(layout)))
    return best if best.keys() & given else None


def encoder_shapes(config: PromptEncoderConfig) -> dict[str, Shape]:
    """Name -> shape of the prompt encoder's parameters, without memory for them; names as in `Prompt.state_dict`."""
    is_mlp = kind_of(config) is EncoderKind.MLP
    # Neither changes a shape; both would only make torch or the encoder warn about settings the run was told about.
    quiet = replace(config, encoder_dropout=0.0, encoder_num_layers=2 if is_mlp else config.encoder_num_layers)
    with torch.device("meta"):
        encoder = make_encoder(quiet)
    return {f"encoder.{name}": tuple(tensor.shape) for name, tensor in encoder.state_dict().items()}


def _header(content: bytes, name: str) -> dict[str, Any]:
    return tensor_header(
        io.BytesIO(content), len(content), name, most_bytes=_MAX_HEADER_BYTES, most_tensors=_MAX_TENSORS
    )


def _entry_problems(entry: Any, place: str, expected: Shape, sizes: dict[str, int]) -> list[str]:
    dtype, shape = (entry.get("dtype"), entry.get("shape")) if isinstance(entry, dict) else (None, None)
    problems = []
    if dtype not in _FLOATS:
        problems.append(f"{place} has the type {dtype}, not one of {', '.join(_FLOATS)}")
    if isinstance(shape, list) and len(shape) == len(expected):
        # The first tensor with a letter of unknown size decides it for the others.
        for size, wanted in zip(shape, expected, strict=True):
            if isinstance(wanted, str):
                sizes.setdefault(wanted, size)
    wanted_sizes = [sizes.get(wanted, wanted) if isinstance(wanted, str) else wanted for wanted in expected]
    if shape != wanted_sizes:
        problems.append(f"{place} has the shape {shape}, not {wanted_sizes}")
    return problems
