"""The Try tab: one text, what the tuned model makes of it, and beside it what the base model alone does."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import gradio as gr

from ptune_core.app import texts
from ptune_core.app.adapter_view import AdapterView, Origin
from ptune_core.app.texts import trying
from ptune_core.model.device import BaseWeights
from ptune_core.ui.bringing import BringBox, build_bring, show_usage
from ptune_core.ui.show import Updates
from ptune_core.ui.try_.batch_box import BatchBox, build_batch

MAX_INPUTS = 4
MOST_CHARACTERS = 20_000
NOTHING_SEEN = f'<p class="quiet">{trying.NOTHING_SEEN}</p>'


@dataclass(frozen=True)
class TryTab:
    """What the page wires; `inputs` are the boxes for the template's columns, in order.

    Attributes:
        continued: What a model that writes on makes of a text.
        turns: What was said so far in a conversation, as JSON.
    """

    adapter: gr.Dropdown
    bring: BringBox
    message: gr.Markdown
    body: gr.Column
    about: gr.Markdown
    compare: gr.Checkbox
    inputs: tuple[gr.Textbox, ...]
    examples: gr.Dataset
    classify: gr.Button
    generate: gr.Button
    stop: gr.Button
    forget: gr.Button
    options: gr.Accordion
    max_new_tokens: gr.Slider
    temperature: gr.Slider
    seed: gr.Number
    working: gr.HTML
    problem: gr.HTML
    base: gr.HTML
    tuned: gr.HTML
    note: gr.Markdown
    continued: gr.Markdown
    sight: gr.Accordion
    seen: gr.HTML
    turns: gr.Textbox
    batch: BatchBox
    download: gr.Button

    @property
    def answer(self) -> dict[str, gr.blocks.Block]:
        """What `TryHandlers` fills, by the names it uses."""
        named = ("working", "stop", "problem", "base", "tuned", "note", "seen", "turns", "forget")
        found: dict[str, gr.blocks.Block] = {name: getattr(self, name) for name in named}
        return found | {"input": self.inputs[0]}

    @property
    def shows(self) -> list[gr.blocks.Block]:
        """What `show_adapter` gives something to."""
        boxes = [*self.inputs, self.examples, self.classify, self.generate, self.options]
        return [*show_adapter(self, None), *boxes]

    @property
    def nothing_asked(self) -> dict[gr.blocks.Block, str]:
        """Everything of an answer, with what stands there without one, as scripts write it."""
        hidden = "{__type__: 'update', visible: false}"
        said: tuple[gr.blocks.Block, ...] = (self.base, self.tuned, self.note, self.problem, self.batch.said)
        shown: tuple[gr.blocks.Block, ...] = (self.forget, self.batch.download)
        kept: dict[gr.blocks.Block, str] = {self.seen: json.dumps(NOTHING_SEEN), self.turns: "'[]'"}
        return {**dict.fromkeys(said, "''"), **kept, **dict.fromkeys(shown, hidden)}


def build_try() -> TryTab:
    """Lay the tab out; nothing is wired yet."""
    with gr.Column(elem_classes="card"):
        with gr.Row(elem_classes="chooser"):
            adapter = gr.Dropdown([], label="Adapter", elem_id="try-adapter", scale=5)
        about = gr.Markdown("", elem_classes="quiet", elem_id="try-about")
        bring = build_bring("try")
    message = gr.Markdown(texts.NO_ADAPTER, elem_id="try-message")
    with gr.Column(visible=False, elem_id="try-body") as body:
        with gr.Column(elem_classes="card"):
            inputs = tuple(
                gr.Textbox(
                    label=f"Column {i + 1}", lines=2, max_lines=12, visible=i == 0, elem_id=f"try-input-{i}",
                    max_length=MOST_CHARACTERS, placeholder=trying.HOW_TO_SEND,
                )
                for i in range(MAX_INPUTS)
            )  # fmt: skip
            examples = gr.Dataset(components=[inputs[0]], samples=[], label="From the data", elem_id="try-examples")
            options, max_new_tokens, temperature, seed = _build_options()
            with gr.Row(elem_classes="buttons"):
                classify = gr.Button("Classify", variant="primary", elem_id="classify")
                generate = gr.Button("Generate", variant="primary", visible=False, elem_id="generate")
                stop = gr.Button("Stop", visible=False, elem_id="try-stop")
                forget = gr.Button("New conversation", visible=False, elem_id="try-forget")
                compare = gr.Checkbox(True, label="Compare with the base model", elem_id="compare", container=False)
            working = gr.HTML(elem_id="try-working", elem_classes="if-said")
            problem = gr.HTML(elem_id="try-problem", elem_classes="if-said")
        with gr.Row(elem_classes="compare"):
            base = gr.HTML(elem_id="base-answer", elem_classes="pane")
            tuned = gr.HTML(elem_id="tuned-answer", elem_classes="pane")
        note = gr.Markdown("", elem_classes="quiet if-said", elem_id="try-note")
        continued = gr.Markdown("", elem_classes="quiet if-said", elem_id="try-continued")
        with gr.Accordion("What the model sees", open=False, elem_id="try-sight", elem_classes="card") as sight:
            seen = gr.HTML(NOTHING_SEEN, elem_id="try-seen")
        batch = build_batch()
        with gr.Row(elem_classes="buttons"):
            download = gr.Button("Download adapter", elem_id="download")
        turns = gr.Textbox("[]", visible=False)
    return TryTab(
        adapter=adapter, bring=bring, message=message, body=body, about=about, compare=compare, inputs=inputs,
        examples=examples, classify=classify, generate=generate, stop=stop, forget=forget, options=options,
        max_new_tokens=max_new_tokens, temperature=temperature, seed=seed, working=working, problem=problem,
        base=base, tuned=tuned, note=note, continued=continued, sight=sight, seen=seen, turns=turns,
        batch=batch, download=download,
    )  # fmt: skip


def _build_options() -> tuple[gr.Accordion, gr.Slider, gr.Slider, gr.Number]:
    with gr.Accordion("Length and temperature", open=False, visible=False) as options, gr.Row():
        max_new_tokens = gr.Slider(1, 256, value=48, step=1, label="New tokens at most", info=trying.ABOUT_NEW_TOKENS)
        temperature = gr.Slider(
            0.0, 2.0, value=0.0, step=0.1, label="Temperature",
            info=trying.ABOUT_TEMPERATURE,
        )  # fmt: skip
        seed = gr.Number(0, precision=0, minimum=0, maximum=2**31 - 1, label="Seed", info=trying.ABOUT_SEED)
    return options, max_new_tokens, temperature, seed


def show_adapter(tab: TryTab, view: AdapterView | None) -> Updates:
    """One adapter in the tab. What was typed and answered stays: it may be shown again when it has answered."""
    shown, hidden = gr.update(visible=True), gr.update(visible=False)
    if view is None:
        return {
            tab.message: shown, tab.body: hidden, tab.about: "", tab.continued: "", tab.batch.box: hidden,
            tab.download: download_link(None), **show_usage(tab.bring, None),
        }  # fmt: skip
    is_text = not view.labels
    boxes: Updates = {
        box: gr.update(visible=True, label=_box_label(view, view.columns[i])) if i < len(view.columns) else hidden
        for i, box in enumerate(tab.inputs)
    }
    return {
        tab.message: hidden,
        tab.body: shown,
        tab.about: " · ".join(filter(None, [texts.plain(view.about), view.proof])),
        **boxes,
        tab.examples: _examples(view),
        tab.classify: hidden if is_text else shown,
        tab.generate: gr.update(visible=is_text, value="Send" if view.is_chat else "Generate"),
        tab.options: shown if is_text else hidden,
        tab.continued: _continued(view) if is_text else "",
        tab.batch.box: hidden if is_text else shown,
        tab.download: download_link(view),
        **show_usage(tab.bring, view),
    }


def _examples(view: AdapterView) -> Any:
    samples = [[row[column] for column in view.columns[:1]] for row in view.examples]
    return gr.update(samples=samples, visible=bool(samples))


def _box_label(view: AdapterView, column: str) -> str:
    return "Message" if view.is_chat and len(view.columns) == 1 else column.replace("_", " ").capitalize()


def _continued(view: AdapterView) -> str:
    if view.is_chat:
        return trying.CHAT
    tuned = "" if view.base_weights is BaseWeights.FROZEN else f" {trying.TUNED_BESIDE}"
    return f"{trying.COMPLETION_MODEL}{tuned}"


def download_link(view: AdapterView | None) -> Any:
    """A button that is a plain link to the zip, so that the first click already downloads it."""
    if view is None or view.origin is Origin.NEWEST:
        return gr.update(visible=False, link=None)
    value = texts.download(view.base_weights is BaseWeights.TUNED, view.zip_bytes)
    return gr.update(visible=True, link=f"adapters/{view.id}.zip", value=value)


def updates(components: Mapping[str, gr.blocks.Block], values: Mapping[str, Any]) -> Updates:
    """`values` by name, for the components of these names; with none of them, what changes nothing."""
    assert values.keys() <= components.keys()
    return {components[name]: value for name, value in values.items()} or {next(iter(components.values())): gr.skip()}
