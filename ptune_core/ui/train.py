"""The Train tab: base model, data, template, tuning, and the card that starts the run."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import gradio as gr

from ptune_core.ui import texts
from ptune_core.ui.data_card import DataCard, build_data_card
from ptune_core.ui.live import Answer
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
        others = {"halving": self.tuning.sweep.halving, "examples_per_label": self.data.few}
        return {"name": self.run.name} | self.model.settings | self.tuning.settings | others

    @property
    def newest(self) -> gr.HTML:
        return self.run.newest

    @property
    def key(self) -> gr.Textbox:
        return self.run.key

    @property
    def asked(self) -> list[gr.components.Component]:
        """What `TrainHandlers.show_data` reads."""
        data = self.data
        return [data.token, self.prompt.template, data.answers, data.roles, data.few, *self.decides_reading]

    @property
    def of_data(self) -> list[gr.components.Component]:
        """What `TrainHandlers.show_data` writes."""
        return [self.data.roles, self.data.report, self.data.answers, self.prompt.preview]

    @property
    def decides_reading(self) -> list[gr.components.Component]:
        """What decides how a base model reads a row."""
        return [self.base_model, self.settings["revision"], self.settings["max_length"]]


def build_train(look: Answer) -> TrainTab:
    """Lay the tab out; nothing is wired yet.

    Args:
        look: Answers the questions of the template's preview.
    """
    with gr.Row(elem_classes="columns"):
        with gr.Column(scale=7, min_width=320):
            model = build_model_card()
            data = build_data_card()
            prompt = build_prompt_card(look, data.answers)
            tuning = build_tuning_card()
        with gr.Column(scale=3, min_width=280, elem_classes="run-card"):
            run = build_run_card()
    return TrainTab(model, data, prompt, tuning, run)


def wire_train(tab: TrainTab, handlers: TrainHandlers) -> None:
    """Connect the tab's own controls; `page` connects Start and the first load."""
    data, prompt = tab.data, tab.prompt
    of_template = [prompt.message, prompt.num_virtual_tokens, prompt.preview, prompt.placement]
    of_row = [prompt.template, data.token, data.answers, data.roles, *tab.decides_reading]

    def follow(event: gr.events.Dependency) -> None:
        then_show_data(event, tab, handlers)

    of_source = [*data.sources, data.token, data.report]
    follow(data.source.input(shown(handlers.show_source), data.source, of_source, **EVENT))
    of_rows = [data.token, data.report]
    for ask, read, source, written in (
        (data.file.upload, handlers.read_file, data.file, of_rows),
        (data.read_pasted.click, handlers.read_pasted, data.pasted, of_rows),
        (data.read_reference.click, handlers.read_reference, data.reference, [data.split, *of_rows]),
        (data.reference.submit, handlers.read_reference, data.reference, [data.split, *of_rows]),
        (data.split.input, handlers.read_split, data.split, of_rows),
    ):
        reading = ask(None, None, data.report, js=f"() => {json.dumps(texts.READING)}", **EVENT)
        follow(reading.then(shown(read), source, written, **EVENT))
    show = {"inputs": tab.asked, "outputs": tab.of_data, **EVENT}
    latest = {"trigger_mode": "always_last", **EVENT}
    follow_lengths(data.roles.roles(shown(handlers.show_data), **{**show, **latest}), tab, handlers)
    follow_lengths(prompt.template.blur(shown(handlers.show_data), **show), tab, handlers)
    data.few.change(shown(handlers.show_data), **{**show, **latest})
    controls: list[Any] = [tab.settings["revision"], tab.settings["max_length"]]  # of kinds that have these events
    for control in controls:
        control.change(shown(handlers.ask_again), of_row, prompt.preview, **latest)
        follow_lengths(control.blur(shown(handlers.show_data), **show), tab, handlers)
    data.answers.words(shown(handlers.ask_again), of_row, prompt.preview, **latest)

    # `change`, not `input`: gradio 6.31 does not report text that is pasted over a selection as input.
    prompt.template.change(shown(handlers.check_template), of_row, of_template, **latest)
    count = [prompt.num_virtual_tokens, prompt.template]
    prompt.num_virtual_tokens.input(shown(handlers.write_count), count, prompt.template, **latest)
    for chooser, choose in ((prompt.placement, handlers.place), (tab.base_model, handlers.suit_model)):
        follow(chooser.input(shown(choose), [chooser, prompt.template], [prompt.template, prompt.placement], **EVENT))


def then_show_data(event: gr.events.Dependency, tab: TrainTab, handlers: TrainHandlers) -> None:
    """After `event`, show the data, and then how long its rows are."""
    follow_lengths(event.success(shown(handlers.show_data), tab.asked, tab.of_data, **EVENT), tab, handlers)


def follow_lengths(event: gr.events.Dependency, tab: TrainTab, handlers: TrainHandlers) -> None:
    """After `event`, measure the rows: the first time, that takes as long as the inference process to start."""
    event.success(shown(handlers.measure), tab.prompt.preview, tab.data.lengths, **EVENT)
