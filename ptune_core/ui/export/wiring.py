"""What the Export tab does."""

from __future__ import annotations

import html
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gradio as gr

import ptune_core
from ptune_core.app import texts
from ptune_core.app.service import Service
from ptune_core.app.texts import trying
from ptune_core.errors import AdapterError, PTuneError
from ptune_core.ui.parts import Page, show_chosen
from ptune_core.ui.show import EVENT, LATEST, inline_error, shown

CONVERT_SECONDS = 600.0


class ExportHandlers:
    """Handlers over one service."""

    def __init__(self, service: Service) -> None:
        self._service = service

    def push(self, adapter: str, viewer: str, name: str, token: str, private: bool) -> tuple[str, str]:
        """What became of a push, and an empty box in place of the token."""
        try:
            address = self._service.adapters.push(adapter, viewer, name, token=token, private=bool(private))
        except PTuneError as error:
            return inline_error(error), ""
        shown_address = html.escape(address)
        link = f'<a href="{shown_address}" target="_blank" rel="noopener">{shown_address}</a>'
        return f'<p role="status">It is at {link}, {"private" if private else "public"}.</p>', ""

    def convert(self, adapter: str, viewer: str, form: str) -> Iterator[list[Any]]:
        """The adapter in another form, or why it has none."""
        try:
            view = self._service.adapters.view(adapter, viewer)
            with tempfile.TemporaryDirectory() as folder:
                out = Path(folder) / f"{texts.file_name(view.name)}-{form}.zip"
                convert(self._service.adapters.locate(adapter, viewer), form, out)
                label = f"Download {form} (.zip, {texts.size(out.stat().st_size)})"
                yield ["", gr.update(visible=True, value=str(out), label=label)]
        except PTuneError as error:
            yield [inline_error(error), gr.update(visible=False)]


def convert(adapter: Path, form: str, out: Path) -> None:
    """Write an adapter in another form, in a process of its own: it loads the base model.

    Raises:
        AdapterError: It has no such form, or the process told why it cannot be made.
    """
    if form not in trying.FORMS:
        raise AdapterError("There is no such form", got=form[:40], needed=", ".join(trying.FORMS))
    root = str(Path(ptune_core.__file__).resolve().parents[1])
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))}
    command = [sys.executable, "-P", "-m", "ptune_core", "export", str(adapter), "--format", form, "--out", str(out)]
    try:
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=CONVERT_SECONDS, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise AdapterError("The conversion took too long", got=f"{CONVERT_SECONDS:g} seconds") from error
    if done.returncode != 0:
        told = done.stderr.strip().rpartition("error: ")[2] or f"exit code {done.returncode}"
        raise AdapterError("The adapter cannot be converted", got=told[:1000])


def wire_export(parts: Page) -> None:
    export, service = parts.export, parts.service
    handlers = ExportHandlers(service)
    this = [parts.adapter, parts.viewer]

    def remove(adapter: str, viewer: str) -> Any:
        if not adapter:  # called off
            return gr.skip()
        service.adapters.remove(adapter, viewer)
        choices = service.choices(viewer)
        return choices[0][1] if choices else ""

    box = export.hub
    asked = box.push.click(None, None, box.said, js=f"() => {json.dumps(trying.PUSHING)}", **EVENT)
    pushed = asked.then(shown(handlers.push), [*this, box.name, box.token, box.private], [box.said, box.token], **EVENT)
    pushed.failure(None, None, box.said, js="() => ''", **EVENT)
    forms = export.forms
    # A press while another form is being made counts: its turn comes after that.
    again = EVENT | {"trigger_mode": "multiple"}
    asked = forms.make.click(None, None, forms.said, js=f"() => {json.dumps(trying.CONVERTING)}", **again)
    one = again | {"concurrency_id": "convert", "concurrency_limit": 1}
    made = asked.then(shown(handlers.convert), [*this, forms.form], [forms.said, forms.download], **one)
    made.failure(None, None, forms.said, js="() => ''", **EVENT)
    confirm = "(id, viewer) => confirm('Remove this adapter from the page?') ? [id, viewer] : ['', viewer]"
    removed = export.remove.click(shown(remove), this, parts.adapter, js=confirm, **EVENT)
    removed.success(shown(show_chosen(parts)), this, parts.of_adapter, **LATEST)
