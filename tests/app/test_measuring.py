"""Measuring runs in a process of its own, which never outlives its reason."""

from __future__ import annotations

import json
import os
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ptune_core.app.measuring import Measurement, Measures, Stage, fingerprint_of
from ptune_core.app.texts import run_card as run_texts
from ptune_core.errors import RunError
from ptune_core.model.lease import training_lease
from ptune_core.training.settings import RunSettings

NUMBERS = {
    "seconds": 70.2, "trials": 1, "steps": 60, "peak_mib": 1049.0, "gpu_peak_mib": None, "disk_mib": 0.0,
    "trained": 1_234_567, "kept_bytes": 15_360, "warnings": ["<b>slow</b>"],
}  # fmt: skip


@pytest.fixture
def measures(tmp_path: Path) -> Iterator[Callable[..., Measures]]:
    made = []

    def make(script: str, **options: float) -> Measures:
        path = tmp_path / "estimate.py"
        path.write_text(textwrap.dedent(script))
        made.append(Measures(tmp_path, command=(sys.executable, str(path)), **options))
        return made[-1]

    yield make
    for each in made:
        each.close()


def until_ended(found: Measurement) -> Measurement:
    assert found.ended.wait(60)
    return found


def started(measures: Measures, viewer: str = "me") -> Measurement:
    measures.start(viewer, RunSettings(), Path("/rows/abc"))
    found = measures.of(viewer)
    assert found is not None
    return found


FOREVER = """
    import os, subprocess, sys, time
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    open(os.path.join(os.path.dirname(__file__), "pids.tmp"), "w").write(f"{os.getpid()} {child.pid}")
    os.rename(os.path.join(os.path.dirname(__file__), "pids.tmp"), os.path.join(os.path.dirname(__file__), "pids"))
    time.sleep(600)
"""


def pids(folder: Path, found: Measurement) -> list[int]:
    while not (folder / "pids").exists():
        assert not found.ended.wait(0.02), found.error
    return [int(pid) for pid in (folder / "pids").read_text().split()]


def is_gone(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


def all_gone(pids: list[int]) -> bool:
    """Whether they are soon: a signal takes a moment to arrive."""
    moment = threading.Event()
    return all(any(is_gone(pid) or moment.wait(0.05) for _ in range(600)) for pid in pids)


def test_numbers_are_those_of_the_last_line(measures: Callable[..., Measures]) -> None:
    script = f"""
        import sys
        assert "--json" in sys.argv and sys.argv[sys.argv.index("--rows") + 1] == "/rows/abc"
        print("some library says hello")
        print({json.dumps(NUMBERS)!r})
    """
    found = until_ended(started(measures(script)))
    assert found.stage is Stage.DONE and found.numbers == NUMBERS, found.error
    said = run_texts.measured(found, fingerprint_of(RunSettings(name="other name"), "abc"), 1.0)
    assert "About 1 min 10 s" in said and "1.1 GB of memory (measured on 3 steps)" in said
    assert "Trains 1.2 M values; keeps 15 kB." in said and "&lt;b&gt;" in said
    assert "other settings" in run_texts.measured(found, fingerprint_of(RunSettings(seed=1), "abc"), 1.0)


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        ("import sys; print('x error: The model is gone', file=sys.stderr); sys.exit(2)", "The model is gone"),
        ("import os; os.kill(os.getpid(), 9)", "memory"),
        ("raise KeyError('oops')", "KeyError"),
        ("print('no numbers')", "without a result"),
    ],
)
def test_why_it_failed_is_said(measures: Callable[..., Measures], script: str, expected: str) -> None:
    found = until_ended(started(measures(script)))
    assert found.stage is Stage.FAILED and expected in found.error


def test_called_off_nothing_is_left(measures: Callable[..., Measures], tmp_path: Path) -> None:
    running = measures(FOREVER)
    found = started(running)
    left = pids(tmp_path, found)
    running.cancel("me")
    assert until_ended(found).stage is Stage.CALLED_OFF and all_gone(left)


def test_a_new_one_ends_the_old_one(measures: Callable[..., Measures], tmp_path: Path) -> None:
    running = measures(FOREVER)
    first = started(running)
    left = pids(tmp_path, first)
    (tmp_path / "estimate.py").write_text(f"print({json.dumps(NUMBERS)!r})")
    second = started(running)
    assert until_ended(second).stage is Stage.DONE
    assert first.stage is Stage.CALLED_OFF and all_gone(left)


def test_too_long_is_ended(measures: Callable[..., Measures]) -> None:
    found = until_ended(started(measures(FOREVER, most_seconds=0.0)))
    assert found.stage is Stage.FAILED and "minutes" in found.error


def test_a_run_comes_first(measures: Callable[..., Measures], tmp_path: Path) -> None:
    running = measures(FOREVER)
    found = started(running)
    left = pids(tmp_path, found)
    with training_lease(tmp_path):
        assert until_ended(found).stage is Stage.FAILED and "run began" in found.error and all_gone(left)
        with pytest.raises(RunError, match="is training"):
            running.start("me", RunSettings(), tmp_path)


def test_one_at_a_time(measures: Callable[..., Measures]) -> None:
    running = measures(FOREVER)
    started(running)
    with pytest.raises(RunError, match="Somebody else"):
        running.start("you", RunSettings(), Path("/rows"))
    assert running.of("you") is None


def test_what_began_by_itself_gives_way_and_fails_without_a_word(
    measures: Callable[..., Measures], tmp_path: Path
) -> None:
    running = measures(FOREVER)
    running.start("me", RunSettings(), Path("/rows"), unasked=True)
    first = running.of("me")
    assert first is not None
    left = pids(tmp_path, first)
    with pytest.raises(RunError, match="Somebody else"):
        running.start("you", RunSettings(), Path("/rows"), unasked=True)
    (tmp_path / "estimate.py").write_text("raise KeyError('oops')")
    asked = until_ended(started(running, "you"))
    assert asked.stage is Stage.FAILED and first.stage is Stage.CALLED_OFF and all_gone(left)
    unasked = until_ended(running.start("me", RunSettings(), Path("/rows"), unasked=True))
    assert unasked.stage is Stage.CALLED_OFF


def test_nothing_is_measured_in_the_apps_own_session(measures: Callable[..., Measures], tmp_path: Path) -> None:
    found = started(measures(FOREVER))
    leader, child = pids(tmp_path, found)
    assert os.getsid(leader) == leader == os.getsid(child)
