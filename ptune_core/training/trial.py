"""One setting in training: its prompt, where it stands, and the files and lines it leaves behind."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor

from ptune_core.data.examples import Examples
from ptune_core.errors import CheckpointError, TrainingError
from ptune_core.model.base import BaseModel
from ptune_core.model.device import BaseWeights
from ptune_core.model.head import Inputs, center_on, last_linear, plain_state
from ptune_core.model.insight import movement
from ptune_core.model.prompted import PromptedModel
from ptune_core.model.trained import TrainedPrompt
from ptune_core.model.tuned import save_base_model
from ptune_core.prompt.init import Prompt
from ptune_core.training.checkpoint import KEPT, load_checkpoint, save_checkpoint
from ptune_core.training.in_context import InContext, in_context
from ptune_core.training.loop import CheckpointDue, Ended, EndReason, Evaluated, Event, Stepped, Trainer
from ptune_core.training.metrics import (
    Evaluation,
    Metric,
    calibration_error,
    confusion_matrix,
    macro_f1,
    wilson_interval,
)
from ptune_core.training.predictions import answers, keep_base_answers, write_predictions
from ptune_core.training.preparation import check_encoder_room, initial_prompt_embeddings, make_schedule, prompt_config
from ptune_core.training.settings import RunSettings
from ptune_core.training.snapshots import Snapshots
from ptune_core.training.tasks import AnyTask, LabelTask, TextTask

TUNED = "tuned-base"
"""Folder of a trial with the base model as its best step left it, until that is in the adapter."""

CENTERED_ON = 64
"""Training rows whose mean a classification head learns around."""

ReportLine = Callable[..., None]
"""Called with the kind of a line and its values."""


@dataclass(frozen=True)
class Lesson:
    """What the trials of one template learn from together.

    Attributes:
        model: Base model with the template.
        task: The examples, as this model's rows.
        examples: The examples as they were read.
        starts: Prompt embeddings of adapters that trials start from, see `Tables`.
    """

    model: PromptedModel
    task: AnyTask
    examples: Examples
    starts: Mapping[str, np.ndarray] = field(default_factory=dict)

    @property
    def metric(self) -> Metric:
        """What decides which evaluation is best."""
        return Metric.LOSS if isinstance(self.task, TextTask) else Metric.ACCURACY

    @cached_property
    def in_context(self) -> InContext | None:
        """The base model with examples in its context, as it is when this is first asked."""
        return in_context(self.task)

    def confusion(self, evaluation: Evaluation) -> list[list[int]]:
        """`[C][C]` counts of the validation split."""
        assert isinstance(self.task, LabelTask)
        return confusion_matrix(self.task.validation_gold, evaluation.predicted, len(self.task.labels))


def has_own_weights(base: BaseModel) -> bool:
    """Whether a trial trains weights of `base` beside its prompt, so that trials cannot pass through it together."""
    return base.is_tuned or base.head is not None


@torch.no_grad()
def center_head(lesson: Lesson, prompt_embeddings: Tensor) -> None:
    """Let a new classification head learn around the mean of what it reads of the first rows with this start.

    One of a tuned base model stays as it is: what it reads does not stay where it began.
    """
    base, task = lesson.model.base, lesson.task
    layer = None if base.head is None or base.is_tuned else last_linear(base.head)
    if layer is None or not isinstance(task, LabelTask):
        return
    batches = min(task.order.batches_per_epoch, -(-CENTERED_ON // task.batching.batch_size))
    with Inputs(layer) as inputs:
        for position in range(batches):
            batch = lesson.model.label_batch(task.train_rows.rows(task.order.indices(position)))
            lesson.model.label_logits(batch, prompt_embeddings.to(base.device))
    center_on(layer, inputs.mean)


class Trial:
    """One setting in training.

    Args:
        settings: Of this trial alone.
        lesson: What it learns from.
        directory: `checkpoints/`, `best/` and `prompts/` are kept there.
        fingerprint: Of settings and data; a checkpoint with another one is not resumed.
        report: Receives the lines of `metrics.jsonl`.
    """

    def __init__(
        self, settings: RunSettings, lesson: Lesson, directory: Path, fingerprint: str, report: ReportLine
    ) -> None:
        self.settings, self.lesson, self.directory = settings, lesson, directory
        self.fingerprint, self.report = fingerprint, report
        self.snapshots = Snapshots(directory)
        model = lesson.model
        base = model.base
        self.config = prompt_config(settings, base, model.template)
        check_encoder_room(self.config, base)
        start = initial_prompt_embeddings(
            settings, base, model.template, verbalizer=model.verbalizer, starts=lesson.starts
        )
        # Decides how the prompt encoder starts.
        torch.manual_seed(settings.seed)
        prompt = Prompt(self.config, start).eval()
        with torch.no_grad():
            self.start = prompt()  # the same in every attempt
        center_head(lesson, self.start)
        schedule = make_schedule(settings, lesson.task.num_examples)
        accelerator = Accelerator(cpu=base.device.type == "cpu")
        self.trainer = Trainer(prompt, base.head, schedule, accelerator, base.model if base.is_tuned else None)
        self.baseline: dict[str, float | None] = {}
        self.ended: Ended | None = None

    def resume(self) -> None:
        """Go on from the newest checkpoint, if there is one.

        Raises:
            CheckpointError: It is of other settings or data, or none is whole.
        """
        saved = load_checkpoint(self.directory / "checkpoints")
        if self.trainer.accelerator.is_main_process:
            # What came after the checkpoint comes again.
            self.snapshots.forget_after(-1 if saved is None else int(saved[1]["step"]))
        if saved is None:
            return
        tensors, state = saved
        if state["fingerprint"] != self.fingerprint:
            raise CheckpointError(
                "The checkpoint was made with other settings or other data",
                needed="the same settings and data as before the interruption",
                remedy="Start a new run (command line: choose another --out directory)",
            )
        self.trainer.restore(tensors, state)
        self.baseline = state["baseline"]
        self.report("resume", step=self.trainer.progress.step)

    def take(self, event: Event, seconds: float) -> None:
        """Turn what happened, `seconds` after the run began, into lines and files; of several processes one does."""
        if isinstance(event, Ended):
            self.ended = event
        if not self.trainer.accelerator.is_main_process:
            return
        match event:
            case Stepped():
                self.report("step", **asdict(event), seconds=seconds)
            case Evaluated():
                self._evaluated(event, seconds)
            case CheckpointDue(step=step):
                save_checkpoint(self.directory / "checkpoints", step, self.trainer.tensors(), self._state())

    def finish(self, seconds: float) -> tuple[dict[str, Any], TrainedPrompt] | None:
        """Put the best state back; what `result.json` says of it, and what to export. None if nothing was evaluated."""
        best = load_checkpoint(self.directory / "best")
        if best is None:
            return None
        tensors, state = best
        self.trainer.put_back(tensors)
        write_predictions(self.directory, self.lesson.task, tensors, state)
        if self.reason is not EndReason.STOPPED and not self.lesson.model.base.is_tuned:  # stopped, somebody waits
            self._compare_in_context()
        result = self._result(Evaluation(**state["evaluation"]), int(state["step"]), seconds)
        return result, self._trained_prompt(result)

    def present(self) -> TrainedPrompt:
        """What to export of the state as it is between two steps; nothing was measured of it."""
        self.trainer.trained.eval()  # the next step turns dropout on again
        return self._trained_prompt({"steps": self.trainer.progress.step})

    def forget_tuned_base(self) -> None:
        """Drop the folder that the exported adapter has taken its base model from."""
        shutil.rmtree(self.directory / TUNED, ignore_errors=True)

    def standing(self, rung: int) -> tuple[float, float] | None:
        """Its best metric and loss at rung number `rung`, from 0; None if it is not there.

        A trial that has ended before the rung is there with its final result, if it has one.
        """
        standings = self.trainer.progress.standings
        if rung < len(standings):
            value, loss = standings[rung]
            return value, loss
        return None if self.ended is None else self.best

    @property
    def best(self) -> tuple[float, float] | None:
        """The best metric so far, and the loss there."""
        progress = self.trainer.progress
        return None if progress.best_value is None else (progress.best_value, progress.best_loss)

    @property
    def error(self) -> TrainingError | None:
        """Why it had to end."""
        return None if self.ended is None else self.ended.error

    @property
    def reason(self) -> EndReason:
        """Why it ended."""
        return EndReason.STOPPED if self.ended is None else self.ended.reason

    def _evaluated(self, event: Evaluated, seconds: float) -> None:
        evaluation, task = event.evaluation, self.lesson.task
        line: dict[str, Any] = {"loss": evaluation.loss, "value": evaluation.value, "best": event.best}
        line["seconds"] = seconds
        if isinstance(task, LabelTask):
            line["macro_f1"] = macro_f1(self.lesson.confusion(evaluation))
            if evaluation.only is not None:
                line["only"] = task.labels[evaluation.only]
        if event.step == 0:
            # A new classification head knows nothing: what it says before training is its zero-shot line.
            zero_shot = task.zero_shot or evaluation
            self.baseline = {"majority": task.majority, "zero_shot": zero_shot.value}
            keep_base_answers(self.directory, task, task.zero_shot)
            self.report("baseline", **self.baseline)
            if self.lesson.model.base.is_tuned:  # at the end it is another model
                self._compare_in_context()
        self.report("eval", step=event.step, **line)
        with torch.no_grad():
            prompt_embeddings = self.trainer.prompt()
            rows = task.samples(evaluation, prompt_embeddings)
        if event.best:
            state = self._state() | {"evaluation": evaluation.numbers(), "samples": rows}
            tensors = self.trainer.weights() | answers(task, evaluation)
            keep = 1 if self.lesson.model.base.is_tuned else KEPT
            save_checkpoint(self.directory / "best", event.step, tensors, state, keep=keep)
        self.snapshots.record(event.step, prompt_embeddings, self.trainer.progress.best_step)
        self.report("sample", step=event.step, rows=rows)
        self.report(
            "tokens", step=event.step, **asdict(movement(prompt_embeddings, self.start, self.lesson.model.base))
        )

    def _compare_in_context(self) -> None:
        found = self.lesson.in_context
        if found is not None:
            self.baseline |= {"few_shot": found.evaluation.value, "few_shot_examples": found.count}

    def _result(self, evaluation: Evaluation, best_step: int, seconds: float) -> dict[str, Any]:
        task = self.lesson.task
        result: dict[str, Any] = {
            "metric": str(self.lesson.metric),
            "value": evaluation.value,
            "loss": evaluation.loss,
            "best_step": best_step,
            "steps": self.trainer.progress.step,
            "planned_steps": self.trainer.schedule.steps,
            "seconds": seconds,
            "baseline_majority": self.baseline["majority"],
            "baseline_zero_shot": self.baseline["zero_shot"],
            "baseline_few_shot": self.baseline.get("few_shot"),
            "few_shot_examples": self.baseline.get("few_shot_examples"),
            "data": self.lesson.examples.report.summary(),
            "base_weights": str(BaseWeights.TUNED if self.lesson.model.base.is_tuned else BaseWeights.FROZEN),
            "train_examples": task.num_examples,
            "validation_examples": len(task.validation),
            "trained_values": sum(parameter.numel() for parameter in self.trainer.parameters),
            "base_values": self.lesson.model.base.model.num_parameters(),
        }
        if not isinstance(task, TextTask):
            result["interval"] = wilson_interval(evaluation.value, len(task.validation))
        if isinstance(task, LabelTask):
            confusion = self.lesson.confusion(evaluation)
            result |= {
                "macro_f1": macro_f1(confusion),
                "calibration_error": calibration_error(
                    task.validation_gold, list(evaluation.predicted), list(evaluation.confidence)
                ),
                "labels": list(task.labels),
                "confusion": confusion,
            }
        return result

    @torch.no_grad()
    def _trained_prompt(self, result: dict[str, Any]) -> TrainedPrompt:
        model = self.lesson.model
        verbalizer, base = model.verbalizer, model.base
        head = {} if base.head is None else plain_state(base.head, f"{base.head_name}.")
        if base.is_tuned:
            save_base_model(base, self.directory / TUNED)
        return TrainedPrompt(
            prompt_embeddings=self.trainer.prompt().float().cpu(),
            template=self.settings.template,
            verbalizer=None if verbalizer is None or base.head is not None else dict(verbalizer.answers),
            labels=() if verbalizer is None else verbalizer.labels,
            columns=dict(self.lesson.examples.train.columns),  # those that were guessed too
            base_model=base.id,
            revision=base.revision,
            # A copy: the head is the base model's, and the next trial of a sweep trains it anew.
            head={name: tensor.detach().to("cpu", torch.float32, copy=True) for name, tensor in head.items()},
            encoder_state={name: tensor.cpu() for name, tensor in self.trainer.prompt.state_dict().items()},
            prompt_config=self.config,
            max_length=model.max_length,
            metrics=result,
            settings=self.settings.model_dump(mode="json"),
            precision=base.precision,
            segments=model.template.segments,
            tuned_base=self.directory / TUNED if base.is_tuned else None,
        )

    def _state(self) -> dict[str, Any]:
        return self.trainer.state() | {"fingerprint": self.fingerprint, "baseline": self.baseline}
