"""Every option has one control, made from its declaration."""

from __future__ import annotations

import gradio as gr
import pytest

from ptune_core.app import form, texts
from ptune_core.app.texts import settings as setting_help
from ptune_core.errors import SettingsError
from ptune_core.training.settings import RunSettings
from ptune_core.ui.controls import control_of


def test_every_setting_has_exactly_one_place() -> None:
    places = [*form.OWN_CONTROLS, "name", *form.MAIN, *form.OF_BASE_MODEL, *form.OF_DATA, *form.advanced()]
    assert sorted(places) == sorted(RunSettings.model_fields)


@pytest.mark.parametrize("name", ["name", *form.MAIN, *form.OF_BASE_MODEL, *form.OF_DATA, *form.advanced()])
def test_control_has_the_declared_default_and_help(name: str) -> None:
    field = RunSettings.model_fields[name]
    control = control_of(name)
    assert control.label == texts.label(name)
    assert control.info == setting_help.of(name)
    assert control.value == field.default or not (control.value or field.default)
    if isinstance(control, gr.Number):  # its own bounds would be told without the name of the setting
        assert control.minimum is control.maximum is None
    assert isinstance(control, gr.Textbox) or field.default is not None, "only a text box can be empty"


@pytest.mark.parametrize("name", [name for name in (*form.MAIN, *form.OF_BASE_MODEL, *form.advanced())])
def test_what_a_control_hands_over_at_first_is_the_default(name: str) -> None:
    control = control_of(name)
    settings = RunSettings.parse(form.settings_values({name: control.value}))
    assert settings == RunSettings()


def test_yes_or_no_is_a_box_to_tick() -> None:
    # `gradient_checkpointing` was a field for a number, since a bool is an int.
    chosen = [name for name, field in RunSettings.model_fields.items() if field.annotation is bool]
    assert chosen and all(isinstance(control_of(name), gr.Checkbox) for name in chosen)


def test_numbers_out_of_bounds_are_refused_with_the_name_of_the_option() -> None:
    with pytest.raises(SettingsError, match="max_length"):
        RunSettings.parse(form.settings_values({"max_length": 3}))


def test_messages_name_settings_as_the_form_does() -> None:
    # "max_steps" is nowhere on the page.
    with pytest.raises(SettingsError) as caught:
        RunSettings.parse({"max_steps": -5, "learning_rate": 1e6})
    told = form.in_form_words(str(caught.value))
    assert "2. Steps: " in told and "1. Learning rate: " in told and "(got -5)" in told
    assert form.in_form_words("The template: no") == "The template: no"
    assert form.in_form_words("Give prompt_init_text, no_such_thing") == "Give “Initial text”, no_such_thing"


def test_blanks_are_an_empty_control() -> None:
    # A run was named "   ".
    assert form.settings_values({"name": "  ", "max_steps": 0, "seed": None}) == {"max_steps": 0}
