"""`train` and `estimate`."""

from __future__ import annotations

import argparse
import contextlib
import json
import signal
import sys
import tempfile
import threading
import types
from collections.abc import Callable, Iterator
from pathlib import Path

from ptune_core.commands.arguments import USER_ERROR, Commands, add_overrides, read_settings
from ptune_core.steady import keep_steady


def declare(commands: Commands) -> None:
    """Add these commands to the command line."""
    train = commands.add_parser("train", help="train a prompt; resumes if DIR holds a run that did not finish")
    train.add_argument("settings", nargs="?", type=Path, metavar="SETTINGS.yaml",
                       help="see init-settings; without it: the settings of the run in DIR, else the demo")  # fmt: skip
    train.add_argument("--out", required=True, type=Path, metavar="DIR", help="the run directory, made if missing")
    add_overrides(train)
    train.set_defaults(run=train_command)

    estimate = commands.add_parser("estimate", help="say what time and memory a run takes, measured on three steps")
    estimate.add_argument("settings", nargs="?", type=Path, metavar="SETTINGS.yaml", help="without it: the demo")
    estimate.add_argument("--rows", type=Path, metavar="DIR", help="the rows, as a run directory has them in data/")
    estimate.add_argument("--json", action="store_true", help="one JSON object with all numbers, for scripts")
    add_overrides(estimate)
    estimate.set_defaults(run=estimate_command)


def train_command(arguments: argparse.Namespace) -> int:
    """Train in the run directory `--out`, with live progress; Ctrl-C stops at the next step and keeps the result."""
    from ptune_core.runs.directory import RunDirectory
    from ptune_core.runs.terminal import Progress, summary
    from ptune_core.runs.worker import train_here

    directory = RunDirectory(arguments.out)
    given = arguments.settings is not None or arguments.overrides
    if not given and (arguments.out / "run.json").is_file():
        settings = directory.settings()
    else:
        settings = read_settings(arguments.settings, arguments.overrides)
    progress = Progress(sys.stderr)
    with stop_on_interrupt() as should_stop:
        try:
            result = train_here(settings, arguments.out, report=progress.show, should_stop=should_stop)
        finally:
            progress.end_line()
    if not result:  # the main process says what came of it
        return 0
    if result["state"] == "failed":
        print(f"error: {result['error']['text']}", file=sys.stderr)
        return USER_ERROR
    print(summary(result, arguments.out))
    return 0


def estimate_command(arguments: argparse.Namespace) -> int:
    """Print what a run would take; trains a few steps and keeps nothing."""
    from ptune_core.data.ingest import load_source
    from ptune_core.data.table import Tables, open_table
    from ptune_core.runs.starts import read_starts
    from ptune_core.training.session import estimate_run
    from ptune_core.training.ways import told

    keep_steady()  # as the run will be, which it is an estimate of
    settings = read_settings(arguments.settings, arguments.overrides)
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        validation = settings.validation_data
        tables = Tables(
            load_source(settings.data, place / "data") if arguments.rows is None else open_table(arguments.rows),
            None if validation is None else load_source(validation, place / "validation"),
            read_starts(settings, place / "starts"),
        )
        found = estimate_run(settings, tables, place / "run")
        templates = {trial.template for trial in settings.trials}
        if arguments.json:
            print(json.dumps(found.as_numbers(len(settings.trials), len(templates))))
            return 0
        for warning in found.warnings:
            print(f"warning: {warning}", file=sys.stderr)
        print(found.of_sweep(len(settings.trials), len(templates), halving=settings.halving))
        if found.ways:
            print(told(found.ways))
    return 0


@contextlib.contextmanager
def stop_on_interrupt() -> Iterator[Callable[[], bool]]:
    """Make the first Ctrl-C ask to stop, which is what the yielded function tells; the second breaks off as usual."""
    stop = threading.Event()

    def request(_signal: int, _frame: types.FrameType | None) -> None:
        stop.set()
        signal.signal(signal.SIGINT, signal.default_int_handler)

    previous = signal.signal(signal.SIGINT, request)
    try:
        yield stop.is_set
    finally:
        signal.signal(signal.SIGINT, previous)
