"""Presets are settings like any others."""

from __future__ import annotations

import pytest

from ptune_core.training.presets import OPTIONS, PRESETS, Preset, preset_of
from ptune_core.training.settings import RunSettings


@pytest.mark.parametrize("preset", Preset)
def test_a_preset_is_found_again_by_its_values(preset: Preset) -> None:
    settings = RunSettings.parse(PRESETS[preset])
    assert preset_of({name: getattr(settings, name) for name in OPTIONS}) is preset


def test_balanced_is_what_nothing_said_means() -> None:
    assert RunSettings.parse(PRESETS[Preset.BALANCED]) == RunSettings()
    assert preset_of({}) is Preset.BALANCED


def test_presets_take_longer_one_after_the_other() -> None:
    steps = [PRESETS[preset]["max_steps"] for preset in Preset]
    assert steps == sorted(set(steps))


def test_other_values_are_no_preset() -> None:
    assert preset_of({"max_steps": 61}) is None
    assert preset_of({"epochs": 2.0}) is None
