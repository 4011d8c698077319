"""The data card of the Train tab: where the rows come from, who reads which column, and what the rows give."""

from __future__ import annotations

from dataclasses import dataclass

import gradio as gr

from ptune_core.app import texts
from ptune_core.training.settings import RunSettings
from ptune_core.ui.live.components import asset
from ptune_core.ui.live.template_parts import answer_words, column_roles
from ptune_core.ui.train.handlers import EXAMPLE, SOURCES

FILE_TYPES = [".csv", ".tsv", ".json", ".jsonl", ".parquet", ".xlsx", ".txt"]
MOST_ON_SLIDER = 128


@dataclass(frozen=True)
class DataCard:
    """Components of the data card. `answers` are the labels' words, which stand in the template card."""

    source: gr.Radio
    sources: tuple[gr.Column, ...]
    file: gr.File
    pasted: gr.Textbox
    read_pasted: gr.Button
    reference: gr.Textbox
    read_reference: gr.Button
    split: gr.Dropdown
    token: gr.Textbox
    roles: gr.HTML
    report: gr.HTML
    lengths: gr.HTML
    few: gr.Slider
    answers: gr.HTML

    @property
    def brought(self) -> dict[str, gr.blocks.Block]:
        """What `Brought` is made of, by the names it uses."""
        return {name: getattr(self, name) for name in ("source", "file", "pasted", "reference", "split")}


def build_data_card() -> DataCard:
    with gr.Column(elem_classes="card"):
        gr.Markdown("### 2 Data")
        source = gr.Radio(SOURCES, value=EXAMPLE, show_label=False, container=False, elem_id="source")
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
                label="Data set on the Hub",
                info=texts.ABOUT_HUB_DATA,
                placeholder="fancyzhx/ag_news",
                max_lines=1,
                max_length=1000,
                elem_id="reference",
            )
            read_reference = gr.Button("Fetch", elem_id="read-reference")
            split = gr.Dropdown([], label="Configuration and split", visible=False, elem_id="hub-split")
        roles = column_roles("rows")
        report = gr.HTML(
            texts.READING_EXAMPLE, js_on_load=asset("keep_open.js"), elem_id="report", elem_classes="facts"
        )
        lengths = gr.HTML("", js_on_load=asset("keep_open.js"), elem_id="lengths", elem_classes="facts")
        with gr.Accordion("Few-shot: train on a few rows of each label", open=False, elem_id="few-shot"):
            few = gr.Slider(
                0,
                MOST_ON_SLIDER,
                value=0,
                step=1,
                label=texts.label("examples_per_label"),
                info=RunSettings.model_fields["examples_per_label"].description,
                elem_id="setting-examples_per_label",
            )
        answers = answer_words("answers")
        token = gr.Textbox(visible=False)
    return DataCard(
        source=source, sources=(upload, paste, hub), file=file, pasted=pasted, read_pasted=read_pasted,
        reference=reference, read_reference=read_reference, split=split, token=token, roles=roles,
        report=report, lengths=lengths, few=few, answers=answers,
    )  # fmt: skip
