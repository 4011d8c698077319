"""Where prompt embeddings start: noise, words, labels, texts and the vectors of an adapter."""

from __future__ import annotations

import pytest
import torch

from ptune_core.errors import SettingsError
from ptune_core.prompt.starts import (
    from_token_ids,
    in_turn,
    label_vectors,
    normal,
    sample_vocabulary,
    start_embeddings,
    text_vectors,
    vocabulary,
)
from ptune_core.prompt.template import VirtualTokens

VOCABULARY = torch.arange(40, dtype=torch.float32).reshape(10, 4)


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
    start = start_embeddings(groups, VOCABULARY, encode, vocabulary(VOCABULARY, seeded()), seeded())
    assert start is not None and start.shape == (6, 4)
    assert torch.equal(start[2:5], VOCABULARY[[8, 9, 8]])
    generator = seeded()
    assert torch.equal(start[:2], sample_vocabulary(VOCABULARY, 2, generator))
    assert torch.equal(start[5:], sample_vocabulary(VOCABULARY, 1, generator))


def test_random_groups_beside_a_text_have_the_spread_of_the_vocabulary() -> None:
    groups = [VirtualTokens(0, 2000), VirtualTokens(1, 1, None, "7")]
    start = start_embeddings(groups, VOCABULARY, encode, None, seeded())
    assert start is not None
    assert torch.equal(start[2000:], VOCABULARY[[7]])
    assert start[:2000].std().item() == pytest.approx(VOCABULARY.std().item(), rel=0.05)
    assert start[:2000].mean().item() == pytest.approx(0, abs=0.5)


def test_random_without_a_text_is_pefts_own_start() -> None:
    assert start_embeddings([VirtualTokens(0, 2)], VOCABULARY, encode, None, seeded()) is None


def test_an_unresolved_group_is_an_error() -> None:
    with pytest.raises(SettingsError, match="Resolve it first"):
        start_embeddings(
            [VirtualTokens(0, None, None, "12")], VOCABULARY, encode, vocabulary(VOCABULARY, seeded()), seeded()
        )


def test_noise_is_as_large_as_words_and_follows_the_seed() -> None:
    weight = torch.randn(20_000, 8, generator=seeded(5)) * 0.02
    noise = normal(weight, seeded())(500)
    assert noise.std().item() == pytest.approx(0.02, rel=0.05)
    assert abs(noise.mean().item()) < 0.002
    assert torch.equal(noise, normal(weight, seeded())(500))
    assert not torch.equal(noise, normal(weight, seeded(1))(500))


def test_a_source_runs_on_over_the_groups() -> None:
    groups = [VirtualTokens(0, 2), VirtualTokens(1, 1, None, "9"), VirtualTokens(2, 3)]
    start = start_embeddings(groups, VOCABULARY, encode, in_turn(text_vectors(VOCABULARY, [5, 6, 7])), seeded())
    assert start is not None
    assert torch.equal(start, VOCABULARY[[5, 6, 9, 7, 5, 6]])


@pytest.mark.parametrize(("rows", "expected"), [(1, [0]), (2, [0, 1]), (5, [0, 1, 0, 1, 0])])
def test_an_adapter_of_any_length_is_repeated_or_cut(rows: int, expected: list[int]) -> None:
    vectors = torch.randn(2, 4, generator=seeded())
    found = in_turn(vectors)(rows)
    assert torch.equal(found, vectors[expected])
    found.zero_()
    assert vectors.abs().min() > 0, "what is given out is a copy"


def test_a_label_starts_from_the_mean_of_its_words() -> None:
    vectors = label_vectors(VOCABULARY, {"bad": [2], "good": [3, 5]})
    assert torch.equal(vectors, torch.stack([VOCABULARY[2], VOCABULARY[4]]))


def test_virtual_tokens_beyond_the_labels_are_drawn_from_the_vocabulary() -> None:
    source = in_turn(VOCABULARY[[1, 2]], vocabulary(VOCABULARY, seeded()))
    found = torch.cat([source(1), source(3), source(2)])
    generator = seeded()
    drawn = torch.cat([sample_vocabulary(VOCABULARY, rows, generator) for rows in (2, 2)])
    assert torch.equal(found, torch.cat([VOCABULARY[[1, 2]], drawn]))
    assert torch.equal(in_turn(VOCABULARY[[1, 2]], vocabulary(VOCABULARY, seeded()))(1), VOCABULARY[[1]])


def test_labels_without_tokens_are_all_named() -> None:
    with pytest.raises(SettingsError, match="Got: 'a', 'c'"):
        label_vectors(VOCABULARY, {"a": [], "b": [1], "c": []})
