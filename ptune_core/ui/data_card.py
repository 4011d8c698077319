"""The data card of the Train tab: where the rows come from, who reads which column, and what the rows give."""

from __future__ import annotations

from dataclasses import dataclass

import gradio as gr

from ptune_core.ui import texts
from ptune_core.ui.train_handlers import MAX_INPUT_COLUMNS, SOURCES

FILE_TYPES = [".csv", ".tsv", ".json", ".jsonl", ".parquet", ".xlsx", ".txt"]


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


def build_data_card() -> DataCard:
    with gr.Column(elem_classes="card"):
        gr.Markdown("### 2 Data")
        source = gr.Radio(SOURCES, value=SOURCES[0], show_label=False, container=False, elem_id="source")
        with gr.Column(visible=False) as upload:
            label = "CSV, TSV, JSON, JSONL, Parquet, XLSX or TXT"
            file = gr.File(label=label, file_types=FILE_TYPES, height=140, elem_id="file")
        with gr.Column(visible=False) as paste:
            pasted = gr.Textbox(
                label="Rows",
                info=texts.ABOUT_PASTED,
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
        report = gr.Markdown(texts.READING_EXAMPLE, elem_id="report")
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
