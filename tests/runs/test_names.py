"""What a run is called by itself."""

from __future__ import annotations

import pytest

from ptune_core.runs.names import MOST_CHARACTERS, default_name
from ptune_core.training.settings import RunSettings

HEAD = {"template": "[P*20] {text} [HEAD:label]"}


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        ({}, "demo on demo, 8 tokens, answers"),
        ({"data": "a/b/mine.csv"}, "demo on mine.csv, 8 tokens, answers"),
        ({"base_model": "/models/mini/", **HEAD}, "mini on demo, 20 tokens, head"),
        ({"learning_rate": 0.01, "seed": 3}, "demo on demo, 8 tokens, answers, learning rate 0.01, seed 3"),
        ({"encoder_reparameterization_type": "none"}, "demo on demo, 8 tokens, answers, encoder none"),
        ({"sweep": {"seed": [0, 1, 2]}}, "demo on demo, 8 tokens, answers, 3 trials"),
    ],
)
def test_it_says_what_is_trained_and_what_is_unlike_the_usual(settings: dict[str, object], name: str) -> None:
    """Bug: four runs that differed in all that mattered were all called "demo on demo"."""
    assert default_name(RunSettings.parse(settings), "") == name


def test_two_of_one_kind_are_told_apart() -> None:
    first = default_name(RunSettings(), "")
    second = default_name(RunSettings(), "", {first})
    assert (second, default_name(RunSettings(), "", {first, second})) == (f"{first} (2)", f"{first} (3)")


def test_a_long_one_ends_with_a_whole_part() -> None:
    changes = {"learning_rate": 0.01, "seed": 3, "epochs": 2, "warmup_ratio": 0.5, "weight_decay": 0.1, "patience": 9}
    name = default_name(RunSettings.parse(changes), "")
    assert len(name) <= MOST_CHARACTERS and name.endswith("weight decay 0.1")
    assert len(default_name(RunSettings.parse({"data": "x" * 300 + ".csv"}), "")) <= MOST_CHARACTERS
