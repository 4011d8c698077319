"""The tuning card of the Train tab: prompt encoder, steps, and everything under Advanced."""

from __future__ import annotations

import gradio as gr

from ptune_core.ui import form


def build_tuning_controls() -> dict[str, gr.components.Component]:
    controls = {}
    with gr.Row():
        for name in form.MAIN:
            controls[name] = form.control(name)
    with gr.Accordion("Advanced", open=False, elem_id="advanced"), gr.Row(elem_classes="grid"):
        for name in form.advanced():
            controls[name] = form.control(name)
    return controls
