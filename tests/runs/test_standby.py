"""A worker in waiting takes the next run and ends with the app; whatever happens to it, runs begin all the same."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import psutil
import pytest

from ptune_core.runs import launcher as launcher_module
from ptune_core.runs import standby as standby_module
from ptune_core.runs.directory import RunDirectory
from ptune_core.runs.launcher import Launcher, worker_environment
from ptune_core.runs.standby import Standby
from ptune_core.runs.states import RunState
from ptune_core.runs.store import Store

Wait = Callable[..., None]
Submit = Callable[..., str]
IDLE = (sys.executable, "-S", "-c", "import socket, sys; socket.socket(fileno=int(sys.argv[1])).recv(1)")
"""Waits as the real one does, imports nothing, and ends whatever it is told."""

FAILS = (sys.executable, "-S", "-c", "raise SystemExit(1)")


@contextmanager
def scheduling(store: Store, argv: tuple[str, ...]) -> Iterator[tuple[Launcher, list[Standby]]]:
    """A launcher that works, and every worker in waiting that it has started."""
    started: list[Standby] = []

    def start(environment: dict[str, str]) -> Standby:
        started.append(Standby(environment, argv))
        return started[-1]

    ends = (sys.executable, "-S", "-c", "")
    launcher = Launcher(store, worker_argv=ends, interval=0.02, standby=start)
    launcher.start_scheduler()
    try:
        yield launcher, started
    finally:
        launcher.close()


def test_the_next_run_is_trained_by_the_process_that_waits(store: Store, submit: Submit, wait_until: Wait) -> None:
    """With the real process: its run cannot be loaded, which it says as every worker does."""
    with scheduling(store, standby_module.STANDBY) as (launcher, started):
        launcher.expect()
        wait_until(lambda: bool(started), "a worker in waiting")
        run_id = submit(base_model="no/such-model", device="cpu")
        launcher.wake()
        wait_until(lambda: store.get(run_id, None).state is RunState.FAILED, "the run to fail")
    files = RunDirectory(store.runs_dir / run_id)
    (begun,) = [line for line in files.history() if line["event"] == "started"]
    assert begun["pid"] == started[0]._process.pid
    assert "no/such-model" in store.get(run_id, None).reason and "no/such-model" in files.log.read_text()


def test_nobody_waits_unless_somebody_looks(store: Store, wait_until: Wait, monkeypatch: pytest.MonkeyPatch) -> None:
    with scheduling(store, IDLE) as (launcher, started):
        for _ in range(3):
            launcher.tick()
        assert not started
        launcher.expect()
        wait_until(lambda: bool(started), "a worker in waiting")
        monkeypatch.setattr(launcher, "_expected_until", 0.0)
        wait_until(lambda: not psutil.pid_exists(started[0]._process.pid), "it to be ended")
    assert len(started) == 1


def test_nobody_waits_beside_a_run_or_without_memory(
    store: Store, submit: Submit, monkeypatch: pytest.MonkeyPatch
) -> None:
    launcher = Launcher(store, standby=lambda environment: pytest.fail("nobody is to wait"))
    launcher.expect()
    monkeypatch.setattr(launcher_module, "has_room", lambda: False)
    launcher._keep_standby()
    monkeypatch.setattr(launcher_module, "has_room", lambda: True)
    submit()
    store.claim_next()
    launcher._keep_standby()


def test_it_ends_with_the_app(wait_until: Wait) -> None:
    code = f"""
import os, sys
from ptune_core.runs.standby import Standby
waiting = Standby(dict(os.environ), {IDLE!r})
print(waiting._process.pid, flush=True)
sys.stdin.read()
"""
    environment = worker_environment()
    app = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment)
    assert app.stdout is not None and app.stdin is not None
    with app.stdout, app.stdin:
        pid = int(app.stdout.readline())
        assert psutil.pid_exists(pid)
        app.send_signal(signal.SIGKILL)
        app.wait()

    def is_gone() -> bool:
        try:
            return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE  # whoever is process 1 here may not reap
        except psutil.NoSuchProcess:
            return True

    wait_until(is_gone, "the process to end with the app")


def test_one_that_cannot_begin_is_not_tried_over_and_over(store: Store, submit: Submit, wait_until: Wait) -> None:
    with scheduling(store, FAILS) as (launcher, started):
        launcher.expect()
        wait_until(lambda: launcher._no_standby_until > 0, "its end to be seen")
        run_id = submit()
        wait_until(lambda: store.get(run_id, None).state is RunState.INTERRUPTED, "the run to get a worker of its own")
    assert len(started) == 1


def test_an_order_to_one_that_is_gone_is_refused(tmp_path: Path) -> None:
    waiting = Standby(dict(os.environ), FAILS)
    waiting._process.wait()
    with (tmp_path / "log").open("wb") as log:
        assert waiting.order(tmp_path, log.fileno(), log.fileno()) is None
    assert not waiting.is_alive


def test_closing_leaves_nobody_waiting(store: Store, wait_until: Wait) -> None:
    with scheduling(store, IDLE) as (launcher, started):
        launcher.expect()
        wait_until(lambda: bool(started), "a worker in waiting")
    assert not started[0].is_alive


def test_a_stranger_with_a_workers_number_is_not_signalled(store: Store, submit: Submit) -> None:
    """A worker that waited has no run in its command line: it is known by when it began."""
    files = RunDirectory(store.runs_dir / submit())
    stranger = subprocess.Popen(IDLE[:3] + ("import time; time.sleep(60)",), start_new_session=True)
    began = psutil.Process(stranger.pid).create_time()
    send = partial(launcher_module._signal_worker, files, signal.SIGKILL)
    for wrong in ({"process_start": began - 5}, {}):
        files.record("started", attempt=1, pid=stranger.pid, **wrong)
        send()
        assert stranger.poll() is None
    files.record("started", attempt=1, pid=stranger.pid, process_start=began)
    send()
    assert stranger.wait() == -signal.SIGKILL
