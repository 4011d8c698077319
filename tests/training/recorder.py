"""Whole trainings on tiny models: short settings, and a recorder of what a training reports and exports."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ptune_core.data.table import Table, Tables
from ptune_core.model.trained import TrainedPrompt
from ptune_core.training.session import run_training
from ptune_core.training.settings import RunSettings

ROWS = "text,label\n" + "".join(f"great film {i},good\nbad food {i},bad\n" for i in range(15))


def settings_for(folder: Path, **changes: Any) -> RunSettings:
    """Settings of some steps on the tiny base model in `folder`."""
    values = {
        "base_model": str(folder), "data": "pasted", "template": "{text~} [P*4][ANSWER:label]", "max_steps": 6,
        "eval_every": 3, "batch_size": 4, "encoder_hidden_size": 16, "device": "cpu", "precision": "fp32",
        "patience": 0,
    }  # fmt: skip
    return RunSettings.parse(values | changes)


class Recorder:
    """Collects what a training reports and exports."""

    def __init__(self) -> None:
        self.lines: list[dict[str, Any]] = []
        self.exported: list[TrainedPrompt] = []
        self.places: list[Path] = []

    def of(self, kind: str) -> list[dict[str, Any]]:
        return [line for line in self.lines if line["kind"] == kind]

    def steps(self) -> list[int]:
        return [line["step"] for line in self.of("step")]

    def keep(self, trained: TrainedPrompt, directory: Path) -> None:
        self.exported.append(trained)
        self.places.append(directory)

    def train(
        self, settings: RunSettings, data: Table | Tables, directory: Path, stop_at: int | None = None
    ) -> dict[str, Any]:
        """Train to the end, or to step `stop_at`."""
        return run_training(
            settings,
            data if isinstance(data, Tables) else Tables(data),
            directory,
            should_stop=lambda: stop_at in self.steps(),
            report=self.lines.append,
            export=self.keep,
        )
