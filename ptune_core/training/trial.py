"""One setting in training: its prompt, where it stands, and the files and lines it leaves behind."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Collection
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor

from ptune_core.errors import CheckpointError, TrainingError
from ptune_core.model.base import BaseModel, put_on
from ptune_core.model.device import BaseWeights
from ptune_core.model.head import plain_state
from ptune_core.model.insight import movement
from ptune_core.model.trained import TrainedPrompt
from ptune_core.model.tuned import save_base_model
from ptune_core.model.virtual import parts_of
from ptune_core.prompt.init import Prompt
from ptune_core.training.checkpoint import KEPT, load_checkpoint, save_checkpoint
from ptune_core.training.head_start import start_head
from ptune_core.training.lesson import Lesson
from ptune_core.training.loop import CheckpointDue, Ended, EndReason, Evaluated, Event, Stepped, Trainer
from ptune_core.training.metrics import (
    Evaluation,
    calibration_error,
    macro_f1,
    wilson_interval,
)
from ptune_core.training.predictions import answers, keep_base_answers, write_predictions
from ptune_core.training.preparation import (
    check_encoder_room,
    initial_prompt_embeddings,
    layers_to_train,
    make_schedule,
    prompt_config,
)
from ptune_core.training.settings import RunSettings
from ptune_core.training.snapshots import Snapshots
from ptune_core.training.tasks import LabelTask, TextTask

TUNED = "tuned-base"
"""Folder of a trial with the base model as its best step left it, until that is in the adapter."""

ReportLine = Callable[..., None]
"""Called with the kind of a line and its values."""


def has_own_weights(base: BaseModel) -> bool:
    """Whether a trial trains weights of `base` beside its prompt, so that trials cannot pass through it together."""
    return base.is_tuned or base.head is not None


def evaluation_share(trials: Collection[Trial], seconds: float) -> float:
    """Share of `seconds` that evaluations of these trials have taken, those of what they share counted once."""
    lessons = {id(trial.lesson): trial.lesson for trial in trials}.values()
    evaluating = sum(trial.trainer.evaluation_seconds for trial in trials)
    return round((evaluating + sum(lesson.seconds for lesson in lessons)) / max(seconds, 1e-3), 4)


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
        hidden_lengths = layers_to_train(settings, base, model.template)
        start = initial_prompt_embeddings(
            settings, base, model.template, verbalizer=model.verbalizer, starts=lesson.starts
        )
        # Decides how the prompt encoder starts.
        torch.manual_seed(settings.seed)
        prompt = Prompt(self.config, start, hidden_lengths).eval()
        with torch.no_grad():
            self.start = prompt()  # the same in every attempt
        schedule = make_schedule(settings, lesson.task.num_examples)
        accelerator = Accelerator(cpu=base.device.type == "cpu")
        tuned = base.model if base.is_tuned else None
        self.trainer = Trainer(prompt, base.head, schedule, accelerator, tuned, lesson.between)
        self.baseline: dict[str, Any] = {}
        self.ended: Ended | None = None

    def begin(self) -> None:
        """Go on from the newest checkpoint; if there is none, put a classification head where it starts.

        Raises:
            CheckpointError: It is of other settings or data, or none is whole.
        """
        saved = load_checkpoint(self.directory / "checkpoints")
        if self.trainer.accelerator.is_main_process:
            # What came after the checkpoint comes again.
            self.snapshots.forget_after(-1 if saved is None else int(saved[1]["step"]))
        model, settings = self.lesson.model, self.settings
        if model.base.head is not None:
            put_on(model.base)
            if saved is None:
                seed = settings.seed if self.lesson.frozen is None else self.lesson.seed
                start_head(model, self.lesson.frozen, self.start, settings.head_start, seed)
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
        """Put the best state back; what `result.json` says of it, and what to export. None if nothing was evaluated.

        Args:
            seconds: How long the run has taken.
        """
        if load_checkpoint(self.directory / "best") is None:
            return None
        begun = time.monotonic()
        step, evaluation, tensors = self._measure_candidates()
        with torch.no_grad():
            prompt_embeddings = self.trainer.prompt()
            samples = self.lesson.task.samples(evaluation, prompt_embeddings)
        write_predictions(self.directory, self.lesson.task, tensors, {"step": step, "samples": samples})
        if self.reason is not EndReason.STOPPED and not self.lesson.model.base.is_tuned:  # stopped, somebody waits
            self._compare_in_context()
            self._compare_probe()
        result = self._result(evaluation, step, seconds + time.monotonic() - begun)
        self.report("final", step=step, **self._numbers(evaluation), baseline=self.baseline)
        return result, self._trained_prompt(result)

    def _measure_candidates(self) -> tuple[int, Evaluation, dict[str, Tensor]]:
        """Compare the best state so far with the last one, put the better one back and evaluate it on all rows.

        Its step, what was found, and its `answers`; if all rows were evaluated every time, what was found then.
        """
        best = load_checkpoint(self.directory / "best")
        assert best is not None, "something was evaluated"
        tensors, state = best
        step, task, trainer, lesson = int(state["step"]), self.lesson.task, self.trainer, self.lesson
        if lesson.between is None:
            trainer.put_back(tensors)
            return step, Evaluation(**state["evaluation"]), tensors
        last_step = trainer.progress.step
        if last_step == step or trainer.progress.evaluated_step != last_step or self.reason is EndReason.STOPPED:
            trainer.put_back(tensors)
            found = trainer.evaluate_here(task, None)
            return step, found, answers(task, found)
        last, weights = trainer.evaluate_here(task, lesson.compared), trainer.weights()
        weights = {name: tensor.clone() for name, tensor in weights.items()}
        trainer.put_back(tensors)
        found, metric = trainer.evaluate_here(task, lesson.compared), lesson.metric
        if metric.order(last.value, last.loss) < metric.order(found.value, found.loss):
            trainer.put_back(weights)
            step, found = last_step, last
        if found.chosen is not None:
            found = trainer.evaluate_here(task, None)
        return step, found, answers(task, found)

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
        self.report("eval", step=event.step, **self._numbers(evaluation), best=event.best, seconds=seconds)
        if event.step == 0:
            self._measure_base()
        begun = time.monotonic()
        with torch.no_grad():
            prompt_embeddings = self.trainer.prompt()
            rows = task.samples(evaluation, prompt_embeddings)
        self.trainer.evaluation_seconds += time.monotonic() - begun
        if event.best:
            state = self._state() | {"evaluation": evaluation.numbers()}
            tensors = self.trainer.weights()
            if evaluation.chosen is None:  # else all rows are evaluated with it at the end
                tensors |= answers(task, evaluation)
            keep = 1 if self.lesson.model.base.is_tuned else KEPT
            save_checkpoint(self.directory / "best", event.step, tensors, state, keep=keep)
        first, deep = self._parts(prompt_embeddings)
        self.snapshots.record(event.step, first, self.trainer.progress.best_step, deep)
        self.report("sample", step=event.step, rows=rows)
        moved = movement(first, self._parts(self.start)[0], self.lesson.model.base)
        self.report("tokens", step=event.step, **asdict(moved))

    def _parts(self, prompt: Tensor) -> tuple[Tensor, Tensor | None]:
        """The prompt embeddings `[P, H]`, and what a deep prompt adds before each layer, `[L, P, H]`."""
        first, layers = parts_of(prompt, self.lesson.model.num_virtual_tokens)
        return first, torch.stack(layers) if layers else None

    def _numbers(self, evaluation: Evaluation) -> dict[str, Any]:
        """What a line says of an evaluation, with the interval that so many rows leave."""
        task = self.lesson.task
        rows = len(task.validation) if evaluation.chosen is None else len(evaluation.chosen)
        line: dict[str, Any] = {"loss": evaluation.loss, "value": evaluation.value, "rows": rows}
        if not isinstance(task, TextTask):
            line["interval"] = wilson_interval(evaluation.value, rows)
        if isinstance(task, LabelTask):
            line["macro_f1"] = macro_f1(self.lesson.confusion(evaluation))
            if evaluation.only is not None:
                line["only"] = task.labels[evaluation.only]
        return line

    def _measure_base(self) -> None:
        """What the result will stand beside, as far as it can be known before the first step."""
        lesson = self.lesson
        alone = lesson.base_alone
        self.baseline = {"majority": lesson.task.majority, "zero_shot": None if alone is None else alone.value}
        if lesson.model.base.head is not None:
            self._compare_probe()
        keep_base_answers(self.directory, lesson.task, alone)
        self.report("baseline", **self.baseline)
        if lesson.model.base.is_tuned:  # at the end it is another model
            self._compare_in_context()

    def _compare_in_context(self) -> None:
        found = self.lesson.in_context
        if found is not None:
            self.baseline |= {"few_shot": found.evaluation.value, "few_shot_examples": found.count}

    def _compare_probe(self) -> None:
        """What the frozen base model gives without virtual tokens."""
        if "probe" not in self.baseline and self.lesson.probe is not None:
            self.baseline |= self.lesson.probe.values()

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
            "baseline_probe": self.baseline.get("probe"),
            **{name: value for name, value in self.baseline.items() if name.startswith("probe_")},
            "data": self.lesson.examples.report.summary(),
            "base_weights": str(BaseWeights.TUNED if self.lesson.model.base.is_tuned else BaseWeights.FROZEN),
            "train_examples": task.num_examples,
            "validation_examples": len(task.validation),
            "evaluation_share": evaluation_share([self], seconds),
            "trained_values": sum(parameter.numel() for parameter in self.trainer.parameters),
            "base_values": self.lesson.model.base.model.num_parameters(),
        }
        if self.lesson.choice is not None:
            result["head"] = self.lesson.choice.values()
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
        prompt_embeddings, deep = self._parts(self.trainer.prompt().float().cpu())
        return TrainedPrompt(
            prompt_embeddings=prompt_embeddings,
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
            head_input=base.head_input,
            deep=deep,
        )

    def _state(self) -> dict[str, Any]:
        return self.trainer.state() | {"fingerprint": self.fingerprint, "baseline": self.baseline}
