"""What an estimate measures of the ways in which labels can be told apart, within its time."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ptune_core.data.ingest import ingest_text
from ptune_core.data.table import Tables
from ptune_core.model.head_input import HeadInput
from ptune_core.training import measuring_ways, session
from ptune_core.training.lesson import Lesson
from ptune_core.training.measuring_ways import measure_ways
from ptune_core.training.session import estimate_run
from ptune_core.training.settings import RunSettings

WORDS = ("great fine good", "awful poor bad")
ROWS = "text,label\n" + "".join(f"film {i % 17} was {WORDS[i % 2]},{'pos' if i % 2 else 'neg'}\n" for i in range(240))


@pytest.fixture
def measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The lesson of an estimate, and what it says of the ways."""
    table = ingest_text(ROWS, tmp_path / "data")
    seen: list[Lesson] = []

    def note(lesson: Lesson, seconds: float) -> dict[str, Any]:
        seen.append(lesson)
        return measure_ways(lesson, seconds)

    monkeypatch.setattr(session, "measure_ways", note)

    def run(folder: Path, template: str, **more: Any) -> tuple[Lesson, dict[str, Any]]:
        values = {"base_model": str(folder), "data": "pasted", "template": template, "max_steps": 3, "device": "cpu",
                  "precision": "fp32", "encoder_hidden_size": 16}  # fmt: skip
        found = estimate_run(RunSettings.parse(values | more), Tables(table), tmp_path / "run")
        assert json.loads(json.dumps(found.as_numbers(1, 1)))["ways"] == found.ways
        return seen[-1], dict(found.ways)

    return run


@pytest.mark.parametrize(
    ("model", "template", "kind"),
    [
        ("tiny_gpt2", "{text~} [P*3][ANSWER:label]", "answer"),
        ("tiny_bert_lm", "[P*3] {text~} It is [MASK:label].", "mask"),
    ],
)
def test_words_and_a_head_are_measured_beside_each_other(
    measured: Any, request: pytest.FixtureRequest, model: str, template: str, kind: str
) -> None:
    labels = {"pos": " good", "neg": " bad"}
    lesson, ways = measured(request.getfixturevalue(model), template, labels=labels)
    assert set(ways) == {kind, "head"}
    assert ways[kind]["rows"] == len(lesson.task.validation) and 0 <= ways[kind]["accuracy"] <= 1
    assert ways["head"]["rows"] == len(lesson.task.train) and ways["head"]["reads"] in (
        "mean",
        "model" if kind == "answer" else "last",
    )
    assert ways["head"]["accuracy"] > 0.9, "these rows can be told apart by their words"


def test_a_slow_base_model_is_asked_less_and_no_probe_of_a_few_rows_is_told(
    measured: Any, tiny_gpt2: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lesson, _ = measured(tiny_gpt2, "{text~} [P*3][ANSWER:label]")
    monkeypatch.setattr(measuring_ways, "FITTED_AT_ONCE", 100 * 2 * lesson.model.base.hidden_size)
    assert measure_ways(lesson, 1.0)["head"]["rows"] == 100
    monkeypatch.setattr(measuring_ways, "READING_SECONDS", 0.0)
    assert measure_ways(lesson, 1.0) == {"answer": {"accuracy": pytest.approx(0.5, abs=0.5), "rows": 16}}


def test_of_a_head_it_is_what_the_run_reads(measured: Any, tiny_gpt2: Path) -> None:
    lesson, ways = measured(tiny_gpt2, "[P*3] {text~} [HEAD:label]", head_input="mean")
    assert set(ways) == {"head"} and ways["head"]["reads"] == "mean"
    assert ways["head"]["accuracy"] == pytest.approx(lesson.frozen.probe(HeadInput.MEAN).accuracy, abs=1e-4)
    _, unfitted = measured(tiny_gpt2, "[P*3] {text~} [HEAD:label]", head_input="mean", head_start="zero")
    assert unfitted == ways


@pytest.mark.parametrize(
    "more", [{"base_weights": "tuned"}, {"labels": {}, "columns": {"label": "text"}}, {"candidates": ["pos", "neg"]}]
)
def test_nothing_is_measured_without_labels_or_with_a_tuned_base_model(
    measured: Any, tiny_gpt2: Path, more: dict[str, Any]
) -> None:
    assert measured(tiny_gpt2, "{text~} [P*3][ANSWER:label]", **more)[1] == {}


def test_a_translator_cannot_have_a_head(measured: Any, tiny_t5: Path) -> None:
    assert set(measured(tiny_t5, "[P*3] {text~} [ANSWER:label]")[1]) == {"answer"}
