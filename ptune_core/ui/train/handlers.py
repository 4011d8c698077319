"""What the Train tab's controls do: plain values in, plain values and updates out."""

from __future__ import annotations

import html
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import gradio as gr

from ptune_core.app import form, texts
from ptune_core.app.data_report import DataReport, check_chosen, choose_columns, example_pieces, report_on, varied_rows
from ptune_core.app.drafts import Answers, Held, Roles, answers_of, chosen_columns, is_of, turn_of
from ptune_core.app.service import Service
from ptune_core.app.token_preview import look_at_row, measure_rows, question_of
from ptune_core.data.hub import find_split_in, names_a_file
from ptune_core.data.table import Table
from ptune_core.demo import DEMO, DEMO_LABELS, DEMO_TEMPLATE
from ptune_core.errors import DataError, PTuneError, SettingsError, TemplateError
from ptune_core.model.catalogue import CATALOGUE
from ptune_core.prompt.segments import Column, TargetKind, VirtualTokens
from ptune_core.prompt.template import Template, parse_template, with_num_virtual_tokens
from ptune_core.training.settings import RunSettings
from ptune_core.ui.show import ERROR_SECONDS, inline_error, inline_problems
from ptune_core.ui.train.data_view import failed_html, lengths_html, quiet_line, report_html

MOST_CHIPS = 12
PREVIEW_ROWS = 5
MOST_CHARACTERS = 200
SOURCES = EXAMPLE, UPLOAD, PASTE, HUB = ("Example", "Upload", "Paste", "Hub")
PLACEMENTS = {
    "In front": DEMO_TEMPLATE,
    "After the text": "{text~} [P*8][ANSWER:label]",
    "Around the text": "[P*4] {text~} [P*4][ANSWER:label]",
    "Chat": "system: [P*8]\nuser: {text~}\nassistant: [ANSWER:label]",
    "Classification head": "[P*20] {text~} [HEAD:label]",
}
_HEAD = "Classification head"


@dataclass(frozen=True)
class Brought:
    """What the data card's controls hold, and which of them counts: `source`. Empty where one holds nothing."""

    source: str
    file: str = ""
    pasted: str = ""
    reference: str = ""
    split: str = ""

    @classmethod
    def of(cls, *values: str | None) -> Brought:
        """From the controls' values, in the order of the fields; gradio has None for some that hold nothing."""
        return cls(*(value or "" for value in values))

    @property
    def origin(self) -> str:
        """What the rows that count are read from, as `Uploads.is_of` compares it."""
        of_hub = self.split or self.reference.strip()
        return {EXAMPLE: DEMO, UPLOAD: self.file, PASTE: self.pasted, HUB: of_hub}[self.source]

    @property
    def remedy(self) -> str:
        """How to have them read."""
        upload, again = "Choose the file again", "Choose Example again"
        return {EXAMPLE: again, UPLOAD: upload, PASTE: "Press Use these rows", HUB: "Press Fetch"}[self.source]


class TrainHandlers:
    """Handlers over one service."""

    def __init__(self, service: Service) -> None:
        self._service = service

    def show_source(self, brought: Brought) -> list[Any]:
        """Show the controls of one source, and read what they hold: other rows than those are not trained on.

        Returns:
            Updates for the groups of controls, the list of a Hub data set's splits, the rows' token and the report.
        """
        groups = [gr.update(visible=brought.source == name) for name in SOURCES[1:]]
        splits, token, said = gr.skip(), "", quiet_line(texts.NO_ROWS.get(brought.source, ""))
        if brought.source == EXAMPLE:
            token, said = self._service.uploads.demo(), ""
        elif brought.source == UPLOAD and brought.file:
            token, said = self.read_file(brought.file)
        elif brought.source == PASTE and brought.pasted.strip():
            token, said = self.read_pasted(brought.pasted)
        elif brought.source == HUB and brought.split:
            token, said = self.read_split(brought.split)
        elif brought.source == HUB and brought.reference.strip():
            splits, token, said = self.read_reference(brought.reference)
        return [*groups, splits, token, said]

    def leave_pasted(self, pasted: str, token: str) -> tuple[Any, Any]:
        """Read rows that were typed and left; those that are read already are not read again."""
        is_read = not pasted.strip() or self._service.uploads.is_of(token, pasted)
        return (gr.skip(), gr.skip()) if is_read else self.read_pasted(pasted)

    def read_file(self, path: str) -> tuple[Any, Any]:
        """Read an uploaded file."""
        return self._read(lambda: self._service.uploads.add_file(Path(path), Path(path).name))

    def read_pasted(self, pasted: str) -> tuple[Any, Any]:
        """Read pasted rows."""
        return self._read(lambda: self._service.uploads.add_text(pasted))

    def read_reference(self, reference: str) -> tuple[Any, Any, Any]:
        """Read one file of a Hub data set, or the first split of one; the list of its splits, and which was read."""
        no_splits = gr.update(visible=False, choices=[], value=None)  # nor those of another data set
        if names_a_file(reference):
            return (no_splits, *self._read(lambda: self._service.uploads.add_hub(reference)))
        try:
            splits = self._service.uploads.hub_splits(reference)
            first = find_split_in(splits, reference)
        except DataError as error:
            return no_splits, "", inline_error(error)
        choices = [(f"{split.config} · {split.name}", split.reference) for split in splits]
        shown = gr.update(visible=True, choices=choices, value=first.reference)
        return (shown, *self.read_split(first.reference))

    def read_split(self, reference: str) -> tuple[Any, Any]:
        """Read a split of a Hub data set."""
        return self._read(lambda: self._service.uploads.add_hub(reference))

    def _read(self, read: Any) -> tuple[Any, Any]:
        try:
            return read(), texts.READING
        except DataError as error:
            return "", inline_error(error)

    def show_data(
        self, token: str, template_text: str, answers: Answers, roles: Roles, few: float, *model: Any
    ) -> list[Any]:
        """The rows with the columns' roles, what all rows give with this template, and the first one in it."""
        try:
            template = parse_template(template_text)
        except TemplateError:
            return [gr.skip()] * 4  # said beside the template
        if not token:
            return [None, gr.skip(), _held_words({}, answers), None]
        found = self._service.uploads.open(token)
        chosen = chosen_columns(roles, token)
        columns = choose_columns(found, template, chosen)
        words = answers_of(answers) if is_of(roles, token) else {}
        try:
            check_chosen(template, chosen)
            values = {"template": template_text, "columns": columns, "examples_per_label": int(few or 0)}
            report = report_on(found, RunSettings.parse(values))
        except PTuneError as error:
            said = failed_html(error, found)
        else:
            words = _answer_words(report, answers_of(answers))
            said = report_html(report, found)
        question = question_of(token, template_text, columns, words, model)
        rows = _table_of_roles(token, found, template, columns, chosen)
        rows["turn"] = roles.get("turn", 0) if isinstance(roles, dict) else 0
        return [rows, said, _held_words(words, answers), _preview(found, template, columns, question)]

    def check_template(
        self, template_text: str, token: str, answers: Answers, roles: Roles, *model: Any
    ) -> tuple[Any, Any, Any, Any]:
        """The message at the template, the slider's value, the row in the template, and its placement."""
        try:
            template = parse_template(template_text)
        except TemplateError as error:
            said = gr.update(value=inline_error(error), visible=True)
            return said, gr.update(interactive=False), gr.skip(), gr.skip()
        warnings = inline_problems("Please note", template.warnings(None))
        shown = gr.update(value=warnings, visible=bool(warnings))
        row = self._row(template, template_text, token, answers, roles, *model)
        return shown, _slider(template), row, placement_of(template)

    def ask_again(
        self, preview: Any, template_text: str, token: str, answers: Answers, roles: Roles, *model: Any
    ) -> Any:
        """The row in the template by what the controls hold now, unless it is what `preview` shows."""
        try:
            template = parse_template(template_text)
        except TemplateError:
            return gr.skip()
        row = self._row(template, template_text, token, answers, roles, *model)
        return gr.skip() if row == preview else row

    def can_show(self, template_text: str) -> bool:
        """Whether `show_data` has an answer for this template."""
        try:
            parse_template(template_text)
        except TemplateError:
            return False
        return True

    def _row(
        self, template: Template, template_text: str, token: str, answers: Answers, roles: Roles, *model: Any
    ) -> dict[str, Any] | None:
        if not token:
            return None
        found = self._service.uploads.open(token)
        columns = choose_columns(found, template, chosen_columns(roles, token))
        words = {} if template.target.kind is TargetKind.HEAD else answers_of(answers)
        return _preview(found, template, columns, question_of(token, template_text, columns, words, model))

    def look(self, question: Mapping[str, Any]) -> dict[str, Any]:
        """One row as the base model reads it, for the preview's script; see `look_at_row`."""
        return look_at_row(self._service, question)

    def measure(self, preview: Any) -> str:
        """How long the rows are, for the preview that is shown."""
        question = preview.get("question") if isinstance(preview, dict) else None
        if not isinstance(question, dict):
            return ""
        return lengths_html(measure_rows(self._service, question))

    def write_count(self, count: float, template_text: str) -> Any:
        """The template with another number of virtual tokens."""
        try:
            return with_num_virtual_tokens(template_text, int(count))
        except PTuneError:
            return gr.skip()  # several groups: the slider is about to be disabled

    def place(self, placement: str, template_text: str) -> tuple[Any, Any]:
        """A template for the chosen placement."""
        _tell_replaced(template_text)
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
        _tell_replaced(template_text)
        return PLACEMENTS[placement], placement

    def start(self, viewer: str, key: str, held: Held, brought: Brought) -> tuple[str | None, str]:
        """Start a run on the rows that the page shows.

        Returns:
            Its id and what to say under the button; no id if it cannot start.
        """
        try:
            settings, table = self._settings(held)
            if not self._service.uploads.is_of(held.token, brought.origin):
                raise DataError("What is shown as data was changed since it was read", remedy=brought.remedy)
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


def _tell_replaced(template_text: str) -> None:
    """One that somebody wrote is not taken away without a word: they may want it back."""
    if template_text.strip() and template_text not in PLACEMENTS.values():
        gr.Info(texts.REPLACED.format(html.escape(template_text)), duration=ERROR_SECONDS)


def new_key() -> str:
    """A key for the next press of Start: pressed twice, it starts one run."""
    return secrets.token_hex(16)


def _table_of_roles(
    token: str, found: Table, template: Template, columns: Mapping[str, str], chosen: Mapping[str, str]
) -> dict[str, Any]:
    """The value of `column_roles`."""
    target = template.target.column
    names = {name: f"{{{name}}}" for name in template.columns}
    names[target] = target if target in ("label", "answer") else f"{target} (target)"
    rows = varied_rows(found.preview, columns.get(target, ""), PREVIEW_ROWS)
    return {
        "token": token,
        "columns": list(found.columns),
        "rows": [[_shortened(row.get(column, "")) for column in found.columns] for row in rows],
        "choices": [[name, text] for name, text in names.items()],
        "roles": {name: columns.get(name, chosen.get(name, "")) for name in names},
    }


def _preview(found: Table, template: Template, columns: Mapping[str, str], question: dict[str, Any]) -> dict[str, Any]:
    """The value of `template_preview`."""
    target = template.target
    plain = [name for name in found.columns if name != columns.get(target.column) and not set(name) & set("{}[]|~\n")]
    chips = [f"{{{name}}}" for name in plain[:MOST_CHIPS]]
    pieces = example_pieces(template, found.preview[0], columns) if found.preview else []
    return {
        "question": question,
        "chips": [*chips, "[P*8]", f"[{target.kind}:{target.column}]"],
        "plain": [list(piece) for piece in pieces],
    }


def _shortened(cell: str) -> str:
    return cell if len(cell) <= MOST_CHARACTERS else cell[:MOST_CHARACTERS] + "…"


def _answer_words(report: DataReport, current: Mapping[str, str]) -> dict[str, str]:
    """What the answer words are now: what was typed for a label stays, the demo's labels have their own words."""
    known = DEMO_LABELS if set(report.verbalizer) == set(DEMO_LABELS) else {}
    return {label: current.get(label, known.get(label, answer)) for label, answer in report.verbalizer.items()}


def _held_words(words: Mapping[str, str], answers: Answers) -> dict[str, Any]:
    """The value of `answer_words`, in answer to one that held `answers`."""
    return {"pairs": [list(pair) for pair in words.items()], "turn": turn_of(answers)}


def placement_of(template: Template) -> str | None:
    """Which of `PLACEMENTS` a template is like; None if none."""
    shape = _shape(template)
    return next((name for name, text in PLACEMENTS.items() if _shape(parse_template(text)) == shape), None)


def _shape(template: Template) -> tuple[TargetKind, bool, tuple[type, ...]]:
    """Kind of target, whether it is a chat, and else in which order columns and virtual tokens stand."""
    kind, is_chat = template.target.kind, bool(template.messages)
    placed = () if is_chat or kind is TargetKind.HEAD else template.segments
    kinds = (type(segment) for segment in placed if isinstance(segment, VirtualTokens | Column))
    return kind, is_chat, tuple(each for each, _ in groupby(kinds))


def _slider(template: Template) -> Any:
    if len(template.groups) == 1 and template.groups[0].count is not None:
        return gr.update(interactive=True, value=template.num_virtual_tokens)
    return gr.update(interactive=False)
