"""Try's handlers, as plain functions: who asks again no longer wants the answer before."""

from __future__ import annotations

import json
from collections.abc import Generator, Mapping
from pathlib import Path
from typing import Any

import pytest

from ptune_core.errors import DeviceBusy, InferenceError
from ptune_core.runs.states import RunState
from ptune_core.ui.try_ import answers
from ptune_core.ui.try_.batch_box import label_upload
from ptune_core.ui.try_.handlers import Question, TryHandlers


def question(run: Any, *texts: str, compare: bool = True) -> Question:
    return Question("me", run.id, compare, texts)


def ask(handlers: TryHandlers, run: Any, text: str, page: str = "page") -> dict[str, Any]:
    """All that was said, the last of each."""
    said: dict[str, Any] = {}
    for part in handlers.classify(page, question(run, text)):
        said |= part
    return said


@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize(("page", "given_up"), [("page", True), ("another", False)])
def test_a_later_request_of_the_page_wins(
    service: Any, monkeypatch: pytest.MonkeyPatch, fails: bool, page: str, given_up: bool
) -> None:
    # The answers were shown in the order they came, and a failure of the one given up was told.
    run, handlers, later = service.add(state=RunState.FINISHED), TryHandlers(service), []
    classify = service.classify

    def slow(adapter: str, viewer: str, values: Mapping[str, str], **options: Any) -> Any:
        if values["text"] == "first":
            later.append(ask(handlers, run, "second", page))
            if fails:
                raise InferenceError("It ended")
        return classify(adapter, viewer, values, **options)

    monkeypatch.setattr(service, "classify", slow)
    first = ask(handlers, run, "first")
    if given_up:
        assert first == {}
    else:
        assert ("It ended" in first.get("problem", "")) is fails
    assert "97%" in later[0]["tuned"] and "51%" in later[0]["base"]


def test_a_generation_given_up_is_stopped(service: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    run, handlers, closed = service.add(labels=(), state=RunState.FINISHED), TryHandlers(service), []

    def generate(*_: Any, **__: Any) -> Generator[dict[str, str], None, None]:
        try:
            while True:
                yield {"base": "and ", "tuned": "once "}
        finally:
            closed.append(True)

    monkeypatch.setattr(service, "generate", generate)
    first, second = (handlers.generate("page", question(run, "a"), "[]", {}) for _ in range(2))
    next(first)
    next(second)
    assert list(first) == [{}] and closed == [True]
    assert next(second) == {
        "base": answers.written(answers.BASE, "and "),
        "tuned": answers.written("Tuned model", "once "),
    }
    second.close()
    assert closed == [True, True]


def test_an_empty_text_is_told_beside_the_button_and_the_next_answer_takes_that_away(service: Any) -> None:
    run, handlers = service.add(state=RunState.FINISHED), TryHandlers(service)
    assert "no text" in ask(handlers, run, "  ")["problem"]
    assert "97%" in ask(handlers, run, "good")["tuned"]


def test_without_comparison_only_the_tuned_model_is_asked(service: Any) -> None:
    run, handlers = service.add(state=RunState.FINISHED), TryHandlers(service)
    first = next(iter(handlers.classify("page", question(run, "good", compare=False))))
    assert first["base"] == "" and "97%" in first["tuned"]


def test_while_training_needs_the_device_it_waits_and_then_answers(
    service: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, waited = service.add(state=RunState.FINISHED), list[float]()
    classify = service.classify

    def busy(*arguments: Any, **options: Any) -> Any:
        if len(waited) < 2:
            raise DeviceBusy("The GPU has no room left")
        return classify(*arguments, **options)

    monkeypatch.setattr(service, "classify", busy)
    parts = list(TryHandlers(service, waited.append).classify("page", question(run, "good")))
    assert ["Waiting" in part.get("working", "") for part in parts[:3]] == [True, True, False]
    assert "97%" in parts[2]["tuned"] and waited == [3.0, 3.0]


def test_a_conversation_keeps_each_models_answers(service: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    run, handlers, asked = service.add(labels=(), state=RunState.FINISHED), TryHandlers(service), []
    service.adapters.is_chat = True

    def generate(adapter: str, viewer: str, values: Mapping[str, str], **options: Any) -> Any:
        asked.append(options.get("history", []))
        yield {"base": f"base <{len(asked)}>", "tuned": f"tuned {len(asked)}"}

    monkeypatch.setattr(service, "generate", generate)
    turns = "[]"
    for text in ("hello", "again"):
        first, *_ = handlers.generate("page", question(run, text), turns, {})
        turns = first["turns"]
        assert first["input"] == ""
    assert [turn["tuned"] for turn in json.loads(turns)] == ["tuned 1", "tuned 2"]
    assert asked[0] == [] and [(turn.tuned, turn.base) for turn in asked[1]] == [("tuned 1", "base <1>")]
    assert "base &lt;1&gt;" in first["base"] and "tuned" not in first["base"]


@pytest.mark.parametrize(
    "turns", ["{", '[{"values": 3}]', '[{"values": {}, "tuned": "a", "more": 1}]', "x" * 3_000_000]
)
def test_a_conversation_that_somebody_else_wrote_is_refused(service: Any, turns: str) -> None:
    run = service.add(labels=(), state=RunState.FINISHED)
    service.adapters.is_chat = True
    (said,) = TryHandlers(service).generate("page", question(run, "a"), turns, {})
    assert "cannot be read" in said["problem"] and service.tries == []


def test_a_file_comes_back_with_what_it_says_of_its_labels(service: Any, tmp_path: Path) -> None:
    run = service.add(state=RunState.FINISHED)
    *progress, (said, download, _) = label_upload(service, run.id, "me", str(tmp_path / "mine.csv"))
    assert len(progress) == 2 and "2 of 2 rows" in progress[-1][0]
    assert "Accuracy 50.0%" in said and "<th>label</th>" in said
    assert download["value"].endswith("mine-labelled.csv") and not Path(download["value"]).exists(), "gradio has a copy"


def test_a_cancelled_file_leaves_nothing(service: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    run = service.add(state=RunState.FINISHED)
    labelling = label_upload(service, run.id, "me", str(tmp_path / "mine.csv"))
    next(labelling)
    labelling.close()
    assert list(tmp_path.glob("tmp*")) == []


def test_no_file_is_told(service: Any) -> None:
    ((said, *_),) = label_upload(service, service.add(state=RunState.FINISHED).id, "me", None)
    assert "no file yet" in said


def test_everything_from_people_and_models_is_escaped() -> None:
    bad = "<img src=x onerror=alert(1)>"
    pieces: list[Any] = [{"text": bad, "kind": kind} for kind in ("text", "special", "virtual", "target", "cut")]
    seen = answers.seen({"pieces": pieces, "length": 5, "max_length": 9, "num_virtual_tokens": 1})
    shown = [seen, answers.bars("t", [bad], [1.0]), answers.written("t", bad), answers.chat("t", [(bad, bad)])]
    assert not any("<img" in text for text in shown)
    assert seen.count('<s class="cut"') == 1 and "4 tokens and 1 virtual tokens: 5 of 9" in seen
