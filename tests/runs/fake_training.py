"""A worker that needs no model: the real `work` around a training that only writes what a training writes.

Run as a worker's command by ``Launcher(store, worker_argv=fake_worker(steps=50))``. Each step's loss is a function of
the step, checkpoints are real (a number), and a resumed run goes on from the newest one, so a gap or a repeated step in
the curve would show.
"""

from __future__ import annotations

import argparse
import math
import os
import select
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from ptune_core.runs.worker import work

GO = "go"
"""Name of the file in the run directory for which a held training waits."""


@dataclass(frozen=True)
class Behaviour:
    """What the fake does.

    Attributes:
        steps: Steps to train.
        pace: Seconds between steps.
        hold_at: Step after which it waits until the file `GO` exists or a stop is asked for; 0 never waits.
        checkpoint_every: Steps between checkpoints.
        noise: Bytes printed to the log at each step.
        kill_at: Step after which it kills itself with SIGKILL, on the first attempt only; 0 never.
        deaf: 1: it neither sees the stop flag nor SIGTERM.
        child: 1: it starts a child that would outlive it, whose number it writes to `child.pid`.
    """

    steps: int = 20
    pace: float = 0.0
    hold_at: int = 0
    checkpoint_every: int = 5
    noise: int = 0
    kill_at: int = 0
    deaf: int = 0
    child: int = 0


def fake_worker(**behaviour: float) -> tuple[str, ...]:
    """A command for `Launcher(worker_argv=...)`; the options are those of `Behaviour`."""
    options = [part for name, value in behaviour.items() for part in (f"--{name}", str(value))]
    return (sys.executable, str(Path(__file__).resolve()), *options)


def loss_at(step: int) -> float:
    """Training loss at `step`."""
    return 0.1 + math.exp(-step / 30)


@dataclass
class FakeTraining:
    """Stands in for `ptune_core.training.session.run_training`."""

    behaviour: Behaviour = Behaviour()

    def __call__(
        self,
        settings: Any,
        tables: Any,
        directory: Path,
        *,
        should_stop: Callable[[], bool],
        report: Callable[[dict[str, Any]], None],
        export: Callable[[Any], None],
    ) -> dict[str, Any]:
        steps = self.behaviour.steps
        report({"kind": "phase", "phase": "loading base model", "seconds": 0.0})
        report(
            {
                "kind": "plan", "steps": steps, "train_examples": tables.table.num_rows, "validation_examples": 1,
                "metric": "accuracy", "parameters": 10, "prompt_values": 20, "data": "Using 4 of 4 rows",
                "warnings": [],
            }
        )  # fmt: skip
        first = self._newest_checkpoint(directory)
        if first:
            report({"kind": "resume", "step": first})
        else:
            report({"kind": "baseline", "majority": 0.5, "zero_shot": 0.52})
            self._evaluate(directory, 0, report)
        report({"kind": "phase", "phase": "training", "seconds": 0.1})
        step, stopped = first, should_stop()
        while step < steps and not stopped:
            step += 1
            self._step(directory, step, first, report)
            stopped = self._wait(directory, step, should_stop)
        self._export(directory)
        return {
            "metric": "accuracy", "value": 0.9, "best_step": step, "steps": step, "baseline_majority": 0.5,
            "baseline_zero_shot": 0.52, "labels": ["positive", "negative"], "data": "Using 4 of 4 rows",
            "reason": "stopped" if stopped else "all steps done", "stopped": stopped,
        }  # fmt: skip

    def _step(self, directory: Path, step: int, first: int, report: Callable[[dict[str, Any]], None]) -> None:
        if self.behaviour.noise:
            print("x" * self.behaviour.noise)
        report(
            {
                "kind": "step", "step": step, "epoch": step / 4, "loss": loss_at(step), "learning_rate": 0.001,
                "grad_norm": 1.0, "seconds": 0.25 * (step - first),
            }
        )  # fmt: skip
        if step % self.behaviour.checkpoint_every == 0:
            self._evaluate(directory, step, report)
            (directory / "checkpoints").mkdir(exist_ok=True)
            (directory / "checkpoints" / f"step-{step:06}").touch()
        if step == self.behaviour.kill_at and first == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    def _evaluate(self, directory: Path, step: int, report: Callable[[dict[str, Any]], None]) -> None:
        value = 0.5 + 0.4 * step / self.behaviour.steps
        line = {"loss": loss_at(step) + 0.05, "value": value, "macro_f1": value, "best": True, "seconds": 0.25 * step}
        report({"kind": "eval", "step": step, **line})
        row = {"row": 3, "text": f"text at {step}", "label": "positive", "predicted": "negative", "p": 0.61}
        report({"kind": "sample", "step": step, "rows": [row]})

    def _wait(self, directory: Path, step: int, should_stop: Callable[[], bool]) -> bool:
        """Keep the pace; returns whether to stop."""
        select.select([], [], [], self.behaviour.pace)
        while step == self.behaviour.hold_at and not (directory / GO).exists() and not should_stop():
            select.select([], [], [], 0.005)
        return should_stop()

    def _newest_checkpoint(self, directory: Path) -> int:
        return max((int(path.name[5:]) for path in directory.glob("checkpoints/step-*")), default=0)

    def _export(self, directory: Path) -> None:
        (directory / "adapter").mkdir(exist_ok=True)
        (directory / "adapter" / "snippet.py").write_text("print('fake')\n")
        (directory / "adapter.zip").write_bytes(b"PK\x05\x06" + bytes(18))


class DeafTraining(FakeTraining):
    """Never stops when asked."""

    def _wait(self, directory: Path, step: int, should_stop: Callable[[], bool]) -> bool:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        return super()._wait(directory, step, lambda: False)


def main() -> int:
    """Work on the run directory named last on the command line."""
    parser = argparse.ArgumentParser()
    for field in fields(Behaviour):
        parser.add_argument(f"--{field.name}", type=type(field.default), default=field.default)
    parser.add_argument("directory", type=Path)
    options = vars(parser.parse_args())
    directory = options.pop("directory")
    behaviour = Behaviour(**options)
    if behaviour.child:
        child = subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()"])
        (directory / "child.pid").write_text(str(child.pid))
    training = DeafTraining(behaviour) if behaviour.deaf else FakeTraining(behaviour)
    return work(directory, training)


if __name__ == "__main__":
    sys.exit(main())
