"""Any upload, pasted rows or a file on the Hub -> a `Table`, read in a process of its own.

The process that calls this never parses a stranger's file: forty kilobytes of nested JSON can end a process, two
megabytes of Parquet can fill its memory.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import ptune_core
from ptune_core.data.hub import HubSplit, fetch_hub_file, find_split, names_a_file
from ptune_core.data.ingest_child import FULL, Task, too_much_memory
from ptune_core.data.kinds import Kind, kind_of_name
from ptune_core.data.limits import Limits
from ptune_core.data.table import Table, open_table
from ptune_core.demo import DEMO, DEMO_DATA
from ptune_core.errors import DataError, DiskFull

__all__ = ["Limits", "Table", "ingest", "ingest_hub", "ingest_text", "load_source", "open_table"]

DEFAULT_LIMITS = Limits()
_CHILD = "ptune_core.data.ingest_child"
_HUB = "hf://"


def ingest(source: Path, out: Path, limits: Limits = DEFAULT_LIMITS, *, display_name: str | None = None) -> Table:
    """Read a file into a table in the folder `out`, which is made if need be; a table already there is replaced.

    Args:
        source: The file. Its extension, or that of `display_name`, says what it is.
        display_name: What to call the file in messages, where its own name means nothing to people.

    Raises:
        DataError: The file cannot be used; all problems are named, and a table already in `out` is kept.
        DiskFull: There is no room for the table.
    """
    name = display_name or source.name
    return _ingest(source, out, limits, name, kind_of_name(name))


def ingest_text(pasted: str, out: Path, limits: Limits = DEFAULT_LIMITS) -> Table:
    """Read pasted rows: CSV, TSV, JSONL, a text and its label with a tab between, or one text per line.

    Raises:
        DataError: The text has no rows that can be used.
    """
    with _room_for("Pasted text"), tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "pasted.txt"
        source.write_text(pasted, encoding="utf-8", errors="replace", newline="")
        return _ingest(source, out, limits, "Pasted text", Kind.TXT)


def ingest_hub(reference: str, out: Path, limits: Limits = DEFAULT_LIMITS) -> Table:
    """Read one file of a data set on the Hub, `hf://datasets/OWNER/NAME[@REVISION]/FILE`, or one of its splits,
    `hf://datasets/OWNER/NAME?config=CONFIG&split=SPLIT`, of which the first file is read.

    Raises:
        DataError: No such data set, file or split, no connection, or a file that cannot be used.
    """
    if not names_a_file(reference):
        return _ingest_split(find_split(reference), out, limits)
    fetched = fetch_hub_file(reference, limits.max_bytes)
    return ingest(fetched, out, limits, display_name=reference.strip().rsplit("/", 1)[-1])


def _ingest_split(split: HubSplit, out: Path, limits: Limits) -> Table:
    fetched = fetch_hub_file(split.first_file, limits.max_bytes)
    table = _ingest(fetched, out, limits, split.reference, Kind.PARQUET)
    if len(split.files) == 1:
        return table
    told = f"The split {split.name} has {len(split.files)} files; the rows of the first one are used."
    table = replace(table, notes=(*table.notes, told))
    table.save_report()
    return table


def load_source(data: str, out: Path) -> Table:
    """Read what `RunSettings.data` names: `demo`, a file on the Hub, or a local file."""
    if data == DEMO:
        return ingest(DEMO_DATA, out)
    if data.startswith(_HUB):
        return ingest_hub(data, out)
    return ingest(Path(data).expanduser(), out)


def _ingest(source: Path, out: Path, limits: Limits, name: str, kind: Kind) -> Table:
    try:
        size = source.stat().st_size
    except OSError as error:
        raise DataError(f"{name} cannot be opened", got=error.strerror or str(error)) from error
    if not source.is_file():
        raise DataError(f"{name} is not a file", got=str(source), needed="one file with rows")
    if size == 0:
        raise DataError(f"{name} is empty", got="0 bytes", needed="column names, and rows")
    if size > limits.max_bytes:
        raise DataError(
            f"{name} is too large",
            got=f"{size / 2**20:,.0f} MB",
            needed=f"at most {limits.max_bytes / 2**20:,.0f} MB",
            remedy="Keep a part of the rows, or save them as .parquet",
        )
    with _room_for(name):
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=out, prefix=".ingest-") as folder:
            _run_child(Task(source.resolve(), name, kind, Path(folder).resolve(), limits))
            # The rows first, then the report about them.
            for path in sorted(Path(folder).iterdir(), reverse=True):
                path.replace(out / path.name)
    return open_table(out)


@contextlib.contextmanager
def _room_for(name: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in FULL:
            raise _no_room(name) from error
        raise


def _no_room(name: str) -> DiskFull:
    return DiskFull(f"There is no room to store {name}", remedy="Free some space and choose it again")


def child_environment() -> dict[str, str]:
    """Environment of the reading process: what Python needs to start, and none of the app's secrets."""
    environment = {key: value for key, value in os.environ.items() if key in ("PATH", "LANG", "LC_ALL", "SYSTEMROOT")}
    return environment | {
        "PYTHONPATH": str(Path(ptune_core.__file__).resolve().parent.parent),
        "PYTHONUTF8": "1",
        "ARROW_DEFAULT_MEMORY_POOL": "system",
        "ARROW_IO_THREADS": "1",
        "OMP_NUM_THREADS": "1",
    }


def _run_child(task: Task) -> None:
    with subprocess.Popen(
        # -P: the folder of the caller, where anything may lie, is not searched for modules.
        [sys.executable, "-P", "-m", _CHILD],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=child_environment(),
        text=True,
        encoding="utf-8",
    ) as child:
        try:
            output, errors = child.communicate(task.to_json(), timeout=task.limits.wall_seconds)
        except subprocess.TimeoutExpired:
            child.kill()
            raise _too_slow(task) from None
    _raise_for(task, child.returncode, output, errors)


def _raise_for(task: Task, code: int, output: str, errors: str) -> None:
    if code == 0:
        reply = json.loads(output)
        if reply.get("disk_full"):
            raise _no_room(task.name)
        if "error" in reply:
            raise DataError(**reply["error"])
        return
    if sys.platform != "win32" and code == -signal.SIGXCPU:
        raise _too_slow(task)
    if (sys.platform != "win32" and code == -signal.SIGKILL) or "bad_alloc" in errors:
        raise DataError(**too_much_memory(task))
    last_line = errors.strip().splitlines()[-1][:200] if errors.strip() else f"exit status {code}"
    raise DataError(
        f"{task.name} broke the {task.kind} reader",
        got=last_line,
        remedy="It may be damaged. Save it again, or as .csv",
    )


def _too_slow(task: Task) -> DataError:
    return DataError(
        f"{task.name} takes too long to read",
        needed=f"at most {task.limits.cpu_seconds} s",
        remedy="Keep a part of the rows, or save them as .parquet",
    )
