"""The present state of a run that trains, written when somebody asks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from ptune_core.adapters.export import export_adapter
from ptune_core.adapters.format import load_adapter
from ptune_core.data.ingest import ingest_text
from ptune_core.data.table import Tables
from ptune_core.errors import DiskFull
from ptune_core.model.trained import TrainedPrompt
from ptune_core.training import newest
from ptune_core.training.session import run_training
from ptune_core.training.settings import RunSettings

ROWS = "text,label\n" + "".join(f"great film {i},good\nbad food {i},bad\n" for i in range(12))


class Asking:
    """Trains, asks after some steps, and keeps the curve and what was written."""

    def __init__(self, base: Path, directory: Path, ask_at: tuple[int, ...], **changes: Any) -> None:
        values = {
            "base_model": str(base), "data": "pasted", "max_steps": 6, "eval_every": 6, "batch_size": 4,
            "encoder_hidden_size": 16, "device": "cpu", "precision": "fp32", "encoder_dropout": 0.2, "halving": False,
        }  # fmt: skip
        self.directory, self.ask_at, self.losses = directory, ask_at, list[float]()
        self.asked_while_open: list[bool] = []
        settings = RunSettings.parse(values | changes)
        table = ingest_text(ROWS, directory / "data")
        self.result = run_training(
            settings, Tables(table), directory, should_stop=lambda: False, report=self.report, export=self.export
        )

    def report(self, line: dict[str, Any]) -> None:
        if line["kind"] == "step":
            self.losses.append(line["loss"])
            if line["step"] in self.ask_at:
                newest.ask(self.directory)

    def export(self, trained: TrainedPrompt, directory: Path) -> None:
        if directory.name == newest.FOLDER:
            self.asked_while_open.append(newest.is_asked(self.directory))
        export_adapter(trained, directory / "adapter", directory / "adapter.zip")


def test_the_worker_answers_after_its_step_and_trains_on_as_if_nobody_had_asked(
    tiny_gpt2: Path, tmp_path: Path
) -> None:
    undisturbed, asked = Asking(tiny_gpt2, tmp_path / "a", ()), Asking(tiny_gpt2, tmp_path / "b", (2, 4))
    assert asked.losses == undisturbed.losses and not (tmp_path / "a" / newest.FOLDER).exists()
    present, final = (load_adapter(tmp_path / "b" / place / "adapter") for place in (newest.FOLDER, "."))
    assert present.metrics == {"steps": 4} and final.metrics["steps"] == 6
    assert present.labels == final.labels and not torch.equal(present.prompt_embeddings, final.prompt_embeddings)
    assert asked.asked_while_open == [True, True] and not newest.is_asked(tmp_path / "b")


def test_of_a_sweep_the_trial_whose_curve_is_shown(tiny_gpt2: Path, tmp_path: Path) -> None:
    Asking(tiny_gpt2, tmp_path, (3,), sweep={"learning_rate": [0.01, 0.02]})
    present = load_adapter(tmp_path / newest.FOLDER / "adapter")
    assert present.settings["learning_rate"] == 0.01 and present.metrics == {"steps": 3}


def test_a_tuned_base_model_is_not_copied_for_a_look(tiny_gpt2: Path, tmp_path: Path) -> None:
    asked = Asking(tiny_gpt2, tmp_path, (2,), base_weights="tuned")
    assert asked.asked_while_open == [] and not newest.is_asked(tmp_path)


def test_no_room_for_the_present_state_ends_no_run(
    tiny_gpt2: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: Asking, trained: TrainedPrompt, directory: Path) -> None:
        if directory.name == newest.FOLDER:
            raise DiskFull("The disk is full")

    monkeypatch.setattr(Asking, "export", full)
    assert Asking(tiny_gpt2, tmp_path, (2,)).result["steps"] == 6
