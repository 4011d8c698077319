"""`recipe`: published protocols as one command."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from ptune_core.commands.arguments import USER_ERROR, Commands, add_overrides, override_value, split_pair
from ptune_core.errors import SettingsError


def declare(commands: Commands) -> None:
    """Add this command to the command line."""
    recipe = commands.add_parser("recipe", help="repeat a published protocol (LAMA, FewGLUE, ...); see recipe --list")
    recipe.add_argument("name", nargs="?", metavar="NAME", help="which recipe")
    recipe.add_argument("--list", action="store_true", help="say which there are and what data they need")
    recipe.add_argument("--data", metavar="DIR|hub", help="folder with the data set, or hub to fetch it")
    recipe.add_argument("--base-model", metavar="ID", help="'demo', a Hub id, or a folder (default: demo)")
    recipe.add_argument(
        "--out", type=Path, metavar="DIR", help="everything is written here; what is there is not repeated"
    )
    recipe.add_argument("--seeds", metavar="N,N", help="instead of the recipe's")
    recipe.add_argument("--only", metavar="PART,PART", help="these parts alone")
    recipe.add_argument("--limit", type=int, metavar="N", help="at most N rows of each split, for a trial")
    add_overrides(recipe)
    recipe.set_defaults(run=recipe_command)


def recipe_command(arguments: argparse.Namespace) -> int:
    """Run a recipe, or what is left of it, and print its table; `results.json` in DIR has the same and more."""
    from ptune_core.recipes.recipe import load_recipe, recipe_names

    if arguments.list or arguments.name is None:
        for name in recipe_names():
            found = load_recipe(name)
            print(f"{name}: {found.about}\n  parts: {', '.join(found.parts)}\n  data: {found.needs}")
        return 0
    recipe = load_recipe(arguments.name)
    if arguments.data is None or arguments.out is None:
        raise SettingsError("A recipe needs data and a place for its results", needed="--data DIR|hub and --out DIR")
    if arguments.limit is not None and arguments.limit < 1:
        raise SettingsError("No rows would be left", got=f"--limit {arguments.limit}", needed="at least 1")
    from ptune_core.files import atomic_write
    from ptune_core.recipes.protocol import Failure, Options, run_recipe
    from ptune_core.recipes.report import as_text, as_values

    options = Options(
        out=arguments.out,
        data=arguments.data,
        settings=_settings(arguments),
        seeds=_seeds(arguments.seeds),
        only=tuple(filter(None, (arguments.only or "").split(","))),
        limit=arguments.limit,
    )
    outcomes = []
    for outcome in run_recipe(recipe, options, lambda line: print(line, file=sys.stderr, flush=True)):
        outcomes.append(outcome)
        atomic_write(arguments.out / "results.json", json.dumps(as_values(recipe, outcomes), indent=1).encode())
    print(as_text(recipe, outcomes))
    return USER_ERROR if all(isinstance(outcome, Failure) for outcome in outcomes) else 0


def _settings(arguments: argparse.Namespace) -> dict[str, Any]:
    settings: dict[str, Any] = {}
    for override in arguments.overrides:
        option, text = split_pair("--set", override, "OPTION=VALUE")
        settings[option] = override_value(option, text)
    if arguments.base_model is not None:
        settings["base_model"] = arguments.base_model
    return settings


def _seeds(text: str | None) -> tuple[int, ...]:
    try:
        return tuple(int(seed) for seed in text.split(",")) if text else ()
    except ValueError:
        raise SettingsError("The seeds are not numbers", got=text or "", needed="such as 42,43,44") from None
