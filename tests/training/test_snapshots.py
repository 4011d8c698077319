"""Snapshots of a run: bounded, spread over all of it, and never of a step that was taken back."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from ptune_core.errors import CheckpointError
from ptune_core.training import snapshots as module
from ptune_core.training.snapshots import KEPT_AT_LEAST, KEPT_AT_MOST, Snapshots


def test_what_was_recorded_is_read_back(tmp_path: Path) -> None:
    kept = Snapshots(tmp_path)
    assert kept.steps == [] and kept.load_all() == {}
    prompts = {step: torch.randn(3, 4) for step in (0, 5, 1_000_000)}
    for step, prompt in prompts.items():
        kept.record(step, prompt.to(torch.float64), best_step=0)
    assert kept.steps == [0, 5, 1_000_000] and kept.load(5).dtype == torch.float32
    assert all(torch.equal(found, prompts[step]) for step, found in kept.load_all().items())


def test_a_long_run_keeps_a_bounded_number_spread_over_all_of_it(tmp_path: Path) -> None:
    kept = Snapshots(tmp_path)
    for step in range(0, 3000, 5):
        kept.record(step, torch.zeros(2, 2), best_step=35 if step >= 35 else 0)
    steps = kept.steps
    assert len(steps) == KEPT_AT_MOST and (steps[0], steps[-1]) == (0, 2995) and 35 in steps
    gaps = [later - earlier for earlier, later in zip(steps, steps[1:], strict=False)]
    assert max(gaps) <= 4 * 3000 / KEPT_AT_MOST


def test_large_ones_are_fewer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ROOM", 10 * 2 * 2 * 4)
    for step in range(20):
        Snapshots(tmp_path).record(step, torch.zeros(2, 2), best_step=0)
    assert len(Snapshots(tmp_path).steps) == 10
    monkeypatch.setattr(module, "ROOM", 1)
    Snapshots(tmp_path).record(20, torch.zeros(2, 2), best_step=0)
    assert len(Snapshots(tmp_path).steps) == KEPT_AT_LEAST


def test_what_comes_after_a_step_is_forgotten(tmp_path: Path) -> None:
    kept = Snapshots(tmp_path)
    for step in (0, 4, 8):
        kept.record(step, torch.zeros(1, 1), best_step=0)
    kept.forget_after(4)
    assert kept.steps == [0, 4]
    kept.forget_after(-1)
    assert kept.steps == []


def test_a_step_that_is_not_there_is_told_with_those_that_are(tmp_path: Path) -> None:
    kept = Snapshots(tmp_path)
    for step in (0, 4):
        kept.record(step, torch.zeros(1, 1), best_step=0)
    with pytest.raises(CheckpointError, match="Needed: 0, 4"):
        kept.load(3)
    (kept.folder / "step-000004.safetensors").write_bytes(b"torn")
    with pytest.raises(CheckpointError, match="damaged"):
        kept.load(4)
