"""A base model whose own weights are trained together with the virtual tokens: the paper's SuperGLUE mode.

Nothing that counts on frozen weights is of use then. Texts before the first virtual token change with every step, so
they are computed whole with their rows (`past.why_not_in_parts`), and the last layer computes every row: what
`targets.row_wise_modules` found out holds for the weights it looked at. oneDNN's products give weights their gradient.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from ptune_core.files import sync
from ptune_core.model.base import BaseModel
from ptune_core.model.source import quiet

WEIGHTS_FILE = "model.safetensors"

_KIB, _MIB = 2**10, 2**20
BASE_FILES = {
    "config.json": 256 * _KIB,
    "generation_config.json": 256 * _KIB,
    WEIGHTS_FILE: 2**40,
    "tokenizer.json": 64 * _MIB,
    "tokenizer_config.json": 16 * _MIB,
    "special_tokens_map.json": _MIB,
    "added_tokens.json": 16 * _MIB,
    "vocab.json": 64 * _MIB,
    "merges.txt": 64 * _MIB,
    "vocab.txt": 64 * _MIB,
    "spiece.model": 64 * _MIB,
    "tokenizer.model": 64 * _MIB,
    "sentencepiece.bpe.model": 64 * _MIB,
    "chat_template.jinja": _MIB,
}
"""Files that a saved base model and its tokenizer may consist of, and the most bytes each may hold."""

_ONE_FILE = "1000GB"


def tunable(base: BaseModel) -> BaseModel:
    """Let all weights of `base`, which are fp32, learn. It stays in eval mode until a trainer says otherwise."""
    assert base.embedding_weight.dtype == torch.float32, "a step on coarser weights is lost when it is rounded"
    base.model.requires_grad_(True)
    return replace(base, is_tuned=True, row_wise=())


def learning(base: BaseModel) -> Iterator[tuple[str, nn.Parameter]]:
    """Names and weights of what learns in `base`, a classification head included; weights that are tied once."""
    return ((name, weight) for name, weight in base.model.named_parameters() if weight.requires_grad)


def untrained_weights(base: BaseModel, directory: Path) -> dict[str, Tensor]:
    """What learns in `base`, as it is now: mapped from a file that has no name, so that it takes no memory for long.

    Args:
        base: With weights that learn.
        directory: On the disk that has room for them.
    """
    directory.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(dir=directory, prefix=".untrained-")
    os.close(descriptor)
    try:
        save_file({name: weight.detach().contiguous() for name, weight in learning(base)}, name)
        return load_file(name)
    finally:
        os.unlink(name)  # the mapping stays, and no crash can leave the file behind


@torch.no_grad()
def put_weights(base: BaseModel, weights: dict[str, Tensor]) -> None:
    """Copy `weights`, by their names in the base model, into what learns in it."""
    for name, weight in learning(base):
        weight.copy_(weights[name])


def save_base_model(base: BaseModel, directory: Path) -> None:
    """Write the base model and its tokenizer as transformers reads them, all on the disk when this returns.

    Only files of `BASE_FILES` stay: nothing in the folder makes transformers run code.

    Raises:
        OSError: The disk is full or cannot be written.
    """
    shutil.rmtree(directory, ignore_errors=True)
    with quiet():
        base.model.save_pretrained(directory, max_shard_size=_ONE_FILE)
        base.tokenizer.save_pretrained(directory)
    for path in directory.iterdir():
        if path.name not in BASE_FILES:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        else:
            sync(path)
    sync(directory)


def copy_base_model(source: Path, directory: Path) -> None:
    """Put the files of a saved base model into another folder: as further names of the same bytes where that works.

    Raises:
        OSError: The disk is full or cannot be written.
    """
    directory.mkdir(parents=True)
    for name in BASE_FILES:
        if (source / name).is_file():
            with suppress(OSError):  # another disk, or one that has no links
                os.link(source / name, directory / name)
                continue
            shutil.copyfile(source / name, directory / name)
            sync(directory / name)
    sync(directory)
