"""Controls made from `RunSettings`: bounds and defaults of every option come from its one declaration."""

from __future__ import annotations

from enum import StrEnum
from typing import Any

import gradio as gr

from ptune_core.app import texts
from ptune_core.app.form import plain_type
from ptune_core.app.texts import settings as setting_help
from ptune_core.training.settings import RunSettings


def control_of(name: str, **options: Any) -> gr.components.Component:
    """The control of one setting; `options` go to the component."""
    field = RunSettings.model_fields[name]
    plain, optional = plain_type(field)
    common: dict[str, Any] = {"label": texts.label(name), "elem_id": f"setting-{name}", "info": setting_help.of(name)}
    common |= {"min_width": 180} | options
    if issubclass(plain, StrEnum):
        choices = [(texts.choice(name, value), str(value)) for value in plain]
        return gr.Radio(choices, value=str(field.default), **common)
    if plain is bool:
        return gr.Checkbox(value=field.default, **common)
    if optional:  # a `gr.Number` shows 0 where there is nothing; RunSettings reads the number from the text
        return gr.Textbox(placeholder="automatic" if issubclass(plain, int | float) else None, max_lines=1, **common)
    if issubclass(plain, int | float):
        # No bounds here: gradio says "Value -5 is less than minimum value 1" without saying of what; RunSettings does.
        whole = plain is int
        return gr.Number(value=field.default, precision=0 if whole else None, step=1 if whole else 0.001, **common)
    return gr.Textbox(value=field.default, max_lines=1, **common)
