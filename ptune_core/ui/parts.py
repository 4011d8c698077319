"""The parts of the page while it is being wired, and how all of them come to show one selected run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import gradio as gr

from ptune_core.app.adapters import NEWEST, is_brought
from ptune_core.app.run_view import RunView
from ptune_core.app.service import Service
from ptune_core.ui.export.tab import ExportTab, show_export
from ptune_core.ui.runs.tab import RunsTab, show_run
from ptune_core.ui.show import EACH, Updates, shown
from ptune_core.ui.train.tab import TrainTab
from ptune_core.ui.try_.tab import TryTab, show_adapter
from ptune_core.ui.turns import Turns


@dataclass(frozen=True)
class Page:
    """The parts of the page while it is being wired.

    Attributes:
        selected: Id of the run that the Runs tab shows.
        turns: Of showing a run.
        adapter: Id of the adapter that Try and Export show: the selected run's, if it has one and none from elsewhere
            was chosen. A text box, as a `gr.Dropdown` refuses its own value when the app was started again since it
            was filled.
    """

    service: Service
    viewer: gr.BrowserState
    selected: gr.Textbox
    adapter: gr.Textbox
    strip: gr.HTML
    tabs: gr.Tabs
    train: TrainTab
    runs: RunsTab
    try_: TryTab
    export: ExportTab
    turns: Turns

    @property
    def of_run(self) -> list[gr.blocks.Block]:
        """Everything that shows the selected run."""
        return [*self.runs.shows, *self.of_adapter]

    @property
    def of_adapter(self) -> list[gr.blocks.Block]:
        """Everything that shows the chosen adapter."""
        choosers = [self.try_.adapter, self.export.adapter]
        return [self.adapter, *choosers, *self.try_.shows, *self.export.shows]

    @property
    def unchanged(self) -> Updates:
        """An answer that changes nothing."""
        return {self.adapter: gr.skip()}

    @property
    def shown(self) -> list[gr.blocks.Block]:
        """What decides what `of_run` shows."""
        return [self.selected, self.viewer, self.adapter]


def then_show(event: Any, parts: Page, *, chosen: bool = False, loads: bool = False) -> None:
    show = show_selected(parts, chosen=chosen, loads=loads)
    event.success(shown(show), parts.shown, parts.of_run, **EACH)


def show_selected(parts: Page, *, chosen: bool = False, loads: bool = False) -> Callable[..., Updates]:
    """A handler that shows the selected run in every tab.

    Args:
        chosen: Whether an adapter was just chosen, so that it is shown even if it is not the selected run's.
        loads: Whether the page has just loaded. It shows no run then; if it does by now, somebody was quick.
    """
    turns = parts.turns

    def show(run_id: str, viewer: str, adapter: str, request: gr.Request) -> Updates:
        def updates() -> Updates:
            view = parts.service.view(run_id, viewer) if run_id else None
            of_run = show_run(parts.runs, view, viewer) if view or not loads else {}
            return {**of_run, **_show_adapter(parts, view, viewer, adapter, chosen=chosen)}

        # The answer to the page's load, or to a deletion that was called off, may come after a run was chosen.
        return turns.answer(str(request.session_hash), updates, parts.unchanged)

    return show


def show_chosen(parts: Page) -> Callable[..., Updates]:
    """A handler that shows an adapter in Try and Export, unless a problem was told instead of one."""

    def show(adapter: str, viewer: str, problem: str = "") -> Updates:
        return parts.unchanged if problem else _shown_adapter(parts, adapter, parts.service.choices(viewer), viewer)

    return show


def _show_adapter(parts: Page, view: RunView | None, viewer: str, adapter: str, *, chosen: bool) -> Updates:
    """Updates for `Page.of_adapter`: the adapter of `view`, else the one shown so far, else the newest.

    One from elsewhere, or the present state of a run, stays until another is chosen.
    """
    choices = parts.service.choices(viewer)
    ids = [id for _, id in choices]
    stays = adapter in ids and (is_brought(adapter) or adapter.endswith(NEWEST))
    if chosen and stays:
        return _shown_adapter(parts, adapter, choices, viewer)
    if stays or view is None or view.id not in ids:
        if adapter in ids:
            return _chosen(parts, adapter, choices)
        return _shown_adapter(parts, next((id for id in ids if not id.endswith(NEWEST)), ""), choices, viewer)
    return _shown_adapter(parts, view.id, choices, viewer)


def _shown_adapter(parts: Page, adapter: str, choices: list[tuple[str, str]], viewer: str) -> Updates:
    view = parts.service.adapters.view(adapter, viewer) if adapter else None
    shown = {**show_adapter(parts.try_, view), **show_export(parts.export, view)}
    return {**_chosen(parts, adapter, choices), **shown}


def _chosen(parts: Page, adapter: str, choices: list[tuple[str, str]]) -> Updates:
    # One update each: gradio empties those it is given.
    choosers: Updates = {
        chooser: gr.update(choices=choices, value=adapter or None)
        for chooser in (parts.try_.adapter, parts.export.adapter)
    }
    return {parts.adapter: adapter, **choosers}


def run_of(event: gr.EventData) -> str:
    run_id = event._data.get("run") if isinstance(event._data, dict) else None
    return run_id if isinstance(run_id, str) else ""
