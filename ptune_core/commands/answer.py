"""`classify` and `chat`."""

from __future__ import annotations

import argparse
import contextlib
import importlib
import sys
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ptune_core.commands.arguments import USER_ERROR, Commands, add_adapter, find_adapter, split_pair
from ptune_core.errors import PTuneError

if TYPE_CHECKING:
    from ptune_core.inference.protocol import Classification, Generated


def declare(commands: Commands) -> None:
    """Add these commands to the command line."""
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
        print(f"{about['base_model']} ({about['base_weights']}) · {about['template']}\nCtrl-D ends.", file=sys.stderr)
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
