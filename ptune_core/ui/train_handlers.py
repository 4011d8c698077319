"""What the Train tab's controls do: plain values in, plain values and updates out."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gradio as gr

from ptune_core.data.table import Table
from ptune_core.demo import DEMO_LABELS, DEMO_TEMPLATE
from ptune_core.errors import DataError, PTuneError, SettingsError, TemplateError
from ptune_core.model.catalogue import CATALOGUE
from ptune_core.prompt.segments import TargetKind
from ptune_core.prompt.template import Template, parse_template, with_num_virtual_tokens
from ptune_core.training.settings import RunSettings
from ptune_core.ui import form, texts
from ptune_core.ui.held import MAX_INPUT_COLUMNS, Held, answers_of, by_name
from ptune_core.ui.preview import DataReport, choose_columns, example_pieces, report_on, varied_rows
from ptune_core.ui.service import Service
from ptune_core.ui.show import inline_error, inline_problems, table

PREVIEW_ROWS = 5
MOST_CHARACTERS = 200
SOURCES = ["Example", "Upload", "Paste", "Hub"]
PLACEMENTS = {
    "In front": DEMO_TEMPLATE,
    "After the text": "{text~} [P*8][ANSWER:label]",
    "Around the text": "[P*4] {text~} [P*4][ANSWER:label]",
    "Classification head": "[P*20] {text~} [HEAD:label]",
}
_HEAD = "Classification head"

Rows = Any
"""What a `gr.Dataframe` hands over: a pandas frame."""


class TrainHandlers:
    """Handlers over one service."""

    def __init__(self, service: Service) -> None:
        self._service = service

    def show_source(self, source: str) -> list[Any]:
        """Show the controls of one source. The example is there at once; the others wait for rows."""
        groups = [gr.update(visible=source == name) for name in SOURCES[1:]]
        if source == SOURCES[0]:
            return [*groups, self._service.uploads.demo(), ""]
        return [*groups, gr.skip(), gr.skip()]

    def read_file(self, path: str) -> tuple[Any, Any]:
        """Read an uploaded file."""
        return self._read(lambda: self._service.uploads.add_file(Path(path), Path(path).name))

    def read_pasted(self, pasted: str) -> tuple[Any, Any]:
        """Read pasted rows."""
        return self._read(lambda: self._service.uploads.add_text(pasted))

    def read_reference(self, reference: str) -> tuple[Any, Any]:
        """Read one file of a Hub data set."""
        return self._read(lambda: self._service.uploads.add_hub(reference))

    def _read(self, read: Any) -> tuple[Any, Any]:
        try:
            return read(), texts.READING
        except DataError as error:
            return "", inline_error(error)

    def show_data(self, token: str, template_text: str, answers: Rows, *chosen: str) -> list[Any]:
        """The rows, who reads which column, and what all rows give with this template."""
        try:
            template = parse_template(template_text)
        except TemplateError:
            return [gr.skip()] * (len(chosen) + 4)  # said beside the template
        if not token:
            return ["", *_column_updates(None, template, {}), gr.skip(), gr.update(visible=False), []]
        found = self._service.uploads.open(token)
        columns = choose_columns(found, template, by_name(template, chosen))
        try:
            report = report_on(found, RunSettings.parse({"template": template_text, "columns": columns}))
        except PTuneError as error:
            said: list[Any] = [_failed(error, found), gr.update(visible=False), []]
        else:
            pieces = example_pieces(template, found.preview[0], columns)
            said = [_report_text(report, found), _answer_rows(report, answers_of(answers)), pieces]
        rows = _preview(found, columns.get(template.target.column, ""))
        return [rows, *_column_updates(found, template, columns), *said]

    def check_template(self, template_text: str, token: str, *chosen: str) -> tuple[Any, Any, Any]:
        """The message at the template, the slider's value, and the first row in the template."""
        try:
            template = parse_template(template_text)
        except TemplateError as error:
            return gr.update(value=inline_error(error), visible=True), gr.update(interactive=False), []
        pieces: Any = []
        if token:
            found = self._service.uploads.open(token)
            columns = choose_columns(found, template, by_name(template, chosen))
            pieces = example_pieces(template, found.preview[0], columns)
        warnings = inline_problems("Please note", template.warnings(None))
        return gr.update(value=warnings, visible=bool(warnings)), _slider(template), pieces

    def write_count(self, count: float, template_text: str) -> Any:
        """The template with another number of virtual tokens."""
        try:
            return with_num_virtual_tokens(template_text, int(count))
        except PTuneError:
            return gr.skip()  # several groups: the slider is about to be disabled

    def place(self, placement: str, template_text: str) -> tuple[Any, Any]:
        """A template for the chosen placement."""
        return PLACEMENTS[placement], gr.skip()

    def suit_model(self, base_model: str, template_text: str) -> tuple[Any, Any]:
        """A template whose target the chosen base model can have; kept if it can."""
        entry = next((entry for entry in CATALOGUE if entry.id == base_model), None)
        try:
            is_head = parse_template(template_text).target.kind is TargetKind.HEAD
        except TemplateError:
            return gr.skip(), gr.skip()
        if entry is None or (entry.target is TargetKind.HEAD) == is_head:
            return gr.skip(), gr.skip()
        placement = _HEAD if entry.target is TargetKind.HEAD else next(iter(PLACEMENTS))
        return PLACEMENTS[placement], placement

    def start(self, viewer: str, key: str, held: Held) -> tuple[str | None, str]:
        """Start a run.

        Returns:
            Its id and what to say under the button; no id if it cannot start.
        """
        try:
            settings, table = self._settings(held)
            report_on(table, settings)
            return self._service.start(settings, held.token, viewer=viewer, key=key), texts.STARTED
        except PTuneError as error:
            return None, inline_error(error)

    def _settings(self, held: Held) -> tuple[RunSettings, Table]:
        found = self._service.uploads.open(held.token)
        values = held.as_settings(found, is_demo=held.token == self._service.uploads.demo())
        try:
            return RunSettings.parse(values), found
        except SettingsError as error:
            raise SettingsError(form.in_form_words(str(error))) from error


def new_key() -> str:
    """A key for the next press of Start: pressed twice, it starts one run."""
    return secrets.token_hex(16)


def _column_updates(table: Table | None, template: Template, columns: Mapping[str, str]) -> list[Any]:
    names: list[str | None] = [*template.columns[:MAX_INPUT_COLUMNS]]
    names += [None] * (MAX_INPUT_COLUMNS - len(names))
    choices = list(table.columns) if table else []
    updates = [_picker(name, f"{{{name}}} is read from", choices, columns) for name in names]
    return [*updates, _picker(template.target.column, "Label column", choices, columns)]


def _picker(name: str | None, label: str, choices: list[str], columns: Mapping[str, str]) -> Any:
    if name is None:
        return gr.update(visible=False, value=None, choices=[])
    return gr.update(visible=True, label=label, choices=choices, value=columns.get(name) or None)


def _preview(found: Table, target: str) -> str:
    rows = varied_rows(found.preview, target, PREVIEW_ROWS)
    return table(found.columns, [[_shortened(row.get(column, "")) for column in found.columns] for row in rows])


def _shortened(cell: str) -> str:
    return cell if len(cell) <= MOST_CHARACTERS else cell[:MOST_CHARACTERS] + "…"


def _report_text(report: DataReport, table: Table) -> str:
    shares = " · ".join(f"{label} {count}" for label, count in list(report.labels.items())[:8])
    more = " · …" if len(report.labels) > 8 else ""
    lines = [f"**{texts.plain(report.text)}**"]
    if shares:
        lines.append(f"{len(report.labels)} labels: {texts.plain(shares)}{more}")
    lines += [texts.plain(note) for note in table.notes]
    return "\n\n".join(lines) + "\n\n" + inline_problems("Please check", report.problems)


def _failed(error: PTuneError, table: Table) -> str:
    if isinstance(error, DataError) and error.problems:
        return inline_error(error)
    return inline_error(error) + "\n\n" + inline_problems("Rows that could not be read", table.problems)


def _answer_rows(report: DataReport, current: Mapping[str, str]) -> Any:
    """The verbalizer table: what was typed for a label stays, the demo's labels have their own words."""
    known = DEMO_LABELS if set(report.verbalizer) == set(DEMO_LABELS) else {}
    answers = {label: current.get(label, known.get(label, answer)) for label, answer in report.verbalizer.items()}
    return gr.update(visible=bool(answers), value=[[label, answer] for label, answer in answers.items()])


def _slider(template: Template) -> Any:
    if len(template.groups) == 1 and template.groups[0].count is not None:
        return gr.update(interactive=True, value=template.num_virtual_tokens)
    return gr.update(interactive=False)
