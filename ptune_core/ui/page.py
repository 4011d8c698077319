"""The whole page: strip, four tabs, and what leads from one to the other. All tabs show one selected run."""

from __future__ import annotations

import secrets
from typing import Any

import gradio as gr
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import Route

from ptune_core.app import texts
from ptune_core.app.service import Service
from ptune_core.errors import RunError
from ptune_core.ui.api.endpoints import add_api
from ptune_core.ui.door import Door
from ptune_core.ui.export.tab import build_export
from ptune_core.ui.export.wiring import wire_export
from ptune_core.ui.live.components import PLOTLY_DIRECTORY, strip
from ptune_core.ui.parts import Page, run_of, then_show
from ptune_core.ui.runs.tab import RunQuestions, build_runs
from ptune_core.ui.runs.wiring import wire_runs
from ptune_core.ui.show import EACH, EVENT, answered, shown
from ptune_core.ui.theme import CSS, build_theme
from ptune_core.ui.train.handlers import TrainHandlers, new_key
from ptune_core.ui.train.tab import Following, build_train, wire_train
from ptune_core.ui.train.wiring import wire_start
from ptune_core.ui.try_.tab import build_try
from ptune_core.ui.try_.wiring import wire_try
from ptune_core.ui.turns import Turns

LAUNCH: dict[str, Any] = {
    "ssr_mode": False,
    "run_history": False,
    "footer_links": [],
    "max_file_size": "100mb",
    "show_error": False,
    "enable_monitoring": False,
    "mcp_server": False,
    "css": CSS,
    # Gradio asks whether the page can be reached, and gives up after three seconds, which a busy machine can take. That
    # the server answers was asked just before.
    "_frontend": False,
}
"""How the page is launched: nothing of it may leave this machine, and no more of it is reachable than is needed."""

_VIEWER_KEY, _VIEWER_SECRET = "ptune-viewer", "ptune"  # fixed: with random ones every restart would orphan the id


def build_page(service: Service, *, ephemeral: bool, period: int = 1000) -> gr.Blocks:
    """The page over `service`.

    Args:
        ephemeral: Whether runs are lost when the machine restarts; the page then says so.
        period: Milliseconds between two questions of the live plot.
    """
    gr.set_static_paths([PLOTLY_DIRECTORY])
    handlers = TrainHandlers(service)
    with gr.Blocks(title="PTune", analytics_enabled=False, delete_cache=(3600, 86400)) as page:
        add_api(service)  # before the page's own events, which may have the same names
        viewer = gr.BrowserState("", storage_key=_VIEWER_KEY, secret=_VIEWER_SECRET)
        selected, adapter = (
            gr.Textbox(visible=False),
            gr.Textbox(visible="hidden"),
        )  # one that is not there never changes
        with gr.Row(elem_classes="head"):
            gr.HTML(f"<h1>PTune</h1><p>{texts.TAGLINE}</p>", elem_classes="brand")
        if ephemeral:
            gr.Markdown(texts.EPHEMERAL, elem_id="ephemeral", elem_classes="banner")
        top = strip(answered(service.overview), 2 * period, "strip")
        with gr.Tabs(elem_id="tabs") as tabs:
            with gr.Tab("Train", id="train"):
                train = build_train(answered(handlers.look))
            with gr.Tab("Runs", id="runs"):
                questions = RunQuestions(
                    *map(answered, (service.poll, service.compare, service.alarms, service.results))
                )
                runs = build_runs(questions, period)
            with gr.Tab("Try", id="try"):
                try_ = build_try()
            with gr.Tab("Export", id="export"):
                export = build_export(shared=service.is_shared)
        parts = Page(
            service=service, viewer=viewer, selected=selected, adapter=adapter, strip=top, tabs=tabs, train=train,
            runs=runs, try_=try_, export=export, turns=Turns(),
        )  # fmt: skip
        following = wire_train(train, handlers)
        _wire_load(page, parts, following)
        wire_start(parts, handlers, following)
        wire_runs(parts)
        wire_try(parts)
        _wire_queue(parts)
        wire_export(parts)
    page.queue(api_open=False, max_size=64)
    return page


def _wire_load(page: gr.Blocks, parts: Page, following: Following) -> None:
    def load(viewer: str, request: gr.Request) -> list[Any]:
        viewer = viewer or secrets.token_hex(16)
        asked = str(request.query_params.get("run", ""))
        run_id, tabs = asked, gr.skip()
        try:
            parts.service.view(run_id, viewer)
            tabs = gr.Tabs(selected="runs")
        except RunError:
            run_id = gr.skip()  # whoever was quick has chosen one by now
            if asked:
                gr.Warning(texts.NO_SUCH_RUN, title=texts.STRIP["title"])
        return [viewer, gr.update(viewer=viewer), run_id, tabs, new_key()]

    train = parts.train
    outputs = [parts.viewer, parts.strip, parts.selected, parts.tabs, train.key]
    loaded = page.load(shown(load), parts.viewer, outputs, **EVENT)
    then_show(loaded, parts, loads=True)
    # Beside it, not before it: reading the example takes seconds when the app was just started. It comes from a place
    # of its own, as rows that were brought meanwhile stay.
    example = gr.Textbox(visible=False)
    read = loaded.success(shown(parts.service.uploads.demo), None, example, **EVENT)
    tokens = [train.data.token, example]
    used = read.success(None, tokens, train.data.token, js="(token, example) => token || example", **EVENT)
    following.show_data(used)


def _wire_queue(parts: Page) -> None:
    def earlier(viewer: str, event: gr.EventData) -> None:
        parts.service.move_up(run_of(event), viewer)

    then_show(parts.strip.earlier(shown(earlier), parts.viewer, None, **EACH), parts)


def routes(service: Service) -> list[Route]:
    """What the app serves besides the page: `adapters/RUN.zip`, and other files of a run for who has their keys."""

    def download(request: Request) -> FileResponse:
        try:
            path, name = service.adapter_zip(request.path_params["run_id"])
        except RunError as error:
            raise HTTPException(404, str(error)) from error
        return FileResponse(path, filename=name, media_type="application/zip", headers={"Cache-Control": "no-store"})

    def download_file(request: Request) -> Response:
        where, key = request.path_params, request.query_params.get("key", "")
        try:
            content, name = service.download(where["run_id"], where["name"], key)
        except RunError as error:
            raise HTTPException(404, str(error)) from error
        headers = {"Cache-Control": "no-store", "Content-Disposition": f'attachment; filename="{name}"'}
        return Response(content, media_type="application/octet-stream", headers=headers)

    return [Route("/adapters/{run_id}.zip", download), Route("/downloads/{run_id}/{name}", download_file)]


def launch(page: gr.Blocks, service: Service, **options: Any) -> tuple[Any, str, str]:
    """Launch the page with everything in `LAUNCH`; `options` go to `gr.Blocks.launch` as well."""
    app = {"routes": routes(service), "middleware": [Middleware(Door)]}
    return page.launch(theme=build_theme(), app_kwargs=app, **{**LAUNCH, **options})
