"""What a base model reads, known from its tokenizer and configuration alone: no weights are loaded.

Enough to turn rows into tokens exactly as a run will, so that a template can be looked at while it is being written.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import AutoConfig, AutoTokenizer, PreTrainedTokenizerBase

from ptune_core.model.base_kind import BaseKind, auto_class_for, is_masked, most_positions
from ptune_core.model.source import check_here, check_reachable, explained, place_of, quiet
from ptune_core.prompt.template import TargetKind


@dataclass(frozen=True)
class Outline:
    """A base model without its weights.

    Attributes:
        id: What the person wrote: `demo`, a Hub id or a folder.
        tokenizer: Its tokenizer.
        kind: How it reads and writes.
        max_positions: Longest sequence in tokens; None if it has no limit.
    """

    id: str
    tokenizer: PreTrainedTokenizerBase
    kind: BaseKind
    max_positions: int | None

    @property
    def is_causal(self) -> bool:
        """Whether a position of what it reads sees only what stands before it."""
        return self.kind is BaseKind.DECODER


def load_outline(id: str, *, target: TargetKind, revision: str | None = None, fetch: bool = False) -> Outline:
    """Read a base model's tokenizer and configuration.

    Args:
        id: `demo`, a Hub id, or a local folder.
        target: What the template asks of it.
        revision: Branch, tag or commit of a Hub model.
        fetch: Whether the Hub may be asked for files that are not on this machine; some megabytes at most.

    Raises:
        NotOnThisMachine: Its files are not here, and `fetch` is False.
        BaseModelError: It does not exist, cannot be fetched, or cannot do what `target` asks.
    """
    place = place_of(id)
    if not fetch:
        check_here(id, place, revision)
    options = {"revision": revision, "trust_remote_code": False, "local_files_only": not fetch}
    with explained(id), quiet():
        if fetch:
            check_reachable(place, revision)
        config = AutoConfig.from_pretrained(place, **options)
        auto_class, kind = auto_class_for(id, config, target)
        tokenizer = AutoTokenizer.from_pretrained(place, **options)
        model = None
        if is_masked(config):
            kind = BaseKind.ENCODER
            # From where an encoder counts its positions only its layers tell: built without memory for their weights.
            with torch.device("meta"):
                model = auto_class.from_config(config)
    return Outline(id, tokenizer, kind, most_positions(config, kind, model))


def stamp_of(id: str) -> tuple[int, ...]:
    """Changes when a folder's tokenizer or configuration does; empty for what is not a folder."""
    if not os.path.isdir(id):
        return ()
    files = [
        Path(id) / name for name in ("config.json", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja")
    ]
    return tuple(file.stat().st_mtime_ns if file.exists() else 0 for file in files)
