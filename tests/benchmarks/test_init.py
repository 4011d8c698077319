"""The benchmark of starts, on a few rows and steps; what it measures here means nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import init
from benchmarks.accuracy import Problem
from benchmarks.workloads import read_rows
from ptune_core.demo import DEMO_DATA, DEMO_LABELS


def test_every_start_with_every_encoder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(init, "SOURCE_STEPS", 1)
    rows = read_rows(DEMO_DATA)[:40]
    chosen = {name: Problem(name, rows[:30], rows[30:], DEMO_LABELS) for name in ("demo", "SST-2")}
    plan = init.Plan(["random", "labels", "text", "adapter"], ["MLP", "none"], [1, 2], 0.01)
    found = init.compare(chosen, "SST-2", plan, 0, tmp_path)
    assert [(row["init"], row["encoder"]) for row in found] == [(i, e) for i in plan.inits for e in plan.encoders]
    assert all(row["accuracy"].keys() == {"0", "1", "2"} for row in found)
    again = [row | {"seed": 1, "accuracy": {step: 0.5 for step in row["accuracy"]}} for row in found]
    text = "\n".join(init.table(found + again, "SST-2", plan))
    assert "seeds 0, 1" in text and "| adapter | " in text and " ±" in text


def test_without_other_data_nothing_starts_from_an_adapter(tmp_path: Path) -> None:
    assert init.source({"demo": Problem("demo", [], [], DEMO_LABELS)}, "demo", tmp_path) is None
