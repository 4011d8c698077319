"""Kinds of prompt encoder: what they are made of, counted and real, and when one is too large."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import peft
import pytest
import torch

from ptune_core.errors import SettingsError
from ptune_core.prompt.config import PromptEncoderConfig
from ptune_core.prompt.encoders import make_encoder, zero_output
from ptune_core.prompt.kinds import (
    LARGE,
    EncoderKind,
    count_parameters,
    kind_of,
    large_warning,
    width_within,
)

KINDS = list(EncoderKind)
GPT2 = 124_439_808


def config(kind: str, *, tokens: int = 9, token_dim: int = 768, **values: Any) -> PromptEncoderConfig:
    values = {"encoder_hidden_size": EncoderKind(kind).default_width(token_dim)} | values
    return PromptEncoderConfig(
        num_virtual_tokens=tokens, token_dim=token_dim, encoder_reparameterization_type=kind, **values
    )


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "sizes",
    [
        {"tokens": 1, "token_dim": 5, "encoder_hidden_size": 3},
        {"tokens": 7, "token_dim": 16, "encoder_hidden_size": 24, "num_transformer_submodules": 2},
        {"tokens": 20, "token_dim": 1024},
    ],
)
@pytest.mark.parametrize("layers", [1, 2, 3])
@pytest.mark.filterwarnings("ignore:for MLP:UserWarning")
def test_parameters_are_counted_as_they_are(kind: str, sizes: dict[str, int], layers: int) -> None:
    wanted = config(kind, encoder_num_layers=layers, **sizes)
    with torch.device("meta"):
        encoder = make_encoder(wanted)
    assert count_parameters(wanted) == sum(parameter.numel() for parameter in encoder.parameters())


@pytest.mark.parametrize(
    ("kind", "tokens", "token_dim", "millions"),
    [
        ("paper-lama", 9, 768, 8.28),
        ("paper-lama", 9, 1024, 14.7),
        ("paper-few-shot", 9, 128, 0.71),
        ("none", 20, 768, 0.01536),
    ],
)
def test_the_papers_shapes_have_the_parameters_of_the_papers_code(
    kind: str, tokens: int, token_dim: int, millions: float
) -> None:
    assert count_parameters(config(kind, tokens=tokens, token_dim=token_dim)) / 1e6 == pytest.approx(millions, rel=5e-3)


@pytest.mark.parametrize(("token_dim", "millions"), [(768, 27.2), (896, 37.0), (3072, 434)])
def test_pefts_default_lstm_explodes_and_ours_does_not(token_dim: int, millions: float) -> None:
    pefts = config("LSTM", token_dim=token_dim, encoder_hidden_size=token_dim)
    assert count_parameters(pefts) / 1e6 == pytest.approx(millions, rel=5e-3)
    assert count_parameters(config("LSTM", token_dim=token_dim)) < 0.75 * LARGE


@pytest.mark.parametrize(("kind", "half"), [("paper-lama", 8), ("paper-few-shot", 16)])
def test_the_papers_encoder_is_its_lstm_and_two_layers(kind: str, half: int) -> None:
    """By hand, as `LAMA/p_tuning/prompt_encoder.py` and `PT-Fewshot/pet/wrapper.py` write it."""
    encoder = make_encoder(config(kind, tokens=3, token_dim=16))
    shapes = {name: tuple(tensor.shape) for name, tensor in encoder.named_parameters()}
    assert shapes["lstm_head.weight_ih_l0_reverse"] == (4 * half, 16)
    assert shapes["lstm_head.weight_hh_l1"] == (4 * half, half)
    assert (shapes["mlp_head.0.weight"], shapes["mlp_head.2.weight"]) == ((16, 2 * half), (16, 16))
    indices = torch.arange(3).unsqueeze(0)
    read, _ = encoder.lstm_head(encoder.embedding.weight[None])
    first, _, last = encoder.mlp_head
    by_hand = torch.relu(read @ first.weight.T + first.bias) @ last.weight.T + last.bias
    torch.testing.assert_close(encoder(indices), by_hand)


@pytest.mark.parametrize("kind", KINDS)
def test_a_zeroed_encoder_gives_zeros(kind: str) -> None:
    encoder = make_encoder(config(kind, token_dim=16))
    indices = torch.arange(9).unsqueeze(0)
    assert encoder(indices).abs().max() > 0
    zero_output(encoder)
    assert torch.equal(encoder(indices), torch.zeros(1, 9, 16))


@pytest.mark.parametrize("kind", ["GRU", "NONE", "mlp", None])
def test_there_is_no_other_kind(kind: Any) -> None:
    with pytest.raises(SettingsError, match="not recognized.*MLP, LSTM, none, paper-lama, paper-few-shot"):
        make_encoder(PromptEncoderConfig(num_virtual_tokens=2, token_dim=4, encoder_reparameterization_type=kind))


def test_pefts_names_mean_the_same() -> None:
    theirs = peft.tuners.p_tuning.PromptEncoderReparameterizationType
    for name in ("MLP", "LSTM"):
        assert kind_of(replace(config("MLP"), encoder_reparameterization_type=theirs(name))) is EncoderKind(name)


@pytest.mark.parametrize("kind", KINDS)
def test_a_missing_size_is_told(kind: str) -> None:
    with pytest.raises(SettingsError, match="token_dim is not set"):
        make_encoder(PromptEncoderConfig(num_virtual_tokens=2, encoder_reparameterization_type=kind))


def test_a_large_encoder_is_told_with_a_width_that_is_not() -> None:
    large = config("LSTM", token_dim=3072, encoder_hidden_size=3072)
    warning = large_warning(large, 3_000_000_000)
    width = width_within(large, LARGE)
    assert width is not None and width % 32 == 0
    fitting, wider = (replace(large, encoder_hidden_size=w) for w in (width, width + 32))
    assert count_parameters(fitting) <= LARGE < count_parameters(wider)
    assert warning is not None
    for number in (count_parameters(large), 3_000_000_000, count_parameters(fitting)):
        assert f"{number:,}" in warning
    assert "6,626 MiB" in warning and f"encoder_hidden_size to {width}, " in warning
    assert large_warning(fitting, 3_000_000_000) is None


def test_an_encoder_is_large_beside_a_small_base_model_too() -> None:
    lstm = config("LSTM")
    assert large_warning(lstm, GPT2) is None
    assert large_warning(lstm, 22_000_000) is not None
    assert large_warning(config("LSTM", token_dim=256), 4_300_000) is None, "3 M parameters cost nothing anywhere"


@pytest.mark.parametrize("token_dim", [256, 768, 1024, 3072, 8192])
@pytest.mark.parametrize("kind", ["MLP", "LSTM", "none"])
def test_defaults_are_never_large_beside_a_base_model_of_their_width(kind: str, token_dim: int) -> None:
    """A decoder of this width has twelve parameters a layer for each square of it, and a dozen layers at least."""
    base = 12 * 12 * token_dim**2
    if (kind, token_dim) == ("LSTM", 8192):
        assert large_warning(config(kind, token_dim=token_dim), base) is not None
    else:
        assert large_warning(config(kind, token_dim=token_dim), base) is None


def test_where_no_width_is_narrow_enough_another_kind_is_advised() -> None:
    tall = config("MLP", tokens=512, token_dim=65_536, encoder_hidden_size=8192)
    assert width_within(tall, 1000) is None
    warning = large_warning(replace(tall, num_virtual_tokens=10_000), 10**6)
    assert warning is not None and warning.endswith("Choose the prompt encoder none")
