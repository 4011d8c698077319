"""Curves as SVG: accuracy over wall time on the left, over steps on the right, with a legend and a text alternative."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape

from benchmarks.learn.curves import Curve, counted, mean_at_seconds, mean_over_steps, mean_over_time
from benchmarks.learn.names import (
    DATA_SETS,
    LORA,
    LORA_OUR_HEAD,
    MODELS,
    P_TUNING,
    PROBE,
    PTUNE,
    PTUNE_ANSWER,
    PTUNE_DEEP,
    SIDES,
    in_order,
)
from benchmarks.learn.tables import MOMENTS, by_side, looked_at

WIDTH, HEIGHT = 960, 415
TOP, BOTTOM = 50, 300
LEFT, ACROSS, BETWEEN = 64, 390, 96
"""Left edge of the first panel, width of each, and what is between them."""

INK, GRID = "#222222", "#dddddd"

STYLES = {
    PTUNE: ("#0072b2", ""),
    PTUNE_DEEP: ("#0072b2", "6 3"),
    PTUNE_ANSWER: ("#56b4e9", "6 3"),
    P_TUNING: ("#d55e00", ""),
    LORA: ("#009e73", ""),
    LORA_OUR_HEAD: ("#cc79a7", "6 3"),
    PROBE: ("#555555", "2 3"),
}
"""Colour and dashes of each side, told apart by people who see no red or green too."""

Line = Sequence[tuple[float, float]]
"""Where a curve changes, and the accuracy from there on."""


@dataclass(frozen=True)
class Panel:
    """One pair of axes.

    Attributes:
        left: Of the plot, in pixels.
        label: Of the horizontal axis.
        end: Its largest value; the smallest is 0.
        ticks: Values that are written at it.
        low: Lowest accuracy shown.
        high: Highest.
    """

    left: float
    label: str
    end: float
    ticks: Sequence[float]
    low: float
    high: float

    def x(self, value: float) -> float:
        """Pixels from the left."""
        return self.left + ACROSS * value / self.end

    def y(self, accuracy: float) -> float:
        """Pixels from the top."""
        return BOTTOM - (BOTTOM - TOP) * (accuracy - self.low) / (self.high - self.low)

    def axes(self) -> Iterator[str]:
        """Grid, numbers and labels."""
        right, middle = self.left + ACROSS, self.left + ACROSS / 2
        for tick in accuracy_ticks(self.low, self.high):
            y = self.y(tick)
            yield f'<path d="M{self.left:.1f} {y:.1f}H{right:.1f}" stroke="{GRID}"/>'
            yield text(self.left - 6, y + 4, f"{tick:.2f}", anchor="end")
        for tick in self.ticks:
            x = self.x(tick)
            yield f'<path d="M{x:.1f} {BOTTOM}v5" stroke="{INK}"/>'
            yield text(x, BOTTOM + 20, f"{tick:g}", anchor="middle")
        yield f'<path d="M{self.left:.1f} {TOP}V{BOTTOM}H{right:.1f}" fill="none" stroke="{INK}"/>'
        yield text(middle, BOTTOM + 40, self.label, anchor="middle")
        up, half = self.left - 46, (TOP + BOTTOM) / 2
        yield text(up, half, "test accuracy", anchor="middle", more=f' transform="rotate(-90 {up:.1f} {half:.1f})"')

    def curve(self, line: Line, style: tuple[str, str], *, faint: bool = False) -> str:
        """A line that stays where it is until the next point: before a point is there, nobody has its accuracy."""
        shown = [(value, accuracy) for value, accuracy in line if value <= self.end]
        if not shown:
            return ""
        (value, accuracy), *rest = shown
        path = f"M{self.x(value):.1f} {self.y(accuracy):.1f}"
        path += "".join(f"H{self.x(value):.1f}V{self.y(accuracy):.1f}" for value, accuracy in rest)
        path += f"H{self.x(self.end):.1f}"
        color, dashes = style
        look = 'stroke-width="1" stroke-opacity="0.3"' if faint else 'stroke-width="2.2"'
        dashed = f' stroke-dasharray="{dashes}"' if dashes else ""
        return f'<path d="{path}" fill="none" stroke="{color}" {look}{dashed}/>'


def pictures(curves: Sequence[Curve], steps: int) -> dict[str, str]:
    """File name -> SVG: one for each base model and data set, and for each base model one of all its data sets.

    Args:
        curves: All that were trained, those of learning rates that were only tried too.
        steps: Most optimizer steps of each.
    """
    shown, found = counted(curves), {}
    for model in in_order(MODELS, (curve.model for curve in shown)):
        of_model = [curve for curve in shown if curve.model == model]
        for data in in_order(DATA_SETS, (curve.data for curve in of_model)):
            chosen = [curve for curve in of_model if curve.data == data]
            title = f"{DATA_SETS[data]}, {MODELS[model]}"
            found[f"learn-{model}-{data.replace('_', '-')}.svg"] = picture(title, chosen, steps)
        found[f"learn-{model}.svg"] = picture(f"Mean of all data sets, {MODELS[model]}", of_model, steps, single=False)
    return found


def picture(title: str, curves: Sequence[Curve], steps: int, *, single: bool = True) -> str:
    """Both panels as one SVG.

    Args:
        title: Stands above them.
        curves: Of learning rates that count.
        steps: Most optimizer steps of each.
        single: Whether each seed is drawn too, faintly.
    """
    lines = {side: (mean_over_time(of), mean_over_steps(of)) for side, of in by_side(curves)}
    low, high = bounds([value for pair in lines.values() for line in pair for _, value in line])
    over_time = Panel(LEFT, "seconds of wall time", MOMENTS[-1], (0, *MOMENTS), low, high)
    over_steps = Panel(LEFT + ACROSS + BETWEEN, "optimizer steps", steps, looked_at(steps), low, high)
    parts = [*head(title, curves), *over_time.axes(), *over_steps.axes()]
    for panel, of_one in ((over_time, mean_over_time), (over_steps, mean_over_steps)):
        if single:
            parts += [panel.curve(of_one([curve]), STYLES[curve.side], faint=True) for curve in curves]
    for side, (in_time, in_steps) in lines.items():
        parts += [over_time.curve(in_time, STYLES[side]), over_steps.curve(in_steps, STYLES[side])]
    return "\n".join([*filter(None, parts), *legend(list(lines)), "</svg>"]) + "\n"


def head(title: str, curves: Sequence[Curve]) -> Iterator[str]:
    """The start of the SVG, with what it says to those who do not see it."""
    told = [f"{SIDES[side]} {reading(of)}" for side, of in by_side(curves)]
    what = f"Mean test accuracy by {MOMENTS[1]} and {MOMENTS[-1]} seconds: {'; '.join(told)}."
    yield (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" '
        'role="img" aria-labelledby="title what" font-family="sans-serif" font-size="13">'
    )
    yield f'<title id="title">{escape(title)}: test accuracy over wall time and over steps</title>'
    yield f'<desc id="what">{escape(what)}</desc>'
    yield f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#ffffff"/>'
    yield text(WIDTH / 2, 28, title, anchor="middle", more=' font-size="17" font-weight="bold"')


def reading(curves: Sequence[Curve]) -> str:
    """What a side has at two moments."""
    return " and ".join(f"{mean_at_seconds(curves, moment):.3f}" for moment in (MOMENTS[1], MOMENTS[-1]))


def legend(sides: Sequence[str]) -> Iterator[str]:
    """Which line is whose, three in a row."""
    for i, side in enumerate(sides):
        x, y = LEFT + 290 * (i % 3), BOTTOM + 74 + 24 * (i // 3)
        color, dashes = STYLES[side]
        yield f'<path d="M{x} {y - 4}h34" stroke="{color}" stroke-width="3" stroke-dasharray="{dashes or "none"}"/>'
        yield text(x + 42, y, SIDES[side])


def text(x: float, y: float, words: str, *, anchor: str = "start", more: str = "") -> str:
    """A piece of text with its anchor at a place."""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{INK}"{more}>{escape(words)}</text>'


def bounds(accuracies: Sequence[float]) -> tuple[float, float]:
    """Lowest and highest accuracy to show: whole tenths around all of them."""
    low, high = math.floor(10 * min(accuracies)) / 10, math.ceil(10 * max(accuracies)) / 10
    return low, max(high, low + 0.1)


def accuracy_ticks(low: float, high: float) -> list[float]:
    """Every tenth, and of a short axis every twentieth."""
    tenths = round((high - low) * 10)
    halves = 2 if tenths <= 4 else 1
    return [low + i / (10 * halves) for i in range(tenths * halves + 1)]
