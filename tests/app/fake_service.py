"""A service without workers and models, whose runs take the steps a test tells them to."""

from __future__ import annotations

import time
from collections.abc import Generator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from ptune_core.app import texts
from ptune_core.app.adapter_view import AdapterView, Origin
from ptune_core.app.adapters import NEWEST, is_brought
from ptune_core.app.measuring import Measures
from ptune_core.app.results import results_answer
from ptune_core.app.run_view import RunView
from ptune_core.app.uploads import Uploads
from ptune_core.errors import AdapterError, NotOnThisMachine, PTuneError, RunError
from ptune_core.inference.batch import BatchReport, Progress
from ptune_core.inference.protocol import Look, Measure, build_request
from ptune_core.runs.run import Run
from ptune_core.runs.states import RunState
from ptune_core.training.settings import RunSettings

STEPS = 300
BASELINE = {
    "majority": 0.51, "zero_shot": 0.52, "few_shot": 0.53, "few_shot_examples": 8, "probe": 0.99,
    "probe_interval": [0.97, 1.0],
}  # fmt: skip
FINAL = {"value": 0.942, "loss": 0.3, "rows": 2000, "low": 0.93, "high": 0.95}


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
    fixes: list[dict[str, str]] = field(default_factory=list)
    directory: Path = Path("nowhere")

    def as_newest(self) -> dict[str, Any]:
        ended = not self.state.is_active
        known = {"id": self.id, "name": self.settings.name, "state": self.state, "warning": self.warning}
        line = "Done." if ended else f"step {self.step}"
        return {
            **known,
            "ended": ended,
            "line": line,
            "lines": texts.ended([self.settings.name], self.warning or line),
        }

    def as_active(self) -> dict[str, Any]:
        progress = f"{self.step}/{STEPS}"
        names = [self.settings.name, self.settings.name.partition(" on ")[2] or self.settings.name]
        lines = texts.training(names, "", progress, "1 min 10 s", ("accuracy", 0.871))
        return {"id": self.id, "state": self.state, "lines": lines, "progress": progress, "can_stop": True}

    def series(self, first: int) -> dict[str, Any]:
        steps = list(range(first + 1, self.step + 1))
        evals = [step for step in steps if step % 15 == 0]
        return {
            "steps": {
                "x": steps,
                "loss": [0.15 + 0.6 / (1 + step / 30) + 0.05 * (step % 7 - 3) / 3 for step in steps],
                "learning_rate": [0.01 * (1 - step / STEPS) for step in steps],
                "grad_norm": [1 + (step % 5) / 10 for step in steps],
                "seconds": [4 + step / 6 for step in steps],
            },
            "evals": {
                "x": evals,
                "loss": [0.2 + 0.55 / (1 + step / 35) for step in evals],
                "value": [0.95 - 0.45 / (1 + (step / 60) ** 2) for step in evals],
                "low": [0.91 - 0.45 / (1 + (step / 60) ** 2) for step in evals],
                "high": [0.98 - 0.45 / (1 + (step / 60) ** 2) for step in evals],
                "best": [True for _ in evals],
                "seconds": [4 + step / 6 for step in evals],
            },
        }

    def tokens(self, first: int) -> list[dict[str, Any]]:
        steps = [step for step in range(first + 1, self.step + 1) if step % 15 == 0]
        near = [["=great", "<b>good", "fine"], ["a", "b", "c"]]
        known = {"num_virtual_tokens": 2, "numbers": [1, 2], "nearest": near, "norm": [3.0, 3.1], "word_norm": 3.5}
        return [
            {**known, "step": step, "moved": [step / 50, step / 80], "moved_mean": step / 60, "moved_low": step / 80,
             "moved_high": step / 50}
            for step in steps
        ]  # fmt: skip


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
        self.measures_unasked = False
        self.failing: dict[str, PTuneError] = {}
        self.moved: list[str] = []
        self.outlines: Any = None
        self.fixed: list[tuple[str, str]] = []
        self.used: list[tuple[str, int]] = []
        self.directory = directory
        self.adapters = FakeAdapters(self)
        self.measures = Measures(directory)

    def add(self, **fields: Any) -> FakeRun:
        run = FakeRun(f"{len(self.runs):016x}", RunSettings(name=f"run {len(self.runs)}"), **fields)
        run.directory = self.directory / run.id
        run.directory.mkdir()
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

    def measure_run(self, viewer: str, settings: RunSettings, table: Any, *, unasked: bool = False) -> None:
        self.measures.start(viewer, settings, table.path.parent, unasked=unasked)

    def stop(self, run_id: str, viewer: str) -> None:
        self._get(run_id).state = RunState.STOPPED

    def resume(self, run_id: str, viewer: str) -> None:
        self._get(run_id).state = RunState.RUNNING

    def delete(self, run_id: str, viewer: str) -> None:
        del self.runs[run_id]

    def _fail(self, method: str) -> None:
        """Once, if a test wants it."""
        if problem := self.failing.pop(method, None):
            raise problem

    def poll(self, question: Mapping[str, Any]) -> dict[str, Any]:
        self._fail("poll")
        self.polls.append(dict(question))
        run, cursor = self._get(question["run"]), question["cursor"]
        return {
            "reset": cursor == 0,
            "epoch": 1,
            "cursor": run.step,
            **run.series(cursor),
            "tokens": run.tokens(cursor),
            "epochs_per_step": 0.02,
            "phase": "training",
            "baseline": BASELINE if run.step else None,
            "final": None if run.state.is_active or run.step < 15 else FINAL | {"step": run.step // 15 * 15},
            "notes": ["The head reads <b>the mean</b>."],
            "plan": {"steps": STEPS, "metric": "accuracy"},
            "state": run.state,
            "status": f"step {run.step} of {STEPS} · 6.1 steps/s · {(STEPS - run.step) // 6} s left",
            "progress": {"step": run.step, "steps": STEPS, "rate": 6.1, "seconds_left": 40},
            "done": not run.state.is_active,
            "samples": [{"step": 30, "rows": _SAMPLES}] if run.step >= 30 else [],
        }

    def compare(self, question: Mapping[str, Any]) -> dict[str, Any]:
        curves, runs = [], [self._get(asked["run"]) for asked in question["runs"]]
        for asked, run in zip(question["runs"], runs, strict=True):
            known = {"reset": asked["cursor"] == 0, "epoch": 1, "cursor": run.step, "epochs_per_step": 0.02}
            known |= {"name": run.settings.name, "state": run.state, "created": run.created, "metric": "accuracy"}
            ended = {"best": 0.942, "best_step": 60, "done": not run.state.is_active}
            curves.append({**known, **run.series(asked["cursor"]), **ended})
        rates = [str(run.settings.learning_rate) for run in runs]
        return {"curves": curves, "differing": [{"setting": "Learning rate", "values": rates}]}

    def overview(self, question: Mapping[str, Any]) -> dict[str, Any]:
        runs = list(reversed(self.runs.values()))
        active = next((run for run in runs if run.state is RunState.RUNNING), None)
        waiting = [run for run in reversed(runs) if run.state is RunState.QUEUED]
        return {
            "active": active and active.as_active(),
            "idle": ["Ready · CPU only"],
            "newest": runs[0].as_newest() if runs else None,
            "waiting": [{"id": run.id, "line": f"{i + 1}. {run.settings.name}"} for i, run in enumerate(waiting)],
            "runs": [
                {
                    "id": run.id,
                    "name": run.settings.name or "demo",
                    "state": run.state,
                    "created": run.created,
                    "best": "0.942" if run.step else "",
                    "metric": "accuracy",
                    "sweep": run.settings.sweep,
                    "spark": run.series(0)["evals"]["value"],
                }
                for run in runs
            ],
        }

    def status(self, run_id: str, viewer: str) -> dict[str, Any]:
        run = self._get(run_id)
        return {"id": run.id, "state": run.state, "step": run.step, "steps": STEPS, "position": 0}

    def move_up(self, run_id: str, viewer: str) -> None:
        self.moved.append(self._get(run_id).id)

    def choices(self, viewer: str) -> list[tuple[str, str]]:
        runs = reversed(self.runs.values())
        found = [(run.settings.name, run.id + NEWEST * run.state.is_active) for run in runs]
        return [*found, *((name, id) for id, name in self.adapters.brought.items())]

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
            base_weights=run.settings.base_weights,
            settings=run.settings.to_yaml(),
            files=(("adapter_config.json", 512), ("adapter_model.safetensors", 8300)) if ended else (),
            zip_bytes=8812 if ended else 0,
            num_trials=len(run.settings.trials) if run.settings.sweep else 0,
            can_resume=run.state.can_resume,
        )

    def alarms(self, question: Mapping[str, Any]) -> dict[str, Any]:
        self._fail("alarms")
        run = self._get(question["run"])
        told = [run.reason] if run.reason else [run.warning] if run.warning else []
        shown = [{"text": text, "note": "", "error": text == run.reason, "fixes": run.fixes} for text in told]
        return {"alarms": shown, "active": run.state.is_active}

    def results(self, question: Mapping[str, Any]) -> dict[str, Any]:
        run = self._get(question["run"])
        return results_answer(cast(Run, run), question)

    def fix(self, run_id: str, key: str, viewer: str) -> str:
        self._fail("fix")
        self._get(run_id)
        self.fixed.append((run_id, key))
        return self.add(step=0).id

    def use_trial(self, run_id: str, trial: int, viewer: str) -> None:
        self.used.append((run_id, trial))

    def adapter_zip(self, run_id: str) -> tuple[Path, str]:
        self._get(run_id)
        return self.zip, "demo-adapter.zip"

    def download(self, run_id: str, name: str, key: str) -> tuple[bytes, str]:
        self._get(run_id)
        return b"max_steps: 300", name

    def classify(self, adapter: str, viewer: str, values: Mapping[str, str], *, compare: bool = True) -> dict[str, Any]:
        self.tries.append(dict(values))
        base = [[0.49, 0.51]] if compare else None
        return {"labels": ["negative", "positive"], "tuned": [[0.03, 0.97]], "base": base, "note": ""}

    def seen(self, adapter: str, viewer: str, values: Mapping[str, str]) -> dict[str, Any]:
        pieces = [{"text": "P1", "kind": "virtual"}, {"text": values["text"], "kind": "text"}]
        return {"pieces": pieces, "length": 2, "max_length": 64, "num_virtual_tokens": 1}

    def generate(
        self, run_id: str, viewer: str, values: Mapping[str, str], **options: Any
    ) -> Generator[dict[str, str], None, None]:
        self.tries.append(dict(values))
        for words in range(1, 6):
            yield {"base": "and " * words, "tuned": "once " * words}

    def look(self, fields: Mapping[str, object]) -> Any:
        """Answered in this process, with torch, where a test sets `outlines`."""
        if self.outlines is None:
            raise NotOnThisMachine("The base model is not on this machine yet")
        from ptune_core.inference.look import look

        return look(build_request(Look, fields), self.outlines)

    def measure(self, fields: Mapping[str, object]) -> Any:
        if self.outlines is None:
            raise NotOnThisMachine("The base model is not on this machine yet")
        from ptune_core.inference.look import measure

        return measure(build_request(Measure, fields), self.outlines)

    def _get(self, run_id: str) -> FakeRun:
        if run_id not in self.runs:
            raise RunError("There is no such run")
        return self.runs[run_id]


class FakeAdapters:
    """The public methods of `Adapters`."""

    def __init__(self, service: FakeService) -> None:
        self._service = service
        self.brought: dict[str, str] = {}
        self.is_chat = False

    def view(self, id: str, viewer: str) -> AdapterView:
        origin = Origin.IMPORTED if is_brought(id) else Origin.NEWEST if id.endswith(NEWEST) else Origin.RUN
        run = None if origin is Origin.IMPORTED else self._service._get(id.removesuffix(NEWEST))
        return AdapterView(
            id=id, name=self.brought[id] if run is None else run.settings.name, origin=origin, about="2 labels",
            proof="", columns=("text",), labels=("negative", "positive") if run is None else run.labels, is_head=False,
            is_chat=self.is_chat, examples=tuple({"text": row["text"]} for row in _SAMPLES),
            base_weights=RunSettings().base_weights, base_model="demo", template="[P*8] {text} [ANSWER:label]",
            answers={}, num_virtual_tokens=8, card="---\ntags: []\n---\n# A card\n",
            snippet="from peft import PeftModel\n",
            files=(("adapter_config.json", 512), ("adapter_model.safetensors", 8300)), zip_bytes=8812,
            downloads=() if run is None else (("Settings (YAML)", f"downloads/{id}/settings.yaml?key=k"),),
        )  # fmt: skip

    def choices(self, viewer: str) -> list[tuple[str, str]]:
        return self._service.choices(viewer)

    def push(self, id: str, viewer: str, name: str, *, token: str, private: bool) -> str:
        return f"https://hub.test/{name}?private={private}"

    def locate(self, id: str, viewer: str) -> Path:
        return Path(self.view(id, viewer).id)

    def bring(self, paths: list[Path], viewer: str, usage: Any) -> str:
        if paths[0].stat().st_size == 0:
            raise AdapterError("The adapter bad.zip cannot be used", got="\n1. one thing\n2. another")
        id = f"{len(self.brought):032x}"
        self.brought[id] = paths[0].stem
        return id

    def remove(self, id: str, viewer: str) -> None:
        del self.brought[id]

    def label(self, id: str, viewer: str, source: Path, output: Path) -> Generator[Progress, None, BatchReport]:
        for done in (0, 2):
            yield Progress(done, 2)
        output.write_text("text,label\na,positive\nb,positive\n")
        head = (("text", "label"), ("a", "positive"), ("b", "positive"))
        return BatchReport(output, {"positive": 2}, 0, (), {"text": "text"}, known=2, right=1, head=head)


_SAMPLES: list[dict[str, Any]] = [
    {"row": 3, "text": "The soup was cold and nobody cared.", "label": "negative", "predicted": "negative", "p": 0.91},
    {"row": 9, "text": "I would go again tomorrow.", "label": "positive", "predicted": "positive", "p": 0.88},
    {"row": 12, "text": "Not the worst evening, in the end.", "label": "positive", "predicted": "negative", "p": 0.61},
]
