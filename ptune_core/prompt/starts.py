"""Where the prompt embeddings start: what is random, words, and the vectors of another adapter.

H hidden size, V vocabulary. A source gives rows `[rows, H]` of fp32 when it is asked for some; asked again, it goes on.
The template's groups ask one after the other, so one text or one adapter runs on over all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from ptune_core.errors import SettingsError
from ptune_core.prompt.segments import VirtualTokens

Source = Callable[[int], Tensor]
"""Gives so many further rows `[rows, H]`, fp32."""

_MEASURED_ROWS = 16_384


def sample_vocabulary(embedding_weight: Tensor, rows: int, generator: torch.Generator) -> Tensor:
    """Word embeddings of `rows` tokens drawn from the vocabulary, as PEFT's SAMPLE_VOCAB does for prompt tuning.

    Args:
        embedding_weight: Word embeddings of the base model `[V, H]`, of any dtype and device.
        rows: Vectors to draw.
        generator: On the CPU, so that a seed gives the same tokens on every device.

    Returns:
        `[rows, H]` fp32, on the device of `embedding_weight`, not tied to it.
    """
    ids = torch.randint(0, embedding_weight.shape[0], (rows,), generator=generator)
    return _rows(embedding_weight, ids)


def from_token_ids(embedding_weight: Tensor, ids: Sequence[int], rows: int) -> Tensor:
    """Word embeddings of a text's tokens, repeated from the beginning or cut until there are `rows`.

    Args:
        embedding_weight: Word embeddings of the base model `[V, H]`.
        ids: Token ids of the text, without special tokens.
        rows: Vectors wanted.

    Returns:
        `[rows, H]` fp32.

    Raises:
        SettingsError: There are no ids.
    """
    return in_turn(text_vectors(embedding_weight, ids))(rows)


def text_vectors(embedding_weight: Tensor, ids: Sequence[int]) -> Tensor:
    """Word embeddings `[len(ids), H]` of a text's tokens, fp32.

    Raises:
        SettingsError: There are no ids.
    """
    if not ids:
        raise SettingsError("The text to initialise virtual tokens from has no tokens", remedy="Write another text")
    return _rows(embedding_weight, torch.tensor(list(ids)))


def label_vectors(embedding_weight: Tensor, words: Mapping[str, Sequence[int]]) -> Tensor:
    """A row for each label, the mean of the word embeddings of its words, as in Lester et al. (arXiv 2104.08691).

    Args:
        embedding_weight: Word embeddings of the base model `[V, H]`.
        words: Label -> token ids of its words.

    Returns:
        `[C, H]` fp32.

    Raises:
        SettingsError: A label's words have no tokens; all such labels are named.
    """
    if empty := [label for label, ids in words.items() if not ids]:
        raise SettingsError(
            "Virtual tokens cannot start from labels whose words have no tokens",
            got=", ".join(map(repr, empty)),
            remedy="Choose other words for them, or another prompt_init",
        )
    return torch.stack([text_vectors(embedding_weight, ids).mean(dim=0) for ids in words.values()])


def vocabulary(embedding_weight: Tensor, generator: torch.Generator) -> Source:
    """Tokens drawn from the vocabulary `[V, H]`."""
    return lambda rows: sample_vocabulary(embedding_weight, rows, generator)


def normal(embedding_weight: Tensor, generator: torch.Generator) -> Source:
    """Normal noise with the spread of the vocabulary `[V, H]` around zero."""
    # A part of the vocabulary says it as well, and is not there a second time in fp32.
    every = -(-embedding_weight.shape[0] // _MEASURED_ROWS)
    spread = embedding_weight.detach()[::every].float().std()

    def rows_of_noise(rows: int) -> Tensor:
        noise = torch.randn(rows, embedding_weight.shape[1], generator=generator)
        return noise.to(embedding_weight.device) * spread

    return rows_of_noise


def in_turn(vectors: Tensor, then: Source | None = None) -> Source:
    """The rows of `vectors [N, H]` in their order; when they are used up those of `then`, else from the beginning."""
    used = 0

    def next_rows(rows: int) -> Tensor:
        nonlocal used
        numbers = torch.arange(used, used + rows)
        used += rows
        if then is None:
            return vectors[numbers % len(vectors)].clone()
        own = vectors[numbers[numbers < len(vectors)]]
        return own.clone() if len(own) == rows else torch.cat([own, then(rows - len(own))])

    return next_rows


def start_embeddings(
    groups: Sequence[VirtualTokens],
    embedding_weight: Tensor,
    encode: Callable[[str], list[int]],
    source: Source | None,
    generator: torch.Generator,
) -> Tensor | None:
    """The prompt embeddings before the first step, group after group.

    A group with its own text starts from that text, the others from `source`. Without one they start as the prompt
    encoder does, which is PEFT's start; but beside a group with a text they are normal noise with the spread of the
    vocabulary, so that all groups have the same scale.

    Args:
        groups: The template's groups, resolved (every count is known).
        embedding_weight: Word embeddings of the base model `[V, H]`.
        encode: Token ids of a text, without special tokens.
        source: Where groups without a text of their own start, or None.
        generator: On the CPU.

    Returns:
        `[P, H]` fp32, or None: the start is the prompt encoder's.

    Raises:
        SettingsError: A group has no count yet, or its text no tokens.
    """
    if source is None and all(group.init_text is None for group in groups):
        return None
    others = source or normal(embedding_weight, generator)
    parts = []
    for group in groups:
        if group.count is None:
            raise SettingsError("The template still has virtual tokens without a number", remedy="Resolve it first")
        if group.init_text is None:
            parts.append(others(group.count))
        else:
            parts.append(from_token_ids(embedding_weight, encode(group.init_text), group.count))
    return torch.cat(parts)


def _rows(embedding_weight: Tensor, ids: Tensor) -> Tensor:
    return embedding_weight.detach()[ids.to(embedding_weight.device)].to(torch.float32, copy=True)
