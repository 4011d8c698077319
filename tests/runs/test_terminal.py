"""What a terminal, and a file in its place, shows of a run."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

from ptune_core.model.head_input import reading_in_peft
from ptune_core.runs.terminal import Progress, score_lines, summary


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


HEAD = {"head_input": "mean", "why": "trained", "accuracies": {}, "rows": 0}
OF_PROBE = {"probe_interval": [0.6, 0.66], "probe_rows": 1200, "probe_reads": "mean", "probe_train_rows": 900}
NOT_IN_PEFT = reading_in_peft(HEAD)


def test_a_probe_and_what_the_head_reads_are_told_and_each_baseline_once() -> None:
    stream = io.StringIO()
    progress = Progress(stream)
    plan = LINES[1] | {"warnings": [], "head": HEAD, "evaluated": 64, "validation_examples": 2000}
    evaluation = LINES[5] | {"rows": 64}
    final = {"kind": "final", "step": 0, "loss": 0.3, "value": 0.64, "rows": 2000, "interval": [0.62, 0.66]}
    before = {"majority": 0.05, "zero_shot": None, "probe": 0.63, **OF_PROBE}
    last = final | {"baseline": before | {"few_shot": 0.3, "few_shot_examples": 8}}
    for line in (plan, {"kind": "baseline", **before}, evaluation, last):
        progress.show(line)
    assert stream.getvalue().splitlines()[1:] == [
        "The head reads the mean of the text's last hidden states, as this base model was trained.",
        NOT_IN_PEFT,
        "Between steps 64 of 2,000 validation rows are evaluated, at the end all of them.",
        "baseline: majority 0.050, probe 0.630 (0.600 to 0.660 on 1,200 rows)",
        "step 2/3: validation loss 0.250, accuracy 0.900 on 64 rows, best so far",
        "all 2,000 validation rows, at step 0: loss 0.300, accuracy 0.640 (0.620 to 0.660)",
        "baseline: 8 examples in context 0.300",
    ]


def test_a_summary_says_when_the_virtual_tokens_added_nothing() -> None:
    measured = {"head_input": "mean", "why": "measured", "accuracies": {"model": 0.44, "mean": 0.63}, "rows": 2000}
    result = {
        "state": "finished", "seconds": 3.2, "reason": "all steps done", "metric": "accuracy", "value": 0.64,
        "interval": [0.62, 0.66], "best_step": 0, "steps": 200, "baseline_majority": 0.05, "baseline_zero_shot": None,
        "head": measured, "evaluation_share": 0.18, "baseline_probe": 0.63, **OF_PROBE,
    }  # fmt: skip
    assert summary(result, Path("run")).splitlines()[1:-1] == [
        "accuracy 0.640 (0.620 to 0.660) at step 0; "
        "baseline: majority 0.050, probe 0.630 (0.600 to 0.660 on 1,200 rows)",
        "The head reads the mean of the text's last hidden states, measured on 2,000 rows: mean 0.63, model 0.44.",
        NOT_IN_PEFT,
        "Probe 0.630 (0.600 to 0.660 on 1,200 rows): what this frozen model gives without virtual tokens, by a "
        "regression on what it makes of 900 training rows.",
        "Evaluations took 18% of the time.",
        "The virtual tokens added nothing here: the best step is 0, as training began.",
    ]


def test_numbers_of_a_strangers_adapter_are_only_numbers() -> None:
    strange = {"value": 0.5, "metric": "\x1b[2J", "baseline_probe": "x", "probe_interval": 3, "interval": ["a", None],
               "best_step": [], "head": {"head_input": {}, "accuracies": 3}, "few_shot_examples": "y",
               "evaluation_share": "z", "baseline_majority": float("nan")}  # fmt: skip
    assert score_lines(strange) == ["value 0.500"] and score_lines({"value": "x"}) == []
