"""What a run has come to, beside its baselines, and why that may be in vain. Plain Python over `result.json`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ptune_core.runs.baselines import NOTHING_ADDED, PROBE, Baseline, baseline_list, interval_of, number_of

FEWEST_MEASURED = 20
"""On fewer rows no result says anything, and early stopping stops by chance."""

ONE_POINT = 0.01

NO_BETTER = (
    "This adapter is no better {}. Try more steps, a learning rate three times higher or lower, "
    "more rows, or answer words that fit the labels better."
)
BELOW_PROBE = f"This adapter ({{value}}) is below the probe ({{probe}}), {PROBE}."
TRY_A_HEAD = "Try a classification head, which starts there."
TRY_GENTLER = "The head starts there, so training led away from it: try a smaller learning rate, or more steps."
TRY_DEEPER = "Virtual tokens that learn in every layer say more; else try a smaller learning rate, or more steps."
TRY_THE_START = "Try to start the head from the probe (head_start: auto)."
TRY_MORE = "Try more steps, or other answer words."
FEW_MEASURED = "Only {count} rows were set aside to measure on: one of them is {share:.0%} of the result."
KEPT_START = "No step did better on them, so the adapter is what training began with."
CHOSEN_BY_CHANCE = "Which step is best, and when to stop early, is chance then."
SET_MORE_ASIDE = "With more rows to measure on the same training says whether it learned."
UNSEEN = (
    "It did best at the end, and had seen {seen:,} of {rows:,} training rows: more steps are likely to do better still."
)
THIS_ADAPTER, AT_STEP = "this adapter", "as it was at step {}"
ABOUT_BASELINES = "On validation rows; intervals are those of 95 %."
NO_BASELINES = "Nothing was measured yet."


def beside(result: Mapping[str, Any], *, bands: bool = False) -> list[str]:
    """``majority 0.510``, ``zero-shot 0.640``, ``probe 0.830``: what a result stands beside.

    Args:
        bands: Whether intervals are told too.
    """
    return [_told(one, bands) for one in baseline_list(result)]


def _told(one: Baseline, bands: bool) -> str:
    band = f" ({one.interval[0]:.3f} to {one.interval[1]:.3f})" if bands and one.interval is not None else ""
    return f"{one.name} {one.value:.3f}{band}"


def score(result: Mapping[str, Any]) -> str:
    """``0.870 accuracy (0.830 to 0.900) · majority 0.510 · zero-shot 0.640``; empty without a result."""
    if result.get("value") is None:
        return ""
    interval = interval_of(result.get("interval"))
    band = "" if interval is None else f" ({interval[0]:.3f} to {interval[1]:.3f})"
    return " · ".join([f"**{result['value']:.3f} {result['metric']}**{band}", *beside(result, bands=True)])


def nothing_added(result: Mapping[str, Any]) -> str:
    """That the best step is that before the first; empty otherwise."""
    return f" {NOTHING_ADDED}." if result.get("best_step") == 0 and result.get("steps") else ""


def few_measured(result: Mapping[str, Any]) -> str:
    """That too few rows were measured on for any conclusion; else empty."""
    count = number_of(result.get("validation_examples"))
    if result.get("value") is None or count is None or not 0 < count < FEWEST_MEASURED:
        return ""
    then = KEPT_START if nothing_added(result) else CHOSEN_BY_CHANCE
    return f"{FEW_MEASURED.format(count=int(count), share=1 / count)} {then}"


def below_probe(result: Mapping[str, Any]) -> bool:
    """Whether a result is clearly below what the frozen base model gives: by more than what chance and a point make."""
    value, probe = number_of(result.get("value")), number_of(result.get("baseline_probe"))
    if value is None or probe is None or result.get("metric") != "accuracy":
        return False
    intervals = [interval_of(result.get(name)) for name in ("interval", "probe_interval")]
    halves = [(high - low) / 2 for low, high in filter(None, intervals)]
    return probe - value > max(ONE_POINT, *halves) if halves else probe - value > ONE_POINT


def below_probe_text(result: Mapping[str, Any]) -> str:
    """The sentence for that."""
    return BELOW_PROBE.format(value=f"{result['value']:.3f}", probe=f"{result['baseline_probe']:.3f}")


def in_vain(result: Mapping[str, Any]) -> str:
    """Why a result is of no use, in a sentence or two; empty if it is. What explains most comes first."""
    if told := few_measured(result):
        return told
    if below_probe(result):
        return below_probe_text(result)
    return no_better(result)


def no_better(result: Mapping[str, Any]) -> str:
    """That a run was in vain, and what to try, if its best result is no better than a baseline; else empty."""
    value, majority = result.get("value"), result.get("baseline_majority")
    if value is None:
        return ""
    if majority is not None and value <= majority:
        return NO_BETTER.format(f"than always answering the most frequent label ({majority:.3f})")
    lower_is_better = result.get("metric") == "loss"
    alone = "than the base model without it (zero-shot {})"
    in_context = f"than the base model with {result.get('few_shot_examples')} examples before each text ({{}})"
    for key, than in (("baseline_zero_shot", alone), ("baseline_few_shot", in_context)):
        base = result.get(key)
        if base is not None and (value >= base if lower_is_better else value <= base):
            return NO_BETTER.format(than.format(f"{base:.3f}"))
    return ""
