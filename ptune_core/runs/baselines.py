"""What a run's result stands beside, and what else is to be known of it. Plain Python over `result.json`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ptune_core.model.head_input import reading, reading_in_peft

PROBE = "what this frozen model gives without virtual tokens"
NOTHING_ADDED = "The virtual tokens added nothing here"


@dataclass(frozen=True)
class Baseline:
    """One number that a result stands beside.

    Attributes:
        name: What plots and lists call it.
        about: What it is.
        interval: Its 95 % interval, where it is not of all validation rows or was asked for.
        rows: Validation rows it was measured on, where that is known.
    """

    name: str
    value: float
    about: str
    interval: tuple[float, float] | None = None
    rows: int | None = None

    @property
    def band(self) -> str:
        """``0.600 to 0.660 on 1,200 rows``; empty without an interval."""
        if self.interval is None:
            return ""
        low, high = self.interval
        return f"{low:.3f} to {high:.3f}" + (f" on {self.rows:,} rows" if self.rows else "")


def baseline_list(result: Mapping[str, Any]) -> list[Baseline]:
    """The baselines that were measured, in the order in which people ask for them.

    Args:
        result: Of `result.json`, or of a stranger's adapter: what is no number is left out.
    """
    count = number_of(result.get("few_shot_examples")) or 0
    learned = result.get("probe_train_rows")
    of_rows = f", by a regression on what it makes of {learned:,} training rows" if isinstance(learned, int) else ""
    known = [
        ("majority", "majority", "always the most frequent label"),
        ("zero_shot", "zero-shot", "the base model alone, with the same template and no virtual tokens"),
        ("few_shot", f"{count:g} examples in context", "the base model alone, with training rows before each text"),
        ("probe", "probe", PROBE + of_rows),
    ]
    found = []
    for key, name, about in known:
        if (value := number_of(result.get(f"baseline_{key}"))) is not None:
            rows = number_of(result.get(f"{key}_rows"))
            interval = interval_of(result.get(f"{key}_interval"))
            found.append(Baseline(name, value, about, interval, None if rows is None else int(rows)))
    return found


def number_of(value: object) -> float | None:
    """A finite number of a JSON file; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if math.isfinite(value) else None


def interval_of(value: object) -> tuple[float, float] | None:
    """Both ends of an interval in a JSON file; None for anything else."""
    match value:
        case [low, high]:
            ends = number_of(low), number_of(high)
            return None if ends[0] is None or ends[1] is None else (ends[0], ends[1])
    return None


def baselines(result: Mapping[str, Any]) -> dict[str, float]:
    """``{"majority": 0.51, "zero-shot": 0.64, "8 examples in context": 0.71, "probe": 0.83}``, as `baseline_list`."""
    return {baseline.name: baseline.value for baseline in baseline_list(result)}


def of_line(line: Mapping[str, Any]) -> dict[str, Any]:
    """What a `baseline` line of `metrics.jsonl` says, with the names of `result.json`."""
    of_probe = {name: value for name, value in line.items() if name.startswith("probe_")}
    numbers = {f"baseline_{name}": line.get(name) for name in ("majority", "zero_shot", "few_shot", "probe")}
    return numbers | of_probe | {"few_shot_examples": line.get("few_shot_examples")}


def findings(plan: Mapping[str, Any], result: Mapping[str, Any]) -> list[str]:
    """What is to be known of a run beside its number, a sentence each.

    Args:
        plan: The `plan` line of its `metrics.jsonl`; empty if it is not known.
        result: Of `result.json`, as far as it is known.
    """
    head = result.get("head") or plan.get("head")
    found = [reading(head), reading_in_peft(head)]
    for baseline in baseline_list(result):
        if baseline.name == "probe":
            band = f" ({baseline.band})" if baseline.band else ""
            found.append(f"Probe {baseline.value:.3f}{band}: {baseline.about}.")
    found.append(evaluated(plan, result))
    if result.get("best_step") == 0 and result.get("steps"):
        found.append(f"{NOTHING_ADDED}: the best step is 0, as training began.")
    return [sentence for sentence in found if sentence]


def evaluated(plan: Mapping[str, Any], result: Mapping[str, Any]) -> str:
    """How much was evaluated when, and what it took; empty where all rows were and the share is not known."""
    between, rows = plan.get("evaluated"), plan.get("validation_examples") or result.get("validation_examples")
    share = number_of(result.get("evaluation_share"))
    took = "" if share is None else f"Evaluations took {share:.0%} of the time."
    if not isinstance(between, int) or not isinstance(rows, int) or between >= rows:
        return took
    sample = f"Between steps {between:,} of {rows:,} validation rows are evaluated, at the end all of them."
    return f"{sample} {took}".strip()
