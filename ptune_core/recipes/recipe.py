"""Recipes as they are written: one YAML file each, in `settings/`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import resources
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from ptune_core.errors import SettingsError
from ptune_core.recipes.rows import ADAPTERS, Split
from ptune_core.recipes.scores import SCORES
from ptune_core.training.plain_yaml import load_mapping
from ptune_core.training.settings import RunSettings


class PartFile(BaseModel):
    """One part as its YAML says it; what `each` says holds for every part that does not say otherwise.

    Attributes:
        rows: The data adapter, of `rows.ADAPTERS`.
        score: What is measured, of `scores.SCORES`.
        files: Split -> file in the data folder, tried in their order; `all` is shared out by `shares`. A name in
            braces, ``{part}``, is the part's.
        hub: Split -> `hf://` address.
        shares: Of `all`: for training, dev and test.
        candidates: File in the data folder with one word in each line.
        manual: File in the data folder with `relation` and `template` (LAMA), for the prompt that people wrote.
        settings: Options of the run.
        masked: The template for a masked language model; None: there is none for this part.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    rows: str
    score: str
    files: list[dict[str, str]] = Field(default_factory=list)
    hub: dict[Split, str] = Field(default_factory=dict)
    shares: tuple[float, float, float] = (0.7, 0.1, 0.2)
    candidates: str | None = None
    manual: str | None = None
    masked: str | None = None
    settings: dict[str, Any] = Field(default_factory=dict)


@dataclass(frozen=True)
class Recipe:
    """A protocol.

    Attributes:
        name: What `recipe NAME` calls it.
        about: One line.
        needs: What the data folder has to hold, and where it is from.
        seeds: Runs of each part.
        parts: By name, in order.
    """

    name: str
    about: str
    needs: str
    seeds: tuple[int, ...]
    parts: Mapping[str, PartFile] = field(default_factory=dict)

    def settings(self, part: str, changes: Mapping[str, Any], *, masked: bool = False) -> RunSettings:
        """The settings of one run, with `changes` on top of what the part says.

        Args:
            part: Which part.
            changes: Options.
            masked: Whether the base model fills masks.

        Raises:
            SettingsError: A value is wrong, or the part has no template for a masked model.
        """
        plan = self.parts[part]
        if masked and plan.masked is None and "template" not in changes:
            raise SettingsError(
                f"{part} has no template for a masked language model",
                remedy="Choose a decoder, or leave it out by --only",
            )
        template = {"template": plan.masked} if masked else {}
        return RunSettings.parse({**plan.settings, **template, **changes})

    def chosen(self, only: list[str]) -> list[str]:
        """The parts to run: all, or those named.

        Raises:
            SettingsError: There is no such part.
        """
        if unknown := [name for name in only if name not in self.parts]:
            raise SettingsError(
                f"The recipe {self.name} has no such part", got=", ".join(unknown), needed=", ".join(self.parts)
            )
        return [name for name in self.parts if not only or name in only]


def recipe_names() -> list[str]:
    """Every recipe there is."""
    files = resources.files("ptune_core.recipes").joinpath("settings").iterdir()
    return sorted(file.name.removesuffix(".yaml") for file in files if file.name.endswith(".yaml"))


def load_recipe(name: str) -> Recipe:
    """Read a recipe.

    Raises:
        SettingsError: There is none of that name.
    """
    if name not in recipe_names():
        raise SettingsError("There is no such recipe", got=name, needed=", ".join(recipe_names()))
    file = resources.files("ptune_core.recipes").joinpath("settings", f"{name}.yaml")
    return parse_recipe(name, file.read_text(encoding="utf-8"))


def parse_recipe(name: str, text: str) -> Recipe:
    """A recipe from its YAML.

    Raises:
        SettingsError: It names an adapter or a measure that is not there, or lacks something.
    """
    values = load_mapping(text)
    each = values.get("each", {})
    parts = {}
    for part, own in values["parts"].items():
        own = own or {}
        merged = {**each, **own, "settings": {**each.get("settings", {}), **own.get("settings", {})}}
        parts[part] = PartFile.model_validate(_filled(merged, part))
        if (wrong := parts[part]).rows not in ADAPTERS or wrong.score not in SCORES:
            raise SettingsError(f"The recipe {name} names what is not there", got=f"{wrong.rows}, {wrong.score}")
    return Recipe(name, values["about"], values["needs"], tuple(values["seeds"]), parts)


def _filled(value: Any, part: str) -> Any:
    """`value` with the part's name for ``{part}`` in every text; no template may have a column of that name."""
    if isinstance(value, str):
        return value.replace("{part}", part)
    if isinstance(value, dict):
        return {key: _filled(inner, part) for key, inner in value.items()}
    return [_filled(inner, part) for inner in value] if isinstance(value, list) else value
