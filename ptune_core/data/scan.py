"""One pass over a table that keeps numbers instead of texts: which rows are usable, and which say the same.

n rows that are usable. A text is kept as its 64-bit hash: equal texts have equal ones, and in a million rows two
different texts share one with a probability below 1e-7. Hashes hold within one process.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa

from ptune_core.data.table import ROW, Table, record_batches

_ODD = np.int64(-7046029254386353131)
"""Spreads numbers over 64 bits, so that the sum with another number is unlike any other such sum."""


@dataclass(frozen=True)
class Facts:
    """What is kept of the usable rows.

    Attributes:
        places: Which rows of the table they are, `[n]` int64, from 0.
        rows: Their numbers in the source, `[n]` int64.
        inputs: Hash of all input columns, `[n]`; of a template without any, the row's number: they are all different.
        targets: Hash of the target as it is written, `[n]`.
        labels: Hash of the target without the spaces around it, `[n]`.
    """

    places: np.ndarray
    rows: np.ndarray
    inputs: np.ndarray
    targets: np.ndarray
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.places)

    def select(self, chosen: np.ndarray) -> Facts:
        """The rows that a mask `[n]` or an array of indices names."""
        return Facts(*(array[chosen] for array in vars(self).values()))


@dataclass
class Scan:
    """What the pass found.

    Attributes:
        facts: Of the usable rows.
        dropped: Reason -> numbers of rows that are not usable.
        gaps: Input column -> usable rows in which it is empty.
    """

    facts: Facts
    dropped: dict[str, list[int]] = field(default_factory=dict)
    gaps: Counter[str] = field(default_factory=Counter)


def scan_table(table: Table, columns: Mapping[str, str], needed: Sequence[str]) -> Scan:
    """Find the rows in which the target and at least one input have text: instructions often come without an input.

    Args:
        table: The rows.
        columns: Template column -> data column, the target's included.
        needed: Template columns that must have text: those that answers are filled from, and last the target.
    """
    none = np.empty(0, dtype=np.int64)
    scan = Scan(Facts(none, none, none, none, none))
    parts = [scan.facts]
    start = 0
    for batch in record_batches(table, list(columns.values())):
        parts.append(_scan_batch(scan, batch, columns, needed, start))
        start += len(batch)
    scan.facts = Facts(
        *(np.concatenate(arrays) for arrays in zip(*(vars(part).values() for part in parts), strict=True))
    )
    return scan


def _scan_batch(
    scan: Scan, batch: pa.RecordBatch, columns: Mapping[str, str], needed: Sequence[str], start: int
) -> Facts:
    """The facts of a batch that begins with row `start` of the table; what is not usable goes into `scan`."""
    target = needed[-1]
    texts = {name: batch.column(column).to_pylist() for name, column in columns.items()}
    empty = {name: np.array([not text or text.isspace() for text in cells]) for name, cells in texts.items()}
    rows = batch.column(ROW).to_numpy()
    inputs = [name for name in columns if name != target]
    nothing = np.logical_and.reduce([empty[name] for name in inputs]) if inputs else np.zeros(len(batch), dtype=bool)
    unusable = np.logical_or.reduce([nothing, *(empty[name] for name in needed)])
    for i in np.flatnonzero(unusable):
        lacking = inputs if nothing[i] else [name for name in needed if empty[name][i]]
        reason = f"empty {' and '.join(lacking)}"
        scan.dropped.setdefault(reason, []).append(int(rows[i]))
    for i in np.flatnonzero(~unusable & np.logical_or.reduce([empty[name] for name in columns])):
        scan.gaps.update(name for name in inputs if empty[name][i])
    facts = Facts(
        places=np.arange(start, start + len(batch)),
        rows=rows,
        inputs=hash_all(zip(*(texts[name] for name in inputs), strict=True)) if inputs else rows,
        targets=hash_all(texts[target]),
        labels=hash_all(map(str.strip, texts[target])),
    )
    return facts.select(~unusable)


def hash_all(keys: Iterable[Hashable]) -> np.ndarray:
    """Hashes of texts, or of tuples of texts, int64."""
    return np.fromiter(map(hash, keys), np.int64)


def count_different(*keys: np.ndarray) -> int:
    """How many different rows `[n]` there are, told apart by one or two keys."""
    # Sorting takes a tenth of the time of numpy's `unique` over hashes.
    ordered = np.sort(keys[0] if len(keys) == 1 else keys[0] * _ODD + keys[1])
    return int((ordered[1:] != ordered[:-1]).sum()) + bool(len(ordered))


def repeated(*keys: np.ndarray) -> np.ndarray:
    """Which rows `[n]` are like an earlier one, told apart by one or two keys: a mask."""
    joined = keys[0] if len(keys) == 1 else keys[0] * _ODD + keys[1]
    order = np.argsort(joined, kind="stable")
    ordered = joined[order]
    mask = np.zeros(len(joined), dtype=bool)
    mask[order[1:]] = ordered[1:] == ordered[:-1]
    return mask
