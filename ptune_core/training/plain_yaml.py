"""YAML as settings are written in it: plain values only, and yes and no stay words."""

from __future__ import annotations

import re
from typing import Any

import yaml

from ptune_core.errors import SettingsError

MOST_NESTED = 8
"""Levels of lists and mappings in a settings file; a sweep over words takes three."""


class _PlainLoader(yaml.SafeLoader):
    """YAML 1.2's booleans: `true` and `false` alone, so that the labels yes, no, on and off stay text."""


_PlainLoader.yaml_implicit_resolvers = {
    start: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:bool"]
    for start, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_PlainLoader.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile("^(true|false)$"), ["t", "f"])


def parse_yaml(text: str) -> Any:
    """One YAML value, such as what follows `--set option=`.

    Raises:
        SettingsError: It is not YAML.
    """
    try:
        return yaml.load(text, Loader=_PlainLoader)
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # such as a date that does not exist
        raise SettingsError("The settings are not valid YAML", got=" ".join(str(error).split())) from None


def check_plain(text: str) -> None:
    """Refuse YAML that is no plain settings file: a few kB of it can stand for more than memory holds.

    Raises:
        SettingsError: It refers to parts of itself, is nested deeply, or is not YAML.
    """
    depth = 0
    try:
        for event in yaml.parse(text, Loader=_PlainLoader):
            if isinstance(event, yaml.AliasEvent):
                raise SettingsError("The settings refer to parts of themselves", got=f"*{event.anchor}",
                                    needed="every value written out")  # fmt: skip
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if depth > MOST_NESTED:
                raise SettingsError("The settings are nested too deeply", needed=f"at most {MOST_NESTED} levels")
    except yaml.YAMLError as error:
        raise SettingsError("The settings are not valid YAML", got=" ".join(str(error).split())) from None


def load_mapping(text: str) -> dict[str, Any]:
    """The mapping that YAML `text` holds.

    Raises:
        SettingsError: It is not YAML, or not a mapping.
    """
    values = parse_yaml(text)
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise SettingsError("The settings must be a mapping of option to value", got=type(values).__name__)
    return values
