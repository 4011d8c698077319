"""The form's values become settings, and settings the same form again."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import pytest

from ptune_core.__main__ import build_parser
from ptune_core.app import form
from ptune_core.app.command_line import command_line
from ptune_core.app.drafts import Held, chosen_columns, filled_with, suited
from ptune_core.app.sweep_form import ENCODER, RATE, SEED, TOKENS, held_by, sweep_of
from ptune_core.commands.arguments import read_settings
from ptune_core.errors import SettingsError
from ptune_core.training.settings import RunSettings

TEMPLATE = "[P*8] {text~} [ANSWER:label]"
ODD = {
    "name": 'it\'s "mine" $HOME `x`',
    "template": "[P*4] {review~}\nIs it good? [ANSWER:verdict]",
    "columns": {"review": "the text", "verdict": "y/n: yes"},
    "labels": {"no": " no way", "0": " it's; so"},
    "data": "my rows (1).csv",
    "max_length": 77,
    "epochs": 2.5,
    "base_learning_rate": 1e-5,
    "prompt_init": "text",
    "prompt_init_text": "- {a: [b]}",
    "gradient_checkpointing": True,
    "precision": "fp32",
    "seed": 3,
    "sweep": {"encoder_reparameterization_type": ["MLP", "none"], "learning_rate": [0.003, 1e-5], "seed": [0, 1]},
    "halving": False,
}


@pytest.mark.parametrize("values", [{}, ODD, {"base_weights": "tuned", "revision": "0123", "base_model": "a/b"}])
def test_the_shown_command_has_the_same_settings(values: dict[str, Any]) -> None:
    settings = RunSettings.parse(values)
    words = shlex.split(command_line(settings, "my-run"))
    assert words[:4] == ["python", "-m", "ptune_core", "train"]
    arguments = build_parser().parse_args(words[3:])
    assert read_settings(arguments.settings, arguments.overrides) == settings
    assert arguments.out == Path("my-run")


@pytest.mark.parametrize("values", [{}, ODD])
def test_a_form_filled_with_settings_gives_them_back(values: dict[str, Any]) -> None:
    settings = RunSettings.parse(values)
    filled = filled_with(settings)
    assert filled.left_out == []
    held = Held("token", filled.values, dict(filled.answers), chosen_columns(filled.roles, "token"), filled.sweep)
    again = held.as_settings(None) | {"data": settings.data, "columns": settings.columns}
    assert RunSettings.parse(again) == settings
    assert filled.is_of_demo is (settings.data == "demo")


def test_what_the_page_cannot_show_is_named() -> None:
    values = {"candidates": ["a", "b"], "validation_data": "v.csv", "sweep": {"encoder_dropout": [0.0, 0.1]}}
    left_out = filled_with(RunSettings.parse(values)).left_out
    assert len(left_out) == 3 and "dropout" in left_out[0].lower()
    assert filled_with(RunSettings.parse({"labels": {}})).left_out


def test_virtual_tokens_are_varied_in_the_present_template() -> None:
    sweep = sweep_of(TEMPLATE, {ENCODER: ["MLP", "LSTM"], TOKENS: ["4", "16", "4"], RATE: ["1e-3"], SEED: None})
    assert sweep == {
        "template": ["[P*4] {text~} [ANSWER:label]", "[P*16] {text~} [ANSWER:label]"],
        "encoder_reparameterization_type": ["MLP", "LSTM"],
        "learning_rate": [0.001],
    }
    settings = RunSettings.parse({"template": TEMPLATE, "sweep": sweep})
    assert len(settings.trials) == 4
    held, others = held_by(settings)
    assert (held[TOKENS], held[RATE], others) == (["4", "16"], ["0.001"], [])


def test_templates_of_other_words_are_no_numbers_of_virtual_tokens() -> None:
    sweep = {"template": ["{text} [P*4][ANSWER:label]", TEMPLATE]}
    held, others = held_by(RunSettings.parse({"template": TEMPLATE, "sweep": sweep}))
    assert held[TOKENS] == [] and others == ["template"]


def test_sweep_values_that_are_no_numbers_are_all_named() -> None:
    with pytest.raises(SettingsError, match="'many' is not a whole number; Learning rate: 'fast' is not a number"):
        sweep_of(TEMPLATE, {TOKENS: ["4", "many"], RATE: ["fast"]})


def test_defaults_of_a_base_model_leave_alone_what_was_changed() -> None:
    large, small = "Qwen/Qwen2.5-0.5B", "demo"
    values = {"batch_size": "", "gradient_accumulation_steps": 1, "max_length": ""}
    assert suited(values, small, large) == {"batch_size": "8", "gradient_accumulation_steps": 2}
    assert suited(values | {"batch_size": "4"}, small, large) == {"gradient_accumulation_steps": 2}
    back = values | {"batch_size": "8", "gradient_accumulation_steps": 2}
    assert suited(back, large, small) == {"batch_size": "", "gradient_accumulation_steps": 1}
    assert suited(values, small, "sentence-transformers/all-MiniLM-L6-v2") == {"max_length": "256"}


def test_only_what_is_shown_counts_as_changed() -> None:
    values = filled_with(RunSettings()).values
    assert form.changed(values, "demo") == ()
    assert form.changed(values | {"encoder_num_layers": 3, "patience": 9}, "demo") == ("patience",)
    assert form.changed(values | {"encoder_num_layers": 3, "encoder_reparameterization_type": "LSTM"}, "demo") == (
        "encoder_num_layers",
    )
    assert form.changed(values | {"gradient_accumulation_steps": 2}, "Qwen/Qwen2.5-0.5B") == ()
