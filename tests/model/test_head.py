"""A classification head that reads its inputs standardised, and what a head reads."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from ptune_core.model.head import (
    StandardisedLinear,
    draw_anew,
    inputs_of,
    last_linear,
    plain_state,
    with_standardised_inputs,
)


def _head() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 3))


def _standardised(head: nn.Module, rows: torch.Tensor) -> nn.Module:
    head = with_standardised_inputs(head)
    layer = last_linear(head)
    assert isinstance(layer, StandardisedLinear)
    with inputs_of(layer) as read:
        head(rows)
    layer.standardise_by(read[0])
    return head


def test_a_standardised_head_is_the_same_plain_head_when_it_is_written_down() -> None:
    rows = 5 * torch.randn(5, 6) + 2
    head = _standardised(_head(), torch.randn(20, 6))
    plain = _head()
    plain.load_state_dict({name.removeprefix("classifier."): t for name, t in plain_state(head, "classifier.").items()})
    torch.testing.assert_close(plain(rows), head(rows), rtol=1e-4, atol=1e-4)
    assert not torch.allclose(_head()(rows), head(rows), atol=0.1), "it does read something else"


def test_a_head_of_one_layer_is_replaced_by_a_standardised_one_with_the_same_weights() -> None:
    layer = nn.Linear(6, 3)
    own = with_standardised_inputs(layer)
    assert own is not layer and own.weight is layer.weight
    torch.testing.assert_close(own(torch.ones(2, 6)), layer(torch.ones(2, 6)))


@pytest.mark.parametrize("scale", [1.0, 1000.0])
def test_what_all_rows_have_in_common_does_not_matter_nor_does_a_features_scale(scale: float) -> None:
    torch.manual_seed(1)
    rows, common, scales = torch.randn(8, 6), 100 * torch.ones(6), torch.tensor([1, 1, 1, 1, 1, scale])
    scores, gradients = [], []
    for inputs in (rows, (rows + common) * scales):
        torch.manual_seed(0)
        layer = StandardisedLinear(nn.Linear(6, 3))
        layer.standardise_by(inputs)
        found = layer(inputs)
        nn.functional.cross_entropy(found, torch.arange(8) % 3).backward()
        scores.append(found.detach())
        gradients.append(layer.weight.grad)
    torch.testing.assert_close(scores[0], scores[1], rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-2, atol=1e-3)


def test_a_new_mean_is_measured_on_what_comes_in_and_takes_the_place_of_the_old_one() -> None:
    """The head of a sweep's trials is one layer: measured behind the mean before, the second trial read half of it."""
    layer, rows = StandardisedLinear(nn.Linear(6, 3)), torch.randn(50, 6) + 7
    layer.standardise_by(rows - 20)
    with inputs_of(layer) as read:
        layer(rows)
    layer.standardise_by(read[0])
    torch.testing.assert_close(layer.mean, rows.mean(dim=0))
    torch.testing.assert_close(layer.deviation, rows.std(dim=0, correction=0))


def test_without_a_bias_nothing_makes_up_for_a_mean_so_there_is_none() -> None:
    layer, rows = StandardisedLinear(nn.Linear(6, 3, bias=False)), torch.randn(9, 6) + 3
    layer.standardise_by(rows)
    assert not layer.mean.any()
    plain = nn.Linear(6, 3, bias=False)
    plain.load_state_dict(plain_state(layer, ""))
    torch.testing.assert_close(plain(rows), layer(rows))


def test_a_feature_that_is_the_same_in_all_rows_divides_by_no_zero() -> None:
    layer, rows = StandardisedLinear(nn.Linear(6, 3)), torch.randn(9, 6)
    rows[:, 2] = 4.0
    layer.standardise_by(rows)
    assert torch.isfinite(layer(rows)).all()


def test_every_layer_of_a_head_is_drawn_anew_by_the_seed() -> None:
    """All trials of a seed sweep began with the head of the run's seed."""
    drawn = []
    for seed in (0, 1, 0):
        head = _head()
        draw_anew(head, seed, 0.02)
        drawn.append(torch.cat([parameter.detach().flatten() for parameter in head.parameters()]))
    assert torch.equal(drawn[0], drawn[2]) and not torch.equal(drawn[0], drawn[1])
