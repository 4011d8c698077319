"""What was found, as Markdown."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence

from benchmarks.learn.curves import Curve, counted, mean_at_seconds, mean_at_step
from benchmarks.learn.names import DATA_SETS, MODELS, SIDES, in_order

MOMENTS = (15, 30, 60, 120)
"""Seconds at which tables look."""


def looked_at(steps: int) -> list[int]:
    """Steps at which tables look: the start and each third of the training."""
    return sorted({round(steps * third / 3) for third in range(4)})


def tables(curves: Sequence[Curve], steps: int) -> Iterator[str]:
    """Lines of a table for every base model and data set, and of a summary for every base model.

    Args:
        curves: All that were trained, those of learning rates that were only tried too.
        steps: Most optimizer steps of each.
    """
    shown = counted(curves)
    for model in in_order(MODELS, (curve.model for curve in shown)):
        of_model = [curve for curve in shown if curve.model == model]
        for data in in_order(DATA_SETS, (curve.data for curve in of_model)):
            yield from table([curve for curve in of_model if curve.data == data], steps)
        yield from summary(of_model)


def table(curves: Sequence[Curve], steps: int) -> Iterator[str]:
    """The sides on one base model and data set: accuracy by steps and by wall time, means over the seeds."""
    at = looked_at(steps)
    seeds = sorted({curve.seed for curve in curves})
    yield f"\n### {DATA_SETS[curves[0].data]}, {MODELS[curves[0].model]}: seeds {', '.join(map(str, seeds))}\n"
    heads = ["side", *(f"step {step}" for step in at), *(f"{moment} s" for moment in MOMENTS), "what it ends with"]
    yield f"| {' | '.join(heads)} |"
    yield "|---" * len(heads) + "|"
    for side, of_side in by_side(curves):
        rate = of_side[0].rate
        cells = [SIDES[side] + ("" if rate is None else f", {rate:g}")]
        cells += [f"{mean_at_step(of_side, step):.3f}" for step in at]
        cells += [f"{mean_at_seconds(of_side, moment):.3f}" for moment in MOMENTS]
        seconds = statistics.fmean(curve.seconds for curve in of_side)
        cells.append(f"{statistics.fmean(curve.taken for curve in of_side):.3f} after {seconds:.0f} s")
        yield f"| {' | '.join(cells)} |"


def summary(curves: Sequence[Curve]) -> Iterator[str]:
    """The sides on one base model by wall time: means over data sets and seeds."""
    yield f"\n### All data sets, {MODELS[curves[0].model]}\n"
    heads = ["side", "data sets", *(f"{moment} s" for moment in MOMENTS)]
    yield f"| {' | '.join(heads)} |"
    yield "|---" * len(heads) + "|"
    for side, of_side in by_side(curves):
        data = in_order(DATA_SETS, (curve.data for curve in of_side))
        groups = [[curve for curve in of_side if curve.data == name] for name in data]
        # Data sets count alike, however many seeds of each there are so far.
        means = [statistics.fmean(mean_at_seconds(group, moment) for group in groups) for moment in MOMENTS]
        yield f"| {SIDES[side]} | {len(data)} | {' | '.join(f'{value:.3f}' for value in means)} |"


def by_side(curves: Sequence[Curve]) -> Iterator[tuple[str, list[Curve]]]:
    """Each side that has curves, in the order of `SIDES`, with its curves."""
    for side in in_order(SIDES, (curve.side for curve in curves)):
        yield side, [curve for curve in curves if curve.side == side]
