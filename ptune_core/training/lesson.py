"""What the trials of one template learn from together: prompted model, rows, and what the base model gives alone."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from ptune_core.data.examples import Examples
from ptune_core.errors import SettingsError
from ptune_core.model.base import BaseModel, with_head_input
from ptune_core.model.head_input import HeadInput
from ptune_core.model.prompted import PromptedModel
from ptune_core.model.text_cache import TextCache
from ptune_core.training.evaluating import (
    IN_CONTEXT,
    EvaluationPlan,
    Work,
    num_evaluations,
    plan_evaluations,
    sample,
)
from ptune_core.training.frozen import Frozen
from ptune_core.training.head_start import HeadChoice, choose_head_input, draw_head
from ptune_core.training.in_context import InContext, in_context, reads_examples
from ptune_core.training.loop import Schedule
from ptune_core.training.metrics import Evaluation, Metric, confusion_matrix, wilson_interval
from ptune_core.training.preparation import make_schedule, make_task
from ptune_core.training.settings import RunSettings
from ptune_core.training.tasks import AnyTask, LabelTask, TextTask

_LOOKED_AT = 512
"""Rows whose lengths say how long rows are."""

Found = TypeVar("Found")


@dataclass(frozen=True)
class ProbeResult:
    """What a probe of the frozen base model says of validation rows.

    Attributes:
        reads: What it reads of the last hidden states.
        train_rows: Training rows it learned from.
        rows: Validation rows it was measured on.
        evaluation: Of them.
    """

    reads: HeadInput
    train_rows: int
    rows: int
    evaluation: Evaluation

    def values(self) -> dict[str, Any]:
        """As JSON values for `metrics.jsonl` and `result.json`."""
        value = self.evaluation.value
        return {
            "probe": value,
            "probe_interval": list(wilson_interval(value, self.rows)),
            "probe_rows": self.rows,
            "probe_reads": str(self.reads),
            "probe_train_rows": self.train_rows,
        }


@dataclass(eq=False)
class Lesson:
    """What the trials of one template learn from together.

    Attributes:
        model: Base model with the template.
        task: The examples, as this model's rows.
        examples: The examples as they were read.
        plan: How many validation rows are evaluated when.
        seed: Decides which rows of the validation split are in a sample.
        starts: Prompt embeddings of adapters that trials start from, see `Tables`.
        frozen: What the base model tells of the labels without virtual tokens; None where it is tuned, or where
            there are no labels.
        choice: What a classification head reads, and why; None without one.
        seconds: What measuring the base model on validation rows has taken so far.
    """

    model: PromptedModel
    task: AnyTask
    examples: Examples
    plan: EvaluationPlan
    seed: int = 0
    starts: Mapping[str, np.ndarray] = field(default_factory=dict)
    frozen: Frozen | None = None
    choice: HeadChoice | None = None
    seconds: float = 0.0

    @property
    def metric(self) -> Metric:
        """What decides which evaluation is best."""
        return Metric.LOSS if isinstance(self.task, TextTask) else Metric.ACCURACY

    @cached_property
    def between(self) -> np.ndarray | None:
        """`[K]` validation rows that are evaluated between steps; None: all."""
        return self._sample(self.plan.between)

    @cached_property
    def compared(self) -> np.ndarray | None:
        """`[K]` validation rows on which states are compared at the end; None: all."""
        return self._sample(self.plan.compared)

    @cached_property
    def of_base(self) -> np.ndarray | None:
        """`[K]` validation rows on which the base model alone is measured; None: all."""
        return self._sample(self.plan.of_base)

    @cached_property
    def base_alone(self) -> Evaluation | None:
        """The base model with the same template and no virtual tokens; a new head knows nothing, so None with one."""
        if self.model.base.head is not None:
            return None
        return self._timed(lambda: self.task.evaluate_base(self.of_base))

    @cached_property
    def in_context(self) -> InContext | None:
        """The base model with examples in its context, as it is when this is first asked."""
        return self._timed(lambda: in_context(self.task, self.of_base))

    @cached_property
    def probe(self) -> ProbeResult | None:
        """What can be read off the frozen base model without virtual tokens; None without `frozen`."""
        if (frozen := self.frozen) is None:
            return None
        reads = self.choice.way if self.choice is not None else frozen.best_way()
        train_rows = frozen.probe(reads).rows
        chosen = np.arange(len(self.task.validation)) if self.of_base is None else self.of_base
        evaluation = self._timed(lambda: frozen.evaluate(reads, chosen))
        return ProbeResult(reads, train_rows, len(chosen), evaluation)

    def confusion(self, evaluation: Evaluation) -> list[list[int]]:
        """`[C][C]` counts of the rows that were evaluated."""
        assert isinstance(self.task, LabelTask)
        gold = self.task.validation_gold
        chosen = gold if evaluation.chosen is None else [gold[i] for i in evaluation.chosen]
        return confusion_matrix(chosen, evaluation.predicted, len(self.task.labels))

    def _sample(self, size: int) -> np.ndarray | None:
        labels = self.task.validation.labels
        return sample(len(self.task.validation), size, labels, self.seed)

    def _timed(self, measure: Callable[[], Found]) -> Found:
        begun = time.monotonic()
        found = measure()
        self.seconds += time.monotonic() - begun
        return found


LessonKey = tuple[str, HeadInput]
Lessons = Mapping[LessonKey, Lesson]
"""Template, and what a head is to read -> what the trials learn from."""


def make_lesson(
    base: BaseModel,
    examples: Examples,
    settings: RunSettings,
    directory: Path,
    *,
    texts: TextCache | None,
    starts: Mapping[str, np.ndarray],
) -> Lesson:
    """The lesson of a trial with these settings, with a head that reads what they say or what proves best.

    Args:
        base: With its own head, if it has one.
        examples: As they were read for the template.
        settings: Of the trial; no sweep.
        directory: Where tokenised rows are kept.
        texts: Of another prompted model with the same base model, to share.
        starts: Prompt embeddings of adapters that trials start from.

    Raises:
        SettingsError: The template does not suit the base model, or the head would read what no prompt can change.
    """
    parsed, longest = settings.parsed_template, settings.max_length
    model = PromptedModel(base, parsed, examples.verbalizer, max_length=longest, texts=texts)
    task = make_task(model, examples, settings, directory)
    frozen = Frozen(model, task) if isinstance(task, LabelTask) and not base.is_tuned else None
    choice = None
    if base.head is not None:
        draw_head(base, settings.seed)  # what some heads read comes through layers of their own
        choice = choose_head_input(settings.head_input, base, frozen)
        headed = with_head_input(base, choice.way, standardised=not base.is_tuned)
        model = PromptedModel(headed, parsed, examples.verbalizer, max_length=longest, texts=model.texts)
        task = make_task(model, examples, settings, directory)
    schedule = make_schedule(settings, task.num_examples)
    plan = plan_evaluations(_work(task, settings, schedule, has_frozen=frozen is not None))
    return Lesson(model, task, examples, plan, settings.seed, starts, frozen, choice)


def _work(task: AnyTask, settings: RunSettings, schedule: Schedule, *, has_frozen: bool) -> Work:
    """What the run does beside evaluating; of texts that are computed once, once."""
    order = task.order
    batches = range(min(order.batches_per_epoch, max(1, _LOOKED_AT // settings.examples_per_batch)))
    first = np.array([index for position in batches for index in order.indices(position)])
    lengths = task.train_rows.lengths_of(first)
    length = float(lengths.mean())
    if task.model.texts is not None and not task.model.template.is_front and not task.model.reads_text:
        contexts = np.array([len(row.context) for row in task.train_rows.rows(first)])
        rows = schedule.steps * schedule.batches_per_step * settings.examples_per_batch
        length -= float(contexts.mean()) * (1 - min(1.0, task.num_examples / rows))
    of_base = float(has_frozen)
    if task.model.base.head is None:
        of_base += 1 + IN_CONTEXT * reads_examples(task.model)
    looked_at = np.arange(min(_LOOKED_AT, len(task.validation)))
    return Work(
        steps=schedule.steps,
        rows_per_step=schedule.batches_per_step * settings.examples_per_batch,
        train_length=max(1.0, length),
        validation_length=max(1.0, float(task.validation_rows.lengths_of(looked_at).mean())),
        validation_rows=len(task.validation),
        evaluations=num_evaluations(schedule.steps, schedule.eval_every),
        of_base=of_base,
    )


def lesson_key(settings: RunSettings) -> LessonKey:
    """What trials have in common that learn from one lesson."""
    return settings.template, settings.head_input


def check_comparable(examples: Mapping[str, Examples]) -> None:
    """Refuse templates that do not learn from and are not measured on the same rows.

    Raises:
        SettingsError: Their columns are not filled in the same rows, so that some lose rows which others keep.
    """
    (first, *others) = examples.values()
    for template, found in zip(list(examples)[1:], others, strict=True):
        same_labels = (found.verbalizer and found.verbalizer.labels) == (first.verbalizer and first.verbalizer.labels)
        if not (same_labels and np.array_equal(found.validation.rows, first.validation.rows)):
            raise SettingsError(
                "The templates of the sweep do not use the same rows, so their results could not be compared",
                got=f"{first.report.summary()} for one, {found.report.summary()} for {template!r}",
                needed="templates whose columns are filled in the same rows",
                remedy="Fill in the empty cells, or train these templates in runs of their own",
            )
