"""Which runs there are, in what order they wait, and whose they are: SQLite, as an index of the run directories.

The run directory is the truth. Everything here can be made again from it, and is, when the database is missing or
damaged. Each operation opens the database, does one transaction and closes it (0.1 ms): nothing is shared between
threads, and several apps may use one data directory.

The journal is SQLite's default, not WAL: WAL has to create files before it can even read, which fails on a full disk,
just when people want to see and delete their runs, and it needs shared memory, which network disks do not have.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ptune_core.errors import DiskFull, RunError
from ptune_core.files import NO_ROOM, Ballast, sync
from ptune_core.runs.directory import RunDirectory, is_run_id
from ptune_core.runs.names import default_name
from ptune_core.runs.run import Run
from ptune_core.runs.states import TRANSITIONS, RunState
from ptune_core.training.settings import RunSettings

if TYPE_CHECKING:
    from ptune_core.data.table import Table

SCHEMA_VERSION = 1
STORE_BALLAST = 1 << 20
BUSY_SECONDS = 30
ORPHAN_SECONDS = 3600
"""A directory that has been in the making for so long belongs to an app that was killed."""

_BUILDING = ".tmp-"
_SCHEMA = f"""
CREATE TABLE IF NOT EXISTS runs (
    id TEXT PRIMARY KEY,
    place INTEGER NOT NULL UNIQUE,
    owner TEXT NOT NULL,
    key TEXT NOT NULL,
    name TEXT NOT NULL,
    settings TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ({", ".join(f"'{state}'" for state in RunState)})),
    attempt INTEGER NOT NULL,
    created REAL NOT NULL,
    started REAL,
    ended REAL,
    reason TEXT NOT NULL DEFAULT '',
    UNIQUE (owner, key)
)"""
_INSERT = """INSERT OR IGNORE INTO runs
    (id, place, owner, key, name, settings, state, attempt, created, started, ended, reason)
    VALUES (:id, (SELECT COALESCE(MAX(place), 0) + 1 FROM runs),
            :owner, :key, :name, :settings, :state, :attempt, :created, :started, :ended, :reason)"""

_MOVE = "UPDATE runs SET state = :state, reason = :reason, {} WHERE id = :id RETURNING *"
_MOVES = dict.fromkeys(RunState, _MOVE.format("ended = :now")) | {
    RunState.RUNNING: _MOVE.format("started = :now, ended = NULL"),
    RunState.QUEUED: _MOVE.format(
        """attempt = attempt + 1, started = NULL, ended = NULL,
           place = (SELECT MAX(place) + 1 FROM runs)"""
    ),
}


class Store:
    """All runs of one data directory.

    `owner` is whoever submitted a run: an account name or the hash of a visitor's token, never the token itself. A
    method that takes `owner` treats the runs of others as not there; None may see them all.

    Raises:
        RunError: The directory cannot be used, or a newer PTune wrote the database.
    """

    def __init__(self, data_dir: Path) -> None:
        self.data_dir = data_dir
        self.runs_dir = data_dir / "runs"
        self.ballast = Ballast(data_dir / "ballast", STORE_BALLAST)
        self._trash = data_dir / ".trash"
        self._file = data_dir / "runs.sqlite3"
        try:
            for folder in (self.runs_dir, self._trash):
                folder.mkdir(parents=True, exist_ok=True)
            self._open()
            self.rebuild()
            self._sweep()
            self.ballast.hold()
        except (OSError, sqlite3.Error) as error:
            raise RunError("The data directory cannot be used", got=f"{data_dir}: {error}") from error

    def submit(
        self, settings: RunSettings, table: Table, *, validation: Table | None = None, owner: str, key: str
    ) -> str:
        """Queue a run and return its id.

        Args:
            table: The rows; they are copied, so what happens to them later does not matter.
            validation: The rows of the second file, if there is one.
            key: Made once per press of the button: the same owner's same key is the same run, however often it is sent.

        Raises:
            DiskFull: There is no room for the data. Nothing was queued.
        """
        if known := self._id_of(owner, key):
            return known
        run_id = secrets.token_hex(8)
        building = RunDirectory(self.runs_dir / f"{_BUILDING}{run_id}")
        run = {
            "id": run_id, "name": settings.name or default_name(settings, table.source, self._names(owner)),
            "owner": owner, "key": key, "settings": settings.model_dump(mode="json"),
        }  # fmt: skip
        try:
            building.path.mkdir(mode=0o700)
            building.copy_table(table, building.data)
            if validation is not None:
                building.copy_table(validation, building.validation)
            building.create(run)
            return self._publish(building, run_id)
        except OSError as error:
            if error.errno not in NO_ROOM:
                raise
            raise DiskFull("There is no room for the run's data", remedy="Delete old runs and try again") from error
        finally:
            shutil.rmtree(building.path, ignore_errors=True)

    def _names(self, owner: str) -> set[str]:
        with self._database() as database:
            return {row["name"] for row in database.execute("SELECT name FROM runs WHERE owner = ?", (owner,))}

    def get(self, run_id: str, owner: str | None) -> Run:
        """The run.

        Raises:
            RunError: There is none with this id, or it is not `owner`'s: the same words for both.
        """
        if is_run_id(run_id):
            with self._database() as database:
                row = database.execute("SELECT * FROM runs WHERE id = ?", (run_id,)).fetchone()
            if row is not None and owner in (None, row["owner"]):
                return self._run(row)
        raise RunError("This run was not found", remedy="It may have been deleted; the Runs tab lists those there are")

    def list(self, owner: str | None) -> tuple[Run, ...]:
        """All runs of `owner`, newest first."""
        with self._database() as database:
            rows = database.execute(
                "SELECT * FROM runs WHERE :owner IS NULL OR owner = :owner ORDER BY created DESC, place DESC",
                {"owner": owner},
            ).fetchall()
        return tuple(self._run(row) for row in rows)

    def running(self) -> tuple[Run, ...]:
        """The runs that a worker has, as far as the store knows."""
        with self._database() as database:
            rows = database.execute("SELECT * FROM runs WHERE state = 'running' ORDER BY place").fetchall()
        return tuple(self._run(row) for row in rows)

    def queue_position(self, run_id: str) -> int:
        """1 for the run that is started next, 2 for the one after it, ...; 0 if it does not wait."""
        with self._database() as database:
            count = database.execute(
                """SELECT COUNT(*) FROM runs WHERE state = 'queued'
                   AND place <= (SELECT place FROM runs WHERE id = ? AND state = 'queued')""",
                (run_id,),
            ).fetchone()[0]
        return int(count)

    def claim_next(self, *, at_once: int = 1) -> Run | None:
        """Turn the run that waits longest from queued to running and return it, to one caller only.

        Args:
            at_once: None is claimed while this many are running.
        """
        with self._database(write=True) as database:
            row = database.execute(
                """UPDATE runs SET state = 'running', started = :now, ended = NULL, reason = ''
                   WHERE id = (SELECT id FROM runs WHERE state = 'queued' ORDER BY place LIMIT 1)
                   AND (SELECT COUNT(*) FROM runs WHERE state = 'running') < :at_once RETURNING *""",
                {"now": time.time(), "at_once": at_once},
            ).fetchone()
        return self._run(row) if row is not None else None

    def move_up(self, run_id: str, owner: str | None) -> None:
        """Let a queued run change places with the one before it, among those that `owner` may see.

        The order is the database's alone: one that is made again from the directories has the order of submission.

        Raises:
            RunError: It was not found, or it does not wait.
        """
        run = self.get(run_id, owner)
        with self._database(write=True) as database:
            waiting = database.execute(
                """SELECT id, place FROM runs WHERE state = 'queued' AND (:owner IS NULL OR owner = :owner)
                   ORDER BY place""",
                {"owner": owner},
            ).fetchall()
            ids = [row["id"] for row in waiting]
            if run.id not in ids:
                state = self.get(run_id, owner).state  # as it is by now
                raise RunError("The run cannot be moved", got=f"it is {state}", needed="one that waits")
            if index := ids.index(run.id):
                before, this = waiting[index - 1 : index + 1]
                # -1 in between: no two runs may have one place, not even for a moment
                moves = [(-1, before["id"]), (before["place"], this["id"]), (this["place"], before["id"])]
                database.executemany("UPDATE runs SET place = ? WHERE id = ?", moves)

    def set_state(self, run_id: str, state: RunState, reason: str = "", *, attempt: int | None = None) -> Run:
        """Move the run to `state` and return it.

        Args:
            attempt: The attempt this is about: what is learned of one must not be said of the next.

        Raises:
            RunError: There is no such run, or no way from its state to this one, or it is at another attempt.
        """
        with self.moving(run_id, state, reason, attempt=attempt) as run:
            return run

    @contextmanager
    def moving(self, run_id: str, state: RunState, reason: str = "", *, attempt: int | None = None) -> Iterator[Run]:
        """`set_state`, but the body works on the run's files while nobody else can move it; if it fails, nothing moved.

        Raises:
            RunError: As `set_state`.
        """
        with self._database(write=True) as database:
            row = database.execute("SELECT state, attempt FROM runs WHERE id = ?", (run_id,)).fetchone()
            if row is None:
                raise RunError("This run was not found")
            if attempt not in (None, row["attempt"]):
                raise RunError("The run was resumed meanwhile", got=f"news of attempt {attempt}")
            if state not in TRANSITIONS[RunState(row["state"])]:
                raise RunError(f"The run is {row['state']}", got=f"a request to make it {state}")
            values = {"id": run_id, "state": state, "reason": reason, "now": time.time()}
            yield self._run(database.execute(_MOVES[state], values).fetchone())

    def delete(self, run_id: str, owner: str | None) -> None:
        """Delete the run and everything in its directory.

        Raises:
            RunError: It was not found, or it is queued, running, or held by a worker.
        """
        run = self.get(run_id, owner)
        directory = RunDirectory(run.directory)
        with self._database(write=True) as database:
            row = database.execute("SELECT state FROM runs WHERE id = ?", (run_id,)).fetchone()
            has_ended = directory.result() is not None  # its worker writes nothing more, though it may not be gone yet
            is_busy = row is not None and (RunState(row["state"]).is_active or directory.is_alive())
            if is_busy and not has_ended:
                raise RunError("The run cannot be deleted", got=f"it is {row['state']}", remedy="Stop it first")
            with suppress(FileNotFoundError):
                os.rename(run.directory, self._trash / run_id)
            database.execute("DELETE FROM runs WHERE id = ?", (run_id,))
        shutil.rmtree(self._trash / run_id, ignore_errors=True)

    def rebuild(self) -> None:
        """Make the index agree with the directories: add what only they have, drop what they no longer have."""
        with self._database(write=True) as database:
            known = {row["id"] for row in database.execute("SELECT id FROM runs")}
            there = {file.parent.name for file in self.runs_dir.glob("*/run.json") if is_run_id(file.parent.name)}
            database.executemany("DELETE FROM runs WHERE id = ?", [(run_id,) for run_id in known - there])
            found = [self._values(RunDirectory(self.runs_dir / run_id)) for run_id in there - known]
            for values in sorted(found, key=lambda values: (values["queued"], values["id"])):
                database.execute(_INSERT, values)

    def _publish(self, building: RunDirectory, run_id: str) -> str:
        """Let the finished directory appear in the queue; the id of the run that has the key, this one or another."""
        with self._database(write=True) as database:
            values = {**self._values(building), "id": run_id}
            if database.execute(_INSERT, values).rowcount:
                os.rename(building.path, self.runs_dir / run_id)
                sync(self.runs_dir)
            same_key = "SELECT id FROM runs WHERE owner = :owner AND key = :key"
            return str(database.execute(same_key, values).fetchone()["id"])

    def _values(self, directory: RunDirectory) -> dict[str, Any]:
        """The row that the directory of a run stands for."""
        run, folder = directory.run(), directory.path.name
        history = directory.history()
        state, reason = directory.recorded_state()
        times = {line.get("event"): line.get("time") for line in history}
        return {
            "id": folder, "owner": run.get("owner", ""), "key": run.get("key", folder), "name": run.get("name", folder),
            "settings": json.dumps(run.get("settings", {}), ensure_ascii=False), "state": state, "reason": reason,
            "attempt": directory.attempt(), "created": run.get("created", 0.0), "queued": times.get("queued", 0.0),
            "started": times.get("started"), "ended": (directory.result() or {}).get("ended", times.get("interrupted")),
        }  # fmt: skip

    def _id_of(self, owner: str, key: str) -> str | None:
        with self._database() as database:
            row = database.execute("SELECT id FROM runs WHERE owner = ? AND key = ?", (owner, key)).fetchone()
        return row["id"] if row is not None else None

    def _run(self, row: sqlite3.Row) -> Run:
        directory = RunDirectory(self.runs_dir / row["id"])
        state, reason, ended = RunState(row["state"]), row["reason"], row["ended"]
        if state is RunState.RUNNING and (result := directory.result()):
            # the worker has written its result, the launcher has not yet seen it
            (state, reason), ended = directory.recorded_state(), result.get("ended")
        return Run(
            id=row["id"], name=row["name"], state=state, directory=directory.path, owner=row["owner"],
            created=row["created"], started=row["started"], ended=ended, attempt=row["attempt"], reason=reason,
            settings_json=row["settings"],
        )  # fmt: skip

    def _sweep(self) -> None:
        """Remove what an app that was killed left half made or half deleted."""
        old = time.time() - ORPHAN_SECONDS
        orphans = [path for path in self.runs_dir.glob(f"{_BUILDING}*") if path.stat().st_mtime < old]
        for path in [*orphans, *self._trash.iterdir()]:
            shutil.rmtree(path, ignore_errors=True)

    def _open(self) -> None:
        try:
            self._prepare()
        except sqlite3.DatabaseError as error:
            if error.sqlite_errorcode not in (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT):
                raise
            self._file.with_name(self._file.name + "-journal").unlink(missing_ok=True)
            os.replace(self._file, self._file.with_suffix(".damaged"))
            self._prepare()

    def _prepare(self) -> None:
        with self._database() as database:
            if (check := database.execute("PRAGMA quick_check").fetchone()[0]) != "ok":
                error = sqlite3.DatabaseError(check)
                error.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
                raise error
        with self._database(write=True) as database:
            version = database.execute("PRAGMA user_version").fetchone()[0]
            if version > SCHEMA_VERSION:
                raise RunError(
                    "The run database is of a newer PTune", got=f"version {version} in {self._file}",
                    needed=f"at most {SCHEMA_VERSION}", remedy="Update PTune, or set PTUNE_DATA_DIR to another place",
                )  # fmt: skip
            database.execute(_SCHEMA)
            database.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")

    @contextmanager
    def _database(self, *, write: bool = False) -> Iterator[sqlite3.Connection]:
        """A connection for one operation; with `write`, one transaction that no other writer is inside."""
        connection = sqlite3.connect(self._file, timeout=BUSY_SECONDS, isolation_level=None)
        try:
            connection.row_factory = sqlite3.Row
            connection.execute("PRAGMA synchronous = FULL")
            if write:
                connection.execute("BEGIN IMMEDIATE")
            yield connection
            if connection.in_transaction:
                connection.execute("COMMIT")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_FULL:
                raise
            self.ballast.release()  # the next try has room
            remedy = "Delete old runs or other files"
            raise DiskFull("The disk is full", got=str(self.data_dir), remedy=remedy) from error
        finally:
            connection.close()  # rolls back what was not committed
