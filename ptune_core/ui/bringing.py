"""An adapter from elsewhere: the button that brings it and the words that say how it is used, in Try and in Export."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr

from ptune_core.adapters.names import UNCLEAR
from ptune_core.app.adapter_view import AdapterView, Origin
from ptune_core.app.adapters import is_brought
from ptune_core.app.service import Service
from ptune_core.app.texts import trying
from ptune_core.errors import PTuneError, RunError
from ptune_core.inference.protocol import Usage, build_request
from ptune_core.ui.show import Updates, inline_error

MOST_FILES = 8


@dataclass(frozen=True)
class BringBox:
    """Components of one such box."""

    upload: gr.UploadButton
    name: gr.Textbox
    fetch: gr.Button
    problem: gr.HTML
    usage: gr.Accordion
    base_model: gr.Textbox
    template: gr.Textbox
    answers: gr.Textbox
    apply: gr.Button

    @property
    def fields(self) -> list[gr.blocks.Block]:
        """What a person says of the adapter."""
        return [self.base_model, self.template, self.answers]


def build_bring(where: str) -> BringBox:
    """Lay it out; nothing is wired yet.

    Args:
        where: The tab, for the ids.
    """
    with gr.Row(elem_classes="buttons bring"):
        upload = gr.UploadButton(
            trying.BRING, file_count="multiple", file_types=[".zip", ".json", ".safetensors"], size="sm",
            elem_id=f"{where}-bring",
        )  # fmt: skip
        name = gr.Textbox(
            placeholder="or OWNER/NAME on the Hub", label="An adapter on the Hub", show_label=False, container=False,
            max_lines=1, max_length=200, elem_id=f"{where}-hub-name",
        )  # fmt: skip
        fetch = gr.Button("Fetch", size="sm", elem_id=f"{where}-fetch")
    gr.Markdown(trying.ABOUT_BRINGING, elem_classes="quiet")
    problem = gr.HTML(elem_id=f"{where}-bring-problem", elem_classes="if-said")
    with gr.Accordion(trying.USAGE, open=False, visible=False, elem_id=f"{where}-usage") as usage:
        gr.Markdown(trying.ABOUT_USAGE, elem_classes="quiet")
        base_model = gr.Textbox(
            label="Base model",
            info=trying.ABOUT_BASE,
            max_lines=1,
            max_length=4096,
            elem_id=f"{where}-usage-base",
        )
        template = gr.Textbox(
            label="Template", info=trying.ABOUT_USAGE_TEMPLATE, max_length=20_000, elem_id=f"{where}-usage-template"
        )
        answers = gr.Textbox(
            label="Labels and answers", info=trying.ABOUT_USAGE_ANSWERS, lines=2, max_lines=8,
            elem_id=f"{where}-usage-answers",
        )  # fmt: skip
        with gr.Row(elem_classes="buttons"):
            apply = gr.Button("Use it like this", size="sm", elem_id=f"{where}-usage-apply")
    return BringBox(
        upload=upload, name=name, fetch=fetch, problem=problem, usage=usage, base_model=base_model,
        template=template, answers=answers, apply=apply,
    )  # fmt: skip


def show_usage(box: BringBox, view: AdapterView | None) -> Updates:
    """Only of an adapter from elsewhere people say how it is used."""
    brought = view if view is not None and view.origin is Origin.IMPORTED else None
    return {
        box.problem: "",
        box.usage: gr.update(visible=False) if brought is None else gr.update(visible=True, open=False),
        box.base_model: "" if brought is None else brought.base_model,
        box.template: "" if brought is None else brought.template,
        box.answers: "" if brought is None else answers_text(brought.answers),
    }


class BringHandlers:
    """Handlers over one service."""

    def __init__(self, service: Service) -> None:
        self._service = service

    def bring(self, files: Sequence[str] | None, name: str, viewer: str, *said: str) -> tuple[Any, ...]:
        """The id of the adapter that was brought, or what is wrong with it, whether to ask how it is used, and what was
        said of that: not what another adapter says of itself.

        Args:
            files: What was uploaded; nothing: the adapter `name` is fetched from the Hub.
        """
        adapters = self._service.adapters
        try:
            usage = usage_of(*said)
            paths = [Path(file) for file in (files or [])[:MOST_FILES]]
            id = adapters.bring(paths, viewer, usage) if paths else adapters.fetch(name.strip(), viewer, usage)
            return id, "", gr.skip(), *[gr.skip()] * len(said)
        except PTuneError as error:
            if error.what != UNCLEAR:
                return gr.skip(), inline_error(error), gr.skip(), *[gr.skip()] * len(said)
            return gr.skip(), inline_error(error), gr.update(visible=True, open=True), *said

    def apply(self, files: Sequence[str] | None, name: str, adapter: str, viewer: str, *said: str) -> tuple[Any, ...]:
        """The same with what a person says: of what was refused before, else of the adapter that is shown."""
        if files or name.strip():
            return self.bring(files, name, viewer, *said)
        try:
            if not is_brought(adapter):
                raise RunError("There is no adapter from elsewhere here", remedy="Bring one first")
            self._service.adapters.use_as(adapter, viewer, usage_of(*said))
            return adapter, "", gr.skip(), *[gr.skip()] * len(said)
        except PTuneError as error:
            return gr.skip(), inline_error(error), gr.skip(), *[gr.skip()] * len(said)


def usage_of(base_model: str, template: str, answers: str) -> Usage:
    """What a person typed about an adapter.

    Raises:
        InferenceError: It is too long.
    """
    fields = {"base_model": base_model.strip(), "template": template.strip(), "answers": parse_answers(answers)}
    return build_request(Usage, fields)


def parse_answers(text: str) -> dict[str, str]:
    """Lines `label = words`, or a label alone -> label -> answer; words in quotation marks stay without a space."""
    answers = {}
    for line in text.splitlines():
        label, _, words = (part.strip() for part in line.partition("="))
        if not label:
            continue
        is_quoted = len(words) > 1 and words[0] == words[-1] == '"'
        answers[label] = words[1:-1] if is_quoted else f" {words or label}"
    return answers


def answers_text(answers: dict[str, str]) -> str:
    """The inverse of `parse_answers`; labels of a head stand alone."""
    lines = []
    for label, words in answers.items():
        if not words:
            lines.append(label)
        else:
            is_plain = words.startswith(" ") and words.strip() == words[1:] and words[1:]
            lines.append(f"{label} = {words[1:]}" if is_plain else f'{label} = "{words}"')
    return "\n".join(lines)
