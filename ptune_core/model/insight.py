"""What virtual tokens have become: the words near them, their length, how far they went, and how alike they are.

P virtual tokens, H hidden size, V vocabulary. Virtual tokens need not mean the words near them: often none is near at
all, and a prompt that works can lie close to words that say nothing about the task.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from ptune_core.errors import SettingsError
from ptune_core.model.base import BaseModel
from ptune_core.model.trained import TrainedPrompt

MUCH_LONGER = 50
"""Times as long as a word from which the length of a virtual token is worth a word of advice: without a start, or in
adapters from elsewhere, nothing bounds it."""

NAMED_AT_MOST = 32
"""Virtual tokens that a `Movement` names one by one."""

_WORDS_AT_ONCE = 16_384
_WORDS_NAMED = 3
_LONGEST_WORD = 24


@dataclass(frozen=True)
class Neighbour:
    """A token of the vocabulary and the cosine between its embedding and a virtual token, -1 to 1."""

    token: str
    cosine: float


@dataclass(frozen=True)
class VirtualToken:
    """One virtual token.

    Attributes:
        number: From 1, in the order of the prompt embeddings' rows.
        nearest: Tokens of the vocabulary, nearest first.
        norm: Euclidean length of its embedding.
        moved: Euclidean distance from where it began; None if the adapter does not say where that was.
    """

    number: int
    nearest: tuple[Neighbour, ...]
    norm: float
    moved: float | None


def virtual_tokens(trained: TrainedPrompt, base: BaseModel, num_words: int = 5) -> list[VirtualToken]:
    """Every virtual token of an adapter beside the base model's vocabulary.

    Args:
        trained: The adapter.
        base: Its base model.
        num_words: Nearest tokens to name of each.

    Raises:
        SettingsError: The adapter's virtual tokens are of another size than the base model's words.
    """
    prompt = trained.prompt_embeddings.float()
    if prompt.shape[1] != base.hidden_size:
        raise SettingsError(
            f"The adapter does not fit the base model {base.id}",
            got=f"virtual tokens of size {prompt.shape[1]}",
            needed=f"size {base.hidden_size}",
        )
    start = trained.encoder_state.get("start")
    moved = [None] * len(prompt) if start is None else (prompt - start.float()).norm(dim=1).tolist()
    nearest = nearest_words(prompt, base, num_words)
    return [VirtualToken(i + 1, nearest[i], norm, moved[i]) for i, norm in enumerate(prompt.norm(dim=1).tolist())]


@torch.no_grad()
def nearest_words(vectors: Tensor, base: BaseModel, num_words: int) -> list[tuple[Neighbour, ...]]:
    """The vocabulary's nearest tokens to each of `[P, H]` vectors, by cosine, nearest first.

    The vocabulary is looked at in parts, so that its embeddings are never there a second time in fp32.
    """
    weight = base.embedding_weight
    unit = functional.normalize(vectors.float().to(weight.device), dim=1)
    best = torch.empty(len(unit), 0, device=weight.device)
    ids = torch.empty(len(unit), 0, dtype=torch.long, device=weight.device)
    # Rows beyond the tokenizer's last token only fill the table up to a round number.
    size = min(len(weight), len(base.tokenizer))
    for first in range(0, size, _WORDS_AT_ONCE):
        part = weight[first : min(first + _WORDS_AT_ONCE, size)].float()
        lengths = part.norm(dim=1).clamp_min(1e-12)  # a division of the products: 85 ms less than unit words for GPT-2
        places = torch.arange(first, first + len(part), device=weight.device).expand(len(unit), -1)
        joined, joined_ids = torch.cat([best, unit @ part.T / lengths], dim=1), torch.cat([ids, places], dim=1)
        best, order = joined.topk(min(num_words, joined.shape[1]), dim=1)
        ids = joined_ids.gather(1, order)
    return [
        tuple(Neighbour(_shown(base, token_id), cosine) for token_id, cosine in zip(row, cosines, strict=True))
        for row, cosines in zip(ids.tolist(), best.tolist(), strict=True)
    ]


@dataclass(frozen=True)
class Moment:
    """The virtual tokens at one step of training.

    Attributes:
        step: Optimizer steps done.
        norm: Euclidean length of each, `[P]`.
        moved: Euclidean distance of each from the first moment, `[P]`.
        alike: Cosine between two of them on average; None if there is but one.
    """

    step: int
    norm: tuple[float, ...]
    moved: tuple[float, ...]
    alike: float | None


def over_training(snapshots: Mapping[int, Tensor]) -> list[Moment]:
    """How the virtual tokens grew, went and drew together.

    Args:
        snapshots: Step -> `[P, H]` prompt embeddings, ascending.
    """
    moments = []
    start = next(iter(snapshots.values()), None)
    for step, prompt in snapshots.items():
        assert start is not None
        moved = (prompt.float() - start.float()).norm(dim=1).tolist()
        moments.append(Moment(step, tuple(prompt.float().norm(dim=1).tolist()), tuple(moved), mean_similarity(prompt)))
    return moments


@dataclass(frozen=True)
class Movement:
    """How far virtual tokens are from where they began, short enough for a line at each evaluation.

    Attributes:
        num_virtual_tokens: P.
        numbers: Of those that the lists are about, from 1, ascending: all, or the `NAMED_AT_MOST` that moved most.
        moved: Euclidean distance of each from its start.
        norm: Euclidean length of each.
        nearest: The vocabulary's nearest tokens to each, nearest first.
        moved_mean: Over all virtual tokens, as `moved_low` and `moved_high`.
        word_norm: See `word_norm`.
    """

    num_virtual_tokens: int
    numbers: tuple[int, ...]
    moved: tuple[float, ...]
    norm: tuple[float, ...]
    nearest: tuple[tuple[str, ...], ...]
    moved_mean: float
    moved_low: float
    moved_high: float
    word_norm: float


@torch.no_grad()
def movement(prompt_embeddings: Tensor, start: Tensor, base: BaseModel) -> Movement:
    """Where virtual tokens are now.

    Args:
        prompt_embeddings: `[P, H]`.
        start: The same before the first step, `[P, H]`.
        base: Whose words they are near to.
    """
    moved = (prompt_embeddings.float() - start.to(prompt_embeddings.device, torch.float32)).norm(dim=1)
    most = moved.topk(min(NAMED_AT_MOST, len(moved))).indices.sort().values
    named = prompt_embeddings[most].float()
    words = nearest_words(named, base, _WORDS_NAMED)
    mean, low, high = _rounded(torch.stack([moved.mean(), moved.min(), moved.max()]))
    return Movement(
        num_virtual_tokens=len(moved),
        numbers=tuple((most + 1).tolist()),
        moved=tuple(_rounded(moved[most])),
        norm=tuple(_rounded(named.norm(dim=1))),
        nearest=tuple(tuple(near.token[:_LONGEST_WORD] for near in row) for row in words),
        moved_mean=mean,
        moved_low=low,
        moved_high=high,
        word_norm=float(f"{word_norm(base):.4g}"),
    )


def _rounded(values: Tensor) -> list[float]:
    return [float(f"{value:.4g}") for value in values.tolist()]


def mean_similarity(prompt_embeddings: Tensor) -> float | None:
    """The average cosine between two of `[P, H]` virtual tokens; None if there is but one."""
    alike = similarity(prompt_embeddings)
    return float(alike[~torch.eye(len(alike), dtype=torch.bool)].mean()) if len(alike) > 1 else None


def word_norm(base: BaseModel) -> float:
    """Euclidean length of the base model's words, on average over a sample of the vocabulary."""
    return float(base.embedding_weight[:_WORDS_AT_ONCE].float().norm(dim=1).mean())


def similarity(prompt_embeddings: Tensor) -> Tensor:
    """`[P, P]` cosines between virtual tokens; rows that are all alike say the same thing P times."""
    unit = functional.normalize(prompt_embeddings.float(), dim=1)
    return unit @ unit.T


def as_text(trained: TrainedPrompt, base: BaseModel, tokens: list[VirtualToken]) -> str:
    """A line for each virtual token, how long words are, and how alike virtual tokens are, for a terminal."""
    lines = ["token    norm   moved   nearest words (cosine)"]
    for token in tokens:
        words = ", ".join(f"{near.token!r} {near.cosine:.2f}" for near in token.nearest)
        moved = "      -" if token.moved is None else f"{token.moved:7.3f}"
        lines.append(f"{token.number:5} {token.norm:7.3f} {moved}   {words}")
    if len(tokens) > 1:
        alike = similarity(trained.prompt_embeddings)
        others = alike[~torch.eye(len(alike), dtype=torch.bool)]
        lines.append(f"cosine between two virtual tokens: {others.mean():.2f} on average, {others.max():.2f} at most")
    length = word_norm(base)
    lines.append(f"words of the base model: norm {length:.3f} on average")
    if max(token.norm for token in tokens) > MUCH_LONGER * length:
        lines.append("Far longer than words: a start from words would bound them; a lower learning rate may do too.")
    lines.append("Virtual tokens need not mean the words near them.")
    return "\n".join(lines)


def _shown(base: BaseModel, token_id: int) -> str:
    """A token as text; as the tokenizer calls it where it is no whole character by itself."""
    text = str(base.tokenizer.decode([token_id]))
    return str(base.tokenizer.convert_ids_to_tokens(token_id)) if "\ufffd" in text or not text.strip() else text
