"""What the Try and Export tabs do."""

from __future__ import annotations

import json
from typing import Any

import gradio as gr

from ptune_core.ui import texts
from ptune_core.ui.parts import Page, then_show
from ptune_core.ui.show import EVENT, shown
from ptune_core.ui.try_tab import TryHandlers

_PRESS_VISIBLE = "() => [...document.querySelectorAll('#classify, #generate')].find(b => b.offsetParent)?.click()"


def wire_try(parts: Page) -> None:
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
        then_show(chooser.input(None, chooser, parts.selected, js="run => run ?? ''", **EVENT), parts)
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
