"""One training from settings and data to a trained prompt: what a worker and the command line run."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor

from ptune_core.data.examples import Examples, SplitOptions, build_examples
from ptune_core.data.table import Tables
from ptune_core.demo import DEMO, DEMO_LABELS
from ptune_core.errors import CheckpointError, TrainingError
from ptune_core.model.base import load_base_model
from ptune_core.model.prompted import PromptedModel
from ptune_core.model.text_cache import Budget
from ptune_core.model.trained import TrainedPrompt
from ptune_core.prompt.init import Prompt
from ptune_core.training.checkpoint import load_checkpoint, save_checkpoint
from ptune_core.training.loop import CheckpointDue, Ended, EndReason, Evaluated, Schedule, Stepped, Trainer, train
from ptune_core.training.metrics import (
    Evaluation,
    Metric,
    calibration_error,
    confusion_matrix,
    macro_f1,
    majority_accuracy,
    wilson_interval,
)
from ptune_core.training.preparation import (
    describe_text_cache,
    initial_prompt_embeddings,
    make_schedule,
    make_task,
    prompt_config,
)
from ptune_core.training.settings import RunSettings
from ptune_core.training.tasks import LabelTask, TextTask

Report = Callable[[dict[str, Any]], None]
Export = Callable[[TrainedPrompt], None]


def run_training(
    settings: RunSettings,
    tables: Tables,
    directory: Path,
    *,
    should_stop: Callable[[], bool],
    report: Report,
    export: Export,
) -> dict[str, Any]:
    """Train, or go on from the newest checkpoint in `directory`, and hand the best prompt to `export`.

    Args:
        settings: What the person chose.
        tables: The data as `ingest` wrote them.
        directory: The run directory; `checkpoints/` and `best/` are kept there.
        should_stop: Asked before every step.
        report: Receives every line of `metrics.jsonl` as a dict.
        export: Receives the trained prompt at the end, also when training was stopped or failed after an evaluation.

    Returns:
        What `result.json` says of the training (without the run's state).

    Raises:
        PTuneError: With a text for the person; what was best so far has been exported if there was anything.
    """
    return _Session(settings, tables, directory, report).run(should_stop, export)


class _Session:
    def __init__(self, settings: RunSettings, tables: Tables, directory: Path, report: Report) -> None:
        self.settings, self.tables, self.directory, self._report = settings, tables, directory, report
        self.begun = time.monotonic()
        self.baseline: dict[str, float | None] = {}

    def run(self, should_stop: Callable[[], bool], export: Export) -> dict[str, Any]:
        settings = self.settings
        self.phase("loading data")
        template = settings.parsed_template
        labels = settings.labels or (DEMO_LABELS if settings.data == DEMO else None)
        split = SplitOptions(settings.validation_fraction, settings.max_validation_rows, settings.seed)
        examples = build_examples(
            self.tables.table,
            template,
            columns=settings.columns,
            labels=labels,
            split=split,
            validation=self.tables.validation,
        )
        self.phase("loading base model")
        # Decides the start of a new classification head.
        torch.manual_seed(settings.seed)
        base = load_base_model(
            settings.base_model,
            target=template.target.kind,
            num_labels=None if examples.verbalizer is None else len(examples.verbalizer.labels),
            revision=settings.revision,
            device=settings.device,
            precision=settings.precision,
        )
        self.phase("preparing")
        model = PromptedModel(base, template, examples.verbalizer, max_length=settings.max_length)
        task = make_task(model, examples, settings)
        self.metric = Metric.ACCURACY if isinstance(task, LabelTask) else Metric.LOSS
        self.config = prompt_config(settings, base, model.template)
        prompt = Prompt(self.config, initial_prompt_embeddings(settings, base, model.template))
        schedule = make_schedule(settings, task.num_examples)
        accelerator = Accelerator(cpu=base.device.type == "cpu")
        trainer = Trainer(prompt, base.head, schedule, accelerator)
        self.reserve_text_cache(model, task, schedule)
        self.report_plan(trainer, task, examples, model)
        self.resume(trainer)
        self.phase("training")
        try:
            reason = self.consume(trainer, task, should_stop)
        except TrainingError:
            self.finish(trainer, model, task, examples, export)
            raise
        self.phase("exporting")
        result = self.finish(trainer, model, task, examples, export)
        return result | {"reason": str(reason), "stopped": reason is EndReason.STOPPED}

    def reserve_text_cache(self, model: PromptedModel, task: LabelTask | TextTask, schedule: Schedule) -> None:
        """Find room for what stands before the first virtual tokens."""
        if model.texts is not None:
            self.directory.mkdir(parents=True, exist_ok=True)
            budget = Budget(self.settings.text_cache_mib, self.directory)
            model.texts.reserve(task.contexts(schedule.steps * schedule.batches_per_step), budget)

    def consume(self, trainer: Trainer, task: LabelTask | TextTask, should_stop: Callable[[], bool]) -> EndReason:
        """Run the loop, turning its events into lines and files."""
        reason = EndReason.STOPPED
        for _, event in train([trainer], task, self.metric, should_stop):
            match event:
                case Stepped():
                    self.report("step", **asdict(event) | {"seconds": self.seconds()})
                case Evaluated():
                    self.evaluated(trainer, task, event)
                case CheckpointDue(step=step):
                    state = trainer.state() | self.state
                    save_checkpoint(self.directory / "checkpoints", step, trainer.tensors(), state)
                case Ended(reason=reason, error=error):
                    if error is not None:
                        raise error
        return reason

    def evaluated(self, trainer: Trainer, task: LabelTask | TextTask, event: Evaluated) -> None:
        evaluation = event.evaluation
        line = {"loss": evaluation.loss, "value": evaluation.value, "best": event.best, "seconds": self.seconds()}
        if isinstance(task, LabelTask):
            line["macro_f1"] = macro_f1(self.confusion(task, evaluation))
        if event.step == 0:
            majority = majority_accuracy(task.validation_gold) if isinstance(task, LabelTask) else None
            # A new classification head knows nothing: what it says before training is its zero-shot line.
            zero_shot = task.evaluate_zero_shot() or evaluation
            self.baseline = {"majority": majority, "zero_shot": zero_shot.value}
            self.report("baseline", **self.baseline)
        self.report("eval", step=event.step, **line)
        if event.best:
            state = trainer.state() | self.state | {"evaluation": asdict(evaluation)}
            tensors = {name: t for name, t in trainer.tensors().items() if name.startswith("trained.")}
            save_checkpoint(self.directory / "best", event.step, tensors, state)
        with torch.no_grad():
            rows = task.samples(evaluation, trainer.prompt())
        self.report("sample", step=event.step, rows=rows)

    def resume(self, trainer: Trainer) -> None:
        """Go on from the newest checkpoint, if there is one."""
        saved = load_checkpoint(self.directory / "checkpoints")
        if saved is None:
            return
        tensors, state = saved
        if state["fingerprint"] != self.fingerprint:
            raise CheckpointError(
                "The checkpoint was made with other settings or other data",
                needed="the same settings and data as before the interruption",
                remedy="Start a new run (command line: choose another --out directory)",
            )
        trainer.restore(tensors, state)
        self.baseline = state["baseline"]
        self.report("resume", step=trainer.progress.step)

    def finish(
        self, trainer: Trainer, model: PromptedModel, task: LabelTask | TextTask, examples: Examples, export: Export
    ) -> dict[str, Any]:
        """Put the best state back, describe it and export it; an empty description if nothing was evaluated."""
        best = load_checkpoint(self.directory / "best")
        if best is None:
            return {}
        tensors, state = best
        trained = {name.removeprefix("trained."): tensor for name, tensor in tensors.items()}
        trainer.trained.load_state_dict(trained)
        trainer.trained.eval()
        evaluation = Evaluation(**state["evaluation"])
        result = self.result(trainer, task, examples, evaluation, int(state["step"]))
        with torch.no_grad():
            prompt_embeddings = trainer.prompt().float().cpu()
        export(self.trained_prompt(trainer, model, examples, prompt_embeddings, result))
        return result

    def result(
        self, trainer: Trainer, task: LabelTask | TextTask, examples: Examples, evaluation: Evaluation, best_step: int
    ) -> dict[str, Any]:
        result: dict[str, Any] = {
            "metric": str(self.metric),
            "value": evaluation.value,
            "loss": evaluation.loss,
            "best_step": best_step,
            "steps": trainer.progress.step,
            "planned_steps": trainer.schedule.steps,
            "seconds": self.seconds(),
            "baseline_majority": self.baseline["majority"],
            "baseline_zero_shot": self.baseline["zero_shot"],
            "data": examples.report.summary(),
            "train_examples": task.num_examples,
            "validation_examples": len(task.validation),
        }
        if isinstance(task, LabelTask):
            confusion = self.confusion(task, evaluation)
            result |= {
                "interval": wilson_interval(evaluation.value, len(task.validation)),
                "macro_f1": macro_f1(confusion),
                "calibration_error": calibration_error(
                    task.validation_gold, list(evaluation.predicted), list(evaluation.confidence)
                ),
                "labels": list(task.labels),
                "confusion": confusion,
            }
        return result

    def trained_prompt(
        self,
        trainer: Trainer,
        model: PromptedModel,
        examples: Examples,
        prompt_embeddings: Tensor,
        result: dict[str, Any],
    ) -> TrainedPrompt:
        verbalizer, base = examples.verbalizer, model.base
        head = {} if base.head is None else base.head.state_dict(prefix=f"{base.head_name}.")
        return TrainedPrompt(
            prompt_embeddings=prompt_embeddings,
            template=self.settings.template,
            verbalizer=None if verbalizer is None or base.head is not None else dict(verbalizer.answers),
            labels=() if verbalizer is None else verbalizer.labels,
            columns=dict(self.settings.columns),
            base_model=base.id,
            revision=base.revision,
            head={name: tensor.float().cpu() for name, tensor in head.items()},
            encoder_state={name: tensor.cpu() for name, tensor in trainer.prompt.state_dict().items()},
            prompt_config=self.config,
            max_length=model.max_length,
            metrics=result,
            settings=self.settings.model_dump(mode="json"),
            precision=base.precision,
            segments=model.template.segments,
        )

    def report_plan(
        self, trainer: Trainer, task: LabelTask | TextTask, examples: Examples, model: PromptedModel
    ) -> None:
        warnings = [*examples.report.warnings, *model.template.warnings(task.num_examples), *task.warnings]
        self.report(
            "plan",
            steps=trainer.schedule.steps,
            train_examples=task.num_examples,
            validation_examples=len(task.validation),
            metric=str(self.metric),
            parameters=sum(parameter.numel() for parameter in trainer.parameters),
            prompt_values=model.num_virtual_tokens * model.base.hidden_size,
            device=str(model.base.device),
            precision=model.base.precision,
            data=examples.report.summary(),
            text_cache=describe_text_cache(model),
            warnings=warnings,
        )

    def confusion(self, task: LabelTask, evaluation: Evaluation) -> list[list[int]]:
        return confusion_matrix(task.validation_gold, evaluation.predicted, len(task.labels))

    @property
    def state(self) -> dict[str, Any]:
        """What a checkpoint holds beside the trainer's own state."""
        return {"fingerprint": self.fingerprint, "baseline": self.baseline}

    @cached_property
    def fingerprint(self) -> str:
        """Changes when anything does that decides the training: the settings, but for the name, and the rows."""
        values = self.settings.model_dump(mode="json", exclude={"name"})
        digest = hashlib.sha256(json.dumps(values, sort_keys=True).encode())
        for table in (self.tables.table, self.tables.validation):
            if table is not None:
                digest.update(table.path.read_bytes())
        return digest.hexdigest()

    def phase(self, name: str) -> None:
        self.report("phase", phase=name, seconds=self.seconds())

    def report(self, kind: str, **values: Any) -> None:
        self._report({"kind": kind, **values})

    def seconds(self) -> float:
        return round(time.monotonic() - self.begun, 3)
