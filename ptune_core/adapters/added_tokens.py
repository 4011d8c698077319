"""Tokens of a vocabulary that stand for virtual tokens. V vocabulary, H size."""

from __future__ import annotations

from typing import Any

import torch

from ptune_core.adapters.conversion import refusal
from ptune_core.model.base import BaseModel

_PROBE_TOKENS = 16


def add_tokens(tokenizer: Any, count: int, form: str) -> tuple[list[str], list[int]]:
    """Add `count` tokens that no text holds by chance to a tokenizer; their names and ids.

    Raises:
        AdapterError: It has such tokens already, so this adapter cannot be exported in this form.
    """
    last = max(tokenizer.get_vocab().values())
    names = [f"<|ptune_{i}|>" for i in range(count)]
    tokenizer.add_tokens(names, special_tokens=True)
    new_ids: list[int] = tokenizer.convert_tokens_to_ids(names)
    if len(set(new_ids)) < count or min(new_ids) <= last:
        raise refusal(form, got="a base model that has tokens of PTune already", needed="the one it was trained on")
    return names, new_ids


def embedding_scale(base: BaseModel, form: str) -> float:
    """What the word embedding `[V, H]` multiplies its rows by: 1 for most, the square root of H for some.

    Raises:
        AdapterError: It does something else to them.
    """
    ids = torch.arange(min(_PROBE_TOKENS, len(base.embedding_weight)), device=base.device)
    rows, embedded = base.embedding_weight[ids].float(), base.word_embeddings(ids).float()
    scale = float((rows * embedded).sum() / (rows * rows).sum())
    if torch.equal(rows, embedded):
        return 1.0
    if not torch.allclose(rows * scale, embedded, rtol=1e-2, atol=1e-5):
        raise refusal(form, got=f"the word embedding of {base.id}, which does more than look rows up")
    return scale
