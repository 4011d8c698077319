"""One review of the Train tab: its settings, every check, and what the Run card says of them."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any

from ptune_core.data.table import Table
from ptune_core.errors import DataError, PTuneError, TemplateError
from ptune_core.model.facts import BaseFacts, base_facts
from ptune_core.training.checks import Check, Level, Machine, Rows, checks, value_checks
from ptune_core.training.settings import RunSettings
from ptune_core.ui import form, texts
from ptune_core.ui.held import Held
from ptune_core.ui.machine import look_at_machine
from ptune_core.ui.preview import answers_of, examples_of
from ptune_core.ui.recent import Recent
from ptune_core.ui.uploads import Uploads


@dataclass(frozen=True)
class Review:
    """What was seen.

    Attributes:
        checks: Everything that was looked at; those of `Level.STOP` first.
        settings: Of the run; None if it cannot start.
        table: The rows; None if there are none.
        base: What is known of the base model.
        machine: What a run may use.
    """

    checks: tuple[Check, ...]
    settings: RunSettings | None
    table: Table | None
    base: BaseFacts | None
    machine: Machine


class Watch:
    """Looks at what the controls hold; remembers for a while what takes long to see.

    Args:
        uploads: The rows people brought.
        shared: Whether strangers share this page.
    """

    def __init__(self, uploads: Uploads, *, shared: bool) -> None:
        self._uploads, self._shared = uploads, shared
        self._rows: Recent[Rows] = Recent(3600.0)
        self._facts: Recent[BaseFacts | None] = Recent(20.0)
        self._machine: Recent[Machine] = Recent(10.0, most=1)

    def look(self, held: Held) -> Review:
        """Everything there is to be said of what the controls hold, all of it at once."""
        machine = self._machine.get("", look_at_machine)
        base = self.facts(str(held.values.get("base_model") or ""))
        found, table = [], None
        try:
            table = self._uploads.open(held.token)
        except DataError as error:
            found.append(Check("rows", Level.STOP, str(error)))
        values, wrong = self._values(held, table)
        found += wrong
        wrong, settings = value_checks(values)
        found += [_in_words(check) for check in wrong]
        rows = None
        if settings is not None and table is not None and "template" not in _keys(found):
            try:
                rows = self._rows.get(_question(held.token, settings), lambda: rows_of(table, settings))
            except PTuneError as error:
                found.append(Check("rows", Level.STOP, str(error)))
        if settings is not None:
            found += [check for check in checks(settings, rows, base, machine) if check.key not in _keys(found)]
        found.sort(key=lambda check: _ORDER[check.level])
        can_start = all(check.level is not Level.STOP for check in found)
        return Review(tuple(found), settings if can_start else None, table, base, machine)

    def facts(self, base_model: str) -> BaseFacts | None:
        """What is known of a base model."""
        if not base_model or len(base_model) > 400:
            return None
        return self._facts.get(base_model, lambda: base_facts(base_model, may_read_folders=not self._shared))

    def _values(self, held: Held, table: Table | None) -> tuple[dict[str, Any], list[Check]]:
        """Values to check, without a template or a sweep that cannot be read."""
        is_demo = held.token != "" and held.token == self._uploads.demo()
        try:
            return held.as_settings(table, is_demo=is_demo), []
        except TemplateError as error:
            values = {name: value for name, value in form.settings_values(held.values).items() if name != "template"}
            text = PTuneError.__str__(error)  # the place is shown at the template
            return values, [Check("template", Level.STOP, text)]
        except PTuneError as error:
            return Held(held.token, held.values, held.answers, held.columns).as_settings(table, is_demo=is_demo), [
                Check("sweep", Level.STOP, str(error))
            ]


_ORDER = {Level.STOP: 0, Level.NOTE: 1, Level.GOOD: 2}


def _keys(found: list[Check]) -> set[str]:
    return {check.key for check in found}


def rows_of(table: Table, settings: RunSettings) -> Rows:
    """What all rows give, read as the run will read them.

    Raises:
        DataError: They cannot be trained on.
        SettingsError: The answers do not fit the labels.
    """
    examples = examples_of(table, settings)
    answers = answers_of(examples, settings)
    return Rows(len(examples.train), len(examples.validation), dict(examples.report.labels), answers)


def _question(token: str, settings: RunSettings) -> Hashable:
    """What decides what `rows_of` finds: of the template its columns and target, not its words."""
    template = settings.parsed_template
    labels = None if settings.labels is None else tuple(settings.labels.items())
    return (
        token, template.columns, template.target, tuple(sorted(settings.columns.items())), labels,
        settings.split,
    )  # fmt: skip


def _in_words(check: Check) -> Check:
    """A check of one value with the label of its control."""
    return Check(check.key, check.level, form.in_form_words(check.text), check.fix)


def why_not(look: Review) -> str:
    """Why Start cannot be pressed; empty if it can."""
    stops = [check for check in look.checks if check.level is Level.STOP]
    if not stops:
        return ""
    return texts.CANNOT_START.format(len(stops)) if len(stops) > 1 else stops[0].text.split(". Got: ")[0]
