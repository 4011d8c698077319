"""The benchmark of learning: how it reads curves, and what its tables and pictures say of them."""

from __future__ import annotations

import json
import xml.etree.ElementTree as xml
from dataclasses import replace

import pytest

from benchmarks.learn.curves import (
    Curve,
    Point,
    best_rate,
    counted,
    mean_at_seconds,
    mean_over_steps,
    mean_over_time,
)
from benchmarks.learn.names import SIDES
from benchmarks.learn.pictures import STYLES, accuracy_ticks, bounds, pictures
from benchmarks.learn.tables import looked_at, tables

CURVE = Curve(
    model="minilm",
    data="ag_news",
    side="ptune",
    seed=0,
    rate=None,
    majority=0.25,
    points=(Point(10.0, 0, 0.3), Point(20.0, 50, 0.8), Point(40.0, 100, 0.7)),
    taken=0.8,
    seconds=50.0,
)
OTHER = replace(CURVE, seed=1, points=(Point(12.0, 0, 0.5), Point(25.0, 60, 0.6)), taken=0.6, seconds=25.0)


def lora(rate: float, seed: int, *accuracies: float) -> Curve:
    points = tuple(Point(30.0 * (i + 1), 75 * i, value) for i, value in enumerate(accuracies))
    return replace(
        CURVE, side="peft-lora", seed=seed, rate=rate, points=points, taken=accuracies[-1], seconds=points[-1].seconds
    )


LORAS = [lora(0.001, 0, 0.2, 0.5, 0.8), lora(0.003, 0, 0.2, 0.7, 0.8), lora(0.003, 1, 0.2, 0.6, 0.9)]


@pytest.mark.parametrize(
    ("seconds", "accuracy"),
    [(0, 0.25), (9.9, 0.25), (10, 0.3), (19.9, 0.3), (20, 0.8), (49, 0.7), (50, 0.8), (500, 0.8)],
)
def test_at_a_moment_the_last_point_counts_and_after_the_end_what_it_ended_with(
    seconds: float, accuracy: float
) -> None:
    assert CURVE.at_seconds(seconds) == accuracy


@pytest.mark.parametrize(("step", "accuracy"), [(-1, 0.25), (0, 0.3), (49, 0.3), (50, 0.8), (99, 0.8), (150, 0.7)])
def test_at_a_step_the_last_point_counts(step: int, accuracy: float) -> None:
    assert CURVE.at_step(step) == accuracy


def test_the_mean_changes_where_one_of_the_curves_does() -> None:
    assert mean_at_seconds([CURVE, OTHER], 11) == pytest.approx((0.3 + 0.25) / 2)
    over_time = mean_over_time([CURVE, OTHER])
    assert [moment for moment, _ in over_time] == [0, 10, 12, 20, 25, 40, 50]
    assert [value for _, value in over_time] == pytest.approx([0.25, 0.275, 0.4, 0.65, 0.7, 0.65, 0.7])
    assert mean_over_steps([CURVE, OTHER]) == [(0, 0.4), (50, 0.65), (60, 0.7), (100, pytest.approx(0.65))]


def test_a_curve_comes_back_from_json() -> None:
    assert Curve.from_json(json.loads(json.dumps(CURVE.to_json()))) == CURVE


def test_the_rate_that_is_best_with_the_first_seed_counts_for_all() -> None:
    assert best_rate(LORAS[:2]) == 0.003  # as good at the end, and better on the way
    assert counted([CURVE, *LORAS]) == [CURVE, *LORAS[1:]]
    first_is_one = [LORAS[2], replace(LORAS[0], seed=1), *LORAS[:2]]
    assert {curve.rate for curve in counted(first_is_one)} == {0.003}


def test_tables_look_at_each_third_of_the_steps() -> None:
    assert looked_at(150) == [0, 50, 100, 150]
    assert looked_at(1) == [0, 1]


def test_a_table_for_each_data_set_and_a_mean_of_all() -> None:
    films = replace(CURVE, data="sst2", majority=0.5, points=(Point(20.0, 0, 0.6),), taken=0.6, seconds=20.0)
    lines = list(tables([films, CURVE, OTHER, *LORAS], 150))
    titles = [line for line in lines if "###" in line]
    assert [title.strip() for title in titles] == [
        "### AG News, MiniLM: seeds 0, 1", "### SST-2, MiniLM: seeds 0", "### All data sets, MiniLM",
    ]  # fmt: skip
    assert "| side | step 0 | step 50 | step 100 | step 150 | 15 s | 30 s | 60 s | 120 s | what it ends with |" in lines
    cells = "0.400 | 0.650 | 0.650 | 0.650 | 0.400 | 0.700 | 0.700 | 0.700 | 0.700 after 38 s"
    assert f"| PTune | {cells} |" in lines
    assert any(line.startswith("| PEFT LoRA, 0.003 | 0.200 |") for line in lines)
    # Of AG News 0.4, 0.7, 0.7, 0.7, as much as of SST-2 with its one seed.
    assert "| PTune | 2 | 0.450 | 0.650 | 0.650 | 0.650 |" in lines
    assert "| PEFT LoRA | 1 | 0.250 | 0.200 | 0.650 | 0.850 |" in lines


def test_every_side_has_a_style_of_its_own() -> None:
    assert STYLES.keys() == SIDES.keys()
    assert len(set(STYLES.values())) == len(SIDES)


def test_pictures_are_svg_with_a_title_axes_and_a_legend() -> None:
    found = pictures([CURVE, OTHER, *LORAS], 150)
    assert list(found) == ["learn-minilm-ag-news.svg", "learn-minilm.svg"]
    for text in found.values():
        root = xml.fromstring(text)
        space = "{http://www.w3.org/2000/svg}"
        ids = {element.get("id"): element.text for element in root}
        assert root.get("role") == "img" and root.get("aria-labelledby") == "title what"
        assert "MiniLM" in (ids["title"] or "") and "PEFT LoRA 0.200 and 0.850" in (ids["what"] or "")
        words = [element.text for element in root.iter(f"{space}text")]
        assert {"seconds of wall time", "optimizer steps", "PTune", "PEFT LoRA", "120", "150"} <= set(words)
        assert words.count("test accuracy") == 2
        assert [element.get("fill") for element in root.iter(f"{space}rect")] == ["#ffffff"]
    each = {name: text.count('stroke-opacity="0.3"') for name, text in found.items()}
    assert each == {"learn-minilm-ag-news.svg": 8, "learn-minilm.svg": 0}  # the seeds of two sides in two panels


def test_a_line_stays_where_it_is_until_the_next_point() -> None:
    (text, *_) = pictures([CURVE], 150).values()
    # 0 to 120 seconds are 390 pixels from 64 on, 0.2 to 0.8 are 250 pixels up from 300.
    assert 'd="M64.0 279.2H96.5V258.3H129.0V50.0H194.0V91.7H226.5V50.0H454.0"' in text


@pytest.mark.parametrize(
    ("accuracies", "expected"),
    [([0.25, 0.81], (0.2, 0.9)), ([0.5], (0.5, 0.6)), ([0.0, 1.0], (0.0, 1.0)), ([0.91, 0.99], (0.9, 1.0))],
)
def test_the_axis_goes_around_all_accuracies(accuracies: list[float], expected: tuple[float, float]) -> None:
    assert bounds(accuracies) == pytest.approx(expected)


def test_a_short_axis_has_more_numbers() -> None:
    assert accuracy_ticks(0.8, 0.9) == pytest.approx([0.8, 0.85, 0.9])
    assert len(accuracy_ticks(0.0, 1.0)) == 11
