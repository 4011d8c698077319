"""Examples that stay in their table until somebody needs their texts.

N examples of one table; a million of them take a few arrays of numbers.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ptune_core.data.table import Table, cells_at


@dataclass(frozen=True)
class Example:
    """One usable row.

    Attributes:
        row: Its number in the source.
        values: Template column -> text, the target's column included.
    """

    row: int
    values: dict[str, str]


@dataclass(frozen=True, eq=False)
class ExampleSet:
    """The examples of one split, in the order of the rows. Iterating reads them from the table, some at a time.

    Attributes:
        table: Where their texts are.
        columns: Template column -> data column, the target's column included.
        target: The template column that is the target.
        places: Which rows of the table they are, `[N]` int64, ascending, from 0.
        rows: Their numbers in the source, `[N]` int64.
        labels: Their label indices, `[N]` int32; None: the target is text to generate.
    """

    table: Table
    columns: Mapping[str, str]
    target: str
    places: np.ndarray
    rows: np.ndarray
    labels: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.places)

    def __iter__(self) -> Iterator[Example]:
        return self.stream(np.arange(len(self)))

    def select(self, chosen: np.ndarray) -> ExampleSet:
        """The examples that `chosen`, ascending indices or a mask `[N]`, names."""
        labels = None if self.labels is None else self.labels[chosen]
        return replace(self, places=self.places[chosen], rows=self.rows[chosen], labels=labels)

    def stream(self, indices: np.ndarray) -> Iterator[Example]:
        """Examples by ascending index, read in one pass through the table."""
        numbers = iter(self.rows[indices])
        for cells in cells_at(self.table, list(self.columns.values()), self.places[indices]):
            for texts in zip(*cells, strict=True):
                yield self._example(int(next(numbers)), texts)

    def read(self, indices: Sequence[int]) -> list[Example]:
        """A few examples, in the order of `indices`."""
        order = sorted(set(indices))
        found = dict(zip(order, self.stream(np.array(order, dtype=np.int64)), strict=True))
        return [found[index] for index in indices]

    def _example(self, row: int, texts: Sequence[str]) -> Example:
        values = dict(zip(self.columns, texts, strict=True))
        if self.labels is not None:
            values[self.target] = values[self.target].strip()
        return Example(row, values)
