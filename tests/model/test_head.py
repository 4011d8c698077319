"""A classification head that learns around the mean of what it reads."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from ptune_core.model.head import Inputs, center_on, last_linear, plain_state


def _head() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 3))


def test_a_centered_head_is_the_same_plain_head_when_it_is_written_down() -> None:
    head, rows = _head(), torch.randn(5, 6)
    layer = last_linear(head)
    assert layer is head[2]
    center_on(layer, torch.randn(6))
    plain = _head()
    plain.load_state_dict({name.removeprefix("classifier."): t for name, t in plain_state(head, "classifier.").items()})
    torch.testing.assert_close(plain(rows), head(rows), rtol=0, atol=1e-6)


def test_what_all_rows_have_in_common_does_not_matter() -> None:
    rows, common = torch.randn(8, 6), 100 * torch.ones(6)
    scores, gradients = [], []
    for inputs in (rows, rows + common):
        torch.manual_seed(0)
        layer = nn.Linear(6, 3)
        with Inputs(layer) as seen:
            layer(inputs[:4])
            layer(inputs[4:])
        center_on(layer, seen.mean)
        found = layer(inputs)
        nn.functional.cross_entropy(found, torch.arange(8) % 3).backward()
        scores.append(found.detach())
        gradients.append(layer.weight.grad)
    torch.testing.assert_close(scores[0], scores[1], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-3, atol=1e-4)


def test_a_new_mean_takes_the_place_of_the_old_one() -> None:
    """The head of a sweep's trials is one layer: with both means it would read its inputs less both."""
    layer, rows = nn.Linear(6, 3), torch.randn(4, 6)
    expected = layer(rows - 1)
    center_on(layer, torch.full((6,), 7.0))
    center_on(layer, torch.ones(6))
    torch.testing.assert_close(layer(rows), expected)


@pytest.mark.parametrize("head", [nn.Linear(6, 3, bias=False), nn.Tanh()])
def test_a_head_without_a_bias_cannot_be_centered(head: nn.Module) -> None:
    assert last_linear(head) is None
