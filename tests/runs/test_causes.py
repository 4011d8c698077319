"""What is said of a worker that is gone."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from ptune_core.runs import causes
from ptune_core.runs.causes import machine_start, memory_kills, memory_remedy, why_it_died


@pytest.fixture
def started() -> dict[str, object]:
    return {"machine_start": machine_start(), "memory_kills": memory_kills()}


def test_a_restart_of_the_machine_explains_everything(started: dict[str, object]) -> None:
    for exit_code in (None, -9):
        assert "restarted" in why_it_died(started | {"machine_start": "another boot"}, exit_code)


def test_the_machine_does_not_seem_restarted_while_it_runs() -> None:
    assert machine_start() == machine_start() != ""


@pytest.mark.parametrize("exit_code", [None, -signal.SIGKILL])
def test_a_kill_by_the_system_for_want_of_memory_is_recognised(
    started: dict[str, object], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, exit_code: int | None
) -> None:
    events = tmp_path / "memory.events"
    events.write_text("low 0\nhigh 0\nmax 12\noom 3\noom_kill 3\noom_group_kill 0\n")
    monkeypatch.setattr(causes, "_OOM_COUNTERS", (events,))
    assert memory_kills() == 3
    assert "because memory ran out" in why_it_died(started | {"memory_kills": 2}, exit_code)
    assert "batch_size" in why_it_died(started | {"memory_kills": 2}, exit_code)
    assert "batch_size" not in why_it_died(started | {"memory_kills": 3}, exit_code)


@pytest.mark.parametrize(
    ("phase", "words"),
    [
        ("", "batch_size"),
        ("training", "batch_size"),
        ("loading data", "fewer rows"),
        ("loading base model", "smaller base model"),
        ("exporting", "then resume"),
    ],
)
def test_the_advice_fits_what_the_worker_was_doing(started: dict[str, object], phase: str, words: str) -> None:
    """Bug: whoever lacked memory for writing the adapter was told to lower batch_size."""
    text = why_it_died(started | {"memory_kills": -1}, -signal.SIGKILL, phase)
    assert words in text and ("batch_size" in text) == (words == "batch_size")


@pytest.mark.parametrize("phase", ["preparing", "training"])
def test_the_advice_names_what_takes_most_memory_besides_the_batch(phase: str) -> None:
    """Bug: a text cache and the trials of a sweep take the most, and neither was named."""
    text = memory_remedy(phase)
    assert "lower text_cache_mib" in text and "sweep fewer values" in text


def test_a_crash_is_not_blamed_on_memory_that_another_process_lacked(started: dict[str, object]) -> None:
    text = why_it_died(started | {"memory_kills": -1}, -signal.SIGSEGV)
    assert "SIGSEGV" in text and "memory" not in text


@pytest.mark.parametrize(
    ("exit_code", "words"),
    [(-9, "SIGKILL"), (-6, "SIGABRT"), (-63, "signal 63"), (1, "code 1"), (0, "code 0"), (None, "not running")],
)
def test_every_end_has_a_sentence(started: dict[str, object], exit_code: int | None, words: str) -> None:
    text = why_it_died(started, exit_code)
    assert words in text and text.endswith(".")


def test_a_worker_that_never_began(started: dict[str, object]) -> None:
    assert "before the worker could begin" in why_it_died(None, None)
    assert "exit code 1" in why_it_died(None, 1)


def test_without_a_counter_nothing_is_guessed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "empty").write_text("oom_kill\nnothing here\n")
    monkeypatch.setattr(causes, "_OOM_COUNTERS", (tmp_path / "missing", tmp_path / "empty"))
    assert memory_kills() == 0
