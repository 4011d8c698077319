"""What a run is called that was given no name: what is trained on what, how, and in what it is unlike the usual."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

from ptune_core.model.catalogue import settings_of
from ptune_core.prompt.segments import TargetKind
from ptune_core.training.settings import DEMO, RunSettings

MOST_CHARACTERS = 80

_TOLD_OTHERWISE = frozenset(
    {"name", "base_model", "revision", "data", "validation_data", "columns", "template", "labels", "candidates",
     "sweep", "halving", "device", "precision", "checkpoint_every", "eval_batch_size"}
)  # fmt: skip
_TARGETS = {TargetKind.ANSWER: "answers", TargetKind.MASK: "masks", TargetKind.HEAD: "head"}


def default_name(settings: RunSettings, source: str, taken: Collection[str] = ()) -> str:
    """`demo on reviews.csv, 8 tokens, answers, max steps 60`; ` (2)` and so on where another run is called so.

    Args:
        settings: Of the run.
        source: Name of the data's file.
        taken: Names of other runs.
    """
    model = settings.base_model.rstrip("/").rsplit("/", 1)[-1]
    data = DEMO if settings.data == DEMO else source or settings.data
    template = settings.parsed_template
    parts = [
        f"{model} on {Path(data).name}"[:MOST_CHARACTERS],
        f"{template.num_virtual_tokens} tokens",
        _TARGETS[template.target.kind],
        *([f"{len(settings.trials)} trials"] if settings.sweep else []),
        *_unlike_the_usual(settings),
    ]
    name = parts[0]
    for part in parts[1:]:
        if len(name) + 2 + len(part) > MOST_CHARACTERS - len(" (99)"):
            break
        name = f"{name}, {part}"
    number, called = 1, name
    while called in taken:
        number += 1
        called = f"{name} ({number})"
    return called


def _unlike_the_usual(settings: RunSettings) -> list[str]:
    """Options that differ from what suits this base model, as `learning rate 0.01`."""
    suited = settings_of(settings.base_model)
    values, usual = settings.model_dump(mode="json"), RunSettings().model_dump(mode="json")
    return [
        f"{_short(name)} {_text(value)}"
        for name, value in values.items()
        if name not in _TOLD_OTHERWISE and value != suited.get(name, usual[name])
    ]


def _short(name: str) -> str:
    return name.removeprefix("encoder_").replace("reparameterization_type", "encoder").replace("_", " ")


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    return "none" if value is None else f"{value:g}" if isinstance(value, float) else str(value)
