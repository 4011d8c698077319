"""What to look at before a run starts: settings that cannot work here, or seldom do, each with a change that helps.

Plain Python over the settings and what is known of base model, rows and machine. Imports no torch. Sentences are the
page's: they name options as people do.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from string import ascii_uppercase
from types import MappingProxyType
from typing import Any

from ptune_core.errors import PTuneError
from ptune_core.model.device import BaseWeights, Device, Precision
from ptune_core.model.facts import BaseFacts
from ptune_core.prompt.kinds import TRAINING_BYTES, EncoderKind, PromptDepth
from ptune_core.prompt.template import Target, TargetKind, with_num_virtual_tokens
from ptune_core.prompt.verbalizer import answer_columns
from ptune_core.training.checked import Check, Fix, Level, Machine, Rows
from ptune_core.training.settings import RunSettings
from ptune_core.training.ways import FEW_ROWS, FEW_VIRTUAL_TOKENS, way_checks

SUGGESTED_RATE = 3e-3
"""The default, measured with MLP and without an encoder (benchmarks/RESULTS.md)."""

MANY_VIRTUAL_TOKENS = 8
"""Below `FEW_ROWS` more are many."""

ENOUGH_VALIDATION_ROWS = 50
MOST_STEPS = 1_000_000
"""Of a run, unless epochs are counted."""

FP32_BYTES = 4


def checks(
    settings: RunSettings,
    rows: Rows | None,
    base: BaseFacts | None,
    machine: Machine,
    ways: Mapping[str, Any] = MappingProxyType({}),
) -> list[Check]:
    """Everything that was looked at, in the order of the page; nothing that is not known.

    Args:
        settings: Of the run.
        rows: What the data give.
        base: What is known of the base model.
        machine: Where the run would be.
        ways: How well labels can be told apart in which way, as `measure_ways` found; empty while it did not.
    """
    known = base or BaseFacts()
    of_rows = [] if rows is None else [
        *_labels(rows), *_answers(settings, rows), *_virtual_tokens(settings, rows), *_validation(settings, rows),
        *_batch(settings, rows), *_reach(settings, rows), *way_checks(settings, rows, known, ways),
    ]  # fmt: skip
    return [
        *_target(settings, known),
        *_depth(settings, known),
        *_memory(settings, known, machine),
        *_length(settings, known),
        *of_rows,
        *_learning_rate(settings),
        *_precision(settings, machine),
        *_device(settings, machine),
    ]


def value_checks(values: Mapping[str, Any]) -> tuple[list[Check], RunSettings | None]:
    """What is wrong with single values, or with all of them together, and the settings without the wrong ones.

    Args:
        values: As `RunSettings.parse` takes them.

    Returns:
        All problems at once, and what can still be looked at: the settings with defaults in place of wrong values; None
        if not even they can be.
    """
    try:
        return [], RunSettings.parse(values)
    except PTuneError as error:
        together = str(error)
    found, rest = [], dict(values)
    of_sweep = {name: values[name] for name in ("template",) if name in values}
    for name, value in values.items():
        try:
            RunSettings.parse({name: value} | (of_sweep if name == "sweep" else {}))
        except PTuneError as error:
            if not _is_of_itself(name, str(error)):
                continue
            found.append(Check(name, Level.STOP, str(error), _default(name)))
            del rest[name]
    try:
        return found, RunSettings.parse(rest)
    except PTuneError as error:
        together = str(error)
    for fix in _OF_COMBINATIONS:
        try:
            settings = RunSettings.parse({**rest, **fix.values})
        except PTuneError:
            continue
        return [*found, Check("together", Level.STOP, together, fix)], settings
    return [*found, Check("together", Level.STOP, together)], None


IN_THE_INPUT = Fix("Train in the input alone", {"prompt_depth": str(PromptDepth.INPUT)})

_OF_COMBINATIONS = (
    Fix("Set precision to auto", {"precision": str(Precision.AUTO)}),
    Fix("Clear the revision", {"revision": None}),
    IN_THE_INPUT,
    Fix("Start from words of the vocabulary", {"prompt_init": "vocabulary"}),
    Fix("Leave the sweep out", {"sweep": {}}),
)
"""Changes that end what two settings have against each other; the first that does is offered."""


def _is_of_itself(name: str, message: str) -> bool:
    """Whether a single value is wrong, and not only in want of another: a start from a text needs the text."""
    return name in ("template", "sweep") or message.startswith(f"{name}: ") or f"\n{name}: " in message


def _default(name: str) -> Fix | None:
    field_ = RunSettings.model_fields[name] if name in RunSettings.model_fields else None
    if field_ is None:
        return None
    default = field_.get_default(call_default_factory=True)
    return Fix("Empty it" if default in (None, "", {}) else f"Set it to {default}", {name: default})


def _target(settings: RunSettings, base: BaseFacts) -> Iterator[Check]:
    target = settings.parsed_template.target
    if not base.targets:
        return
    if target.kind in base.targets:
        yield Check("target", Level.GOOD, f"The base model can {_DOES[target.kind]}.")
        return
    kind = base.targets[0]
    text = f"This base model cannot {_DOES[target.kind]}, which the template asks for. It can {_DOES[kind]}."
    template = with_target(settings.template, target, kind)
    yield Check("target", Level.STOP, text, Fix(f"Use [{kind}:{target.column}]", {"template": template}))


def _depth(settings: RunSettings, base: BaseFacts) -> Iterator[Check]:
    """What reads with some layers and writes with others can do nothing but answer."""
    if settings.prompt_depth is PromptDepth.ALL and base.targets == (TargetKind.ANSWER,):
        text = "Virtual tokens cannot learn in every layer of an encoder-decoder, which this base model is."
        yield Check("depth", Level.STOP, text, IN_THE_INPUT)


_DOES = {
    TargetKind.ANSWER: "write an answer",
    TargetKind.MASK: "fill a mask",
    TargetKind.HEAD: "carry a classification head",
}


def with_target(template: str, target: Target, kind: TargetKind) -> str:
    """The template with another kind of target, at its end, where each of them may stand."""
    rest = re.sub(rf"\s*\[{target.kind}(\*\d+)?:[^\]]*\]", "", template).rstrip()
    return f"{rest} [{kind}:{target.column}]"


def _memory(settings: RunSettings, base: BaseFacts, machine: Machine) -> Iterator[Check]:
    if base.parameters is None:
        return
    is_tuned = settings.base_weights is BaseWeights.TUNED
    needed = needed_bytes(settings, base.parameters)
    sizes = f"about {memory(needed)} of {memory(machine.free)} free"
    what = "Tuning the base model takes" if is_tuned else "The base model takes"
    if needed <= machine.free:
        yield Check("memory", Level.GOOD, f"{what} {sizes}.")
        return
    if is_tuned:
        fix: Fix | None = Fix("Keep it frozen", {"base_weights": str(BaseWeights.FROZEN)})
    elif settings.precision in (Precision.FP32, Precision.AUTO) and not machine.has_gpu:
        fix = Fix("Use bf16, half of it", {"precision": str(Precision.BF16)}) if needed / 2 < machine.free else None
    else:
        fix = None
    level = Level.STOP if needed > machine.total else Level.NOTE
    yield Check("memory", level, f"{what} {sizes}, and the rows come on top.", fix)


def needed_bytes(settings: RunSettings, parameters: int) -> int:
    """Memory for the base model's weights, and for all that tuning them takes."""
    if settings.base_weights is BaseWeights.TUNED:
        return parameters * TRAINING_BYTES
    bits = {Precision.BF16: 16, Precision.INT8: 8, Precision.INT4: 4}.get(settings.precision, 8 * FP32_BYTES)
    return parameters * bits // 8


def memory(size: int) -> str:
    """Bytes as people read memory: ``17 MB``, ``0.5 GB``, ``12 GB``."""
    if size < 10**8:
        return f"{max(1, round(size / 1e6))} MB"
    return f"{size / 1e9:.1f} GB" if size < 10**10 else f"{size / 1e9:.0f} GB"


def _length(settings: RunSettings, base: BaseFacts) -> Iterator[Check]:
    longest, wanted = base.max_positions, settings.max_length
    if longest is None or wanted is None:
        return
    if wanted <= longest:
        yield Check("length", Level.GOOD, f"{wanted} tokens per example fit this base model.")
        return
    text = f"{wanted} tokens per example are more than this base model reads, which is {longest}."
    yield Check("length", Level.STOP, text, Fix(f"Use {longest}", {"max_length": longest}))


def _labels(rows: Rows) -> Iterator[Check]:
    if len(rows.labels) > 1:
        yield Check("labels", Level.GOOD, f"The rows have {len(rows.labels)} labels.")
    elif rows.labels:
        (label,) = rows.labels
        text = f"All rows have the label “{label}”. Classification needs at least two: choose another label column."
        yield Check("labels", Level.STOP, text)


def _answers(settings: RunSettings, rows: Rows) -> Iterator[Check]:
    """By their words alone: which tokens a base model makes of them is seen in the preview."""
    target = settings.parsed_template.target
    if len(rows.answers) < 2 or target.kind is TargetKind.HEAD or answer_columns(rows.answers):
        return
    is_whole = target.kind is TargetKind.MASK
    if not (clashes := clashing(rows.answers, whole=is_whole)):
        yield Check("answers", Level.GOOD, "The labels have answer words of their own.")
        return
    named = [f"{' and '.join(f'“{label}”' for label in labels)} share “{words}”" for words, labels in clashes]
    how = "are the same" if is_whole else "cannot be told apart by their first word"
    fix = _other_answers(tuple(rows.answers), whole=is_whole)
    yield Check("answers", Level.STOP, f"Some answers {how}: {'; '.join(named)}.", fix)


def _other_answers(labels: Sequence[str], *, whole: bool) -> Fix | None:
    """Answers that do not clash: the labels themselves, else letters."""
    own = {label: f" {label}" for label in labels}
    if not clashing(own, whole=whole):
        return Fix("Use the labels", {"labels": own})
    if len(labels) > len(ascii_uppercase):
        return None
    return Fix("Use A, B, C", {"labels": dict(zip(labels, (f" {c}" for c in ascii_uppercase), strict=False))})


def clashing(answers: Mapping[str, str], *, whole: bool) -> list[tuple[str, list[str]]]:
    """Words that several answers share, with their labels: all words, or else the first one."""
    by_words: dict[str, list[str]] = {}
    for label, answer in answers.items():
        words = answer.split()
        by_words.setdefault(" ".join(words if whole else words[:1]), []).append(label)
    return [(words, labels) for words, labels in by_words.items() if len(labels) > 1]


def _virtual_tokens(settings: RunSettings, rows: Rows) -> Iterator[Check]:
    count, examples = settings.parsed_template.num_virtual_tokens, rows.training + rows.validation
    if count <= MANY_VIRTUAL_TOKENS or examples >= FEW_ROWS:
        yield Check("virtual tokens", Level.GOOD, f"{count} virtual tokens suit {examples:,} rows.")
        return
    try:
        fewer = with_num_virtual_tokens(settings.template, FEW_VIRTUAL_TOKENS)
        fix: Fix | None = Fix(f"Use {FEW_VIRTUAL_TOKENS}", {"template": fewer})
    except PTuneError:
        fix = None  # several groups: which of them is the person's choice
    text = f"{count} virtual tokens are many for {examples} rows; below {FEW_ROWS} rows, 2 to 4 often do better."
    yield Check("virtual tokens", Level.NOTE, text, fix)


def _validation(settings: RunSettings, rows: Rows) -> Iterator[Check]:
    count, examples = rows.validation, rows.training + rows.validation
    if count >= ENOUGH_VALIDATION_ROWS:
        yield Check("validation", Level.GOOD, f"{count:,} rows are set aside to measure on.")
        return
    wanted = min(ENOUGH_VALIDATION_ROWS, examples // 2)
    share = round(wanted / examples, 2) if examples else 0.0
    is_more = settings.validation_data is None and share > settings.validation_fraction and wanted > count
    fix = Fix(f"Set {share:.0%} aside", {"validation_fraction": share}) if is_more else None
    worth = f": one of them is {100 / count:.0f}% of the result" if count else ""
    yield Check("validation", Level.NOTE, f"Only {count} rows are set aside to measure on{worth}.", fix)


def _batch(settings: RunSettings, rows: Rows) -> Iterator[Check]:
    if (size := settings.batch_size) is None:
        return  # one that is too large for so few rows is all of them
    if size <= rows.training:
        yield Check("batch", Level.GOOD, f"Batches of {size} fit {rows.training:,} training rows.")
        return
    fitting = 1 << (max(1, rows.training // 2).bit_length() - 1)
    text = f"Batches of {size} are more than the {rows.training} training rows."
    yield Check("batch", Level.NOTE, text, Fix(f"Use {fitting}", {"batch_size": fitting}))


def _reach(settings: RunSettings, rows: Rows) -> Iterator[Check]:
    """How far the steps get through the training rows."""
    at_once = settings.examples_per_batch * settings.gradient_accumulation_steps
    steps, whole = settings.steps_for(rows.training), math.ceil(rows.training / at_once)
    seen = steps * at_once
    if seen >= rows.training:
        times = f"{seen / max(1, rows.training):.1f} times"
        text = f"{steps:,} steps of {at_once:,} go through the {rows.training:,} training rows {times}."
        yield Check("reach", Level.GOOD, text)
        return
    values: dict[str, Any] = {"epochs": 1.0} if settings.epochs or whole > MOST_STEPS else {"max_steps": whole}
    text = (
        f"{steps:,} steps of {at_once:,} see {seen:,} of {rows.training:,} training rows once, and the others never. "
        f"All of them once are {whole:,} steps."
    )
    yield Check("reach", Level.NOTE, text, Fix(f"Use {whole:,} steps", values))


def _learning_rate(settings: RunSettings) -> Iterator[Check]:
    """For each encoder of a sweep the same: its trials differ in what it varies."""
    for rate in settings.sweep.get("learning_rate") or [settings.learning_rate]:
        encoder = settings.encoder_reparameterization_type
        low, high = sensible_rates(encoder)
        if not low <= rate <= high:
            how = "low: the virtual tokens would hardly move" if rate < low else "high: the loss is likely to jump"
            text = f"A learning rate of {rate:g} is too {how}. Usual with this prompt encoder is {low:g} to {high:g}."
            fix = Fix(f"Use {SUGGESTED_RATE:g}", {"learning_rate": SUGGESTED_RATE})
            yield Check("learning rate", Level.NOTE, text, None if settings.sweep.get("learning_rate") else fix)
            return
    yield Check("learning rate", Level.GOOD, "The learning rate is in the usual range.")


def sensible_rates(encoder: EncoderKind) -> tuple[float, float]:
    """Learning rates that are known to work with a prompt encoder; outside of 1e-4 to 0.3 none is."""
    return (1e-3, 0.3) if encoder is EncoderKind.NONE else (1e-4, 0.1)


def _precision(settings: RunSettings, machine: Machine) -> Iterator[Check]:
    if settings.precision in (Precision.INT8, Precision.INT4) and not machine.has_bitsandbytes:
        text = f"{settings.precision} needs the package bitsandbytes, which is not installed here."
        yield Check("precision", Level.STOP, text, Fix("Use auto", {"precision": str(Precision.AUTO)}))


def _device(settings: RunSettings, machine: Machine) -> Iterator[Check]:
    if settings.device is Device.CUDA and not machine.has_gpu:
        text = "There is no GPU on this machine."
        yield Check("device", Level.STOP, text, Fix("Use auto", {"device": str(Device.AUTO)}))
