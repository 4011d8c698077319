"""PTune's side of the comparison: its real loop, stopped and gone on with between rounds."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from tempfile import mkdtemp
from weakref import finalize

import numpy as np
import torch
from accelerate import Accelerator

from benchmarks.flops import Counts, count, needed
from benchmarks.rounds import CLOCKS, Round
from benchmarks.tables import all_examples, write_table
from benchmarks.workloads import ANSWERS, QUESTION, Data, Workload
from ptune_core.model.base import BaseModel, load_base_model
from ptune_core.model.prompted import PromptedModel
from ptune_core.model.text_cache import Budget, TextCache
from ptune_core.prompt.init import Prompt
from ptune_core.prompt.verbalizer import Verbalizer
from ptune_core.training.loop import Event, Stepped, Trainer, train
from ptune_core.training.metrics import Metric
from ptune_core.training.preparation import initial_prompt_embeddings, make_schedule, prompt_config
from ptune_core.training.settings import RunSettings
from ptune_core.training.tasks import Batching, LabelTask

_ENDLESS = 1_000_000


def load(workload: Workload, data: Data, precision: str) -> BaseModel:
    """The frozen base model in `precision`, as a run loads it."""
    torch.manual_seed(0)
    return load_base_model(
        data.folder,
        target=RunSettings.parse({"template": workload.template}).parsed_template.target.kind,
        num_labels=len(ANSWERS),
        device=workload.device,
        precision=precision,
    )


class PTuneSide:
    """Trains with PTune's defaults.

    Args:
        base: From `load`.
        workload: What is trained.
        data: On what.
        filling: Every round is the beginning of a first epoch, with an empty text cache; else the text cache is
            full before the first round.
        cache_mib: As the setting `text_cache_mib`.
    """

    def __init__(
        self,
        base: BaseModel,
        workload: Workload,
        data: Data,
        *,
        filling: bool = False,
        cache_mib: int | None = None,
    ) -> None:
        self.workload, self.filling, self.budget, self.shape = workload, filling, Budget(cache_mib), data.shape
        self.settings = RunSettings.parse(
            {
                "template": workload.template,
                "max_steps": _ENDLESS,
                "eval_every": _ENDLESS,
                "checkpoint_every": _ENDLESS,
                "batch_size": workload.batch_size,
            }
        )
        answers = None if workload.encoder else ANSWERS
        verbalizer = Verbalizer.from_labels(list(ANSWERS), answers)
        self.model = PromptedModel(base, self.settings.parsed_template, verbalizer)
        self.rows = self.model.make_rows([{"text": text} for text in data.texts])
        directory = Path(mkdtemp())
        finalize(self, shutil.rmtree, directory)
        # What is validated on is no text that is trained on: it would be in the text cache before the first step.
        texts, labels = [*data.texts, QUESTION], [*data.labels, data.labels[0]]
        examples = all_examples(write_table(directory, [(texts, labels)]), labels, list(ANSWERS))
        train, validation = (examples.select(part) for part in np.split(np.arange(len(texts)), [len(data.texts)]))
        self.task = LabelTask(self.model, train, validation, Batching(workload.batch_size, 64, 0), directory)
        self.begin()
        if workload.is_cached and not filling and cache_mib != 0:
            self.run(workload.batches)

    def begin(self) -> None:
        """Start training anew, with an empty text cache."""
        base, model = self.model.base, self.model
        if self.workload.is_cached:
            model.texts = TextCache(base)
            model.texts.reserve(self.task.contexts(_ENDLESS), self.budget)
        prompt = Prompt(
            prompt_config(self.settings, base, model.template),
            initial_prompt_embeddings(self.settings, base, model.template),
        )
        schedule = make_schedule(self.settings, self.task.num_examples)
        self.trainer = Trainer(prompt, base.head, schedule, Accelerator(cpu=self.workload.device == "cpu"))
        trainers = [self.trainer]
        self.events: Iterator[tuple[Trainer, Event]] = train(trainers, self.task, Metric.ACCURACY, lambda: False)

    @property
    def cache_mib(self) -> float:
        """MiB of the text cache."""
        return 0.0 if self.model.texts is None else self.model.texts.mib

    def round(self) -> Round:
        """The steps of a round, timed, after one that is not."""
        if self.filling:
            self.begin()
            return self.run(min(2 * self.workload.peft_steps, self.workload.batches - 1))
        return self.run(self.workload.ptune_steps)

    def run(self, steps: int) -> Round:
        """Train `steps` steps more, after one that is not timed."""
        first = self.trainer.progress.step
        now, moments = CLOCKS[self.workload.clock], []
        for _, event in self.events:
            if isinstance(event, Stepped):
                moments.append(now())
            if len(moments) > steps:
                break
        seconds = [end - begin for begin, end in pairwise(moments)]
        tokens = self.workload.virtual_tokens
        counts = [self.counts(first + 1 + i) for i in range(steps)]
        flops = sum(needed(self.shape, each, tokens, filling=self.filling) for each in counts)
        return Round(seconds, self.workload.batch_size, flops)

    def counts(self, position: int) -> Counts:
        """Rows of batch number `position`."""
        return count([self.rows[i] for i in self.task.order.indices(position)], self.shape.causal)

    @property
    def rows_per_batch(self) -> int:
        """Rows that a batch gives the base model's products, on average; while filling, those of the text it stores."""
        counts = [self.counts(position) for position in range(self.workload.batches)]
        rows = [each.context_rows if self.filling else each.prompt_rows + each.text_rows for each in counts]
        return round(sum(rows) / len(rows))
