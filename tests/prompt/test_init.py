"""The module that is trained, with every kind of prompt encoder."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from ptune_core.errors import SettingsError
from ptune_core.prompt.config import PromptEncoderConfig
from ptune_core.prompt.encoder import PromptEncoder
from ptune_core.prompt.init import DEEP_GAIN, REACH, TABLE_GAIN, Prompt
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
    torch.manual_seed(0)
    prompt = Prompt(config(encoder_type), start)
    assert torch.equal(prompt(), start)
    goal = start.std() * torch.randn(6, 4, generator=seeded())
    optimizer = torch.optim.AdamW(prompt.parameters(), lr=0.005)
    losses = []
    before = {name: parameter.detach().clone() for name, parameter in prompt.named_parameters()}
    for _ in range(120):
        loss = (prompt() - start - goal).pow(2).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] / 4
    assert all(not torch.equal(parameter, before[name]) for name, parameter in prompt.named_parameters())
    assert torch.equal(prompt.start, start)  # type: ignore[arg-type]


def with_weights_of(prompt: Prompt, start: torch.Tensor, times: float = 1.0) -> Prompt:
    """Another prompt on another start, whose encoder gives `times` as much."""
    other = Prompt(config(), start)
    other.encoder.load_state_dict(prompt.encoder.state_dict())
    for parameter in other.encoder.mlp_head[-1].parameters():
        parameter.data *= times
    return other


def moving_prompt(start: torch.Tensor) -> Prompt:
    """A prompt that has left its start."""
    torch.manual_seed(0)
    prompt = Prompt(config(), start)
    for parameter in prompt.encoder.mlp_head[-1].parameters():
        torch.nn.init.normal_(parameter)
    return prompt


def test_the_same_weights_move_words_of_any_length_alike() -> None:
    start = torch.randn(6, 4, generator=seeded())
    prompt = moving_prompt(start)
    torch.testing.assert_close(with_weights_of(prompt, 0.01 * start)(), 0.01 * prompt())


def test_a_short_way_is_the_encoders_and_a_long_one_ends_within_reach() -> None:
    start = torch.randn(6, 4, generator=seeded())
    prompt = moving_prompt(start)
    one, two, far = (with_weights_of(prompt, start, times)().detach() - start for times in (1e-3, 2e-3, 1e9))
    torch.testing.assert_close(two, 2 * one, rtol=1e-3, atol=1e-6)
    reach = REACH * start.norm(dim=1).mean()
    torch.testing.assert_close(far.norm(dim=1), reach.expand(6))
    torch.testing.assert_close(far / reach, torch.nn.functional.normalize(one, dim=1), rtol=1e-3, atol=1e-4)


def test_a_start_of_zeros_can_be_left() -> None:
    prompt = moving_prompt(torch.zeros(6, 4))
    prompt().square().sum().backward()
    assert all(parameter.grad is not None and parameter.grad.isfinite().all() for parameter in prompt.parameters())
    assert prompt().norm(dim=1).min() > 0


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
    """The paper's EMB, prompt tuning in PEFT: one short gradient step moves each vector against its own gradient."""
    start = from_token_ids(VOCABULARY, [3, 1, 4], 6)
    prompt = Prompt(config("none"), start)
    assert [(name, tuple(p.shape)) for name, p in prompt.named_parameters()] == [("encoder.embedding.weight", (6, 4))]
    push = torch.randn(6, 4, generator=seeded())
    (prompt() * push).sum().backward()
    torch.optim.SGD(prompt.parameters(), lr=1e-8).step()
    scale = TABLE_GAIN * start.norm(dim=1).mean() / 4**0.5
    torch.testing.assert_close(prompt().detach() - start, -1e-8 * scale**2 * push, rtol=1e-2, atol=1e-6)


def test_without_encoder_and_start_the_prompt_is_pefts_table() -> None:
    torch.manual_seed(3)
    prompt = Prompt(config("none"))
    torch.manual_seed(3)
    assert torch.equal(prompt(), torch.nn.Embedding(6, 4).weight)


def test_a_deep_prompt_begins_at_its_input_and_stays_within_reach_in_each_layer() -> None:
    start, lengths = torch.randn(6, 4, generator=seeded()), torch.tensor([1.0, 100.0])
    prompt = Prompt(config(), start, lengths)
    assert prompt().shape == (18, 4)
    assert torch.equal(prompt()[:6], start) and prompt()[6:].abs().max() == 0
    assert {"deep", "hidden_lengths", "start"} < set(prompt.state_dict())
    prompt().square().sum().backward()
    prompt.zero_grad()
    prompt()[6:].sum().backward()
    assert prompt.deep is not None and prompt.deep.grad is not None and (prompt.deep.grad != 0).all()
    torch.nn.init.normal_(prompt.deep, std=1e-4)
    small = prompt()[6:].detach().unflatten(0, (2, 6)) / lengths[:, None, None]
    expected = prompt.deep.detach() * DEEP_GAIN / 4**0.5
    torch.testing.assert_close(small, expected, atol=0, rtol=1e-4)
    torch.nn.init.normal_(prompt.deep, std=1e4)
    far = prompt()[6:].detach().unflatten(0, (2, 6)).norm(dim=2) / lengths[:, None]
    torch.testing.assert_close(far, torch.full((2, 6), float(REACH)))
