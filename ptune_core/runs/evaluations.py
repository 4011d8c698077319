"""What is known of evaluations while a run goes on: of the run itself, and of each trial of its sweep."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ptune_core.runs.live import curve_of


@dataclass(frozen=True)
class Evaluated:
    """One evaluation.

    Attributes:
        only: The label that every validation row is predicted as, if it is one and the same.
    """

    step: int
    loss: float
    value: float
    best: bool
    only: str | None


def evaluations(metrics: Path) -> tuple[Evaluated, ...]:
    """Every evaluation in a `metrics.jsonl`, in their order; none while there is no such file."""
    curve = curve_of(metrics)
    with curve.lock:
        curve.read_on()
        of = curve.evals.values
        found = zip(curve.evals.x, of["loss"], of["value"], of["best"], curve.only, strict=True)
        return tuple(Evaluated(step, loss, value, best == 1.0, only) for step, loss, value, best, only in found)


def plan(metrics: Path) -> dict[str, Any]:
    """The `plan` line of a `metrics.jsonl`; empty while there is none."""
    curve = curve_of(metrics)
    with curve.lock:
        curve.read_on()
        return dict(curve.plan or {})
