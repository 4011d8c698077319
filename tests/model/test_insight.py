"""What is said of virtual tokens is what they are."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from ptune_core.errors import SettingsError
from ptune_core.model import insight
from ptune_core.model.base import BaseModel, load_base_model
from ptune_core.model.insight import as_text, movement, nearest_words, similarity, virtual_tokens
from ptune_core.model.trained import TrainedPrompt
from ptune_core.prompt.config import PromptEncoderConfig
from ptune_core.prompt.template import TargetKind


@pytest.fixture
def base(tiny_llama: Path) -> BaseModel:
    return load_base_model(str(tiny_llama), target=TargetKind.ANSWER, device="cpu", precision="fp32")


def trained_with(prompt: torch.Tensor, start: torch.Tensor | None) -> TrainedPrompt:
    return TrainedPrompt(
        prompt_embeddings=prompt, template="[P*3] {text}[ANSWER:label]", verbalizer=None, labels=(), columns={},
        base_model="x", revision=None, head={}, encoder_state={} if start is None else {"start": start},
        prompt_config=PromptEncoderConfig(), max_length=None,
    )  # fmt: skip


@pytest.mark.parametrize("words_at_once", [7, 1_000_000])
def test_a_word_is_nearest_to_itself_at_any_length(
    base: BaseModel, monkeypatch: pytest.MonkeyPatch, words_at_once: int
) -> None:
    monkeypatch.setattr(insight, "_WORDS_AT_ONCE", words_at_once)
    ids = [5, 40, len(base.tokenizer) - 1]
    found = nearest_words(base.embedding_weight[ids] * torch.tensor([[1.0], [30.0], [0.01]]), base, 3)
    cosines = torch.cosine_similarity(base.embedding_weight[ids, None], base.embedding_weight[None], dim=2)
    for token_id, near, expected in zip(ids, found, cosines, strict=True):
        assert near[0].token == insight._shown(base, token_id)
        assert [each.cosine for each in near] == pytest.approx(expected.topk(3).values.tolist(), abs=1e-5)


def test_norm_and_movement_are_measured_from_the_start(base: BaseModel) -> None:
    start = torch.randn(3, base.hidden_size)
    step = torch.zeros_like(start)
    step[1, 4] = 2.0
    first, second, third = virtual_tokens(trained_with(start + step, start), base)
    assert [first.moved, second.moved, third.moved] == pytest.approx([0, 2, 0], abs=1e-5)
    assert second.norm == pytest.approx(float((start + step)[1].norm()))
    assert (first.number, third.number) == (1, 3) and len(first.nearest) == 5
    assert virtual_tokens(trained_with(start, None), base)[0].moved is None


def test_a_line_about_movement_names_all_or_those_that_moved_most(base: BaseModel) -> None:
    start = base.embedding_weight[:3].float()
    found = movement(start + torch.tensor([[0.0], [2.0], [1.0]]), start, base)
    each = base.hidden_size**0.5
    assert found.numbers == (1, 2, 3) and found.moved == pytest.approx((0, 2 * each, each), rel=1e-3)
    assert (found.moved_low, found.moved_mean, found.moved_high) == pytest.approx((0, each, 2 * each), rel=1e-3)
    assert found.nearest[0][0] == insight._shown(base, 0) and len(found.nearest[0]) == 3

    start = torch.zeros(100, base.hidden_size)
    prompt = torch.arange(100.0).flip(0).view(-1, 1).expand_as(start)
    found = movement(prompt, start, base)
    assert found.num_virtual_tokens == 100 and found.numbers == tuple(range(1, insight.NAMED_AT_MOST + 1))
    assert found.moved_low == 0 and found.moved[0] == found.moved_high
    assert len(found.norm) == len(found.nearest) == insight.NAMED_AT_MOST


def test_alike_virtual_tokens_are_told(base: BaseModel) -> None:
    one = torch.randn(1, base.hidden_size)
    matrix = similarity(torch.cat([one, 3 * one, -one]))
    torch.testing.assert_close(matrix, torch.tensor([[1.0, 1, -1], [1, 1, -1], [-1, -1, 1]]))
    trained = trained_with(torch.cat([one, 3 * one, -one]), None)
    text = as_text(trained, base, virtual_tokens(trained, base, 1))
    assert "1.00 at most" in text and len(text.splitlines()) == 7


@pytest.mark.parametrize(("times", "advised"), [(1, False), (1000, True)])
def test_virtual_tokens_far_longer_than_words_are_told(base: BaseModel, times: int, advised: bool) -> None:
    trained = trained_with(times * base.embedding_weight[:3].clone(), None)
    text = as_text(trained, base, virtual_tokens(trained, base, 1))
    assert ("lower learning rate" in text) is advised
    assert f"norm {base.embedding_weight.norm(dim=1).mean():.3f} on average" in text


def test_virtual_tokens_of_another_size_are_refused(base: BaseModel) -> None:
    with pytest.raises(SettingsError, match="size 7"):
        virtual_tokens(replace(trained_with(torch.ones(3, 7), None)), base)
