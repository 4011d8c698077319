"""Several settings in one run: where each of them is kept, and which is best."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from ptune_core.model.trained import TrainedPrompt
from ptune_core.training.halving import without_seed
from ptune_core.training.loop import EndReason
from ptune_core.training.metrics import Metric
from ptune_core.training.trial import Trial


@dataclass(frozen=True)
class Outcome:
    """What became of a trial: its result and its trained prompt, or None if nothing was ever evaluated."""

    number: int
    trial: Trial
    finished: tuple[dict[str, Any], TrainedPrompt] | None


def directory_of(run_directory: Path, number: int) -> Path:
    """Where trial `number`, from 0, has its checkpoints and its adapter; people count from 1."""
    return run_directory / "sweep" / f"{number + 1:02d}"


def ranked(outcomes: Sequence[Outcome]) -> list[Outcome]:
    """Best first: by metric, then by loss; trials without a result last."""

    def rank(outcome: Outcome) -> tuple[bool, float, float]:
        if outcome.finished is None:
            return (True, 0.0, 0.0)
        result, _ = outcome.finished
        return (False, *Metric(result["metric"]).order(result["value"], result["loss"]))

    return sorted(outcomes, key=rank)


def ranking(outcomes: Sequence[Outcome], options: Sequence[str]) -> list[dict[str, Any]]:
    """The table of a sweep, best first, as in `result.json`.

    Args:
        outcomes: Of all trials.
        options: What the sweep varies.
    """
    rows = []
    for outcome in ranked(outcomes):
        settings = outcome.trial.settings.model_dump(mode="json", include=set(options))
        result = {} if outcome.finished is None else outcome.finished[0]
        error = outcome.trial.error
        rows.append(
            {
                "trial": outcome.number,
                "settings": {option: settings[option] for option in options},
                "value": result.get("value"),
                "loss": result.get("loss"),
                "best_step": result.get("best_step"),
                "steps": outcome.trial.trainer.progress.step,
                "reason": str(outcome.trial.reason),
                "error": None if error is None else str(error),
            }
        )
    return rows


def over_seeds(outcomes: Sequence[Outcome], options: Sequence[str]) -> list[dict[str, Any]]:
    """Mean and standard deviation of each setting over its seeds, best first, as in `result.json`.

    Args:
        outcomes: Of all trials; those without a result are left out.
        options: What the sweep varies, the seed among it.
    """
    settings: dict[str, list[Outcome]] = {}
    for outcome in outcomes:
        if outcome.finished is not None:
            settings.setdefault(without_seed(outcome.trial.settings), []).append(outcome)
    rows = []
    for group in settings.values():
        results = [outcome.finished[0] for outcome in group if outcome.finished is not None]
        values = [result["value"] for result in results]
        chosen = group[0].trial.settings.model_dump(mode="json", include=set(options) - {"seed"})
        rows.append(
            {
                "settings": {option: chosen[option] for option in options if option != "seed"},
                "trials": [outcome.number for outcome in group],
                "mean": fmean(values),
                "std": stdev(values) if len(values) > 1 else None,
                "loss": fmean(result["loss"] for result in results),
                "ended_early": any(outcome.trial.reason is EndReason.OUTDONE for outcome in group),
            }
        )
    metric = next((outcome.trial.lesson.metric for outcome in outcomes), Metric.ACCURACY)
    return sorted(rows, key=lambda row: metric.order(row["mean"], row["loss"]))
