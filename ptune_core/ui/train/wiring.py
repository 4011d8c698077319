"""What follows from the Train tab's controls: the Run card, presets, fixes, settings files, and Start."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import gradio as gr

from ptune_core.app import form
from ptune_core.app.drafts import Filled, Held, answers_of, chosen_columns
from ptune_core.ui.parts import Page, then_show
from ptune_core.ui.show import EACH, EVENT, LATEST, Updates, shown
from ptune_core.ui.train.handlers import EXAMPLE, Brought, TrainHandlers, new_key
from ptune_core.ui.train.start_handlers import RunHandlers
from ptune_core.ui.train.tab import Following, TrainTab

_SAVE = """file => {
  if (!file) return;
  const link = document.createElement('a');
  link.href = URL.createObjectURL(new Blob([file.text], {type: 'application/yaml'}));
  link.download = file.name; link.click(); setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}"""
"""The browser makes the file: nothing of it is left on the server."""

Controls = dict[str, Any]
"""Components by name; which events each has, only its class says."""


@dataclass(frozen=True)
class FormControls:
    """The Train tab's controls by name, as inputs of a handler and as what it fills."""

    settings: Controls
    sweep: Controls
    others: Controls

    @classmethod
    def of(cls, tab: TrainTab) -> FormControls:
        return cls(
            settings={"base_model": tab.base_model, "template": tab.prompt.template, **tab.settings},
            sweep={f"sweep_{name}": control for name, control in tab.tuning.sweep.values.items()},
            others={"token": tab.data.token, "answers": tab.data.answers, "roles": tab.data.roles},
        )

    @property
    def inputs(self) -> Controls:
        """For `inputs_kwargs`; `held` takes their values."""
        return self.settings | self.sweep | self.others

    def held(self, values: Mapping[str, Any]) -> Held:
        """What the controls hold, from the keyword arguments of a handler."""
        token = values["token"] or ""
        return Held(
            token=token,
            values={name: values[name] for name in self.settings},
            answers=answers_of(values["answers"]),
            columns=chosen_columns(values["roles"], token),
            sweep={name.removeprefix("sweep_"): values[name] for name in self.sweep},
        )

    @property
    def filled(self) -> list[Any]:
        """What `fill` and `change` may give values to."""
        others = [self.others["answers"], self.others["roles"]]
        return [*self.settings.values(), *self.sweep.values(), *others]

    def change(self, values: Mapping[str, Any]) -> Updates:
        """The settings in `values` and the labels' words among them; everything else stays."""
        changes: Updates = {control: values[name] for name, control in self.settings.items() if name in values}
        if values.get("labels"):
            changes[self.others["answers"]] = [[label, answer] for label, answer in values["labels"].items()]
        if "sweep" in values and not values["sweep"]:
            changes |= {control: [] for control in self.sweep.values()}
        return changes or {self.others["answers"]: gr.skip()}

    def fill(self, filled: Filled) -> Updates:
        """The whole form."""
        return {
            **{control: filled.values[name] for name, control in self.settings.items()},
            **{control: filled.sweep[name.removeprefix("sweep_")] for name, control in self.sweep.items()},
            self.others["answers"]: filled.answers,
            self.others["roles"]: filled.roles,
        }


def wire_start(parts: Page, handlers: TrainHandlers, following: Following) -> None:
    """Connect the cards of base model, tuning and run."""
    runs = RunHandlers(parts.service)
    controls = FormControls.of(parts.train)
    _wire_refresh(parts, runs, controls)
    _wire_changes(parts, runs, following, controls)
    _wire_measure(parts, runs, controls)
    _wire_files(parts, runs, following, controls)
    _wire_button(parts, handlers, controls)


def _wire_refresh(parts: Page, runs: RunHandlers, controls: FormControls) -> None:
    train = parts.train
    run, tuning = train.run, train.tuning
    shows: dict[str, gr.blocks.Block] = {
        "about": train.model.about, "preset": tuning.preset, "advanced": tuning.advanced, "command": run.command,
        "sweep_count": tuning.sweep.count, "checks": run.checks, "start": run.start, "reason": run.reason,
        **_of_measure(train), "quiet": run.quiet,
        **{f"group {heading}": group for heading, group in tuning.groups.items()},
        **{f"shown {name}": train.settings[name] for name in form.SHOWN_IF},
    }  # fmt: skip

    def refresh(viewer: str, **values: Any) -> Updates:
        found = runs.refresh(viewer, controls.held(values))
        return {component: found[name] for name, component in shows.items()}

    refreshing: dict[str, Any] = {
        "inputs_kwargs": {"viewer": parts.viewer, **controls.inputs},
        "outputs": list(shows.values()),
        **LATEST,
    }
    # The report changes when the rows do, and when the page has loaded. All in one: two handlers side by side could
    # answer in another order than they were asked, and the older answer would stay.
    own = [train.data.report, train.data.answers, train.data.roles]
    watched: list[Any] = [*controls.settings.values(), *controls.sweep.values(), *own]
    gr.on([control.change for control in watched], shown(refresh), **refreshing)
    run.checks.queue(shown(runs.start_label), None, run.start, **LATEST)


def _of_measure(train: TrainTab) -> dict[str, gr.blocks.Block]:
    run = train.run
    return {"measured": run.measured, "measure": run.measure, "cancel": run.cancel, "timer": run.timer}


def _wire_changes(parts: Page, runs: RunHandlers, following: Following, controls: FormControls) -> None:
    """Preset, defaults of the base model, and fixes: each sets controls, and the refresh follows."""
    train = parts.train

    def choose_preset(preset: str) -> Updates:
        return controls.change(runs.choose_preset(preset))

    def suit(suited: str, **values: Any) -> Updates:
        held = controls.held(values)
        return {**controls.change(runs.suit(held, suited)), train.model.suited: held.values["base_model"]}

    def fix(event: gr.EventData, viewer: str, **values: Any) -> Updates:
        key = event._data.get("check") if isinstance(event._data, dict) else None
        return controls.change(runs.fix(key, viewer, controls.held(values)) if isinstance(key, str) else {})

    train.tuning.preset.input(shown(choose_preset), train.tuning.preset, controls.filled, **LATEST)
    train.base_model.change(
        shown(suit),
        inputs_kwargs={"suited": train.model.suited, **controls.inputs},
        outputs=[*controls.filled, train.model.suited],
        **LATEST,
    )
    fixing = {"viewer": parts.viewer, **controls.inputs}
    fixed = train.run.checks.fix(shown(fix), inputs_kwargs=fixing, outputs=controls.filled, **EACH)
    following.show_data(fixed)


def _wire_measure(parts: Page, runs: RunHandlers, controls: FormControls) -> None:
    run = parts.train.run
    measured = {**_of_measure(parts.train), "checks": run.checks}
    for event, handle, shows in (
        (run.measure.click, runs.measure, measured),
        (run.cancel.click, runs.cancel, measured),
        (run.timer.tick, runs.tick, measured),
        (run.quiet.tick, runs.measure_unasked, measured | {"quiet": run.quiet}),
    ):

        def show(viewer: str, handle: Any = handle, shows: Any = shows, **values: Any) -> Updates:
            found = handle(viewer, controls.held(values))
            return {component: found[name] for name, component in shows.items()}

        event(
            shown(show),
            inputs_kwargs={"viewer": parts.viewer, **controls.inputs},
            outputs=list(shows.values()),
            **EVENT,
        )


def _wire_files(parts: Page, runs: RunHandlers, following: Following, controls: FormControls) -> None:
    train, run, data = parts.train, parts.train.run, parts.train.data
    outputs = [*controls.filled, data.source, *data.sources, data.token, train.model.suited, run.loaded]

    def fill(filled: Filled | None, said: str) -> Updates:
        message: Updates = {run.loaded: gr.update(value=said, visible=True)}
        if filled is None:
            return message
        example: Updates = {}
        if filled.is_of_demo:
            hidden: Updates = {group: gr.update(visible=False) for group in data.sources}
            example = {data.source: EXAMPLE, **hidden, data.token: runs.example()}
        return {**controls.fill(filled), **example, train.model.suited: filled.values["base_model"], **message}

    def save(**values: Any) -> dict[str, str]:
        return runs.save(controls.held(values))

    def load(path: str) -> Updates:
        return fill(*runs.load(path))

    def copy(run_id: str, viewer: str) -> Updates:
        yaml = parts.service.view(run_id, viewer).settings
        return {**fill(*runs.copy(yaml)), parts.tabs: gr.Tabs(selected="train"), run.files: gr.Accordion(open=True)}

    saved = run.save.click(shown(save), inputs_kwargs=controls.inputs, outputs=run.file, **EVENT)
    saved.success(None, run.file, None, js=_SAVE, **EVENT)
    following.show_data(run.load.upload(shown(load), run.load, outputs, **LATEST))
    copied = parts.runs.copy_settings.click(
        shown(copy), [parts.selected, parts.viewer], [*outputs, parts.tabs, run.files], **EVENT
    )
    following.show_data(copied)


def _wire_button(parts: Page, handlers: TrainHandlers, controls: FormControls) -> None:
    train = parts.train

    brought = {f"brought_{name}": control for name, control in train.data.brought.items()}

    def start(viewer: str, key: str, **values: Any) -> list[Any]:
        of_data = Brought.of(*(values[name] for name in brought))
        run_id, message = handlers.start(viewer, key, controls.held(values), of_data)
        said = gr.update(value=message, visible=True)
        if run_id is None:
            return [gr.skip(), gr.skip(), said, gr.skip()]
        return [run_id, new_key(), said, gr.Tabs(selected="runs")]

    started = train.run.start.click(
        shown(start),
        inputs_kwargs={"viewer": parts.viewer, "key": train.key, **controls.inputs, **brought},
        outputs=[parts.selected, train.key, train.run.message, parts.tabs],
        **EVENT,
    )
    then_show(started, parts)
