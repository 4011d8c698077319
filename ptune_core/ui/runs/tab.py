"""The Runs tab: the list of runs, and one run live."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import gradio as gr

from ptune_core.app import texts
from ptune_core.app.run_view import RunView
from ptune_core.app.texts import trying
from ptune_core.model.device import BaseWeights
from ptune_core.runs.states import RunState
from ptune_core.ui.live.components import Answer, alarm_list, live_plot, overlay, results_panel, run_list
from ptune_core.ui.show import EVENT, Updates

# Pages that come neither by https nor from this machine have no clipboard: then the link is shown instead.
_COPY_LINK = f"""async () => {{
  const run = new URL(location).searchParams.get('run'), link = new URL(location.pathname, location);
  if (run) link.searchParams.set('run', run);
  if (!navigator.clipboard) {{ prompt({json.dumps(texts.COPY_LINK)}, link); return {json.dumps(texts.COPY_LINK)}; }}
  await navigator.clipboard.writeText(link);
  return {json.dumps(texts.LINK_COPIED)};
}}"""


@dataclass(frozen=True)
class RunsTab:
    """What the page wires to other tabs."""

    all_runs: gr.HTML
    plot: gr.HTML
    title: gr.Markdown
    alarms: gr.HTML
    detail: gr.Column
    try_it: gr.Button
    download: gr.Button
    stop: gr.Button
    resume: gr.Button
    delete: gr.Button
    copy_settings: gr.Button
    results: gr.HTML

    @property
    def shows(self) -> list[gr.blocks.Block]:
        """What `show_run` gives something to."""
        return list(show_run(self, None, ""))


@dataclass(frozen=True)
class RunQuestions:
    """What the tab's scripts ask: for the live plot, the overlay, what is wrong with a run, what it has come to."""

    poll: Answer
    compare: Answer
    alarms: Answer
    results: Answer


def build_runs(ask: RunQuestions, period: int) -> RunsTab:
    """Lay the tab out; nothing is wired yet.

    Args:
        ask: Answers the scripts.
        period: Milliseconds between two questions of the live plot.
    """
    with gr.Row(elem_classes="columns"):
        with gr.Column(scale=2, min_width=240):
            all_runs = run_list("run-list")
        with gr.Column(scale=7, min_width=320):
            overlay(ask.compare, period, "overlay")  # stands in for all that follows while it is open
            title = gr.Markdown(texts.CHOOSE_RUN, elem_id="run-title")
            with gr.Column(visible=False, elem_classes="card", elem_id="run-detail") as detail:
                with gr.Row(elem_classes="buttons"):
                    try_it = gr.Button("Try it", variant="primary", size="sm", elem_id="try-it")
                    download = gr.Button("Download adapter", size="sm", elem_id="download-run")
                    stop = gr.Button("Stop and keep the result", size="sm", elem_id="stop")
                    resume = gr.Button("Resume", variant="primary", size="sm", elem_id="resume")
                    delete = gr.Button("Delete", size="sm", elem_id="delete")
                    copy_settings = gr.Button("Copy settings", size="sm", elem_id="copy-settings")
                    copy = gr.Button(texts.COPY_LINK, size="sm", elem_id="copy-link")
                    copy.click(None, None, copy, js=_COPY_LINK, **EVENT)
                alarms = alarm_list(ask.alarms, period, "run-problem")
                plot = live_plot(ask.poll, period, "plot")
                results = results_panel(ask.results, period, "results")
    return RunsTab(
        all_runs=all_runs, plot=plot, title=title, alarms=alarms, detail=detail, try_it=try_it,
        download=download, stop=stop, resume=resume, delete=delete, copy_settings=copy_settings,
        results=results,
    )  # fmt: skip


def show_run(tab: RunsTab, view: RunView | None, viewer: str) -> Updates:
    """One run in the tab.

    Args:
        tab: Its components.
        view: The run, or None for none.
        viewer: Whose page this is; the plot's script needs it to ask.
    """
    asking: dict[str, Any] = {"value": ""}
    if view is not None:
        asking = {"value": view.id, "viewer": viewer, "state": view.state}
    is_there = view is not None
    is_active = view is not None and view.state.is_active
    drawn: dict[str, Any] = {} if view is None else {"trials": view.num_trials, "turn": f"{view.trial} {view.score}"}
    return {
        tab.all_runs: gr.update(value=asking["value"]),
        tab.plot: gr.update(**asking),
        tab.alarms: gr.update(**asking),
        tab.results: gr.update(**asking, **drawn),
        tab.detail: gr.update(visible=is_there),
        tab.title: _title(view),
        tab.try_it: _try_button(view),
        tab.download: download_button(view),
        tab.stop: gr.update(visible=is_active),
        tab.resume: gr.update(visible=view is not None and view.can_resume),
        tab.delete: gr.update(visible=is_there and not is_active),
    }


def _title(view: RunView | None) -> str:
    return texts.CHOOSE_RUN if view is None else f"## {texts.plain(view.name)}\n\n{view.score or view.headline}"


def _try_button(view: RunView | None) -> Any:
    """Also of a run that trains: what it knows by now."""
    if view is None:
        return gr.update(visible=False)
    is_newest = view.state is RunState.RUNNING and view.base_weights is BaseWeights.FROZEN
    is_there = view.has_adapter and not view.state.is_active
    return gr.update(visible=is_newest or is_there, value=trying.TRY_NEWEST if is_newest else trying.TRY_IT)


def download_button(view: RunView | None) -> Any:
    """A button that is a plain link to the zip, so that the first click already downloads it."""
    if view is None or not view.has_adapter or view.state.is_active:
        return gr.update(visible=False, link=None)
    value = texts.download(view.base_weights is BaseWeights.TUNED, view.zip_bytes)
    return gr.update(visible=True, link=f"adapters/{view.id}.zip", value=value)
