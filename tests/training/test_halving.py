"""Successive halving: who ends early, what is kept, and that a killed sweep ends as an undisturbed one."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch

from ptune_core.data.ingest import ingest_text
from ptune_core.data.table import Table, Tables
from ptune_core.model.trained import TrainedPrompt
from ptune_core.runs.live import since
from ptune_core.runs.worker import train_here
from ptune_core.training.halving import Halving
from ptune_core.training.metrics import Metric
from ptune_core.training.session import run_training
from ptune_core.training.settings import RunSettings

ROWS = "text,label\n" + "".join(
    f"{'word ' * (i % 5)}{('great', 'awful')[i % 2]} {i},{('good', 'bad')[i % 2]}\n" for i in range(40)
)
OUTDONE = "ended early, since others did better"


@dataclass(eq=False)
class FakeTrial:
    """A trial as halving sees it: `at[i]` is its accuracy at rung i, as far as it has come."""

    at: list[float]
    rate: float = 0.01
    seed: int = 0
    ended: object = None
    trainer: object = field(default_factory=object)

    @property
    def settings(self) -> RunSettings:
        return RunSettings.parse({"learning_rate": self.rate, "seed": self.seed})

    @property
    def best(self) -> tuple[float, float]:
        return self.at[-1], 1.0

    def standing(self, rung: int) -> tuple[float, float] | None:
        known = self.at if self.ended is None else [*self.at, *self.at[-1:] * 3]
        return (known[rung], 1.0) if rung < len(known) else None


def ending(halving: Halving, trials: list[Any]) -> list[int]:
    outdone = halving.outdone()
    return [number for number, trial in enumerate(trials) if trial.trainer in outdone]


def rates(*accuracies: list[float]) -> list[Any]:
    return [FakeTrial(at, rate=0.001 * (i + 1)) for i, at in enumerate(accuracies)]


def test_eight_become_four_two_and_one() -> None:
    trials = rates(*([0.1 * i] for i in range(8)))
    halving = Halving(Metric.ACCURACY, 8)
    halving.begin(trials)
    assert ending(halving, trials) == [0, 1, 2, 3]
    for trial in trials[4:]:
        trial.at.append(1 - trial.at[0])
    assert ending(halving, trials) == [0, 1, 2, 3, 6, 7], "what they reach later counts at the next rung"
    trials[4].at.append(0.9), trials[5].at.append(0.8)
    assert ending(halving, trials) == [0, 1, 2, 3, 5, 6, 7]
    assert halving.going_on == [trials[4]]


@pytest.mark.parametrize(("count", "first"), [(1, None), (2, 2), (3, 1), (4, 1), (5, 0)])
def test_fewer_settings_are_compared_later(count: int, first: int | None) -> None:
    trials = rates(*([0.1 * i] for i in range(count)))
    halving = Halving(Metric.ACCURACY, count)
    halving.begin(trials)
    while not ending(halving, trials) and len(trials[0].at) < 3:
        for trial in trials:
            trial.at.append(trial.at[-1])
    assert (len(trials[0].at) - 1 if ending(halving, trials) else None) == first


def test_of_losses_the_lower_go_on() -> None:
    trials = rates([0.0, 0.0, 2.0], [0.0, 0.0, 1.0])
    halving = Halving(Metric.LOSS, 2)
    halving.begin(trials)
    assert ending(halving, trials) == [0]


def test_trials_that_differ_in_the_seed_alone_go_on_or_end_together() -> None:
    trials: list[Any] = [
        FakeTrial([0, 0, value], rate, seed)
        for rate, values in ((0.01, (0.9, 0.3)), (0.02, (0.7, 0.6))) for seed, value in enumerate(values)
    ]  # fmt: skip
    halving = Halving(Metric.ACCURACY, 2)
    halving.begin(trials)
    assert ending(halving, trials) == [0, 1], "the best of them has the worse mean"


def test_one_is_waited_for_that_has_further_to_go_after_a_kill() -> None:
    trials = rates([0.5, 0.5, 0.5, 0.9], [0.4, 0.4])
    halving = Halving(Metric.ACCURACY, 2)
    halving.begin(trials)
    assert ending(halving, trials) == []
    trials[1].at.append(0.6)
    assert ending(halving, trials) == [0], "what came after the rung does not count"


def test_one_that_ended_by_itself_stands_with_what_it_has() -> None:
    trials = rates([0.9], [0.5, 0.5, 0.5])
    trials[0].ended = "no better result for a while"
    halving = Halving(Metric.ACCURACY, 2)
    halving.begin(trials)
    assert ending(halving, trials) == [1]


def test_those_that_train_later_are_compared_with_those_before() -> None:
    halving = Halving(Metric.ACCURACY, 8)
    ended = []
    for i, at in enumerate([[0.5, 0.6, 0.7], [0.4], [0.6, 0.5], [0.45], [0.8, 0.9, 0.95]]):
        trials: list[Any] = [FakeTrial(at, rate=0.001 * (i + 1))]
        halving.begin(trials)
        ended.append(ending(halving, trials))
        trials[0].ended = "all steps done"
    assert ended == [[], [0], [0], [0], []]


class Killed(Exception):
    """Stands for a process that is gone."""


class Sweep:
    """A sweep in one directory, however often it is killed."""

    def __init__(self, directory: Path, base: Path, **changes: Any) -> None:
        values = {
            "base_model": str(base), "data": "pasted", "template": "{text} [P*2][ANSWER:label]", "max_steps": 16,
            "eval_every": 2, "checkpoint_every": 3, "batch_size": 4, "encoder_hidden_size": 16, "device": "cpu",
            "precision": "fp32", "sweep": {"learning_rate": [1e-5, 0.03, 1e-4, 0.01]}, "patience": 0,
        }  # fmt: skip
        self.settings = RunSettings.parse(values | changes)
        self.directory = directory
        self.lines: list[dict[str, Any]] = []
        self.exported: dict[Path, TrainedPrompt] = {}

    def train(self, table: Table, kill_after: int | None = None) -> dict[str, Any]:
        left = kill_after

        def report(line: dict[str, Any]) -> None:
            nonlocal left
            self.lines.append(line)
            if left is not None and line["kind"] != "tokens":
                left -= 1
                if left == 0:
                    raise Killed

        def export(trained: TrainedPrompt, directory: Path) -> None:
            self.exported[directory.relative_to(self.directory)] = trained

        return run_training(
            self.settings, Tables(table), self.directory, should_stop=lambda: False, report=report, export=export
        )

    def steps(self, trial: int) -> list[int]:
        return [line["step"] for line in self.lines if line["kind"] == "step" and line["trial"] == trial]


@pytest.fixture
def table(tmp_path: Path) -> Table:
    return ingest_text(ROWS, tmp_path / "data")


def test_the_worse_half_ends_early_and_every_adapter_is_kept(tmp_path: Path, tiny_llama: Path, table: Table) -> None:
    sweep = Sweep(tmp_path / "run", tiny_llama)
    result = sweep.train(table)
    assert [len(sweep.steps(row["trial"])) for row in result["sweep"]][:2] == [16, 8]
    assert sorted(row["steps"] for row in result["sweep"]) == [4, 4, 8, 16]
    assert [row["reason"] for row in result["sweep"]] == ["all steps done"] + [OUTDONE] * 3
    assert set(sweep.exported) == {Path("."), *(Path("sweep") / f"0{i}" for i in (1, 2, 3, 4))}
    going_on = [line["trials"] for line in sweep.lines if line["kind"] == "phase" and line["phase"] == "training"]
    assert [len(trials) for trials in going_on] == [4, 2, 1]
    assert going_on[-1] == [result["trial"]]


def killed_again_and_again(tmp_path: Path, base: Path, table: Table, **changes: Any) -> Sweep:
    """A sweep in pieces, which must end as an undisturbed one: after a kill its trials have other company."""
    whole, parts = (Sweep(tmp_path / name, base, **changes) for name in ("whole", "parts"))
    expected = whole.train(table)
    assert any(row["reason"] == OUTDONE for row in expected["sweep"])
    # Between the evaluations of the first rung, twice, just after it, and before the second.
    for kill_after in (44, 17, 24, 30):
        with pytest.raises(Killed):
            parts.train(table, kill_after)
    result = parts.train(table)
    assert without_seconds(result) == without_seconds(expected)
    for place, trained in whole.exported.items():
        assert torch.equal(parts.exported[place].prompt_embeddings, trained.prompt_embeddings)
    return parts


@pytest.mark.parametrize("head", [False, True])
def test_a_sweep_killed_again_and_again_ends_as_an_undisturbed_one(
    tmp_path: Path, tiny_gpt2: Path, table: Table, head: bool
) -> None:
    changes = {"template": "[P*2] {text} [HEAD:label]"} if head else {}
    parts = killed_again_and_again(tmp_path, tiny_gpt2, table, **changes)
    resumed_at = {line["step"] for line in parts.lines if line["kind"] == "resume"}
    assert head or {3, 4} <= resumed_at, "some that had ended, and some that had to come as far again"


@pytest.mark.parametrize("changes", [{"batch_size": 1}, {"batch_size": 2, "labels": {}}], ids=["one row", "free text"])
def test_so_does_one_whose_batches_are_small(
    tmp_path: Path, tiny_llama: Path, table: Table, changes: dict[str, Any]
) -> None:
    """Bug: a row that was alone in its batch was multiplied by another library than one that had company."""
    killed_again_and_again(tmp_path, tiny_llama, table, **changes)


def without_seconds(result: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in result.items() if name not in ("seconds", "evaluation_share")}


def test_classification_heads_train_one_after_the_other_and_are_compared_with_those_before(
    tmp_path: Path, tiny_gpt2: Path, table: Table
) -> None:
    sweep = Sweep(tmp_path / "run", tiny_gpt2, template="[P*2] {text} [HEAD:label]")
    result = sweep.train(table)
    steps = {row["trial"]: row["steps"] for row in result["sweep"]}
    assert steps[0] == 16, "there was nobody to compare it with"
    assert result["trial"] != 0 and steps[2] == 4, "next to no learning, after one that learned"


def test_seeds_alone_are_never_compared(tmp_path: Path, tiny_llama: Path, table: Table) -> None:
    sweep = Sweep(tmp_path / "run", tiny_llama, sweep={"seed": [0, 1, 2, 3]}, max_steps=8)
    result = sweep.train(table)
    assert [row["steps"] for row in result["sweep"]] == [8, 8, 8, 8]
    values = torch.tensor([row["value"] for row in result["sweep"]])
    [row] = result["over_seeds"]
    assert (row["mean"], row["std"]) == pytest.approx((float(values.mean()), float(values.std())))
    assert row["settings"] == {} and not row["ended_early"]


def test_seeds_of_a_setting_share_their_batches(tmp_path: Path, tiny_llama: Path, table: Table) -> None:
    values = {"seed": [0, 1, 2], "learning_rate": [1e-5, 0.03, 1e-4, 0.01]}
    sweep = Sweep(tmp_path / "run", tiny_llama, sweep=values, max_steps=4)
    result = sweep.train(table)
    groups = [line["trials"] for line in sweep.lines if line["kind"] == "phase" and line["phase"] == "training"]
    assert [0, 4, 8, 1, 5, 9] in groups and [2, 6, 10, 3, 7, 11] in groups
    assert [len(row["trials"]) for row in result["over_seeds"]] == [3, 3, 3, 3]


def test_without_halving_all_train_to_the_end(tmp_path: Path, tiny_llama: Path, table: Table) -> None:
    result = Sweep(tmp_path / "run", tiny_llama, halving=False).train(table)
    assert [row["steps"] for row in result["sweep"]] == [16, 16, 16, 16]


def test_the_runs_curve_is_that_of_a_trial_that_goes_on(tmp_path: Path, tiny_llama: Path) -> None:
    """The first trial's curve stood still when it ended early, at step 4 of 16, while others trained on."""
    (tmp_path / "data.csv").write_text(ROWS)
    settings = Sweep(tmp_path / "run", tiny_llama, data=str(tmp_path / "data.csv")).settings
    shown: list[dict[str, Any]] = []
    result = train_here(settings, tmp_path / "run", report=shown.append)
    best = result["trial"]
    assert best != 0
    lines = lines_of(tmp_path / "run" / "metrics.jsonl")
    theirs = lines_of(tmp_path / "run" / "sweep" / f"{best + 1:02d}" / "metrics.jsonl")
    for kind in ("baseline", "step", "eval", "sample"):
        assert [line for line in lines if line["kind"] == kind] == [line for line in theirs if line["kind"] == kind]
    assert [line["kind"] for line in lines].count("plan") == 1
    page = since(tmp_path / "run", 0, 0)
    assert page["steps"]["x"] == list(range(1, 17)) and page["progress"]["step"] == 16
    assert [line["to"] for line in shown if line["kind"] == "follow"][-1] == best


def lines_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]
