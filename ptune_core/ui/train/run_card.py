"""The Run card of the Train tab: what was checked, what it will take, Start, the settings as a file and a command."""

from __future__ import annotations

from dataclasses import dataclass

import gradio as gr

from ptune_core.app import texts
from ptune_core.ui.controls import control_of
from ptune_core.ui.live.components import newest_run, own_component

QUIET_SECONDS = 3.0
"""After the last change, until what suits the labels is measured by itself."""


@dataclass(frozen=True)
class RunCard:
    """Components of the Run card.

    Attributes:
        measured: Time and memory, or how the measuring goes.
        timer: Ticks while something is measured.
        quiet: Ticks once when something could be measured by itself.
        reason: Why Start cannot be pressed.
        message: What came of pressing it.
        key: Of the next press of Start.
        files: Holds what is below it.
        file: Text of the settings file that Save hands to the browser, and its name.
    """

    name: gr.components.Component
    checks: gr.HTML
    measured: gr.HTML
    measure: gr.Button
    cancel: gr.Button
    timer: gr.Timer
    quiet: gr.Timer
    start: gr.Button
    reason: gr.HTML
    message: gr.Markdown
    newest: gr.HTML
    key: gr.Textbox
    save: gr.Button
    files: gr.Accordion
    load: gr.UploadButton
    loaded: gr.HTML
    file: gr.JSON
    command: gr.Code


def build_run_card() -> RunCard:
    """Lay the card out; nothing is wired yet."""
    with gr.Column(elem_classes="card"):
        gr.Markdown("### Run")
        name = control_of("name")
        checks = checks_list("checks")
        with gr.Column(elem_classes="measure"):
            measured = gr.HTML(f'<p class="quiet">{texts.ABOUT_MEASURE}</p>', elem_id="measured")
            with gr.Row(elem_classes="buttons"):
                measure = gr.Button(texts.MEASURE, size="sm", elem_id="measure")
                cancel = gr.Button("Cancel", size="sm", visible=False, elem_id="cancel-measure")
            timer = gr.Timer(1.0, active=False)
            quiet = gr.Timer(QUIET_SECONDS, active=False)
        with gr.Column(elem_classes="start-bar"):
            start = gr.Button(texts.START, variant="primary", size="lg", elem_id="start")
            reason = gr.HTML("", visible=False, elem_id="start-reason")
        message = gr.Markdown("", elem_id="start-message", visible=False)
        newest = newest_run("newest-run")
        gr.Markdown(texts.WHAT_HAPPENS, elem_classes="quiet")
        with gr.Accordion("Settings file and command", open=False, elem_id="settings-file") as files:
            with gr.Row(elem_classes="buttons"):
                save = gr.Button("Save settings", size="sm", elem_id="save-settings")
                load = gr.UploadButton(
                    "Load settings", file_types=[".yaml", ".yml"], size="sm", elem_id="load-settings"
                )
            loaded = gr.HTML("", visible=False, elem_id="loaded-settings")
            command = gr.Code(
                "", language="shell", label="The same run in a terminal", interactive=False, buttons=["copy"],
                wrap_lines=True, elem_id="command",
            )  # fmt: skip
        file = gr.JSON(visible=False)
        key = gr.Textbox(visible=False)
    return RunCard(
        name=name, checks=checks, measured=measured, measure=measure, cancel=cancel, timer=timer, quiet=quiet,
        start=start, reason=reason, message=message, newest=newest, key=key, save=save, files=files,
        load=load, loaded=loaded, file=file, command=command,
    )  # fmt: skip


def checks_list(elem_id: str) -> gr.HTML:
    """What was checked; the value is a list of `{key, level, text, fix}`. Events: `fix`, carrying `check`; `queue`."""
    return own_component("checks", elem_id, "checks")
