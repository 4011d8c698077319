"""What a run's end is called, and when it was in vain."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Any

import pytest

from ptune_core.app import texts
from ptune_core.app.texts import outcome
from ptune_core.runs.states import RunState

APP = Path(texts.__file__).parents[1]
UI = APP.parent / "ui"
SENTENCE = re.compile(r"\w[\w,;:'’\"()-]* [\w,;:'’\"()-]+.*[.?!…]\s*$|\w \w+[.?!] [A-Z]")
"""Two words or more with a full stop or the like at the end, or a new sentence in the middle."""


@pytest.mark.parametrize(
    ("result", "told"),
    [
        ({"metric": "accuracy", "value": 0.51, "baseline_majority": 0.51, "baseline_zero_shot": 0.3}, "most frequent"),
        ({"metric": "accuracy", "value": 0.6, "baseline_majority": 0.5, "baseline_zero_shot": 0.7}, "zero-shot 0.700"),
        ({"metric": "loss", "value": 2.0, "baseline_majority": None, "baseline_zero_shot": 2.0}, "zero-shot 2.000"),
        ({"metric": "loss", "value": 1.0, "baseline_majority": None, "baseline_zero_shot": 2.0}, ""),
        (
            {
                "metric": "accuracy",
                "value": 0.8,
                "baseline_zero_shot": 0.7,
                "baseline_few_shot": 0.9,
                "few_shot_examples": 8,
            },
            "with 8 examples before each text (0.900)",
        ),
        ({"metric": "accuracy", "value": 0.8, "baseline_majority": 0.5, "baseline_zero_shot": None}, ""),
        ({"metric": None, "value": None, "baseline_majority": None, "baseline_zero_shot": None}, ""),
        ({}, ""),
    ],
)
def test_a_run_no_better_than_a_baseline_is_told_with_what_to_try(result: dict[str, Any], told: str) -> None:
    # Such a run used to end as "Done" like any other.
    warning = outcome.no_better(result)
    assert told in warning and bool(told) == bool(warning)
    assert not warning or "Try " in warning


def test_runs_of_one_name_are_told_apart() -> None:
    assert texts.adapter("demo", 0.5, 0.0) != texts.adapter("demo", 0.5, 86_400.0)
    assert texts.adapter("demo", None, 0.0).startswith("demo · ")


def test_every_sentence_of_the_page_is_in_the_one_folder() -> None:
    elsewhere = []
    for path in sorted([*UI.rglob("*.py"), *APP.glob("*.py")]):
        found = [f"{path.name}:{line}: {text}" for line, text in literals(path) if SENTENCE.search(text)]
        elsewhere += found
    for path in sorted([*UI.glob("live/strip.[hj]*"), *UI.glob("live/newest_run.[hj]*")]):
        without_comments = re.sub(r"(?m)(^| )//.*$", "", path.read_text(encoding="utf-8"))
        quoted = re.findall(r"'([^'\n]+)'|`([^`\n]+)`|>([^<\n]+)<", without_comments)
        elsewhere += [f"{path.name}: {text}" for texts_ in quoted for text in texts_ if SENTENCE.search(text)]
    assert elsewhere == []


def literals(path: Path) -> list[tuple[int, str]]:
    """Line and text of every string that is no docstring."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    said = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    strings = [node for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)]
    return [(node.lineno, str(node.value)) for node in strings if id(node) not in said]


def test_a_result_stands_beside_the_probe_with_its_interval() -> None:
    result = {
        "metric": "accuracy", "value": 0.6, "interval": [0.55, 0.65], "baseline_majority": 0.05, "steps": 20,
        "baseline_probe": 0.63, "probe_interval": [0.6, 0.66], "best_step": 0, "seconds": 3,
    }  # fmt: skip
    assert outcome.score(result) == (
        "**0.600 accuracy** (0.550 to 0.650) · majority 0.050 · probe 0.630 (0.600 to 0.660)"
    )
    said = texts.plain_headline(RunState.FINISHED, result)
    assert "(before: majority 0.050, probe 0.630)" in said and said.endswith("The virtual tokens added nothing here.")
    assert "zero-shot" not in said, "an untrained head is no baseline"
