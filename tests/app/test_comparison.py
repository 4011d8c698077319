"""Runs beside each other: only one's own, only those there are, and only the settings that differ."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ptune_core.app.comparison import MOST_COMPARED, compare
from ptune_core.data.ingest import ingest_text
from ptune_core.errors import RunError
from ptune_core.runs.directory import RunDirectory
from ptune_core.runs.store import Store
from ptune_core.training.settings import RunSettings

LINES = [
    {"kind": "plan", "steps": 4, "metric": "accuracy"},
    {"kind": "step", "step": 1, "loss": 0.7, "grad_norm": 1.0, "seconds": 1.0, "epoch": 0.5},
    {"kind": "eval", "step": 1, "loss": 0.6, "value": 0.8, "best": True, "seconds": 1.0},
]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "data")


@pytest.fixture
def submit(store: Store, tmp_path: Path) -> Callable[..., str]:
    def _submit(key: str, rows: int = 8, **settings: Any) -> str:
        text = "text,label\n" + "".join(f"text {i},{i % 2}\n" for i in range(rows))
        table = ingest_text(text, tmp_path / key)
        return store.submit(RunSettings(name=key, **settings), table, owner="anna", key=key)

    return _submit


def write(store: Store, run_id: str, trial: int | None = None, value: float = 0.8) -> None:
    files = RunDirectory(store.get(run_id, None).directory)
    files = files if trial is None else files.trial(trial)
    lines = [*LINES[:-1], LINES[-1] | {"value": value}]
    files.metrics.write_text("".join(json.dumps(line) + "\n" for line in lines))


def asked(run_id: object, **more: Any) -> dict[str, Any]:
    return {"run": run_id, "trial": None, "cursor": 0, "epoch": 0} | more


def find_for(store: Store, owner: str | None) -> Callable[[str], Any]:
    return lambda run_id: store.get(run_id, owner)


def test_two_runs_with_the_settings_in_which_they_differ(store: Store, submit: Callable[..., str]) -> None:
    first, second = submit("one", learning_rate=0.01), submit("two", learning_rate=0.02, encoder_dropout=0.1)
    write(store, first)
    write(store, second, value=0.9)
    reply = compare([asked(first), asked(second)], find_for(store, None))
    assert [curve["name"] for curve in reply["curves"]] == ["one", "two"]
    assert [curve["best"] for curve in reply["curves"]] == [0.8, 0.9]
    assert reply["curves"][0]["steps"] == {"x": [1], "loss": [0.7], "seconds": [1.0]}
    assert reply["differing"] == [
        {"setting": "Dropout", "values": ["0.0", "0.1"]},
        {"setting": "Learning rate", "values": ["0.01", "0.02"]},
    ]
    json.dumps(reply, allow_nan=False)

    cursors = [{"cursor": curve["cursor"], "epoch": curve["epoch"]} for curve in reply["curves"]]
    again = compare([asked(first, **cursors[0]), asked(second, **cursors[1])], find_for(store, None))
    assert again["differing"] is None and all(curve["steps"]["x"] == [] for curve in again["curves"])


def test_other_rows_under_the_same_settings_are_told(store: Store, submit: Callable[..., str]) -> None:
    reply = compare([asked(submit("one")), asked(submit("two", rows=10))], find_for(store, None))
    ((row),) = reply["differing"]
    assert row["setting"].startswith("Rows") and len(set(row["values"])) == 2


def test_trials_of_a_sweep_have_curves_and_settings_of_their_own(store: Store, submit: Callable[..., str]) -> None:
    run_id = submit("sweep", sweep={"learning_rate": [0.01, 0.02], "seed": [1, 2]})
    write(store, run_id, trial=3, value=0.7)
    reply = compare([asked(run_id, trial=1), asked(run_id, trial=3)], find_for(store, None))
    assert [curve["name"] for curve in reply["curves"]] == ["sweep, trial 2", "sweep, trial 4"]
    assert [curve["best"] for curve in reply["curves"]] == [None, 0.7]
    assert reply["differing"] == [{"setting": "Learning rate", "values": ["0.01", "0.02"]}]


@pytest.mark.parametrize("trial", [-1, 4, True, "1", 1.0, "../.."])
def test_trials_that_are_not_there_are_refused(store: Store, submit: Callable[..., str], trial: object) -> None:
    run_id = submit("sweep", sweep={"learning_rate": [0.01, 0.02], "seed": [1, 2]})
    with pytest.raises(RunError, match="no such trial"):
        compare([asked(run_id, trial=trial)], find_for(store, None))
    with pytest.raises(RunError, match="no such trial"):
        compare([asked(submit("plain"), trial=0)], find_for(store, None))


def test_runs_of_others_are_not_there(store: Store, submit: Callable[..., str]) -> None:
    run_id = submit("one")
    assert compare([asked(run_id)], find_for(store, "anna"))["curves"]
    with pytest.raises(RunError, match="not found"):
        compare([asked(run_id)], find_for(store, "bob"))


@pytest.mark.parametrize(
    "question", [None, {}, "x", 7, [], [{}], [7], [None], [{"run": ["a"]}], [{"run": "x" * 10_000}]]
)
def test_strange_questions_are_refused(store: Store, question: object) -> None:
    with pytest.raises(RunError):
        compare(question, find_for(store, None))


def test_too_many_at_once_are_refused(store: Store, submit: Callable[..., str]) -> None:
    run_id = submit("one")
    assert len(compare([asked(run_id)] * MOST_COMPARED, find_for(store, None))["curves"]) == MOST_COMPARED
    with pytest.raises(RunError, match="cannot be compared"):
        compare([asked(run_id)] * (MOST_COMPARED + 1), find_for(store, None))
