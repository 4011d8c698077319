"""The module that is trained, with every kind of prompt encoder."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from ptune_core.errors import SettingsError
from ptune_core.prompt.config import PromptEncoderConfig
from ptune_core.prompt.encoder import PromptEncoder
from ptune_core.prompt.init import Prompt
from ptune_core.prompt.kinds import EncoderKind
from ptune_core.prompt.starts import from_token_ids

VOCABULARY = torch.arange(40, dtype=torch.float32).reshape(10, 4)


def config(encoder_type: str = "MLP", **values: Any) -> PromptEncoderConfig:
    return PromptEncoderConfig(
        num_virtual_tokens=6, token_dim=4, encoder_hidden_size=5, encoder_reparameterization_type=encoder_type, **values
    )


KINDS = list(EncoderKind)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("encoder_type", ["MLP", "LSTM"])
def test_without_a_start_the_prompt_is_the_encoders_output(encoder_type: str) -> None:
    prompt = Prompt(config(encoder_type))
    assert torch.equal(prompt(), prompt.encoder(torch.arange(6).unsqueeze(0))[0])
    assert set(prompt.state_dict()) == {f"encoder.{name}" for name in PromptEncoder(config(encoder_type)).state_dict()}


@pytest.mark.parametrize("encoder_type", KINDS)
def test_with_a_start_step_0_is_the_start_and_every_weight_learns(encoder_type: str) -> None:
    start = from_token_ids(VOCABULARY, [3, 1, 4], 6)
    prompt = Prompt(config(encoder_type), start)
    assert torch.equal(prompt(), start)
    goal = torch.randn(6, 4, generator=seeded())
    optimizer = torch.optim.AdamW(prompt.parameters(), lr=0.05)
    losses = []
    before = {name: parameter.detach().clone() for name, parameter in prompt.named_parameters()}
    for _ in range(60):
        loss = (prompt() - start - goal).pow(2).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] / 4
    assert all(not torch.equal(parameter, before[name]) for name, parameter in prompt.named_parameters())
    assert torch.equal(prompt.start, start)  # type: ignore[arg-type]


@pytest.mark.parametrize("encoder_type", KINDS)
def test_the_start_is_saved_and_is_no_parameter(encoder_type: str) -> None:
    prompt = Prompt(config(encoder_type), from_token_ids(VOCABULARY, [3], 6))
    assert "start" in prompt.state_dict()
    assert "start" not in dict(prompt.named_parameters())
    other = Prompt(config(encoder_type), torch.zeros(6, 4))
    other.load_state_dict(prompt.state_dict())
    assert torch.equal(other(), prompt())


def test_the_start_is_a_copy() -> None:
    start = torch.ones(6, 4)
    prompt = Prompt(config(), start)
    start.zero_()
    assert torch.equal(prompt(), torch.ones(6, 4))


def test_a_start_that_does_not_fit_is_refused() -> None:
    with pytest.raises(SettingsError, match=r"Got: \(5, 4\). Needed: \(6, 4\)"):
        Prompt(config(), torch.zeros(5, 4))
    with pytest.raises(SettingsError, match="NaN or infinity"):
        Prompt(config(), torch.full((6, 4), torch.inf))


def test_a_prompt_in_inference_mode_cannot_be_trained() -> None:
    with pytest.raises(SettingsError, match="inference_mode"):
        Prompt(config(inference_mode=True))


def test_without_an_encoder_the_prompt_embeddings_alone_are_trained() -> None:
    """The paper's EMB, prompt tuning in PEFT: one gradient step moves each vector against its own gradient."""
    start = from_token_ids(VOCABULARY, [3, 1, 4], 6)
    prompt = Prompt(config("none"), start)
    assert [(name, tuple(p.shape)) for name, p in prompt.named_parameters()] == [("encoder.embedding.weight", (6, 4))]
    push = torch.randn(6, 4, generator=seeded())
    (prompt() * push).sum().backward()
    torch.optim.SGD(prompt.parameters(), lr=0.5).step()
    torch.testing.assert_close(prompt().detach(), start - 0.5 * push)


def test_without_encoder_and_start_the_prompt_is_pefts_table() -> None:
    torch.manual_seed(3)
    prompt = Prompt(config("none"))
    torch.manual_seed(3)
    assert torch.equal(prompt(), torch.nn.Embedding(6, 4).weight)
