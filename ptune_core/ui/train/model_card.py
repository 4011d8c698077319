"""The base-model card of the Train tab: which one, what is known of it, and whether its own weights learn."""

from __future__ import annotations

from dataclasses import dataclass

import gradio as gr

from ptune_core.app import form, texts
from ptune_core.demo import DEMO
from ptune_core.model.catalogue import CATALOGUE
from ptune_core.ui.controls import control_of


@dataclass(frozen=True)
class ModelCard:
    """Components of the base-model card.

    Attributes:
        about: What is known of the base model, in a line.
        settings: Control of each setting in this card.
        suited: Id of the base model whose defaults the form has.
    """

    base_model: gr.Dropdown
    about: gr.HTML
    settings: dict[str, gr.components.Component]
    suited: gr.Textbox


def build_model_card() -> ModelCard:
    """Lay the card out; nothing is wired yet."""
    with gr.Column(elem_classes="card"):
        gr.Markdown("### 1 Base model")
        base_model = gr.Dropdown(
            [(f"{entry.summary} ({entry.id})", entry.id) for entry in CATALOGUE],
            value=DEMO,
            allow_custom_value=True,
            label="Base model",
            info=texts.ABOUT_BASE_MODEL,
            elem_id="base-model",
        )
        about = gr.HTML("", elem_id="about-model")
        settings = {name: control_of(name) for name in form.OF_BASE_MODEL}
        suited = gr.Textbox(DEMO, visible=False)
    return ModelCard(base_model, about, settings, suited)
