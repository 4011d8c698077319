"""Arguments that several commands take, and what they mean."""

from __future__ import annotations

import argparse
import types
import typing
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ptune_core.errors import RunError, SettingsError
from ptune_core.training.plain_yaml import load_mapping, parse_yaml
from ptune_core.training.settings import RunSettings

USER_ERROR = 2

Commands = Any
"""What `ArgumentParser.add_subparsers` returns: its class has no public name."""


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
        SettingsError: As `read_values`, or any value is wrong.
    """
    return RunSettings.parse(read_values(path, overrides))


def read_values(path: Path | None, overrides: Sequence[str]) -> dict[str, Any]:
    """The same as values that nobody has checked.

    Raises:
        SettingsError: The file cannot be read, or an override has no `=`.
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
    return values


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
