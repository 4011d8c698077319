"""Examples per second of all sides of a workload, their ratios, and PTune's share of the limit."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from benchmarks import machine
from benchmarks.check import same_losses
from benchmarks.peft_side import SETUPS, PeftSide
from benchmarks.ptune_side import PTuneSide
from benchmarks.ptune_side import load as load_ours
from benchmarks.rounds import CLOCKS, Round, Spread, interleave, ratio
from benchmarks.workloads import Workload, make_data

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16}


class Sides:
    """All that is compared in one workload, loaded and ready.

    Args:
        workload: Which.
        directory: Texts, see `make_data`.
    """

    def __init__(self, workload: Workload, directory: Path | None) -> None:
        with tempfile.TemporaryDirectory() as folder:
            self.data = data = make_data(workload, directory, Path(folder))
            self.theirs = {name: PeftSide(workload, data, setup) for name, setup in SETUPS.items()}
            on_cpu = replace(workload, device="cpu")  # where PEFT's side is until it trains
            self.checked = same_losses(on_cpu, self.theirs["PEFT fp32"], load_ours(on_cpu, data, "fp32"))
            self.default = load_ours(workload, data, "auto").precision
            bases = {precision: load_ours(workload, data, precision) for precision in PRECISIONS}
        self.ours = {f"PTune {precision}": PTuneSide(base, workload, data) for precision, base in bases.items()}
        if workload.is_cached:
            for precision, base in bases.items():
                self.ours[f"PTune {precision}, first epoch"] = PTuneSide(base, workload, data, filling=True)
        shape, now = data.shape, CLOCKS[workload.clock]
        self.rates = {
            name.replace("PTune", "matmul"): machine.MatmulRate(
                side.rows_per_batch,
                shape.products,
                shape.layers,
                PRECISIONS[name.split()[1].rstrip(",")],
                now,
                workload.device,
            )
            for name, side in self.ours.items()
        }

    @property
    def tokens_per_text(self) -> float:
        """Tokens of a text without virtual tokens, on average."""
        rows = self.theirs["PEFT fp32"].rows
        return sum(len(row["input_ids"]) for row in rows) / len(rows)


def speed(workload: Workload, directory: Path | None, rounds: int) -> dict[str, Any]:
    """Measure one workload.

    Args:
        workload: Which.
        directory: Texts, see `make_data`.
        rounds: How often every side has its turn.
    """
    sides = Sides(workload, directory)
    load = machine.describe()["load"]
    everything: dict[str, Callable[[], Any]] = {name: side.round for name, side in (sides.ours | sides.theirs).items()}
    everything |= {name: rate.measure for name, rate in sides.rates.items()}
    measured = interleave(everything, rounds)
    rates: dict[str, list[float]] = {name: measured.pop(name) for name in sides.rates}
    caches = {name: round(side.cache_mib) for name, side in sides.ours.items()}
    found = {
        "name": workload.name,
        "template": workload.template,
        "batch_size": workload.batch_size,
        "examples": len(sides.data.texts),
        "tokens_per_text": round(sides.tokens_per_text, 1),
        "rows_per_batch": sides.ours["PTune fp32"].rows_per_batch,
        "text_cache_mib": caches,
        "losses_differ_by": sides.checked,
        "load": load,
        "examples_per_second": {
            name: asdict(Spread.of([each.examples_per_second for each in of])) for name, of in measured.items()
        },
        "gflop_per_second": {name: asdict(Spread.of([rate / 1e9 for rate in of])) for name, of in rates.items()},
        "ratios": {name: asdict(each) for name, each in ratios(measured, sides.default)},
        "limit": limits(measured, rates),
        "rounds": {name: [each.seconds for each in of] for name, of in measured.items()},
    }
    del sides, everything
    machine.resident_mib()  # gives back what this workload took, before the next one begins
    return found


def ratios(measured: dict[str, list[Round]], default: str) -> Iterator[tuple[str, Spread]]:
    """Name of a comparison -> how many times as fast PTune is.

    Args:
        measured: Side -> its rounds.
        default: PTune's default precision here.
    """
    for epoch in ("", ", first epoch"):
        if f"PTune fp32{epoch}" in measured:
            for precision in PRECISIONS:
                ours = measured[f"PTune {precision}{epoch}"]
                yield f"same {precision}{epoch}", ratio(ours, measured[f"PEFT {precision}"])
            yield f"as installed{epoch}", ratio(measured[f"PTune {default}{epoch}"], measured["PEFT fp32"])
            yield f"PEFT tuned{epoch}", ratio(measured[f"PTune bf16{epoch}"], measured["PEFT tuned"])


def limits(measured: dict[str, list[Round]], rates: dict[str, list[float]]) -> dict[str, Any]:
    """PTune's side -> GFLOP a step needs, examples per second at the limit, and the share of it that is reached."""
    found = {}
    for name, of in measured.items():
        if name.startswith("PTune"):
            rate = rates[name.replace("PTune", "matmul")]
            least = [each.flops / speed for each, speed in zip(of, rate, strict=True)]
            steps = [len(each.seconds) for each in of]
            found[name] = {
                "gflop_per_step": sum(each.flops for each in of) / sum(steps) / 1e9,
                "examples_per_second": asdict(
                    Spread.of([of[0].batch_size * n / seconds for n, seconds in zip(steps, least, strict=True)])
                ),
                "share": asdict(
                    Spread.of([100 * seconds / sum(each.seconds) for each, seconds in zip(of, least, strict=True)])
                ),
            }
    return found


def table(found: dict[str, Any]) -> Iterator[str]:
    """What `speed` found, as Markdown."""
    yield f"\n### {found['name']}"
    differ = max(found["losses_differ_by"].values())
    yield (
        f"`{found['template']}`, batch {found['batch_size']}, {found['examples']} texts of "
        f"{found['tokens_per_text']:.0f} tokens, {found['rows_per_batch']} rows per batch through the base model; "
        f"losses of the two sides differ by {differ:.0e}; load average {found['load'][0]}\n"
    )
    yield "| side | examples/s | limit, examples/s | share of the limit, % | GFLOP per step |"
    yield "|---|---|---|---|---|"
    for name, speeds in found["examples_per_second"].items():
        limit = found["limit"].get(name)
        rest = "| | |"
        if limit:
            rest = (
                f"{Spread(**limit['examples_per_second'])} | {Spread(**limit['share'])} | {limit['gflop_per_step']:.1f}"
            )
        yield f"| {name} | {Spread(**speeds)} | {rest} |"
    yield "\n| PTune against PEFT, unless said otherwise | times as fast |\n|---|---|"
    for name, times in found["ratios"].items():
        yield f"| {name} | {Spread(**times)} |"
    for name, rate in found["gflop_per_second"].items():
        yield f"| ({name}, GFLOP/s) | {Spread(**rate)} |"
