"""How a worker's process is begun and cleared away: command, lock, environment, and what is said if it dies early."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable

import psutil
import pytest

from ptune_core.runs.causes import machine_start
from ptune_core.runs.directory import RunDirectory
from ptune_core.runs.launcher import Launcher, worker_environment
from ptune_core.runs.metrics_log import MetricsLog
from ptune_core.runs.states import RunState
from ptune_core.runs.store import Store

Wait = Callable[..., None]
Submit = Callable[..., str]


@pytest.fixture
def files(store: Store) -> Callable[[str], RunDirectory]:
    return lambda run_id: RunDirectory(store.runs_dir / run_id)


def state_is(store: Store, run_id: str, state: RunState) -> Callable[[], bool]:
    return lambda: store.get(run_id, None).state is state


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("raise SystemExit(3)", "exit code 3"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "SIGSEGV"),
        ("import nothing_of_this_name", "exit code 1"),
    ],
)
def test_a_worker_that_dies_before_it_begins_says_how(
    store: Store, submit: Submit, wait_until: Wait, code: str, reason: str
) -> None:
    run_id = submit()
    launcher = Launcher(store, worker_argv=(sys.executable, "-c", code), interval=0.02)
    launcher.start_scheduler()
    wait_until(state_is(store, run_id, RunState.INTERRUPTED), "the death to be noticed")
    launcher.close()
    assert reason in store.get(run_id, None).reason


def test_a_command_that_cannot_be_started_is_a_failed_run(store: Store, submit: Submit, files) -> None:
    run_id = submit()
    Launcher(store, worker_argv=("/nonexistent/python",)).tick()
    assert store.get(run_id, None).state is RunState.FAILED
    assert "could not be started" in files(run_id).result()["error"]["text"]


def test_a_worker_holds_its_lock_from_before_it_begins(store: Store, submit: Submit, files, wait_until: Wait) -> None:
    run_id = submit()
    never = (sys.executable, "-S", "-c", "import signal; signal.pause()")
    launcher = Launcher(store, worker_argv=never)
    launcher.tick()
    assert files(run_id).is_alive(), "it has not executed a line yet, and will never ask for the lock"
    Launcher(Store(store.data_dir)).reconcile()
    assert store.get(run_id, None).state is RunState.RUNNING
    workers = [p for p in psutil.process_iter(["cmdline"]) if str(files(run_id).path) in (p.info["cmdline"] or ())]
    assert len(workers) == 1
    workers[0].kill()
    wait_until(lambda: not files(run_id).is_alive(), "the lock to be free")


def test_a_worker_knows_only_what_it_needs(store: Store, submit: Submit, files, monkeypatch, wait_until: Wait) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hidden")
    monkeypatch.setenv("HF_HOME", "/somewhere")
    run_id = submit()
    code = "import json, os, sys; open(sys.argv[-1] + '/env.json', 'w').write(json.dumps(dict(os.environ)))"
    launcher = Launcher(store, worker_argv=(sys.executable, "-c", code), interval=0.02)
    launcher.start_scheduler()
    wait_until(state_is(store, run_id, RunState.INTERRUPTED), "the worker to end")
    launcher.close()
    environment = json.loads((files(run_id).path / "env.json").read_text())
    assert environment["HF_HOME"] == "/somewhere" and environment["PATH"] == os.environ["PATH"]
    assert "hidden" not in environment.values() and environment.keys() <= worker_environment().keys() | {
        "PTUNE_LOCK_DESCRIPTOR", "LC_CTYPE",
    }  # fmt: skip


def test_threads_of_a_worker_sleep_unless_somebody_wants_them_to_spin(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bug: GOMP_SPINCOUNT, the setting of the OpenMP that torch brings, did not reach the worker."""
    for name in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT"):
        monkeypatch.delenv(name, raising=False)
    assert worker_environment()["OMP_WAIT_POLICY"] == "PASSIVE"
    monkeypatch.setenv("OMP_WAIT_POLICY", "ACTIVE")
    monkeypatch.setenv("GOMP_SPINCOUNT", "10000")
    assert (worker_environment()["OMP_WAIT_POLICY"], worker_environment()["GOMP_SPINCOUNT"]) == ("ACTIVE", "10000")


def test_a_worker_multiplies_a_row_as_any_number_of_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bug: on an Intel a resumed sweep, whose trials have other company, did not end as an undisturbed one."""
    monkeypatch.delenv("MKL_CBWR")
    assert worker_environment()["MKL_CBWR"] == "AUTO,STRICT"
    monkeypatch.setenv("MKL_CBWR", "COMPATIBLE")
    assert worker_environment()["MKL_CBWR"] == "COMPATIBLE", "whoever sets it is followed"


def test_a_worker_killed_while_exporting_is_told_what_helps_there(store: Store, submit: Submit, files) -> None:
    """Bug: whoever lacked memory for writing the adapter was told to lower batch_size."""
    run_id = submit()
    store.claim_next()
    files(run_id).record("started", attempt=1, pid=0, machine_start=machine_start(), memory_kills=-1)
    with MetricsLog(files(run_id).metrics) as metrics:
        metrics.append({"kind": "phase", "phase": "training"})
        metrics.append({"kind": "sample", "step": 1, "rows": ["a long text " * 10_000]})
        metrics.append({"kind": "phase", "phase": "exporting"})
    Launcher(store).reconcile()
    reason = store.get(run_id, None).reason
    assert "memory ran out" in reason and "then resume" in reason and "batch_size" not in reason


def test_what_a_worker_leaves_behind_is_killed_before_its_number_is_free(
    store: Store, submit: Submit, wait_until: Wait, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bug: the group was killed after the worker had been reaped, when its number could be a stranger's."""
    seen = []

    def look(group: int, number: int) -> None:
        seen.append((psutil.Process(group).status(), number))

    monkeypatch.setattr(os, "killpg", look)
    submit()
    Launcher(store, worker_argv=(sys.executable, "-S", "-c", "")).tick()
    wait_until(lambda: bool(seen), "its group to be killed")
    assert seen == [(psutil.STATUS_ZOMBIE, signal.SIGKILL)]
