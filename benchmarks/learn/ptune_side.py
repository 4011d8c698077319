"""PTune's side: a run with its defaults, through the function behind the command line."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

import numpy as np
import torch

from benchmarks.learn.job import EVAL_BATCH_SIZE, Job, Meter
from benchmarks.learn.names import PTUNE_ANSWER, PTUNE_DEEP
from ptune_core.data.order import by_length
from ptune_core.runs.worker import train_here
from ptune_core.training.loop import Evaluated, Event
from ptune_core.training.settings import RunSettings
from ptune_core.training.trial import Trial


def learn(job: Job, meter: Meter) -> None:
    """Train, measured at each of the run's own evaluations; it takes home the one that validation found best.

    Raises:
        SystemExit: The run failed, with its reason.
    """
    settings = RunSettings.parse(
        {
            "base_model": job.base_model,
            "data": f"{job.folder}/train.csv",
            "template": job.template,
            "max_steps": job.steps,
            "seed": job.seed,
        }
        | ({"labels": job.words} if job.side == PTUNE_ANSWER else {})
        | ({"prompt_depth": "all"} if job.side == PTUNE_DEEP else {})
    )
    found: dict[int, float] = {}

    def notice(trial: Trial, event: Evaluated) -> None:
        found[event.step] = meter.note(event.step, lambda texts: labels_of(trial, texts))

    with tempfile.TemporaryDirectory() as out, evaluations(notice):
        result = train_here(settings, Path(out) / "run")
    if result["error"]:
        raise SystemExit(result["error"]["text"])
    meter.end(found[result["best_step"]])


@contextmanager
def evaluations(notice: Callable[[Trial, Evaluated], None]) -> Iterator[None]:
    """While inside, call `notice` as soon as a run has made an evaluation, before it writes the line about it.

    The weights are those that were evaluated. A run's lines and files do not hold a head at each evaluation, and its
    settings have no second set of rows: this is the one place where the benchmark reaches into the engine.
    """
    take = Trial.take

    def watched(trial: Trial, event: Event, seconds: float) -> None:
        if isinstance(event, Evaluated):
            notice(trial, event)
        take(trial, event, seconds)

    with mock.patch.object(Trial, "take", watched):
        yield


@torch.no_grad()
def labels_of(trial: Trial, texts: Sequence[str]) -> list[str]:
    """The label of each text, by the trial as it is, without its text cache."""
    model = trial.lesson.model
    assert model.verbalizer is not None, "all data sets here have labels"
    prompt_embeddings, rows = trial.trainer.prompt(), model.make_rows([{"text": text} for text in texts])
    found = [""] * len(rows)
    for chosen in by_length(np.array([len(row.ids) for row in rows]), EVAL_BATCH_SIZE):
        scores = model.scores([rows[i] for i in chosen], prompt_embeddings)
        for i, label in zip(chosen.tolist(), scores.argmax(dim=1).tolist(), strict=True):
            found[i] = model.verbalizer.labels[label]
    return found
