"""PromptEncoder: the module that makes the prompt embeddings while training."""

from __future__ import annotations

import warnings

from torch import Tensor, nn

from ptune_core.prompt.config import PromptEncoderConfig, PromptEncoderReparameterizationType


class PromptEncoder(nn.Module):
    """A table of inputs, one per virtual token, and an MLP or LSTM over it (arXiv 2103.10385, section 2).

    Modules, state keys, shapes and the order in which random weights are drawn are those of PEFT 0.21.2, so the same
    seed or the same state gives the same output:

    - MLP: `mlp_head` Linear, ReLU, Linear, ReLU, Linear;
    - LSTM: `lstm_head` bidirectional LSTM, then `mlp_head` Linear, ReLU, Linear;
    - inference mode: `embedding` alone, which then holds finished prompt embeddings.

    Args:
        config: With all sizes set.

    Attributes:
        embedding: `nn.Embedding(total_virtual_tokens, token_dim)`.
        total_virtual_tokens: Rows P of the prompt, over all transformer submodules.
        encoder_type: MLP or LSTM.

    Raises:
        SettingsError: (a ValueError) A size is missing or not usable, or the type is neither MLP nor LSTM.
    """

    def __init__(self, config: PromptEncoderConfig) -> None:
        super().__init__()
        config.check_complete()
        assert config.token_dim is not None
        self.token_dim = self.input_size = self.output_size = config.token_dim
        self.hidden_size = config.encoder_hidden_size
        self.total_virtual_tokens = config.total_virtual_tokens
        self.encoder_type = config.encoder_type
        self.inference_mode = config.inference_mode

        self.embedding = nn.Embedding(self.total_virtual_tokens, self.token_dim)
        if self.inference_mode:
            return
        assert self.hidden_size is not None
        if self.encoder_type is PromptEncoderReparameterizationType.LSTM:
            self.lstm_head = nn.LSTM(
                input_size=self.input_size,
                hidden_size=self.hidden_size,
                num_layers=config.encoder_num_layers,
                dropout=config.encoder_dropout,
                bidirectional=True,
                batch_first=True,
            )
            self.mlp_head = nn.Sequential(
                nn.Linear(self.hidden_size * 2, self.hidden_size * 2),
                nn.ReLU(),
                nn.Linear(self.hidden_size * 2, self.output_size),
            )
            return
        default_num_layers = PromptEncoderConfig.encoder_num_layers
        if config.encoder_num_layers != default_num_layers:
            warnings.warn(
                f"for {self.encoder_type.value}, the argument `encoder_num_layers` is ignored. "
                f"Exactly {default_num_layers} MLP layers are used.",
                stacklevel=2,
            )
        self.mlp_head = nn.Sequential(
            nn.Linear(self.input_size, self.hidden_size),
            nn.ReLU(),
            nn.Linear(self.hidden_size, self.hidden_size),
            nn.ReLU(),
            nn.Linear(self.hidden_size, self.output_size),
        )

    def forward(self, indices: Tensor) -> Tensor:
        """Prompt embeddings of virtual tokens.

        Args:
            indices: Virtual token numbers `[B, P]`. The LSTM reads each row as a sequence.

        Returns:
            `[B, P, H]`; in inference mode the rows of the table as they are (PEFT fails there).
        """
        embeddings: Tensor = self.embedding(indices)
        if self.inference_mode:
            return embeddings
        if self.encoder_type is PromptEncoderReparameterizationType.LSTM:
            embeddings = self.lstm_head(embeddings)[0]
        return self.mlp_head(embeddings)
