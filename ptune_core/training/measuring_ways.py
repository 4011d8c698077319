"""How well labels can be told apart in which way, measured before a run within a bounded time."""

from __future__ import annotations

import time
from typing import Any

from ptune_core.model.base_kind import BaseKind
from ptune_core.model.head_input import HeadInput
from ptune_core.prompt.verbalizer import answer_columns
from ptune_core.training.evaluating import sample
from ptune_core.training.frozen import Frozen
from ptune_core.training.lesson import Lesson
from ptune_core.training.probe import COMPARED_ON
from ptune_core.training.tasks import LabelTask

READING_SECONDS, WORDS_SECONDS, FITTING_SECONDS = 10.0, 4.0, 4.0
"""What reading rows for a probe, asking the base model for words, and fitting may take; 20 with what they overrun."""

MOST_ROWS_OF_WORDS = 256
FEWEST_ROWS, FEWEST_PER_LABEL = 64, 4
"""A probe of fewer rows says nothing that would help anybody."""

FITTED_AT_ONCE = 100_000_000
"""Rows times width times labels of one probe: some seconds of one core."""


def measure_ways(lesson: Lesson, seconds_per_row: float) -> dict[str, Any]:
    """How well labels can be told apart: by the base model's words with this template, by a head at its start.

    Args:
        lesson: Of the run.
        seconds_per_row: What one row takes through the base model.

    Returns:
        ``{"answer": {"accuracy": 0.33, "rows": 256}, "head": {"reads": "mean", "accuracy": 0.63, "rows": 1280}}``, as
        JSON values: what could be measured in the time; empty without labels, or with a tuned base model.
    """
    task, base = lesson.task, lesson.model.base
    if not isinstance(task, LabelTask) or lesson.frozen is None:
        return {}
    found: dict[str, Any] = {}
    if base.head is None:
        count = min(len(task.validation), MOST_ROWS_OF_WORDS, max(16, int(WORDS_SECONDS / seconds_per_row)))
        chosen = sample(len(task.validation), count, task.validation.labels, lesson.seed)
        begun = time.monotonic()
        words = task.evaluate_base(chosen)
        # The first rows of a process take longer, and those of a probe have no virtual tokens either.
        seconds_per_row = min(seconds_per_row, (time.monotonic() - begun) / count)
        kind = str(lesson.model.template.target.kind).lower()
        found[kind] = {"accuracy": round(words.value, 4), "rows": count}
    verbalizer = lesson.model.verbalizer
    brings_words = verbalizer is not None and answer_columns(verbalizer.answers)
    if base.kind is not BaseKind.ENCODER_DECODER and not brings_words:
        if head := _head(lesson, task, seconds_per_row):
            found["head"] = head
    return found


def _head(lesson: Lesson, task: LabelTask, seconds_per_row: float) -> dict[str, Any]:
    """What a head reads and where it starts, by cross-validation; empty if there was no time for enough rows."""
    frozen, choice = lesson.frozen, lesson.choice
    assert frozen is not None, "the base model is frozen"
    if choice is not None and frozen.has_probe(choice.way):  # the run's own, and already there
        return _told(choice.way, frozen.probe(choice.way).accuracy, len(frozen.chosen))
    labels = len(task.labels)
    rows = min(int(READING_SECONDS / seconds_per_row), FITTED_AT_ONCE // (lesson.model.base.hidden_size * labels))
    if min(rows, len(task.train)) < max(FEWEST_ROWS, FEWEST_PER_LABEL * labels):
        return {}
    some = Frozen(lesson.model, task, most=rows)
    ways = some.ways if choice is None else (choice.way,)
    some.features(ways)  # all in one pass
    accuracies: dict[HeadInput, float] = {}
    begun = time.monotonic()
    for way in ways:
        accuracies[way] = some.validated(way).accuracy
        if time.monotonic() - begun > FITTING_SECONDS / 2:
            break
    best = max(accuracies, key=lambda way: accuracies[way])
    # A decoder's own head reads its last position.
    is_models = choice is None and best is HeadInput.LAST and lesson.model.base.is_causal
    return _told(HeadInput.MODEL if is_models else best, accuracies[best], len(some.chosen))


def _told(way: HeadInput, accuracy: float, rows: int) -> dict[str, Any]:
    return {"reads": str(way), "accuracy": round(accuracy, 4), "rows": min(rows, COMPARED_ON)}
