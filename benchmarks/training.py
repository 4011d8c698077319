"""Training speed and memory: PTune beside stock PEFT + transformers' Trainer.

    python -m benchmarks.training [--workload NAME ...] [--data DIR] [--rounds 5] [--threads N] [--json FILE]
    python -m benchmarks.training --device cuda ...
    python -m benchmarks.training --part memory | accuracy ...

Both sides in one process: same weights, texts, batch size, precision and threads, each through its own real loop. A
round is some steps of every side in turn; told are the median of the rounds and, in brackets, the smallest and the
largest. Ratios are taken round by round. The first step of each round is not timed.

- *same fp32*, *same bf16*: PEFT with the Trainer's defaults, its base model loaded in this precision.
- *as installed*: PTune's default precision against what `from_pretrained` and the Trainer do by themselves (fp32).
- *PEFT tuned*: bf16, batches by length, no dropout; PTune in bf16 against it.
- *later epochs*: the text cache is full. *first epoch*: it is filled on the way.
- *limit*: the FLOPs a step cannot do without (`benchmarks.flops` counts them) divided by this machine's rate for matrix
  products of the same sizes, measured in the same rounds; *share* is PTune's speed as a part of it.

PEFT can only put its prompt in front, so that is what its side trains in every workload. PEFT's loss is over the whole
vocabulary, PTune's over the labels' words; that both compute the same from the same prompt, either way, is checked
first. DIR holds `train.csv` with the columns text and label; without it texts of the same lengths are made up.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from transformers.utils import logging

from benchmarks import machine
from benchmarks.memory import memory
from benchmarks.memory import table as memory_table
from benchmarks.rounds import CLOCKS
from benchmarks.speed import speed
from benchmarks.speed import table as speed_table
from benchmarks.workloads import WORKLOADS


def main() -> None:
    """Measure what was asked for, print it and write it down."""
    arguments = parse_arguments()
    torch.set_num_threads(arguments.threads)
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    chosen = [workload for workload in WORKLOADS if workload.name in arguments.workload]
    if arguments.tiny:
        chosen = [workload.small for workload in chosen]
    if steps := arguments.steps_per_round:
        chosen = [replace(each, peft_steps=steps, ptune_steps=steps) for each in chosen]
    chosen = [replace(each, clock=arguments.clock, device=arguments.device) for each in chosen]
    found: dict[str, Any] = {
        "arguments": vars(arguments) | {"json": None, "data": str(arguments.data)},
        "machine": machine.describe(),
    }
    print(machine_line(found["machine"]), flush=True)
    if arguments.part == "accuracy":
        # Not at the top: the engine's worker and its processes are needed here alone.
        from benchmarks import accuracy

        plan = accuracy.Plan(arguments.steps, arguments.seeds, arguments.clock)
        of = (accuracy.accuracy(each, plan) for each in accuracy.problems(arguments.data))
        found["accuracy"] = show(of, accuracy.table)
    elif arguments.part == "memory":
        found["memory"] = show((memory(each, arguments.data) for each in chosen), memory_table)
    else:
        found["workloads"] = show((speed(each, arguments.data, arguments.rounds) for each in chosen), speed_table)
    found["load_after"] = machine.describe()["load"]
    print(f"\nLoad average afterwards: {found['load_after']}")
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=1))


def show(results: Iterable[dict[str, Any]], table: Callable[[dict[str, Any]], Iterator[str]]) -> list[dict[str, Any]]:
    """Print each result as soon as it is there."""
    found = []
    for result in results:
        print("\n".join(table(result)), flush=True)
        found.append(result)
    return found


def parse_arguments() -> argparse.Namespace:
    """The command line of this benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = [workload.name for workload in WORKLOADS]
    parser.add_argument("--workload", nargs="+", choices=names, default=names, metavar="NAME", help=", ".join(names))
    parser.add_argument("--part", choices=["speed", "memory", "accuracy"], default="speed")
    parser.add_argument("--data", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps-per-round", type=int, help="of both sides; default: as the workload says")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument(
        "--clock", choices=list(CLOCKS), default="wall", help="cpu only means something with --threads 1"
    )
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu", help="of both sides of --part speed")
    parser.add_argument("--steps", type=int, default=200, help="of each training of --part accuracy")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], help="of --part accuracy")
    parser.add_argument("--tiny", action="store_true", help="two narrow layers, to try the benchmark itself")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    if arguments.part != "speed" and arguments.device != "cpu":
        parser.error("--device is for --part speed")
    return arguments


def machine_line(described: dict[str, Any]) -> str:
    """The machine in one paragraph."""
    versions = ", ".join(f"{name} {version}" for name, version in described["versions"].items())
    return (
        f"{described['date']}: {described['processor']}, {described['cores']} cores, {described['threads']} threads, "
        f"GPU {described['gpu']}, bf16 {described['bf16']}, {described['memory_gib']} GiB; "
        f"Python {described['python']}, {versions}; load average {described['load']}"
    )


if __name__ == "__main__":
    main()
