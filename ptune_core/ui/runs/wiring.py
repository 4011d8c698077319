"""What the Runs tab, the strip and the list of runs do."""

from __future__ import annotations

import json
from typing import Any

import gradio as gr

from ptune_core.app import texts
from ptune_core.ui.parts import Page, run_of, show_selected, then_show
from ptune_core.ui.show import EACH, EVENT, Updates, shown

_SURE = json.dumps(texts.SURE_TO_DELETE)
_CONFIRM_DELETE = f"(run, ...rest) => confirm({_SURE}) ? [run, ...rest] : ['', ...rest]"


def wire_runs(parts: Page) -> None:
    service, runs, this = parts.service, parts.runs, [parts.selected, parts.viewer]

    def choose(event: gr.EventData) -> str:
        return run_of(event)

    def open_run(event: gr.EventData) -> tuple[str, Any]:
        return run_of(event), gr.Tabs(selected="runs")

    def stop(run_id: str, viewer: str) -> None:
        service.stop(run_id, viewer)
        gr.Info(texts.STOPPING)

    def halt(viewer: str, event: gr.EventData) -> None:
        stop(run_of(event), viewer)

    def resume(run_id: str, viewer: str) -> None:
        service.resume(run_id, viewer)

    def fix(viewer: str, event: gr.EventData) -> str:
        run_id = service.fix(run_of(event), str(_told(event, "key")), viewer)
        gr.Info(texts.RETRIED)
        return run_id

    def use(viewer: str, event: gr.EventData) -> None:
        trial = _told(event, "trial")
        number = trial if isinstance(trial, int) and not isinstance(trial, bool) else -1
        service.use_trial(run_of(event), number, viewer)
        gr.Info(texts.USED.format(number=number + 1))

    show = show_selected(parts)

    def delete(run_id: str, viewer: str, adapter: str, request: gr.Request) -> Updates:
        if not run_id:  # called off: nothing is shown anew, which could come after the answer to a second press
            return parts.unchanged
        service.delete(run_id, viewer)
        return {parts.selected: "", **show("", viewer, adapter, request)}

    then_show(runs.all_runs.select(shown(choose), None, parts.selected, **EACH), parts)
    for opener in (parts.strip.open, parts.train.newest.open):
        then_show(opener(shown(open_run), None, [parts.selected, parts.tabs], **EACH), parts)
    then_show(parts.strip.halt(shown(halt), parts.viewer, None, **EACH), parts)
    then_show(runs.stop.click(shown(stop), this, None, **EVENT), parts)
    then_show(runs.resume.click(shown(resume), this, None, **EVENT), parts)
    fixed = runs.alarms.fix(shown(fix), parts.viewer, parts.selected, **EVENT)
    used = runs.results.use(shown(use), parts.viewer, None, **EACH)
    for pressed in (fixed, used):
        pressed.failure(None, None, None, js="() => window.dispatchEvent(new CustomEvent('ptune:failed'))", **EVENT)
        then_show(pressed, parts)
    # A press right after one that was called off counts too.
    runs.delete.click(shown(delete), parts.shown, [parts.selected, *parts.of_run], js=_CONFIRM_DELETE, **EACH)
    runs.plot.moved(shown(show_selected(parts)), parts.shown, parts.of_run, **EACH)


def _told(event: gr.EventData, name: str) -> Any:
    """What the browser sent with the event; it may be anything."""
    return event._data.get(name) if isinstance(event._data, dict) else None
