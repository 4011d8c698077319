"""Workers as real processes: started, stopped, killed, left alone and found again. No model is needed for any of it."""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import ModuleType

import psutil
import pytest

from ptune_core.app.run_view import view_of
from ptune_core.errors import RunError
from ptune_core.files import Lock, read_lines
from ptune_core.runs import launcher as launcher_module
from ptune_core.runs import live
from ptune_core.runs.directory import RunDirectory
from ptune_core.runs.launcher import Launcher, Patience
from ptune_core.runs.states import RunState
from ptune_core.runs.store import Store

FAKE = Path(__file__).with_name("fake_training.py")
Wait = Callable[..., None]
Submit = Callable[..., str]


def load_fake() -> ModuleType:
    spec = importlib.util.spec_from_file_location("fake_training", FAKE)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["fake_training"] = module
    spec.loader.exec_module(module)
    return module


fake = load_fake()
GO = fake.GO


@pytest.fixture
def files(store: Store) -> Callable[[str], RunDirectory]:
    return lambda run_id: RunDirectory(store.runs_dir / run_id)


@pytest.fixture(autouse=True)
def no_worker_is_left(store: Store) -> Iterator[None]:
    yield
    for path in store.runs_dir.iterdir():
        if RunDirectory(path).is_alive():
            with suppress(ProcessLookupError):  # gone between the two looks
                os.kill(worker_pid(RunDirectory(path)), signal.SIGKILL)


@contextmanager
def scheduling(store: Store, *patience: float, **behaviour: float) -> Iterator[Launcher]:
    command = fake.fake_worker(**behaviour)
    launcher = Launcher(store, worker_argv=command, patience=Patience(*patience), interval=0.02)
    launcher.start_scheduler()
    try:
        yield launcher
    finally:
        launcher.close()


def state_is(store: Store, run_id: str, state: RunState) -> Callable[[], bool]:
    return lambda: store.get(run_id, None).state is state


def has_step(files: RunDirectory, step: int) -> Callable[[], bool]:
    return lambda: step in steps_of(files)


def steps_of(files: RunDirectory) -> list[int]:
    try:
        lines = read_lines(files.metrics.read_bytes())
    except FileNotFoundError:
        return []
    return [line["step"] for line in lines if line["kind"] == "step"]


def worker_pid(files: RunDirectory) -> int:
    return int([line["pid"] for line in files.history() if line["event"] == "started"][-1])


def test_a_submitted_run_is_trained_to_the_end(store: Store, submit: Submit, files, wait_until: Wait) -> None:
    run_id = submit()
    with scheduling(store):
        wait_until(state_is(store, run_id, RunState.FINISHED), "the run to finish")
    run, result = store.get(run_id, None), files(run_id).result()
    assert run.reason == "all steps done" and run.started is not None and run.ended is not None
    assert result["value"] == 0.9 and result["error"] is None and result["attempt"] == 1
    assert steps_of(files(run_id)) == list(range(1, 21))
    assert files(run_id).adapter_zip.exists() and not files(run_id).ballast.path.exists()


def test_runs_wait_for_each_other(store: Store, submit: Submit, files, wait_until: Wait) -> None:
    first, second = submit("a"), submit("b")
    with scheduling(store, hold_at=3):
        wait_until(has_step(files(first), 3), "the first run's third step")
        assert store.get(second, None).state is RunState.QUEUED
        assert not files(second).metrics.exists()
        (files(first).path / GO).touch()
        (files(second).path / GO).touch()
        wait_until(state_is(store, second, RunState.FINISHED), "the second run to finish")
    assert store.get(first, None).state is RunState.FINISHED
    assert files(first).result()["ended"] <= files(second).history()[-1]["time"], "they must not overlap"


def test_a_run_that_fails_does_not_hold_up_the_queue(store: Store, submit: Submit, files, wait_until: Wait) -> None:
    broken, sound = submit("a"), submit("b")
    (files(broken).data / "table.parquet").write_bytes(b"changed")
    with scheduling(store):
        wait_until(state_is(store, sound, RunState.FINISHED), "the second run to finish")
    run = store.get(broken, None)
    assert run.state is RunState.FAILED and "data were changed" in run.reason


def test_a_waiting_run_is_stopped_without_a_worker(store: Store, submit: Submit, files) -> None:
    run_id = submit()
    Launcher(store).stop(run_id)
    assert store.get(run_id, None).state is RunState.STOPPED
    assert files(run_id).result()["state"] == "stopped", "the directory must say so as well"
    assert store.claim_next() is None


def test_a_running_run_stops_and_keeps_its_result(store: Store, submit: Submit, files, wait_until: Wait) -> None:
    run_id = submit()
    with scheduling(store, hold_at=7) as launcher:
        wait_until(has_step(files(run_id), 7), "step 7")
        launcher.stop(run_id)
        launcher.stop(run_id)  # a second press changes nothing, also where the first has been obeyed
        wait_until(state_is(store, run_id, RunState.STOPPED), "the run to stop")
        assert files(run_id).result()["best_step"] == 7 and files(run_id).adapter_zip.exists()
        launcher.stop(run_id)

        (files(run_id).path / GO).touch()
        launcher.resume(run_id)
        assert files(run_id).result() is None and not files(run_id).stop_requested()
        wait_until(has_step(files(run_id), 20), "the resumed run's last step")
        wait_until(state_is(store, run_id, RunState.FINISHED), "the resumed run to finish")
    assert steps_of(files(run_id)) == list(range(1, 21)), "from the checkpoint at 5 on, no step twice"


def test_another_app_can_stop_the_run(store: Store, submit: Submit, files, wait_until: Wait) -> None:
    run_id = submit()
    with scheduling(store, hold_at=2):
        wait_until(has_step(files(run_id), 2), "step 2")
        Launcher(Store(store.data_dir)).stop(run_id, "ana")
        wait_until(state_is(store, run_id, RunState.STOPPED), "the run to stop")


@pytest.mark.parametrize("state", [RunState.QUEUED, RunState.RUNNING, RunState.FINISHED])
def test_only_what_ended_early_is_resumed(store: Store, submit: Submit, state: RunState) -> None:
    run_id = submit()
    for step in {RunState.QUEUED: [], RunState.RUNNING: [state], RunState.FINISHED: [RunState.RUNNING, state]}[state]:
        store.set_state(run_id, step)
    with pytest.raises(RunError, match=f"it is {state}"):
        Launcher(store).resume(run_id)


def test_a_killed_worker_is_interrupted_and_resumes_without_a_gap(
    store: Store, submit: Submit, files, wait_until: Wait
) -> None:
    run_id = submit()
    with scheduling(store, kill_at=13) as launcher:
        wait_until(state_is(store, run_id, RunState.INTERRUPTED), "the killed run to be noticed")
        assert "killed" in store.get(run_id, None).reason and files(run_id).result() is None
        assert steps_of(files(run_id)) == list(range(1, 14))
        seen = live.since(files(run_id).path, 0, 0)
        assert seen["state"] == "interrupted" and seen["done"] and "killed" in seen["status"]

        launcher.resume(run_id)
        wait_until(state_is(store, run_id, RunState.FINISHED), "the resumed run to finish")
    assert steps_of(files(run_id)) == list(range(1, 21)), "11 to 13 were done twice but stand there once"
    assert store.get(run_id, None).attempt == 2
    after = live.since(files(run_id).path, seen["cursor"], seen["epoch"])
    assert after["reset"] and after["epoch"] == seen["epoch"] + 1, "what the viewer has seen is no longer all true"
    assert after["steps"]["loss"] == [pytest.approx(fake.loss_at(step), rel=1e-5) for step in range(1, 21)]


APP = """
import signal, sys
from pathlib import Path
from ptune_core.runs.launcher import Launcher
from ptune_core.runs.store import Store
launcher = Launcher(Store(Path(sys.argv[1])), worker_argv=sys.argv[2:], interval=0.02)
launcher.start_scheduler()
signal.pause()
"""


def test_a_run_survives_the_app_and_is_found_again(store: Store, submit: Submit, files, wait_until: Wait) -> None:
    run_id = submit()
    command = [sys.executable, "-c", APP, str(store.data_dir), *fake.fake_worker(hold_at=8)]
    with subprocess.Popen(command) as app:
        wait_until(has_step(files(run_id), 8), "step 8")
        app.kill()
    pid = worker_pid(files(run_id))
    assert files(run_id).is_alive() and psutil.Process(pid).ppid() != app.pid
    before = live.since(files(run_id).path, 0, 0)

    with scheduling(Store(store.data_dir)) as launcher:
        launcher.reconcile()
        assert store.get(run_id, None).state is RunState.RUNNING, "a live worker is adopted"
        (files(run_id).path / GO).touch()
        wait_until(state_is(store, run_id, RunState.FINISHED), "the adopted run to finish")
    assert len([line for line in files(run_id).history() if line["event"] == "started"]) == 1
    assert steps_of(files(run_id)) == list(range(1, 21))
    after = live.since(files(run_id).path, before["cursor"], before["epoch"])
    assert not after["reset"] and before["steps"]["x"] + after["steps"]["x"] == list(range(1, 21))


def test_an_adopted_run_can_be_stopped(store: Store, submit: Submit, files, wait_until: Wait) -> None:
    run_id = submit()
    with scheduling(store, hold_at=2):
        wait_until(has_step(files(run_id), 2), "step 2")
    with scheduling(store) as launcher:
        launcher.stop(run_id)
        wait_until(state_is(store, run_id, RunState.STOPPED), "the adopted run to stop")
    assert files(run_id).adapter_zip.exists()


def test_a_worker_that_died_with_the_app_is_interrupted(store: Store, submit: Submit, files, wait_until: Wait) -> None:
    run_id = submit()
    command = [sys.executable, "-c", APP, str(store.data_dir), *fake.fake_worker(hold_at=2)]
    with subprocess.Popen(command) as app:
        wait_until(has_step(files(run_id), 2), "step 2")
        app.kill()
    os.kill(worker_pid(files(run_id)), signal.SIGKILL)
    wait_until(lambda: not files(run_id).is_alive(), "the lock to be free")
    Launcher(Store(store.data_dir)).reconcile()
    run = store.get(run_id, None)
    assert run.state is RunState.INTERRUPTED and "while PTune was not running" in run.reason


def test_a_result_written_just_before_the_worker_died_counts(store: Store, submit: Submit, files) -> None:
    run_id = submit()
    store.claim_next()
    files(run_id).record("started", attempt=1, pid=1)
    files(run_id).write_result({"state": "finished", "reason": "all steps done"})
    Launcher(store).reconcile()
    assert store.get(run_id, None).state is RunState.FINISHED


def test_a_run_can_be_resumed_the_moment_its_result_is_there(store: Store, submit: Submit, files) -> None:
    """The page says failed as soon as the worker has written so; Resume must work although nothing is settled yet."""
    run_id = submit()
    store.claim_next()
    files(run_id).write_result({"state": "failed", "error": {"kind": "DiskFull", "text": "The disk is full."}})
    Launcher(store).resume(run_id)
    run = store.get(run_id, None)
    assert (run.state, run.attempt, run.reason) == (RunState.QUEUED, 2, "")


def test_a_run_that_diverged_is_not_resumed(store: Store, submit: Submit, files) -> None:
    """Pins: Resume was offered for it and came to the same end, bit by bit."""
    run_id = submit()
    store.claim_next()
    files(run_id).write_result(
        {"state": "failed", "error": {"kind": "TrainingDiverged", "text": "The loss became nan"}}
    )
    launcher = Launcher(store)
    launcher.reconcile()
    assert not view_of(store.get(run_id, None), 0).can_resume
    with pytest.raises(RunError, match="lower learning rate"):
        launcher.resume(run_id)


def test_an_app_killed_between_claim_and_start_leaves_a_run_to_resume(store: Store, submit: Submit) -> None:
    run_id = submit()
    store.claim_next()
    Launcher(store).reconcile()
    run = store.get(run_id, None)
    assert run.state is RunState.INTERRUPTED and "before the worker could begin" in run.reason
    Launcher(store).resume(run_id)


@pytest.mark.parametrize("way", ["ignores the request", "does not even run"])
def test_a_worker_that_does_not_stop_is_ended(store: Store, submit: Submit, files, wait_until: Wait, way: str) -> None:
    run_id = submit()
    with scheduling(store, 0.05, 0.2, hold_at=6, deaf=1) as launcher:
        wait_until(has_step(files(run_id), 6), "step 6")
        if way == "does not even run":
            os.kill(worker_pid(files(run_id)), signal.SIGSTOP)
        launcher.stop(run_id)
        wait_until(state_is(store, run_id, RunState.STOPPED), "the run to be ended")
        assert not files(run_id).is_alive() and "not by itself" in store.get(run_id, None).reason
        launcher.resume(run_id)
        (files(run_id).path / GO).touch()
        wait_until(state_is(store, run_id, RunState.FINISHED), "the resumed run to finish")
    assert steps_of(files(run_id)) == list(range(1, 21))


def test_sigterm_asks_a_worker_that_missed_the_flag(store: Store, submit: Submit, files, wait_until: Wait) -> None:
    run_id = submit()
    with scheduling(store, hold_at=4):
        wait_until(has_step(files(run_id), 4), "step 4")
        os.kill(worker_pid(files(run_id)), signal.SIGTERM)
        wait_until(state_is(store, run_id, RunState.STOPPED), "the run to stop")
    assert files(run_id).result()["best_step"] == 4 and files(run_id).adapter_zip.exists()


def test_a_stranger_with_the_recorded_process_number_is_never_signalled(store: Store, submit: Submit, files) -> None:
    run_id = submit()
    store.claim_next()
    lock = Lock.acquire(files(run_id).lock_file)
    assert lock is not None
    with subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()"], start_new_session=True) as stranger:
        files(run_id).record("started", attempt=1, pid=stranger.pid)
        files(run_id).request_stop()
        Launcher(store, patience=Patience(0.0, 0.0)).reconcile()
        assert stranger.poll() is None
        with pytest.raises(subprocess.TimeoutExpired):
            stranger.wait(0.2)
        stranger.kill()
    lock.release()


def test_a_megabyte_of_output_with_nobody_watching_stalls_nothing(
    store: Store, submit: Submit, files, wait_until: Wait
) -> None:
    run_id = submit()
    with scheduling(store, noise=100_000):
        wait_until(state_is(store, run_id, RunState.FINISHED), "the noisy run to finish")
    assert files(run_id).log.stat().st_size >= 2_000_000


def test_a_log_without_end_is_cut(store: Store, files, submit: Submit, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launcher_module, "LOG_LIMIT", 1000)
    run_id = submit()
    store.claim_next()
    with Lock.acquire(files(run_id).lock_file), files(run_id).log.open("ab", buffering=0) as log:  # type: ignore[union-attr]
        log.write(b"a" * 900 + b"b" * 900)
        Launcher(store).reconcile()
        log.write(b"after")
    assert files(run_id).log.read_bytes() == b"after"
    assert files(run_id).path.joinpath("log.old.txt").read_bytes() == b"a" * 100 + b"b" * 900


def test_nothing_a_worker_started_outlives_it(store: Store, submit: Submit, files, wait_until: Wait) -> None:
    run_id = submit()
    with scheduling(store, child=1):
        wait_until(state_is(store, run_id, RunState.FINISHED), "the run to finish")
        child = int((files(run_id).path / "child.pid").read_text())
        wait_until(lambda: not _is_running(child), "the child to be gone")


def _is_running(pid: int) -> bool:
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE


def test_two_apps_on_one_data_directory_do_no_harm(store: Store, submit: Submit, files, wait_until: Wait) -> None:
    ids = [submit(f"key-{number}") for number in range(4)]
    with scheduling(store), scheduling(Store(store.data_dir)):
        for run_id in ids:
            wait_until(state_is(store, run_id, RunState.FINISHED), "all runs to finish")
    for run_id in ids:
        assert [line["event"] for line in files(run_id).history()] == ["queued", "started"]


def test_another_app_takes_over_the_queue(store: Store, submit: Submit, wait_until: Wait) -> None:
    with scheduling(Store(store.data_dir)):
        with scheduling(store):
            wait_until(lambda: Lock.is_held(store.data_dir / ".scheduler"), "one of them to have the queue")
        run_id = submit()
        wait_until(state_is(store, run_id, RunState.FINISHED), "the other to work")
    assert not Lock.is_held(store.data_dir / ".scheduler")


def test_the_scheduler_survives_an_error(
    store: Store, submit: Submit, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, wait_until: Wait
) -> None:
    run_id = submit()
    errors = [OSError(28, "No space left on device"), OSError(5, "Input/output error")]
    claim = Store.claim_next

    def unreliable(store: Store) -> object:
        if errors:
            raise errors.pop()
        return claim(store)

    monkeypatch.setattr(Store, "claim_next", unreliable)
    with scheduling(store):
        wait_until(state_is(store, run_id, RunState.FINISHED), "the run to finish after two errors")
    assert "No space left on device" in caplog.text
