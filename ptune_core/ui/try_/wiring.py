"""What the Try tab does, and how an adapter is chosen or brought in Try and in Export."""

from __future__ import annotations

import json
from typing import Any

import gradio as gr

from ptune_core.app import texts
from ptune_core.app.adapters import NEWEST, is_brought
from ptune_core.app.texts import trying
from ptune_core.ui.bringing import BringBox, BringHandlers
from ptune_core.ui.parts import Page, show_chosen, then_show
from ptune_core.ui.show import EACH, EVENT, LATEST, Updates, in_browser, shown
from ptune_core.ui.try_.batch_box import label_upload
from ptune_core.ui.try_.handlers import Question, TryHandlers
from ptune_core.ui.try_.tab import updates

_PRESS_VISIBLE = "() => [...document.querySelectorAll('#classify, #generate')].find(b => b.offsetParent)?.click()"
_NOTHING = "{__type__: 'update'}"
_SHOWN, _HIDDEN = "{__type__: 'update', visible: true}", "{__type__: 'update', visible: false}"
_IDLE = f"() => ['', {_HIDDEN}]"
"""For `working` and `stop`: no answer is on its way."""


def wire_try(parts: Page) -> None:
    handlers, try_ = TryHandlers(parts.service), parts.try_
    _wire_choosing(parts, _wire_asking(parts, handlers))
    for bring in (try_.bring, parts.export.bring):
        _wire_bringing(parts, bring)
    _wire_batch(parts)

    def fill(viewer: str, adapter: str, event: gr.SelectData) -> list[Any]:
        return handlers.fill(viewer, adapter, event.index, len(try_.inputs))

    def see(request: gr.Request, *values: Any) -> Updates:
        return updates(try_.answer, handlers.see(_question(*values)))

    try_.examples.select(shown(fill), [parts.viewer, parts.adapter], list(try_.inputs), **EACH)
    for box in try_.inputs:
        box.submit(None, None, None, js=_PRESS_VISIBLE, **EVENT)
    try_.sight.expand(shown(see), _asked(parts), list(try_.answer.values()), **LATEST)


def _question(viewer: str, adapter: str, compare: bool, *boxes: str) -> Question:
    return Question(viewer, adapter, bool(compare), boxes)


def _asked(parts: Page) -> list[gr.blocks.Block]:
    """What `_question` is made from."""
    return [parts.viewer, parts.adapter, parts.try_.compare, *parts.try_.inputs]


def _wire_choosing(parts: Page, running: list[Any]) -> None:
    """A run is shown in every tab; what is no run's result, in Try and Export alone.

    Args:
        running: Answers on their way, which end when another adapter is chosen.
    """

    def choose(id: str | None) -> tuple[Any, Any]:
        id = id or ""
        is_run = id and not is_brought(id) and not id.endswith(NEWEST)
        return id if is_run else gr.skip(), id

    show = show_chosen(parts)

    def try_it(run_id: str, viewer: str, adapter: str) -> Updates:
        is_active = parts.service.view(run_id, viewer).state.is_active
        wanted = run_id + NEWEST if is_active else run_id
        # What is shown already stays, with what was typed and asked by now.
        return parts.unchanged if wanted == adapter else show(wanted, viewer)

    for chooser in (parts.try_.adapter, parts.export.adapter):
        outputs = [parts.selected, parts.adapter]
        then_show(chooser.input(shown(choose), chooser, outputs, **LATEST), parts, chosen=True)
        idle = [parts.try_.working, parts.try_.stop]
        chooser.input(None, None, idle, cancels=running, js=_IDLE, **EVENT)
    # Here and nowhere else: what is shown again, at a run's end say, may by now have answered.
    parts.adapter.change(**in_browser(parts.try_.nothing_asked))
    tried = parts.runs.try_it
    tried.click(lambda: gr.Tabs(selected="try"), None, parts.tabs, **EVENT)
    tried.click(shown(try_it), [parts.selected, parts.viewer, parts.adapter], parts.of_adapter, **EVENT)


def _wire_bringing(parts: Page, box: BringBox) -> None:
    handlers = BringHandlers(parts.service)
    found = [parts.adapter, box.problem, box.usage, *box.fields]
    working = f"() => {json.dumps(trying.READING_ADAPTER)}"
    this = [parts.adapter, parts.viewer]

    def bring(files: list[str] | None, viewer: str) -> Any:
        return handlers.bring(files, "", viewer, "", "", "")

    def fetch(name: str, viewer: str) -> Any:
        return handlers.bring(None, name, viewer, "", "", "")

    def then(pressed: Any, handler: Any, inputs: list[gr.blocks.Block], how: dict[str, Any] = EVENT) -> Any:
        return pressed(None, None, box.problem, js=working, **EVENT).then(shown(handler), inputs, found, **how)

    brought = then(box.upload.upload, bring, [box.upload, parts.viewer], EACH)
    fetched = [then(pressed, fetch, [box.name, parts.viewer]) for pressed in (box.fetch.click, box.name.submit)]
    said = [box.upload, box.name, parts.adapter, parts.viewer, *box.fields]
    applied = then(box.apply.click, handlers.apply, said)
    for done in (brought, *fetched, applied):
        done.failure(None, None, box.problem, js="() => ''", **EVENT)
        # Only after an adapter came in: what is wrong with another stays to be read.
        keep = f"p => p ? [{_NOTHING}, {_NOTHING}] : [null, '']"
        changed = done.success(None, box.problem, [box.upload, box.name], js=keep, **EVENT)
        changed.success(shown(show_chosen(parts)), [*this, box.problem], parts.of_adapter, **LATEST)


def _wire_asking(parts: Page, handlers: TryHandlers) -> list[Any]:
    """Classify, Generate and what goes with them; the events that answer."""
    try_ = parts.try_
    outputs, asked = list(try_.answer.values()), _asked(parts)

    def classify(request: gr.Request, *values: Any) -> Any:
        for found in handlers.classify(str(request.session_hash), _question(*values)):
            yield updates(try_.answer, found)

    def generate(request: gr.Request, turns: str, length: Any, warmth: Any, seed: Any, *values: Any) -> Any:
        options = {"max_new_tokens": length, "temperature": warmth, "seed": seed or 0}
        for found in handlers.generate(str(request.session_hash), _question(*values), turns, options):
            yield updates(try_.answer, found)

    later_wins = EVENT | {"trigger_mode": "multiple", "concurrency_id": "inference", "concurrency_limit": 4}
    # In the browser, at once: the answer to another text must not stand beside this one while the model is loaded.
    begun = [try_.working, try_.stop, try_.problem, try_.base, try_.tuned]
    idle = [try_.working, try_.stop]
    first = try_.classify.click(None, None, begun, js=_begin(_HIDDEN), **EVENT)
    classifying = first.then(shown(classify), asked, outputs, **later_wins)
    options = [try_.turns, try_.max_new_tokens, try_.temperature, try_.seed]
    first = try_.generate.click(None, None, begun, js=_begin(_SHOWN), **EVENT)
    generating = first.then(shown(generate), [*options, *asked], outputs, **later_wins)
    for running in (classifying, generating):
        running.failure(None, None, idle, js=_IDLE, **EVENT)
    try_.stop.click(None, None, idle, cancels=[classifying, generating], js=_IDLE, **EVENT)
    cleared = [try_.turns, try_.base, try_.tuned, try_.forget, try_.problem]
    try_.forget.click(None, None, cleared, js=f"() => ['[]', '', '', {_HIDDEN}, '']", **EVENT)
    try_.compare.input(None, try_.compare, try_.base, js=f"on => on ? {_NOTHING} : ''", **EVENT)
    return [classifying, generating]


def _begin(stop: str) -> str:
    """What a press shows before anything is asked; a conversation stays where it is."""
    pane = f"document.querySelector('#tuned-answer .chat') ? {_NOTHING} : ''"
    return f"() => {{ const pane = {pane}; return [{json.dumps(texts.WORKING)}, {stop}, '', pane, pane]; }}"


def _wire_batch(parts: Page) -> None:
    batch = parts.try_.batch

    def label(adapter: str, viewer: str, path: str | None) -> Any:
        yield from label_upload(parts.service, adapter, viewer, path)

    begun = batch.label.click(
        None, None, batch.outputs, js=f"() => [{json.dumps(texts.WORKING)}, {_HIDDEN}, {_SHOWN}]", **EVENT
    )
    limits = {"concurrency_id": "inference", "concurrency_limit": 4}
    running = begun.then(shown(label), [parts.adapter, parts.viewer, batch.file], batch.outputs, **EVENT | limits)
    said = json.dumps(f'<p class="quiet">{trying.CANCELLED}</p>')
    running.failure(None, None, batch.outputs, js=f"() => ['', {_HIDDEN}, {_HIDDEN}]", **EVENT)
    batch.cancel.click(
        None, None, batch.outputs, cancels=[running], js=f"() => [{said}, {_HIDDEN}, {_HIDDEN}]", **EVENT
    )
