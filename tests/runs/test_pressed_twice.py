"""What somebody asks for twice, or while a worker is on its way out: no error, and no run is lost.

No worker is a process here: the test holds the lock in its place.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ptune_core.errors import RunError
from ptune_core.files import Lock
from ptune_core.runs.directory import RunDirectory
from ptune_core.runs.launcher import Launcher
from ptune_core.runs.states import RunState
from ptune_core.runs.store import Store
from ptune_core.runs.trials import use_trial

Submit = Callable[..., str]


@pytest.fixture
def running(store: Store, submit: Submit) -> RunDirectory:
    """A run that a worker has."""
    run_id = submit()
    store.claim_next()
    files = RunDirectory(store.get(run_id, None).directory)
    files.record("started", attempt=1, pid=0)
    return files


def lock_of(files: RunDirectory) -> Lock:
    lock = Lock.acquire(files.lock_file)
    assert lock is not None
    return lock


@pytest.mark.parametrize("state", ["stopped", "finished", "failed"])
def test_a_second_stop_is_no_error_whatever_came_of_the_first(store: Store, running: RunDirectory, state: str) -> None:
    """Bug: pressed twice, the second found the run stopped and raised, against its own words."""
    launcher = Launcher(store)
    launcher.stop(running.path.name)
    launcher.stop(running.path.name)
    running.write_result({"state": state})
    launcher.stop(running.path.name)
    launcher.reconcile()
    launcher.stop(running.path.name)
    assert store.get(running.path.name, None).state == state


def test_a_second_stop_of_one_that_waited_is_no_error(store: Store, submit: Submit) -> None:
    run_id = submit()
    for _ in range(2):
        Launcher(store).stop(run_id)
    assert store.get(run_id, None).state is RunState.STOPPED


def test_one_that_ended_by_itself_cannot_be_stopped(store: Store, running: RunDirectory) -> None:
    running.write_result({"state": "finished"})
    with pytest.raises(RunError, match="it is finished"):
        Launcher(store).stop(running.path.name)


def test_a_run_resumed_before_its_worker_is_quite_gone_starts_when_it_is(
    store: Store, running: RunDirectory, wait_until: Callable[..., None]
) -> None:
    """Bug: the new attempt took the old worker for its own, and was interrupted when that one left."""
    code = "import sys; open(sys.argv[-1] + '/begun', 'w')"
    launcher = Launcher(store, worker_argv=(sys.executable, "-S", "-c", code))
    with lock_of(running):
        running.write_result({"state": "stopped"})
        launcher.resume(running.path.name)
        launcher.tick()
        launcher.tick()
        assert store.get(running.path.name, None).state is RunState.RUNNING
        assert not (running.path / "begun").exists()
    launcher.tick()
    wait_until(lambda: (running.path / "begun").exists(), "the worker of the second attempt")


def test_a_worker_started_by_hand_is_not_started_again(store: Store, submit: Submit) -> None:
    files = RunDirectory(store.get(submit(), None).directory)
    launcher = Launcher(store, worker_argv=("/no/such/command",))
    with lock_of(files):
        launcher.tick()
        files.record("started", attempt=1, pid=0)
    launcher.tick()
    assert store.get(files.path.name, None).state is RunState.INTERRUPTED


def test_a_run_is_deleted_as_soon_as_it_has_ended(store: Store, running: RunDirectory) -> None:
    """Bug: with its result on the page, it could not be deleted until worker was gone and launcher had looked."""
    with lock_of(running):
        with pytest.raises(RunError, match="Stop it first"):
            store.delete(running.path.name, None)
        running.write_result({"state": "finished"})
        seen = store.running()
        store.delete(running.path.name, None)
    assert not running.path.exists() and store.list(None) == () and len(seen) == 1


def test_a_run_deleted_while_the_launcher_looks_holds_nothing_up(
    store: Store, running: RunDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    running.write_result({"state": "finished"})
    seen = store.running()
    store.delete(running.path.name, None)
    monkeypatch.setattr(store, "running", lambda: seen)
    Launcher(store).reconcile()
    assert not running.path.exists()


@pytest.fixture
def sweep(running: RunDirectory) -> RunDirectory:
    """A sweep that has ended with two trials, the first of which is the best; their adapters say which they are."""
    for number in (0, 1):
        trial = running.trial(number)
        trial.adapter.mkdir()
        (trial.adapter / "ptune.json").write_text(json.dumps({"metrics": {"value": number}}))
        trial.adapter_zip.write_text(str(number))
    rows: list[dict[str, Any]] = [{"trial": number, "reason": "all steps done"} for number in (0, 1)]
    running.write_result({"state": "finished", "trial": 0, "sweep": rows})
    return running


def test_a_trial_is_used_as_soon_as_the_run_has_ended(sweep: RunDirectory) -> None:
    """Bug: with the ranking on the page, a trial could not be used until the worker was gone."""
    lock, waits = lock_of(sweep), []

    def wait(seconds: float) -> None:
        waits.append(seconds)
        lock.release()

    use_trial(sweep, 1, wait=wait)
    assert len(waits) == 1 and sweep.adapter_zip.read_text() == "1"
    assert (sweep.result() or {})["trial"] == 1


def test_a_trial_chosen_while_another_is_put_in_place_comes_after_it(sweep: RunDirectory) -> None:
    """Bug: both built their files in one place, so that one failed or their adapter and numbers were of two trials."""
    lock = lock_of(sweep)

    def first(_: float) -> None:
        lock.release()
        use_trial(sweep, 0)

    use_trial(sweep, 1, wait=first)
    assert json.loads((sweep.adapter / "ptune.json").read_text())["metrics"]["value"] == 1
    assert not list(Path(sweep.path).glob(".tmp-*"))


def test_one_who_waits_for_a_trial_in_vain_is_told(sweep: RunDirectory) -> None:
    waited: list[float] = []
    with lock_of(sweep), pytest.raises(RunError, match="not ended"):
        use_trial(sweep, 1, wait=waited.append)
    assert sum(waited) >= 10
