"""What a run will take: measured on three real steps and a part of an evaluation, before it starts."""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ptune_core.model.base import BaseModel
from ptune_core.training.loop import Trainer, take_step
from ptune_core.training.metrics import Evaluation
from ptune_core.training.tasks import LabelTask, TextTask

LOOKED_AT = 64
"""Batches among which a short, a long and the longest one are chosen."""

_MIB = 2**20


@dataclass(frozen=True)
class Estimate:
    """What a run takes. Seconds on this machine as busy as it is now; MiB of main memory and of GPU memory.

    Attributes:
        preparing: Loading data and base model.
        first_step: A step of the first epoch, in which texts before the first virtual token are computed.
        later_step: A step after that, in which the text cache has them.
        evaluation: One evaluation of the validation split.
        total: All of it, if training does not stop early.
        peak_mib: Highest use of main memory, everything included.
        gpu_peak_mib: Highest use of GPU memory; None without a GPU.
        text_cache_mib: Of the text cache when it is full, wherever it is.
    """

    preparing: float
    first_step: float
    later_step: float
    evaluation: float
    total: float
    peak_mib: float
    gpu_peak_mib: float | None
    text_cache_mib: float

    def __str__(self) -> str:
        step = f"{self.first_step:.2f} s a step"
        if abs(self.first_step - self.later_step) > 0.1 * self.first_step:
            step += f" in the first epoch, {self.later_step:.2f} s after it"
        gpu = "" if self.gpu_peak_mib is None else f", {self.gpu_peak_mib:,.0f} MiB of GPU memory"
        return (
            f"at most {self.total:,.0f} s: {self.preparing:.1f} s to prepare, {step}, "
            f"{self.evaluation:.1f} s an evaluation\n"
            f"{self.peak_mib:,.0f} MiB of main memory{gpu}, {self.text_cache_mib:,.0f} MiB of them for the text cache"
        )


def measure(
    trainer: Trainer, task: LabelTask | TextTask, part: LabelTask | TextTask, base: BaseModel, begun: float
) -> Estimate:
    """Take three steps with `trainer`, which must not be used afterwards: a short, a long and the longest batch.

    Args:
        trainer: As for the run.
        task: The run's.
        part: The same with a part of the validation rows.
        base: The base model.
        begun: `time.monotonic()` at the beginning of the preparation.
    """
    preparing = time.monotonic() - begun
    schedule, order = trainer.schedule, task.order
    looked_at = range(min(LOOKED_AT, order.batches_per_epoch))
    by_tokens = sorted(looked_at, key=lambda position: int(order.lengths_of(np.array(order.indices(position))).sum()))
    chosen = [by_tokens[round(share * (len(by_tokens) - 1))] for share in (0.25, 0.75, 1.0)]
    # Each twice: the second time the text cache has the texts, as in every epoch after the first.
    seconds = [(_step_seconds(trainer, task, at), _step_seconds(trainer, task, at)) for at in chosen]
    first, later = zip(*seconds, strict=True)
    first_step, later_step = sum(first[:2]) / 2, sum(later[:2]) / 2  # the longest shows only the memory
    begun_evaluation = time.perf_counter()
    trainer.evaluate(part)
    evaluation = (time.perf_counter() - begun_evaluation) * len(task.validation) / len(part.validation)
    in_first = min(schedule.steps, -(-schedule.batches_per_epoch // schedule.batches_per_step))
    training = in_first * first_step + (schedule.steps - in_first) * later_step
    evaluations = 2 + schedule.steps // schedule.eval_every  # one is of step 0, one of the base model alone
    texts = task.model.texts
    return Estimate(
        preparing=preparing,
        first_step=first_step,
        later_step=later_step,
        evaluation=evaluation,
        total=preparing + training + evaluations * evaluation,
        peak_mib=_peak_bytes() / _MIB,
        gpu_peak_mib=torch.cuda.max_memory_allocated() / _MIB if base.device.type == "cuda" else None,
        text_cache_mib=0.0 if texts is None else texts.mib,
    )


def _step_seconds(trainer: Trainer, task: LabelTask | TextTask, position: int) -> float:
    begun = time.perf_counter()
    take_step([trainer], _At(task, position))
    return time.perf_counter() - begun


@dataclass(frozen=True)
class _At:
    """A task that always gives the same batch."""

    task: LabelTask | TextTask
    position: int

    def losses(self, position: int, prompts: Sequence[Tensor]) -> tuple[Tensor, int]:
        return self.task.losses(self.position, prompts)

    def evaluate(self, prompt_embeddings: Tensor) -> Evaluation:
        return self.task.evaluate(prompt_embeddings)


def _peak_bytes() -> int:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
