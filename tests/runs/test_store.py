"""The store: an index that cannot contradict the run directories, a queue in which every run is taken once."""

from __future__ import annotations

import errno
import itertools
import json
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable

import pytest

from ptune_core.data.table import Table, open_table, read_rows
from ptune_core.errors import DiskFull, RunError
from ptune_core.files import Lock
from ptune_core.runs import directory as directory_module
from ptune_core.runs.directory import RunDirectory
from ptune_core.runs.launcher import Launcher
from ptune_core.runs.states import TRANSITIONS, RunState
from ptune_core.runs.store import Store
from ptune_core.training.settings import RunSettings

PATHS_TO = {
    RunState.QUEUED: [],
    RunState.RUNNING: [RunState.RUNNING],
    RunState.FINISHED: [RunState.RUNNING, RunState.FINISHED],
    RunState.STOPPED: [RunState.RUNNING, RunState.STOPPED],
    RunState.FAILED: [RunState.RUNNING, RunState.FAILED],
    RunState.INTERRUPTED: [RunState.RUNNING, RunState.INTERRUPTED],
}
Submit = Callable[..., str]


def bring(store: Store, run_id: str, state: RunState) -> None:
    for step in PATHS_TO[state]:
        store.set_state(run_id, step)


def test_a_submitted_run_can_be_read_back_with_its_settings_and_rows(store: Store, submit: Submit) -> None:
    run = store.get(submit(learning_rate=0.01), "ana")
    assert (run.state, run.attempt, run.owner, run.started, run.ended) == (RunState.QUEUED, 1, "ana", None, None)
    assert run.settings == RunSettings(learning_rate=0.01)
    copied = open_table(run.directory / "data")
    assert [row["text"] for row in read_rows(copied, ["text"])] == ["good", "bad", "fine", "poor"]


def test_the_run_keeps_its_own_copy_of_the_data(store: Store, submit: Submit, table: Table) -> None:
    directory = RunDirectory(store.get(submit(), "ana").directory)
    shutil.rmtree(table.path.parent)
    assert directory.data_is_intact()
    (directory.data / "table.parquet").write_bytes(b"other rows")
    assert not directory.data_is_intact()


def test_a_run_without_a_name_is_named_after_what_is_trained_on_what(store: Store, submit: Submit) -> None:
    named = store.get(submit("a", name="Mine", base_model="openai-community/gpt2", data="/tmp/x.csv"), None)
    unnamed = store.get(submit("b", base_model="openai-community/gpt2", data="/tmp/x.csv"), None)
    assert (named.name, unnamed.name) == ("Mine", "gpt2 on reviews.csv, 8 tokens, answers")
    again = store.get(submit("c", base_model="openai-community/gpt2", data="/tmp/x.csv"), None)
    assert again.name == f"{unnamed.name} (2)"


def test_the_same_key_is_the_same_run(store: Store, submit: Submit) -> None:
    first = submit("press-1")
    assert submit("press-1") == first
    assert submit("press-2") != first
    assert submit("press-1", owner="ben") != first, "another person's key has nothing to do with it"
    assert len(list(store.runs_dir.iterdir())) == 3


@pytest.mark.parametrize(("state", "to"), list(itertools.product(RunState, RunState)))
def test_only_the_ways_in_the_table_can_be_taken(store: Store, submit: Submit, state: RunState, to: RunState) -> None:
    run_id = submit()
    bring(store, run_id, state)
    if to in TRANSITIONS[state]:
        assert store.set_state(run_id, to, "because").state is to
        assert store.get(run_id, None).reason == "because"
    else:
        with pytest.raises(RunError, match=f"is {state}"):
            store.set_state(run_id, to)
        assert store.get(run_id, None).state is state


def test_the_state_table_is_the_one_that_was_designed() -> None:
    """Spelled out once more, so that an entry added by mistake is seen."""
    ways = {(str(a), str(b)) for a, targets in TRANSITIONS.items() for b in targets}
    ended = {("running", end) for end in ("finished", "stopped", "failed", "interrupted")}
    resumed = {(end, "queued") for end in ("stopped", "failed", "interrupted")}
    assert ways == {("queued", "running"), ("queued", "stopped")} | ended | resumed


def test_a_move_whose_file_work_fails_has_not_happened(store: Store, submit: Submit) -> None:
    run_id = submit()
    with pytest.raises(OSError), store.moving(run_id, RunState.STOPPED):
        raise OSError(errno.EIO, "disk gone")
    assert store.get(run_id, None).state is RunState.QUEUED


def test_late_news_of_an_attempt_does_not_touch_the_next(store: Store, submit: Submit) -> None:
    """A launcher that was settling a stopped run once took a run resumed that instant out of the queue again."""
    run_id = submit()
    bring(store, run_id, RunState.STOPPED)
    Launcher(store).resume(run_id)
    with pytest.raises(RunError, match="resumed meanwhile"):
        store.set_state(run_id, RunState.STOPPED, attempt=1)
    assert store.get(run_id, None).state is RunState.QUEUED


def test_runs_are_claimed_in_order_and_one_at_a_time(store: Store, submit: Submit) -> None:
    first, second = submit("a"), submit("b")
    assert [store.queue_position(run_id) for run_id in (first, second)] == [1, 2]
    claimed = store.claim_next()
    assert claimed is not None and claimed.id == first and claimed.started is not None
    assert store.claim_next() is None, "one runs already"
    assert [store.queue_position(run_id) for run_id in (first, second)] == [0, 1]
    store.set_state(first, RunState.FINISHED)
    claimed = store.claim_next()
    assert claimed is not None and claimed.id == second


def test_a_waiting_run_changes_places_with_the_one_before_it(store: Store, submit: Submit) -> None:
    first, second, third = (submit(str(i)) for i in range(3))
    store.move_up(third, "ana")
    assert [store.queue_position(run_id) for run_id in (first, third, second)] == [1, 2, 3]
    store.move_up(third, None)
    store.move_up(third, "ana")  # it is the first already
    assert [store.queue_position(run_id) for run_id in (third, first, second)] == [1, 2, 3]
    claimed = store.claim_next()
    assert claimed is not None and claimed.id == third
    with pytest.raises(RunError, match="it is running"):
        store.move_up(third, "ana")


def test_nobody_passes_the_runs_of_others(store: Store, submit: Submit) -> None:
    bobs, first, second = submit("1", owner="bob"), submit("2"), submit("3")
    store.move_up(second, "ana")
    store.move_up(second, "ana")
    assert [store.queue_position(run_id) for run_id in (bobs, second, first)] == [1, 2, 3]
    with pytest.raises(RunError, match="not found"):
        store.move_up(bobs, "ana")


def test_a_resumed_run_waits_behind_those_already_waiting(store: Store, submit: Submit) -> None:
    first, second = submit("a"), submit("b")
    bring(store, first, RunState.STOPPED)
    Launcher(store).resume(first)
    assert [store.queue_position(run_id) for run_id in (second, first)] == [1, 2]
    assert store.get(first, None).attempt == 2


CLAIMER = """
import sys
from pathlib import Path
from ptune_core.runs.states import RunState
from ptune_core.runs.store import Store
store = Store(Path(sys.argv[1]))
while run := store.claim_next(at_once=1000):
    print(run.id)
"""


def test_several_processes_never_claim_the_same_run(store: Store, submit: Submit) -> None:
    ids = {submit(f"key-{number}") for number in range(40)}
    command = [sys.executable, "-c", CLAIMER, str(store.data_dir)]
    claimers = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    claimed = [line for claimer in claimers for line in claimer.communicate(timeout=120)[0].split()]
    assert [claimer.returncode for claimer in claimers] == [0] * 4
    assert len(claimed) == 40 and set(claimed) == ids


@pytest.mark.parametrize(
    "run_id", ["", ".", "..", "../x", "a/b", "/etc/passwd", "0" * 15 + "\n", "0" * 16 + "\n", "0" * 17, "x" * 16, "\0"]
)
def test_only_ids_are_looked_up(store: Store, run_id: str) -> None:
    with pytest.raises(RunError, match="not found"):
        store.get(run_id, None)


def test_the_runs_of_others_are_not_there(store: Store, submit: Submit) -> None:
    run_id = submit(owner="ana")
    with pytest.raises(RunError) as missing:
        store.get("0" * 16, "ben")
    launcher = Launcher(store)
    bring(store, run_id, RunState.STOPPED)
    for attempt in (
        lambda: store.get(run_id, "ben"),
        lambda: store.delete(run_id, "ben"),
        lambda: launcher.stop(run_id, "ben"),
        lambda: launcher.resume(run_id, "ben"),
    ):
        with pytest.raises(RunError) as foreign:
            attempt()
        assert str(foreign.value) == str(missing.value), "the answer must not tell that the run exists"
    assert store.list("ben") == ()
    assert [run.id for run in store.list("ana")] == [run_id] == [run.id for run in store.list(None)]
    assert store.get(run_id, "ana").state is RunState.STOPPED


def test_the_database_can_be_made_again_from_the_directories(store: Store, submit: Submit) -> None:
    ids = {state: submit(f"key-{state}", owner=f"owner-{state}", name=f"A {state} run") for state in RunState}
    for state, run_id in ids.items():
        directory = RunDirectory(store.runs_dir / run_id)
        bring(store, run_id, state)
        if state is not RunState.QUEUED:
            directory.record("started", attempt=1)
        if state is RunState.INTERRUPTED:
            directory.record("interrupted", attempt=1, reason="The machine was restarted.")
        if state in (RunState.FINISHED, RunState.STOPPED):
            directory.write_result({"state": state, "reason": "all steps done"})
        if state is RunState.FAILED:
            directory.write_result({"state": state, "error": {"kind": "TrainingDiverged", "text": "Loss is NaN."}})
    for file in store.data_dir.glob("runs.sqlite3*"):
        file.unlink()

    rebuilt = Store(store.data_dir)
    for state, run_id in ids.items():
        run = rebuilt.get(run_id, f"owner-{state}")
        assert (run.state, run.name, run.settings.name) == (state, f"A {state} run", f"A {state} run")
        assert (run.started is None) == (state is RunState.QUEUED)
    assert rebuilt.get(ids[RunState.INTERRUPTED], None).reason == "The machine was restarted."
    assert rebuilt.get(ids[RunState.FAILED], None).reason == "Loss is NaN."
    assert [run.id for run in rebuilt.list(None)] == [run.id for run in store.list(None)]
    assert rebuilt.claim_next() is None and rebuilt.queue_position(ids[RunState.QUEUED]) == 1


def test_a_rebuilt_database_still_knows_the_keys(store: Store, submit: Submit, table: Table) -> None:
    run_id = submit("press-1")
    for file in store.data_dir.glob("runs.sqlite3*"):
        file.unlink()
    assert Store(store.data_dir).submit(RunSettings(), table, owner="ana", key="press-1") == run_id


@pytest.mark.parametrize("damage", [b"not a database, but long enough to be read as its header" * 40, b"\0" * 4096])
def test_a_damaged_database_is_moved_aside_and_made_again(store: Store, submit: Submit, damage: bytes) -> None:
    run_id = submit()
    for file in store.data_dir.glob("runs.sqlite3*"):
        file.unlink()
    (store.data_dir / "runs.sqlite3").write_bytes(damage)
    assert Store(store.data_dir).get(run_id, "ana").state is RunState.QUEUED
    assert (store.data_dir / "runs.damaged").read_bytes() == damage


def test_pages_overwritten_in_the_middle_are_noticed(store: Store, submit: Submit) -> None:
    ids = {submit(f"key-{number}") for number in range(12)}
    file = store.data_dir / "runs.sqlite3"
    content = bytearray(file.read_bytes())
    assert len(content) > 3 * 4096
    content[4096 : 3 * 4096] = b"\x07" * (2 * 4096)
    file.write_bytes(content)
    assert {run.id for run in Store(store.data_dir).list("ana")} == ids


def test_a_database_of_a_newer_version_is_refused_and_left_alone(store: Store, submit: Submit) -> None:
    submit()
    connection = sqlite3.connect(store.data_dir / "runs.sqlite3")
    connection.execute("PRAGMA user_version = 99")
    connection.close()
    before = (store.data_dir / "runs.sqlite3").read_bytes()
    with pytest.raises(RunError, match="newer"):
        Store(store.data_dir)
    assert (store.data_dir / "runs.sqlite3").read_bytes() == before


def test_deleting_leaves_nothing(store: Store, submit: Submit) -> None:
    run_id = submit()
    bring(store, run_id, RunState.FINISHED)
    directory = store.get(run_id, None).directory
    store.delete(run_id, "ana")
    assert not directory.exists() and store.list(None) == () and Store(store.data_dir).list(None) == ()


@pytest.mark.parametrize("state", [RunState.QUEUED, RunState.RUNNING])
def test_a_run_that_is_under_way_is_not_deleted(store: Store, submit: Submit, state: RunState) -> None:
    run_id = submit()
    bring(store, run_id, state)
    with pytest.raises(RunError, match="Stop it first"):
        store.delete(run_id, "ana")
    assert store.get(run_id, None).directory.is_dir()


def test_a_run_held_by_a_worker_is_not_deleted_whatever_the_database_says(store: Store, submit: Submit) -> None:
    run_id = submit()
    bring(store, run_id, RunState.INTERRUPTED)
    lock = Lock.acquire(RunDirectory(store.runs_dir / run_id).lock_file)
    assert lock is not None
    with pytest.raises(RunError, match="cannot be deleted"):
        store.delete(run_id, "ana")
    lock.release()
    store.delete(run_id, "ana")


def test_what_a_killed_app_left_half_done_is_swept(store: Store, submit: Submit) -> None:
    run_id = submit()
    for name in ("runs/.tmp-dead", "runs/.tmp-in-the-making", ".trash/x"):
        (store.data_dir / name).mkdir()
    os.utime(store.runs_dir / ".tmp-dead", (0, 0))
    Store(store.data_dir)
    assert {path.name for path in store.runs_dir.iterdir()} == {run_id, ".tmp-in-the-making"}
    assert list((store.data_dir / ".trash").iterdir()) == []


def test_a_full_disk_at_submission_queues_nothing(
    store: Store, submit: Submit, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(directory_module.shutil, "copyfileobj", full)
    with pytest.raises(DiskFull, match="no room"):
        submit()
    assert store.list(None) == () and list(store.runs_dir.iterdir()) == []


def test_a_database_without_room_gives_up_the_ballast(
    store: Store, submit: Submit, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_id = submit()
    connect = sqlite3.connect

    def cramped(*arguments: object, **options: object) -> sqlite3.Connection:
        connection = connect(*arguments, **options)
        if store.ballast.path.exists():
            pages = connection.execute("PRAGMA page_count").fetchone()[0]
            connection.execute(f"PRAGMA max_page_count = {pages}")
        return connection

    monkeypatch.setattr(sqlite3, "connect", cramped)
    store.set_state(run_id, RunState.RUNNING)
    assert store.ballast.path.exists(), "an update in place needs no new page"
    with pytest.raises(DiskFull):
        store.set_state(run_id, RunState.FAILED, "long " * 10_000)
    assert not store.ballast.path.exists()
    assert store.set_state(run_id, RunState.FAILED, "long " * 10_000).state is RunState.FAILED


def test_a_result_is_seen_at_once_before_the_launcher_has_settled_the_run(store: Store, submit: Submit) -> None:
    """Else the live view says finished while the page around it still shows a running run."""
    run_id = submit()
    store.claim_next()
    assert store.get(run_id, None).state is RunState.RUNNING
    RunDirectory(store.runs_dir / run_id).write_result({"state": "finished", "reason": "all steps done"})
    assert (store.get(run_id, None).state, store.list(None)[0].reason) == (RunState.FINISHED, "all steps done")
    assert store.claim_next() is None and [run.id for run in store.running()] == [run_id], "its worker is still there"


def test_settings_that_a_later_version_no_longer_knows_do_not_hide_the_run(store: Store, submit: Submit) -> None:
    run_id = submit(name="Old")
    run_file = store.runs_dir / run_id / "run.json"
    run = json.loads(run_file.read_text())
    run["settings"]["an_option_of_old"] = 1
    run_file.write_text(json.dumps(run))
    for file in store.data_dir.glob("runs.sqlite3*"):
        file.unlink()
    assert [run.name for run in Store(store.data_dir).list("ana")] == ["Old"]
