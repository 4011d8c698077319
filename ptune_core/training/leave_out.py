"""What each virtual token is worth: the validation split again, with that token taken out of every row.

B rows, P virtual tokens, H hidden size, C labels, N answer tokens.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from ptune_core.data.batching import Row
from ptune_core.data.order import by_length
from ptune_core.training.metrics import Metric
from ptune_core.training.tasks import AnyTask, LabelTask, TextTask


@dataclass(frozen=True)
class Measured:
    """A result on the validation split.

    Attributes:
        value: Accuracy; of text to generate the loss per answer token.
        loss: Cross entropy of the right labels, or per answer token.
    """

    value: float
    loss: float


@dataclass(frozen=True)
class LeftOut:
    """The validation split with all virtual tokens, and with some taken out of the input.

    Attributes:
        metric: What the values are.
        examples: Rows that were measured.
        whole: With all virtual tokens.
        tokens: Without each one, in the order of the prompt embeddings' rows, `[P]`. A token that stands in several
            places is out of all of them.
        groups: Without each group's, in the order of the groups.
    """

    metric: Metric
    examples: int
    whole: Measured
    tokens: tuple[Measured, ...]
    groups: tuple[Measured, ...]


def leave_out_each(task: AnyTask, prompt_embeddings: Tensor) -> LeftOut:
    """Measure what each virtual token, and each group of them, is worth.

    Later tokens move up where one is missing: the input is what it would be had the token never been there. Text before
    the first virtual token is computed once for all of them.

    Args:
        task: Its validation split is measured.
        prompt_embeddings: `[P, H]`.
    """
    groups, start = [], 0
    for group in task.model.template.groups:
        assert group.count is not None, "the template of a model is resolved"
        groups.append(frozenset(range(start, start + group.count)))
        start += group.count
    tokens = [frozenset({token}) for token in range(start)]
    # A group of one token is that token, and the only group all of them: each set is measured once.
    wanted = list(dict.fromkeys([frozenset[int](), *tokens, *groups]))
    found = dict(zip(wanted, _measure(task, prompt_embeddings, wanted), strict=True))
    metric = Metric.LOSS if isinstance(task, TextTask) else Metric.ACCURACY
    return LeftOut(
        metric=metric,
        examples=len(task.validation),
        whole=found[frozenset()],
        tokens=tuple(found[token] for token in tokens),
        groups=tuple(found[group] for group in groups),
    )


def without(row: Row, tokens: Iterable[int]) -> Row:
    """The row with these virtual tokens, from 0, taken out."""
    gone = {-(token + 1) for token in tokens}
    return replace(row, ids=tuple(number for number in row.ids if number not in gone))


@torch.no_grad()
def _measure(task: AnyTask, prompt_embeddings: Tensor, wanted: Sequence[frozenset[int]]) -> list[Measured]:
    """A result for each set of tokens to leave out. A batch is read once, and measured with all of them."""
    source, sums = task.validation_rows, torch.zeros(len(wanted), 2, dtype=torch.float64)
    count = 0
    prompt_embeddings = prompt_embeddings.to(task.model.base.device)
    for chosen in by_length(source.lengths_of(np.arange(len(source))), task.batching.eval_batch_size):
        rows, answers = source.rows(chosen), source.answers(chosen)
        count += sum(map(len, answers)) if isinstance(task, TextTask) else len(chosen)
        for place, tokens in enumerate(wanted):
            left = [without(row, tokens) for row in rows]
            if isinstance(task, TextTask):
                losses = right = task.model.text_losses(task.model.text_batch(left, answers), prompt_embeddings).cpu()
            else:
                gold = torch.tensor([task.validation_gold[i] for i in chosen.tolist()])
                if isinstance(task, LabelTask):
                    scores = task.model.label_logits(task.model.label_batch(left), prompt_embeddings).cpu()
                    losses = functional.cross_entropy(scores, gold, reduction="none")
                else:
                    losses, scores = task.scored(left, chosen.tolist(), prompt_embeddings)
                right = scores.argmax(dim=1) == gold
            sums[place] += torch.stack([right.double().sum(), losses.double().sum()])
    return [Measured(value, loss) for value, loss in (sums / count).tolist()]
