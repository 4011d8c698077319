"""Every kind of prompt encoder: PEFT's two, the paper's own shapes, and none."""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor, nn

from ptune_core.prompt.config import PromptEncoderConfig
from ptune_core.prompt.encoder import PromptEncoder
from ptune_core.prompt.kinds import EncoderKind, kind_of


class PaperEncoder(nn.Module):
    """The prompt encoder of the paper's code: a bidirectional LSTM, then Linear, ReLU, Linear of width H.

    With h = H/2 it is that of the knowledge probes (THUDM/P-tuning, `LAMA/p_tuning/prompt_encoder.py`), with h = H that
    of the few-shot tasks (`PT-Fewshot/pet/wrapper.py`). PEFT's LSTM differs: its h is free, and its first linear layer
    is `2h x 2h`. Parameters are named as in PEFT.

    Args:
        config: With all sizes set; `encoder_hidden_size` is h.

    Raises:
        SettingsError: A size is missing or not usable.
    """

    def __init__(self, config: PromptEncoderConfig) -> None:
        super().__init__()
        replace(config, encoder_reparameterization_type=EncoderKind.LSTM.peft_type).check_complete()
        assert config.token_dim is not None and config.encoder_hidden_size is not None
        self.token_dim, width = config.token_dim, config.encoder_hidden_size
        self.total_virtual_tokens = config.total_virtual_tokens
        self.embedding = nn.Embedding(self.total_virtual_tokens, self.token_dim)
        self.lstm_head = nn.LSTM(
            input_size=self.token_dim,
            hidden_size=width,
            num_layers=config.encoder_num_layers,
            dropout=config.encoder_dropout,
            bidirectional=True,
            batch_first=True,
        )
        self.mlp_head = nn.Sequential(
            nn.Linear(2 * width, self.token_dim), nn.ReLU(), nn.Linear(self.token_dim, self.token_dim)
        )

    def forward(self, indices: Tensor) -> Tensor:
        """Prompt embeddings `[B, P, H]` of virtual token numbers `[B, P]`; each row is read as a sequence."""
        embeddings: Tensor = self.mlp_head(self.lstm_head(self.embedding(indices))[0])
        return embeddings


Encoder = PromptEncoder | PaperEncoder


def make_encoder(config: PromptEncoderConfig) -> Encoder:
    """The prompt encoder that a config with all sizes asks for; `none` is PEFT's without a head, a table `[P, H]`.

    Raises:
        SettingsError: There is no such kind, or a size is missing or not usable.
    """
    kind = kind_of(config)
    if kind.is_pefts:
        return PromptEncoder(config)
    if kind is EncoderKind.NONE:
        return PromptEncoder(replace(config, encoder_reparameterization_type=kind.peft_type, inference_mode=True))
    return PaperEncoder(config)


def zero_output(encoder: Encoder) -> None:
    """Make the encoder give zeros, and every parameter still able to learn: its last layer, or its table, is zero."""
    last = encoder.mlp_head[-1] if hasattr(encoder, "mlp_head") else encoder.embedding
    for parameter in last.parameters():
        nn.init.zeros_(parameter)
