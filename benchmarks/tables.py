"""Tables of texts and labels, written as `ingest` writes them."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ptune_core.data.examples import ExampleSet
from ptune_core.data.table import PREVIEW_ROWS, ROW, Table, table_file


def write_table(directory: Path, batches: Iterable[tuple[list[str], list[str]]]) -> Table:
    """A table with the columns text and label; `batches` are `(texts, labels)` and are not kept in memory."""
    schema = pa.schema([(ROW, pa.int64()), ("text", pa.string()), ("label", pa.string())])
    count = 0
    preview: list[dict[str, str]] = []
    with pq.ParquetWriter(table_file(directory), schema) as writer:
        for texts, labels in batches:
            numbers = np.arange(count + 1, count + 1 + len(texts))
            writer.write_table(pa.table([numbers, texts, labels], schema=schema))
            preview += [{"text": t, "label": n} for t, n in zip(texts, labels, strict=True)][
                : max(0, PREVIEW_ROWS - count)
            ]
            count += len(texts)
    return Table(table_file(directory), ("text", "label"), count, preview)


def all_examples(table: Table, labels: list[str], names: list[str]) -> ExampleSet:
    """Every row of a table as an example; `names` are the labels in the order of their indices."""
    numbers = np.arange(table.num_rows)
    indices = np.array([names.index(label) for label in labels], dtype=np.int32)
    return ExampleSet(table, {"text": "text", "label": "label"}, "label", numbers, numbers + 1, indices)
