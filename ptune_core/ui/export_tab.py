"""The Export tab: what is in an adapter, the zip, and code that uses it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import gradio as gr

from ptune_core.ui import texts
from ptune_core.ui.run_view import RunView
from ptune_core.ui.runs_tab import download_button
from ptune_core.ui.show import table


@dataclass(frozen=True)
class ExportTab:
    """What the page wires."""

    adapter: gr.Dropdown
    message: gr.Markdown
    body: gr.Column
    files: gr.HTML
    download: gr.Button
    snippet: gr.Code

    @property
    def view(self) -> list[gr.blocks.Block]:
        """The components `show_export` fills."""
        return [self.message, self.body, self.files, self.download, self.snippet]


def build_export() -> ExportTab:
    """Lay the tab out; nothing is wired yet."""
    with gr.Column(elem_classes="card"):
        adapter = gr.Dropdown([], label="Adapter", elem_id="export-adapter")
    message = gr.Markdown(texts.NO_ADAPTER, elem_id="export-message")
    with gr.Column(visible=False, elem_id="export-body") as body:
        with gr.Row(elem_classes="columns"):
            with gr.Column(scale=3, min_width=280, elem_classes="card"):
                gr.Markdown("### Files")
                files = gr.HTML(elem_id="export-files")
                download = gr.Button("Download adapter", variant="primary", elem_id="download-export")
            with gr.Column(scale=5, min_width=320, elem_classes="card"):
                gr.Markdown("### Use it in Python")
                snippet = gr.Code(language="python", show_label=False, interactive=False, elem_id="snippet")
    return ExportTab(adapter, message, body, files, download, snippet)


def show_export(view: RunView | None) -> list[Any]:
    """Updates for `ExportTab.view`."""
    if view is None or not view.has_adapter:
        return [gr.update(visible=True), gr.update(visible=False), "", download_button(None), ""]
    files = table(["File", "Size"], [[name, texts.size(num_bytes)] for name, num_bytes in view.files])
    return [gr.update(visible=False), gr.update(visible=True), files, download_button(view), view.snippet]
