"""PromptEncoder against PEFT's own, weight by weight."""

from __future__ import annotations

import warnings
from typing import Any

import peft
import pytest
import torch
from peft import PromptEncoderReparameterizationType as PeftEncoderType

from ptune_core import PromptEncoder, PromptEncoderConfig
from ptune_core.errors import SettingsError
from ptune_core.prompt.config import PromptEncoderReparameterizationType

SIZES: dict[str, Any] = {
    "num_virtual_tokens": 5,
    "token_dim": 8,
    "num_transformer_submodules": 1,
    "encoder_hidden_size": 6,
}
INDICES = torch.arange(5).unsqueeze(0).expand(3, -1)


def test_mlp_example_of_peft() -> None:
    config = PromptEncoderConfig(
        peft_type="P_TUNING",
        task_type="SEQ_2_SEQ_LM",
        num_virtual_tokens=20,
        token_dim=768,
        num_transformer_submodules=1,
        num_attention_heads=12,
        num_layers=12,
        encoder_reparameterization_type="MLP",
        encoder_hidden_size=768,
    )
    assert PromptEncoder(config)(torch.arange(20).unsqueeze(0).expand(4, -1)).shape == (4, 20, 768)


def test_lstm_example() -> None:
    config = PromptEncoderConfig(
        task_type="CAUSAL_LM",
        num_virtual_tokens=10,
        token_dim=1024,
        encoder_reparameterization_type="LSTM",
        encoder_hidden_size=512,
        encoder_num_layers=2,
        encoder_dropout=0.1,
    )
    assert PromptEncoder(config)(torch.arange(10).unsqueeze(0).expand(8, -1)).shape == (8, 10, 1024)


def test_two_transformer_submodules_example() -> None:
    config = PromptEncoderConfig(
        num_virtual_tokens=20, token_dim=768, num_transformer_submodules=2, encoder_hidden_size=768
    )
    encoder = PromptEncoder(config)
    assert encoder.total_virtual_tokens == config.total_virtual_tokens == 40
    assert encoder(torch.arange(40).unsqueeze(0).expand(4, -1)).shape == (4, 40, 768)


@pytest.mark.parametrize(
    "values",
    [
        {"encoder_reparameterization_type": "MLP"},
        {"encoder_reparameterization_type": "MLP", "num_transformer_submodules": 2},
        {"encoder_reparameterization_type": "LSTM"},
        {"encoder_reparameterization_type": "LSTM", "encoder_num_layers": 1},
        {"encoder_reparameterization_type": "LSTM", "encoder_num_layers": 3, "encoder_dropout": 0.5},
        {"encoder_reparameterization_type": "MLP", "inference_mode": True},
        {"encoder_reparameterization_type": "LSTM", "inference_mode": True},
    ],
    ids=str,
)
def test_modules_state_and_seeded_weights_are_pefts(values: dict[str, Any]) -> None:
    torch.manual_seed(3)
    theirs = peft.PromptEncoder(peft.PromptEncoderConfig(**{**SIZES, **values}))
    torch.manual_seed(3)
    ours = PromptEncoder(PromptEncoderConfig(**{**SIZES, **values}))
    assert repr(ours) == repr(theirs)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    for name, tensor in theirs.state_dict().items():
        assert torch.equal(ours.state_dict()[name], tensor), name


@pytest.mark.parametrize("encoder_type", ["MLP", "LSTM"])
def test_copied_weights_give_pefts_output_and_gradients(encoder_type: str) -> None:
    values = {**SIZES, "encoder_reparameterization_type": encoder_type}
    theirs = peft.PromptEncoder(peft.PromptEncoderConfig(**values))
    ours = PromptEncoder(PromptEncoderConfig(**values))
    assert not torch.equal(ours(INDICES), theirs(INDICES))
    ours.load_state_dict(theirs.state_dict())
    out = ours(INDICES)
    expected = theirs(INDICES)
    assert torch.equal(out, expected)
    out.pow(2).sum().backward()
    expected.pow(2).sum().backward()
    for (name, ours_parameter), theirs_parameter in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        assert ours_parameter.grad is not None and torch.equal(ours_parameter.grad, theirs_parameter.grad), name


@pytest.mark.parametrize("name", ["MLP", "LSTM"])
def test_enum_and_string_types_are_alike(name: str) -> None:
    encoders = []
    for encoder_type in (name, PromptEncoderReparameterizationType(name), PeftEncoderType(name)):
        torch.manual_seed(0)
        encoders.append(PromptEncoder(PromptEncoderConfig(**SIZES, encoder_reparameterization_type=encoder_type)))
    outputs = [encoder(INDICES) for encoder in encoders]
    assert torch.equal(outputs[0], outputs[1]) and torch.equal(outputs[0], outputs[2])
    assert {encoder.encoder_type for encoder in encoders} == {PromptEncoderReparameterizationType(name)}


@pytest.mark.parametrize("encoder_type", ["MLP", PromptEncoderReparameterizationType.MLP, PeftEncoderType.MLP])
def test_mlp_layers_are_ignored_with_pefts_warning(encoder_type: str) -> None:
    """PEFT itself fails here with an AttributeError when the type is the plain string."""
    values = {**SIZES, "encoder_num_layers": 3}
    with pytest.warns(UserWarning) as theirs:
        peft.PromptEncoder(peft.PromptEncoderConfig(**values, encoder_reparameterization_type=PeftEncoderType.MLP))
    with pytest.warns(UserWarning) as ours:
        encoder = PromptEncoder(PromptEncoderConfig(**values, encoder_reparameterization_type=encoder_type))
    assert [str(w.message) for w in ours] == [str(w.message) for w in theirs]
    assert len(encoder.mlp_head) == 5


@pytest.mark.parametrize("encoder_type", ["GRU", "mlp", "", None, 3, ["MLP"]])
def test_any_other_type_is_an_error_that_names_both(encoder_type: Any) -> None:
    config = PromptEncoderConfig(**SIZES, encoder_reparameterization_type=encoder_type)
    with pytest.raises(ValueError) as theirs:
        peft.PromptEncoder(peft.PromptEncoderConfig(**SIZES, encoder_reparameterization_type=encoder_type))
    with pytest.raises(ValueError) as ours:
        PromptEncoder(config)
    assert str(ours.value).startswith(str(theirs.value))
    assert "MLP" in str(ours.value) and "LSTM" in str(ours.value)


@pytest.mark.parametrize("name", ["num_virtual_tokens", "token_dim", "encoder_hidden_size", "encoder_num_layers"])
def test_missing_sizes_are_named(name: str) -> None:
    """PEFT fails here with a bare TypeError."""
    with pytest.raises(SettingsError, match=f"{name} is not set"):
        PromptEncoder(PromptEncoderConfig(**{**SIZES, name: None}))


def test_a_size_changed_after_construction_is_checked_too() -> None:
    config = PromptEncoderConfig(**SIZES)
    config.token_dim = 0
    with pytest.raises(SettingsError, match="token_dim is 0"):
        PromptEncoder(config)


def test_inference_mode_is_the_table_of_prompt_embeddings() -> None:
    config = PromptEncoderConfig(num_virtual_tokens=5, token_dim=8, inference_mode=True)
    encoder = PromptEncoder(config)
    assert list(encoder.state_dict()) == ["embedding.weight"]
    assert torch.equal(encoder(INDICES), encoder.embedding.weight.expand(3, -1, -1))


def test_dropout_acts_in_training_only() -> None:
    encoder = PromptEncoder(PromptEncoderConfig(**SIZES, encoder_reparameterization_type="LSTM", encoder_dropout=0.5))
    assert not torch.equal(encoder(INDICES), encoder(INDICES))
    encoder.eval()
    assert torch.equal(encoder(INDICES), encoder(INDICES))


def test_the_default_layers_warn_of_nothing() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        PromptEncoder(PromptEncoderConfig(**SIZES))
