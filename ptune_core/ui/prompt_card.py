"""The template card of the Train tab: where everything stands, and how the first row looks in it."""

from __future__ import annotations

from dataclasses import dataclass

import gradio as gr

from ptune_core.training.settings import RunSettings
from ptune_core.ui import texts
from ptune_core.ui.train_handlers import PLACEMENTS

MOST_TOKENS_ON_SLIDER = 100
PIECE_COLORS = {"column": "#94a3b8", "virtual tokens": "#6366f1", "target": "#14a085", "special token": "#e8833a"}


@dataclass(frozen=True)
class PromptCard:
    """Components of the template card."""

    placement: gr.Radio
    template: gr.Textbox
    message: gr.Markdown
    pieces: gr.HighlightedText
    num_virtual_tokens: gr.Slider


def build_prompt_card() -> PromptCard:
    default = RunSettings.model_fields["template"].default
    with gr.Column(elem_classes="card"):
        gr.Markdown("### 3 Template")
        placement = gr.Radio(
            list(PLACEMENTS), value=next(iter(PLACEMENTS)), label="Where the virtual tokens stand", elem_id="placement"
        )
        template = gr.Textbox(
            default,
            label="Template",
            info=texts.ABOUT_TEMPLATE,
            lines=1,
            max_lines=8,
            max_length=4000,
            elem_id="template",
        )
        message = gr.Markdown("", visible=False, elem_id="template-message")
        pieces = gr.HighlightedText(
            label="The first row in this template",
            color_map=PIECE_COLORS,
            show_inline_category=False,
            show_legend=True,
            interactive=False,
            elem_id="pieces",
        )
        num_virtual_tokens = gr.Slider(
            1,
            MOST_TOKENS_ON_SLIDER,
            value=8,
            step=1,
            label="Virtual tokens",
            info=texts.ABOUT_VIRTUAL_TOKENS,
            elem_id="num-virtual-tokens",
        )
    return PromptCard(placement, template, message, pieces, num_virtual_tokens)
