"""Several settings in one run: where each of them is kept, and which is best."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ptune_core.model.trained import TrainedPrompt
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
        sign = -1 if result["metric"] == Metric.ACCURACY else 1
        return (False, sign * result["value"], result["loss"])

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
