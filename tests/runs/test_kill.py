"""The real worker with a real (tiny) model: what a kill at a random moment costs is time and nothing else."""

from __future__ import annotations

import os
import random
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ptune_core.data.ingest import ingest_text
from ptune_core.files import read_lines
from ptune_core.runs.directory import RunDirectory
from ptune_core.runs.launcher import Launcher
from ptune_core.runs.states import RunState
from ptune_core.runs.store import Store
from ptune_core.runs.worker import work
from ptune_core.training.settings import RunSettings

STEPS = 40


def lines_of(files: RunDirectory, kind: str) -> list[dict[str, Any]]:
    if not files.metrics.exists():
        return []
    return [line for line in read_lines(files.metrics.read_bytes()) if line["kind"] == kind]


def curve(files: RunDirectory) -> list[tuple[int, float, float]]:
    return [(line["step"], line["loss"], line["grad_norm"]) for line in lines_of(files, "step")]


def evaluations(files: RunDirectory) -> list[tuple[int, float, bool]]:
    return [(line["step"], line["loss"], line["best"]) for line in lines_of(files, "eval")]


def test_a_killed_and_resumed_run_ends_bit_for_bit_like_an_undisturbed_one(
    store: Store, tiny_gpt2: Path, tmp_path: Path, wait_until: Callable[..., None]
) -> None:
    rows = [f"{word} film number {i},{label}\n" for i in range(12) for word, label in (("great", "yes"), ("bad", "no"))]
    table = ingest_text("text,label\n" + "".join(rows), tmp_path / "pasted")
    settings = RunSettings(
        base_model=str(tiny_gpt2), data="pasted", max_steps=STEPS, batch_size=4, eval_every=9, checkpoint_every=7,
        patience=0, encoder_reparameterization_type="LSTM", encoder_dropout=0.2,
    )  # fmt: skip
    undisturbed, killed = (
        RunDirectory(store.runs_dir / store.submit(settings, table, owner="ana", key=key)) for key in ("b", "a")
    )
    store.set_state(undisturbed.path.name, RunState.RUNNING)
    assert work(undisturbed.path) == 0
    Launcher(store).reconcile()
    assert store.get(undisturbed.path.name, None).state is RunState.FINISHED

    moment = random.randint(1, STEPS - 1)  # noise on purpose: over time every moment is tried; see the message below
    launcher = Launcher(store, interval=0.02)
    launcher.start_scheduler()
    wait_until(lambda: any(line["step"] >= moment for line in lines_of(killed, "step")), f"step {moment}", 120)
    os.kill(killed.history()[-1]["pid"], signal.SIGKILL)
    wait_until(lambda: store.get(killed.path.name, None).state is RunState.INTERRUPTED, "the kill to be seen")
    launcher.close()
    Launcher(store).resume(killed.path.name)
    assert work(killed.path) == 0

    assert curve(killed) == curve(undisturbed), f"killed at step {moment}"
    assert evaluations(killed) == evaluations(undisturbed), f"killed at step {moment}"
    for name in ("adapter_model.safetensors", "prompt_encoder.safetensors"):
        same = (killed.adapter / name).read_bytes() == (undisturbed.adapter / name).read_bytes()
        assert same, f"{name} differs; killed at step {moment}"
    first, second = killed.result(), undisturbed.result()
    assert first is not None and second is not None
    different = {key for key in first if first[key] != second[key]}
    assert different <= {"seconds", "evaluation_share", "ended", "attempt"}, f"killed at step {moment}"
