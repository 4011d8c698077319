"""Every side of every seed in turn, each in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from benchmarks.accuracy import RATES
from benchmarks.learn.curves import Curve, Point, best_rate
from benchmarks.learn.job import MARK, Job
from benchmarks.learn.names import CHILD, LORA, LORA_OUR_HEAD, P_TUNING, PTUNE_ANSWER
from benchmarks.learn.problems import Problem, base_model, load
from ptune_core.training.settings import RunSettings

TRIED = {P_TUNING: RATES["PEFT P-tuning"], LORA: RATES["PEFT LoRA"], LORA_OUR_HEAD: RATES["PEFT LoRA"]}
"""Learning rates of the sides that have none of their own."""

HEADS = {"minilm": (20, "[P*20] {text} [HEAD:label]"), "demo": (20, "[P*20] {text} [HEAD:label]")}
"""Virtual tokens and PTune's template on each base model."""

ANSWER_WORDS = "{text} [P*8] [ANSWER:label]"


@dataclass(frozen=True)
class Plan:
    """What is measured.

    Attributes:
        models: Keys of base models.
        data_sets: Keys of data sets.
        sides: Keys of sides.
        seeds: The first is the one that learning rates are tried with.
        data: Holds a folder for each data set.
        steps: Optimizer steps of each training at most.
        every: Steps between two points of PEFT's sides.
        test_rows: Rows the accuracy is measured on at most.
        probe_rows: Training rows of logistic regression at most.
    """

    models: Sequence[str]
    data_sets: Sequence[str]
    sides: Sequence[str]
    seeds: Sequence[int]
    data: Path
    steps: int
    every: int
    test_rows: int
    probe_rows: int

    def job(self, model: str, side: str, seed: int, rate: float | None, folder: str) -> Job:
        """What a side is told to do with the rows in a folder."""
        tokens, of_head = HEADS[model]
        template = ANSWER_WORDS if side == PTUNE_ANSWER else of_head
        return Job(
            side=side,
            folder=folder,
            base_model=str(base_model(model)),
            virtual_tokens=tokens,
            template=template,
            seed=seed,
            steps=self.steps,
            batch_size=RunSettings(template=template).examples_per_batch,
            every=self.every,
            rate=rate,
            probe_rows=self.probe_rows,
        )


def curves(plan: Plan, known: Sequence[Curve]) -> Iterator[Curve]:
    """Each curve of the plan that is not known yet, as soon as it is there, told in a line."""
    every = list(known)
    for seed in plan.seeds:
        for data in plan.data_sets:
            problem = load(data, plan.data, seed, plan.test_rows)
            if problem is None:
                print(f"{data} was not found in {plan.data}, skipped", flush=True)
                continue
            with tempfile.TemporaryDirectory() as folder:
                problem.write(Path(folder))
                for model in plan.models:
                    for curve in of_seed(plan, problem, Place(model, data, seed, folder), every):
                        tell(curve)
                        every.append(curve)
                        yield curve


@dataclass(frozen=True)
class Place:
    """Where a side is measured: base model, data set and seed by their keys, and the folder with the rows."""

    model: str
    data: str
    seed: int
    folder: str


def of_seed(plan: Plan, problem: Problem, place: Place, known: Sequence[Curve]) -> Iterator[Curve]:
    """The curves of one seed on one base model and data set that are not known yet, one side after the other."""
    keys = {curve.key for curve in known}
    for side in plan.sides:
        if side == PTUNE_ANSWER and (place.model != "demo" or problem.words is None):
            continue
        for rate in rates(plan, place, side, known):
            if (place.model, place.data, side, place.seed, rate) not in keys:
                yield run(plan.job(place.model, side, place.seed, rate, place.folder), place, problem.majority)


def rates(plan: Plan, place: Place, side: str, known: Sequence[Curve]) -> Sequence[float | None]:
    """Learning rates a side is run with: all with the first seed, then the one that was best."""
    tried = TRIED.get(side)
    if tried is None:
        return [None]
    if place.seed == plan.seeds[0]:
        return tried
    where = (place.model, place.data, side, plan.seeds[0])
    return [best_rate([curve for curve in known if curve.key[:4] == where])]


def run(job: Job, place: Place, majority: float) -> Curve:
    """One side from the start of its process to its end.

    Raises:
        SystemExit: It failed, with the end of what it said.
    """
    command = [sys.executable, "-m", "benchmarks.learn", CHILD]
    done = subprocess.run([*command, repr(time.time()), job.to_text()], capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{job.side}, {place.data}, {place.model} failed:\n{done.stderr[-3000:]}")
    *points, end = [json.loads(line.removeprefix(MARK)) for line in done.stdout.splitlines() if line.startswith(MARK)]
    make = partial(Curve, place.model, place.data, job.side, place.seed, job.rate, majority)
    return make(tuple(Point(**point) for point in points), **end)


def tell(curve: Curve) -> None:
    """One line about a curve."""
    rate = "" if curve.rate is None else f", learning rate {curve.rate:g}"
    what = f"{curve.model}, {curve.data}, seed {curve.seed}, {curve.side}{rate}"
    steps = curve.points[-1].step
    print(f"{what}: {curve.taken:.3f} after {steps} steps and {curve.seconds:.1f} s", flush=True)
