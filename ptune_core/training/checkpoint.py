"""Checkpoints: exact, atomic, resumable. Private to a run; an adapter is something else.

A checkpoint is a folder `step-000120/` with `tensors.safetensors`, `state.json` and, written last, `manifest.json`
with the SHA-256 of both. It is built beside its place, flushed to disk and renamed, so a folder without a valid
manifest never counts and a kill at any moment leaves the one before. Nothing here is pickled.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors
from safetensors.torch import load_file, save_file
from torch import Tensor

from ptune_core.errors import CheckpointError
from ptune_core.files import sync

KEPT = 2
_TENSORS, _STATE, _MANIFEST = "tensors.safetensors", "state.json", "manifest.json"
_UNFINISHED = ".tmp-"


def save_checkpoint(
    directory: Path, step: int, tensors: Mapping[str, Tensor], state: Mapping[str, Any], *, keep: int = KEPT
) -> Path:
    """Write `directory/step-NNNNNN` and drop all but the newest ones.

    Args:
        directory: Holds the checkpoints of one run.
        step: Optimizer steps done.
        tensors: Everything trained, and the optimizer's state.
        state: Everything else, JSON values.
        keep: How many, this one included.

    Raises:
        OSError: The disk is full or cannot be written; older checkpoints are untouched.
    """
    path = directory / f"step-{step:06d}"
    save_folder(path, tensors, {**state, "step": step})
    for older in _checkpoints(directory)[keep:]:
        shutil.rmtree(older)
    return path


def load_checkpoint(directory: Path) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
    """The newest whole checkpoint as `(tensors, state)`; None if there never was one.

    Raises:
        CheckpointError: There are checkpoints, but none of them is whole.
    """
    for unfinished in directory.glob(f"{_UNFINISHED}*"):
        shutil.rmtree(unfinished)
    damaged = []
    for path in _checkpoints(directory):
        try:
            return load_folder(path)
        except CheckpointError as error:
            damaged.append(error.what)
    if damaged:
        raise CheckpointError(
            "None of the run's checkpoints is whole",
            got="; ".join(damaged),
            remedy="The run cannot be resumed; start it again. Its best adapter, if there is one, is not affected",
        )
    return None


def save_folder(path: Path, tensors: Mapping[str, Tensor], state: Mapping[str, Any]) -> None:
    """Write one checkpoint folder so that it is either there and whole, or not there."""
    building = path.with_name(_UNFINISHED + path.name)
    shutil.rmtree(building, ignore_errors=True)
    building.mkdir(parents=True)
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, building / _TENSORS)
    (building / _STATE).write_text(json.dumps(state, indent=1, sort_keys=True))
    manifest = {name: _sha256(building / name) for name in (_TENSORS, _STATE)}
    (building / _MANIFEST).write_text(json.dumps(manifest))
    for name in (_TENSORS, _STATE, _MANIFEST):
        sync(building / name)
    sync(building)
    replaced = path.with_name(_UNFINISHED + "old-" + path.name)
    if path.exists():
        os.replace(path, replaced)
    os.replace(building, path)
    sync(path.parent)
    shutil.rmtree(replaced, ignore_errors=True)


def load_folder(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read one checkpoint folder as `(tensors, state)`.

    Raises:
        CheckpointError: It is incomplete, or a file is not what was written.
    """
    try:
        manifest = json.loads((path / _MANIFEST).read_text())
        for name in (_TENSORS, _STATE):
            if _sha256(path / name) != manifest[name]:
                raise CheckpointError(f"{path.name}/{name} is damaged")
        return load_file(path / _TENSORS), json.loads((path / _STATE).read_text())
    except (OSError, ValueError, KeyError, TypeError, safetensors.SafetensorError) as error:
        raise CheckpointError(f"{path.name} is incomplete ({type(error).__name__})") from error


def _checkpoints(directory: Path) -> list[Path]:
    """Newest first."""
    return sorted(directory.glob("step-*"), key=lambda path: int(path.name.removeprefix("step-")), reverse=True)


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
