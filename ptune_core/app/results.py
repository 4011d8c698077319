"""What the Runs tab shows below the plots of one run, as JSON for the browser: one part at a time, when it is opened.

Everything is numbers and text; the script beside this file writes it as text.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import asdict
from enum import StrEnum
from typing import Any

import yaml

from ptune_core.app import texts
from ptune_core.app.alarms import Alarm, Facts, Kind, alarms, key_of
from ptune_core.app.command_line import command_line
from ptune_core.app.texts import outcome
from ptune_core.model.facts import base_facts
from ptune_core.prompt.segments import TargetKind
from ptune_core.runs import live
from ptune_core.runs.baselines import baseline_list, findings, interval_of, of_line
from ptune_core.runs.directory import RunDirectory
from ptune_core.runs.evaluations import evaluations, plan
from ptune_core.runs.metrics_log import last_phase
from ptune_core.runs.predictions import Prediction, Predictions, read_predictions
from ptune_core.runs.run import Run
from ptune_core.runs.states import RunState
from ptune_core.runs.trials import trial_files
from ptune_core.training.metrics import Metric, calibration_error
from ptune_core.training.settings import RunSettings

ROWS_AT_ONCE = 10
MOST_LABELS = 40
"""A larger matrix is no help to anybody; the rows can still be chosen."""

LOG_BYTES = 16_384


class Order(StrEnum):
    """How samples are put in order."""

    WRONG_FIRST = "wrong"
    UNSURE_FIRST = "unsure"
    DATA = "data"


Answer = dict[str, Any]
Question = Mapping[str, Any]


def alarms_of(run: Run) -> list[Alarm]:
    """What is wrong with a run, from its files."""
    if run.outdated:
        return [Alarm(Kind.OUTDATED, texts.OUTDATED, note=run.outdated)]
    directory = RunDirectory(run.directory)
    state, reason = directory.recorded_state()
    saved = (path.name.removeprefix("step-") for path in (run.directory / "checkpoints").glob("step-*"))
    result = directory.result() or {}
    found = Facts(
        settings=run.settings,
        state=run.state if run.state is RunState.INTERRUPTED else state,
        reason=reason,
        result=result,
        evaluations=evaluations(directory.metrics),
        planned_steps=plan(directory.metrics).get("steps"),
        phase=last_phase(directory.metrics),
        saved_step=max((int(step) for step in saved if step.isdigit()), default=None),
        can_have_head=bool(result) and _can_have_head(run.settings.base_model),
    )
    return alarms(found)


def _can_have_head(base_model: str) -> bool:
    """By its files, which the run has used."""
    facts = base_facts(base_model)
    return facts is not None and TargetKind.HEAD in facts.targets


def alarms_answer(run: Run) -> Answer:
    """The alarms with their buttons, and whether to ask again."""
    shown = [
        {
            "text": alarm.text,
            "note": alarm.note,
            "error": alarm.is_error,
            "fixes": [{"key": key_of(alarm, i), "label": fix.label} for i, fix in enumerate(alarm.fixes)],
        }
        for alarm in alarms_of(run)
    ]
    return {"alarms": shown, "active": run.state.is_active}


def results_answer(run: Run, question: Question) -> Answer:
    """One part of the results.

    Args:
        run: Whose.
        question: ``part``: its name; the rest as the part's function says.
    """
    part = question.get("part")
    answer = PARTS.get(part) if isinstance(part, str) else None
    return answer(run, question) if answer is not None else {"empty": texts.NO_SUCH_PART}


def _samples(run: Run, question: Question) -> Answer:
    """``gold``, ``predicted``: label names to choose rows by; ``order``; ``offset``: rows to leave out."""
    found = _predictions(run)
    if isinstance(found, str):
        return {"empty": found}
    gold, predicted = _choice(question, "gold", found), _choice(question, "predicted", found)
    rows = [row for row in found.rows if gold in (None, row.gold) and predicted in (None, row.predicted)]
    order = question.get("order")
    if found.labels and order != Order.DATA:
        rows.sort(key=_unsure if order == Order.UNSURE_FIRST else _wrong)
    given = question.get("offset")
    offset = given if isinstance(given, int) and 0 <= given < 2**31 else 0
    return {
        "labels": list(found.labels),
        "columns": list(found.columns),
        "step": found.step,
        "total": len(rows),
        "kept": len(found.rows),
        "of": found.num_rows,
        "has_base": any(row.base is not None for row in found.rows),
        "has_p": any(row.p is not None for row in found.rows),
        "offset": offset,
        "rows": [_row(row) for row in rows[offset : offset + ROWS_AT_ONCE]],
    }


def _baselines(run: Run, question: Question) -> Answer:
    """The result and what it stands beside, as far as it is known; while a run trains, of its curve."""
    directory = RunDirectory(run.directory)
    result, planned = directory.result() or {}, plan(directory.metrics)
    if result.get("value") is None:
        result = of_line(live.summary(run)["baseline"] or {}) | {"head": planned.get("head")}
    rows = [] if result.get("value") is None else [_of_adapter(result)]
    rows += [
        {"name": one.name, "value": one.value, "low": low, "high": high, "rows": one.rows, "about": one.about}
        for one in baseline_list(result)
        for low, high in [one.interval or (None, None)]
    ]
    if not rows:
        return {"empty": outcome.NO_BASELINES}
    return {"text": outcome.ABOUT_BASELINES, "rows": rows, "notes": findings(planned, result)}


def _of_adapter(result: Question) -> Answer:
    low, high = interval_of(result.get("interval")) or (None, None)
    known = {"value": result["value"], "low": low, "high": high, "rows": result.get("validation_examples")}
    return {"name": outcome.THIS_ADAPTER, **known, "about": outcome.AT_STEP.format(result.get("best_step"))}


def _confusion(run: Run, question: Question) -> Answer:
    found = _predictions(run)
    if isinstance(found, str):
        return {"empty": found}
    if not found.labels:
        return {"empty": texts.NO_LABELS}
    return {
        "labels": list(found.labels),
        "matrix": found.confusion if len(found.labels) <= MOST_LABELS else None,
        "scores": [asdict(score) for score in found.scores],
        "kept": len(found.rows),
        "of": found.num_rows,
    }


def _calibration(run: Run, question: Question) -> Answer:
    found = _predictions(run)
    if isinstance(found, str):
        return {"empty": found}
    if not found.labels:
        return {"empty": texts.NO_LABELS}
    confidence = [row.p or 0.0 for row in found.rows]
    error = calibration_error(found.gold, found.predicted, confidence)
    right = sum(row.is_right for row in found.rows) / len(found.rows)
    return {
        "text": texts.calibration(error, sum(confidence) / len(confidence), right, len(found.rows)),
        "bins": [
            {"from": i / 10, "to": (i + 1) / 10, "count": of.count, "said": of.said, "right": of.right}
            for i, of in enumerate(found.reliability)
            if of is not None
        ],
    }


def _cost(run: Run, question: Question) -> Answer:
    directory = RunDirectory(run.directory)
    result = directory.result() or {}
    items: list[tuple[str, str]] = []
    trained, base = result.get("trained_values"), result.get("base_values")
    if trained and base:
        items.append(("Trained", f"{trained:,} values, {100 * trained / base:.3g}% of the base model's {base:,}"))
    if directory.adapter_zip.exists():
        items.append(("Adapter", f"{texts.size(directory.adapter_zip.stat().st_size)} to download"))
    if result.get("seconds"):
        items.append(("Time", live.duration(result["seconds"])))
    if rate := live.summary(run)["rate"]:
        items.append(("A step", f"{1 / rate:.3g} s, evaluations included"))
    if result.get("train_examples"):
        rows = f"{result['train_examples']:,} to learn from, {result['validation_examples']:,} to measure on"
        items.append(("Rows", rows))
    return {"items": items} if items else {"empty": texts.KNOWN_AT_THE_END}


def _settings(run: Run, question: Question) -> Answer:
    """``trial``: whose settings, of a sweep; none: the run's."""
    settings, number = run.settings, question.get("trial")
    if isinstance(number, int) and not isinstance(number, bool) and 0 <= number < len(settings.trials):
        settings = settings.trials[number]
    return {"yaml": as_yaml(settings), "command": command_line(settings, "DIR")}


def _log(run: Run, question: Question) -> Answer:
    try:
        with RunDirectory(run.directory).log.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            file.seek(max(0, size - LOG_BYTES))
            text = file.read(LOG_BYTES).decode("utf-8", errors="replace")
    except FileNotFoundError:
        text, size = "", 0
    if not text.strip():
        return {"empty": texts.NO_LOG, "refresh": True}
    cut = size > LOG_BYTES
    return {"text": "…\n" + text.partition("\n")[2] if cut else text, "cut": cut}


def _sweep(run: Run, question: Question) -> Answer:
    directory, settings = RunDirectory(run.directory), run.settings
    if not settings.sweep:
        return {"empty": texts.NO_SWEEP}
    result = directory.result() or {}
    ranked = result.get("sweep") or _so_far(directory, settings)
    options = list(settings.sweep)
    return {
        "options": [texts.label(option) for option in options],
        "metric": result.get("metric") or "best",
        "ended": bool(result),
        "rows": [
            {
                "trial": row["trial"],
                "values": [str(row["settings"].get(option)) for option in options],
                "value": row["value"],
                "best_step": row["best_step"],
                "steps": row["steps"],
                "reason": row["error"] or row["reason"],
                "used": bool(result) and row["trial"] == result.get("trial"),
                "has_adapter": bool(result) and trial_files(directory, row["trial"]).adapter_zip.exists(),
            }
            for row in ranked
        ],
        "over_seeds": [
            {
                "values": [str(row["settings"].get(option)) for option in options if option != "seed"],
                "mean": row["mean"],
                "std": row["std"],
                "trials": len(row["trials"]),
                "ended_early": row["ended_early"],
            }
            for row in result.get("over_seeds") or ()
        ],
        "seed_options": [texts.label(option) for option in options if option != "seed"],
    }


def _so_far(directory: RunDirectory, settings: RunSettings) -> list[Answer]:
    """The trials of a sweep that still trains, best first, as far as they have come."""
    rows: list[Answer] = []
    for number, trial in enumerate(settings.trials):
        seen = evaluations(trial_files(directory, number).metrics)
        best = next((one for one in reversed(seen) if one.best), None)
        values = trial.model_dump(mode="json", include=set(settings.sweep))
        rows.append(
            {
                "trial": number,
                "settings": values,
                "value": None if best is None else best.value,
                "loss": None if best is None else best.loss,
                "best_step": None if best is None else best.step,
                "steps": seen[-1].step if seen else 0,
                "reason": "" if seen else "waits",
                "error": None,
            }
        )
    metric = Metric(plan(directory.metrics).get("metric") or Metric.ACCURACY)
    known = [row for row in rows if row["value"] is not None]
    known.sort(key=lambda row: metric.order(row["value"], row["loss"]))
    return [*known, *(row for row in rows if row["value"] is None)]


PARTS: dict[str, Callable[[Run, Question], Answer]] = {
    "samples": _samples,
    "baselines": _baselines,
    "confusion": _confusion,
    "calibration": _calibration,
    "cost": _cost,
    "settings": _settings,
    "log": _log,
    "sweep": _sweep,
}


def as_yaml(settings: RunSettings) -> str:
    """The settings as YAML, in their order and without comments."""
    return yaml.safe_dump(settings.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def _predictions(run: Run) -> Predictions | str:
    """The predictions of the run's best step, or why there are none."""
    found = read_predictions(RunDirectory(run.directory).predictions)
    if found is None:
        return texts.NO_SAMPLES if run.state.is_active else texts.NO_PREDICTIONS
    return found


def _choice(question: Question, name: str, found: Predictions) -> str | None:
    value = question.get(name)
    return value if isinstance(value, str) and value in found.labels else None


def _wrong(row: Prediction) -> float:
    return 0.0 if row.p_gold is None else row.p_gold


def _unsure(row: Prediction) -> float:
    return 0.0 if row.p is None else row.p


def _row(row: Prediction) -> Answer:
    return {
        "row": row.row,
        "texts": [row.texts[column] for column in row.texts],
        "gold": row.gold,
        "predicted": row.predicted,
        "right": row.is_right,
        "p": row.p,
        "base": row.base,
        "base_p": row.base_p,
    }
