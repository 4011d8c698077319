"""The Train tab: base model, data, template, tuning, and the card that starts the run."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import gradio as gr

from ptune_core.app import texts
from ptune_core.ui.live.components import Answer
from ptune_core.ui.show import EVENT, LATEST, shown
from ptune_core.ui.train.data_card import DataCard, build_data_card
from ptune_core.ui.train.data_view import quiet_line
from ptune_core.ui.train.handlers import HUB, PASTE, UPLOAD, Brought, TrainHandlers
from ptune_core.ui.train.model_card import ModelCard, build_model_card
from ptune_core.ui.train.prompt_card import PromptCard, build_prompt_card
from ptune_core.ui.train.run_card import RunCard, build_run_card
from ptune_core.ui.train.tuning_card import TuningCard, build_tuning_card
from ptune_core.ui.turns import Turns


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
    def of_row(self) -> list[gr.components.Component]:
        """What `TrainHandlers.check_template` reads."""
        return [self.prompt.template, self.data.token, self.data.answers, self.data.roles, *self.decides_reading]

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


def wire_train(tab: TrainTab, handlers: TrainHandlers) -> Following:
    """Connect the tab's own controls; `page` connects Start and the first load. What shows the data after an event."""
    data, prompt = tab.data, tab.prompt
    following = Following(tab, handlers)
    of_template = [prompt.message, prompt.num_virtual_tokens, prompt.preview, prompt.placement]
    rows = Turns()  # those that were asked for last are the ones that count, however long the others took to read

    of_source = [*data.sources, data.split, data.token, data.report]
    show_source = only_newest(rows, lambda *held: handlers.show_source(Brought.of(*held)), of_source)
    following.show_data(data.source.input(shown(show_source), list(data.brought.values()), of_source, **LATEST))
    of_rows = [data.token, data.report]
    _wire_unread(data, following, only_newest(rows, handlers.leave_pasted, of_rows))
    for ask, read, source, written in (
        (data.file.upload, handlers.read_file, data.file, of_rows),
        (data.read_pasted.click, handlers.read_pasted, data.pasted, of_rows),
        (data.read_reference.click, handlers.read_reference, data.reference, [data.split, *of_rows]),
        (data.reference.submit, handlers.read_reference, data.reference, [data.split, *of_rows]),
        (data.split.input, handlers.read_split, data.split, of_rows),
    ):
        reading = ask(None, None, data.report, js=f"() => {json.dumps(texts.READING)}", **EVENT)
        following.show_data(reading.then(shown(only_newest(rows, read, written)), source, written, **LATEST))
    for event in (data.roles.roles, prompt.template.blur):
        following.measure(event(**following.shows_data))
    data.few.change(**following.shows_data)
    controls: list[Any] = [tab.settings["revision"], tab.settings["max_length"]]  # of kinds that have these events
    for control in controls:
        following.measure(control.blur(**following.shows_data))
    # What the preview shows is compared with what the controls hold whenever either changes: an answer to an earlier
    # question, from another handler, may have come after the answer to a later one.
    asks = [control.change for control in (data.answers, prompt.preview, *controls)]
    gr.on(asks, shown(handlers.ask_again), [prompt.preview, *tab.of_row], prompt.preview, **LATEST)

    # `change`, not `input`: gradio 6.31 does not report text that is pasted over a selection as input.
    prompt.template.change(shown(handlers.check_template), tab.of_row, of_template, **LATEST)
    count = [prompt.num_virtual_tokens, prompt.template]
    prompt.num_virtual_tokens.input(shown(handlers.write_count), count, prompt.template, **LATEST)
    placed = [prompt.template, prompt.placement]
    for chooser, choose in ((prompt.placement, handlers.place), (tab.base_model, handlers.suit_model)):
        following.show_data(chooser.input(shown(choose), [chooser, prompt.template], placed, **LATEST))
    return following


def _wire_unread(data: DataCard, following: Following, leave_pasted: Callable[..., Any]) -> None:
    """What is typed is not what was read: as soon as it changes there are no rows, until it is read."""
    of_rows: list[gr.blocks.Block] = [data.token, data.report]
    no_splits = "{__type__: 'update', visible: false, value: null}"
    for source, box, others in ((PASTE, data.pasted, {}), (HUB, data.reference, {data.split: no_splits})):
        unread = [json.dumps(quiet_line(said[source])) for said in (texts.NO_ROWS, texts.NOT_READ)]
        given = ", ".join(["''", f"text.trim() ? {unread[1]} : {unread[0]}", *others.values()])
        # `input` is not told when text is pasted over a selection; `change` is, and when the page itself writes there.
        box.change(None, box, [*of_rows, *others], js=f"text => [{given}]", **EVENT)
    following.show_data(data.pasted.blur(shown(leave_pasted), [data.pasted, data.token], of_rows, **LATEST))
    gone = f"() => ['', {json.dumps(quiet_line(texts.NO_ROWS[UPLOAD]))}]"
    following.show_data(data.file.clear(None, None, of_rows, js=gone, **EVENT))


class Following:
    """What follows when rows, or the way they are read, have changed: they are shown, and then measured."""

    def __init__(self, tab: TrainTab, handlers: TrainHandlers) -> None:
        self._tab, self._handlers = tab, handlers
        self._shown, self._measured = Turns(), Turns()

    @property
    def shows_data(self) -> dict[str, Any]:
        """For an event: show the data."""

        def show_data(request: gr.Request, token: str, template: str, *others: Any) -> Any:
            nothing = [gr.skip()] * len(self._tab.of_data)
            if not self._handlers.can_show(template):  # so it must not keep an answer that is on its way from coming
                return nothing
            return self._shown.answer(
                str(request.session_hash), lambda: self._handlers.show_data(token, template, *others), nothing
            )

        return {"fn": shown(show_data), "inputs": self._tab.asked, "outputs": self._tab.of_data, **LATEST}

    def show_data(self, event: gr.events.Dependency) -> None:
        """After `event`, show the data, and then how long its rows are."""
        self.measure(event.success(**self.shows_data))

    def measure(self, event: gr.events.Dependency) -> None:
        """After `event`, measure the rows: the first time, that takes as long as the inference process to start."""
        lengths = self._tab.data.lengths
        measure = only_newest(self._measured, self._handlers.measure, [lengths])
        event.success(shown(measure), self._tab.prompt.preview, lengths, **LATEST)


def only_newest(turns: Turns, handler: Callable[..., Any], outputs: Sequence[gr.blocks.Block]) -> Callable[..., Any]:
    """`handler`, whose answer counts only if the page has asked for nothing of the kind since."""
    nothing: Any = [gr.skip()] * len(outputs) if len(outputs) > 1 else gr.skip()

    def answer(request: gr.Request, *values: Any) -> Any:
        return turns.answer(str(request.session_hash), lambda: handler(*values), nothing)

    return answer
