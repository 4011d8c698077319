"""Two processes do what one does that accumulates two batches."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from ptune_core.runs.worker import train_here
from ptune_core.training.settings import RunSettings

ROWS = "text,label\n" + "".join(f"{'word ' * (i % 9)} {i},{'good' if i % 2 else 'bad'}\n" for i in range(60))
TRAIN = """
import sys
from pathlib import Path
from ptune_core.runs.worker import train_here
from ptune_core.training.settings import RunSettings
result = train_here(RunSettings.from_yaml(Path(sys.argv[1]).read_text()), Path(sys.argv[2]))
sys.exit(result.get("error") is not None)
"""


@pytest.mark.parametrize("template", ["{text} [P*4][ANSWER:label]", "[P*4] {text} [HEAD:label]"])
def test_two_processes_are_two_accumulated_batches(tmp_path: Path, tiny_gpt2: Path, template: str) -> None:
    (tmp_path / "data.csv").write_text(ROWS)
    settings = RunSettings.parse(
        {
            "base_model": str(tiny_gpt2), "data": str(tmp_path / "data.csv"), "template": template, "max_steps": 6,
            "eval_every": 3, "checkpoint_every": 2, "batch_size": 4, "encoder_hidden_size": 16, "device": "cpu",
            "precision": "fp32", "patience": 0,
        }
    )  # fmt: skip
    alone = settings.model_copy(update={"gradient_accumulation_steps": 2})
    expected = train_here(alone, tmp_path / "one")
    (tmp_path / "settings.yaml").write_text(settings.to_yaml())
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = os.environ | {
        "WORLD_SIZE": "2",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "LOCAL_WORLD_SIZE": "2",
        "ACCELERATE_USE_CPU": "true",  # as `accelerate launch --cpu` sets it
    }
    command = [sys.executable, "-c", TRAIN, str(tmp_path / "settings.yaml"), str(tmp_path / "two")]
    processes = [
        subprocess.Popen(command, env=environment | {"RANK": str(rank), "LOCAL_RANK": str(rank)}) for rank in range(2)
    ]
    assert [process.wait(timeout=300) for process in processes] == [0, 0]
    found = json.loads((tmp_path / "two" / "result.json").read_text())
    assert (found["value"], found["steps"]) == (expected["value"], 6)

    def losses(run: str) -> list[float]:
        lines = [json.loads(line) for line in (tmp_path / run / "metrics.jsonl").read_text().splitlines()]
        return [line["loss"] for line in lines if line["kind"] in ("step", "eval")]

    assert losses("two") == pytest.approx(losses("one"), rel=1e-5)
    assert (tmp_path / "two" / "adapter.zip").is_file()
