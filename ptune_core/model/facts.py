"""What is known of a base model before it is loaded: from the catalogue, or from its files on this machine.

No request is made and no torch is imported: `config.json` and the headers of safetensors files say enough.
"""

from __future__ import annotations

import json
import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ptune_core.demo import DEMO, DEMO_MODEL
from ptune_core.model.catalogue import entry_of
from ptune_core.plain_json import tensor_header
from ptune_core.prompt.template import TargetKind

MAX_HEADER_BYTES = 100_000_000
"""The safetensors library refuses longer headers too."""

MAX_TENSORS = 1_000_000

_MAX_CONFIG_BYTES = 1_000_000
_POSITIONS = ("max_position_embeddings", "n_positions", "max_seq_len")
_WRITERS = ("ForCausalLM", "LMHeadModel", "ForConditionalGeneration")
_MASK_FILLERS = ("ForMaskedLM", "ForPreTraining")


@dataclass(frozen=True)
class BaseFacts:
    """What is known of a base model; None is not known.

    Attributes:
        targets: The kinds of target it can have; empty if that is not known.
        parameters: How many numbers its weights are.
        hidden_size: Size of a virtual token.
        max_positions: Longest example in tokens.
        is_here: Whether its files are on this machine.
    """

    targets: tuple[TargetKind, ...] = ()
    parameters: int | None = None
    hidden_size: int | None = None
    max_positions: int | None = None
    is_here: bool = False


def base_facts(id: str, *, may_read_folders: bool = True) -> BaseFacts | None:
    """What is known of the base model `id`; None if that is nothing.

    Args:
        id: What the person wrote: `demo`, a Hub id or a folder.
        may_read_folders: Whether `id` may be a folder of this machine; not on a page that strangers share.
    """
    folder, entry = _folder_of(id, may_read_folders), entry_of(id)
    if folder is not None and (config := _config(folder)) is not None:
        listed = None if entry is None else entry.parameters
        return _facts(config, _parameters(folder) or listed)
    if entry is None:
        return None
    return BaseFacts(entry.targets, entry.parameters, entry.hidden_size, entry.max_positions)


def is_path(base_model: str) -> bool:
    """Whether it can only be a folder, not a name on the Hub."""
    return base_model.startswith(("/", ".", "~"))


def _folder_of(id: str, may_read_folders: bool) -> Path | None:
    """Where the files of a base model are, if they are on this machine."""
    if id == DEMO:
        return DEMO_MODEL
    if os.path.isdir(id):
        return Path(id) if may_read_folders else None
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        config = try_to_load_from_cache(id, "config.json")
    except HFValidationError:
        return None
    return Path(config).parent if isinstance(config, str) else None


def _config(folder: Path) -> dict[str, Any] | None:
    try:
        with (folder / "config.json").open("rb") as file:
            config = json.loads(file.read(_MAX_CONFIG_BYTES))
    except (OSError, ValueError, RecursionError):
        return None
    return config if isinstance(config, dict) else None


def _facts(config: dict[str, Any], parameters: int | None) -> BaseFacts:
    text_config = config.get("text_config")
    inner = config | text_config if isinstance(text_config, dict) else config
    hidden_size = _whole(inner, "hidden_size", "n_embd", "d_model")
    return BaseFacts(_targets(config), parameters, hidden_size, _whole(inner, *_POSITIONS), is_here=True)


def _targets(config: dict[str, Any]) -> tuple[TargetKind, ...]:
    """By the name of what was saved; an encoder saved without the layers that name words has a head alone."""
    names = config.get("architectures")
    name = str(names[0]) if isinstance(names, list) and names else ""
    if config.get("is_encoder_decoder"):
        return (TargetKind.ANSWER,)
    if name.endswith(_MASK_FILLERS):
        return (TargetKind.MASK, TargetKind.HEAD)
    if name.endswith(_WRITERS):
        return (TargetKind.ANSWER, TargetKind.HEAD)
    return (TargetKind.HEAD,) if name.endswith(("BertModel", "RobertaModel", "MPNetModel", "ElectraModel")) else ()


def _whole(config: dict[str, Any], *names: str) -> int | None:
    found = (config.get(name) for name in names)
    return next((value for value in found if isinstance(value, int) and value > 0), None)


def _parameters(folder: Path) -> int | None:
    """The numbers in all safetensors files of a folder, read from their headers."""
    try:
        return sum(_numbers_in(path) for path in sorted(folder.glob("model*.safetensors"))) or None
    except (OSError, ValueError, KeyError, TypeError):
        return None  # damaged: loading it says how


def _numbers_in(path: Path) -> int:
    with path.open("rb") as file:
        header = tensor_header(
            file, path.stat().st_size, path.name, most_bytes=MAX_HEADER_BYTES, most_tensors=MAX_TENSORS
        )
    return sum(math.prod(tensor["shape"]) for tensor in header.values())
