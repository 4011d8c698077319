"""A store in a fresh directory, a small table, and waiting for conditions instead of sleeping."""

from __future__ import annotations

import json
import select
import time
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ptune_core.data.table import Table, open_table
from ptune_core.runs.store import Store
from ptune_core.training.settings import RunSettings


@pytest.fixture
def wait_until() -> Callable[..., None]:
    """Wait until a condition holds, looking often; fails with the description after a generous deadline."""

    def wait(condition: Callable[[], object], description: str, seconds: float = 60.0) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, f"waited {seconds} s in vain for: {description}"
            select.select([], [], [], 0.01)

    return wait


@pytest.fixture
def table(tmp_path: Path) -> Table:
    """Four rows of text and label, as `ingest` would leave them."""
    folder = tmp_path / "upload"
    folder.mkdir()
    rows = {"text": ["good", "bad", "fine", "poor"], "label": ["positive", "negative"] * 2, "__row__": [1, 2, 3, 4]}
    pq.write_table(pa.table(rows), folder / "table.parquet")
    Table(folder / "table.parquet", ("text", "label"), 4, [], source="reviews.csv").save_report()
    return open_table(folder)


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    return tmp_path / "ptune"


@pytest.fixture
def store(data_dir: Path) -> Store:
    return Store(data_dir)


@pytest.fixture
def submit(store: Store, table: Table) -> Callable[..., str]:
    """Submit a run of ana's; `key` makes it another one."""

    def _submit(key: str = "k1", owner: str = "ana", **options: object) -> str:
        return store.submit(RunSettings.parse(options), table, owner=owner, key=key)

    return _submit


@pytest.fixture
def write_metrics() -> Callable[..., None]:
    """Append lines to a run's metrics.jsonl as a worker does."""

    def write(directory: Path, *lines: dict[str, object]) -> None:
        with (directory / "metrics.jsonl").open("a") as file:
            file.writelines(json.dumps(line) + "\n" for line in lines)

    return write
