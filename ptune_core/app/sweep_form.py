"""What a sweep's controls hold: several values of a few settings, trained and ranked in one run."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ptune_core.app import texts
from ptune_core.errors import PTuneError, SettingsError
from ptune_core.prompt.template import parse_template, with_num_virtual_tokens
from ptune_core.training.settings import RunSettings

ENCODER, TOKENS, RATE, SEED = "encoder_reparameterization_type", "virtual_tokens", "learning_rate", "seed"
"""What can be varied on the page; virtual tokens are written into the template, as a sweep has templates."""

_NUMBERS: Mapping[str, tuple[Callable[[str], float], str]] = {
    TOKENS: (int, "a whole number"),
    RATE: (float, "a number"),
    SEED: (int, "a whole number"),
}


def sweep_of(template: str, chosen: Mapping[str, Sequence[str] | None]) -> dict[str, list[Any]]:
    """`RunSettings.sweep` of what the controls hold.

    Raises:
        SettingsError: Values that are no numbers; all of them are named. Or there are several groups of virtual tokens.
    """
    problems: list[str] = []
    sweep: dict[str, list[Any]] = {}
    for name, values in chosen.items():
        if not values:
            continue
        if name == ENCODER:
            sweep[name] = [str(value) for value in values]
            continue
        read, what = _NUMBERS[name]
        numbers = []
        for value in values:
            try:
                numbers.append(read(str(value)))
            except ValueError:
                problems.append(f"{texts.label(name)}: {str(value)[:40]!r} is not {what}")
        sweep[name] = list(dict.fromkeys(numbers))
    if problems:
        raise SettingsError("The sweep has values that are no numbers", got="; ".join(problems))
    if counts := sweep.pop(TOKENS, None):
        sweep = {"template": [with_num_virtual_tokens(template, int(count)) for count in counts], **sweep}
    return sweep


def held_by(settings: RunSettings) -> tuple[dict[str, list[str]], list[str]]:
    """What the controls hold for `settings`, and the options of its sweep that they cannot show."""
    held: dict[str, list[str]] = {name: [] for name in (ENCODER, TOKENS, RATE, SEED)}
    others = []
    for name, values in settings.sweep.items():
        if name == "template":
            counts = _counts(settings.template, values)
            if counts is None:
                others.append(name)
            else:
                held[TOKENS] = counts
        elif name in held:
            held[name] = [f"{value:g}" if isinstance(value, float) else str(value) for value in values]
        else:
            others.append(name)
    return held, others


def _counts(template: str, templates: Sequence[Any]) -> list[str] | None:
    """Numbers of virtual tokens, if `templates` differ from `template` in nothing else."""
    try:
        counts = [parse_template(str(each)).num_virtual_tokens for each in templates]
        same = [with_num_virtual_tokens(template, count) for count in counts]
    except PTuneError:
        return None
    return [str(count) for count in counts] if same == list(templates) else None
