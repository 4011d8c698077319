"""Results of a recipe as a table for people and as values for programs."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from ptune_core.model.device import BaseWeights
from ptune_core.recipes.protocol import Failure, Result
from ptune_core.recipes.recipe import Recipe
from ptune_core.recipes.scores import mean_and_deviation

TRAINED = {
    BaseWeights.FROZEN: "base model frozen, virtual tokens trained",
    BaseWeights.TUNED: "base model tuned together with the virtual tokens",
}
"""What was trained, in words."""

_CHANCE = "chance"
_Z = 1.959964


def as_values(recipe: Recipe, outcomes: Sequence[Result | Failure]) -> dict[str, Any]:
    """Everything, for JSON: each run, and each part's means."""
    results = [outcome for outcome in outcomes if isinstance(outcome, Result)]
    return {
        "recipe": recipe.name,
        "about": recipe.about,
        "base_model": sorted({result.base_model for result in results}),
        "training": sorted({TRAINED[BaseWeights(result.base_weights)] for result in results}),
        "parts": _parts(results),
        "mean": _mean(_parts(results)),
        "runs": [asdict(result) for result in results],
        "failed": [asdict(outcome) for outcome in outcomes if isinstance(outcome, Failure)],
    }


def as_text(recipe: Recipe, outcomes: Sequence[Result | Failure]) -> str:
    """The table: one line for each part and measure, the mean over parts last."""
    values = as_values(recipe, outcomes)
    header = ["part", "measure", "P-tuned", "zero-shot", "manual", "majority", "runs", "test rows", ""]
    rows = [_line(part) for part in values["parts"]]
    if len({part["part"] for part in values["parts"]}) > 1:
        mean = {"part": "mean", "note": "", "test_rows": "", "runs": "", "deviation": None, **values["mean"]}
        rows.append(_line(mean))
    table = [header, *rows]
    kept = [i for i in range(len(header)) if any(row[i] for row in rows)]
    widths = [max(len(row[i]) for row in table) for i in range(len(header))]
    lines = ["  ".join(row[i].ljust(widths[i]) for i in kept).rstrip() for row in table]
    base = ", ".join(values["base_model"])
    training = ", ".join(values["training"])
    found = [f"{recipe.about}", f"{base}: {training}. ± is the standard deviation over seeds.", "", *lines]
    if any(part["note"] for part in values["parts"]):
        found.append(f"{_CHANCE}: not above the majority line by more than what so many test rows leave to chance.")
    left_out = sum(part["all_test_rows"] - part["test_rows"] for part in values["parts"] if part["first"])
    if left_out:
        found.append(f"{left_out} test rows could not be used, such as answers outside the vocabulary.")
    found += [f"{failed['part']}, seed {failed['seed']}: no result. {failed['reason']}" for failed in values["failed"]]
    return "\n".join(found)


def _parts(results: Sequence[Result]) -> list[dict[str, Any]]:
    """Each part's means over its seeds, one entry for each measure."""
    found = []
    for part in dict.fromkeys(result.part for result in results):
        runs = [result for result in results if result.part == part]
        for measure in runs[0].tuned:
            tuned, deviation = mean_and_deviation([run.tuned[measure] for run in runs])
            others = {
                name: None if (numbers := getattr(runs[0], name)) is None else numbers[measure]
                for name in ("zero_shot", "manual", "majority")
            }
            first = measure == next(iter(runs[0].tuned))
            rows = runs[0].test_rows
            note = _CHANCE if first and _is_chance(tuned, others["majority"], rows) else ""
            found.append(
                {
                    "part": part,
                    "measure": measure,
                    "first": first,
                    "tuned": tuned,
                    "deviation": deviation,
                    **others,
                    "runs": len(runs),
                    "test_rows": rows,
                    "all_test_rows": runs[0].all_test_rows,
                    "note": note,
                }
            )
    return found


def _mean(parts: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Mean over the parts, each by the mean of its measures, as SuperGLUE and LAMA average."""
    found: dict[str, Any] = {"measure": ""}
    for column in ("tuned", "zero_shot", "manual", "majority"):
        by_part: dict[str, list[float]] = {}
        for part in parts:
            if part[column] is not None:
                by_part.setdefault(part["part"], []).append(part[column])
        complete = len(by_part) == len({part["part"] for part in parts}) and by_part
        found[column] = statistics.fmean(map(statistics.fmean, by_part.values())) if complete else None
    return found


def _is_chance(value: float, majority: float | None, rows: int) -> bool:
    """Whether `value`, a share of `rows`, is within what a constant prediction reaches by luck (95 %)."""
    if majority is None:
        return False
    return value <= majority + _Z * math.sqrt(majority * (1 - majority) / rows)


def _line(part: dict[str, Any]) -> list[str]:
    spread = "" if part["deviation"] is None else f" ± {part['deviation']:.3f}"
    shown = [_shown(part["tuned"]) + spread, *(_shown(part[name]) for name in ("zero_shot", "manual", "majority"))]
    return [part["part"], part["measure"], *shown, str(part["runs"]), str(part["test_rows"]), part["note"]]


def _shown(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"
