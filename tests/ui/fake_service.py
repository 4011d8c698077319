"""A service without workers and models, whose runs take the steps a test tells them to."""

from __future__ import annotations

import time
from collections.abc import Generator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ptune_core.errors import RunError
from ptune_core.runs.states import RunState
from ptune_core.training.settings import RunSettings
from ptune_core.ui.measuring import Measures
from ptune_core.ui.run_view import RunView
from ptune_core.ui.uploads import Uploads

STEPS = 300


@dataclass
class FakeRun:
    id: str
    settings: RunSettings
    state: RunState = RunState.RUNNING
    step: int = 0
    reason: str = ""
    warning: str = ""
    labels: tuple[str, ...] = ("negative", "positive")
    created: float = field(default_factory=time.time)

    def as_newest(self) -> dict[str, Any]:
        ended = not self.state.is_active
        known = {"id": self.id, "name": self.settings.name, "state": self.state, "warning": self.warning}
        return {**known, "ended": ended, "line": "Done." if ended else f"step {self.step}"}

    def series(self, first: int) -> dict[str, Any]:
        steps = list(range(first + 1, self.step + 1))
        evals = [step for step in steps if step % 15 == 0]
        return {
            "steps": {"x": steps, "loss": [0.15 + 0.6 / (1 + step / 30) + 0.05 * (step % 7 - 3) / 3 for step in steps]},
            "evals": {
                "x": evals,
                "loss": [0.2 + 0.55 / (1 + step / 35) for step in evals],
                "value": [0.95 - 0.45 / (1 + (step / 60) ** 2) for step in evals],
                "best": [True for _ in evals],
            },
        }


class FakeService:
    """The public methods of `Service`."""

    def __init__(self, directory: Path) -> None:
        self.uploads = Uploads(directory / "uploads")
        self.zip = directory / "adapter.zip"
        self.zip.write_bytes(b"PK\x05\x06" + bytes(18))
        self.runs: dict[str, FakeRun] = {}
        self.keys: dict[str, str] = {}
        self.tries: list[dict[str, str]] = []
        self.polls: list[dict[str, Any]] = []
        self.is_shared = False
        self.measures = Measures(directory)

    def add(self, **fields: Any) -> FakeRun:
        run = FakeRun(f"{len(self.runs):016x}", RunSettings(name=f"run {len(self.runs)}"), **fields)
        self.runs[run.id] = run
        return run

    def start(self, settings: RunSettings, token: str, *, viewer: str, key: str) -> str:
        self.uploads.open(token)
        if key not in self.keys:
            run = self.add()
            run.settings = settings
            self.keys[key] = run.id
        return self.keys[key]

    def active(self) -> int:
        return sum(run.state.is_active for run in self.runs.values())

    def measure(self, viewer: str, settings: RunSettings, table: Any) -> None:
        self.measures.start(viewer, settings, table.path.parent)

    def stop(self, run_id: str, viewer: str) -> None:
        self._get(run_id).state = RunState.STOPPED

    def resume(self, run_id: str, viewer: str) -> None:
        self._get(run_id).state = RunState.RUNNING

    def delete(self, run_id: str, viewer: str) -> None:
        del self.runs[run_id]

    def poll(self, question: Mapping[str, Any]) -> dict[str, Any]:
        self.polls.append(dict(question))
        run, cursor = self._get(question["run"]), question["cursor"]
        return {
            "reset": cursor == 0,
            "epoch": 1,
            "cursor": run.step,
            **run.series(cursor),
            "baseline": {"majority": 0.51, "zero_shot": 0.52} if run.step else None,
            "plan": {"steps": STEPS, "metric": "accuracy"},
            "state": run.state,
            "status": f"step {run.step} of {STEPS} · 6.1 steps/s · {(STEPS - run.step) // 6} s left",
            "progress": {"step": run.step, "steps": STEPS, "rate": 6.1, "seconds_left": 40},
            "done": not run.state.is_active,
            "samples": [{"step": 30, "rows": _SAMPLES}] if run.step >= 30 else [],
        }

    def overview(self, question: Mapping[str, Any]) -> dict[str, Any]:
        runs = list(reversed(self.runs.values()))
        active = next((run for run in runs if run.state.is_active), None)
        return {
            "active": active
            and {
                "id": active.id,
                "state": active.state,
                "line": f"Training {active.settings.name} · step {active.step} of {STEPS}",
                "can_stop": True,
            },
            "idle": "Ready · CPU only",
            "newest": runs[0].as_newest() if runs else None,
            "waiting": 0,
            "runs": [
                {
                    "id": run.id,
                    "name": run.settings.name or "demo",
                    "state": run.state,
                    "created": run.created,
                    "best": "0.942" if run.step else "",
                    "spark": run.series(0)["evals"]["value"],
                }
                for run in runs
            ],
        }

    def choices(self, viewer: str) -> list[tuple[str, str]]:
        runs = reversed(self.runs.values())
        return [(run.settings.name, run.id) for run in runs if not run.state.is_active]

    def view(self, run_id: str, viewer: str) -> RunView:
        run = self._get(run_id)
        ended = not run.state.is_active
        return RunView(
            id=run.id,
            name=run.settings.name or "demo",
            state=run.state,
            headline="Done after 52 s. Accuracy **0.942** (before: zero-shot 0.520, majority 0.510)."
            if ended
            else "Training",
            problem=run.reason,
            warning=run.warning,
            has_adapter=ended,
            columns=("text",),
            labels=run.labels,
            examples=tuple({"text": row["text"]} for row in _SAMPLES),
            base_weights=run.settings.base_weights,
            settings=run.settings.to_yaml(),
            snippet="from peft import PeftModel\n",
            files=(("adapter_config.json", 512), ("adapter_model.safetensors", 8300)) if ended else (),
        )

    def adapter_zip(self, run_id: str) -> tuple[Path, str]:
        self._get(run_id)
        return self.zip, "demo-adapter.zip"

    def classify(self, run_id: str, viewer: str, values: Mapping[str, str]) -> dict[str, Any]:
        self.tries.append(dict(values))
        return {"labels": ["negative", "positive"], "tuned": [[0.03, 0.97]], "base": [[0.49, 0.51]], "note": ""}

    def generate(
        self, run_id: str, viewer: str, values: Mapping[str, str], **options: Any
    ) -> Generator[dict[str, str], None, None]:
        self.tries.append(dict(values))
        for words in range(1, 6):
            yield {"base": "and " * words, "tuned": "once " * words}

    def _get(self, run_id: str) -> FakeRun:
        if run_id not in self.runs:
            raise RunError("There is no such run")
        return self.runs[run_id]


_SAMPLES = [
    {"row": 3, "text": "The soup was cold and nobody cared.", "label": "negative", "predicted": "negative", "p": 0.91},
    {"row": 9, "text": "I would go again tomorrow.", "label": "positive", "predicted": "positive", "p": 0.88},
    {"row": 12, "text": "Not the worst evening, in the end.", "label": "positive", "predicted": "negative", "p": 0.61},
]
