"""One run from settings and data to trained prompts: what a worker and the command line call."""

from __future__ import annotations

import hashlib
import json
import logging
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

from ptune_core.data.examples import Examples
from ptune_core.data.table import Tables
from ptune_core.errors import PTuneError
from ptune_core.model.base import BaseModel, load_base_model
from ptune_core.model.device import BaseWeights, Device, Precision
from ptune_core.model.fetching import fetch_weights
from ptune_core.model.kernels import keep_rows_alike
from ptune_core.model.recomputing import with_gradient_checkpointing
from ptune_core.model.text_cache import Budget, TextCache
from ptune_core.model.trained import TrainedPrompt
from ptune_core.model.tuned import put_weights, tunable, untrained_weights
from ptune_core.prompt.kinds import PromptDepth
from ptune_core.training import newest
from ptune_core.training.estimate import Estimate, measure
from ptune_core.training.halving import Halving, without_seed
from ptune_core.training.lesson import Lesson, LessonKey, Lessons, check_comparable, lesson_key, make_lesson
from ptune_core.training.loop import EndReason, Stepped, Trainer, train
from ptune_core.training.measuring_ways import measure_ways
from ptune_core.training.predictions import copy_predictions
from ptune_core.training.preparation import (
    check_room,
    describe_base,
    describe_text_cache,
    layers_to_train,
    load_examples,
    make_task,
    settings_warnings,
)
from ptune_core.training.processes import is_main_process, join_processes, told_by_main
from ptune_core.training.settings import RunSettings
from ptune_core.training.sweep import Outcome, directory_of, over_seeds, ranked, ranking
from ptune_core.training.trial import Trial, evaluation_share, has_own_weights

ESTIMATED_ON = 64
"""Validation rows an estimate evaluates."""

TOGETHER_AT_MOST = 8
"""Trials that pass through the base model together: each takes as much memory for activations as a run alone."""

logger = logging.getLogger(__name__)
Report = Callable[[dict[str, Any]], None]
Export = Callable[[TrainedPrompt, Path], None]
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
        self.shown = 0  # the trial whose curve is the run's
        self.begun = time.monotonic()

    def run(self, should_stop: Callable[[], bool], export: Export) -> dict[str, Any]:
        self.phase("loading data")
        examples = {template: self.load_data(template) for template in dict.fromkeys(s.template for s in self.trials)}
        check_comparable(examples)
        self.phase("loading base model")
        base = self.load_base(next(iter(examples.values())))
        self.phase("preparing")
        lessons = self.lessons(base, examples, self.trials)
        groups = self.together(base)
        if base.is_tuned and self.is_main:
            check_room(base, self.directory, len(self.trials))
        untrained = untrained_weights(base, self.directory) if base.is_tuned and len(groups) > 1 else {}
        should_stop = told_by_main(should_stop)
        halving = Halving(next(iter(lessons.values())).metric, self.compared())
        outcomes: list[Outcome] = []
        for i, numbers in enumerate(groups):
            if i and should_stop():
                break
            if i and base.is_tuned:
                put_weights(base, untrained)
            outcomes += self.train(numbers, lessons, halving, should_stop, export)
        return self.conclude(outcomes, export) if self.is_main else {}

    def estimate(self) -> Estimate:
        template = self.trials[0].template
        examples = self.load_data(template)
        base = self.load_base(examples)
        lesson = next(iter(self.lessons(base, {template: examples}, self.trials[:1]).values()))
        validation = lesson.task.validation.select(np.arange(min(len(lesson.task.validation), ESTIMATED_ON)))
        part = make_task(lesson.model, replace(examples, validation=validation), self.settings, self.directory / TOKENS)
        trial = Trial(self.trials[0], lesson, self.directory, "", self.report)
        trial.begin()
        found = measure(trial.trainer, lesson, part, self.begun)
        warnings = settings_warnings(self.trials, base, lesson.model.template)
        ways = measure_ways(lesson, found.evaluation / len(lesson.task.validation))
        return replace(found, warnings=tuple(warnings), ways=ways)

    def load_data(self, template: str) -> Examples:
        return load_examples(self.settings.model_copy(update={"template": template}), self.tables)

    def load_base(self, examples: Examples) -> BaseModel:
        settings = self.settings
        fetch_weights(settings.base_model, settings.revision, self.fetching)
        # Decides the start of a new classification head.
        torch.manual_seed(settings.seed)
        base = load_base_model(
            settings.base_model,
            target=settings.parsed_template.target.kind,
            num_labels=None if examples.verbalizer is None else len(examples.verbalizer.labels),
            revision=settings.revision,
            device=settings.device,
            precision=settings.precision if settings.base_weights is BaseWeights.FROZEN else Precision.FP32,
        )
        if settings.base_weights is BaseWeights.TUNED:
            base = tunable(base)
        keep_rows_alike(base.model)
        return with_gradient_checkpointing(base) if settings.gradient_checkpointing else base

    def fetching(self, here: int, total: int) -> None:
        """Tell how much of the base model has come from the Hub."""
        self.phase("downloading base model" if here < total else "loading base model", bytes=here, of=total)

    def lessons(self, base: BaseModel, examples: Mapping[str, Examples], trials: Sequence[RunSettings]) -> Lessons:
        """What each template's trials learn from, all with one text cache."""
        lessons: dict[LessonKey, Lesson] = {}
        texts = None
        for settings in trials:
            if (key := lesson_key(settings)) not in lessons:
                made = make_lesson(
                    base,
                    examples[settings.template],
                    settings,
                    self.directory / TOKENS,
                    texts=texts,
                    starts=self.tables.starts,
                )
                lessons[key], texts = made, made.model.texts
            layers_to_train(settings, base, lessons[key].model.template)  # told before the first trial, not at its turn
        if texts is not None:
            self.reserve(texts, list(lessons.values()))
        return lessons

    def reserve(self, texts: TextCache, lessons: Sequence[Lesson]) -> None:
        """Find room for what stands before the first virtual tokens."""
        self.directory.mkdir(parents=True, exist_ok=True)
        groups = []
        for lesson in lessons:
            steps = self.settings.steps_for(lesson.task.num_examples)
            # Trials with weights of their own beside the prompt come one after the other.
            times = len(self.trials) if has_own_weights(lesson.model.base) else 1
            groups.append(lesson.task.contexts(times * steps * self.settings.gradient_accumulation_steps))
        texts.reserve(chain.from_iterable(groups), Budget(self.settings.text_cache_mib, self.directory))

    def together(self, base: BaseModel) -> list[list[int]]:
        """Numbers of the trials that share their batches: one template, and no weights of their own but the prompt."""
        at_most = 1 if has_own_weights(base) else TOGETHER_AT_MOST
        # Those that differ in the seed alone stay together, if they are not too many.
        seeds = len(set(self.settings.sweep.get("seed", [0])))
        at_most = max(1, at_most // seeds) * seeds if seeds <= at_most else at_most
        groups: dict[tuple[LessonKey, PromptDepth], dict[str, list[int]]] = {}
        for number, settings in enumerate(self.trials):
            # What passes through the base model together is of one depth.
            key = lesson_key(settings), settings.prompt_depth
            groups.setdefault(key, {}).setdefault(without_seed(settings), []).append(number)
        ordered = [list(chain.from_iterable(of.values())) for of in groups.values()]
        return [of[i : i + at_most] for of in ordered for i in range(0, len(of), at_most)]

    def compared(self) -> int:
        """How many settings halving compares; 1 if it has none to compare."""
        if not self.settings.halving:
            return 1
        return min(len(set(map(without_seed, self.trials))), TOGETHER_AT_MOST)

    def train(
        self,
        numbers: Sequence[int],
        lessons: Lessons,
        halving: Halving,
        should_stop: Callable[[], bool],
        export: Export,
    ) -> list[Outcome]:
        """Train trials that share their batches, and export them."""
        trials = {number: self.trial(number, lessons) for number in numbers}
        lesson = next(iter(trials.values())).lesson
        if 0 in trials:
            self.report_plan(trials[0])
        for trial in trials.values():
            trial.begin()
        self.phase("training", trials=list(trials))
        of_trainer = {id(trial.trainer): trial for trial in trials.values()}
        trainers = [trial.trainer for trial in trials.values()]
        halving.begin(list(trials.values()))
        outdone = self.telling(halving, trials)
        for trainer, event in train(trainers, lesson.task, lesson.metric, should_stop, outdone):
            of_trainer[id(trainer)].take(event, self.seconds())
            if self.is_main and isinstance(event, Stepped) and newest.is_asked(self.directory):
                self.hand_out(trials, export)
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

    def hand_out(self, trials: Mapping[int, Trial], export: Export) -> None:
        """Write the present state of the trial whose curve is shown, for somebody who wants to try it now.

        One with a tuned base model would cost a copy of that model: it is not written.
        """
        trial = trials.get(self.shown)
        try:
            if trial is not None and not trial.lesson.model.base.is_tuned:
                export(trial.present(), self.directory / newest.FOLDER)
        except PTuneError as error:  # such as a disk that is full: training itself has room set aside
            logger.warning("The present state could not be written: %s", error)
        finally:
            newest.answered(self.directory)

    def telling(self, halving: Halving, trials: Mapping[int, Trial]) -> Callable[[], set[Trainer]]:
        """Who has to end, as `halving` says; and when it says more than before, a line that tells who goes on."""
        told: set[Trainer] = set()

        def outdone() -> set[Trainer]:
            nonlocal told
            ending = set(halving.outdone())
            if ending != told:
                told = ending
                self.report_going_on(halving, trials)
            return ending

        return outdone

    def report_going_on(self, halving: Halving, trials: Mapping[int, Trial]) -> None:
        numbers = {id(trial): number for number, trial in trials.items()}
        going_on = [numbers[id(trial)] for trial in halving.going_on]
        if self.shown in trials and self.shown not in going_on and going_on:
            self.shown = going_on[0]
            self.report("follow", to=self.shown)
        if training := sorted(number for number in going_on if trials[number].ended is None):
            self.phase("training", trials=training)

    def conclude(self, outcomes: Sequence[Outcome], export: Export) -> dict[str, Any]:
        """The best trial's result; of a sweep with the ranking of all."""
        best, *_ = ranked(outcomes)
        if self.settings.sweep and best.finished is not None:
            export(best.finished[1], self.directory)
            copy_predictions(best.trial.directory, self.directory)
        for outcome in outcomes:
            outcome.trial.forget_tuned_base()
        if best.trial.error is not None and (best.finished is None or not self.settings.sweep):
            raise best.trial.error
        stopped = len(outcomes) < len(self.trials) or any(o.trial.reason is EndReason.STOPPED for o in outcomes)
        if not stopped:
            shutil.rmtree(self.directory / TOKENS, ignore_errors=True)  # of use to a resumed run alone
        result = {} if best.finished is None else best.finished[0]
        if self.settings.sweep:
            options = list(self.settings.sweep)
            result = result | {"sweep": ranking(outcomes, options), "trial": best.number}
            if "seed" in options:
                result["over_seeds"] = over_seeds(outcomes, options)
        seconds = self.seconds()
        return result | {
            "reason": str(best.trial.reason),
            "seconds": seconds,
            "evaluation_share": evaluation_share([outcome.trial for outcome in outcomes], seconds),
            "stopped": stopped,
        }

    def trial(self, number: int, lessons: Lessons) -> Trial:
        settings = self.trials[number]
        if not self.settings.sweep:
            directory, report = self.directory, self.report
        else:
            directory, report = directory_of(self.directory, number), partial(self.report, trial=number)
        return Trial(settings, lessons[lesson_key(settings)], directory, self.fingerprint(settings), report)

    def report_plan(self, trial: Trial) -> None:
        model, task, examples = trial.lesson.model, trial.lesson.task, trial.lesson.examples
        warnings = [*examples.report.warnings, *model.template.warnings(task.num_examples), *task.warnings]
        warnings += settings_warnings(self.trials, model.base, model.template)
        self.report(
            "plan",
            steps=trial.trainer.schedule.steps,
            train_examples=task.num_examples,
            validation_examples=len(task.validation),
            metric=str(trial.lesson.metric),
            base=describe_base(model.base, len(self.trials)),
            parameters=sum(parameter.numel() for parameter in trial.trainer.parameters),
            prompt_values=trial.start.numel(),
            device=str(model.base.device),
            precision=model.base.precision,
            data=examples.report.summary(),
            text_cache=describe_text_cache(model),
            trials=len(self.trials),
            head=None if trial.lesson.choice is None else trial.lesson.choice.values(),
            evaluated=trial.lesson.plan.between,
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
