"""Settings: every problem of every field is told at once, and a written file reads back unchanged."""

from __future__ import annotations

import subprocess
import sys

import pytest
import yaml

from ptune_core.errors import SettingsError
from ptune_core.training.settings import RETIRED, RunSettings


def test_defaults_are_a_run_of_the_demo() -> None:
    settings = RunSettings()
    assert (settings.base_model, settings.data) == ("demo", "demo")
    assert settings.parsed_template.num_virtual_tokens == 8


def test_yaml_round_trip_with_a_comment_for_every_option() -> None:
    settings = RunSettings.parse({"labels": {"0": " No", "1": " Yes"}, "template": "{a}\n[P*3][ANSWER:b]", "epochs": 2})
    text = settings.to_yaml()
    assert RunSettings.from_yaml(text) == settings
    for name, field in RunSettings.model_fields.items():
        assert f"# {field.description}" in text, name
    assert yaml.safe_load(text)["learning_rate"] == settings.learning_rate


def test_all_problems_are_told_at_once() -> None:
    with pytest.raises(SettingsError) as caught:
        RunSettings.parse({"learning_rate": -1, "batch_size": "many", "learning_rat": 3})
    message = str(caught.value)
    assert "learning_rate" in message and "batch_size" in message and "learning_rat: there is no such option" in message


@pytest.mark.parametrize("value", [1e10, -1, float("nan"), float("inf"), "5; rm", {"a": 1}, None, "x" * 100_000])
@pytest.mark.parametrize(
    "field", ["learning_rate", "batch_size", "eval_batch_size", "max_steps", "seed", "warmup_ratio"]
)
def test_wild_values_are_refused_with_the_name_of_the_field(field: str, value: object) -> None:
    if (field, value) == ("batch_size", None):
        assert RunSettings.parse({field: value}).examples_per_batch == 16
        return
    with pytest.raises(SettingsError, match=field) as caught:
        RunSettings.parse({field: value})
    assert len(str(caught.value)) < 400


def test_a_head_learns_from_more_examples_a_step_unless_it_is_said() -> None:
    head = {"template": "[P*4] {text} [HEAD:label]"}
    assert RunSettings.parse(head).examples_per_batch == 32
    assert RunSettings.parse(head | {"batch_size": 8}).examples_per_batch == 8


@pytest.mark.parametrize(
    ("template", "needed"),
    [
        ("{text} [P*4]", "target"),
        ("{text} [ANSWER:label]", "virtual token"),
        ("{text} [P*600][ANSWER:label]", "at most 512"),
    ],
)
def test_unusable_templates_are_refused(template: str, needed: str) -> None:
    with pytest.raises(SettingsError, match=needed):
        RunSettings.parse({"template": template})


@pytest.mark.parametrize("text", ["a: [1", "- 1\n- 2", "just text"])
def test_what_is_no_mapping_is_refused(text: str) -> None:
    with pytest.raises(SettingsError):
        RunSettings.from_yaml(text)


def test_epochs_replace_steps() -> None:
    settings = RunSettings(epochs=2, batch_size=8, gradient_accumulation_steps=2)
    assert settings.steps_for(100) == 13
    assert RunSettings(max_steps=70).steps_for(100) == 70
    assert settings.eval_every_for(200) == 20
    assert settings.eval_every_for(20) == 5, "a run of 20 steps evaluated each one and lost its patience at step 6"


def test_settings_import_no_torch() -> None:
    code = "import sys, ptune_core.training.settings; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_labels_are_text_whatever_yaml_thinks_of_them() -> None:
    """The form the documentation shows was refused, and `no` was read as False."""
    settings = RunSettings.from_yaml("labels: {0: ' No', no: ' never', yes: ' Yes', 1.5: ' more'}")
    assert settings.labels == {"0": " No", "no": " never", "yes": " Yes", "1.5": " more"}


def test_the_place_of_a_template_error_ends_its_text() -> None:
    with pytest.raises(SettingsError, match=r"has no target(.|\n)*\n +\^\Z"):
        RunSettings.parse({"template": "{text} [P*3]"})


def test_a_sweep_is_every_combination_of_its_values() -> None:
    settings = RunSettings.parse({"sweep": {"learning_rate": [0.01, 0.02], "seed": [1, 2, 3]}})
    assert [(trial.learning_rate, trial.seed) for trial in settings.trials] == [
        (rate, seed) for rate in (0.01, 0.02) for seed in (1, 2, 3)
    ]
    assert all(not trial.sweep for trial in settings.trials)
    assert RunSettings.from_yaml(settings.to_yaml()) == settings


@pytest.mark.parametrize(
    ("sweep", "message"),
    [
        ({"batch_size": [1, 2]}, "varies what it cannot. Got: batch_size"),
        ({"learning_rate": []}, "options without values"),
        ({"learning_rate": [0.1, 5.0]}, "learning_rate"),
        ({"seed": list(range(65))}, "too many trials"),
        ({"template": ["[P*2] {text} [ANSWER:label]", "[P*2] {text} [HEAD:label]"]}, "same target"),
    ],
)
def test_a_sweep_that_cannot_be_trained_is_refused_before_it_starts(
    sweep: dict[str, list[object]], message: str
) -> None:
    with pytest.raises(SettingsError, match=message):
        RunSettings.parse({"template": "[P*2] {text} [ANSWER:label]", "sweep": sweep})


@pytest.mark.parametrize("base_model", ["demo", "/models/mine", "./mine", "~/mine"])
def test_a_revision_of_a_folder_is_refused(base_model: str) -> None:
    """The bug this pins: it was ignored without a word."""
    with pytest.raises(SettingsError, match="belongs to a base model of the Hub"):
        RunSettings.parse({"base_model": base_model, "revision": "main"})


@pytest.mark.parametrize(
    "values",
    [
        {"labels": {"a": " a", "b": " b"}, "template": "{text} [P][ANSWER:label]"},
        {"template": "{text} [P] [HEAD:label]"},
        {"template": "{text} [P] [MASK*2:label]"},
    ],
)
def test_candidates_are_for_one_word_to_find(values: dict[str, object]) -> None:
    with pytest.raises(SettingsError, match="Candidates are for one word"):
        RunSettings.parse({**values, "candidates": ["a", "b"]})


def test_input_columns_include_those_of_answers() -> None:
    settings = RunSettings.parse({"template": "{text} [P][ANSWER:label]", "labels": {"0": " {a}", "1": " {b|lower}"}})
    assert settings.input_columns == ("text", "a", "b")


def test_a_head_without_labels_is_refused() -> None:
    """The bug this pins: the run loaded everything and ended in a TypeError."""
    with pytest.raises(SettingsError, match="needs labels"):
        RunSettings.parse({"template": "{text} [P] [HEAD:label]", "labels": {}})


def test_settings_with_an_option_of_earlier_versions_stay_valid_where_it_did_nothing() -> None:
    """Each run says all its settings: taken out, an option would make every run of before one of another version."""
    assert RETIRED
    for name, value in RETIRED.items():
        assert name not in RunSettings.model_fields
        assert RunSettings.parse({"max_steps": 7, name: value}) == RunSettings(max_steps=7)
        with pytest.raises(SettingsError, match=name):
            RunSettings.parse({name: "something else"})
