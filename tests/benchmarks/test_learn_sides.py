"""The benchmark of learning: its command line, data sets and clock, and its sides on a few rows.

What they reach here means nothing.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.accuracy import write_rows
from benchmarks.learn import rounds
from benchmarks.learn.__main__ import main, measure, parse_arguments
from benchmarks.learn.choice import choose
from benchmarks.learn.curves import Curve, Point
from benchmarks.learn.job import MARK, Clock, Job, Meter
from benchmarks.learn.names import DATA_SETS, SIDES
from benchmarks.learn.peft_side import learn as learn_peft
from benchmarks.learn.probe_side import PENALTIES, fit
from benchmarks.learn.problems import Problem, few_of, load
from benchmarks.learn.ptune_side import evaluations, labels_of
from benchmarks.learn.ptune_side import learn as learn_ptune
from benchmarks.learn.texts import mean_state
from benchmarks.workloads import read_rows
from ptune_core.demo import DEMO_DATA, DEMO_LABELS, DEMO_MODEL
from ptune_core.runs.worker import train_here
from ptune_core.training.loop import Evaluated
from ptune_core.training.settings import RunSettings
from ptune_core.training.trial import Trial

ROWS = read_rows(DEMO_DATA)


def job_of(folder: Path, side: str, **values: object) -> Job:
    return Job(
        **{
            "side": side, "folder": str(folder), "base_model": str(DEMO_MODEL), "virtual_tokens": 4,
            "template": "{text} [P*4] [HEAD:label]", "seed": 0, "steps": 2, "batch_size": 16, "every": 1, "rate": 0.001,
            "probe_rows": 20, **values,
        }
    )  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    Problem(ROWS[:40], ROWS[40:52], DEMO_LABELS).write(tmp_path)
    return tmp_path


def test_the_clock_stands_still_while_test_accuracy_is_measured(folder: Path) -> None:
    now, lines = [100.0], []

    def predict(texts: Sequence[str]) -> list[str]:
        now[0] += 50
        return ["positive"] * len(texts)

    clock = Clock(99.0, lambda: now[0])
    meter = Meter(job_of(folder, "ptune"), clock, lines.append)
    now[0] = 103.0
    accuracy = meter.note(7, predict)
    now[0] += 2
    meter.end(accuracy)
    assert accuracy == sum(label == "positive" for _, label in ROWS[40:52]) / 12
    point, end = [json.loads(line.removeprefix(MARK)) for line in lines]
    assert point == {"seconds": 4.0, "step": 7, "accuracy": accuracy}
    assert end == {"seconds": 6.0, "taken": accuracy}


def test_a_job_comes_back_from_its_text(folder: Path) -> None:
    job = job_of(folder, "ptune")
    assert Job.from_text(job.to_text()) == job
    assert job.rows("train") == ROWS[:40] and job.words == DEMO_LABELS


def test_few_rows_of_each_label_are_drawn_by_the_seed() -> None:
    drawn = few_of(ROWS, 16, 3)
    assert Counter(label for _, label in drawn) == {"positive": 16, "negative": 16}
    assert drawn == few_of(ROWS, 16, 3) != few_of(ROWS, 16, 4)


def test_majority_is_that_of_the_training_rows() -> None:
    assert (
        Problem([("", "b"), ("", "b"), ("", "a")], [("", "a"), ("", "a"), ("", "b"), ("", "a")], None).majority == 0.25
    )


def test_data_sets_are_read_as_they_lie_there(tmp_path: Path) -> None:
    assert load("sst2", tmp_path, 0, 5) is None
    films = tmp_path / "sst2"
    films.mkdir()
    for name in ("train", "test"):
        (films / f"{name}.tsv").write_text('a "fine film\t1\nso so\tnot much\t0\n' * 3)
    for number in (100, 13):
        (films / "fewshot16" / f"16-{number}").mkdir(parents=True)
        (films / "fewshot16" / f"16-{number}" / "train.tsv").write_text(f"sentence\tlabel\nof {number}\t1\n")
    found = load("sst2", tmp_path, 0, 5)
    assert found is not None and len(found.test) == 5 and found.words == DEMO_LABELS
    assert found.train[:2] == [('a "fine film', "positive"), ("so so\tnot much", "negative")]
    published = [load("sst2-fewshot16", tmp_path, seed, 5) for seed in (0, 1)]
    assert [problem.train for problem in published if problem] == [[("of 13", "positive")], [("of 100", "positive")]]
    few = load("sst2-16", tmp_path, 0, 5)
    assert few is not None and len(few.train) == 6 and few.test == found.test
    intents = tmp_path / "banking77"
    intents.mkdir()
    for name in ("train", "test"):
        (intents / f"{name}.csv").write_text('text,category\n"two\nlines",card\n')
    banking = load("banking77", tmp_path, 0, 5)
    assert banking is not None and banking.train == [("two\nlines", "card")] and banking.words is None


def test_the_first_seed_tries_all_rates_and_the_others_its_best(tmp_path: Path) -> None:
    plan = rounds.Plan(["demo"], ["sst2"], ["peft-lora", "ptune"], [5, 1], tmp_path, 150, 10, 100, 100)
    first, second = (rounds.Place("demo", "sst2", seed, "") for seed in plan.seeds)
    known = [
        Curve("demo", "sst2", "peft-lora", 5, rate, 0.5, (Point(1, 0, value),), value, 1.0)
        for rate, value in zip(rounds.TRIED["peft-lora"], (0.5, 0.7, 0.6), strict=True)
    ]
    assert rounds.rates(plan, first, "peft-lora", []) == (3e-4, 1e-3, 3e-3)
    assert rounds.rates(plan, second, "peft-lora", known) == [1e-3]
    assert rounds.rates(plan, second, "ptune", known) == [None]


def test_only_what_is_not_known_is_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "banking77").mkdir()
    for name in ("train", "test"):
        write_rows(tmp_path / "banking77" / f"{name}.csv", [("a", "b")])
        text = (tmp_path / "banking77" / f"{name}.csv").read_text()
        (tmp_path / "banking77" / f"{name}.csv").write_text(text.replace("label", "category"))
    run: list[str] = []

    def ran(job: Job, place: rounds.Place, majority: float) -> Curve:
        run.append(job.side)
        return Curve(place.model, place.data, job.side, place.seed, job.rate, majority, (Point(1, 0, 0.5),), 0.5, 1.0)

    monkeypatch.setattr(rounds, "run", ran)
    sides = ["ptune", "ptune-answer", "logistic-regression"]
    plan = rounds.Plan(["demo"], ["banking77", "sst2"], sides, [0], tmp_path, 150, 10, 100, 100)
    found = list(rounds.curves(plan, []))
    assert run == ["ptune", "logistic-regression"]  # no words for 77 labels, and no SST-2
    assert list(rounds.curves(plan, found)) == []


@pytest.mark.parametrize(("side", "template"), [("ptune", "HEAD"), ("ptune-answer", "ANSWER")])
def test_ptune_is_measured_at_its_own_evaluations(folder: Path, side: str, template: str) -> None:
    lines: list[str] = []
    job = job_of(folder, side, template=f"{{text}} [P*4] [{template}:label]")
    learn_ptune(job, Meter(job, Clock(0.0), lines.append))
    *points, end = [json.loads(line.removeprefix(MARK)) for line in lines]
    assert [point["step"] for point in points] == [0, 2]
    assert end["taken"] in [point["accuracy"] for point in points]
    assert end["seconds"] > points[-1]["seconds"] > points[0]["seconds"]


@pytest.mark.parametrize("target", ["HEAD", "ANSWER"])
def test_labels_are_those_of_an_evaluation_of_the_same_rows(folder: Path, target: str) -> None:
    """The benchmark reaches into the engine for them; this says when the engine has moved on."""
    values = {
        "data": str(folder / "train.csv"),
        "validation_data": str(folder / "test.csv"),
        "template": f"{{text}} [P*4] [{target}:label]",
        "max_steps": 2,
        "eval_every": 1,
    } | ({"labels": DEMO_LABELS} if target == "ANSWER" else {})
    pairs = []

    def notice(trial: Trial, event: Evaluated) -> None:
        found = labels_of(trial, [text for text, _ in ROWS[40:52]])
        right = sum(label == of for label, (_, of) in zip(found, ROWS[40:52], strict=True))
        pairs.append((right / 12, event.evaluation.value))

    with evaluations(notice):
        train_here(RunSettings.parse(values), folder / "run")
    assert len(pairs) == 3 and all(ours == pytest.approx(theirs) for ours, theirs in pairs)


@pytest.mark.parametrize("side", ["peft-p-tuning", "peft-lora", "lora-our-head"])
def test_pefts_sides_are_measured_before_and_between_steps(folder: Path, side: str) -> None:
    lines: list[str] = []
    job = job_of(folder, side)
    learn_peft(job, Meter(job, Clock(0.0), lines.append))
    *points, end = [json.loads(line.removeprefix(MARK)) for line in lines]
    assert [point["step"] for point in points] == [0, 1, 2]
    assert end["taken"] == points[-1]["accuracy"]


def test_a_mean_state_leaves_special_tokens_and_padding_out() -> None:
    class Body:
        def __call__(self, states: torch.Tensor) -> Body:
            self.last_hidden_state = states
            return self

    states = torch.tensor([[[9.0], [1.0], [3.0], [9.0]], [[9.0], [9.0], [9.0], [9.0]]])
    special = torch.tensor([[1, 0, 0, 1], [1, 1, 1, 1]])
    assert mean_state(Body(), {"states": states}, special).tolist() == [[2.0], [0.0]]


def test_a_probe_chooses_its_penalty_where_there_are_rows_to_choose_by() -> None:
    drawn = np.random.default_rng(0)
    features = np.concatenate([drawn.normal(-2, 1, (6, 3)), drawn.normal(2, 1, (6, 3))])
    labels = ["a"] * 6 + ["b"] * 6
    assert fit(features, labels).predict(features).tolist() == labels
    alone = fit(features[5:], labels[5:])
    assert alone.named_steps["logisticregression"].C == PENALTIES[2]


def test_what_was_written_is_drawn_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    curve = Curve("minilm", "ag_news", "ptune", 0, None, 0.25, (Point(9.0, 0, 0.3), Point(20.0, 50, 0.8)), 0.8, 30.0)
    found = {"arguments": {"steps": 150}, "curves": [curve.to_json()]}
    (tmp_path / "found.json").write_text(json.dumps(found))
    monkeypatch.setattr(
        sys, "argv", ["learn", "--render", str(tmp_path / "found.json"), "--pictures", str(tmp_path / "of")]
    )
    main()
    assert "### AG News, MiniLM: seeds 0" in capsys.readouterr().out
    assert {path.name for path in (tmp_path / "of").iterdir()} == {"learn-minilm-ag-news.svg", "learn-minilm.svg"}


def test_the_command_line_asks_for_data(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse_arguments([])
    assert "--data or --render" in capsys.readouterr().err
    asked = parse_arguments(["--data", "somewhere"])
    assert asked.seeds == [0, 1, 2] and asked.data_sets == list(DATA_SETS) and asked.sides == list(SIDES)


def test_a_file_is_not_gone_on_with_under_other_arguments(tmp_path: Path) -> None:
    asked = ["--data", str(tmp_path), "--json", str(tmp_path / "found.json")]
    found = {"arguments": {"steps": 149, "every": 10, "test_rows": 1000, "probe_rows": 4000}, "curves": []}
    (tmp_path / "found.json").write_text(json.dumps(found))
    with pytest.raises(SystemExit, match="name another file"):
        measure(parse_arguments(asked))


def test_where_all_rows_are_evaluated_anyway_a_run_chooses_by_them(folder: Path) -> None:
    found = choose(DEMO_MODEL, "{text} [P*4] [HEAD:label]", folder / "train.csv", ROWS[40:60], seed=0, steps=20)
    assert found.by_run == found.by_all_rows <= found.best
