"""The kinds of prompt encoder, how many parameters each has, and how wide it is by default. Imports no torch."""

from __future__ import annotations

from dataclasses import replace
from enum import Enum, StrEnum

from ptune_core.errors import SettingsError
from ptune_core.prompt.config import PromptEncoderConfig, PromptEncoderReparameterizationType

DEFAULT_WIDTH = 768
"""Widest MLP or LSTM unless asked for: PEFT takes the base model's width, which at 3072 makes an LSTM of 434 M."""

LARGE = 2**26
"""Parameters from which a prompt encoder is large on any machine: to train it takes 1 GiB."""

SMALL = 2**22
"""Parameters that are not worth a word beside any base model."""

SHARE_OF_BASE = 0.5
"""A prompt encoder with a larger share of the base model's parameters is no small thing beside it."""

TRAINING_BYTES = 16
"""Of a parameter while it trains, in fp32: its value, its gradient and the optimizer's two moments."""

_STEP = 32


class EncoderKind(StrEnum):
    """What makes the prompt embeddings while training; `encoder_reparameterization_type` of the config holds it.

    MLP and LSTM are PEFT's. The others exist in PTune alone, which changes nothing for an adapter: it holds prompt
    embeddings, whatever made them. The paper writes LSTM, MLP and EMB for the choice (arXiv 2103.10385, section 4).
    """

    MLP = "MLP"
    LSTM = "LSTM"
    NONE = "none"  # the prompt embeddings themselves are trained: the paper's EMB, prompt tuning in PEFT
    PAPER_LAMA = "paper-lama"  # H -> bi-LSTM of H/2 each way -> Linear, ReLU, Linear; all of width H
    PAPER_FEW_SHOT = "paper-few-shot"  # the same with an LSTM of H each way

    @property
    def peft_type(self) -> PromptEncoderReparameterizationType:
        """What PEFT's config calls it. PEFT builds no encoder for a finished adapter, so the nearest does."""
        if self in (EncoderKind.MLP, EncoderKind.NONE):
            return PromptEncoderReparameterizationType.MLP
        return PromptEncoderReparameterizationType.LSTM

    @property
    def is_pefts(self) -> bool:
        """Whether PEFT has it too."""
        return self in (EncoderKind.MLP, EncoderKind.LSTM)

    def default_width(self, token_dim: int) -> int | None:
        """`encoder_hidden_size` where nothing was said; `none` has no width."""
        match self:
            case EncoderKind.NONE:
                return None
            case EncoderKind.PAPER_LAMA:
                return max(1, token_dim // 2)
            case EncoderKind.PAPER_FEW_SHOT:
                return token_dim
        return min(token_dim, DEFAULT_WIDTH)


class PromptInit(StrEnum):
    """Where the prompt embeddings start; a group with its own text always starts from that text."""

    AUTO = "auto"
    RANDOM = "random"  # the prompt encoder's own output, as in PEFT
    NORMAL = "normal"
    VOCABULARY = "vocabulary"
    SEPARATOR = "separator"
    LABELS = "labels"
    TEXT = "text"
    ADAPTER = "adapter"


class PromptDepth(StrEnum):
    """Where in the base model virtual tokens are trained."""

    INPUT = "input"  # their embeddings alone, as in P-tuning
    ALL = "all"  # and before each layer what is added to their hidden states


def kind_of(config: PromptEncoderConfig) -> EncoderKind:
    """The kind a config asks for.

    Raises:
        SettingsError: There is none of that name.
    """
    value = config.encoder_reparameterization_type
    value = value.value if isinstance(value, Enum) else value
    if value not in list(EncoderKind):
        raise SettingsError("Prompt encoder type not recognized", got=repr(value), needed=", ".join(EncoderKind))
    return EncoderKind(value)


def count_parameters(config: PromptEncoderConfig) -> int:
    """Parameters of the prompt encoder that this config makes.

    With P rows, H = `token_dim` and h = `encoder_hidden_size`: the table P H; the MLP's layers H h + h, h² + h and
    h H + H; an LSTM layer, each way, 4 h (in + h) + 8 h, where in is H and from the second layer on 2 h; after the LSTM
    4 h² + 2 h and 2 h H + H, in the paper's shapes 2 h H + H and H² + H.

    Raises:
        SettingsError: A size is missing, or there is no such kind.
    """
    kind = kind_of(config)
    sized = replace(config, encoder_reparameterization_type=kind.peft_type, inference_mode=kind is EncoderKind.NONE)
    sized.check_complete()
    token_dim, width = config.token_dim or 0, config.encoder_hidden_size or 0
    table = config.total_virtual_tokens * token_dim
    if kind is EncoderKind.NONE:
        return table
    if kind is EncoderKind.MLP:
        return table + _linear(token_dim, width) + _linear(width, width) + _linear(width, token_dim)
    inputs = [token_dim] + [2 * width] * (config.encoder_num_layers - 1)
    lstm = sum(2 * (4 * width * (size + width) + 8 * width) for size in inputs)
    if kind is EncoderKind.LSTM:
        return table + lstm + _linear(2 * width, 2 * width) + _linear(2 * width, token_dim)
    return table + lstm + _linear(2 * width, token_dim) + _linear(token_dim, token_dim)


def width_within(config: PromptEncoderConfig, parameters: int) -> int | None:
    """The largest width, a multiple of 32, with which the encoder has at most so many parameters; None: there is none.

    Only narrower ones than the config's are looked at.
    """
    widths = range(_STEP, config.encoder_hidden_size or 0, _STEP)
    fitting = [w for w in widths if count_parameters(replace(config, encoder_hidden_size=w)) <= parameters]
    return fitting[-1] if fitting else None


def large_warning(config: PromptEncoderConfig, base_parameters: int) -> str | None:
    """What to say of a prompt encoder that is larger than is sensible, with a width to use instead; None if it is not.

    It is large from `LARGE` parameters on, or from `SHARE_OF_BASE` of the base model's if that is more than `SMALL`.

    Args:
        config: Of the prompt encoder.
        base_parameters: Parameters of the base model.
    """
    count = count_parameters(config)
    bound = min(LARGE, max(SMALL, int(SHARE_OF_BASE * base_parameters)))
    if count <= bound or kind_of(config) is EncoderKind.NONE:
        return None
    return (
        f"The prompt encoder ({kind_of(config)} of width {config.encoder_hidden_size}) has {count:,} parameters, the "
        f"base model {base_parameters:,}. To train it takes {count * TRAINING_BYTES / 2**20:,.0f} MiB and much of "
        f"every step. {narrower(config, bound)}"
    )


def narrower(config: PromptEncoderConfig, parameters: int) -> str:
    """Advice that leads to at most so many parameters."""
    width, smaller = width_within(config, parameters), "none" if kind_of(config) is EncoderKind.MLP else "MLP or none"
    if width is None:
        return f"Choose the prompt encoder {smaller}"
    count = count_parameters(replace(config, encoder_hidden_size=width))
    return f"Set encoder_hidden_size to {width}, which makes {count:,} of them, or choose {smaller}"


def _linear(inputs: int, outputs: int) -> int:
    return inputs * outputs + outputs
