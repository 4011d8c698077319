"""The Try tab: one text, what the tuned model makes of it, and beside it what the base model alone does."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import gradio as gr

from ptune_core.errors import SettingsError
from ptune_core.ui import texts
from ptune_core.ui.runs_tab import download_button
from ptune_core.ui.service import RunView, Service

MAX_INPUTS = 4
MOST_LABELS_SHOWN = 10
_NO_BASE = "The base model has no answer of its own here: its classification head is part of the adapter."


@dataclass(frozen=True)
class TryTab:
    """What the page wires; `inputs` are the boxes for the template's columns, in order."""

    adapter: gr.Dropdown
    message: gr.Markdown
    body: gr.Column
    inputs: tuple[gr.Textbox, ...]
    examples: gr.Dataset
    classify: gr.Button
    generate: gr.Button
    stop: gr.Button
    options: gr.Accordion
    max_new_tokens: gr.Slider
    temperature: gr.Slider
    seed: gr.Number
    classified: gr.Row
    generated: gr.Row
    base_label: gr.Label
    tuned_label: gr.Label
    note: gr.Markdown
    base_text: gr.Textbox
    tuned_text: gr.Textbox
    download: gr.Button

    @property
    def view(self) -> list[gr.blocks.Block]:
        """The components `show_adapter` fills."""
        return [
            self.message, self.body, *self.inputs, self.examples, self.classify, self.generate, self.options,
            self.classified, self.generated, self.base_label, self.tuned_label, self.note, self.base_text,
            self.tuned_text, self.download,
        ]  # fmt: skip


def build_try() -> TryTab:
    """Lay the tab out; nothing is wired yet."""
    with gr.Column(elem_classes="card"):
        adapter = gr.Dropdown([], label="Adapter", elem_id="try-adapter")
    message = gr.Markdown(texts.NO_ADAPTER, elem_id="try-message")
    with gr.Column(visible=False, elem_id="try-body") as body:
        with gr.Column(elem_classes="card"):
            inputs = tuple(
                gr.Textbox(label=f"Column {i + 1}", lines=2, max_lines=12, visible=i == 0, elem_id=f"try-input-{i}")
                for i in range(MAX_INPUTS)
            )
            examples = gr.Dataset(components=[inputs[0]], samples=[], label="From the data", elem_id="try-examples")
            with gr.Accordion("Length and temperature", open=False, visible=False) as options, gr.Row():
                max_new_tokens = gr.Slider(1, 256, value=48, step=1, label="New tokens at most")
                temperature = gr.Slider(
                    0.0, 2.0, value=0.0, step=0.1, label="Temperature", info="0 always takes the likeliest token."
                )
                seed = gr.Number(0, precision=0, minimum=0, maximum=2**31 - 1, label="Seed", info="The same for both.")
            with gr.Row(elem_classes="buttons"):
                classify = gr.Button("Classify", variant="primary", elem_id="classify")
                generate = gr.Button("Generate", variant="primary", visible=False, elem_id="generate")
                stop = gr.Button("Stop", visible=False, elem_id="generate-stop")
        with gr.Row(elem_classes="compare") as classified:
            base_label = gr.Label(label="Base model alone", num_top_classes=MOST_LABELS_SHOWN, elem_id="base-label")
            tuned_label = gr.Label(label="Tuned model", num_top_classes=MOST_LABELS_SHOWN, elem_id="tuned-label")
        with gr.Row(visible=False, elem_classes="compare") as generated:
            pane: dict[str, Any] = {"lines": 6, "max_lines": 20, "interactive": False}
            base_text = gr.Textbox(label="Base model alone", elem_id="base-text", **pane)
            tuned_text = gr.Textbox(label="Tuned model", elem_id="tuned-text", **pane)
        note = gr.Markdown("", elem_classes="quiet", elem_id="try-note")
        with gr.Row(elem_classes="buttons"):
            download = gr.Button("Download adapter", elem_id="download")
    return TryTab(
        adapter, message, body, inputs, examples, classify, generate, stop, options, max_new_tokens, temperature, seed,
        classified, generated, base_label, tuned_label, note, base_text, tuned_text, download,
    )  # fmt: skip


def show_adapter(view: RunView | None) -> list[Any]:
    """Updates for `TryTab.view`."""
    if view is None or not view.has_adapter:
        unchanged = [gr.skip()] * (MAX_INPUTS + 11)
        return [gr.update(visible=True), gr.update(visible=False), *unchanged, download_button(None)]
    is_text = not view.labels
    boxes = [
        gr.update(visible=True, label=view.columns[i].replace("_", " ").capitalize())
        if i < len(view.columns)
        else gr.update(visible=False)
        for i in range(MAX_INPUTS)
    ]
    samples = [[row[column] for column in view.columns[:1]] for row in view.examples]
    return [
        gr.update(visible=False),
        gr.update(visible=True),
        *boxes,
        gr.update(samples=samples),
        gr.update(visible=not is_text),
        gr.update(visible=is_text),
        gr.update(visible=is_text),
        gr.update(visible=not is_text),
        gr.update(visible=is_text),
        None,
        None,
        texts.COMPLETION if is_text else "",
        "",
        "",
        download_button(view),
    ]


class TryHandlers:
    """Handlers over one service."""

    def __init__(self, service: Service) -> None:
        self._service = service

    def classify(self, viewer: str, run_id: str, *boxes: str) -> tuple[Any, Any, str]:
        """Probabilities for the base model and for the tuned one, and a note."""
        values = self._values(viewer, run_id, boxes)
        found = self._service.classify(run_id, viewer, values)
        base = found["base"]
        tuned = dict(zip(found["labels"], found["tuned"][0], strict=True))
        if base is None:
            return gr.update(value=None, visible=False), tuned, found["note"] or _NO_BASE
        return gr.update(value=dict(zip(found["labels"], base[0], strict=True)), visible=True), tuned, found["note"]

    def generate(
        self, viewer: str, run_id: str, options: Mapping[str, Any], boxes: Sequence[str]
    ) -> Iterator[tuple[str, str]]:
        """The texts of the base model and of the tuned one, growing."""
        values = self._values(viewer, run_id, boxes)
        for part in self._service.generate(run_id, viewer, values, **options):
            yield part["base"] or "", part["tuned"]

    def fill(self, viewer: str, run_id: str, index: int) -> list[Any]:
        """One of the data's rows, for the boxes."""
        view = self._service.view(run_id, viewer)
        row = view.examples[index]
        values = [row[column] for column in view.columns[:MAX_INPUTS]]
        return [*values, *[gr.skip()] * (MAX_INPUTS - len(values))]

    def _values(self, viewer: str, run_id: str, boxes: Sequence[str]) -> dict[str, str]:
        columns = self._service.view(run_id, viewer).columns
        if len(columns) > len(boxes):
            raise SettingsError(
                "This template has more columns than the page has boxes",
                got=str(len(columns)),
                needed=f"at most {len(boxes)}",
                remedy="Use `python -m ptune_core classify`",
            )
        values = dict(zip(columns, boxes, strict=False))
        if not any(text.strip() for text in values.values()):
            raise SettingsError("There is no text yet", remedy="Type one, or choose one from the data")
        return values
