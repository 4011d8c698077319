"""What the frozen base model tells of the labels without virtual tokens: features of its rows, and probes of them.

Computed once for all trials of a template. N rows, W width of a feature, C labels.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from ptune_core.data.order import by_length, first_epoch
from ptune_core.data.tokens import TokenRows
from ptune_core.errors import BaseModelError
from ptune_core.model.base import BaseModel, put_on_for_now
from ptune_core.model.features import features
from ptune_core.model.head import last_linear
from ptune_core.model.head_input import MEASURED, HeadInput
from ptune_core.model.prompted import PromptedModel
from ptune_core.model.reading import sees_prompt
from ptune_core.model.source import file_of
from ptune_core.training.metrics import Evaluation
from ptune_core.training.probe import Probe, Validated, cross_validate, fit_probe
from ptune_core.training.tasks import LabelTask, evaluation_of

ROWS_PER_LABEL, FEWEST_ROWS, MOST_ROWS = 50, 3000, 4000
"""Training rows of a probe: it gains from more as long as its labels have few each (benchmarks/RESULTS.md)."""

MOST_TOKENS = 120_000
"""Of all rows of a probe together, virtual tokens counted: six seconds of a small encoder on two cores."""

AS_GOOD_AS = 0.005
"""How much better another way than the base model's own must tell the labels apart for `auto` to give PEFT up."""

ROWS_AT_ONCE = 64
"""Rows of one pass that only reads."""

POOLING_FILE = "1_Pooling/config.json"
_POOLINGS = {
    "pooling_mode_mean_tokens": HeadInput.MEAN,
    "pooling_mode_cls_token": HeadInput.FIRST,
    "pooling_mode_lasttoken": HeadInput.LAST,
}
_POOLING_MODES = {"mean": HeadInput.MEAN, "cls": HeadInput.FIRST, "lasttoken": HeadInput.LAST}


class Frozen:
    """Features and probes of one task's rows, without virtual tokens.

    Args:
        model: The base model with the task's template.
        task: Whose rows.
        most: Training rows that probes learn from, at most; None: as many as are of use.
    """

    def __init__(self, model: PromptedModel, task: LabelTask, most: int | None = None) -> None:
        self.model, self.task, self.most = model, task, most
        self._probes: dict[HeadInput, Probe] = {}
        self._validated: dict[HeadInput, Validated] = {}
        self._features: dict[HeadInput, Tensor] = {}
        self._prompted: tuple[tuple[HeadInput, int], Tensor, Probe] | None = None

    @cached_property
    def chosen(self) -> np.ndarray:
        """`[N]` indices of the training rows that probes learn from, in the order in which training comes to them."""
        count, labels = len(self.task.train), len(self.task.labels)
        order = first_epoch(count, self.task.batching.seed)[: min(MOST_ROWS, max(FEWEST_ROWS, ROWS_PER_LABEL * labels))]
        lengths = self.task.train_rows.lengths_of(order[:256])
        fitting = max(256, int(MOST_TOKENS / max(1.0, float(lengths.mean()))))
        return order[: fitting if self.most is None else min(fitting, self.most)]

    @cached_property
    def labels(self) -> Tensor:
        """`[N]` class indices."""
        assert self.task.train.labels is not None, "a probe needs labels"
        return torch.from_numpy(self.task.train.labels[self.chosen].astype(np.int64))

    @cached_property
    def ways(self) -> tuple[HeadInput, ...]:
        """What can be read of this base model with this template."""
        base = self.model.base
        if base.head is None:
            return (HeadInput.MEAN, HeadInput.LAST)
        # A decoder's own head reads what `last` is.
        left_out = HeadInput.MODEL if base.invented else HeadInput.LAST if base.is_causal else None
        ways = (way for way in MEASURED if way is not left_out)
        return tuple(way for way in ways if sees_prompt(way, self.model.template, is_causal=base.is_causal))

    def probe(self, way: HeadInput) -> Probe:
        """A probe of what one way reads, fitted once."""
        if way not in self._probes:
            features = self.features([way])[way]
            self._probes[way] = fit_probe(features, self.labels, len(self.task.labels), self.validated(way))
        return self._probes[way]

    def validated(self, way: HeadInput) -> Validated:
        """What cross-validation on training rows says of one way, found once."""
        if way not in self._validated:
            self._validated[way] = cross_validate(self.features([way])[way], self.labels, len(self.task.labels))
        return self._validated[way]

    def prompted_probe(self, model: PromptedModel, prompt_embeddings: Tensor, seed: int) -> Probe:
        """A probe of what a head reads of the same rows with virtual tokens in place.

        One that learned without them lost 1 to 3 points in front of separators, and 10 in front of words. The last one
        is kept: many trials of a sweep have the same start.

        Args:
            model: Its base model's head is on.
            prompt_embeddings: `[P, H]`.
            seed: That the head's other layers were drawn by.
        """
        base = model.base
        key = (base.head_input, seed)
        if self._prompted is not None:
            known, prompt, probe = self._prompted
            if known == key and torch.equal(prompt, prompt_embeddings):
                return probe
        assert base.head is not None, "there is a head that reads"
        read = read_rows(model, self.task.train_rows, self.chosen, prompt_embeddings, [base.head_input])
        centered = last_linear(base.head).bias is not None
        probe = fit_probe(read[base.head_input], self.labels, len(self.task.labels), centered=centered)
        self._prompted = key, prompt_embeddings, probe
        return probe

    def has_probe(self, way: HeadInput) -> bool:
        """Whether the probe of what one way reads is already fitted."""
        return way in self._probes

    def features(self, ways: Sequence[HeadInput]) -> dict[HeadInput, Tensor]:
        """`[N, W]` of the chosen training rows by each way, all that are missing in one pass."""
        missing = [way for way in ways if way not in self._features]
        if missing:
            self._features |= self._read(self._train_rows, self.chosen, missing)
        return {way: self._features[way] for way in ways}

    def accuracies(self) -> dict[HeadInput, float]:
        """By cross-validation on training rows: how well each way tells the labels apart."""
        self.features(self.ways)  # all in one pass
        return {way: self.validated(way).accuracy for way in self.ways}

    def best_way(self) -> HeadInput:
        """The way whose probe tells the labels apart best."""
        found = self.accuracies()
        return max(found, key=lambda way: found[way])

    def evaluate(self, way: HeadInput, chosen: np.ndarray) -> Evaluation:
        """What a probe says of some validation rows, by index."""
        scores = self.probe(way).scores(self._read(self._validation_rows, chosen, [way])[way])
        return evaluation_of(scores.softmax(dim=1), self.task.validation_gold, chosen)

    def _read(self, rows: TokenRows, chosen: np.ndarray, ways: Sequence[HeadInput]) -> dict[HeadInput, Tensor]:
        with put_on_for_now(self.model.base):
            return read_rows(self.model, rows, chosen, None, ways)

    @cached_property
    def _train_rows(self) -> TokenRows:
        order = first_epoch(len(self.task.train), self.task.batching.seed)
        return TokenRows(self.task.train, self.model.base_rows, self.task.directory, order)

    @cached_property
    def _validation_rows(self) -> TokenRows:
        return TokenRows(self.task.validation, self.model.base_rows, self.task.directory)


def read_rows(
    model: PromptedModel, rows: TokenRows, chosen: np.ndarray, prompt: Tensor | None, ways: Sequence[HeadInput]
) -> dict[HeadInput, Tensor]:
    """Features `[N, W]` of some rows by several ways, in the order in which they were chosen.

    Args:
        model: The base model with its template.
        rows: With or without virtual tokens as `prompt` is given or None.
        chosen: `[N]` indices.
        prompt: `[P, H]` or None.
        ways: As `features`.
    """
    batches = by_length(rows.lengths_of(chosen), ROWS_AT_ONCE)
    parts = [features(model, rows.rows(chosen[places]), prompt, ways) for places in batches]
    back = torch.from_numpy(np.argsort(np.concatenate(batches)))
    return {way: torch.cat([part[way] for part in parts])[back] for way in ways}


def trained_with(base: BaseModel) -> HeadInput | None:
    """What a base model of sentence-transformers reads of its hidden states by its own files; None if they don't say.

    A file that is damaged or that nobody can reach says nothing.
    """
    try:
        content = file_of(base.id, POOLING_FILE, base.revision)
        config = json.loads(content) if content is not None else {}
    except (BaseModelError, ValueError, RecursionError):
        return None
    if not isinstance(config, dict):
        return None
    on = [way for name, way in _POOLINGS.items() if config.get(name) is True]
    mode = _POOLING_MODES.get(str(config.get("pooling_mode")))
    return on[0] if len(on) == 1 else mode
