"""The Train tab: base model, data, template, tuning, and the card that starts the run."""

from __future__ import annotations

import json
from dataclasses import dataclass

import gradio as gr

from ptune_core.demo import DEMO
from ptune_core.model.catalogue import CATALOGUE
from ptune_core.training.settings import RunSettings
from ptune_core.ui import form, texts
from ptune_core.ui.live import newest_run
from ptune_core.ui.show import EVENT, shown
from ptune_core.ui.train_handlers import MAX_INPUT_COLUMNS, PLACEMENTS, SOURCES, TrainHandlers

FILE_TYPES = [".csv", ".tsv", ".json", ".jsonl", ".parquet", ".xlsx", ".txt"]
MOST_TOKENS_ON_SLIDER = 100
PIECE_COLORS = {"column": "#94a3b8", "virtual tokens": "#6366f1", "target": "#14a085", "special token": "#e8833a"}


@dataclass(frozen=True)
class DataCard:
    """Components of the data card; `columns` are those for the template's inputs, in order, and then the target's."""

    source: gr.Radio
    sources: tuple[gr.Column, ...]
    file: gr.File
    pasted: gr.Textbox
    read_pasted: gr.Button
    reference: gr.Textbox
    read_reference: gr.Button
    token: gr.Textbox
    rows: gr.HTML
    columns: tuple[gr.Dropdown, ...]
    report: gr.Markdown
    answers: gr.Dataframe


@dataclass(frozen=True)
class PromptCard:
    """Components of the template card."""

    placement: gr.Radio
    template: gr.Textbox
    message: gr.Markdown
    pieces: gr.HighlightedText
    num_virtual_tokens: gr.Slider


@dataclass(frozen=True)
class TrainTab:
    """What the page wires to other tabs."""

    data: DataCard
    prompt: PromptCard
    base_model: gr.Dropdown
    settings: dict[str, gr.components.Component]
    start: gr.Button
    message: gr.Markdown
    newest: gr.HTML
    key: gr.Textbox


def build_train() -> TrainTab:
    """Lay the tab out; nothing is wired yet."""
    with gr.Row(elem_classes="columns"):
        with gr.Column(scale=7, min_width=320):
            with gr.Column(elem_classes="card"):
                gr.Markdown("### 1 Base model")
                gr.Markdown(texts.ABOUT_BASE_MODEL, elem_classes="quiet")
                base_model = gr.Dropdown(
                    [(f"{entry.summary} ({entry.id})", entry.id) for entry in CATALOGUE],
                    value=DEMO,
                    allow_custom_value=True,
                    show_label=False,
                    elem_id="base-model",
                )
                of_base_model = {name: form.control(name) for name in form.OF_BASE_MODEL}
            data = _data_card()
            prompt = _prompt_card()
            with gr.Column(elem_classes="card"):
                gr.Markdown("### 4 Tuning")
                settings = of_base_model | _tuning_controls()
        with gr.Column(scale=3, min_width=280, elem_classes="run-card"):
            with gr.Column(elem_classes="card"):
                gr.Markdown("### Run")
                settings["name"] = form.control("name")
                start = gr.Button("Start training", variant="primary", size="lg", elem_id="start")
                message = gr.Markdown("", elem_id="start-message", visible=False)
                newest = newest_run("newest-run")
                gr.Markdown(texts.WHAT_HAPPENS, elem_classes="quiet")
                key = gr.Textbox(visible=False)
    return TrainTab(data, prompt, base_model, settings, start, message, newest, key)


def _data_card() -> DataCard:
    with gr.Column(elem_classes="card"):
        gr.Markdown("### 2 Data")
        source = gr.Radio(SOURCES, value=SOURCES[0], show_label=False, container=False, elem_id="source")
        with gr.Column(visible=False) as upload:
            label = "CSV, TSV, JSON, JSONL, Parquet, XLSX or TXT"
            file = gr.File(label=label, file_types=FILE_TYPES, height=140, elem_id="file")
        with gr.Column(visible=False) as paste:
            pasted = gr.Textbox(
                label="Rows",
                info="With a header line as in CSV, or one text, a tab and its label a line.",
                placeholder="text,label\nI loved it,positive\nIt broke after a day,negative",
                lines=5,
                max_lines=12,
                elem_id="pasted",
            )
            read_pasted = gr.Button("Use these rows", elem_id="read-pasted")
        with gr.Column(visible=False) as hub:
            reference = gr.Textbox(
                label="One file of a Hub data set",
                placeholder="hf://datasets/fancyzhx/ag_news/data/train-00000-of-00001.parquet",
                max_lines=1,
                elem_id="reference",
            )
            read_reference = gr.Button("Fetch", elem_id="read-reference")
        rows = gr.HTML(elem_id="rows")
        with gr.Row(elem_classes="pickers"):
            columns = tuple(
                gr.Dropdown([], label=f"Column {i + 1}", visible=i == 0, elem_id=f"column-{i}", min_width=150)
                for i in range(MAX_INPUT_COLUMNS)
            )
            target = gr.Dropdown([], label="Label column", elem_id="column-target", min_width=150)
        report = gr.Markdown("Reading the example…", elem_id="report")
        answers = gr.Dataframe(
            headers=["label", "answer words"],
            datatype="str",
            interactive=True,
            static_columns=[0],
            visible=False,
            label="What the model answers for each label; the space in front belongs to the word",
            show_label=True,
            max_height=200,
            buttons=[],
            elem_id="answers",
        )
        token = gr.Textbox(visible=False)
    return DataCard(
        source, (upload, paste, hub), file, pasted, read_pasted, reference, read_reference, token, rows,
        (*columns, target), report, answers,
    )  # fmt: skip


def _prompt_card() -> PromptCard:
    default = RunSettings.model_fields["template"].default
    with gr.Column(elem_classes="card"):
        gr.Markdown("### 3 Template")
        placement = gr.Radio(
            list(PLACEMENTS), value=next(iter(PLACEMENTS)), label="Where the virtual tokens stand", elem_id="placement"
        )
        template = gr.Textbox(
            default,
            label="Template",
            info=texts.ABOUT_TEMPLATE,
            lines=1,
            max_lines=8,
            max_length=4000,
            elem_id="template",
        )
        message = gr.Markdown("", visible=False, elem_id="template-message")
        pieces = gr.HighlightedText(
            label="The first row in this template",
            color_map=PIECE_COLORS,
            show_inline_category=False,
            show_legend=True,
            interactive=False,
            elem_id="pieces",
        )
        num_virtual_tokens = gr.Slider(
            1,
            MOST_TOKENS_ON_SLIDER,
            value=8,
            step=1,
            label="Virtual tokens",
            info="More: more capacity, slower, and they need more data. With fewer than 100 rows stay at 8 or below.",
            elem_id="num-virtual-tokens",
        )
    return PromptCard(placement, template, message, pieces, num_virtual_tokens)


def _tuning_controls() -> dict[str, gr.components.Component]:
    controls = {}
    with gr.Row():
        for name in form.MAIN:
            controls[name] = form.control(name)
    with gr.Accordion("Advanced", open=False, elem_id="advanced"), gr.Row(elem_classes="grid"):
        for name in form.advanced():
            controls[name] = form.control(name)
    return controls


def wire_train(tab: TrainTab, handlers: TrainHandlers) -> None:
    """Connect the tab's own controls; `page` connects Start and the first load."""
    data, prompt = tab.data, tab.prompt
    of_data = [data.rows, *data.columns, data.report, data.answers, prompt.pieces]
    asked = [data.token, prompt.template, data.answers, *data.columns]
    of_template = [prompt.message, prompt.num_virtual_tokens, prompt.pieces]
    first_row = [prompt.template, data.token, *data.columns]

    def follow(event: gr.events.Dependency) -> None:
        event.success(shown(handlers.show_data), asked, of_data, **EVENT)

    of_source = [*data.sources, data.token, data.report]
    follow(data.source.input(shown(handlers.show_source), data.source, of_source, **EVENT))
    for ask, read, source in (
        (data.file.upload, handlers.read_file, data.file),
        (data.read_pasted.click, handlers.read_pasted, data.pasted),
        (data.read_reference.click, handlers.read_reference, data.reference),
    ):
        reading = ask(None, None, data.report, js=f"() => {json.dumps(texts.READING)}", **EVENT)
        follow(reading.then(shown(read), source, [data.token, data.report], **EVENT))
    for column in data.columns:
        column.input(shown(handlers.show_data), asked, of_data, **EVENT)

    # `change`, not `input`: gradio 6.31 does not report text that is pasted over a selection as input.
    prompt.template.change(shown(handlers.check_template), first_row, of_template, trigger_mode="always_last", **EVENT)
    prompt.template.blur(shown(handlers.show_data), asked, of_data, **EVENT)
    count = [prompt.num_virtual_tokens, prompt.template]
    prompt.num_virtual_tokens.input(
        shown(handlers.write_count), count, prompt.template, trigger_mode="always_last", **EVENT
    )
    for chooser, choose in ((prompt.placement, handlers.place), (tab.base_model, handlers.suit_model)):
        follow(chooser.input(shown(choose), [chooser, prompt.template], [prompt.template, prompt.placement], **EVENT))
