"""Whether a sample of the validation rows chooses the best step as well as all of them do.

    python -m benchmarks.learn.choice --data DIR [--data-sets sst2 banking77 ag_news] [--seeds 0 1 2] [--steps 150]

A run with defaults evaluates a sample between steps, and all rows at its end (training/evaluating.py). Here all
validation rows and the test rows are evaluated beside each of its evaluations too. Printed is the test accuracy of the
step that the run took home, of the step that all validation rows found best, and of the best step there was. MiniLM;
DIR as in `benchmarks.learn`. Nothing is chosen by test rows.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean

from benchmarks.learn.names import DATA_SETS
from benchmarks.learn.problems import base_model, load
from benchmarks.learn.ptune_side import evaluations, labels_of
from ptune_core.runs.worker import train_here
from ptune_core.training.loop import Evaluated
from ptune_core.training.settings import RunSettings
from ptune_core.training.tasks import LabelTask
from ptune_core.training.trial import Trial


@dataclass(frozen=True)
class Choice:
    """Test accuracy by which step is taken home.

    Attributes:
        by_run: That of the run.
        by_all_rows: The first with the highest accuracy on all validation rows.
        best: The highest there was; nobody can know it.
    """

    by_run: float
    by_all_rows: float
    best: float


def choose(base: Path, template: str, train: Path, test: Sequence[tuple[str, str]], seed: int, steps: int) -> Choice:
    """Train once, and see what each way to choose would have taken home.

    Raises:
        SystemExit: The run failed, with its reason.
    """
    texts, gold = [text for text, _ in test], [label for _, label in test]
    on_test: dict[int, float] = {}
    on_all: dict[int, float] = {}

    def notice(trial: Trial, event: Evaluated) -> None:
        task = trial.lesson.task
        assert isinstance(task, LabelTask)
        named = labels_of(trial, texts)
        on_test[event.step] = mean(float(a == b) for a, b in zip(named, gold, strict=True))
        on_all[event.step] = task.evaluate(trial.trainer.prompt()).value

    settings = RunSettings.parse(
        {"base_model": str(base), "data": str(train), "template": template, "max_steps": steps, "seed": seed}
    )
    with tempfile.TemporaryDirectory() as folder, evaluations(notice):
        result = train_here(settings, Path(folder) / "run")
    if result["error"]:
        raise SystemExit(result["error"]["text"])
    best_of_all = max(on_all, key=lambda step: (on_all[step], -step))
    return Choice(on_test[result["best_step"]], on_test[best_of_all], max(on_test.values()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    names = ["sst2", "banking77", "ag_news"]
    parser.add_argument("--data-sets", nargs="+", choices=list(DATA_SETS), default=names, metavar="NAME")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--test-rows", type=int, default=1000)
    arguments = parser.parse_args()
    print("| data | seed | the run's choice | by all validation rows | best there was |\n|---|---|---|---|---|")
    found: list[Choice] = []
    for name in arguments.data_sets:
        for seed in arguments.seeds:
            problem = load(name, arguments.data, seed, arguments.test_rows)
            if problem is None:
                raise SystemExit(f"{name} is not in {arguments.data}")
            with tempfile.TemporaryDirectory() as folder:
                problem.write(Path(folder))
                train = Path(folder) / "train.csv"
                template = "[P*20] {text} [HEAD:label]"
                one = choose(base_model("minilm"), template, train, problem.test, seed, arguments.steps)
            found.append(one)
            print(f"| {name} | {seed} | {one.by_run:.3f} | {one.by_all_rows:.3f} | {one.best:.3f} |", flush=True)
    means = (mean(getattr(each, name) for each in found) for name in ("by_run", "by_all_rows", "best"))
    print("| mean | | " + " | ".join(f"{value:.4f}" for value in means) + " |")


if __name__ == "__main__":
    main()
