"""The template card of the Train tab: where everything stands, what the model reads of a row, and the answer words."""

from __future__ import annotations

from dataclasses import dataclass

import gradio as gr

from ptune_core.app import texts
from ptune_core.training.settings import RunSettings
from ptune_core.ui.live.components import Answer
from ptune_core.ui.live.template_parts import template_preview
from ptune_core.ui.train.handlers import PLACEMENTS

MOST_TOKENS_ON_SLIDER = 100


@dataclass(frozen=True)
class PromptCard:
    """Components of the template card."""

    placement: gr.Radio
    template: gr.Textbox
    message: gr.Markdown
    preview: gr.HTML
    num_virtual_tokens: gr.Slider


def build_prompt_card(look: Answer, answers: gr.HTML) -> PromptCard:
    """Lay the card out.

    Args:
        look: Answers the preview's questions, see `template_preview`.
        answers: The table of answer words, which is drawn here.
    """
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
        preview = template_preview(look, "preview")
        answers.render()
        num_virtual_tokens = gr.Slider(
            1,
            MOST_TOKENS_ON_SLIDER,
            value=8,
            step=1,
            label="Virtual tokens",
            info=texts.ABOUT_VIRTUAL_TOKENS,
            elem_id="num-virtual-tokens",
        )
    return PromptCard(placement, template, message, preview, num_virtual_tokens)
