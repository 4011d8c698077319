"""`check`, `alarms` and `compare`: what the page says of settings and of runs, in a terminal."""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from ptune_core.commands.arguments import USER_ERROR, Commands, add_overrides, read_values
from ptune_core.errors import PTuneError

if TYPE_CHECKING:
    from ptune_core.training.checked import Check, Rows
    from ptune_core.training.settings import RunSettings


def declare(commands: Commands) -> None:
    """Add these commands to the command line."""
    check = commands.add_parser("check", help="say what settings and their data have against them, with what mends it")
    check.add_argument("settings", nargs="?", type=Path, metavar="SETTINGS.yaml", help="without it: the demo")
    add_overrides(check)
    check.set_defaults(run=check_command)

    alarms = commands.add_parser("alarms", help="say what is wrong with a run, with what mends it")
    alarms.add_argument("directory", type=Path, metavar="DIR", help="a run directory")
    alarms.set_defaults(run=alarms_command)

    compare = commands.add_parser("compare", help="what runs came to, beside each other, and the settings that differ")
    compare.add_argument("directories", nargs="+", type=Path, metavar="DIR", help="run directories")
    compare.set_defaults(run=compare_command)


def check_command(arguments: argparse.Namespace) -> int:
    """Every check of a run before it starts; the exit code is 2 if it cannot start."""
    from ptune_core.app.command_line import overrides
    from ptune_core.training.checked import Level

    found = _checks(read_values(arguments.settings, arguments.overrides))
    marks = {Level.STOP: "must be changed", Level.NOTE: "please look", Level.GOOD: "fine"}
    for level, mark in marks.items():
        for check in (each for each in found if each.level is level):
            print(f"{mark}: {check.text}")
            if check.fix:
                print(f"    {check.fix.label}: {overrides(check.fix.values)}")
    return USER_ERROR if any(check.level is Level.STOP for check in found) else 0


def _checks(values: dict[str, object]) -> list[Check]:
    from ptune_core.app.machine import look_at_machine
    from ptune_core.model.facts import base_facts
    from ptune_core.training.checked import Check, Level
    from ptune_core.training.checks import checks, value_checks

    found, settings = value_checks(values)
    if settings is None:
        return found
    rows: Rows | None = None
    try:
        rows = _rows(settings)
    except PTuneError as error:
        found.append(Check("rows", Level.STOP, str(error)))
    told = {check.key for check in found}
    others = checks(settings, rows, base_facts(settings.base_model), look_at_machine(), {})
    return [*found, *(check for check in others if check.key not in told)]


def _rows(settings: RunSettings) -> Rows:
    from ptune_core.app.review import rows_of
    from ptune_core.data.ingest import load_source

    with tempfile.TemporaryDirectory() as folder:
        return rows_of(load_source(settings.data, Path(folder) / "data"), settings)


def alarms_command(arguments: argparse.Namespace) -> int:
    """What is wrong with the run, the cause first."""
    from ptune_core.app.command_line import overrides
    from ptune_core.app.results import alarms_of
    from ptune_core.runs.run import run_at

    found = alarms_of(run_at(arguments.directory))
    for alarm in found:
        print(f"{alarm.text} {alarm.note}".rstrip())
        for fix in alarm.fixes:
            print(f"    {fix.label}: {overrides(fix.changes)}")
    if not found:
        print("Nothing is wrong.")
    return 0


def compare_command(arguments: argparse.Namespace) -> int:
    """Each run in a line, then the settings in which they are not the same."""
    from ptune_core.app.comparison import compare
    from ptune_core.runs.run import run_at

    runs = {str(number): run_at(path) for number, path in enumerate(arguments.directories)}
    found = compare([{"run": number} for number in runs], lambda number: runs[number])
    rows = [["run", "state", "best", "at step", "baselines"]]
    for curve, path in zip(found["curves"], arguments.directories, strict=True):
        baselines = ", ".join(f"{each['name']} {each['value']:.3f}" for each in curve["baselines"])
        best = "-" if curve["best"] is None else f"{curve['best']:.3f} {curve['metric'] or ''}".rstrip()
        rows.append([str(path), str(curve["state"]), best, str(curve["best_step"] or 0), baselines])
    _print_table(rows)
    if found["differing"]:
        print()
        _print_table(
            [["setting", *map(str, arguments.directories)]]
            + [[each["setting"], *each["values"]] for each in found["differing"]]
        )
    return 0


def _print_table(rows: list[list[str]]) -> None:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
