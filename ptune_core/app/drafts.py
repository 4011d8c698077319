"""What the Train tab's controls hold, and how that becomes settings and back. Plain functions over plain values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ptune_core.app import form, sweep_form, texts
from ptune_core.app.data_report import check_chosen, choose_columns
from ptune_core.data.table import Table
from ptune_core.demo import DEMO
from ptune_core.model.catalogue import settings_of
from ptune_core.prompt.segments import TargetKind
from ptune_core.prompt.template import parse_template
from ptune_core.training.settings import RunSettings

Answers = Any
"""What the table of answer words hands over, see `template_parts.answer_words`. It came from a browser and may be
anything."""

Roles = Any
"""What the table with the columns' roles hands over: a mapping as `column_roles` describes it, or anything."""


@dataclass(frozen=True)
class Held:
    """What the controls hold.

    Attributes:
        token: Of the rows.
        values: Setting -> value, those of base model and template among them.
        answers: Label -> answer words.
        columns: Template column -> data column, as they were chosen; empty where none is wanted.
        sweep: What is varied -> values.
    """

    token: str
    values: Mapping[str, Any]
    answers: Mapping[str, str] = field(default_factory=dict)
    columns: Mapping[str, str] = field(default_factory=dict)
    sweep: Mapping[str, Sequence[str] | None] = field(default_factory=dict)

    def as_settings(self, table: Table | None, *, is_demo: bool = False) -> dict[str, Any]:
        """Values for `RunSettings.parse`.

        Args:
            table: The rows, if there are any.
            is_demo: Whether they are the embedded ones.

        Raises:
            PTuneError: The template or the sweep cannot be read.
        """
        values = form.settings_values(self.values)
        template = parse_template(values.get("template", ""))
        if table is not None:
            check_chosen(template, self.columns)
            columns = choose_columns(table, template, self.columns)
            values["columns"] = {name: column for name, column in columns.items() if name != column}
            values["data"] = DEMO if is_demo else table.source or texts.UPLOADED
        if self.answers and template.target.kind is not TargetKind.HEAD:
            values["labels"] = dict(self.answers)
        if sweep := sweep_form.sweep_of(template.text, self.sweep):
            values["sweep"] = sweep
        return values


def answers_of(answers: Answers) -> dict[str, str]:
    """Label -> answer words as they were typed."""
    pairs = answers.get("pairs") if isinstance(answers, dict) else answers
    given = pairs if isinstance(pairs, list) else []
    found = [pair for pair in given if isinstance(pair, list | tuple) and len(pair) == 2]
    return {str(label): str(answer) for label, answer in found if str(label)}


def turn_of(answers: Answers) -> int:
    """How often words had been typed by then."""
    turn = answers.get("turn") if isinstance(answers, dict) else 0
    return turn if isinstance(turn, int) else 0


def chosen_columns(roles: Roles, token: str) -> dict[str, str]:
    """Template column -> data column as they were chosen; of other data than these, only what a column was read for."""
    given = roles.get("roles") if isinstance(roles, dict) else None
    if not isinstance(given, dict):
        return {}
    chosen = {name: column for name, column in given.items() if isinstance(name, str) and isinstance(column, str)}
    return {name: column for name, column in chosen.items() if column or is_of(roles, token)}


def is_of(roles: Roles, token: str) -> bool:
    """Whether the roles were last shown for these data."""
    return isinstance(roles, dict) and roles.get("token") == token


@dataclass(frozen=True)
class Filled:
    """The controls' values for some settings.

    Attributes:
        values: Setting -> what its control holds.
        answers: Pairs of label and answer words.
        roles: What the table with the columns' roles holds.
        sweep: What the sweep's controls hold.
        left_out: What the page cannot show, in words.
        is_of_demo: Whether the rows are the embedded ones.
    """

    values: dict[str, Any]
    answers: list[list[str]]
    roles: dict[str, Any]
    sweep: dict[str, list[str]]
    left_out: list[str]
    is_of_demo: bool


def filled_with(settings: RunSettings) -> Filled:
    """The form of a run, from its settings."""
    template = settings.parsed_template
    names = (*template.columns, template.target.column)
    roles = {"token": "", "roles": {name: settings.columns.get(name, name) for name in names}}
    sweep, others = sweep_form.held_by(settings)
    left_out = [texts.SWEPT_ELSEWHERE.format(texts.label(name).lower()) for name in others]
    left_out += [texts.NOT_HERE.format(texts.label(name)) for name in form.NOT_ON_THE_PAGE if getattr(settings, name)]
    if settings.labels == {}:
        left_out.append(texts.TEXT_WHATEVER)
    shown = [name for name in RunSettings.model_fields if name not in form.OWN_CONTROLS] + ["halving"]
    values = {name: form.shown_value(name, getattr(settings, name)) for name in shown}
    return Filled(
        values | {"base_model": settings.base_model, "template": settings.template},
        [[label, answer] for label, answer in (settings.labels or {}).items()],
        roles,
        sweep,
        left_out,
        settings.data == DEMO,
    )


def suited(values: Mapping[str, Any], before: str, now: str) -> dict[str, Any]:
    """Settings whose control still has the default of base model `before`, with the default for `now` where it differs.

    Args:
        values: Setting -> what its control holds.
        before: The base model whose defaults the form has.
        now: The base model that was chosen.
    """
    old, new = settings_of(before), settings_of(now)
    changes = {}
    for name in sorted({*old, *new}):
        default = form.default(name)
        if form.is_same(name, values.get(name), old.get(name, default)):
            value = form.shown_value(name, new.get(name, default))
            if value != values.get(name):
                changes[name] = value
    return changes
