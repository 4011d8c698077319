"""Whole runs with the setting `compile`: what they report is what runs without it do."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest

from ptune_core.data.ingest import ingest_text
from ptune_core.data.table import Table, Tables
from ptune_core.errors import SettingsError
from ptune_core.model.compiled import compile_layers
from ptune_core.model.trained import TrainedPrompt
from ptune_core.training import session
from ptune_core.training.session import ESTIMATED_PLAIN, estimate_run, run_training
from ptune_core.training.settings import RunSettings

pytestmark = pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning")

ROWS = "text,label\n" + "".join(
    f"{text} {i},{label}\n"
    for i in range(12)
    for text, label in (("great film", "good"), ("bad food", "bad"), ("I loved it", "good"))
)


@pytest.fixture(autouse=True)
def without_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs compile as they do, but for the last part, which needs a C++ compiler."""
    monkeypatch.setattr(session, "compile_layers", partial(compile_layers, backend="aot_eager"))


@pytest.fixture
def table(tmp_path: Path) -> Table:
    return ingest_text(ROWS, tmp_path / "data")


def settings_for(folder: Path, **changes: Any) -> RunSettings:
    values = {
        "base_model": str(folder), "data": "pasted", "template": "{text~} is [P*4][ANSWER:label]", "max_steps": 12,
        "eval_every": 4, "checkpoint_every": 3, "batch_size": 4, "encoder_hidden_size": 16, "device": "cpu",
        "precision": "fp32", "learning_rate": 0.01, "halving": False, "patience": 0, "compile": True,
    }  # fmt: skip
    return RunSettings.parse(values | changes)


class Run:
    """One run, done: its lines and what it exported."""

    def __init__(self, settings: RunSettings, table: Table, directory: Path, stop_at: int | None = None) -> None:
        self.lines: list[dict[str, Any]] = []
        self.exported: list[TrainedPrompt] = []
        self.result = run_training(
            settings, Tables(table), directory, should_stop=lambda: len(self.losses("step")) == stop_at,
            report=self.lines.append, export=lambda trained, _: self.exported.append(trained),
        )  # fmt: skip

    def losses(self, kind: str) -> list[float]:
        return [line["loss"] for line in self.lines if line["kind"] == kind]


def test_a_compiled_run_stopped_and_resumed_has_the_losses_of_a_plain_one(
    tmp_path: Path, tiny_gpt2: Path, table: Table
) -> None:
    """12 steps of 8 batches an epoch: with texts that are computed, and with texts of the cache."""
    settings = settings_for(tiny_gpt2)
    plain = Run(settings.model_copy(update={"compile": False}), table, tmp_path / "plain")
    stopped = Run(settings, table, tmp_path / "compiled", stop_at=5)
    resumed = Run(settings, table, tmp_path / "compiled")
    assert stopped.result["stopped"] and len(stopped.losses("step")) == 5
    for kind in ("step", "eval"):
        found = stopped.losses(kind) + resumed.losses(kind)
        assert found == pytest.approx(plain.losses(kind), rel=1e-4) and found
    assert resumed.result["value"] == plain.result["value"]
    [plan] = [line for line in stopped.lines if line["kind"] == "plan"]
    assert any("compile is on and the base model is on the CPU" in warning for warning in plan["warnings"])


def test_an_estimate_is_taken_without_compiling_and_says_so(
    tmp_path: Path, tiny_gpt2: Path, table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(session, "compile_layers")
    found = estimate_run(settings_for(tiny_gpt2), Tables(table), tmp_path / "estimate")
    assert ESTIMATED_PLAIN in found.warnings


def test_a_run_where_torch_cannot_compile_ends_with_the_way_out(
    tmp_path: Path, tiny_gpt2: Path, table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(graph: Any, inputs: Any) -> Any:
        raise RuntimeError("Cannot find a working triton installation")

    monkeypatch.setattr(session, "compile_layers", partial(compile_layers, backend=refuse))
    with pytest.raises(SettingsError, match="working triton installation.*Set compile to off"):
        Run(settings_for(tiny_gpt2), table, tmp_path / "run")
