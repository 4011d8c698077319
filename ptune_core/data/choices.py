"""A row's own answers, where the verbalizer is filled from columns. C labels, A tokens of an answer."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import chain

import numpy as np

from ptune_core.prompt.verbalizer import Verbalizer

Choices = tuple[tuple[int, ...], ...]
"""`[C][A]` token ids, in the order of the labels; none where all rows have the same answers."""

_END = -1
"""Stands after each answer where the answers of a row are stored as one list."""


def encode_choices(
    verbalizer: Verbalizer | None,
    examples: Sequence[Mapping[str, str]],
    encode: Callable[[Sequence[str]], Sequence[Sequence[int]]],
) -> list[Choices]:
    """The choices of N examples.

    Args:
        verbalizer: Label -> answer; None: there are no choices.
        examples: Column -> text.
        encode: Token ids of texts as they continue a row, `[N * C][A]`.
    """
    if verbalizer is None:
        return [()] * len(examples)
    ids = encode([text for values in examples for text in verbalizer.filled(values)])
    count = len(verbalizer.labels)
    return [tuple(map(tuple, ids[i * count : (i + 1) * count])) for i in range(len(examples))]


def pack(choices: Choices) -> list[int]:
    """The choices of a row as one list of numbers."""
    return list(chain.from_iterable((*answer, _END) for answer in choices))


def unpack(numbers: np.ndarray) -> Choices:
    """The choices that `pack` made a list of."""
    ends = np.flatnonzero(numbers == _END)
    return tuple(tuple(part[part != _END].tolist()) for part in np.split(numbers, ends[:-1])) if len(ends) else ()
