"""Texts as transformers' models take them, and the mean hidden state that a head or a probe reads.

N texts, B rows of a batch, T positions, H hidden size.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import AutoConfig, AutoTokenizer, DataCollatorWithPadding

from benchmarks.learn.job import EVAL_BATCH_SIZE

LONGEST = 512
"""Tokens of a row at most, virtual tokens included: what PTune's default is as well."""


class Texts:
    """Tokenises texts and makes batches of them.

    Args:
        base_model: Folder of the base model.
        virtual_tokens: Positions to leave free.
        special: Whether rows say which of their tokens are special.
    """

    def __init__(self, base_model: str, *, virtual_tokens: int = 0, special: bool = False) -> None:
        self.tokenizer = AutoTokenizer.from_pretrained(base_model)
        if self.tokenizer.cls_token is None:
            # A decoder's stock head reads the last position of a row with virtual tokens, whatever stands there.
            self.tokenizer.padding_side = "left"
        positions = AutoConfig.from_pretrained(base_model).max_position_embeddings
        self._longest, self._special = min(LONGEST, positions) - virtual_tokens, special
        self.collate = DataCollatorWithPadding(self.tokenizer)

    def encode(self, texts: Sequence[str], labels: Sequence[int] | None = None) -> list[dict[str, Any]]:
        """One row for each text, with its class index if there are any."""
        tokens = self.tokenizer(
            list(texts), truncation=True, max_length=self._longest, return_special_tokens_mask=self._special
        )
        rows = [{name: values[i] for name, values in tokens.items()} for i in range(len(texts))]
        return rows if labels is None else [row | {"labels": label} for row, label in zip(rows, labels, strict=True)]

    def batches(self, texts: Sequence[str]) -> Iterator[tuple[list[int], Mapping[str, Tensor]]]:
        """All texts in batches of like length, each with the places of its texts."""
        rows = self.encode(texts)
        places = sorted(range(len(rows)), key=lambda i: len(rows[i]["input_ids"]))
        for start in range(0, len(places), EVAL_BATCH_SIZE):
            chosen = places[start : start + EVAL_BATCH_SIZE]
            yield chosen, self.collate([rows[i] for i in chosen])


def mean_state(body: Any, inputs: Mapping[str, Tensor], special: Tensor) -> Tensor:
    """Mean of the last hidden states over the tokens of the text, `[B, H]` fp32.

    Args:
        body: A model without a head.
        inputs: What it is called with.
        special: `[B, T]`, 1 for special tokens and padding.
    """
    states = body(**inputs).last_hidden_state.float()
    counts = (1 - special).unsqueeze(-1).to(states.dtype)
    return (states * counts).sum(dim=1) / counts.sum(dim=1).clamp(min=1)


@torch.no_grad()
def mean_states(body: Any, texts: Texts, of: Sequence[str]) -> Tensor:
    """`mean_state` of N texts, `[N, H]`.

    Args:
        body: A model without a head.
        texts: That say which tokens are special.
        of: The texts.
    """
    body.eval()
    found: list[Tensor] = [torch.empty(0)] * len(of)
    for places, batch in texts.batches(of):
        inputs = dict(batch)
        special = inputs.pop("special_tokens_mask")
        for place, state in zip(places, mean_state(body, inputs, special), strict=True):
            found[place] = state
    return torch.stack(found)
