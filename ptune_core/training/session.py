"""One run from settings and data to trained prompts: what a worker and the command line call."""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property, partial
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ptune_core.data.examples import Examples, SplitOptions, build_examples
from ptune_core.data.table import Tables
from ptune_core.demo import DEMO, DEMO_LABELS
from ptune_core.errors import SettingsError
from ptune_core.model.base import BaseModel, load_base_model, with_gradient_checkpointing
from ptune_core.model.device import Device
from ptune_core.model.prompted import PromptedModel
from ptune_core.model.text_cache import Budget, TextCache
from ptune_core.model.trained import TrainedPrompt
from ptune_core.training.estimate import Estimate, measure
from ptune_core.training.loop import EndReason, train
from ptune_core.training.preparation import describe_text_cache, make_task
from ptune_core.training.processes import is_main_process, join_processes, told_by_main
from ptune_core.training.settings import RunSettings
from ptune_core.training.sweep import Outcome, directory_of, ranked, ranking
from ptune_core.training.trial import Lesson, Trial

ESTIMATED_ON = 64
"""Validation rows an estimate evaluates."""

TOGETHER_AT_MOST = 8
"""Trials that pass through the base model together: each takes as much memory for activations as a run alone."""

Report = Callable[[dict[str, Any]], None]
Export = Callable[[TrainedPrompt, Path], None]
Lessons = Mapping[str, Lesson]
"""Template -> what its trials learn from."""

TOKENS = "tokens"
"""Folder of the run directory with the tokenised rows."""


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
        settings: What the person chose. A sweep trains a trial for every combination of its values, on one base model
            and one text cache; trials with the same template pass through the base model together.
        tables: The data as `ingest` wrote them.
        directory: The run directory; `checkpoints/` and `best/` are kept there, those of a sweep in `sweep/NN/`;
            `tokens/` until the end.
        should_stop: Asked before every step.
        report: Receives every line of `metrics.jsonl` as a dict; those of a sweep's trials have a number, `trial`.
        export: Receives a trained prompt at the end and the directory it goes to, also when training was stopped or
            failed after an evaluation. Of a sweep every trial's, then the best once more for the run directory.

    Of several processes (`accelerate launch`) each takes its share of the batches; the main one alone asks
    `should_stop`, reports, saves and exports, and has a result.

    Returns:
        What `result.json` says of the training (without the run's state).

    Raises:
        PTuneError: With a text for the person; what was best so far has been exported if there was anything.
    """
    return _Session(settings, tables, directory, report).run(should_stop, export)


def estimate_run(settings: RunSettings, tables: Tables, directory: Path) -> Estimate:
    """What the run with these settings will take, measured on three real steps. Of a sweep, its first trial.

    Args:
        settings: What the person chose.
        tables: The data as `ingest` wrote them.
        directory: For files that are needed meanwhile.

    Raises:
        PTuneError: As the run would, with a text for the person.
    """
    return _Session(settings, tables, directory, lambda _: None).estimate()


class _Session:
    def __init__(self, settings: RunSettings, tables: Tables, directory: Path, report: Report) -> None:
        self.settings, self.tables, self.directory, self._report = settings, tables, directory, report
        join_processes(cpu=settings.device is Device.CPU)
        self.is_main = is_main_process()
        self.trials = settings.trials
        self.begun = time.monotonic()

    def run(self, should_stop: Callable[[], bool], export: Export) -> dict[str, Any]:
        self.phase("loading data")
        examples = {template: self.load_data(template) for template in dict.fromkeys(s.template for s in self.trials)}
        check_comparable(examples)
        self.phase("loading base model")
        base = self.load_base(next(iter(examples.values())))
        self.phase("preparing")
        lessons = self.lessons(base, examples)
        untrained_head = None if base.head is None else {name: t.clone() for name, t in base.head.state_dict().items()}
        should_stop = told_by_main(should_stop)
        outcomes: list[Outcome] = []
        for i, numbers in enumerate(self.together(base)):
            if i and should_stop():
                break
            if base.head is not None and untrained_head is not None:
                base.head.load_state_dict(untrained_head)
            outcomes += self.train(numbers, lessons, should_stop, export)
        return self.conclude(outcomes, export) if self.is_main else {}

    def estimate(self) -> Estimate:
        template = self.trials[0].template
        examples = self.load_data(template)
        base = self.load_base(examples)
        lessons = self.lessons(base, {template: examples})
        lesson = lessons[template]
        validation = lesson.task.validation.select(np.arange(min(len(lesson.task.validation), ESTIMATED_ON)))
        part = make_task(lesson.model, replace(examples, validation=validation), self.settings, self.directory / TOKENS)
        trainer = Trial(self.trials[0], lesson, self.directory, "", self.report).trainer
        return measure(trainer, lesson.task, part, base, self.begun)

    def load_data(self, template: str) -> Examples:
        settings = self.settings.model_copy(update={"template": template})
        return build_examples(
            self.tables.table,
            settings.parsed_template,
            columns=settings.columns,
            labels={} if settings.candidates else self.labels(),
            split=SplitOptions(settings.validation_fraction, settings.max_validation_rows, settings.seed),
            validation=self.tables.validation,
        )

    def labels(self) -> Mapping[str, str] | None:
        """Label -> answer words as they were chosen; None: as the data says."""
        if self.settings.labels is None and self.settings.data == DEMO:
            return DEMO_LABELS
        return self.settings.labels

    def load_base(self, examples: Examples) -> BaseModel:
        settings = self.settings
        # Decides the start of a new classification head.
        torch.manual_seed(settings.seed)
        base = load_base_model(
            settings.base_model,
            target=settings.parsed_template.target.kind,
            num_labels=None if examples.verbalizer is None else len(examples.verbalizer.labels),
            revision=settings.revision,
            device=settings.device,
            precision=settings.precision,
        )
        return with_gradient_checkpointing(base) if settings.gradient_checkpointing else base

    def lessons(self, base: BaseModel, examples: Mapping[str, Examples]) -> Lessons:
        """What each template's trials learn from, all with one text cache."""
        lessons, texts = {}, None
        for template, found in examples.items():
            parsed = self.settings.model_copy(update={"template": template}).parsed_template
            model = PromptedModel(base, parsed, found.verbalizer, max_length=self.settings.max_length, texts=texts)
            texts = model.texts
            lessons[template] = Lesson(model, make_task(model, found, self.settings, self.directory / TOKENS), found)
        if texts is not None:
            self.reserve(texts, list(lessons.values()))
        return lessons

    def reserve(self, texts: TextCache, lessons: Sequence[Lesson]) -> None:
        """Find room for what stands before the first virtual tokens."""
        self.directory.mkdir(parents=True, exist_ok=True)
        groups = []
        for lesson in lessons:
            steps = self.settings.steps_for(lesson.task.num_examples)
            # Trials with a classification head of their own come one after the other.
            times = 1 if lesson.model.base.head is None else len(self.trials)
            groups.append(lesson.task.contexts(times * steps * self.settings.gradient_accumulation_steps))
        texts.reserve(chain.from_iterable(groups), Budget(self.settings.text_cache_mib, self.directory))

    def together(self, base: BaseModel) -> list[list[int]]:
        """Numbers of the trials that share their batches: one template, and no classification head of their own."""
        at_most = TOGETHER_AT_MOST if base.head is None else 1
        groups: dict[str, list[int]] = {}
        for number, settings in enumerate(self.trials):
            groups.setdefault(settings.template, []).append(number)
        return [of[i : i + at_most] for of in groups.values() for i in range(0, len(of), at_most)]

    def train(
        self, numbers: Sequence[int], lessons: Lessons, should_stop: Callable[[], bool], export: Export
    ) -> list[Outcome]:
        """Train trials that share their batches, and export them."""
        trials = {number: self.trial(number, lessons) for number in numbers}
        lesson = next(iter(trials.values())).lesson
        if 0 in trials:
            self.report_plan(trials[0])
        for trial in trials.values():
            trial.resume()
        self.phase("training", trials=list(trials))
        of_trainer = {id(trial.trainer): trial for trial in trials.values()}
        trainers = [trial.trainer for trial in trials.values()]
        for trainer, event in train(trainers, lesson.task, lesson.metric, should_stop):
            of_trainer[id(trainer)].take(event, self.seconds())
        if not self.is_main:
            return []
        self.phase("exporting")
        outcomes = []
        for number, trial in trials.items():
            finished = trial.finish(self.seconds())
            if finished is not None:
                export(finished[1], trial.directory)
            outcomes.append(Outcome(number, trial, finished))
        return outcomes

    def conclude(self, outcomes: Sequence[Outcome], export: Export) -> dict[str, Any]:
        """The best trial's result; of a sweep with the ranking of all."""
        best, *_ = ranked(outcomes)
        if self.settings.sweep and best.finished is not None:
            export(best.finished[1], self.directory)
        if best.trial.error is not None and (best.finished is None or not self.settings.sweep):
            raise best.trial.error
        stopped = len(outcomes) < len(self.trials) or any(o.trial.reason is EndReason.STOPPED for o in outcomes)
        if not stopped:
            shutil.rmtree(self.directory / TOKENS, ignore_errors=True)  # of use to a resumed run alone
        result = {} if best.finished is None else best.finished[0]
        if self.settings.sweep:
            result = result | {"sweep": ranking(outcomes, list(self.settings.sweep)), "trial": best.number}
        return result | {"reason": str(best.trial.reason), "seconds": self.seconds(), "stopped": stopped}

    def trial(self, number: int, lessons: Lessons) -> Trial:
        settings = self.trials[number]
        if not self.settings.sweep:
            directory, report = self.directory, self.report
        else:
            directory, report = directory_of(self.directory, number), partial(self.report, trial=number)
        return Trial(settings, lessons[settings.template], directory, self.fingerprint(settings), report)

    def report_plan(self, trial: Trial) -> None:
        model, task, examples = trial.lesson.model, trial.lesson.task, trial.lesson.examples
        warnings = [*examples.report.warnings, *model.template.warnings(task.num_examples), *task.warnings]
        self.report(
            "plan",
            steps=trial.trainer.schedule.steps,
            train_examples=task.num_examples,
            validation_examples=len(task.validation),
            metric=str(trial.lesson.metric),
            parameters=sum(parameter.numel() for parameter in trial.trainer.parameters),
            prompt_values=model.num_virtual_tokens * model.base.hidden_size,
            device=str(model.base.device),
            precision=model.base.precision,
            data=examples.report.summary(),
            text_cache=describe_text_cache(model),
            trials=len(self.trials),
            warnings=warnings,
        )

    def fingerprint(self, settings: RunSettings) -> str:
        """Changes when anything does that decides the training: the settings, but for the name, and the rows."""
        values = settings.model_dump(mode="json", exclude={"name"})
        return hashlib.sha256(json.dumps(values, sort_keys=True).encode() + self.data_digest).hexdigest()

    @cached_property
    def data_digest(self) -> bytes:
        digest = hashlib.sha256()
        for table in (self.tables.table, self.tables.validation):
            if table is not None:
                digest.update(bytes.fromhex(table.digest))
        return digest.digest()

    def phase(self, name: str, **values: Any) -> None:
        self.report("phase", phase=name, seconds=self.seconds(), **values)

    def report(self, kind: str, **values: Any) -> None:
        if self.is_main:
            self._report({"kind": kind, **values})

    def seconds(self) -> float:
        return round(time.monotonic() - self.begun, 3)


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
