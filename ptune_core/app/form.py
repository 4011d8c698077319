"""The form of a run: which settings it has, where they stand, and what a control of each holds."""

from __future__ import annotations

import re
import types
import typing
from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import Any

from pydantic.fields import FieldInfo

from ptune_core.app import texts
from ptune_core.errors import PTuneError
from ptune_core.model.catalogue import settings_of
from ptune_core.prompt.kinds import EncoderKind
from ptune_core.training.settings import RunSettings

_COLLECTIONS = {
    name
    for name, field in RunSettings.model_fields.items()
    if {"dict", "list"} & set(re.findall(r"\w+", str(field.annotation)))
}
OWN_CONTROLS = frozenset({"data", "validation_data", "template", "base_model", "halving"} | _COLLECTIONS)
"""Settings that the cards for model, data, prompt and sweep ask for in their own way; no single control holds a
collection."""

NOT_ON_THE_PAGE = ("validation_data", "candidates")
"""Settings that only the command line and settings files have."""

MAIN = ("encoder_reparameterization_type", "prompt_depth", "max_steps", "learning_rate", "batch_size")
"""Settings that are always in view; all others are under Advanced."""

OF_BASE_MODEL = ("base_weights",)
"""Settings in the card of the base model."""

OF_DATA = ("examples_per_label",)
"""Settings in the card of the data."""

_GROUPS: dict[str, tuple[str, ...]] = {
    "Prompt encoder": ("encoder_hidden_size", "encoder_num_layers", "encoder_dropout"),
    "Start of the virtual tokens": ("prompt_init", "prompt_init_text", "prompt_init_adapter", "seed"),
    "Learning": (
        "epochs", "patience", "gradient_accumulation_steps", "warmup_ratio", "weight_decay", "max_grad_norm",
        "base_learning_rate",
    ),
    "Length and evaluation": (
        "max_length", "max_new_tokens", "validation_fraction", "max_validation_rows", "eval_every", "eval_batch_size",
        "checkpoint_every",
    ),
    "Base model": ("revision",),
}  # fmt: skip
_LAST_GROUP = "Memory and precision"

SHOWN_IF: Mapping[str, Callable[[Mapping[str, Any]], bool]] = {
    "encoder_hidden_size": lambda values: _encoder(values) is not EncoderKind.NONE,
    "encoder_num_layers": lambda values: _encoder(values) is EncoderKind.LSTM,
    "encoder_dropout": lambda values: _encoder(values) is EncoderKind.LSTM,
    "prompt_init_text": lambda values: values.get("prompt_init") == "text",
    "prompt_init_adapter": lambda values: values.get("prompt_init") == "adapter",
    "base_learning_rate": lambda values: values.get("base_weights") == "tuned",
}
"""Settings that mean something with some choices only."""


def _encoder(values: Mapping[str, Any]) -> EncoderKind:
    found = values.get("encoder_reparameterization_type")
    return EncoderKind(found) if found in list(EncoderKind) else EncoderKind.MLP


def groups() -> dict[str, tuple[str, ...]]:
    """What is under Advanced, by heading: every setting that is nowhere else, in the last group if no other has it."""
    elsewhere = OWN_CONTROLS | {"name", *MAIN, *OF_BASE_MODEL, *OF_DATA}
    elsewhere |= {name for names in _GROUPS.values() for name in names}
    return _GROUPS | {_LAST_GROUP: tuple(name for name in RunSettings.model_fields if name not in elsewhere)}


def advanced() -> tuple[str, ...]:
    """Every setting under Advanced."""
    return tuple(name for names in groups().values() for name in names)


def default(name: str) -> Any:
    """The default of a setting, as its control shows it."""
    return RunSettings.model_fields[name].get_default(call_default_factory=True)


def shown_value(name: str, value: Any) -> Any:
    """A setting's value as its control takes it: text boxes hold text, choices their names."""
    plain, optional = plain_type(RunSettings.model_fields[name])
    if optional or issubclass(plain, StrEnum):
        return "" if value is None else f"{value:g}" if isinstance(value, float) else str(value)
    return value


def settings_values(values: Mapping[str, Any]) -> dict[str, Any]:
    """What the controls hold, as `RunSettings.parse` takes it: an empty control means the default."""
    return {name: value for name, value in values.items() if value is not None and str(value).strip()}


def changed(values: Mapping[str, Any], base_model: str) -> tuple[str, ...]:
    """Settings under Advanced that are shown and differ from the defaults for this base model."""
    suited = settings_of(base_model)
    return tuple(
        name for name in advanced()
        if is_shown(name, values) and not is_same(name, values.get(name), suited.get(name, default(name)))
    )  # fmt: skip


def is_shown(name: str, values: Mapping[str, Any]) -> bool:
    """Whether a setting means something with what else was chosen."""
    return name not in SHOWN_IF or SHOWN_IF[name](values)


def is_same(name: str, held: Any, value: Any) -> bool:
    """Whether what a control holds means `value`: "3" in a text box is 3, nothing is the default."""
    if held is None or not str(held).strip():
        return value == default(name)
    try:
        return getattr(RunSettings.parse({name: held}), name) == value
    except PTuneError:  # wrong, or in want of another setting
        return str(held) == str(value)


def in_form_words(message: str) -> str:
    """A message about settings with the labels of their controls in place of their names."""

    def labelled(match: re.Match[str]) -> str:
        number, name = match.groups(default="")
        return f"{number}{texts.label(name) if name in RunSettings.model_fields else name}: "

    def quoted(match: re.Match[str]) -> str:
        return f"“{texts.label(match[0])}”" if match[0] in RunSettings.model_fields else match[0]

    message = re.sub(r"^(\d+\. )?(\w+): ", labelled, message, flags=re.MULTILINE)
    return re.sub(r"\b[a-z]+(?:_[a-z]+)+\b", quoted, message)  # a name without a line is a word like any other


def plain_type(field: FieldInfo) -> tuple[type, bool]:
    """``int | None`` -> ``(int, True)``; ``float`` -> ``(float, False)``."""
    annotation = field.annotation
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        (annotation,) = (part for part in typing.get_args(annotation) if part is not type(None))
        assert isinstance(annotation, type)
        return annotation, True
    assert isinstance(annotation, type)
    return annotation, False
