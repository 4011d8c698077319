"""How long to train, in three words: what each preset sets is declared here and nowhere else. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any

from ptune_core.training.settings import RunSettings


class Preset(StrEnum):
    """How long a run may take, in words."""

    QUICK = "Quick"
    BALANCED = "Balanced"
    THOROUGH = "Thorough"


OPTIONS = ("max_steps", "patience", "epochs")
"""What a preset sets; `epochs` is emptied, as it would replace the steps."""


def _values(max_steps: int, patience: int) -> Mapping[str, Any]:
    return dict(zip(OPTIONS, (max_steps, patience, None), strict=True))


PRESETS: Mapping[Preset, Mapping[str, Any]] = {
    Preset.QUICK: _values(60, 6),
    Preset.BALANCED: {name: RunSettings.model_fields[name].default for name in OPTIONS},
    Preset.THOROUGH: _values(1000, 12),
}
"""Preset -> option -> value. Balanced is what the command line does when nothing is said."""


def preset_of(values: Mapping[str, Any]) -> Preset | None:
    """The preset that `values` (option -> value, empty ones left out) are; None if they are of somebody's own."""
    defaults = PRESETS[Preset.BALANCED]
    chosen = {name: values.get(name, defaults[name]) for name in OPTIONS}
    return next((preset for preset, wanted in PRESETS.items() if wanted == chosen), None)
