"""What the frozen base model tells of the labels: features of its rows, and probes of them, without virtual tokens and
carried over to those that a head starts with.

Computed once for all trials of a template that start alike. N rows, W width of a feature, C labels.
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

MOST_ROWS = 10_000
"""Training rows of a probe: it gains from more, with 77 labels 4 points from 8,500 instead of 2,000."""

MOST_TOKENS, OF_PARAMETERS = 100_000, 23_000_000
"""Of all rows of a probe together, of a base model with so many parameters: five seconds of two cores. A smaller one
reads more in the time."""

MOST_FITTED = 2_500_000_000
"""Rows times width times labels of one probe: some ten seconds of two cores."""

FEWEST_ROWS = 256
"""However long they are."""

ALIGNED_ROWS, ALIGNED_TOKENS = 1000, 40_000
"""What is read with virtual tokens in place to carry a probe over to them, at most; they count as tokens."""

KEPT = 0.9
"""What of a probe's accuracy must be left when it was carried over; else it is fitted anew."""

AS_GOOD_AS = 0.005
"""How much better another way than the base model's own must tell the labels apart for `auto` to give PEFT up."""

ROWS_AT_ONCE = 64
"""Rows of one pass that only reads, unless `eval_batch_size` is less."""

POOLING_FILE = "1_Pooling/config.json"
_POOLINGS = {
    "pooling_mode_mean_tokens": HeadInput.MEAN,
    "pooling_mode_cls_token": HeadInput.FIRST,
    "pooling_mode_lasttoken": HeadInput.LAST,
}
_POOLING_MODES = {"mean": HeadInput.MEAN, "cls": HeadInput.FIRST, "lasttoken": HeadInput.LAST}


class Frozen:
    """Features and probes of one task's rows, without virtual tokens and behind those a head starts with.

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
        self._prompted: tuple[HeadInput, Tensor, Probe] | None = None

    @cached_property
    def chosen(self) -> np.ndarray:
        """`[N]` indices of the training rows that probes learn from, in the order in which training comes to them."""
        count, labels = len(self.task.train), len(self.task.labels)
        fitted = max(FEWEST_ROWS, MOST_FITTED // (self.model.base.hidden_size * labels))
        order = first_epoch(count, self.task.batching.seed)[: min(MOST_ROWS, fitted, self.most or MOST_ROWS)]
        return order[: self._fitting(MOST_TOKENS, order, self.model.num_virtual_tokens)]

    def _fitting(self, tokens: float, order: np.ndarray, left_out: int = 0) -> int:
        """How many rows have so many tokens together, `left_out` of each not counted; a few hundred in any case."""
        lengths = self.task.train_rows.lengths_of(order[:FEWEST_ROWS])
        tokens *= max(1.0, OF_PARAMETERS / self.model.base.model.num_parameters())
        return max(FEWEST_ROWS, int(tokens / max(1.0, float(lengths.mean()) - left_out)))

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

    def prompted_probe(self, model: PromptedModel, prompt_embeddings: Tensor) -> Probe:
        """A probe of what a head reads with virtual tokens in place; the last one is kept for trials that start alike.

        It is the probe of the rows without them, carried over by what a part of these rows is with them: to read all of
        them again takes longer than to learn from more of them at first. Where that is no use, or the head has no
        bias, it is fitted to what the head reads.

        Args:
            model: Its base model's head is on.
            prompt_embeddings: `[P, H]`, or as deep prompts are.
        """
        base = model.base
        assert base.head is not None, "there is a head that reads"
        if self._prompted is not None:
            way, prompt, probe = self._prompted
            if way is base.head_input and torch.equal(prompt, prompt_embeddings):
                return probe
        has_bias = last_linear(base.head).bias is not None
        carried = self._carried_over(model, prompt_embeddings) if has_bias else None
        probe = carried or self._fitted_in_place(model, prompt_embeddings, has_bias=has_bias)
        self._prompted = base.head_input, prompt_embeddings, probe
        return probe

    def read_prompted(self, model: PromptedModel, rows: int, prompt_embeddings: Tensor) -> Tensor:
        """`[N, W]` of the first chosen rows with virtual tokens in place, by what the head of `model` reads."""
        way, chosen = model.base.head_input, self.chosen[:rows]
        return read_rows(model, self.task.train_rows, chosen, prompt_embeddings, [way], self._rows_at_once)[way]

    def _carried_over(self, model: PromptedModel, prompt_embeddings: Tensor) -> Probe | None:
        """None where virtual tokens change what is read so much that the probe is no use, as of a pooler of theirs."""
        way, rows = model.base.head_input, min(ALIGNED_ROWS, self._fitting(ALIGNED_TOKENS, self.chosen))
        read = self.read_prompted(model, rows, prompt_embeddings)
        own, features, labels = self.probe(way), self.features([way])[way][:rows], self.labels[:rows]
        if (known := len(read) * 3 // 4) < 2:
            return None
        tried = own.aligned(features[:known], read[:known]).right(read[known:], labels[known:])
        return own.aligned(features, read) if tried >= KEPT * own.right(features[known:], labels[known:]) else None

    def _fitted_in_place(self, model: PromptedModel, prompt_embeddings: Tensor, *, has_bias: bool) -> Probe:
        read = self.read_prompted(model, self._fitting(MOST_TOKENS, self.chosen), prompt_embeddings)
        return fit_probe(read, self.labels[: len(read)], len(self.task.labels), centered=has_bias)

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
            return read_rows(self.model, rows, chosen, None, ways, self._rows_at_once)

    @property
    def _rows_at_once(self) -> int:
        return min(ROWS_AT_ONCE, self.task.batching.eval_batch_size)

    @cached_property
    def _train_rows(self) -> TokenRows:
        order = first_epoch(len(self.task.train), self.task.batching.seed)
        return TokenRows(self.task.train, self.model.base_rows, self.task.directory, order)

    @cached_property
    def _validation_rows(self) -> TokenRows:
        return TokenRows(self.task.validation, self.model.base_rows, self.task.directory)


def read_rows(
    model: PromptedModel,
    rows: TokenRows,
    chosen: np.ndarray,
    prompt: Tensor | None,
    ways: Sequence[HeadInput],
    at_once: int,
) -> dict[HeadInput, Tensor]:
    """Features `[N, W]` of some rows by several ways, in the order in which they were chosen.

    Args:
        model: The base model with its template.
        rows: With or without virtual tokens as `prompt` is given or None.
        chosen: `[N]` indices.
        prompt: `[P, H]` or None.
        ways: As `features`.
        at_once: Rows of one pass.
    """
    batches = by_length(rows.lengths_of(chosen), at_once)
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
