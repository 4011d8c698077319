"""Where the prompt embeddings start, and `Prompt`, the module that is trained."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from ptune_core.errors import SettingsError
from ptune_core.prompt.config import PromptEncoderConfig
from ptune_core.prompt.encoder import PromptEncoder
from ptune_core.prompt.segments import VirtualTokens

GAIN = 10
"""Spreads of the start that an output of 1 of the prompt encoder moves a number of a virtual token."""

REACH = 5
"""How far a virtual token can move at most, in mean lengths of the start's rows."""


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
    if not ids:
        raise SettingsError("The text to initialise virtual tokens from has no tokens", remedy="Write another text")
    tiled = [ids[index % len(ids)] for index in range(rows)]
    return _rows(embedding_weight, torch.tensor(tiled))


def start_embeddings(
    groups: Sequence[VirtualTokens],
    embedding_weight: Tensor,
    encode: Callable[[str], list[int]],
    *,
    sample: bool,
    generator: torch.Generator,
) -> Tensor | None:
    """The prompt embeddings before the first step, group after group.

    A group with its own text starts from that text. The others are sampled from the vocabulary, or are random: if
    no group has a text, the prompt encoder's own random start is used, which is PEFT's; else normal with the spread
    of the vocabulary, so that all groups have the same scale.

    Args:
        groups: The template's groups, resolved (every count is known).
        embedding_weight: Word embeddings of the base model `[V, H]`.
        encode: Token ids of a text, without special tokens.
        sample: Whether groups without text are sampled from the vocabulary.
        generator: On the CPU.

    Returns:
        `[P, H]` fp32, or None: the start is the prompt encoder's.
    """
    if not sample and all(group.init_text is None for group in groups):
        return None
    parts = []
    for group in groups:
        if group.count is None:
            raise SettingsError("The template still has virtual tokens without a number", remedy="Resolve it first")
        if group.init_text is not None:
            parts.append(from_token_ids(embedding_weight, encode(group.init_text), group.count))
        elif sample:
            parts.append(sample_vocabulary(embedding_weight, group.count, generator))
        else:
            noise = torch.randn(group.count, embedding_weight.shape[1], generator=generator)
            parts.append(noise.to(embedding_weight.device) * embedding_weight.detach().float().std())
    return torch.cat(parts)


class Prompt(nn.Module):
    """What is trained: the prompt encoder, by itself or on top of a start.

    Without a start the prompt embeddings are the encoder's output, exactly PEFT's P-tuning. With one they are `start`
    plus a way, and the encoder's last linear layer begins at zero: before the first step the prompt embeddings equal
    `start` bit for bit, and the encoder learns the way from there. The encoder's own random start is far from the
    word embeddings' scale, and its rows are nearly the same vector (cosine 0.55 MLP, 0.97 LSTM).

    With L the mean length of the start's rows, which are words, the way is `GAIN * L / sqrt(H) * encoder(...)`, so that
    a learning rate means the same for every base model. Each row w of it becomes `w / sqrt(1 + (|w| / (REACH * L))^2)`:
    the same while it is short, and never longer than `REACH * L`. Left free, rows grow to thousands of words' lengths,
    all in one direction, and behind a norm layer a vector that long no longer turns.

    State keys: `encoder.*`, and `start` if there is one. All else follows from them.

    Args:
        config: Of the prompt encoder, with all sizes set and not in inference mode.
        start: Prompt embeddings before the first step `[P, H]`, or None.

    Raises:
        SettingsError: A size is not usable, `start` has another shape or holds NaN or infinity, or the config is in
            inference mode.
    """

    start: Tensor | None
    indices: Tensor

    def __init__(self, config: PromptEncoderConfig, start: Tensor | None = None) -> None:
        super().__init__()
        if config.inference_mode:
            raise SettingsError("A prompt in inference mode cannot be trained", remedy="Set inference_mode to False")
        self.encoder = PromptEncoder(config)
        rows = self.encoder.total_virtual_tokens
        self.register_buffer("indices", torch.arange(rows).unsqueeze(0), persistent=False)
        self.register_buffer("start", None)
        if start is None:
            return
        needed = (rows, self.encoder.token_dim)
        if tuple(start.shape) != needed:
            raise SettingsError(
                "The start of the prompt embeddings has another shape than the prompt encoder's output",
                got=str(tuple(start.shape)),
                needed=str(needed),
            )
        if not torch.isfinite(start).all():
            raise SettingsError("The start of the prompt embeddings holds NaN or infinity")
        self.start = start.detach().to(torch.float32, copy=True)
        last = self.encoder.mlp_head[-1]
        assert isinstance(last, nn.Linear)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)

    def forward(self) -> Tensor:
        """The prompt embeddings `[P, H]`, fp32."""
        embeddings: Tensor = self.encoder(self.indices)[0]
        if self.start is None:
            return embeddings
        length = self.start.norm(dim=1).mean()
        length = torch.where(length > 0, length, 1.0)  # a start of zeros has no scale of its own
        way = embeddings * (GAIN * length / self.start.shape[1] ** 0.5)
        share_of_reach = (way / (REACH * length)).square().sum(dim=1, keepdim=True)
        return self.start + way * torch.rsqrt(1 + share_of_reach)


def _rows(embedding_weight: Tensor, ids: Tensor) -> Tensor:
    return embedding_weight.detach()[ids.to(embedding_weight.device)].to(torch.float32, copy=True)
