"""The Runs tab: the list of runs, and one run live."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import gradio as gr

from ptune_core.model.device import BaseWeights
from ptune_core.ui import texts
from ptune_core.ui.live import Answer, live_plot, run_list
from ptune_core.ui.run_view import RunView
from ptune_core.ui.show import inline_problems, inline_warning


@dataclass(frozen=True)
class RunsTab:
    """What the page wires to other tabs."""

    all_runs: gr.HTML
    plot: gr.HTML
    title: gr.Markdown
    problem: gr.Markdown
    detail: gr.Column
    try_it: gr.Button
    download: gr.Button
    stop: gr.Button
    resume: gr.Button
    delete: gr.Button
    copy_settings: gr.Button
    settings: gr.Code

    @property
    def view(self) -> list[gr.blocks.Block]:
        """The components `show_run` fills."""
        return [
            self.all_runs, self.plot, self.detail, self.title, self.problem, self.try_it, self.download, self.stop,
            self.resume, self.delete, self.settings,
        ]  # fmt: skip


def build_runs(poll: Answer, period: int) -> RunsTab:
    """Lay the tab out; nothing is wired yet."""
    with gr.Row(elem_classes="columns"):
        with gr.Column(scale=2, min_width=240):
            all_runs = run_list("run-list")
        with gr.Column(scale=7, min_width=320):
            title = gr.Markdown(texts.CHOOSE_RUN, elem_id="run-title")
            with gr.Column(visible=False, elem_classes="card", elem_id="run-detail") as detail:
                with gr.Row(elem_classes="buttons"):
                    try_it = gr.Button("Try it", variant="primary", size="sm", elem_id="try-it")
                    download = gr.Button("Download adapter", size="sm", elem_id="download-run")
                    stop = gr.Button("Stop and keep the result", size="sm", elem_id="stop")
                    resume = gr.Button("Resume", variant="primary", size="sm", elem_id="resume")
                    delete = gr.Button("Delete", size="sm", elem_id="delete")
                problem = gr.Markdown(visible=False, elem_id="run-problem")
                plot = live_plot(poll, period, "plot")
                with gr.Accordion("Settings of this run", open=False):
                    copy_settings = gr.Button("Copy settings to the form", size="sm", elem_id="copy-settings")
                    settings = gr.Code(language="yaml", show_label=False, interactive=False, elem_id="run-settings")
    return RunsTab(
        all_runs, plot, title, problem, detail, try_it, download, stop, resume, delete, copy_settings, settings
    )


def show_run(view: RunView | None, viewer: str) -> list[Any]:
    """Updates for `RunsTab.view`.

    Args:
        view: The run, or None for none.
        viewer: Whose page this is; the plot's script needs it to ask.
    """
    if view is None:
        hidden = [gr.update(visible=False)] * 5
        return [gr.update(value=""), gr.update(value=""), gr.update(visible=False), texts.CHOOSE_RUN, "", *hidden, ""]
    problem = inline_problems(view.problem, [texts.RESUME]) if view.problem else inline_warning(view.warning)
    return [
        gr.update(value=view.id),
        gr.update(value=view.id, viewer=viewer, state=view.state),
        gr.update(visible=True),
        f"## {texts.plain(view.name)}\n\n{view.headline}",
        gr.update(value=problem, visible=bool(problem)),
        gr.update(visible=view.has_adapter and not view.state.is_active),
        download_button(view),
        gr.update(visible=view.state.is_active),
        gr.update(visible=view.state.can_resume),
        gr.update(visible=not view.state.is_active),
        view.settings,
    ]


def download_button(view: RunView | None) -> Any:
    """A button that is a plain link to the zip, so that the first click already downloads it."""
    if view is None or not view.has_adapter or view.state.is_active:
        return gr.update(visible=False, link=None)
    size = sum(num_bytes for _, num_bytes in view.files)
    value = texts.download(view.base_weights is BaseWeights.TUNED, size)
    return gr.update(visible=True, link=f"adapters/{view.id}.zip", value=value)
