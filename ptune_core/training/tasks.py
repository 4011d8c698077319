"""What the loop trains on: rows of a prompted model with labels, with texts to generate, or with one word to find."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from ptune_core.data.batching import Row
from ptune_core.data.examples import Example, ExampleSet
from ptune_core.data.order import BatchOrder, by_length, first_epoch, in_passes
from ptune_core.data.tokens import TokenRows, which_fit
from ptune_core.errors import DataError
from ptune_core.model.generation import Sampling, complete
from ptune_core.model.prompted import PromptedModel
from ptune_core.model.text_cache import Context
from ptune_core.training.evaluating import evaluation_of, rows_of
from ptune_core.training.metrics import Evaluation, accuracy, majority_accuracy

SAMPLES = 12
TEXT_SAMPLES = 3

TOKENS_AT_ONCE = 1024
"""Of one pass there and back on a CPU: more at once are hardly faster, and all they need for the gradient is kept."""

CACHED_AT_MOST = 65_536
"""Training examples whose contexts the text cache may keep."""


@dataclass(frozen=True)
class Batching:
    """Examples per training batch and per evaluation batch, and what decides the order of training."""

    batch_size: int
    eval_batch_size: int
    seed: int


class _Task(ABC):
    """What both kinds of task share: the rows of both splits, and the batches they come in.

    Args:
        model: The prompted model.
        train: Examples to learn from.
        validation: Examples to measure on.
        batching: Batch sizes and the seed of the order.
        directory: Where tokenised rows are kept.
    """

    def __init__(
        self,
        model: PromptedModel,
        train: ExampleSet,
        validation: ExampleSet,
        batching: Batching,
        directory: Path,
    ) -> None:
        self.model, self.batching, self.directory = model, batching, directory
        self._left_out: list[str] = []
        self.train = train = self._that_fit(train, "training")
        self.validation = validation = self._that_fit(validation, "validation")
        order = first_epoch(len(train), batching.seed)
        self.train_rows = TokenRows(train, model.rows, directory, order)
        self.validation_rows = TokenRows(validation, model.rows, directory)
        self.order = BatchOrder(self.train_rows.lengths_of, len(train), batching.batch_size, batching.seed)

    @property
    def num_examples(self) -> int:
        """Training examples."""
        return len(self.train)

    @property
    def warnings(self) -> list[str]:
        """What a person should know about how the examples fit."""
        return self._left_out

    def evaluate(self, prompt_embeddings: Tensor, chosen: np.ndarray | None = None) -> Evaluation:
        """See `loop.Task`."""
        return self.evaluate_rows(self.validation_rows, prompt_embeddings, chosen)

    def evaluate_base(self, chosen: np.ndarray | None = None) -> Evaluation:
        """The base model alone, with the same template and no virtual tokens, on some validation rows or all."""
        rows = TokenRows(self.validation, self.model.base_rows, self.directory)
        return self.evaluate_rows(rows, None, chosen)

    @cached_property
    def zero_shot(self) -> Evaluation | None:
        """`evaluate_base` on all rows; None with a classification head, which is new and knows nothing."""
        return None if self.model.base.head is not None else self.evaluate_base()

    @abstractmethod
    def evaluate_rows(
        self, rows: TokenRows, prompt_embeddings: Tensor | None, chosen: np.ndarray | None = None
    ) -> Evaluation:
        """Evaluate the validation split as these rows.

        Args:
            rows: The examples of the validation split, one row each.
            prompt_embeddings: `[P, H]`; None: the base model alone, for rows without virtual tokens.
            chosen: `[K]` ascending indices of the examples to evaluate; None: all.
        """

    def contexts(self, num_batches: int) -> Iterator[list[Context]]:
        """The contexts that are worth a place in the text cache, batch by batch as they first come.

        Those of training are not if each comes once, or if all rows of a large split would have to be tokenised before
        the first step to know them.

        Args:
            num_batches: Training batches that there will be.
        """
        if self.model.template.is_front:
            return
        if num_batches > self.order.batches_per_epoch and self.num_examples <= CACHED_AT_MOST:
            for position in range(self.order.batches_per_epoch):
                yield [row.context for row in self.train_rows.rows(self.order.indices(position))]
        for chosen, _ in self._batches(self.validation_rows, None):
            yield [row.context for row in self.validation_rows.rows(chosen)]

    def _that_fit(self, examples: ExampleSet, split: str) -> ExampleSet:
        """The examples to use; columns are cut where they are too long, so all."""
        return examples

    def _batches(self, rows: TokenRows, chosen: np.ndarray | None) -> list[tuple[np.ndarray, np.ndarray]]:
        """Batches of some rows for an evaluation, or of all: indices of the rows, and their places among the chosen."""
        chosen = np.arange(len(rows)) if chosen is None else chosen
        size = max(1, self.batching.eval_batch_size // rows.batch_divisor)
        return [(chosen[places], places) for places in by_length(rows.lengths_of(chosen), size)]

    def _wrong_first(self, evaluation: Evaluation, gold: Sequence[int], names: Sequence[str]) -> list[dict[str, Any]]:
        evaluated = rows_of(evaluation, len(self.validation))
        is_right = np.array(evaluation.predicted) == np.array(gold)[evaluated]
        shown = np.argsort(is_right, kind="stable")[:SAMPLES].tolist()
        examples = zip(shown, self.validation.read(evaluated[shown].tolist()), strict=True)
        said = [(example, names[evaluation.predicted[i]], evaluation.confidence[i]) for i, example in examples]
        return [self._shown(example) | {"predicted": name, "p": round(sure, 4)} for example, name, sure in said]

    def _shown(self, example: Example) -> dict[str, Any]:
        """What a sample shows of an example: the input columns as one short line."""
        text = " · ".join(example.values[column] for column in self.model.template.columns)[:500]
        return {"row": example.row, "text": text, "label": example.values[self.validation.target]}


class LabelTask(_Task):
    """Classification: cross entropy over the labels' scores; the metric is accuracy.

    The model has a verbalizer, the examples label indices.
    """

    @property
    def labels(self) -> tuple[str, ...]:
        """Class names in the order of their indices."""
        assert self.model.verbalizer is not None, "labels need a verbalizer"
        return self.model.verbalizer.labels

    @cached_property
    def validation_gold(self) -> list[int]:
        """`[N]` class indices of the validation split."""
        return _label_indices(self.validation).tolist()

    @property
    def majority(self) -> float:
        """Accuracy of always naming the most frequent label."""
        return majority_accuracy(self.validation_gold)

    @property
    def warnings(self) -> list[str]:
        """See `_Task`; of many examples, how the first ones fit."""
        cut, of = self.train_rows.num_cut_of_first()
        rows = f"{of}" if of == self.num_examples else f"the first {of}"
        return [f"{cut} of {rows} texts were cut to {self.model.max_length} tokens"] if cut else []

    def losses(self, position: int, prompts: Sequence[Tensor]) -> Iterator[tuple[Tensor, int]]:
        """See `loop.Task`."""
        for chosen in self._passes(self.order.indices(position)):
            gold = _label_indices(self.train)[chosen].tolist()
            batch = self.model.label_batch(self.train_rows.rows(chosen), gold, copies=len(prompts))
            assert batch.labels is not None
            logits = self.model.label_logits(batch, torch.cat(list(prompts)))
            losses = functional.cross_entropy(logits, batch.labels, reduction="none")
            yield losses.view(len(prompts), -1).sum(dim=1), len(chosen)

    def _passes(self, batch: list[int]) -> list[list[int]]:
        """A batch in several passes where there is no GPU to fill, and no text cache saves a pass its tokens."""
        if self.model.base.head is None or self.model.base.device.type != "cpu":
            return [batch]
        return in_passes(batch, self.train_rows.lengths_of(np.array(batch)), TOKENS_AT_ONCE)

    def samples(self, evaluation: Evaluation, prompt_embeddings: Tensor) -> list[dict[str, Any]]:
        """Some validation rows with what was predicted, wrong ones first."""
        return self._wrong_first(evaluation, self.validation_gold, self.labels)

    @torch.no_grad()
    def evaluate_rows(
        self, rows: TokenRows, prompt_embeddings: Tensor | None, chosen: np.ndarray | None = None
    ) -> Evaluation:
        """See `_Task`."""
        probabilities = torch.empty(len(rows) if chosen is None else len(chosen), len(self.labels))
        for indices, places in self._batches(rows, chosen):
            logits = self.model.label_logits(self.model.label_batch(rows.rows(indices)), prompt_embeddings)
            probabilities[torch.from_numpy(places)] = logits.softmax(dim=1).cpu()
        return evaluation_of(probabilities, self.validation_gold, chosen)


class TextTask(_Task):
    """Generation: cross entropy over the tokens of the answer, which is the metric too. The model has no verbalizer.

    Examples whose answer does not fit beside the template, or does not fill its mask tokens, are left out and told in
    `warnings`.

    Raises:
        DataError: No example of a split fits.
    """

    majority = None
    """There is no most frequent text."""

    def losses(self, position: int, prompts: Sequence[Tensor]) -> Iterator[tuple[Tensor, int]]:
        """See `loop.Task`."""
        chosen = self.order.indices(position)
        losses = self._losses(self.train_rows, chosen, torch.cat(list(prompts)), copies=len(prompts))
        each = losses.view(len(prompts), -1)
        yield each.sum(dim=1), each.shape[1]

    def samples(self, evaluation: Evaluation, prompt_embeddings: Tensor) -> list[dict[str, Any]]:
        """The first validation rows with the text generated for them."""
        sampling = Sampling(max_new_tokens=32)
        shown = []
        for example in self.validation.read(range(min(TEXT_SAMPLES, len(self.validation)))):
            text = complete(self.model, self.model.rows.row(example.values), prompt_embeddings, sampling)
            shown.append(self._shown(example) | {"predicted": text.strip(), "p": None})
        return shown

    def _that_fit(self, examples: ExampleSet, split: str) -> ExampleSet:
        model = self.model
        fits = which_fit(examples, model.rows)
        masks = model.template.target.count if model.rows.mask_id is not None else None
        if not fits.any():
            raise DataError(
                f"No {split} example fits the base model",
                got=f"every answer is longer than what the template leaves of {model.max_length} tokens"
                if masks is None
                else f"no answer has as many tokens as the template has mask tokens ({masks})",
                remedy="Shorten the answers or the template, or raise max_length"
                if masks is None
                else "Write [MASK*n:column] with the number of tokens your answers have",
            )
        left_out = examples.rows[~fits].tolist()
        if left_out:
            named = ", ".join(map(str, left_out[:10])) + (" …" if len(left_out) > 10 else "")
            why = "too long an answer" if masks is None else f"an answer that does not fill {masks} mask tokens"
            self._left_out.append(f"{len(left_out)} {split} examples have {why} (rows {named}), left out")
        return examples.select(fits)

    @torch.no_grad()
    def evaluate_rows(
        self, rows: TokenRows, prompt_embeddings: Tensor | None, chosen: np.ndarray | None = None
    ) -> Evaluation:
        """See `_Task`."""
        total, targets = 0.0, 0
        for indices, _ in self._batches(rows, chosen):
            losses = self._losses(rows, indices, prompt_embeddings)
            total, targets = total + float(losses.sum()), targets + len(losses)
        return Evaluation(loss=total / targets, value=total / targets, chosen=chosen)

    def _losses(
        self, rows: TokenRows, chosen: Sequence[int] | np.ndarray, prompt_embeddings: Tensor | None, *, copies: int = 1
    ) -> Tensor:
        batch = self.model.text_batch(rows.rows(chosen), rows.answers(chosen), copies=copies)
        return self.model.text_losses(batch, prompt_embeddings)


class CandidateTask(_Task):
    """One word to find: cross entropy over the whole vocabulary, while the prediction is one of the candidates.

    This is how LAMA is trained and measured (P@1 within a restricted vocabulary; arXiv 2103.10385, section 4). The
    model has no verbalizer. Candidates that are not one token of the base model, and examples whose answer is none of
    the candidates, are left out and told in `warnings`.

    Args:
        model: The prompted model.
        train: Examples to learn from.
        validation: Examples to measure on.
        batching: Batch sizes and the seed of the order.
        directory: Where tokenised rows are kept.
        candidates: The words to choose from.

    Raises:
        DataError: No example of a split has an answer among the candidates.
    """

    def __init__(
        self,
        model: PromptedModel,
        train: ExampleSet,
        validation: ExampleSet,
        batching: Batching,
        directory: Path,
        *,
        candidates: Sequence[str],
    ) -> None:
        words = list(dict.fromkeys(word.strip() for word in candidates))
        answers = model.rows.answers(words)
        closes = model.rows.mask_id is None and model.base.tokenizer.eos_token_id is not None
        length = 2 if closes else 1
        by_token = {ids[0]: word for word, ids in zip(words, answers, strict=True) if len(ids) == length}
        self.candidates, self._token_ids = list(by_token.values()), torch.tensor(list(by_token), dtype=torch.long)
        self._index_of = {word: i for i, word in enumerate(self.candidates)}
        super().__init__(model, train, validation, batching, directory)
        self._train_gold, self.validation_gold = self._gold(self.train), self._gold(self.validation)
        if len(words) > len(self.candidates):
            told = f"{len(self.candidates)} of {len(words)} candidates are one token of the base model and used"
            self._left_out.insert(0, told)

    @property
    def majority(self) -> float:
        """Accuracy of always naming the most frequent answer of the validation split."""
        return majority_accuracy(self.validation_gold)

    def losses(self, position: int, prompts: Sequence[Tensor]) -> Iterator[tuple[Tensor, int]]:
        """See `loop.Task`."""
        chosen = self.order.indices(position)
        gold = [self._train_gold[i] for i in chosen]
        batch = self.model.text_batch(self.train_rows.rows(chosen), self._answers(gold), copies=len(prompts))
        losses = self.model.text_losses(batch, torch.cat(list(prompts)))
        yield losses.view(len(prompts), -1).sum(dim=1), len(chosen)

    def samples(self, evaluation: Evaluation, prompt_embeddings: Tensor) -> list[dict[str, Any]]:
        """Some validation rows with what was predicted, wrong ones first."""
        return self._wrong_first(evaluation, self.validation_gold, self.candidates)

    @torch.no_grad()
    def scored(
        self, rows: Sequence[Row], chosen: Sequence[int], prompt_embeddings: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Losses `[B]` of validation examples over the whole vocabulary, and logits of the candidates, `[B, C]`.

        Args:
            rows: B rows of these examples.
            chosen: Their indices.
            prompt_embeddings: `[P, H]`; None if the rows have no virtual tokens.
        """
        batch = self.model.text_batch(rows, self._answers([self.validation_gold[i] for i in chosen]))
        logits = self.model.token_logits(batch, prompt_embeddings).cpu()
        assert batch.labels is not None
        losses = functional.cross_entropy(logits, batch.labels.cpu(), reduction="none")
        return losses, logits[:, self._token_ids]

    def _that_fit(self, examples: ExampleSet, split: str) -> ExampleSet:
        known = np.array([index >= 0 for index in self._gold(examples)], dtype=bool)
        if not known.any():
            raise DataError(
                f"No {split} example has an answer among the candidates",
                got=f"{len(examples)} examples, {len(self.candidates)} candidates that are one token of the base model",
                needed="answers that are candidates, and one token each",
            )
        if count := int((~known).sum()):
            self._left_out.append(f"{count} of {len(examples)} {split} examples have no candidate as answer, left out")
        return examples.select(known)

    def _gold(self, examples: ExampleSet) -> list[int]:
        """`[N]` numbers of the candidates that are right; -1 where none is."""
        return [self._index_of.get(example.values[examples.target].strip(), -1) for example in examples]

    def _answers(self, gold: Sequence[int]) -> list[list[int]]:
        return [[int(self._token_ids[index])] for index in gold]

    @torch.no_grad()
    def evaluate_rows(
        self, rows: TokenRows, prompt_embeddings: Tensor | None, chosen: np.ndarray | None = None
    ) -> Evaluation:
        """See `_Task`."""
        count = len(rows) if chosen is None else len(chosen)
        losses, predicted, confidence = (np.zeros(count) for _ in range(3))
        for indices, places in self._batches(rows, chosen):
            losses[places], scores = self.scored(rows.rows(indices), indices.tolist(), prompt_embeddings)
            best = scores.softmax(dim=1).max(dim=1)
            confidence[places], predicted[places] = best.values, best.indices
        found, gold = tuple(int(index) for index in predicted), np.array(self.validation_gold)
        right = accuracy((gold if chosen is None else gold[chosen]).tolist(), found)
        return Evaluation(float(losses.mean()), right, found, tuple(confidence.tolist()), chosen=chosen)


AnyTask = LabelTask | TextTask | CandidateTask


def _label_indices(examples: ExampleSet) -> np.ndarray:
    assert examples.labels is not None, "the target is a label"
    return examples.labels
