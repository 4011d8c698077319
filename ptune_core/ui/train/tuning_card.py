"""The tuning card of the Train tab: preset, encoder, depth, steps, rate and batch; all else folded away under it."""

from __future__ import annotations

from dataclasses import dataclass

import gradio as gr

from ptune_core.app import form, texts
from ptune_core.training.presets import Preset
from ptune_core.ui.controls import control_of
from ptune_core.ui.train.sweep_card import SweepControls, build_sweep


@dataclass(frozen=True)
class TuningCard:
    """Components of the tuning card.

    Attributes:
        settings: Control of each setting.
        advanced: Holds `groups`; its label says how many settings differ from the defaults.
        groups: Accordion of each heading under Advanced.
    """

    preset: gr.Radio
    settings: dict[str, gr.components.Component]
    advanced: gr.Accordion
    groups: dict[str, gr.Accordion]
    sweep: SweepControls


def build_tuning_card() -> TuningCard:
    """Lay the card out; nothing is wired yet."""
    settings: dict[str, gr.components.Component] = {}
    groups = {}
    with gr.Column(elem_classes="card"):
        gr.Markdown("### 4 Tuning")
        preset = gr.Radio(
            [*Preset, texts.CUSTOM], value=Preset.BALANCED, label="How long", info=texts.ABOUT_PRESETS, elem_id="preset"
        )
        encoder, depth, *numbers = form.MAIN
        for name in (encoder, depth):
            settings[name] = control_of(name)
        with gr.Row():
            for name in numbers:
                settings[name] = control_of(name, min_width=140)
        with gr.Accordion(texts.advanced(0), open=False, elem_id="advanced") as advanced:
            for heading, names in form.groups().items():
                with gr.Accordion(heading, open=False, elem_classes="group") as groups[heading]:
                    with gr.Row(elem_classes="grid"):
                        for name in names:
                            settings[name] = control_of(name, visible=form.is_shown(name, {}))
        sweep = build_sweep()
    return TuningCard(preset, settings, advanced, groups, sweep)
