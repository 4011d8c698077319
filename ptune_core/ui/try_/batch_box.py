"""A file in, the same file with labels out: the part of the Try tab for more than one text."""

from __future__ import annotations

import tempfile
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr

from ptune_core.app import texts
from ptune_core.app.service import Service
from ptune_core.app.texts import trying
from ptune_core.errors import DataError, PTuneError
from ptune_core.ui.show import inline_error
from ptune_core.ui.train.data_card import FILE_TYPES
from ptune_core.ui.try_ import answers

Labelling = Generator[list[Any], None, None]
"""Updates for `BatchBox.outputs`."""


@dataclass(frozen=True)
class BatchBox:
    """Components of the box."""

    box: gr.Accordion
    file: gr.File
    label: gr.Button
    cancel: gr.Button
    said: gr.HTML
    download: gr.DownloadButton

    @property
    def outputs(self) -> list[gr.blocks.Block]:
        """What `label_upload` fills."""
        return [self.said, self.download, self.cancel]


def build_batch() -> BatchBox:
    """Lay it out; nothing is wired yet."""
    with gr.Accordion("Label a whole file", open=False, visible=False, elem_id="batch", elem_classes="card") as box:
        gr.Markdown(trying.BATCH_LIMITS, elem_classes="quiet")
        file = gr.File(label="File", file_types=FILE_TYPES, height=140, elem_id="batch-file")
        with gr.Row(elem_classes="buttons"):
            label = gr.Button("Label every row", variant="primary", elem_id="batch-label")
            cancel = gr.Button("Cancel", visible=False, elem_id="batch-cancel")
            download = gr.DownloadButton("Download the labelled file (CSV)", visible=False, elem_id="batch-download")
        said = gr.HTML(elem_id="batch-said", elem_classes="if-said")
    return BatchBox(box, file, label, cancel, said, download)


def label_upload(service: Service, adapter: str, viewer: str, path: str | None) -> Labelling:
    """Updates for `BatchBox.outputs`: how far it is, then the result and the file.

    Closed before its end, it leaves nothing behind. The finished file is gradio's: it copies it to where only who has
    its address finds it, and drops it after a day.
    """
    idle = gr.update(visible=False)
    try:
        if not path:
            raise DataError("There is no file yet", remedy="Choose one above")
        source = Path(path)
        with tempfile.TemporaryDirectory() as folder:
            output = Path(folder) / f"{texts.file_name(source.stem)}-labelled.csv"
            labelling = service.adapters.label(adapter, viewer, source, output)
            while True:
                try:
                    at = next(labelling)
                except StopIteration as end:
                    report = end.value
                    break
                yield [answers.progress(at.done, at.rows), idle, gr.update(visible=True)]
            yield [answers.labelled(report), gr.update(visible=True, value=str(output)), idle]
    except PTuneError as error:
        yield [inline_error(error), idle, idle]
