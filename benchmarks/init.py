"""Initial prompts: accuracy after 50, 100 and 200 steps from every start, with every kind of prompt encoder.

    python -m benchmarks.init [--data DIR] [--seeds 0 1 2] [--learning-rate 0.01] [--steps 50 100 200] [--json FILE]

The embedded demo model on the demo's data and, if DIR has them, on SST-2 (`sst2/prepared/train.csv`, `dev.csv`) and AG
News (`ag_news/prepared/train.csv`, `test.csv`), all with the columns text and label; at most 400 rows to validate on.
Four virtual tokens after the text, batch 16, PTune's defaults for all else, no early stop. The learning rate falls to
nothing over the most steps, so an earlier step is a look at that training and not the end of a shorter one.

All starts and encoders of one seed are trials of one sweep: they see the same batches. A seed decides the start and
the order. `adapter` starts from a prompt trained with the defaults on other data: SST-2 for the demo, else the demo.
Told are mean and standard deviation over the seeds, in percent; step 0 is that of the first encoder, and the same for
all but with `random`.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from benchmarks import machine
from benchmarks.accuracy import Problem, write_rows
from benchmarks.accuracy import problems as demo_and_news
from benchmarks.training import machine_line
from benchmarks.workloads import read_rows
from ptune_core.demo import DEMO_LABELS
from ptune_core.files import read_lines
from ptune_core.prompt.kinds import EncoderKind
from ptune_core.runs.directory import RunDirectory
from ptune_core.runs.worker import train_here
from ptune_core.training.settings import PromptInit, RunSettings

TEMPLATE = "{text~} [P*4] [ANSWER:label]"
VALIDATION_ROWS = 400
SOURCE_STEPS = 100
TEXTS = {"AG News": " The topic of this news is"}
OTHER_TEXT = " All in all the film was"
SOURCES = {"demo": "SST-2"}
"""Problem -> what the adapter that it starts from was trained on; the demo unless it is told here."""


@dataclass(frozen=True)
class Plan:
    """What is tried, and after which steps it is looked at."""

    inits: Sequence[str]
    encoders: Sequence[str]
    steps: Sequence[int]
    learning_rate: float


def main() -> None:
    """Run every seed on every problem, tell each as soon as it is there, and write down all so far."""
    arguments = parse_arguments()
    torch.set_num_threads(arguments.threads)
    plan = Plan(arguments.inits, arguments.encoders, arguments.steps, arguments.learning_rate)
    found: dict[str, Any] = {"arguments": vars(arguments) | {"json": None, "data": str(arguments.data)}, "rows": []}
    found["machine"] = machine.describe()
    print(machine_line(found["machine"]), flush=True)
    chosen = {problem.name: problem for problem in problems(arguments.data)}
    with tempfile.TemporaryDirectory() as folder:
        for seed in arguments.seeds:
            for name in [name for name in arguments.problems if name in chosen]:
                found["rows"] += compare(chosen, name, plan, seed, Path(folder))
                print("\n".join(table(found["rows"], name, plan)), flush=True)
                if arguments.json:
                    arguments.json.write_text(json.dumps(found, indent=1))


def parse_arguments(given: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line of this benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names, inits, encoders = ["demo", "SST-2", "AG News"], list(PromptInit), list(EncoderKind)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--problems", nargs="+", choices=names, default=names)
    parser.add_argument("--inits", nargs="+", choices=inits, default=inits)
    parser.add_argument("--encoders", nargs="+", choices=encoders, default=encoders[:3])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--steps", type=int, nargs="+", default=[50, 100, 200])
    parser.add_argument("--learning-rate", type=float, default=RunSettings().learning_rate)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--json", type=Path)
    return parser.parse_args(given)


def problems(directory: Path | None) -> Iterator[Problem]:
    """The demo's data, and what else there is in `directory`."""
    news = directory / "ag_news" / "prepared" if directory else None
    yield from demo_and_news(news if news and news.is_dir() else None)
    if directory and (films := directory / "sst2" / "prepared").is_dir():
        validation = read_rows(films / "dev.csv")
        random.Random(0).shuffle(validation)
        yield Problem("SST-2", read_rows(films / "train.csv"), validation[:VALIDATION_ROWS], DEMO_LABELS)


def compare(chosen: dict[str, Problem], name: str, plan: Plan, seed: int, folder: Path) -> list[dict[str, Any]]:
    """Accuracy by step of every start with every encoder, for one seed of one problem."""
    inits = list(plan.inits)
    values: dict[str, Any] = {"seed": seed, "prompt_init_text": TEXTS.get(name, OTHER_TEXT)}
    if PromptInit.ADAPTER in inits:
        if other := source(chosen, name, folder):
            values["prompt_init_adapter"] = str(other)
        else:
            inits.remove(PromptInit.ADAPTER)
    values |= {"eval_every": min(plan.steps), "max_steps": max(plan.steps), "learning_rate": plan.learning_rate}
    values["halving"] = False
    values["sweep"] = {"prompt_init": inits, "encoder_reparameterization_type": list(plan.encoders)}
    out = folder / f"{name}-{seed}"
    settings = settings_of(chosen[name], folder, values)
    train(settings, out)
    rows = []
    for number, trial in enumerate(settings.trials):
        lines = read_lines(RunDirectory(out).trial(number).metrics.read_bytes())
        accuracy = {str(line["step"]): line["value"] for line in lines if line["kind"] == "eval"}
        setting = {"init": str(trial.prompt_init), "encoder": str(trial.encoder_reparameterization_type)}
        rows.append({"problem": name, "seed": seed, **setting, "accuracy": accuracy})
    return rows


def source(chosen: dict[str, Problem], name: str, folder: Path) -> Path | None:
    """The run directory of an adapter trained on other data than the problem's; None if there are no such data."""
    other = SOURCES.get(name, "demo")
    if other not in chosen:
        return None
    out = folder / f"source-{other}"
    if not out.exists():
        train(settings_of(chosen[other], folder, {"max_steps": SOURCE_STEPS}), out)
    return out


def settings_of(problem: Problem, folder: Path, values: dict[str, Any]) -> RunSettings:
    """The settings of a run on a problem, whose rows are written into `folder`."""
    files = {part: folder / f"{problem.name}-{part}.csv" for part in ("train", "validation")}
    write_rows(files["train"], problem.train)
    write_rows(files["validation"], problem.validation)
    common = {
        "data": str(files["train"]), "validation_data": str(files["validation"]), "template": TEMPLATE, "patience": 0,
        "labels": problem.words, "device": "cpu", "checkpoint_every": 1_000_000,
    }  # fmt: skip
    return RunSettings.parse(common | values)


def train(settings: RunSettings, out: Path) -> None:
    """Train through the function behind the command line."""
    result = train_here(settings, out)
    if result["error"]:
        raise SystemExit(result["error"]["text"])


def table(rows: Sequence[dict[str, Any]], name: str, plan: Plan) -> Iterator[str]:
    """What was found on one problem so far, as Markdown."""
    of_problem = [row for row in rows if row["problem"] == name]
    seeds = sorted({row["seed"] for row in of_problem})
    steps = " / ".join(map(str, plan.steps))
    yield f"\n### {name}: learning rate {plan.learning_rate:g}, seeds {', '.join(map(str, seeds))}\n"
    yield "| start | step 0 | " + " | ".join(f"{encoder}, step {steps}" for encoder in plan.encoders) + " |"
    yield "|---|---" + "|---" * len(plan.encoders) + "|"
    for init in plan.inits:
        of_init = [row for row in of_problem if row["init"] == init]
        if of_init:
            cells = [spread(of_init, plan.encoders[:1], "0")]
            for encoder in plan.encoders:
                cells.append(" / ".join(spread(of_init, [encoder], str(step)) for step in plan.steps))
            yield f"| {init} | {' | '.join(cells)} |"


def spread(rows: Sequence[dict[str, Any]], encoders: Sequence[str], step: str) -> str:
    """Mean and standard deviation over the seeds, in percent."""
    values = [100 * row["accuracy"][step] for row in rows if row["encoder"] in encoders]
    deviation = f" ±{statistics.stdev(values):.1f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.1f}{deviation}"


if __name__ == "__main__":
    main()
