"""Where prompt embeddings start, and the module that is trained."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from ptune_core.errors import SettingsError
from ptune_core.prompt.config import PromptEncoderConfig
from ptune_core.prompt.encoder import PromptEncoder
from ptune_core.prompt.init import REACH, Prompt, from_token_ids, sample_vocabulary, start_embeddings
from ptune_core.prompt.template import VirtualTokens

VOCABULARY = torch.arange(40, dtype=torch.float32).reshape(10, 4)


def config(encoder_type: str = "MLP", **values: Any) -> PromptEncoderConfig:
    return PromptEncoderConfig(
        num_virtual_tokens=6, token_dim=4, encoder_hidden_size=5, encoder_reparameterization_type=encoder_type, **values
    )


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def encode(text: str) -> list[int]:
    return [int(digit) for digit in text]


def test_sampled_rows_are_vocabulary_rows_and_follow_the_seed() -> None:
    rows = sample_vocabulary(VOCABULARY, 50, seeded())
    assert rows.shape == (50, 4)
    ids = (rows[:, 0] / 4).long()
    assert torch.equal(rows, VOCABULARY[ids])
    assert len(ids.unique()) > 5
    assert torch.equal(rows, sample_vocabulary(VOCABULARY, 50, seeded()))
    assert not torch.equal(rows, sample_vocabulary(VOCABULARY, 50, seeded(1)))


@pytest.mark.parametrize(("rows", "ids"), [(2, [7, 1]), (3, [7, 1, 9]), (8, [7, 1, 9, 7, 1, 9, 7, 1])])
def test_a_text_is_repeated_or_cut(rows: int, ids: list[int]) -> None:
    assert torch.equal(from_token_ids(VOCABULARY, [7, 1, 9], rows), VOCABULARY[ids])


def test_a_text_without_tokens_is_an_error() -> None:
    with pytest.raises(SettingsError, match="no tokens"):
        from_token_ids(VOCABULARY, [], 3)


def test_rows_are_fp32_copies() -> None:
    weight = torch.nn.Parameter(VOCABULARY.bfloat16())
    for rows in (sample_vocabulary(weight, 3, seeded()), from_token_ids(weight, [1, 2], 3)):
        assert rows.dtype == torch.float32
        assert not rows.requires_grad
    rows = from_token_ids(VOCABULARY, [0, 1], 2)
    rows.zero_()
    assert VOCABULARY[1, 0] == 4


def test_groups_start_from_their_text_and_the_others_from_the_vocabulary() -> None:
    groups = [VirtualTokens(0, 2), VirtualTokens(1, 3, "task", "89"), VirtualTokens(2, 1)]
    start = start_embeddings(groups, VOCABULARY, encode, sample=True, generator=seeded())
    assert start is not None and start.shape == (6, 4)
    assert torch.equal(start[2:5], VOCABULARY[[8, 9, 8]])
    generator = seeded()
    assert torch.equal(start[:2], sample_vocabulary(VOCABULARY, 2, generator))
    assert torch.equal(start[5:], sample_vocabulary(VOCABULARY, 1, generator))


def test_random_groups_beside_a_text_have_the_spread_of_the_vocabulary() -> None:
    groups = [VirtualTokens(0, 2000), VirtualTokens(1, 1, None, "7")]
    start = start_embeddings(groups, VOCABULARY, encode, sample=False, generator=seeded())
    assert start is not None
    assert torch.equal(start[2000:], VOCABULARY[[7]])
    assert start[:2000].std().item() == pytest.approx(VOCABULARY.std().item(), rel=0.05)
    assert start[:2000].mean().item() == pytest.approx(0, abs=0.5)


def test_random_without_a_text_is_pefts_own_start() -> None:
    assert start_embeddings([VirtualTokens(0, 2)], VOCABULARY, encode, sample=False, generator=seeded()) is None


def test_an_unresolved_group_is_an_error() -> None:
    with pytest.raises(SettingsError, match="Resolve it first"):
        start_embeddings([VirtualTokens(0, None, None, "12")], VOCABULARY, encode, sample=True, generator=seeded())


@pytest.mark.parametrize("encoder_type", ["MLP", "LSTM"])
def test_without_a_start_the_prompt_is_the_encoders_output(encoder_type: str) -> None:
    prompt = Prompt(config(encoder_type))
    assert torch.equal(prompt(), prompt.encoder(torch.arange(6).unsqueeze(0))[0])
    assert set(prompt.state_dict()) == {f"encoder.{name}" for name in PromptEncoder(config(encoder_type)).state_dict()}


@pytest.mark.parametrize("encoder_type", ["MLP", "LSTM"])
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


def test_the_start_is_saved_and_is_no_parameter() -> None:
    prompt = Prompt(config(), from_token_ids(VOCABULARY, [3], 6))
    assert "start" in prompt.state_dict()
    assert "start" not in dict(prompt.named_parameters())
    other = Prompt(config(), torch.zeros(6, 4))
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
