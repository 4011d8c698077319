"""Controls made from `RunSettings`: label, bounds and help of every option come from its one declaration."""

from __future__ import annotations

import re
import types
import typing
from collections.abc import Mapping
from enum import StrEnum
from typing import Any

import gradio as gr
from pydantic.fields import FieldInfo

from ptune_core.training.settings import RunSettings
from ptune_core.ui import texts

_COLLECTIONS = {
    name
    for name, field in RunSettings.model_fields.items()
    if {"dict", "list"} & set(re.findall(r"\w+", str(field.annotation)))
}
OWN_CONTROLS = frozenset({"data", "validation_data", "template", "base_model", "halving"} | _COLLECTIONS)
"""Settings that the cards for model, data and prompt ask for in their own way; no single control holds a collection,
and `halving` goes with the sweep, which is one."""

MAIN = ("encoder_reparameterization_type", "max_steps", "learning_rate", "batch_size")
"""Settings that are always in view; all others are under Advanced."""


OF_BASE_MODEL = ("base_weights",)
"""Settings in the card of the base model."""


OF_DATA = ("examples_per_label",)
"""Settings in the card of the data."""


def advanced() -> tuple[str, ...]:
    """Every other setting, in the order of `RunSettings`."""
    elsewhere = OWN_CONTROLS | {"name", *MAIN, *OF_BASE_MODEL, *OF_DATA}
    return tuple(name for name in RunSettings.model_fields if name not in elsewhere)


def control(name: str) -> gr.components.Component:
    """The control of one setting."""
    field = RunSettings.model_fields[name]
    plain, optional = _plain_type(field)
    common: dict[str, Any] = {"label": texts.label(name), "elem_id": f"setting-{name}", "info": field.description}
    if issubclass(plain, StrEnum):
        return gr.Radio([str(value) for value in plain], value=str(field.default), **common)
    if plain is bool:
        return gr.Checkbox(value=field.default, **common)
    if optional:  # a `gr.Number` shows 0 where there is nothing; RunSettings reads the number from the text
        return gr.Textbox(placeholder="automatic", max_lines=1, **common)
    if issubclass(plain, int | float):
        # No bounds here: gradio says "Value -5 is less than minimum value 1" without saying of what; RunSettings does.
        whole = plain is int
        return gr.Number(value=field.default, precision=0 if whole else None, step=1 if whole else 0.001, **common)
    return gr.Textbox(value=field.default, max_lines=1, **common)


def settings_values(values: Mapping[str, Any]) -> dict[str, Any]:
    """What the controls hold, as `RunSettings.parse` takes it: an empty control means the default."""
    return {name: value for name, value in values.items() if value is not None and str(value).strip()}


def in_form_words(message: str) -> str:
    """A message about settings with the labels of their controls, where it has their names in front of a colon."""

    def labelled(match: re.Match[str]) -> str:
        number, name = match.groups(default="")
        return f"{number}{texts.label(name) if name in RunSettings.model_fields else name}: "

    return re.sub(r"^(\d+\. )?(\w+): ", labelled, message, flags=re.MULTILINE)


def _plain_type(field: FieldInfo) -> tuple[type, bool]:
    """``int | None`` -> ``(int, True)``; ``float`` -> ``(float, False)``."""
    annotation = field.annotation
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        (annotation,) = (part for part in typing.get_args(annotation) if part is not type(None))
        assert isinstance(annotation, type)
        return annotation, True
    assert isinstance(annotation, type)
    return annotation, False
