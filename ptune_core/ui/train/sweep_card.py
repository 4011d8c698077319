"""The sweep's controls: several values of a few settings, trained and ranked in one run."""

from __future__ import annotations

from dataclasses import dataclass

import gradio as gr

from ptune_core.app import texts
from ptune_core.app.sweep_form import ENCODER, RATE, SEED, TOKENS
from ptune_core.prompt.kinds import EncoderKind
from ptune_core.ui.controls import control_of


@dataclass(frozen=True)
class SweepControls:
    """Controls of the sweep by what they vary, and what it comes to."""

    values: dict[str, gr.components.Component]
    halving: gr.components.Component
    count: gr.Markdown
    accordion: gr.Accordion


def build_sweep() -> SweepControls:
    """Lay the controls out; nothing is wired yet."""
    with gr.Accordion("Sweep", open=False, elem_id="sweep") as accordion:
        gr.Markdown(texts.ABOUT_SWEEP, elem_classes="quiet")
        kinds = [(texts.choice(ENCODER, kind), str(kind)) for kind in EncoderKind]
        values: dict[str, gr.components.Component] = {
            ENCODER: gr.CheckboxGroup(kinds, label=texts.label(ENCODER), elem_id="sweep-encoder")
        }
        with gr.Row():
            for name, choices in ((TOKENS, [2, 4, 8, 16, 32]), (RATE, [0.001, 0.003, 0.01, 0.03]), (SEED, [0, 1, 2])):
                values[name] = gr.Dropdown(
                    [str(choice) for choice in choices], multiselect=True, allow_custom_value=True,
                    label=texts.label(name), elem_id=f"sweep-{name}", min_width=150,
                )  # fmt: skip
        halving = control_of("halving")
        count = gr.Markdown("", elem_id="sweep-count")
    return SweepControls(values, halving, count, accordion)
