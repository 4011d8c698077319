"""What a check before a run says: how bad it is, in a sentence, and what would help. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


class Level(StrEnum):
    """How bad it is."""

    GOOD = "good"
    NOTE = "note"  # it runs; it may be a mistake
    STOP = "stop"  # it would fail


@dataclass(frozen=True)
class Fix:
    """A change of settings that helps.

    Attributes:
        label: What the button says.
        values: Option -> value, as `RunSettings.parse` takes them.
    """

    label: str
    values: Mapping[str, Any]


@dataclass(frozen=True)
class Check:
    """One thing that was looked at.

    Attributes:
        key: What it is about; one check a key.
        level: How bad it is.
        text: In a sentence.
        fix: What would help, if that is known.
    """

    key: str
    level: Level
    text: str
    fix: Fix | None = None


@dataclass(frozen=True)
class Rows:
    """What the data give with the settings.

    Attributes:
        training: Examples to learn from.
        validation: Examples to measure on.
        labels: Label -> number of examples; empty for free text.
        answers: Label -> answer words; empty for free text and for a classification head.
    """

    training: int
    validation: int
    labels: Mapping[str, int] = field(default_factory=dict)
    answers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Machine:
    """What a run may use here; memory in bytes, where the base model would be.

    Attributes:
        free: Memory that is free now.
        total: All of it.
        has_gpu: Whether there is a GPU; memory is the GPU's then.
        has_bitsandbytes: Whether 8 and 4 bit weights can be had.
    """

    free: int
    total: int
    has_gpu: bool = False
    has_bitsandbytes: bool = False
