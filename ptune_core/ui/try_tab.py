"""The Try tab: one text, what the tuned model makes of it, and beside it what the base model alone does."""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import gradio as gr

from ptune_core.errors import PTuneError, SettingsError
from ptune_core.model.device import BaseWeights
from ptune_core.ui import texts
from ptune_core.ui.run_view import RunView
from ptune_core.ui.runs_tab import download_button
from ptune_core.ui.service import Service
from ptune_core.ui.turns import Turns

MAX_INPUTS = 4
MOST_LABELS_SHOWN = 10
NOTHING_NEW = [gr.skip()] * 4
"""Updates for `TryTab.classification` or `generation` that change nothing."""

Answers = Generator[list[Any], None, None]
"""Updates for the page, one list an answer or a part of it."""


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
    working: gr.HTML
    classified: gr.Row
    generated: gr.Row
    base_label: gr.Label
    tuned_label: gr.Label
    note: gr.Markdown
    base_text: gr.Textbox
    tuned_text: gr.Textbox
    download: gr.Button
    changed: gr.Markdown

    @property
    def classification(self) -> list[gr.blocks.Block]:
        """What `TryHandlers.classify` fills."""
        return [self.working, self.base_label, self.tuned_label, self.note]

    @property
    def generation(self) -> list[gr.blocks.Block]:
        """What `TryHandlers.generate` fills."""
        return [self.working, self.stop, self.base_text, self.tuned_text]

    @property
    def view(self) -> list[gr.blocks.Block]:
        """The components `show_adapter` fills."""
        return [
            self.message, self.body, *self.inputs, self.examples, self.classify, self.generate, self.options,
            self.classified, self.generated, self.base_label, self.tuned_label, self.note, self.base_text,
            self.tuned_text, self.download, self.working, self.stop, self.changed,
        ]  # fmt: skip


def build_try() -> TryTab:
    """Lay the tab out; nothing is wired yet."""
    with gr.Column(elem_classes="card"):
        adapter = gr.Dropdown([], label="Adapter", elem_id="try-adapter")
    message = gr.Markdown(texts.NO_ADAPTER, elem_id="try-message")
    with gr.Column(visible=False, elem_id="try-body") as body:
        changed = gr.Markdown(elem_id="try-changed", elem_classes="quiet")
        with gr.Column(elem_classes="card"):
            inputs = tuple(
                gr.Textbox(label=f"Column {i + 1}", lines=2, max_lines=12, visible=i == 0, elem_id=f"try-input-{i}")
                for i in range(MAX_INPUTS)
            )
            examples = gr.Dataset(components=[inputs[0]], samples=[], label="From the data", elem_id="try-examples")
            with gr.Accordion("Length and temperature", open=False, visible=False) as options, gr.Row():
                max_new_tokens = gr.Slider(1, 256, value=48, step=1, label="New tokens at most")
                temperature = gr.Slider(
                    0.0, 2.0, value=0.0, step=0.1, label="Temperature", info=texts.ABOUT_TEMPERATURE
                )
                seed = gr.Number(0, precision=0, minimum=0, maximum=2**31 - 1, label="Seed", info=texts.ABOUT_SEED)
            with gr.Row(elem_classes="buttons"):
                classify = gr.Button("Classify", variant="primary", elem_id="classify")
                generate = gr.Button("Generate", variant="primary", visible=False, elem_id="generate")
                stop = gr.Button("Stop", visible=False, elem_id="try-stop")
            working = gr.HTML(elem_id="try-working")
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
        working, classified, generated, base_label, tuned_label, note, base_text, tuned_text, download, changed,
    )  # fmt: skip


def show_adapter(view: RunView | None) -> list[Any]:
    """Updates for `TryTab.view`."""
    changed = "" if view is None else view.changed
    idle = ["", gr.update(visible=False), gr.update(value=changed, visible=bool(changed))]
    if view is None or not view.has_adapter:
        unchanged = [gr.skip()] * (MAX_INPUTS + 11)
        return [gr.update(visible=True), gr.update(visible=False), *unchanged, download_button(None), *idle]
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
        _completion(view) if is_text else "",
        "",
        "",
        download_button(view),
        *idle,
    ]


def _completion(view: RunView) -> str:
    return texts.COMPLETION if view.base_weights is BaseWeights.FROZEN else texts.COMPLETION_TUNED


class TryHandlers:
    """Handlers over one service. A page's older request is not answered once it has made a newer one."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._turns = Turns()

    def classify(self, page: str, viewer: str, run_id: str, *boxes: str) -> Iterator[list[Any]]:
        """Updates for `TryTab.classification`: the probabilities of both models, and a note."""
        return self._in_turn(page, self._classified(viewer, run_id, boxes))

    def generate(
        self, page: str, viewer: str, run_id: str, options: Mapping[str, Any], boxes: Sequence[str]
    ) -> Iterator[list[Any]]:
        """Updates for `TryTab.generation`: the texts of both models, growing."""
        return self._in_turn(page, self._generated(viewer, run_id, options, boxes))

    def _in_turn(self, page: str, answers: Answers) -> Answers:
        turn = self._turns.take(page)
        try:
            for answer in answers:
                if not self._turns.is_newest(page, turn):
                    break
                yield answer
        except PTuneError:
            if self._turns.is_newest(page, turn):
                raise
        finally:
            answers.close()
            given_up = not self._turns.end(page, turn)
        if given_up:
            yield NOTHING_NEW  # without any answer gradio empties the outputs, the newer answer's too

    def _classified(self, viewer: str, run_id: str, boxes: Sequence[str]) -> Answers:
        found = self._service.classify(run_id, viewer, self._values(viewer, run_id, boxes))
        tuned = dict(zip(found["labels"], found["tuned"][0], strict=True))
        if found["base"] is None:
            yield ["", gr.update(value=None, visible=False), tuned, found["note"] or texts.NO_BASE]
        else:
            base = dict(zip(found["labels"], found["base"][0], strict=True))
            yield ["", gr.update(value=base, visible=True), tuned, found["note"]]

    def _generated(self, viewer: str, run_id: str, options: Mapping[str, Any], boxes: Sequence[str]) -> Answers:
        values = self._values(viewer, run_id, boxes)
        with contextlib.closing(self._service.generate(run_id, viewer, values, **options)) as parts:
            for part in parts:
                yield [gr.skip(), gr.skip(), part["base"] or "", part["tuned"]]
        yield ["", gr.update(visible=False), gr.skip(), gr.skip()]

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
