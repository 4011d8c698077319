"""What a sweep of eight settings takes beside one of them, on the demo model and its data.

    python -m benchmarks.sweep [--steps 200] [--rounds 3] [--place front after] [--threads 1] [--json FILE]

A round is, for each place of the virtual tokens, one run, the sweep with halving and the sweep without it, one after
the other, each from loading data to the last adapter. No run stops for want of progress. Told are seconds of the
processor, which other work on the machine does not add to, the median of the rounds and, in brackets, the smallest and
the largest; times are taken round by round. *found* is the best result with halving beside that of all trials trained
to the end, and the place that the winner has among those.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from transformers.utils import logging

from benchmarks.machine import describe
from benchmarks.rounds import Spread, interleave
from ptune_core.runs.worker import train_here
from ptune_core.training.settings import RunSettings

TEMPLATES = {"front": "[P*8] {text~} [ANSWER:label]", "after": "{text~} [P*8] [ANSWER:label]"}
RATES = [3e-4, 1e-3, 2e-3, 3e-3, 5e-3, 1e-2, 2e-2, 5e-2]
ONE, HALVED, WHOLE = "one", "eight, halving", "eight"


@dataclass(frozen=True)
class Trained:
    """A command's seconds of the processor, and what it wrote."""

    seconds: float
    result: dict[str, Any]


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--place", nargs="+", choices=list(TEMPLATES), default=list(TEMPLATES))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    machine = describe()
    print(f"{machine['processor']}, {machine['cores']} cores, {arguments.threads} threads, load {machine['load']}\n")
    print("| place | command | processor s | times one | best |\n|---|---|---|---|---|", flush=True)
    found = []
    for place in arguments.place:
        rounds = measure(place, arguments.steps, arguments.rounds)
        print("\n".join(table(place, rounds)), flush=True)
        found.append({"place": place} | {name: [vars(each) for each in of] for name, of in rounds.items()})
    if arguments.json:
        arguments.json.write_text(json.dumps({"machine": machine, "results": found}, indent=1))


def measure(place: str, steps: int, rounds: int) -> dict[str, list[Trained]]:
    """Command -> what it was in every round."""
    values = {"template": TEMPLATES[place], "max_steps": steps, "patience": 0, "device": "cpu"}
    sweep = values | {"sweep": {"learning_rate": RATES}}
    commands = {ONE: values, HALVED: sweep, WHOLE: sweep | {"halving": False}}
    train(RunSettings.parse(values | {"max_steps": 1}))  # what is loaded once in a process
    return interleave({name: partial(train, RunSettings.parse(of)) for name, of in commands.items()}, rounds)


def train(settings: RunSettings) -> Trained:
    """A whole run in a folder of its own."""
    with tempfile.TemporaryDirectory() as folder:
        begun = time.process_time()
        result = train_here(settings, Path(folder) / "run")
        trained = Trained(time.process_time() - begun, result)
    print(
        f"{len(settings.trials)} trials, halving {settings.halving}: {trained.seconds:.1f} s",
        file=sys.stderr,
        flush=True,
    )
    return trained


def table(place: str, rounds: dict[str, list[Trained]]) -> list[str]:
    """A line for every command."""
    lines = []
    for name, of in rounds.items():
        seconds = Spread.of([each.seconds for each in of])
        times = Spread.of([each.seconds / one.seconds for each, one in zip(of, rounds[ONE], strict=True)])
        best = f"{of[0].result['value']:.3f}, loss {of[0].result['loss']:.4f}"
        if name == HALVED:
            order = [row["trial"] for row in rounds[WHOLE][0].result["sweep"]]
            best += f"; in full training number {order.index(of[0].result['trial']) + 1}"
        lines.append(f"| {place} | {name} | {seconds} | {times} | {best} |")
    return lines


if __name__ == "__main__":
    main()
