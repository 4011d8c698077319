"""What the loop trains on: rows of a prompted model with labels, or with texts to generate."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from ptune_core.data.batching import Row
from ptune_core.data.examples import Example
from ptune_core.data.order import BatchOrder, by_length
from ptune_core.errors import DataError
from ptune_core.model.prompted import PromptedModel, Sampling
from ptune_core.model.text_cache import Context
from ptune_core.training.metrics import Evaluation, accuracy

SAMPLES = 12
TEXT_SAMPLES = 3

Pair = tuple[Row, list[int]]
"""A row and the token ids of its answer."""


@dataclass(frozen=True)
class Batching:
    """Examples per training batch and per evaluation batch, and what decides the order of training."""

    batch_size: int
    eval_batch_size: int
    seed: int


class LabelTask:
    """Classification: cross entropy over the labels' scores.

    Args:
        model: With a verbalizer.
        train: Examples that carry the target column.
        validation: Likewise.
        batching: Batch sizes and the seed of the order.
    """

    def __init__(
        self, model: PromptedModel, train: Sequence[Example], validation: Sequence[Example], batching: Batching
    ) -> None:
        assert model.verbalizer is not None, "labels need a verbalizer"
        self.model, self.validation, self.batching = model, validation, batching
        self.labels = model.verbalizer.labels
        self.train_rows = model.make_rows([example.values for example in train])
        self.train_gold = self._gold(train)
        self.validation_rows = model.make_rows([example.values for example in validation])
        self.validation_gold = self._gold(validation)
        self.order = BatchOrder([len(row.ids) for row in self.train_rows], batching.batch_size, batching.seed)
        self.validation_batches = by_length([len(row.ids) for row in self.validation_rows], batching.eval_batch_size)

    @property
    def num_examples(self) -> int:
        """Training examples."""
        return len(self.train_rows)

    def contexts(self, num_batches: int) -> Iterator[list[Context]]:
        """See `contexts_of`."""
        return contexts_of(self.train_rows, self.order, num_batches, self.validation_rows, self.validation_batches)

    @property
    def warnings(self) -> list[str]:
        """What a person should know about how the examples fit."""
        cut = sum(row.num_cut > 0 for row in self.train_rows)
        return [f"{cut} of {len(self.train_rows)} texts were cut to {self.model.max_length} tokens"] if cut else []

    def losses(self, position: int, prompts: Sequence[Tensor]) -> tuple[Tensor, int]:
        """See `loop.Task`."""
        chosen = self.order.indices(position)
        rows, gold = [self.train_rows[i] for i in chosen], [self.train_gold[i] for i in chosen]
        batch = self.model.label_batch(rows, gold, copies=len(prompts))
        assert batch.labels is not None
        logits = self.model.label_logits(batch, torch.cat(list(prompts)))
        losses = functional.cross_entropy(logits, batch.labels, reduction="none")
        return losses.view(len(prompts), -1).sum(dim=1), len(chosen)

    def evaluate(self, prompt_embeddings: Tensor) -> Evaluation:
        """See `loop.Task`; the metric is accuracy."""
        return self._evaluate(self.validation_rows, self.validation_batches, prompt_embeddings)

    @torch.no_grad()
    def evaluate_zero_shot(self) -> Evaluation | None:
        """The base model alone, same template; None with a classification head, which is new and knows nothing."""
        if self.model.base.head is not None:
            return None
        rows = self.model.make_rows([example.values for example in self.validation], prompted=False)
        return self._evaluate(rows, by_length([len(row.ids) for row in rows], self.batching.eval_batch_size), None)

    def samples(self, evaluation: Evaluation, prompt_embeddings: Tensor) -> list[dict[str, Any]]:
        """Some validation rows with what was predicted, wrong ones first."""
        order = sorted(range(len(self.validation)), key=lambda i: evaluation.predicted[i] == self.validation_gold[i])
        return [
            {
                "row": self.validation[i].row,
                "text": _shown_text(self.model, self.validation[i]),
                "label": self.labels[self.validation_gold[i]],
                "predicted": self.labels[evaluation.predicted[i]],
                "p": round(evaluation.confidence[i], 4),
            }
            for i in order[:SAMPLES]
        ]

    def _evaluate(
        self, rows: Sequence[Row], batches: Sequence[list[int]], prompt_embeddings: Tensor | None
    ) -> Evaluation:
        probabilities = classify_rows(self.model, rows, batches, prompt_embeddings)
        gold = torch.tensor(self.validation_gold)
        confidence, predicted = probabilities.max(dim=1)
        right = probabilities[torch.arange(len(gold)), gold].clamp(min=torch.finfo(torch.float32).tiny)
        indices = tuple(predicted.tolist())
        return Evaluation(
            loss=float(-right.log().mean()),
            value=accuracy(self.validation_gold, indices),
            predicted=indices,
            confidence=tuple(confidence.tolist()),
        )

    def _gold(self, examples: Sequence[Example]) -> list[int]:
        target = self.model.template.target.column
        index = {label: i for i, label in enumerate(self.labels)}
        return [index[example.values[target]] for example in examples]


class TextTask:
    """Generation: cross entropy over the tokens of the answer.

    Examples whose answer does not fit beside the template are left out and told in `warnings`.

    Args:
        model: Without a verbalizer.
        train: Examples that carry the target column.
        validation: Likewise.
        batching: Batch sizes and the seed of the order.

    Raises:
        DataError: No example of a split fits.
    """

    def __init__(
        self, model: PromptedModel, train: Sequence[Example], validation: Sequence[Example], batching: Batching
    ) -> None:
        self.model, self.batching = model, batching
        self.warnings: list[str] = []
        _, self.train_pairs = self._pairs(train, "training")
        self.validation, self.validation_pairs = self._pairs(validation, "validation")
        self.order = BatchOrder(_pair_lengths(self.train_pairs), batching.batch_size, batching.seed)
        self.validation_batches = by_length(_pair_lengths(self.validation_pairs), batching.eval_batch_size)

    @property
    def num_examples(self) -> int:
        """Training examples that fit."""
        return len(self.train_pairs)

    def contexts(self, num_batches: int) -> Iterator[list[Context]]:
        """See `contexts_of`."""
        train, validation = ([row for row, _ in pairs] for pairs in (self.train_pairs, self.validation_pairs))
        return contexts_of(train, self.order, num_batches, validation, self.validation_batches)

    def losses(self, position: int, prompts: Sequence[Tensor]) -> tuple[Tensor, int]:
        """See `loop.Task`."""
        pairs = [self.train_pairs[i] for i in self.order.indices(position)]
        losses = self._losses(pairs, torch.cat(list(prompts)), copies=len(prompts)).view(len(prompts), -1)
        return losses.sum(dim=1), losses.shape[1]

    def evaluate(self, prompt_embeddings: Tensor) -> Evaluation:
        """See `loop.Task`; the metric is the loss per answer token."""
        return self._evaluate(self.validation_pairs, self.validation_batches, prompt_embeddings)

    @torch.no_grad()
    def evaluate_zero_shot(self) -> Evaluation:
        """The base model alone, same template."""
        pairs = [
            (row, answer)
            for (_, answer), row in zip(
                self.validation_pairs,
                self.model.make_rows([example.values for example in self.validation], prompted=False),
                strict=True,
            )
        ]
        return self._evaluate(pairs, by_length(_pair_lengths(pairs), self.batching.eval_batch_size), None)

    def samples(self, evaluation: Evaluation, prompt_embeddings: Tensor) -> list[dict[str, Any]]:
        """The first validation rows with the text generated for them."""
        sampling = Sampling(max_new_tokens=32)
        target = self.model.template.target.column
        shown = []
        for example in self.validation[:TEXT_SAMPLES]:
            row = self.model.make_rows([example.values])[0]
            text = self.model.complete(row, prompt_embeddings, sampling)
            shown.append(
                {
                    "row": example.row,
                    "text": _shown_text(self.model, example),
                    "label": example.values[target],
                    "predicted": text.strip(),
                    "p": None,
                }
            )
        return shown

    def _pairs(self, examples: Sequence[Example], split: str) -> tuple[list[Example], list[Pair]]:
        target = self.model.template.target.column
        kept, pairs, too_long = [], [], []
        for example in examples:
            answer = self.model.rows.answer_ids(example.values[target])
            try:
                pairs.append((self.model.rows.row(example.values, reserve=len(answer)), answer))
                kept.append(example)
            except DataError:
                too_long.append(example.row)
        if not pairs:
            raise DataError(
                f"No {split} example fits the base model",
                got=f"every answer is longer than what the template leaves of {self.model.max_length} tokens",
                remedy="Shorten the answers or the template, or raise max_length",
            )
        if too_long:
            named = ", ".join(map(str, too_long[:10])) + (" …" if len(too_long) > 10 else "")
            self.warnings.append(f"{len(too_long)} {split} examples have too long an answer (rows {named}), left out")
        return kept, pairs

    def _evaluate(
        self, pairs: Sequence[Pair], batches: Sequence[list[int]], prompt_embeddings: Tensor | None
    ) -> Evaluation:
        total, targets = 0.0, 0
        for chosen in batches:
            losses = self._losses([pairs[i] for i in chosen], prompt_embeddings)
            total, targets = total + float(losses.sum()), targets + len(losses)
        return Evaluation(loss=total / targets, value=total / targets)

    def _losses(self, pairs: Sequence[Pair], prompt_embeddings: Tensor | None, *, copies: int = 1) -> Tensor:
        batch = self.model.text_batch([row for row, _ in pairs], [answer for _, answer in pairs], copies=copies)
        return self.model.text_losses(batch, prompt_embeddings)


@torch.no_grad()
def classify_rows(
    model: PromptedModel, rows: Sequence[Row], batches: Sequence[list[int]], prompt_embeddings: Tensor | None
) -> Tensor:
    """Probability of every label, `[N, C]` fp32 on the CPU, in the order of `rows`.

    Args:
        model: With a verbalizer.
        rows: N rows.
        batches: Their indices, each once (`by_length`).
        prompt_embeddings: `[P, H]`; None if the rows have no virtual tokens.
    """
    scored = [
        model.label_logits(model.label_batch([rows[i] for i in chosen]), prompt_embeddings).softmax(dim=1).cpu()
        for chosen in batches
    ]
    place = torch.empty(len(rows), dtype=torch.long)
    place[torch.tensor([i for chosen in batches for i in chosen])] = torch.arange(len(rows))
    return torch.cat(scored)[place]


def contexts_of(
    train: Sequence[Row],
    order: BatchOrder,
    num_batches: int,
    validation: Sequence[Row],
    validation_batches: Sequence[list[int]],
) -> Iterator[list[Context]]:
    """The contexts that training and evaluation will ask the text cache for, batch by batch as they first come.

    Args:
        train: Training rows.
        order: Their order.
        num_batches: Training batches that there will be.
        validation: Validation rows.
        validation_batches: Their indices.
    """
    for position in range(min(num_batches, order.batches_per_epoch)):
        yield [train[i].context for i in order.indices(position)]
    for chosen in validation_batches:
        yield [validation[i].context for i in chosen]


def _pair_lengths(pairs: Sequence[Pair]) -> list[int]:
    return [len(row.ids) + len(answer) for row, answer in pairs]


def _shown_text(model: PromptedModel, example: Example) -> str:
    """The example's input columns as one short line."""
    return " · ".join(example.values[column] for column in model.template.columns)[:500]
