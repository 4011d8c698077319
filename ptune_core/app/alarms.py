"""What is wrong with a run, in one sentence, and the settings that would mend it. Plain Python over what is known.

Of several things that go together the one that explains most is told: a calm page has one alarm, rarely two.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from ptune_core.app import texts
from ptune_core.app.texts import outcome
from ptune_core.model.device import BaseWeights
from ptune_core.model.head_input import HeadStart
from ptune_core.prompt.kinds import PromptDepth
from ptune_core.prompt.segments import TargetKind
from ptune_core.runs.directory import has_diverged
from ptune_core.runs.evaluations import Evaluated
from ptune_core.runs.states import RunState
from ptune_core.training.checks import ENOUGH_VALIDATION_ROWS
from ptune_core.training.settings import RunSettings
from ptune_core.training.ways import head_instead

LOWEST_RATE, HIGHEST_RATE = 1e-4, 0.3
"""A learning rate outside of these is flagged."""

USUAL_RATE: float = RunSettings.model_fields["learning_rate"].default
_FLAT = 0.01
"""A validation loss that has fallen by no more than this share is flat."""

_LATE = 0.2
"""The share of the steps at the end in which the best one must be for more to be likely to help."""

_EARLY = 4
"""Evaluations after step 0 before a run that still trains is judged."""

_MOST_ACCUMULATION = 1024
_USUAL_LENGTH = 512
_MEMORY = "memory ran out"


class Kind(StrEnum):
    """What an alarm is about."""

    OUTDATED = "outdated"
    DIVERGED = "diverged"
    MEMORY = "memory"
    ENDED = "ended"
    RATE = "rate"
    FEW_MEASURED = "few-measured"
    ONE_CLASS = "one-class"
    BELOW_PROBE = "below-probe"
    NO_BETTER = "no-better"
    FLAT = "flat"
    UNSEEN = "unseen"


@dataclass(frozen=True)
class Fix:
    """Settings that would mend it.

    Attributes:
        label: What the button says.
        name: What is changed, for the new run's name.
        changes: Options and their new values.
    """

    label: str
    name: str
    changes: dict[str, Any]


@dataclass(frozen=True)
class Alarm:
    """One thing that is wrong.

    Attributes:
        text: What happened and what is safe.
        note: What the fixes do, or what else helps.
        fixes: The buttons.
    """

    kind: Kind
    text: str
    note: str = ""
    fixes: tuple[Fix, ...] = ()

    @property
    def is_error(self) -> bool:
        """Whether the run ended because of it."""
        return self.kind in (Kind.DIVERGED, Kind.MEMORY, Kind.ENDED)


@dataclass(frozen=True)
class Facts:
    """What is known of a run.

    Attributes:
        reason: Why it is in this state, as the run says it.
        result: Of `result.json`; empty while there is none.
        evaluations: So far.
        planned_steps: None before it is known.
        phase: What it was doing last.
        saved_step: Of the newest checkpoint, None if there is none.
        can_have_head: Whether the base model can have a classification head, as far as that is known.
    """

    settings: RunSettings
    state: RunState
    reason: str = ""
    result: Mapping[str, Any] = field(default_factory=dict)
    evaluations: Sequence[Evaluated] = ()
    planned_steps: int | None = None
    phase: str = ""
    saved_step: int | None = None
    can_have_head: bool = False


_BY_RATE = (Kind.ONE_CLASS, Kind.NO_BETTER, Kind.FLAT)


def alarms(facts: Facts) -> list[Alarm]:
    """What is wrong, the cause before the consequence; nothing for a run that does well."""
    if facts.state in (RunState.FAILED, RunState.INTERRUPTED):
        return [_ended_badly(facts)]
    if facts.state is RunState.QUEUED:
        return list(filter(None, [_rate(facts)]))
    # On a few rows nothing can be told; a probe that does better says more than rates do.
    learning = _few_measured(facts) or _one_class(facts) or _below_probe(facts) or _no_better(facts) or _flat(facts)
    rate = _rate(facts) if facts.state.is_active or learning else None
    if rate is not None and learning is not None and learning.kind in _BY_RATE:  # one button for what both come from
        learning = Alarm(learning.kind, learning.text)
    return [alarm for alarm in (rate, learning or _unseen(facts)) if alarm is not None]


def fix_named(found: Sequence[Alarm], name: str) -> Fix | None:
    """The fix that `key_of` gave this name; None if it is not offered, or not any more."""
    return next((fix for alarm in found for i, fix in enumerate(alarm.fixes) if key_of(alarm, i) == name), None)


def key_of(alarm: Alarm, index: int) -> str:
    """A name for one fix of an alarm, which the browser sends back."""
    return f"{alarm.kind}-{index}"


def _ended_badly(facts: Facts) -> Alarm:
    error = facts.result.get("error") or {}
    text = str(error.get("text") or facts.reason or texts.ENDED_SILENTLY)
    if has_diverged(facts.result):
        return Alarm(Kind.DIVERGED, text, fixes=_gentler(facts.settings))
    is_memory = error.get("kind") == "OutOfMemory" or _MEMORY in facts.reason
    if is_memory and facts.phase in ("preparing", "training", ""):
        return Alarm(Kind.MEMORY, text, texts.SAME_BATCH, _smaller(facts.settings))
    last = facts.evaluations[-1].step if facts.evaluations else 0
    if facts.state is RunState.INTERRUPTED and facts.planned_steps and last:
        text += f" It had come past step {last:,} of {facts.planned_steps:,}."
    saved = "" if facts.saved_step is None else f"Saved up to step {facts.saved_step:,}. "
    return Alarm(Kind.ENDED, text, saved + (texts.RESUME_HERE if saved else texts.RESUME))


def _one_class(facts: Facts) -> Alarm | None:
    label = _only_label(facts)
    if label is None:
        return None
    majority = facts.result.get("baseline_majority")
    known = "" if majority is None else f" ({texts.number(majority)})"
    text = texts.ONE_CLASS.format(label=label, majority=known)
    with_head = _with_head(facts) if outcome.below_probe(facts.result) else ()
    return Alarm(Kind.ONE_CLASS, text, texts.USUAL_CAUSES, (*with_head, *_other_rates(facts.settings)))


def _few_measured(facts: Facts) -> Alarm | None:
    """Early stop keeps step 0 on a handful of rows, and the run would end green."""
    text = outcome.few_measured(facts.result)
    if not text or facts.state.is_active:
        return None
    settings = facts.settings
    of_rows = int(facts.result.get("train_examples") or 0) + int(facts.result["validation_examples"])
    wanted = round(min(ENOUGH_VALIDATION_ROWS, of_rows // 2) / of_rows, 2)
    if settings.validation_data is not None or wanted <= settings.validation_fraction:
        return Alarm(Kind.FEW_MEASURED, text)
    what = f"{wanted:.0%} of the rows to measure on"
    changes = {"validation_fraction": wanted}
    return Alarm(Kind.FEW_MEASURED, text, outcome.SET_MORE_ASIDE, (Fix(texts.retry_with(what), what, changes),))


def _below_probe(facts: Facts) -> Alarm | None:
    result, settings = facts.result, facts.settings
    if facts.state.is_active or not outcome.below_probe(result):
        return None
    fixes: tuple[Fix, ...]
    if settings.parsed_template.target.kind is not TargetKind.HEAD:
        fixes = _with_head(facts)
        note = outcome.TRY_A_HEAD if fixes else outcome.TRY_MORE
        fixes = fixes or (_more_steps(settings),)
    elif settings.head_start is HeadStart.ZERO and "head_start" not in settings.sweep:
        what = "a head that starts from the probe"
        note, fixes = outcome.TRY_THE_START, (Fix(texts.retry_with(what), what, {"head_start": "auto"}),)
    else:
        deeper = _deeper(settings)
        note = outcome.TRY_DEEPER if deeper else outcome.TRY_GENTLER
        fixes = (*deeper, *_gentler(settings), _more_steps(settings))
    return Alarm(Kind.BELOW_PROBE, outcome.below_probe_text(result), note, fixes)


def _with_head(facts: Facts) -> tuple[Fix, ...]:
    """A classification head on the same rows in place of words, where the base model can have one."""
    result = facts.result
    num_rows = int(result.get("train_examples") or 0) + int(result.get("validation_examples") or 0)
    changes = head_instead(facts.settings, num_rows) if facts.can_have_head else {}
    what = "a classification head"
    return (Fix(texts.retry_with(what), what, {**changes, "labels": None}),) if changes else ()


def _unseen(facts: Facts) -> Alarm | None:
    """That a run which was best at its end has not seen all rows."""
    result, settings = facts.result, facts.settings
    steps, rows, best = result.get("steps"), result.get("train_examples"), result.get("best_step")
    if facts.state is not RunState.FINISHED or not steps or not rows or not best or steps < (facts.planned_steps or 0):
        return None
    seen = steps * settings.examples_per_batch * settings.gradient_accumulation_steps
    if seen >= rows or best < steps * (1 - _LATE):
        return None
    text = outcome.UNSEEN.format(seen=seen, rows=rows)
    whole = -(-rows // (settings.examples_per_batch * settings.gradient_accumulation_steps))
    what = f"{whole:,} steps"
    changes: dict[str, Any] = {"epochs": 1.0} if settings.epochs else {"max_steps": whole}
    return Alarm(Kind.UNSEEN, text, fixes=(Fix(texts.retry_with(what), what, changes),))


def _only_label(facts: Facts) -> str | None:
    """The one label that is predicted: of a run that ended by its best step, else by its last evaluations."""
    if confusion := facts.result.get("confusion"):
        columns = zip(facts.result["labels"], zip(*confusion, strict=True), strict=True)
        named = [str(label) for label, counts in columns if any(counts)]
        return named[0] if len(named) == 1 else None
    later = [evaluation for evaluation in facts.evaluations if evaluation.step > 0]
    if not facts.state.is_active or len(later) < _EARLY:
        return None
    said = {evaluation.only for evaluation in later[-_EARLY:]}
    return said.pop() if len(said) == 1 else None


def _no_better(facts: Facts) -> Alarm | None:
    text = outcome.no_better(facts.result)
    return Alarm(Kind.NO_BETTER, text, fixes=_other_rates(facts.settings)) if text else None


def _flat(facts: Facts) -> Alarm | None:
    seen = [evaluation for evaluation in facts.evaluations if math.isfinite(evaluation.loss)]
    if len(seen) <= _EARLY:
        return None
    first, best = seen[0], min(seen, key=lambda evaluation: evaluation.loss)
    if best.loss < first.loss * (1 - _FLAT) or seen[-1].step < 0.2 * (facts.planned_steps or 0):
        return None
    if facts.result.get("metric") == "accuracy" and any(e.value > first.value + _FLAT for e in seen):
        return None  # found more, if not by the loss
    numbers = {"first": texts.number(first.loss), "best": texts.number(best.loss)}
    text = texts.FLAT_LOSS.format(steps=seen[-1].step, **numbers)
    return Alarm(Kind.FLAT, text, texts.USUAL_CAUSES, _other_rates(facts.settings))


def _rate(facts: Facts) -> Alarm | None:
    rate = facts.settings.learning_rate
    if "learning_rate" in facts.settings.sweep or LOWEST_RATE <= rate <= HIGHEST_RATE:
        return None
    sentence = texts.LOW_RATE if rate < LOWEST_RATE else texts.HIGH_RATE
    return Alarm(Kind.RATE, sentence.format(rate=texts.short_number(rate)), fixes=(_with_rate(USUAL_RATE),))


def _with_rate(rate: float, **more: Any) -> Fix:
    what = f"learning rate {texts.short_number(rate)}"
    return Fix(texts.retry_with(what), what, {"learning_rate": rate, **more})


def _gentler(settings: RunSettings) -> tuple[Fix, ...]:
    """A third of the learning rates, as the error says too."""
    tuned = settings.base_weights is BaseWeights.TUNED
    more = {"base_learning_rate": _third(settings.base_learning_rate)} if tuned else {}
    if rates := settings.sweep.get("learning_rate"):
        lower = [_third(rate) for rate in rates]
        what = "learning rates " + ", ".join(map(texts.short_number, lower))
        return (Fix(texts.retry_with(what), what, {"sweep": {**settings.sweep, "learning_rate": lower}, **more}),)
    return (_with_rate(_third(settings.learning_rate), **more),)


def _third(rate: float) -> float:
    return float(f"{rate / 3:.1g}")


def _smaller(settings: RunSettings) -> tuple[Fix, ...]:
    """Smaller batches with the same effective batch, and shorter inputs."""
    fixes = []
    batch, accumulation = settings.examples_per_batch, settings.gradient_accumulation_steps
    parts = next((i for i in range(2, batch + 1) if batch % i == 0), 1)
    if parts > 1 and accumulation * parts <= _MOST_ACCUMULATION and "batch_size" not in settings.sweep:
        what = f"batch {batch // parts} × {accumulation * parts} accumulation"
        changes = {
            "batch_size": batch // parts,
            "gradient_accumulation_steps": accumulation * parts,
            "eval_batch_size": max(1, settings.eval_batch_size // parts),
        }
        fixes.append(Fix(texts.retry_with(what), what, changes))
    length = (settings.max_length or _USUAL_LENGTH) // 2
    if length >= 16 + settings.parsed_template.num_virtual_tokens:
        what = f"inputs of {length} tokens"
        fixes.append(Fix(f"Shorter inputs: {length} tokens", what, {"max_length": length}))
    return tuple(fixes)


def _other_rates(settings: RunSettings) -> tuple[Fix, ...]:
    """A sweep over three learning rates; if that was one already, more steps."""
    if settings.sweep:
        return (_more_steps(settings),)
    rate = min(max(settings.learning_rate, LOWEST_RATE), HIGHEST_RATE)
    middle = rate if rate == settings.learning_rate else USUAL_RATE
    rates = [float(f"{middle * factor:.2g}") for factor in (1 / 3, 1, 3)]
    return (Fix(texts.SWEEP_RATES, "learning rates", {"sweep": {"learning_rate": [min(1.0, r) for r in rates]}}),)


def _deeper(settings: RunSettings) -> tuple[Fix, ...]:
    """Virtual tokens in every layer, where they can be and are not yet."""
    can_be = settings.base_weights is BaseWeights.FROZEN and settings.parsed_template.is_front
    if settings.prompt_depth is PromptDepth.ALL or not can_be or {"prompt_depth", "template"} & set(settings.sweep):
        return ()
    what = "virtual tokens in every layer"
    return (Fix(texts.retry_with(what), what, {"prompt_depth": str(PromptDepth.ALL)}),)


def _more_steps(settings: RunSettings) -> Fix:
    steps = {"epochs": settings.epochs * 2} if settings.epochs else {"max_steps": settings.max_steps * 2}
    what = "twice the steps"
    return Fix(texts.retry_with(what), what, steps)


def name_of_retry(name: str, fix: Fix) -> str:
    """What to call the new run: the old one's name, and what is changed."""
    original = re.sub(r" · retry: .*$", "", name)
    ending = f" · retry: {fix.name}"
    return (original[: 80 - len(ending)] + ending)[:80]
