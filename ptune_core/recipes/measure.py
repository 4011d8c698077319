"""What an adapter says about test rows, beside the base model alone. Nothing is chosen by these rows."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from ptune_core.data.examples import Examples, ExampleSet, build_examples
from ptune_core.data.table import Table, open_table, read_rows
from ptune_core.inference.loaded import BaseKey, LoadedAdapter, prompted_model, put_head_on
from ptune_core.model.base import BaseModel, load_base_model
from ptune_core.model.generation import Sampling, complete
from ptune_core.model.prompted import PromptedModel
from ptune_core.prompt.template import parse_template
from ptune_core.runs.directory import RunDirectory
from ptune_core.training.metrics import Evaluation
from ptune_core.training.preparation import make_task
from ptune_core.training.settings import RunSettings
from ptune_core.training.tasks import CandidateTask, LabelTask, TextTask


@dataclass(frozen=True)
class Predictions:
    """Predictions for N of the test rows.

    Attributes:
        rows: The rows, with all their columns.
        tuned: With the virtual tokens, `[N]`.
        base: The base model alone, same template, `[N]`; None with a classification head: untrained it knows nothing.
        manual: The base model alone with the prompt that people wrote, `[N]`; None without one.
    """

    rows: list[dict[str, str]]
    tuned: list[str]
    base: list[str] | None
    manual: list[str] | None = None


class Measurer:
    """Predicts with one adapter after the other; adapters of one base model share it."""

    def __init__(self) -> None:
        self._base: tuple[BaseKey, str, BaseModel] | None = None

    @torch.no_grad()
    def predict(self, run: RunDirectory, test: Table, manual: str | None = None) -> Predictions:
        """Ask the adapter of a finished run about `test`.

        Args:
            run: A run directory with its adapter.
            test: The rows.
            manual: A template to ask the base model alone; its virtual tokens are left out.

        Raises:
            PTuneError: The adapter or its base model cannot be loaded, or no row can be used.
        """
        settings, adapter = run.settings(), LoadedAdapter(run.adapter)
        trained = adapter.trained
        found = _examples(settings, adapter, open_table(run.data), test)
        # A base model that was tuned is no baseline: what it was before is asked instead.
        untuned = replace(adapter.base_key, id=trained.base_model, revision=trained.revision, stamp=())
        with tempfile.TemporaryDirectory() as folder:
            asked = _Asked(settings, found, Path(folder))
            base = self._load(untuned, settings)
            model = prompted_model(adapter, base)
            alone = asked.base(model)
            by_hand = None
            if manual is not None:
                by_hand = asked.base(
                    PromptedModel(base, parse_template(manual), model.verbalizer, max_length=settings.max_length)
                )
            base = self._load(adapter.base_key, settings)
            put_head_on(base, trained.head)
            tuned, used = asked.tuned(prompted_model(adapter, base), trained.prompt.to(base.device))
        rows = list(read_rows(test, test.columns))
        return Predictions([rows[place] for place in used.places], tuned, alone, by_hand)

    def _load(self, key: BaseKey, settings: RunSettings) -> BaseModel:
        if self._base is None or self._base[:2] != (key, settings.device):
            base = load_base_model(
                key.id, target=key.target, num_labels=key.num_labels, revision=key.revision, device=settings.device,
                precision=key.precision,
            )  # fmt: skip
            self._base = key, settings.device, base
        return self._base[2]


class _Asked:
    """Test rows, and the answers to them."""

    def __init__(self, settings: RunSettings, examples: Examples, folder: Path) -> None:
        self.settings, self.folder = settings, folder
        # The task wants rows to learn from too; none of them is touched.
        self.examples = replace(examples, train=examples.validation)

    def tuned(self, model: PromptedModel, prompt: Tensor) -> tuple[list[str], ExampleSet]:
        """Predictions of the prompted model, and the rows they are for."""
        task = make_task(model, self.examples, self.settings, self.folder)
        if isinstance(task, TextTask):
            return self._texts(model, prompt), self.examples.validation
        return _names(task, task.evaluate(prompt)), task.validation

    def base(self, model: PromptedModel) -> list[str] | None:
        """Predictions of the base model alone for the same rows."""
        task = make_task(model, self.examples, self.settings, self.folder)
        if isinstance(task, TextTask):
            return self._texts(model, None)
        return None if task.zero_shot is None else _names(task, task.zero_shot)

    def _texts(self, model: PromptedModel, prompt: Tensor | None) -> list[str]:
        maker = model.base_rows if prompt is None else model.rows
        sampling = Sampling(max_new_tokens=self.settings.max_new_tokens)
        validation = self.examples.validation
        return [complete(model, maker.row(example.values), prompt, sampling).strip() for example in validation]


def _names(task: LabelTask | CandidateTask, evaluation: Evaluation) -> list[str]:
    names: Sequence[str] = task.labels if isinstance(task, LabelTask) else task.candidates
    return [names[index] for index in evaluation.predicted]


def _examples(settings: RunSettings, adapter: LoadedAdapter, train: Table, test: Table) -> Examples:
    trained = adapter.trained
    labels = trained.verbalizer or {label: label for label in trained.labels}
    return build_examples(
        train,
        settings.parsed_template,
        columns=settings.columns,
        labels=labels,
        split=settings.split,
        validation=test,
    )
