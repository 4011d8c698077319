"""One review of the Train tab: its settings, every check, and what the Run card says of them."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from string import ascii_uppercase
from typing import Any

from ptune_core.app import form, texts
from ptune_core.app.data_report import answers_of, examples_of
from ptune_core.app.drafts import Held
from ptune_core.app.machine import look_at_machine
from ptune_core.app.measuring import Measurement
from ptune_core.app.timed_cache import Recent
from ptune_core.app.token_preview import Looker
from ptune_core.data.columns import inputs_of
from ptune_core.data.table import Table
from ptune_core.demo import DEMO, DEMO_LABELS, DEMO_TEMPLATE
from ptune_core.errors import BaseModelError, DataError, NotOnThisMachine, PTuneError, SettingsError, TemplateError
from ptune_core.model.facts import BaseFacts, base_facts, is_path
from ptune_core.prompt.verbalizer import answer_columns
from ptune_core.training.checks import Check, Fix, Level, Machine, Rows, checks, value_checks
from ptune_core.training.settings import RunSettings


@dataclass(frozen=True)
class Review:
    """What was seen.

    Attributes:
        checks: Everything that was looked at; those of `Level.STOP` first.
        settings: Of the run; None if it cannot start.
        table: The rows; None if there are none.
        rows: What they give with the settings; None if that could not be seen.
        base: What is known of the base model.
        machine: What a run may use.
    """

    checks: tuple[Check, ...]
    settings: RunSettings | None
    table: Table | None
    rows: Rows | None
    base: BaseFacts | None
    machine: Machine


class Watch:
    """Looks at what the controls hold; remembers for a while what takes long to see.

    Args:
        looker: Has the rows people brought, and knows what tokens a base model makes of words.
        shared: Whether strangers share this page.
    """

    def __init__(self, looker: Looker, *, shared: bool) -> None:
        self._looker, self._uploads, self._shared = looker, looker.uploads, shared
        self._rows: Recent[Rows] = Recent(3600.0)
        self._tokens: Recent[Check | None] = Recent(600.0)
        self._facts: Recent[BaseFacts | None] = Recent(20.0)
        self._machine: Recent[Machine] = Recent(10.0, most=1)

    def look(self, held: Held, measured: Measurement | None = None) -> Review:
        """Everything there is to be said of what the controls hold, all of it at once.

        Args:
            held: What they hold.
            measured: What this viewer measured last.
        """
        machine = self._machine.get("", look_at_machine)
        base_model = str(held.values.get("base_model") or "")
        base = self.facts(base_model)
        found, table = [], None
        if base is None and is_path(base_model):
            found.append(Check("base model", Level.STOP, texts.NO_SUCH_FOLDER))
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
            token = "" if table is None else table.path.parent.name
            ways = {} if measured is None else measured.ways_for(settings, token)
            found += [check for check in checks(settings, rows, base, machine, ways) if check.key not in _keys(found)]
            if all(check.level is not Level.STOP for check in found):
                if rows is not None and (wrong_here := self._by_tokens(settings, dict(rows.answers))) is not None:
                    found = [check for check in found if check.key != wrong_here.key] + [wrong_here]
        found.sort(key=lambda check: _ORDER[check.level])
        can_start = all(check.level is not Level.STOP for check in found)
        return Review(tuple(found), settings if can_start else None, table, rows, base, machine)

    def facts(self, base_model: str) -> BaseFacts | None:
        """What is known of a base model."""
        if not base_model or len(base_model) > 400:
            return None
        return self._facts.get(base_model, lambda: base_facts(base_model, may_read_folders=not self._shared))

    def _by_tokens(self, settings: RunSettings, answers: Mapping[str, str]) -> Check | None:
        """What the base model's tokenizer has against template and answers, if it is on this machine.

        Not of the example as it comes: that works, and a fresh page would wait for the inference process to start.
        """
        is_example = settings.base_model == DEMO and settings.template == DEMO_TEMPLATE and answers == DEMO_LABELS
        if is_example or (problem := self._problem_of(settings, answers)) is None or problem.key != "answers":
            return None if is_example else problem
        for name, others in other_answers(list(answers)):
            if self._problem_of(settings, others) is None:
                return replace(problem, fix=Fix(f"Use {name}", {"labels": others}))
        return problem

    def _problem_of(self, settings: RunSettings, answers: Mapping[str, str]) -> Check | None:
        """Why the base model cannot use template and answers; None if it can, or cannot be asked here."""
        template = settings.parsed_template
        fields = {
            "base_model": settings.base_model, "revision": settings.revision, "template": settings.template,
            "labels": dict(answers) or None, "max_length": settings.max_length, "fetch": False,
            "values": dict.fromkeys(inputs_of(template, answer_columns(answers)), "a")
            | {template.target.column: next(iter(answers), "a")},
        }  # fmt: skip
        question = (
            settings.base_model, settings.revision, settings.template, settings.max_length, tuple(answers.items()),
        )  # fmt: skip
        try:
            return self._tokens.get(question, lambda: _told(self._looker, fields))
        except PTuneError:
            return None

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


def other_answers(labels: Sequence[str]) -> Iterator[tuple[str, dict[str, str]]]:
    """Answers to try in place of some that cannot be told apart, and what to call them."""
    yield "the labels without a space", {label: label.strip() for label in labels}
    if len(labels) <= len(ascii_uppercase):
        for space in (" ", ""):
            yield "A, B, C", {label: space + letter for label, letter in zip(labels, ascii_uppercase, strict=False)}


def _told(looker: Looker, fields: Mapping[str, object]) -> Check | None:
    """What is wrong, so that it can be remembered; what has nothing to do with the question is raised."""
    try:
        looked = looker.look(fields)
    except NotOnThisMachine:
        raise
    except (SettingsError, BaseModelError) as error:
        return Check("template", Level.STOP, str(error))
    problems = dict.fromkeys(answer["problem"] for answer in looked["answers"] if answer["problem"])
    return Check("answers", Level.STOP, texts.SAME_TOKENS.format("; ".join(problems))) if problems else None


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
