"""The command that trains with given settings, as it is typed into a terminal."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any

import yaml

from ptune_core.training.settings import RunSettings


def command_line(settings: RunSettings, folder: str) -> str:
    """`python -m ptune_core train`, with every option that differs from its default.

    Args:
        settings: Of the run.
        folder: Name of the run directory.
    """
    values = settings.model_dump(mode="json")
    defaults = RunSettings().model_dump(mode="json")
    changed = {name: value for name, value in values.items() if value != defaults[name]}
    words = shlex.join(["python", "-m", "ptune_core", "train", "--out", folder])
    return f"{words} {overrides(changed)}" if changed else words


def overrides(values: Mapping[str, Any]) -> str:
    """`--set OPTION=VALUE ...` for JSON values, as it is typed into a terminal."""
    return shlex.join(["--set", *(f"{name}={_written(value)}" for name, value in values.items())])


def _written(value: Any) -> str:
    """A value as `--set` reads it: text as it is, anything else as YAML on one line."""
    if value is None or isinstance(value, str):
        return value or ""
    written = yaml.safe_dump(value, default_flow_style=True, allow_unicode=True, sort_keys=False, width=float("inf"))
    return written.removesuffix("...\n").strip()
