"""What a terminal, and a file in its place, shows of a run."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

from ptune_core.runs.terminal import Progress, summary


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


LINES: list[dict[str, Any]] = [
    {"kind": "phase", "phase": "training", "seconds": 1.0},
    {"kind": "plan", "steps": 3, "metric": "accuracy", "data": "Using 312 of 320 rows", "warnings": ["few rows"]},
    {"kind": "baseline", "majority": None, "zero_shot": 0.5},
    {"kind": "step", "step": 1, "loss": 0.75},
    {"kind": "step", "step": 2, "loss": 0.5},
    {"kind": "eval", "step": 2, "loss": 0.25, "value": 0.9, "best": True},
    {"kind": "sample", "step": 2, "rows": []},
]


def test_progress_is_one_changing_line_on_a_terminal() -> None:
    stream = Terminal()
    progress = Progress(stream)
    for line in LINES:
        progress.show(line)
    assert "\rstep 1/3 · loss 0.750\x1b[K\rstep 2/3 · loss 0.500 · " in stream.getvalue()
    assert stream.getvalue().endswith("\rstep 2/3: validation loss 0.250, accuracy 0.900, best so far\x1b[K\n")


def test_a_download_is_one_changing_line_on_a_terminal_and_none_in_a_log() -> None:
    line = {"kind": "phase", "phase": "downloading base model", "bytes": 240_000_000, "of": 548_000_000}
    log, terminal = io.StringIO(), Terminal()
    for stream in (log, terminal):
        Progress(stream).show(line)
    assert log.getvalue() == "" and terminal.getvalue() == "\rdownloading base model: 240 of 548 MB\x1b[K"


def test_the_plan_says_whether_the_base_model_learns() -> None:
    stream = io.StringIO()
    base = {"weights": "tuned", "parameters": 4_000_000, "disk_mib": 152.0, "download_mib": 15.2}
    for of_base in ({"weights": "frozen"}, base):
        Progress(stream).show(LINES[1] | {"base": of_base})
    assert "base model: frozen\n" in stream.getvalue()
    assert "tuned, 4,000,000 weights of its own learn too; at most 152 MiB on disk" in stream.getvalue()


def test_progress_in_a_file_keeps_only_what_stays_true() -> None:
    stream = io.StringIO()
    progress = Progress(stream)
    for line in LINES:
        progress.show(line)
    progress.end_line()
    assert stream.getvalue().splitlines() == [
        "training",
        "Using 312 of 320 rows",
        "warning: few rows",
        "baseline: zero-shot 0.500",
        "step 2/3: validation loss 0.250, accuracy 0.900, best so far",
    ]


def test_a_run_stopped_before_its_first_evaluation_has_no_numbers() -> None:
    unknown = dict.fromkeys(["metric", "value", "best_step", "steps", "baseline_majority", "baseline_zero_shot"])
    text = summary({"state": "stopped", "seconds": 3.2, "reason": "stopped", **unknown}, Path("run"))
    assert text.splitlines()[0] == "stopped after 0 steps and 3 s: stopped"
    assert "no adapter" in text and "None" not in text


def test_a_sweep_says_which_trials_go_on() -> None:
    stream = io.StringIO()
    progress = Progress(stream)
    progress.show(LINES[1] | {"trials": 4})
    for line in ({"kind": "follow", "to": 2}, {"kind": "phase", "phase": "training", "trials": [2, 3]}):
        progress.show(line)
    assert stream.getvalue().splitlines()[-2:] == ["trial 3 from here on", "training trial 3, 4 of 4"]


def test_a_sweeps_summary_says_why_trials_ended_and_what_seeds_come_to() -> None:
    row = {"loss": 0.1, "best_step": 20, "error": None}
    ranking = [
        row | {"trial": 1, "settings": {"seed": 1}, "value": 0.9, "steps": 200, "reason": "all steps done"},
        row | {"trial": 0, "settings": {"seed": 0}, "value": 0.8, "steps": 25, "reason": "ended early"},
    ]
    seeds = [{"settings": {}, "trials": [0, 1], "mean": 0.85, "std": 0.0707, "loss": 0.1, "ended_early": True}]
    result = {
        "state": "finished", "seconds": 3.2, "reason": "all steps done", "metric": "accuracy", "value": 0.9,
        "best_step": 20, "steps": 200, "baseline_majority": 0.5, "baseline_zero_shot": 0.6, "sweep": ranking,
        "over_seeds": seeds,
    }  # fmt: skip
    assert [line.split() for line in summary(result, Path("run")).splitlines()[4:]] == [
        ["trial", "seed", "accuracy", "best", "step", "steps"],
        ["02", "1", "0.900", "20", "200", "all", "steps", "done"],
        ["01", "0", "0.800", "20", "25", "ended", "early"],
        [],
        ["mean", "accuracy", "std", "seeds"],
        ["0.850", "0.071", "2"],
    ]
