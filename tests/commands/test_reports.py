"""`check`, `alarms` and `compare`: the page's words in a terminal."""

from __future__ import annotations

from pathlib import Path

import pytest

from ptune_core.__main__ import main
from ptune_core.data.ingest import ingest_text
from ptune_core.files import json_line
from ptune_core.runs.directory import RunDirectory
from ptune_core.training.settings import RunSettings

ROWS = "text,label\n" + "".join(f"word {i},{'good' if i % 2 else 'bad'}\n" for i in range(40))


def run(folder: Path, **settings: object) -> Path:
    """A run directory of one that has ended no better than its baseline."""
    folder.mkdir()
    ingest_text(ROWS, folder / "data")
    asked = RunSettings.parse({"data": "rows.csv", **settings}).model_dump(mode="json")
    directory = RunDirectory(folder)
    directory.create({"id": "0" * 16, "name": folder.name, "settings": asked, "owner": ""})
    lines = [
        {"kind": "plan", "steps": 10, "metric": "accuracy", "validation_rows": 100},
        {"kind": "baseline", "majority": 0.5, "zero_shot": 0.6},
        *(
            {"kind": "eval", "step": step, "loss": 0.7, "value": 0.55, "best": step == 4, "seconds": 1.0}
            for step in range(0, 11, 2)
        ),
    ]
    directory.metrics.write_bytes(b"".join(map(json_line, lines)))
    result = {
        "state": "finished", "metric": "accuracy", "value": 0.55, "seconds": 3, "labels": ["bad", "good"], "steps": 10,
        "baseline_majority": 0.5, "baseline_zero_shot": 0.6, "best_step": 4, "validation_rows": 100,
    }  # fmt: skip
    directory.write_result(result)
    return folder


def test_check_tells_everything_at_once_with_what_mends_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "rows.csv").write_text(ROWS)
    rows = f"data={tmp_path / 'rows.csv'}"
    assert main(["check", "--set", rows, "learning_rate=7", "max_steps=-1"]) == 2
    told = capsys.readouterr().out
    assert "must be changed: learning_rate: " in told and "--set learning_rate=0.003" in told
    assert "must be changed: max_steps: " in told and "fine: The rows have 2 labels." in told
    assert main(["check", "--set", rows, "template=[P*64] {text} [ANSWER:label]"]) == 0
    told = capsys.readouterr().out
    assert "please look: 64 virtual tokens" in told and "--set 'template=[P*" in told
    assert main(["check", "--set", "data=gone.csv"]) == 2
    assert "must be changed: gone.csv cannot be opened" in capsys.readouterr().out


def test_alarms_are_those_of_the_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["alarms", str(run(tmp_path / "first"))]) == 0
    told = capsys.readouterr().out
    assert "zero-shot" in told and "--set" in told
    assert main(["alarms", str(tmp_path)]) == 2
    assert "not a run directory" in capsys.readouterr().err


def test_runs_are_compared_with_what_differs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, second = run(tmp_path / "first"), run(tmp_path / "second", learning_rate=0.01)
    assert main(["compare", str(first), str(second)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "0.550 accuracy" in lines[1] and "zero-shot 0.600" in lines[1] and str(second) in lines[2]
    assert lines[-1].split()[-2:] == ["0.003", "0.01"]
