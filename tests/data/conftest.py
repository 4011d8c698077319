"""Reading a file as the reading process does, in the test's own process."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from ptune_core.data.ingest_child import Task, run
from ptune_core.data.kinds import kind_of_name
from ptune_core.data.limits import Limits
from ptune_core.data.table import Table, open_table

Read = Callable[..., Table]


@pytest.fixture
def read(tmp_path: Path) -> Read:
    """Reads a file with the given name and content as the child does, in this process."""

    def read(name: str, content: bytes | str, limits: Limits | None = None) -> Table:
        source, out = tmp_path / name, tmp_path / "out"
        source.write_bytes(content.encode() if isinstance(content, str) else content)
        out.mkdir(exist_ok=True)
        run(Task(source, name, kind_of_name(name), out, limits or Limits()))
        return open_table(out)

    return read
