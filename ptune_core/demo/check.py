"""Measure the demo again and compare with `numbers.json`: `python -m ptune_core.demo.check`.

It trains the demo as a visitor does, with the command line and its defaults, classifies the handwritten sentences with
the adapter, and exits with 1 if a number of the card no longer holds. `--write` stores what was measured instead.
"""

import argparse
import csv
import json
import math
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from ptune_core.demo import DEMO_MODEL, HANDWRITTEN

NUMBERS = Path(__file__).resolve().parent / "numbers.json"
TOLERANCE = {"held_out": 0.03, "zero_shot": 0.03, "majority": 0.001, "handwritten": 0.05}
"""How far a measurement may be from the card: other processors round differently."""

MINIMUM_LIFT = 0.30
MAXIMUM_SECONDS = 90.0


def command_line(*arguments: str | Path) -> None:
    """Run a command of PTune; its progress goes to stderr."""
    # Threads that sleep while they wait: on a busy machine the same training takes a quarter of the time.
    environment = {"OMP_WAIT_POLICY": "PASSIVE"} | os.environ
    command = [sys.executable, "-m", "ptune_core", *map(str, arguments)]
    subprocess.run(command, check=True, stdout=sys.stderr, env=environment)


def rows(path: Path) -> list[dict[str, str]]:
    """The rows of a CSV file."""
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def handwritten_accuracy(run: Path, folder: Path) -> float:
    """Share of the handwritten sentences that the adapter of `run` labels right."""
    known, given, answered = rows(HANDWRITTEN), folder / "texts.csv", folder / "labelled.csv"
    with given.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerows([["text"], *([row["text"]] for row in known)])
    command_line("classify", run, "--input", given, "--output", answered)
    labelled = rows(answered)
    return sum(a["label"] == b["label"] for a, b in zip(known, labelled, strict=True)) / len(known)


def measure() -> dict[str, float]:
    """Train and classify; every number that can change with the model, the data or the software."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        command_line("train", "--out", folder / "run")
        result = json.loads((folder / "run" / "result.json").read_text(encoding="utf-8"))
        measured = {
            "held_out": result["value"],
            "zero_shot": result["baseline_zero_shot"],
            "majority": result["baseline_majority"],
            "handwritten": handwritten_accuracy(folder / "run", folder),
            "seconds": result["seconds"],
        }
    measured["weights_bytes"] = (DEMO_MODEL / "model.safetensors").stat().st_size
    return {key: round(value, 4) for key, value in measured.items()}


def problems(measured: dict[str, float], stated: dict[str, float]) -> list[str]:
    """What of the card does not hold."""
    found = [
        f"{key}: measured {measured[key]}, the card says {stated[key]}"
        for key, allowed in TOLERANCE.items()
        if not math.isclose(measured[key], stated[key], abs_tol=allowed)
    ]
    if measured["weights_bytes"] != stated["weights_bytes"]:
        found.append("the weights are not those of the card")
    if measured["held_out"] - max(measured["zero_shot"], measured["majority"]) < MINIMUM_LIFT:
        found.append(f"P-tuning lifts the accuracy by less than {MINIMUM_LIFT}")
    if measured["seconds"] > MAXIMUM_SECONDS:
        found.append(f"it took {measured['seconds']} seconds, more than {MAXIMUM_SECONDS} (is the machine busy?)")
    return found


def main(argv: list[str]) -> int:
    """Compare, or write with `--write`."""
    parser = argparse.ArgumentParser(prog="python -m ptune_core.demo.check", description=__doc__)
    parser.add_argument("--write", action="store_true", help="store the measurement in numbers.json")
    arguments = parser.parse_args(argv)
    measured = measure()
    stated = json.loads(NUMBERS.read_text(encoding="utf-8")) if NUMBERS.exists() else {}
    if arguments.write:
        NUMBERS.write_text(json.dumps(stated | measured, indent=2) + "\n", encoding="utf-8")
        return 0
    found = problems(measured, stated)
    for key, value in measured.items():
        print(f"{key:14} measured {value}  card {stated.get(key)}")
    print("\n".join(found) or "every number of the card holds")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
