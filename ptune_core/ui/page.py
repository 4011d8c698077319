"""The whole page: strip, four tabs, and what leads from one to the other. All tabs show one selected run."""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import gradio as gr
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse
from starlette.routing import Route

from ptune_core.errors import RunError
from ptune_core.ui import texts
from ptune_core.ui.export_tab import ExportTab, build_export, show_export
from ptune_core.ui.live import PLOTLY_DIRECTORY, strip
from ptune_core.ui.runs_tab import RunsTab, build_runs, show_run
from ptune_core.ui.service import RunView, Service
from ptune_core.ui.show import EVENT, answered, shown
from ptune_core.ui.theme import CSS, build_theme
from ptune_core.ui.train import TrainTab, build_train, wire_train
from ptune_core.ui.train_handlers import TrainHandlers, new_key
from ptune_core.ui.try_tab import TryHandlers, TryTab, build_try, show_adapter
from ptune_core.ui.turns import Turns

LAUNCH: dict[str, Any] = {
    "ssr_mode": False,
    "run_history": False,
    "footer_links": [],
    "max_file_size": "100mb",
    "show_error": False,
    "enable_monitoring": False,
    "css": CSS,
}
"""How the page is launched: nothing of it may leave this machine, and no more of it is reachable than is needed."""

_VIEWER_KEY, _VIEWER_SECRET = "ptune-viewer", "ptune"  # fixed: with random ones every restart would orphan the id
_PRESS_VISIBLE = "() => [...document.querySelectorAll('#classify, #generate')].find(b => b.offsetParent)?.click()"
_CONFIRM_DELETE = "(run, ...rest) => confirm('Delete this run and its adapter?') ? [run, ...rest] : ['', ...rest]"


@dataclass(frozen=True)
class Page:
    """The parts of the page while it is being wired.

    Attributes:
        selected: Id of the run that the Runs tab shows.
        turns: Of showing a run.
        adapter: Id of the run whose adapter Try and Export show: the selected one, if it has an adapter. A text box, as
            a `gr.Dropdown` refuses its own value when the app was started again since it was filled.
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
        return [*self.runs.view, *self.of_adapter]

    @property
    def of_adapter(self) -> list[gr.blocks.Block]:
        """Everything that shows the chosen adapter."""
        return [self.adapter, self.try_.adapter, *self.try_.view, self.export.adapter, *self.export.view]

    @property
    def shown(self) -> list[gr.blocks.Block]:
        """What decides what `of_run` shows."""
        return [self.selected, self.viewer, self.adapter]


def build_page(service: Service, *, ephemeral: bool, period: int = 1000) -> gr.Blocks:
    """The page over `service`.

    Args:
        ephemeral: Whether runs are lost when the machine restarts; the page then says so.
        period: Milliseconds between two questions of the live plot.
    """
    gr.set_static_paths([PLOTLY_DIRECTORY])
    with gr.Blocks(title="PTune", analytics_enabled=False, delete_cache=(3600, 86400)) as page:
        viewer = gr.BrowserState("", storage_key=_VIEWER_KEY, secret=_VIEWER_SECRET)
        selected, adapter = gr.Textbox(visible=False), gr.Textbox(visible=False)
        with gr.Row(elem_classes="head"):
            gr.HTML(f"<h1>PTune</h1><p>{texts.TAGLINE}</p>", elem_classes="brand")
        if ephemeral:
            gr.Markdown(texts.EPHEMERAL, elem_id="ephemeral", elem_classes="banner")
        top = strip(answered(service.overview), 2 * period, "strip")
        with gr.Tabs(elem_id="tabs") as tabs:
            with gr.Tab("Train", id="train"):
                train = build_train()
            with gr.Tab("Runs", id="runs"):
                runs = build_runs(answered(service.poll), period)
            with gr.Tab("Try", id="try"):
                try_ = build_try()
            with gr.Tab("Export", id="export"):
                export = build_export()
        parts = Page(service, viewer, selected, adapter, top, tabs, train, runs, try_, export, Turns())
        handlers = TrainHandlers(service)
        wire_train(train, handlers)
        _wire_load(page, parts, handlers)
        _wire_start(parts, handlers)
        _wire_runs(parts)
        _wire_try(parts)
    page.queue(api_open=False, max_size=64)
    return page


def _wire_load(page: gr.Blocks, parts: Page, handlers: TrainHandlers) -> None:
    def load(viewer: str, request: gr.Request) -> list[Any]:
        viewer = viewer or secrets.token_hex(16)
        run_id: Any = str(request.query_params.get("run", ""))
        tabs = gr.skip()
        try:
            parts.service.view(run_id, viewer)
            tabs = gr.Tabs(selected="runs")
        except RunError:
            run_id = gr.skip()  # whoever was quick has chosen one by now
        return [viewer, gr.update(viewer=viewer), run_id, tabs, new_key()]

    train = parts.train
    of_data = [train.data.rows, *train.data.columns, train.data.report, train.data.answers, train.prompt.pieces]
    asked = [train.data.token, train.prompt.template, train.data.answers, *train.data.columns]
    outputs = [parts.viewer, parts.strip, parts.selected, parts.tabs, train.key]
    loaded = page.load(shown(load), parts.viewer, outputs, **EVENT)
    _then_show(loaded, parts)
    # Beside it, not before it: reading the example takes seconds when the app was just started. It comes from a place
    # of its own, as rows that were brought meanwhile stay.
    example = gr.Textbox(visible=False)
    read = loaded.success(shown(parts.service.uploads.demo), None, example, **EVENT)
    tokens = [train.data.token, example]
    used = read.success(None, tokens, train.data.token, js="(token, example) => token || example", **EVENT)
    used.success(shown(handlers.show_data), asked, of_data, **EVENT)


def _wire_start(parts: Page, handlers: TrainHandlers) -> None:
    train = parts.train
    names = {"base_model": train.base_model, "template": train.prompt.template, **train.settings}
    columns = {f"column_{i}": column for i, column in enumerate(train.data.columns)}

    def start(viewer: str, key: str, token: str, answers: Any, **values: Any) -> list[Any]:
        chosen = [values.pop(name) for name in columns]
        run_id, message = handlers.start(viewer, key, token, {**values, "answers": answers, "columns": chosen})
        said = gr.update(value=message, visible=True)
        if run_id is None:
            return [gr.skip(), gr.skip(), said, gr.skip()]
        return [run_id, new_key(), said, gr.Tabs(selected="runs")]

    started = train.start.click(
        shown(start),
        inputs_kwargs={
            "viewer": parts.viewer,
            "key": train.key,
            "token": train.data.token,
            "answers": train.data.answers,
            **columns,
            **names,
        },
        outputs=[parts.selected, train.key, train.message, parts.tabs],
        **EVENT,
    )
    _then_show(started, parts)


def _wire_runs(parts: Page) -> None:
    service, runs, this = parts.service, parts.runs, [parts.selected, parts.viewer]

    def choose(event: gr.EventData) -> str:
        return _run_of(event)

    def open_run(event: gr.EventData) -> tuple[str, Any]:
        return _run_of(event), gr.Tabs(selected="runs")

    def stop(run_id: str, viewer: str) -> None:
        service.stop(run_id, viewer)
        gr.Info(texts.STOPPING)

    def halt(viewer: str, event: gr.EventData) -> None:
        stop(_run_of(event), viewer)

    def resume(run_id: str, viewer: str) -> None:
        service.resume(run_id, viewer)

    show = _show(parts)

    def delete(run_id: str, viewer: str, adapter: str, request: gr.Request) -> list[Any]:
        if not run_id:  # called off: nothing is shown anew, which could come after the answer to a second press
            return [gr.skip()] * (1 + len(parts.of_run))
        service.delete(run_id, viewer)
        return ["", *show("", viewer, adapter, request)]

    _then_show(runs.all_runs.select(shown(choose), None, parts.selected, **EVENT), parts)
    for opener in (parts.strip.open, parts.train.newest.open):
        _then_show(opener(shown(open_run), None, [parts.selected, parts.tabs], **EVENT), parts)
    _then_show(parts.strip.halt(shown(halt), parts.viewer, None, **EVENT), parts)
    _then_show(runs.stop.click(shown(stop), this, None, **EVENT), parts)
    _then_show(runs.resume.click(shown(resume), this, None, **EVENT), parts)
    again = EVENT | {"trigger_mode": "multiple"}  # a press right after one that was called off counts too
    runs.delete.click(shown(delete), parts.shown, [parts.selected, *parts.of_run], js=_CONFIRM_DELETE, **again)
    runs.plot.moved(shown(_show(parts)), parts.shown, parts.of_run, **EVENT)


def _wire_try(parts: Page) -> None:
    handlers, try_ = TryHandlers(parts.service), parts.try_
    this = [parts.viewer, parts.adapter]

    def classify(request: gr.Request, *values: str) -> Any:
        yield from handlers.classify(str(request.session_hash), *values)

    def generate(
        request: gr.Request, viewer: str, run_id: str, length: Any, warmth: Any, seed: Any, *boxes: str
    ) -> Any:
        options = {"max_new_tokens": length, "temperature": warmth, "seed": seed or 0}
        yield from handlers.generate(str(request.session_hash), viewer, run_id, options, boxes)

    def fill(viewer: str, run_id: str, event: gr.SelectData) -> list[Any]:
        return handlers.fill(viewer, run_id, event.index)

    parts.runs.try_it.click(lambda: gr.Tabs(selected="try"), None, parts.tabs, **EVENT)
    for chooser in (try_.adapter, parts.export.adapter):
        _then_show(chooser.input(None, chooser, parts.selected, js="run => run ?? ''", **EVENT), parts)
    try_.examples.select(shown(fill), this, list(try_.inputs), **EVENT)
    for box in try_.inputs:
        box.submit(None, None, None, js=_PRESS_VISIBLE, **EVENT)
    _wire_asking(parts, shown(classify), shown(generate))


def _wire_asking(parts: Page, classify: Any, generate: Any) -> None:
    try_, this = parts.try_, [parts.viewer, parts.adapter]
    # In the browser, at once: the answer to another text must not stand beside this one while the model is loaded.
    working, idle = json.dumps(texts.WORKING), "'', {__type__: 'update', visible: false}"
    later_wins = EVENT | {"trigger_mode": "multiple", "concurrency_id": "inference", "concurrency_limit": 4}
    asked = try_.classify.click(None, None, try_.classification, js=f"() => [{working}, {{}}, {{}}, '']", **EVENT)
    running = asked.then(classify, [*this, *try_.inputs], try_.classification, **later_wins)
    running.failure(None, None, try_.working, js="() => ''", **EVENT)

    asking, stoppable = [try_.working, try_.stop], "{__type__: 'update', visible: true}"
    options = [try_.max_new_tokens, try_.temperature, try_.seed]
    asked = try_.generate.click(None, None, try_.generation, js=f"() => [{working}, {stoppable}, '', '']", **EVENT)
    running = asked.then(generate, [*this, *options, *try_.inputs], try_.generation, **later_wins)
    running.failure(None, None, asking, js=f"() => [{idle}]", **EVENT)
    try_.stop.click(None, None, asking, cancels=[running], js=f"() => [{idle}]", **EVENT)


def _then_show(event: Any, parts: Page) -> None:
    event.success(shown(_show(parts)), parts.shown, parts.of_run, **EVENT)


def _show(parts: Page) -> Callable[..., list[Any]]:
    """A handler that shows the selected run in every tab."""
    nothing_new = [gr.skip()] * len(parts.of_run)
    turns = parts.turns

    def show(run_id: str, viewer: str, adapter: str, request: gr.Request) -> list[Any]:
        def updates() -> list[Any]:
            view = parts.service.view(run_id, viewer) if run_id else None
            return [*show_run(view, viewer), *_show_adapter(parts.service, view, viewer, adapter)]

        # The answer to the page's load, or to a deletion that was called off, may come after a run was chosen.
        return turns.answer(str(request.session_hash), updates, nothing_new)

    return show


def _show_adapter(service: Service, view: RunView | None, viewer: str, adapter: str) -> list[Any]:
    """Updates for `Page.of_adapter`: the adapter of `view`, else the one shown so far, else the newest."""
    choices = service.choices(viewer)
    ids = [run_id for _, run_id in choices]
    if view is None or not view.has_adapter:
        if adapter in ids:  # and whatever was typed and answered there
            views = [[gr.skip()] * len(updates) for updates in (show_adapter(None), show_export(None))]
            return _with_choosers(adapter, choices, *views)
        view = service.view(ids[0], viewer) if ids else None
    return _with_choosers(view.id if view else "", choices, show_adapter(view), show_export(view))


def _with_choosers(adapter: str, choices: list[tuple[str, str]], try_: list[Any], export: list[Any]) -> list[Any]:
    choosers = [gr.update(choices=choices, value=adapter or None) for _ in range(2)]  # gradio empties those it is given
    return [adapter, choosers[0], *try_, choosers[1], *export]


def _run_of(event: gr.EventData) -> str:
    run_id = event._data.get("run") if isinstance(event._data, dict) else None
    return run_id if isinstance(run_id, str) else ""


def routes(service: Service) -> list[Route]:
    """What the app serves besides the page: `adapters/RUN.zip`."""

    def download(request: Request) -> FileResponse:
        try:
            path, name = service.adapter_zip(request.path_params["run_id"])
        except RunError as error:
            raise HTTPException(404, str(error)) from error
        return FileResponse(path, filename=name, media_type="application/zip", headers={"Cache-Control": "no-store"})

    return [Route("/adapters/{run_id}.zip", download)]


def launch(page: gr.Blocks, service: Service, **options: Any) -> tuple[Any, str, str]:
    """Launch the page with everything in `LAUNCH`; `options` go to `gr.Blocks.launch` as well."""
    return page.launch(theme=build_theme(), app_kwargs={"routes": routes(service)}, **{**LAUNCH, **options})
