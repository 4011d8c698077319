"""The Train tab: base model, data, template, tuning, and the card that starts the run."""

from __future__ import annotations

import json
from dataclasses import dataclass

import gradio as gr

from ptune_core.ui import texts
from ptune_core.ui.data_card import DataCard, build_data_card
from ptune_core.ui.model_card import ModelCard, build_model_card
from ptune_core.ui.prompt_card import PromptCard, build_prompt_card
from ptune_core.ui.run_card import RunCard, build_run_card
from ptune_core.ui.show import EVENT, shown
from ptune_core.ui.train_handlers import TrainHandlers
from ptune_core.ui.tuning_card import TuningCard, build_tuning_card


@dataclass(frozen=True)
class TrainTab:
    """The cards, and of them what the page wires to other tabs."""

    model: ModelCard
    data: DataCard
    prompt: PromptCard
    tuning: TuningCard
    run: RunCard

    @property
    def base_model(self) -> gr.Dropdown:
        return self.model.base_model

    @property
    def settings(self) -> dict[str, gr.components.Component]:
        """Control of each setting that has one of its own."""
        halving = {"halving": self.tuning.sweep.halving}
        return {"name": self.run.name} | self.model.settings | self.tuning.settings | halving

    @property
    def newest(self) -> gr.HTML:
        return self.run.newest

    @property
    def key(self) -> gr.Textbox:
        return self.run.key


def build_train() -> TrainTab:
    """Lay the tab out; nothing is wired yet."""
    with gr.Row(elem_classes="columns"):
        with gr.Column(scale=7, min_width=320):
            model = build_model_card()
            data = build_data_card()
            prompt = build_prompt_card()
            tuning = build_tuning_card()
        with gr.Column(scale=3, min_width=280, elem_classes="run-card"):
            run = build_run_card()
    return TrainTab(model, data, prompt, tuning, run)


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
