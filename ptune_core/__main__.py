"""The command line: ``python -m ptune_core COMMAND``. The same functions as the page, without it.

Commands import what they need when they run, so `--help`, `init-settings` and `deploy` are there at once. An error made
for people goes to stderr and the exit code is 2; results go to stdout, progress to stderr.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import os
import runpy
import signal
import sys
import tempfile
import threading
import types
import typing
from collections.abc import Callable, Generator, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ptune_core
from ptune_core.errors import DiskFull, PTuneError, RunError, SettingsError
from ptune_core.files import NO_ROOM
from ptune_core.training.settings import RunSettings, load_mapping, parse_yaml

if TYPE_CHECKING:
    from ptune_core.inference.protocol import Classification, Generated

USER_ERROR = 2
INTERRUPTED = 128 + signal.SIGINT
EXAMPLE_SPACE = "OWNER/ptune"


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code: 0 done, 2 an error made for people, 130 broken off by Ctrl-C."""
    arguments = build_parser().parse_args(argv)
    try:
        return arguments.run(arguments)
    except PTuneError as error:
        print(f"error: {error}", file=sys.stderr)
        return USER_ERROR
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:  # the reader, such as `head`, has left; Python's own flush at exit must not complain again
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    except OSError as error:
        if error.filename is None and error.errno not in NO_ROOM:
            raise
        print(f"error: {file_error(error)}", file=sys.stderr)
        return USER_ERROR


def file_error(error: OSError) -> PTuneError:
    """What to tell about a file or folder that the system refused, wherever in a command that was."""
    place = "" if error.filename is None else str(error.filename)
    if error.errno in NO_ROOM:
        return DiskFull("The disk is full", got=place, remedy="Free some space, or choose another place, and try again")
    remedy = "Choose another place, or change its permissions"
    return PTuneError(f"{place} cannot be read or written", got=error.strerror or str(error), remedy=remedy)


def build_parser() -> argparse.ArgumentParser:
    """The parser of all commands; `run` of its result is the function to call."""
    parser = argparse.ArgumentParser(prog="python -m ptune_core", description=ptune_core.__doc__.splitlines()[0])
    parser.add_argument("--version", action="version", version=f"PTune {ptune_core.__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    train = commands.add_parser("train", help="train a prompt; resumes if DIR holds a run that did not finish")
    train.add_argument("settings", nargs="?", type=Path, metavar="SETTINGS.yaml",
                       help="see init-settings; without it: the settings of the run in DIR, else the demo")  # fmt: skip
    train.add_argument("--out", required=True, type=Path, metavar="DIR", help="the run directory, made if missing")
    add_overrides(train)
    train.set_defaults(run=train_command)

    estimate = commands.add_parser("estimate", help="say what time and memory a run takes, measured on three steps")
    estimate.add_argument("settings", nargs="?", type=Path, metavar="SETTINGS.yaml", help="without it: the demo")
    add_overrides(estimate)
    estimate.set_defaults(run=estimate_command)

    classify = commands.add_parser("classify", help="label the rows of a file")
    add_adapter(classify)
    classify.add_argument("--input", required=True, type=Path, metavar="F", help="rows, in any format of `data`")
    classify.add_argument(
        "--output", required=True, type=Path, metavar="G", help="a CSV file: the same rows, with label and p_… added"
    )
    classify.add_argument("--column", action="append", default=[], metavar="NAME=COLUMN", dest="columns",
                          help="fill the template's column NAME from the input's COLUMN")  # fmt: skip
    classify.set_defaults(run=classify_command)

    chat = commands.add_parser("chat", help="type text, read what the tuned model says")
    add_adapter(chat)
    chat.add_argument("--base", action="store_true", help="show the base model's answer too")
    chat.add_argument("--max-new-tokens", type=int, default=64, metavar="N", help="longest answer (default: 64)")
    chat.add_argument("--temperature", type=float, default=0.0, metavar="T", help="0, the default: the likeliest token")
    chat.add_argument("--seed", type=int, default=0, metavar="N", help="decides what a temperature leaves to chance")
    chat.set_defaults(run=chat_command)

    export = commands.add_parser("export", help="check an adapter and pack it as a zip with card and snippet")
    add_adapter(export)
    export.add_argument("--out", required=True, type=Path, metavar="FILE.zip", help="replaced if it exists")
    export.set_defaults(run=export_command)

    inspect = commands.add_parser("inspect", help="show what virtual tokens became: words near them, length, movement")
    add_adapter(inspect)
    inspect.add_argument("--words", type=int, default=5, metavar="N", help="nearest words of each (default: 5)")
    inspect.set_defaults(run=inspect_command)

    init = commands.add_parser("init-settings", help="print settings with every option, its help and its bounds")
    init.set_defaults(run=init_settings_command)

    deploy = commands.add_parser("deploy", help="explain what the Spacefile would make of a Hugging Face Space")
    deploy.add_argument("--dry-run", action="store_true", help="needed for now: explain the plan and send nothing")
    deploy.add_argument("--repo-id", default=EXAMPLE_SPACE, metavar="OWNER/NAME", help="the Space")
    deploy.set_defaults(run=deploy_command)

    # No prefix: every flag, `--help` too, is app.py's to read.
    serve = commands.add_parser(
        "serve", help="open the page; flags as app.py, see serve --help", prefix_chars="\0", add_help=False
    )
    serve.add_argument("flags", nargs="*")
    serve.set_defaults(run=serve_command)
    return parser


def add_overrides(command: argparse.ArgumentParser) -> None:
    """Declare the argument that changes single options."""
    command.add_argument("--set", action="extend", nargs="+", default=[], metavar="OPTION=VALUE", dest="overrides",
                         help="change options; the value is YAML, or plain text where the option is text")  # fmt: skip


def add_adapter(command: argparse.ArgumentParser) -> None:
    """Declare the argument that names an adapter."""
    command.add_argument(
        "adapter", type=Path, metavar="ADAPTER", help="folder or zip of an adapter, or a run directory"
    )


def find_adapter(given: Path) -> Path:
    """The adapter that `given` means: itself, or the one in it if it is a run directory.

    Raises:
        RunError: It is a run directory without an adapter yet.
    """
    if not (given / "run.json").is_file():
        return given
    adapter = given / "adapter"
    if not adapter.is_dir():
        raise RunError("This run has no adapter", got=str(given), remedy="Train it first; train with --out resumes it")
    return adapter


def read_settings(path: Path | None, overrides: Sequence[str]) -> RunSettings:
    """The settings of a file, or the defaults, with `overrides` (OPTION=VALUE) on top.

    Raises:
        SettingsError: The file cannot be read, an override has no `=`, or any value is wrong.
    """
    values: dict[str, Any] = {}
    if path is not None:
        try:
            values = load_mapping(path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError) as error:
            raise SettingsError("The settings cannot be read", got=f"{path}: {error}") from None
    for override in overrides:
        option, text = split_pair("--set", override, "OPTION=VALUE")
        values[option] = override_value(option, text)
    return RunSettings.parse(values)


def split_pair(flag: str, pair: str, form: str) -> tuple[str, str]:
    """The two sides of `pair`.

    Raises:
        SettingsError: It has no `=`; `form` says what it should look like.
    """
    left, equals, right = pair.partition("=")
    if not equals:
        raise SettingsError(f"{flag} needs two sides", got=pair, needed=form)
    return left, right


def override_value(option: str, text: str) -> object:
    """The value of ``--set option=text``: `text` itself where the option holds text, else what it is as YAML.

    A template would be broken YAML (``[P*8] {text}``), and a revision of digits a number.

    Raises:
        SettingsError: It is not YAML.
    """
    annotation = RunSettings.model_fields[option].annotation if option in RunSettings.model_fields else None
    kinds = typing.get_args(annotation) if isinstance(annotation, types.UnionType) else (annotation,)
    if str in kinds:
        return None if text == "" and types.NoneType in kinds else text
    try:
        return parse_yaml(text)
    except SettingsError as error:
        raise SettingsError(f"The value of --set {option} is not YAML", got=error.got) from None


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
    from ptune_core.data.table import Tables
    from ptune_core.training.session import estimate_run

    settings = read_settings(arguments.settings, arguments.overrides)
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        validation = settings.validation_data
        tables = Tables(
            load_source(settings.data, place / "data"),
            None if validation is None else load_source(validation, place / "validation"),
        )
        found = estimate_run(settings, tables, place / "run")
        print(found.of_sweep(len(settings.trials), len({trial.template for trial in settings.trials})))
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


def classify_command(arguments: argparse.Namespace) -> int:
    """Write the rows of `--input` with a label and one probability per label to `--output`."""
    from ptune_core.inference.batch import classify_file

    columns = dict(split_pair("--column", pair, "NAME=COLUMN") for pair in arguments.columns)
    print(classify_file(find_adapter(arguments.adapter), arguments.input, arguments.output, columns=columns))
    return 0


def chat_command(arguments: argparse.Namespace) -> int:
    """Answer line by line until the end of input; each line stands alone."""
    from ptune_core.inference.client import InferenceClient
    from ptune_core.runs.directory import data_directory

    with contextlib.suppress(ImportError):
        importlib.import_module("readline")  # arrow keys and history in `input`; not everywhere
    directory = data_directory()
    adapter = find_adapter(arguments.adapter)
    exit_code = 0
    with InferenceClient(directory / "chat.log", directory) as client:
        about = client.describe(adapter)
        print(f"{about['base_model']} · {about['template']}\nCtrl-D ends.", file=sys.stderr)
        while (values := ask(about["columns"])) is not None:
            try:
                if about["task"] == "classify":
                    show_labels(client.classify(adapter, [values], compare=arguments.base))
                else:
                    options = {"max_new_tokens": arguments.max_new_tokens, "temperature": arguments.temperature}
                    stream(client.generate(adapter, values, compare=arguments.base, seed=arguments.seed, **options))
            except PTuneError as error:  # one text that cannot be answered does not end the conversation
                print(f"error: {error}", file=sys.stderr)
                exit_code = USER_ERROR
    return exit_code


def ask(columns: Sequence[str]) -> dict[str, str] | None:
    """One text for each column, typed by a person or read from a pipe; None at the end of input."""
    try:
        return {column: input(f"{column}> " if sys.stdin.isatty() else "") for column in columns}
    except EOFError:
        return None


def show_labels(found: Classification) -> None:
    """Print the labels of one text, likeliest first, and the base model's below if they were asked for."""
    print(_ranked(found["labels"], found["tuned"][0]))
    if found["base"]:
        print(f"base: {_ranked(found['labels'], found['base'][0])}")
    if found["note"]:
        print(found["note"], file=sys.stderr)


def _ranked(labels: Sequence[str], probabilities: Sequence[float]) -> str:
    ranked = sorted(zip(probabilities, labels, strict=True), reverse=True)
    return " · ".join(f"{label} {probability:.2f}" for probability, label in ranked)


def stream(parts: Generator[Generated, None, None]) -> None:
    """Print a growing answer as it grows, then the base model's if it was asked for. Ctrl-C ends this answer only."""
    shown, base = "", None
    try:
        for part in parts:
            print(part["tuned"][len(shown) :], end="", flush=True)
            shown, base = part["tuned"], part["base"]
    except KeyboardInterrupt:
        parts.close()
    print()
    if base is not None:
        print(f"base: {base}")


def export_command(arguments: argparse.Namespace) -> int:
    """Check an adapter, PEFT's own included, and write it as a zip with card, snippet and loader."""
    from ptune_core.adapters.export import export_adapter
    from ptune_core.adapters.format import load_adapter

    adapter = load_adapter(find_adapter(arguments.adapter))
    with tempfile.TemporaryDirectory() as folder:
        export_adapter(adapter, Path(folder) / "adapter", arguments.out)
    print(arguments.out)
    return 0


def inspect_command(arguments: argparse.Namespace) -> int:
    """Print an adapter's virtual tokens beside the words of its base model."""
    from ptune_core.inference.loaded import LoadedAdapter
    from ptune_core.model.base import load_base_model
    from ptune_core.model.insight import as_text, virtual_tokens

    adapter = LoadedAdapter(find_adapter(arguments.adapter))
    key = adapter.base_key
    base = load_base_model(
        key.id, target=key.target, num_labels=key.num_labels, revision=key.revision, device="cpu"
    )  # fmt: skip
    print(as_text(adapter.trained, base, virtual_tokens(adapter.trained, base, max(1, arguments.words))))
    return 0


def init_settings_command(arguments: argparse.Namespace) -> int:
    """Print the default settings, commented."""
    print(RunSettings().to_yaml(), end="")
    return 0


def deploy_command(arguments: argparse.Namespace) -> int:
    """Explain what a deployment would do."""
    from ptune_core.deploy import explain, read_spacefile

    if not arguments.dry_run:
        raise SettingsError(
            "This version plans a deployment but does not carry it out",
            needed="--dry-run",
            remedy="Make the calls it prints yourself, or wait for a later version",
        )
    folder = Path.cwd()
    print(explain(read_spacefile(folder / "Spacefile"), folder, arguments.repo_id, os.environ))
    return 0


def serve_command(arguments: argparse.Namespace) -> int:
    """Open the page; the flags are those of app.py."""
    entry = Path(ptune_core.__file__).parent.parent / "app.py"
    if not entry.is_file():
        raise SettingsError("The page's entry is not here", got=str(entry), remedy="Run serve from a clone of PTune")
    sys.argv = [str(entry), *arguments.flags]
    runpy.run_path(str(entry), run_name="__main__")
    return 0


if __name__ == "__main__":
    sys.exit(main())
