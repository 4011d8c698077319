"""The Export tab: what is in an adapter, the zip, code that uses it, other forms, and the Hub."""

from __future__ import annotations

import html
from dataclasses import dataclass

import gradio as gr

from ptune_core.app import texts
from ptune_core.app.adapter_view import AdapterView, Origin, without_front_matter
from ptune_core.app.texts import trying
from ptune_core.ui.bringing import BringBox, build_bring, show_usage
from ptune_core.ui.show import Updates, table
from ptune_core.ui.try_.tab import download_link


@dataclass(frozen=True)
class HubBox:
    """Components for a push to the Hub."""

    box: gr.Accordion
    name: gr.Textbox
    token: gr.Textbox
    private: gr.Checkbox
    push: gr.Button
    said: gr.HTML


@dataclass(frozen=True)
class FormsBox:
    """Components for other forms of an adapter."""

    box: gr.Accordion
    form: gr.Radio
    make: gr.Button
    said: gr.HTML
    download: gr.DownloadButton


@dataclass(frozen=True)
class ExportTab:
    """What the page wires."""

    adapter: gr.Dropdown
    bring: BringBox
    message: gr.Markdown
    body: gr.Column
    files: gr.HTML
    download: gr.Button
    downloads: gr.HTML
    remove: gr.Button
    snippet: gr.Code
    card: gr.Markdown
    hub: HubBox
    forms: FormsBox

    @property
    def shows(self) -> list[gr.blocks.Block]:
        """What `show_export` gives something to."""
        return [*show_export(self, None), self.hub.name]


def build_export(*, shared: bool) -> ExportTab:
    """Lay the tab out; nothing is wired yet.

    Args:
        shared: Whether strangers share the page; a token of this machine is then no option.
    """
    with gr.Column(elem_classes="card"):
        adapter = gr.Dropdown([], label="Adapter", elem_id="export-adapter")
        bring = build_bring("export")
    message = gr.Markdown(texts.NO_ADAPTER, elem_id="export-message")
    with gr.Column(visible=False, elem_id="export-body") as body:
        with gr.Row(elem_classes="columns"):
            with gr.Column(scale=3, min_width=280):
                with gr.Column(elem_classes="card"):
                    gr.Markdown("### Files")
                    files = gr.HTML(elem_id="export-files")
                    download = gr.Button("Download adapter", variant="primary", elem_id="download-export")
                    downloads = gr.HTML(elem_id="export-downloads", elem_classes="if-said")
                    remove = gr.Button("Remove from this page", size="sm", visible=False, elem_id="export-remove")
                hub = _build_hub(shared=shared)
                forms = _build_forms()
            with gr.Column(scale=5, min_width=320):
                with gr.Column(elem_classes="card"):
                    gr.Markdown("### Use it in Python")
                    snippet = gr.Code(
                        language="python", show_label=False, interactive=False, wrap_lines=True, max_lines=24,
                        elem_id="snippet",
                    )  # fmt: skip
                with gr.Accordion("Model card", open=False, elem_classes="card"):
                    card = gr.Markdown(elem_id="model-card", max_height=520)
    return ExportTab(
        adapter=adapter, bring=bring, message=message, body=body, files=files, download=download,
        downloads=downloads, remove=remove, snippet=snippet, card=card, hub=hub, forms=forms,
    )  # fmt: skip


def _build_hub(*, shared: bool) -> HubBox:
    with gr.Accordion("Push to the Hugging Face Hub", open=False, elem_id="hub", elem_classes="card") as box:
        name = gr.Textbox(
            label="Repository", info=trying.ABOUT_REPOSITORY, max_lines=1, max_length=200,
            elem_id="hub-name",
        )  # fmt: skip
        token = gr.Textbox(
            label="Token", info=trying.HUB_TOKEN if shared else trying.HUB_TOKEN_HERE, type="password", max_lines=1,
            max_length=200, elem_id="hub-token",
        )  # fmt: skip
        private = gr.Checkbox(True, label="Private: only your account sees it", elem_id="hub-private", container=False)
        with gr.Row(elem_classes="buttons"):
            push = gr.Button("Push", elem_id="hub-push")
        said = gr.HTML(elem_id="hub-said", elem_classes="if-said")
    return HubBox(box, name, token, private, push, said)


def _build_forms() -> FormsBox:
    with gr.Accordion("Other forms", open=False, elem_id="forms", elem_classes="card") as box:
        options = [(text, form) for form, text in trying.FORMS.items()]
        form = gr.Radio(options, value=options[0][1], show_label=False, container=False, elem_id="form")
        with gr.Row(elem_classes="buttons"):
            make = gr.Button("Convert", elem_id="form-make")
            download = gr.DownloadButton("Download", visible=False, elem_id="form-download")
        said = gr.HTML(elem_id="form-said", elem_classes="if-said")
    return FormsBox(box, form, make, said, download)


def show_export(tab: ExportTab, view: AdapterView | None) -> Updates:
    """One adapter in the tab."""
    hidden = gr.update(visible=False)
    nothing_made: Updates = {tab.hub.said: "", tab.forms.said: "", tab.forms.download: hidden}
    if view is None or view.origin is Origin.NEWEST:
        said = texts.NO_ADAPTER if view is None else trying.NOT_HERE_YET
        return {
            tab.message: gr.update(visible=True, value=said),
            tab.download: download_link(None),
            **dict.fromkeys((tab.body, tab.remove, tab.forms.box), hidden),
            **dict.fromkeys((tab.files, tab.downloads, tab.snippet, tab.card), ""),
            **nothing_made,
            **show_usage(tab.bring, None),
        }
    return {
        tab.message: hidden,
        tab.body: gr.update(visible=True),
        tab.files: table(["File", "Size"], [[name, texts.size(num_bytes)] for name, num_bytes in view.files]),
        tab.download: download_link(view),
        tab.downloads: _links(view),
        tab.remove: gr.update(visible=view.origin is Origin.IMPORTED),
        tab.snippet: view.snippet,
        tab.card: _card(view),
        tab.hub.name: texts.file_name(view.name).lower(),
        tab.forms.box: gr.update(visible=True),
        **nothing_made,
        **show_usage(tab.bring, view),
    }


def _links(view: AdapterView) -> str:
    items = "".join(
        f'<li><a href="{html.escape(link)}" download>{html.escape(name)}</a></li>' for name, link in view.downloads
    )
    return f'<ul class="links">{items}</ul>' if items else ""


def _card(view: AdapterView) -> str:
    # The card is ours and escapes what it was told; an image would still be fetched from wherever it says.
    return without_front_matter(view.card).replace("![", "!\\[")
