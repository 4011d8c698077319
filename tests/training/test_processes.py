"""Two processes do what one does that accumulates two batches."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ptune_core.runs.worker import train_here
from ptune_core.training.settings import RunSettings

ROWS = "text,label\n" + "".join(f"{'word ' * (i % 9)} {i},{'good' if i % 2 else 'bad'}\n" for i in range(60))


def train_twice(settings: Path, out: Path) -> list[str]:
    """What the two processes of `accelerate launch --num_processes 2 -m ptune_core train` print."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    command = [sys.executable, "-m", "ptune_core", "train", str(settings), "--out", str(out)]
    processes = [
        subprocess.Popen(
            command, env=os.environ | shared | {"RANK": rank, "LOCAL_RANK": rank}, stdout=subprocess.PIPE, text=True
        )
        for rank in ("0", "1")
    ]
    printed = [process.communicate(timeout=300)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    return printed


@pytest.mark.parametrize(
    ("template", "base_weights"),
    [("{text} [P*4][ANSWER:label]", "frozen"), ("[P*4] {text} [HEAD:label]", "frozen"),
     ("[P*4] {text} [HEAD:label]", "tuned")],
)  # fmt: skip
def test_two_processes_are_two_accumulated_batches(
    tmp_path: Path, tiny_gpt2: Path, template: str, base_weights: str
) -> None:
    """Also with a tuned base model, whose dropout then draws for a batch what it draws in any other process."""
    (tmp_path / "data.csv").write_text(ROWS)
    settings = RunSettings.parse(
        {
            "base_model": str(tiny_gpt2), "data": str(tmp_path / "data.csv"), "template": template, "max_steps": 6,
            "eval_every": 3, "checkpoint_every": 2, "batch_size": 4, "encoder_hidden_size": 16, "device": "cpu",
            "precision": "fp32", "patience": 0, "base_weights": base_weights, "base_learning_rate": 1e-3,
        }
    )  # fmt: skip
    alone = settings.model_copy(update={"gradient_accumulation_steps": 2})
    expected = train_here(alone, tmp_path / "one")
    (tmp_path / "settings.yaml").write_text(settings.to_yaml())
    printed = train_twice(tmp_path / "settings.yaml", tmp_path / "two")
    assert "finished after 6 steps" in printed[0] and printed[1] == "", "one of them speaks"
    found = json.loads((tmp_path / "two" / "result.json").read_text())
    assert (found["value"], found["steps"]) == (expected["value"], 6)

    def losses(run: str) -> list[float]:
        lines = [json.loads(line) for line in (tmp_path / run / "metrics.jsonl").read_text().splitlines()]
        return [line["loss"] for line in lines if line["kind"] in ("step", "eval")]

    assert losses("two") == pytest.approx(losses("one"), rel=1e-4)
    assert (tmp_path / "two" / "adapter.zip").is_file()
    if template.endswith("[ANSWER:label]"):
        # Bug: asked again, the main process said what there was, and the other waited for it without end.
        assert train_twice(tmp_path / "settings.yaml", tmp_path / "two") == printed


def test_two_processes_end_the_same_trials_of_a_sweep_early(tmp_path: Path, tiny_gpt2: Path) -> None:
    (tmp_path / "data.csv").write_text(ROWS)
    settings = RunSettings.parse(
        {
            "base_model": str(tiny_gpt2), "data": str(tmp_path / "data.csv"), "template": "{text} [P*4][ANSWER:label]",
            "max_steps": 8, "eval_every": 2, "batch_size": 4, "encoder_hidden_size": 16, "device": "cpu",
            "precision": "fp32", "patience": 0, "sweep": {"learning_rate": [1e-5, 0.03, 1e-4]},
        }
    )  # fmt: skip
    expected = train_here(settings.model_copy(update={"gradient_accumulation_steps": 2}), tmp_path / "one")
    (tmp_path / "settings.yaml").write_text(settings.to_yaml())
    train_twice(tmp_path / "settings.yaml", tmp_path / "two")
    found = json.loads((tmp_path / "two" / "result.json").read_text())

    def ends(result: dict[str, Any]) -> list[tuple[int, int, str]]:
        return [(row["trial"], row["steps"], row["reason"]) for row in result["sweep"]]

    assert ends(found) == ends(expected)
    assert sorted(steps for _, steps, _ in ends(found)) == [2, 4, 8]


def test_a_rank_without_company_trains_as_usual(
    tmp_path: Path, tiny_gpt2: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bug: a variable RANK that something else had set made the only process a follower, which keeps no result."""
    monkeypatch.setenv("RANK", "1")
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    (tmp_path / "data.csv").write_text(ROWS)
    values = {"base_model": str(tiny_gpt2), "data": str(tmp_path / "data.csv"), "max_steps": 1, "device": "cpu"}
    assert train_here(RunSettings.parse(values | {"encoder_hidden_size": 16}), tmp_path / "one")["state"] == "finished"
