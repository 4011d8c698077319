"""`Prompt`, the module that is trained: a prompt encoder, by itself or on top of a start."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ptune_core.errors import SettingsError
from ptune_core.prompt.config import PromptEncoderConfig
from ptune_core.prompt.encoders import make_encoder, zero_output
from ptune_core.prompt.kinds import EncoderKind, kind_of

GAIN = 10
"""Spreads of the start that an output of 1 of the prompt encoder moves a number of a virtual token."""

TABLE_GAIN = 100
"""The same for a table alone, which one step moves by its step size where an encoder has three layers to move with."""

REACH = 5
"""How far a virtual token can move at most, in mean lengths of the start's rows."""

DEEP_GAIN = 10
"""Spreads of a layer's hidden states that a number of 1 adds before that layer."""


class Prompt(nn.Module):
    """What is trained: the prompt encoder, by itself or on top of a start.

    Without a start the prompt embeddings are the encoder's output, exactly PEFT's P-tuning. With one they are `start`
    plus a way, and the encoder's last layer begins at zero: before the first step the prompt embeddings equal `start`
    bit for bit, and the encoder learns the way from there. The encoder's own random start is far from the word
    embeddings' scale, and its rows are nearly the same vector (cosine 0.55 MLP, 0.97 LSTM). With the kind `none` the
    way itself, a table `[P, H]`, is what is trained.

    With L the mean length of the start's rows, which are words, the way is `GAIN * L / sqrt(H) * encoder(...)`, so that
    a learning rate means the same for every base model. Each row w of it becomes `w / sqrt(1 + (|w| / (REACH * L))^2)`:
    the same while it is short, and never longer than `REACH * L`. Left free, rows grow to thousands of words' lengths,
    all in one direction, and behind a norm layer a vector that long no longer turns.

    A deep prompt also adds something to its hidden states before each of L layers: a table `[P, H]` each, which begins
    at zero, so that step 0 is the same as without it. It has no encoder. Its numbers count `DEEP_GAIN * M / sqrt(H)`,
    with M the length of words' hidden states there, and no row gets longer than `REACH * M`.

    State keys: `encoder.*`, `start` if there is one, and `deep` and `hidden_lengths` if the prompt is deep. All else
    follows from them.

    Args:
        config: Of the prompt encoder, with all sizes set and not in inference mode.
        start: Prompt embeddings before the first step `[P, H]`, or None.
        hidden_lengths: `[L]`, M of each layer; None: the prompt is not deep.

    Raises:
        SettingsError: A size is not usable, `start` has another shape or holds NaN or infinity, or the config is in
            inference mode.
    """

    start: Tensor | None
    indices: Tensor
    hidden_lengths: Tensor | None

    def __init__(
        self, config: PromptEncoderConfig, start: Tensor | None = None, hidden_lengths: Tensor | None = None
    ) -> None:
        super().__init__()
        if config.inference_mode:
            raise SettingsError("A prompt in inference mode cannot be trained", remedy="Set inference_mode to False")
        self.encoder = make_encoder(config)
        self.gain = TABLE_GAIN if kind_of(config) is EncoderKind.NONE else GAIN
        rows = self.encoder.total_virtual_tokens
        self.register_buffer("indices", torch.arange(rows).unsqueeze(0), persistent=False)
        self.register_buffer("start", None)
        self.register_buffer("hidden_lengths", None)
        self.deep: nn.Parameter | None = None
        if hidden_lengths is not None:
            self.hidden_lengths = hidden_lengths.detach().to(torch.float32, copy=True)
            self.deep = nn.Parameter(torch.zeros(len(hidden_lengths), rows, self.encoder.token_dim))
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
        zero_output(self.encoder)

    def forward(self) -> Tensor:
        """The prompt embeddings `[P, H]`, fp32; of a deep prompt with what it adds below them, `[(1 + L) * P, H]`."""
        embeddings = self._embeddings()
        if self.deep is None or self.hidden_lengths is None:
            return embeddings
        length = self.hidden_lengths[:, None, None]
        added = _within_reach(self.deep * (DEEP_GAIN * length / self.deep.shape[2] ** 0.5), length)
        return torch.cat([embeddings, added.flatten(0, 1)])

    def _embeddings(self) -> Tensor:
        embeddings: Tensor = self.encoder(self.indices)[0]
        if self.start is None:
            return embeddings
        length = self.start.norm(dim=1).mean()
        length = torch.where(length > 0, length, 1.0)  # a start of zeros has no scale of its own
        way = embeddings * (self.gain * length / self.start.shape[1] ** 0.5)
        return self.start + _within_reach(way, length)


def _within_reach(way: Tensor, length: Tensor) -> Tensor:
    """Rows `[..., H]` as they are while they are short, and never longer than `REACH` times `length`."""
    share_of_reach = (way / (REACH * length)).square().sum(dim=-1, keepdim=True)
    return way * torch.rsqrt(1 + share_of_reach)
