"""What a run will take: measured on a few real steps and a part of an evaluation, before it starts."""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ptune_core.model.base import BaseModel
from ptune_core.model.text_cache import Place, TextCache
from ptune_core.training.evaluating import IN_CONTEXT, EvaluationPlan, num_evaluations
from ptune_core.training.in_context import reads_examples
from ptune_core.training.lesson import Lesson
from ptune_core.training.loop import Schedule, Trainer, take_step
from ptune_core.training.metrics import Evaluation
from ptune_core.training.preparation import disk_bytes
from ptune_core.training.tasks import AnyTask
from ptune_core.training.trial import has_own_weights

LOOKED_AT = 64
"""Batches among which usual ones and the longest ones are chosen, unless a step alone takes many."""

_MIB = 2**20
FP32_BYTES = 4


@dataclass(frozen=True)
class Counts:
    """How often a trial does what takes time, if it does not stop early.

    Attributes:
        first_steps: Steps of the first epoch, in which texts before the first virtual token are computed.
        later_steps: Steps after that, in which the text cache has them.
        evaluations: Of the prompt; one is of step 0, one of the last step.
        of_base: Evaluations of the base model alone; trials of one template share it.
        in_context: Evaluations of the base model with examples in its context, shared as well.
        at_end: What is evaluated at the end, in evaluations of all rows; less if the last state is the best.
        share: Of the validation rows, that an evaluation between steps has.
        share_of_base: The same of the base model's.
    """

    first_steps: int
    later_steps: int
    evaluations: int
    of_base: int
    in_context: int
    at_end: float = 0.0
    share: float = 1.0
    share_of_base: float = 1.0

    @classmethod
    def of(cls, schedule: Schedule, plan: EvaluationPlan, rows: int, *, has_head: bool, in_context: bool) -> Counts:
        """Those of a schedule; a new classification head knows nothing, so the base model alone is not asked.

        Args:
            schedule: The steps.
            plan: How many validation rows are evaluated when.
            rows: How many there are.
            has_head: Whether there is a classification head.
            in_context: Whether the base model is asked with examples in its context.
        """
        first = min(schedule.steps, -(-schedule.batches_per_epoch // schedule.batches_per_step))
        return cls(
            first_steps=first,
            later_steps=schedule.steps - first,
            evaluations=num_evaluations(schedule.steps, schedule.eval_every),
            of_base=0 if has_head else 1,
            in_context=int(in_context),
            at_end=plan.at_end(rows) / rows,
            share=min(1.0, plan.between / rows),
            share_of_base=min(1.0, plan.of_base / rows),
        )


@dataclass(frozen=True)
class Estimate:
    """What a run takes. Seconds on this machine as busy as it is now; MiB of main memory and of GPU memory.

    Attributes:
        preparing: Loading data and base model.
        first_step: A step of the first epoch.
        later_step: A step after that.
        evaluation: One evaluation of the validation split.
        counts: How often each of them happens.
        share_batches: Whether a sweep's trials of one template pass through the base model together.
        peak_mib: Highest use of main memory, everything included: a text cache there as if it were full.
        gpu_peak_mib: Highest use of GPU memory; None without a GPU.
        text_cache_mib: Of the text cache when it is full, wherever it is.
        text_cache_place: Where it is.
        disk_mib: Of one trial that tunes its base model; 0 with a frozen one, whose checkpoints are small.
        trained: How many numbers learn.
        kept_bytes: Of what an adapter keeps of them: prompt embeddings, head and tuned base model, not the encoder.
        warnings: What should be known of the settings.
        ways: How well labels can be told apart in which way, see `measure_ways`; measuring it is no part of the times.
    """

    preparing: float
    first_step: float
    later_step: float
    evaluation: float
    counts: Counts
    share_batches: bool
    peak_mib: float
    gpu_peak_mib: float | None
    text_cache_mib: float
    text_cache_place: Place
    disk_mib: float = 0.0
    trained: int = 0
    kept_bytes: int = 0
    warnings: tuple[str, ...] = ()
    ways: Mapping[str, Any] = field(default_factory=dict)

    def seconds(self, trials: int = 1, templates: int = 1) -> float:
        """All of it, if training does not stop early and every trial and template is like the one measured."""
        counts = self.counts
        steps = counts.first_steps * self.first_step + counts.later_steps * self.later_step
        of_base = counts.share_of_base * (counts.of_base + IN_CONTEXT * counts.in_context)
        of_trial = counts.share * counts.evaluations + counts.at_end
        once = self.preparing + of_base * self.evaluation
        return templates * once + trials * (steps + of_trial * self.evaluation)

    def __str__(self) -> str:
        step = f"{self.first_step:.2f} s a step"
        if abs(self.first_step - self.later_step) > 0.1 * self.first_step:
            step += f" in the first epoch, {self.later_step:.2f} s after it"
        return (
            f"at most {self.seconds():,.0f} s: {self.preparing:.1f} s to prepare, {step}, "
            f"{self.evaluation:.1f} s an evaluation\n{self._memory()}"
        )

    def as_numbers(self, trials: int, templates: int) -> dict[str, Any]:
        """What `estimate --json` prints: of all trials the seconds and the disk, of one the rest."""
        return {
            "seconds": self.seconds(trials, templates),
            "trials": trials,
            "steps": self.counts.first_steps + self.counts.later_steps,
            "peak_mib": self.peak_mib,
            "gpu_peak_mib": self.gpu_peak_mib,
            "disk_mib": trials * self.disk_mib,
            "trained": self.trained,
            "kept_bytes": self.kept_bytes,
            "warnings": list(self.warnings),
            "ways": dict(self.ways),
        }

    def of_sweep(self, trials: int, templates: int, *, halving: bool = False) -> str:
        """The same for a sweep, whose first trial alone was measured.

        Args:
            trials: How many there are.
            templates: How many different ones they have.
            halving: Whether the worse ones end early.
        """
        if trials == 1:
            return str(self)
        like_it = "trials" if templates == 1 else f"trials and the texts of all {templates} templates"
        if self.share_batches:
            how = (
                "Trials of one template share the preparation and, several at a time, their batches: N of them take "
                "at most N times the seconds a step, and more memory than measured here, the text cache aside"
            )
        else:
            how = "They share the preparation and run one after the other, so memory stays as measured"
            if self.disk_mib:
                how += f", and about {trials * self.disk_mib:,.0f} MiB of disk are needed"
        return (
            f"One of {trials} trials, measured alone: {self}\n"
            f"All {trials} trials: at most {self.seconds(trials, templates):,.0f} s, if the other {like_it} are like "
            f"the first. {how}.{' Those that halving ends early take less.' if halving else ''}"
        )

    def _memory(self) -> str:
        """A use of memory each, and beside it what the text cache has of it."""
        cache = f"{self.text_cache_mib:,.0f} MiB"
        where = self.text_cache_place if self.text_cache_mib else Place.NOWHERE
        in_gpu = where is Place.DEVICE and self.gpu_peak_mib is not None
        parts = [f"{self.peak_mib:,.0f} MiB of main memory"]
        if where is Place.HOST or (where is Place.DEVICE and not in_gpu):
            parts.append(f"{cache} of them for the text cache")
        if self.gpu_peak_mib is not None:
            parts.append(f"{self.gpu_peak_mib:,.0f} MiB of GPU memory")
        if in_gpu:
            parts.append(f"{cache} of them for the text cache")
        if where is Place.DISK:
            parts.append(f"{cache} on disk for the text cache")
        if self.disk_mib:
            parts.append(f"{self.disk_mib:,.0f} MiB on disk for checkpoints of the tuned base model and the adapter")
        return ", ".join(parts)


def measure(trainer: Trainer, lesson: Lesson, part: AnyTask, begun: float) -> Estimate:
    """Take up to three steps with `trainer`, which must not be used afterwards: two usual ones and one of the longest.

    Args:
        trainer: As for the run.
        lesson: The run's.
        part: Its task with a part of the validation rows.
        begun: `time.monotonic()` at the beginning of the preparation.
    """
    preparing = time.monotonic() - begun
    task, base = lesson.task, lesson.model.base
    steps = choose_steps(_by_tokens(task, trainer.schedule.batches_per_step), trainer.schedule.batches_per_step)
    # Each twice: the second time the text cache has the texts, as in every epoch after the first.
    seconds = [(_step_seconds(trainer, task, step), _step_seconds(trainer, task, step)) for step in steps]
    first, later = zip(*seconds[:2], strict=True)  # the longest shows only the memory
    begun_evaluation = time.perf_counter()
    trainer.evaluate_here(part, None)
    evaluation = (time.perf_counter() - begun_evaluation) * len(task.validation) / len(part.validation)
    texts, on_gpu = task.model.texts, base.device.type == "cuda"
    return Estimate(
        preparing=preparing,
        first_step=fmean(first),
        later_step=fmean(later),
        evaluation=evaluation,
        counts=Counts.of(
            trainer.schedule,
            lesson.plan,
            len(task.validation),
            has_head=base.head is not None,
            in_context=reads_examples(task.model),
        ),
        share_batches=not has_own_weights(base),
        peak_mib=_peak_bytes() / _MIB + (0.0 if texts is None else _untouched_mib(texts)),
        gpu_peak_mib=torch.cuda.max_memory_allocated() / _MIB if on_gpu else None,
        text_cache_mib=0.0 if texts is None else texts.mib,
        text_cache_place=Place.NOWHERE if texts is None else texts.place,
        disk_mib=disk_bytes(base, 1) / _MIB if base.is_tuned else 0.0,
        trained=sum(parameter.numel() for parameter in trainer.parameters),
        kept_bytes=_kept_bytes(trainer, task, base),
    )


def _kept_bytes(trainer: Trainer, task: AnyTask, base: BaseModel) -> int:
    """Of the tensors in an adapter, all fp32: the prompt, deep or not, and what learns of the base model."""
    prompt = task.model.template.num_virtual_tokens * base.hidden_size
    deep = [] if trainer.prompt.deep is None else [trainer.prompt.deep]
    others = (*deep, *trainer.head_parameters, *trainer.base_parameters.values())
    return FP32_BYTES * (prompt + sum(parameter.numel() for parameter in others))


def choose_steps(by_tokens: Sequence[int], size: int) -> list[list[int]]:
    """Batches of up to three steps: one or two usual steps, then one of the longest batches. No batch comes twice.

    Args:
        by_tokens: Positions of batches, shortest batch first.
        size: Batches of a step. If there are fewer, a step goes over all of them again, as it does in the run.
    """
    whole = len(by_tokens) // size
    if whole < 3:
        longest_first, count = by_tokens[::-1], max(1, whole)
        return [list(longest_first[i::count][:size]) for i in range(count)]
    usual, longest = by_tokens[:-size], list(by_tokens[-size:])
    picked = [usual[int((i + 0.5) / (2 * size) * len(usual))] for i in range(2 * size)]
    return [picked[::2], picked[1::2], longest]


def _by_tokens(task: AnyTask, size: int) -> list[int]:
    """Positions of batches of the first epoch, enough for three steps if it has so many; shortest first."""
    order = task.order
    looked_at = range(min(max(LOOKED_AT, 3 * size), order.batches_per_epoch))
    return sorted(looked_at, key=lambda position: int(order.lengths_of(np.array(order.indices(position))).sum()))


def _step_seconds(trainer: Trainer, task: AnyTask, positions: Sequence[int]) -> float:
    begun = time.perf_counter()
    take_step([trainer], _At(task, positions))
    return time.perf_counter() - begun


@dataclass(frozen=True)
class _At:
    """A task that has only these batches, over and over."""

    task: AnyTask
    positions: Sequence[int]

    def losses(self, position: int, prompts: Sequence[Tensor]) -> Iterable[tuple[Tensor, int]]:
        return self.task.losses(self.positions[position % len(self.positions)], prompts)

    def evaluate(self, prompt_embeddings: Tensor, chosen: np.ndarray | None = None) -> Evaluation:
        return self.task.evaluate(prompt_embeddings, chosen)


def _untouched_mib(texts: TextCache) -> float:
    """What a text cache in main memory will take beyond what it has: the system gives a page when it is written."""
    if texts.place is not (Place.HOST if texts.base.device.type == "cuda" else Place.DEVICE):
        return 0.0
    return texts.unfilled_mib


def _peak_bytes() -> int:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
