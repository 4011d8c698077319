"""The whole page: strip, four tabs, and what leads from one to the other. All tabs show one selected run."""

from __future__ import annotations

import secrets
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
_CONFIRM_DELETE = "(run, viewer) => confirm('Delete this run and its adapter?') ? [run, viewer] : ['', viewer]"


@dataclass(frozen=True)
class Page:
    """The parts of the page while it is being wired."""

    service: Service
    viewer: gr.BrowserState
    selected: gr.Textbox
    strip: gr.HTML
    tabs: gr.Tabs
    train: TrainTab
    runs: RunsTab
    try_: TryTab
    export: ExportTab

    @property
    def of_run(self) -> list[gr.blocks.Block]:
        """Everything that shows the selected run."""
        return [*self.runs.view, self.try_.adapter, *self.try_.view, self.export.adapter, *self.export.view]


def build_page(service: Service, *, ephemeral: bool, period: int = 1000) -> gr.Blocks:
    """The page over `service`.

    Args:
        ephemeral: Whether runs are lost when the machine restarts; the page then says so.
        period: Milliseconds between two questions of the live plot.
    """
    gr.set_static_paths([PLOTLY_DIRECTORY])
    with gr.Blocks(title="PTune", analytics_enabled=False, delete_cache=(3600, 86400)) as page:
        viewer = gr.BrowserState("", storage_key=_VIEWER_KEY, secret=_VIEWER_SECRET)
        selected = gr.Textbox(visible=False)
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
        parts = Page(service, viewer, selected, top, tabs, train, runs, try_, export)
        handlers = TrainHandlers(service)
        wire_train(train, handlers)
        _wire_load(page, parts, handlers)
        _wire_start(parts, handlers)
        _wire_runs(parts)
        _wire_try(parts)
    page.queue(api_open=False, max_size=64)
    return page


def _wire_load(page: gr.Blocks, parts: Page, handlers: TrainHandlers) -> None:
    show = _show(parts)

    def load(viewer: str, request: gr.Request) -> list[Any]:
        viewer = viewer or secrets.token_hex(16)
        run_id: Any = str(request.query_params.get("run", ""))
        tabs = gr.skip()
        try:
            parts.service.view(run_id, viewer)
            tabs = gr.Tabs(selected="runs")
        except RunError:
            run_id = gr.skip()  # whoever was quick has chosen one by now
        return [viewer, gr.update(viewer=viewer), run_id, tabs, new_key(), parts.service.uploads.demo()]

    def show_first(run_id: str, viewer: str) -> list[Any]:
        """The run of the address. Without one nothing is hidden: an answer may be late, after a click on a run."""
        if run_id:
            return list(show(run_id, viewer))
        choices = gr.update(choices=parts.service.choices(viewer))
        adapters = (parts.try_.adapter, parts.export.adapter)
        return [choices if component in adapters else gr.skip() for component in parts.of_run]

    train = parts.train
    of_data = [train.data.rows, *train.data.columns, train.data.report, train.data.answers, train.prompt.pieces]
    asked = [train.data.token, train.prompt.template, train.data.answers, *train.data.columns]
    outputs = [parts.viewer, parts.strip, parts.selected, parts.tabs, train.key, train.data.token]
    loaded = page.load(shown(load), parts.viewer, outputs, **EVENT)
    loaded.success(shown(show_first), [parts.selected, parts.viewer], parts.of_run, **EVENT)
    loaded.success(shown(handlers.show_data), asked, of_data, **EVENT)


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
        **EVENT | {"show_progress": "minimal"},
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

    def delete(run_id: str, viewer: str) -> str | Any:
        if not run_id:
            return gr.skip()
        service.delete(run_id, viewer)
        return ""

    _then_show(runs.all_runs.select(shown(choose), None, parts.selected, **EVENT), parts)
    _then_show(parts.strip.open(shown(open_run), None, [parts.selected, parts.tabs], **EVENT), parts)
    _then_show(parts.strip.halt(shown(halt), parts.viewer, None, **EVENT), parts)
    _then_show(runs.stop.click(shown(stop), this, None, **EVENT), parts)
    _then_show(runs.resume.click(shown(resume), this, None, **EVENT), parts)
    _then_show(runs.delete.click(shown(delete), this, parts.selected, js=_CONFIRM_DELETE, **EVENT), parts)
    runs.plot.moved(shown(_show(parts)), this, parts.of_run, **EVENT)


def _wire_try(parts: Page) -> None:
    handlers, try_ = TryHandlers(parts.service), parts.try_
    this = [parts.viewer, parts.selected]

    def generate(viewer: str, run_id: str, length: int, temperature: float, seed: int, *boxes: str) -> Any:
        options = {"max_new_tokens": int(length), "temperature": temperature, "seed": int(seed or 0)}
        yield from handlers.generate(viewer, run_id, options, boxes)

    def fill(viewer: str, run_id: str, event: gr.SelectData) -> list[Any]:
        return handlers.fill(viewer, run_id, event.index)

    busy: dict[str, Any] = {"api_visibility": "private", "concurrency_limit": 4, "concurrency_id": "inference"}
    parts.runs.try_it.click(lambda: gr.Tabs(selected="try"), None, parts.tabs, **EVENT)
    for chooser in (try_.adapter, parts.export.adapter):
        _then_show(chooser.input(shown(lambda run_id: run_id), chooser, parts.selected, **EVENT), parts)
    try_.examples.select(shown(fill), this, list(try_.inputs), **EVENT)
    classified = [try_.base_label, try_.tuned_label, try_.note]
    for ask in (try_.classify.click, try_.inputs[0].submit):
        ask(shown(handlers.classify), [*this, *try_.inputs], classified, **busy)
    options = [try_.max_new_tokens, try_.temperature, try_.seed]
    running = try_.generate.click(
        shown(generate), [*this, *options, *try_.inputs], [try_.base_text, try_.tuned_text], **busy
    )
    try_.stop.click(None, None, None, cancels=[running], **EVENT)


def _then_show(event: Any, parts: Page) -> None:
    event.success(shown(_show(parts)), [parts.selected, parts.viewer], parts.of_run, **EVENT)


def _show(parts: Page) -> Any:
    """A handler that shows the selected run in every tab."""

    def show(run_id: str, viewer: str) -> list[Any]:
        view: RunView | None = parts.service.view(run_id, viewer) if run_id else None
        choices = parts.service.choices(viewer)
        chosen = run_id if view is not None and view.has_adapter else None
        adapters = [gr.update(choices=choices, value=chosen) for _ in range(2)]  # gradio empties the one it was given
        return [*show_run(view, viewer), adapters[0], *show_adapter(view), adapters[1], *show_export(view)]

    return show


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
