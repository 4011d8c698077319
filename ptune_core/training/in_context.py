"""The base model with examples in its context: what a person can have of it without any tuning.

Before every validation row stand the same labelled training examples, in the run's template without virtual tokens
("few-shot" in arXiv 2005.14165). Only a base model that continues text reads them so.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import chain, zip_longest
from pathlib import Path

import numpy as np

from ptune_core.data.batching import Row, RowMaker, all_rows
from ptune_core.data.examples import Example, ExampleSet
from ptune_core.data.tokens import TokenRows
from ptune_core.errors import DataError, SettingsError
from ptune_core.model.prompted import PromptedModel
from ptune_core.prompt.template import TargetKind
from ptune_core.training.metrics import Evaluation
from ptune_core.training.tasks import AnyTask

MOST_EXAMPLES = 16

DRAWN = 64
"""Training examples that are looked at for some that fit."""


@dataclass(frozen=True)
class InContext:
    """What the base model says with examples in its context.

    Attributes:
        count: Examples before each row.
        evaluation: Of the validation split.
    """

    count: int
    evaluation: Evaluation


class RowsAfter(TokenRows):
    """Rows of a split, each after the same numbers.

    Args:
        lead: Those numbers.
        examples: The N examples.
        maker: Makes the rows; must leave room for `lead`.
        directory: Where the files are.
    """

    batch_divisor = 8  # every row keeps keys and values of all of `lead` while its batch is computed

    def __init__(self, lead: Sequence[int], examples: ExampleSet, maker: RowMaker, directory: Path) -> None:
        super().__init__(examples, maker, directory)
        self._lead = tuple(lead)

    def rows(self, indices: Sequence[int] | np.ndarray) -> list[Row]:
        """Some rows, without their answers."""
        return [replace(row, ids=(*self._lead, *row.ids)) for row in super().rows(indices)]


def reads_examples(model: PromptedModel) -> bool:
    """Whether the base model goes on from its context."""
    return model.base.is_causal and model.template.target.kind is TargetKind.ANSWER


def in_context(task: AnyTask, chosen: np.ndarray | None = None) -> InContext | None:
    """Evaluate the base model with up to `MOST_EXAMPLES` training examples in half of the longest row's room.

    Of the validation rows `chosen`, or of all. None where there is nothing to continue (an encoder, an
    encoder-decoder, a classification head), or no room.
    """
    model = task.model
    if not reads_examples(model):
        return None
    room = model.max_length // 2
    try:
        maker = model.base_rows_after(room)
        written = _written(model, maker, task.train, _drawn(task))
        count, lead = _that_fit(written, room - len(model.base_prefix))
        rows = RowsAfter([*model.base_prefix, *lead], task.validation, maker, task.directory)
        return InContext(count, task.evaluate_rows(rows, None, chosen)) if count else None
    except (SettingsError, DataError):  # the template alone, or an answer, needs more than the other half
        return None


def _drawn(task: AnyTask) -> list[int]:
    """Some training examples in the order in which they are taken: one of each label in turn."""
    drawn = np.random.default_rng(task.batching.seed).permutation(len(task.train))[:DRAWN]
    if task.train.labels is None:
        return [int(index) for index in drawn]
    labels = task.train.labels[drawn]
    of_label = [drawn[labels == label] for label in np.unique(labels)]
    return [int(index) for index in chain.from_iterable(zip_longest(*of_label)) if index is not None]


def _written(model: PromptedModel, maker: RowMaker, train: ExampleSet, chosen: Sequence[int]) -> list[list[int]]:
    """Token ids of each example with its answer and what ends it."""
    examples = train.read(chosen)
    end = model.base.tokenizer.eos_token_id if model.is_chat else None
    ending = [*([] if end is None else [end]), *maker.encode_answer("\n" if model.is_chat else "\n\n")]
    answers = [_answer(model, maker, train, example) for example in examples]
    rows = all_rows(maker.rows([example.values for example in examples], [len(answer) for answer in answers]))
    return [[*row.ids, *answer, *ending] for row, answer in zip(rows, answers, strict=True)]


def _answer(model: PromptedModel, maker: RowMaker, train: ExampleSet, example: Example) -> list[int]:
    text = example.values[train.target]
    if model.verbalizer is not None:
        answers = model.verbalizer.filled(example.values)
        return maker.encode_answer(answers[model.verbalizer.labels.index(text)])
    ids, end = maker.answer_ids(text), model.base.tokenizer.eos_token_id
    return ids[:-1] if ids[-1:] == [end] else ids


def _that_fit(written: Sequence[Sequence[int]], room: int) -> tuple[int, list[int]]:
    """How many of the examples are taken, and their numbers one after the other."""
    count, lead = 0, list[int]()
    for ids in written:
        if count < MOST_EXAMPLES and len(lead) + len(ids) <= room:
            count, lead = count + 1, [*lead, *ids]
    return count, lead
