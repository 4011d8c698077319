"""What the Runs tab shows below the plots, over a real store: who may see it, and what the buttons do."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ptune_core.app import texts
from ptune_core.app.service import Service
from ptune_core.app.uploads import Uploads
from ptune_core.data.table import open_table
from ptune_core.errors import RunError, SettingsError
from ptune_core.files import json_line
from ptune_core.inference.client import InferenceClient
from ptune_core.runs.directory import RunDirectory
from ptune_core.runs.launcher import Launcher
from ptune_core.runs.states import RunState
from ptune_core.runs.store import Store
from ptune_core.training.settings import RunSettings

LABELS = ["bad", "good"]
HEADER = {
    "kind": "labels", "labels": LABELS, "columns": ["text"], "step": 30, "rows": 4, "kept": 4, "changed": 3,
}  # fmt: skip
ROWS = [  # gold, probability of good, that of the base model
    (0, 0.1, 0.9), (1, 0.3, 0.2), (1, 0.9, 0.4), (0, 0.95, 0.6),
]  # fmt: skip
RESULT = {
    "state": "finished", "metric": "accuracy", "value": 0.5, "seconds": 72, "labels": LABELS, "interval": [0.15, 0.85],
    "baseline_majority": 0.5, "baseline_zero_shot": 0.25, "confusion": [[1, 1], [1, 1]], "trained_values": 1000,
    "base_values": 100_000, "steps": 30, "best_step": 30,
}  # fmt: skip


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "data")


@pytest.fixture
def service(store: Store, tmp_path: Path) -> Iterator[Service]:
    with InferenceClient(tmp_path / "inference.log", store.data_dir) as inference:
        yield Service(store, Launcher(store), inference, Uploads(tmp_path / "uploads"), shared=True)


def submit(service: Service, **options: Any) -> str:
    token = service.uploads.add_text("text,label\n" + "".join(f"text {i},{LABELS[i % 2]}\n" for i in range(8)))
    return service.start(RunSettings.parse({"name": "mine"} | options), token, viewer="anna", key=str(options))


def write_predictions(path: Path) -> None:
    lines = [
        {"row": i + 2, "input": {"text": f"text {i}"}, "gold": gold, "tuned": [1 - p, p], "base": [1 - q, q]}
        for i, (gold, p, q) in enumerate(ROWS)
    ]
    path.write_bytes(b"".join(map(json_line, [HEADER, *lines])))


def export(directory: RunDirectory, content: str, metrics: dict[str, Any]) -> None:
    directory.adapter.mkdir(parents=True)
    (directory.adapter / "snippet.py").write_text(content)
    (directory.adapter / "ptune.json").write_text(json.dumps({"metrics": metrics}))
    directory.adapter_zip.write_text(content)
    write_predictions(directory.predictions)


def finish(store: Store, run_id: str, **result: Any) -> RunDirectory:
    store.claim_next()
    directory = RunDirectory(store.get(run_id, None).directory)
    export(directory, "best", {})
    directory.write_result(RESULT | result)
    return directory


def ask(service: Service, run_id: str, part: object, viewer: str = "anna", **more: Any) -> dict[str, Any]:
    return service.results({"run": run_id, "viewer": viewer, "part": part, **more})


def test_a_stranger_sees_no_results_and_starts_nothing(service: Service, store: Store) -> None:
    run_id = submit(service)
    finish(store, run_id)
    for forbidden in (
        lambda: ask(service, run_id, "samples", viewer="bob"),
        lambda: service.alarms({"run": run_id, "viewer": "bob"}),
        lambda: service.retry(run_id, {"learning_rate": 0.1}, "bob"),
        lambda: service.fix(run_id, "no-better-0", "bob"),
        lambda: service.use_trial(run_id, 0, "bob"),
    ):
        with pytest.raises(RunError, match="not found"):
            forbidden()


def test_the_header_and_the_badge_say_what_was_measured(service: Service, store: Store) -> None:
    run_id = submit(service)
    finish(store, run_id)
    view = service.view(run_id, "anna")
    assert view.score == "**0.500 accuracy** (0.150 to 0.850) · majority 0.500 · zero-shot 0.250"
    assert texts.changed(3, 4) == "The adapter changes the answer on 75% of 4 validation rows."


def test_samples_come_most_wrong_first_and_can_be_chosen(service: Service, store: Store) -> None:
    run_id = submit(service)
    finish(store, run_id)

    def rows(**more: Any) -> list[int]:
        return [row["row"] for row in ask(service, run_id, "samples", **more)["rows"]]

    assert rows() == [5, 3, 2, 4] and rows(order="unsure") == [3, 2, 4, 5] and rows(order="data") == [2, 3, 4, 5]
    assert rows(gold="good") == [3, 4] and rows(gold="bad", predicted="good") == [5]
    assert rows(offset=3) == [4] and rows(offset=99) == []
    strange = rows(gold={"a": 1}, predicted="<b>", order=[], offset=-1)
    assert strange == rows(), "what is no choice is none"
    (first, *_) = ask(service, run_id, "samples")["rows"]
    assert (first["gold"], first["predicted"], first["base"]) == ("bad", "good", "good") and first["texts"] == [
        "text 3"
    ]


def test_every_part_is_plain_json(service: Service, store: Store) -> None:
    run_id = submit(service)
    directory = finish(store, run_id)
    directory.log.write_text("<b>one</b>\n" * 3000)
    answers = {part: ask(service, run_id, part) for part in ("confusion", "calibration", "cost", "settings", "log")}
    assert json.dumps(answers)
    assert answers["confusion"]["matrix"] == [[1, 1], [1, 1]] and answers["confusion"]["scores"][0]["recall"] == 0.5
    assert sum(of["count"] for of in answers["calibration"]["bins"]) == 4
    assert "more sure than it is right" in answers["calibration"]["text"]
    assert ("Trained", "1,000 values, 1% of the base model's 100,000") in answers["cost"]["items"]
    assert RunSettings.from_yaml(answers["settings"]["yaml"]) == store.get(run_id, None).settings
    assert answers["settings"]["command"] == "python -m ptune_core train --out DIR --set name=mine"
    assert answers["log"]["cut"] and len(answers["log"]["text"]) < 17_000
    for part in ("nothing", None, ["samples"], {}):
        assert "no such part" in ask(service, run_id, part)["empty"]


HEAD = {"head_input": "mean", "why": "measured", "accuracies": {"model": 0.44, "mean": 0.63}, "rows": 2000}
PROBE = {"baseline_probe": 0.63, "probe_interval": [0.6, 0.66], "probe_rows": 1200, "probe_train_rows": 900}


def test_the_probe_is_a_baseline_with_its_interval_and_an_untrained_head_is_none(
    service: Service, store: Store
) -> None:
    run_id = submit(service, template="[P*8] {text} [HEAD:label]")
    finish(store, run_id, baseline_zero_shot=None, head=HEAD, validation_examples=92, **PROBE)
    found = ask(service, run_id, "baselines")
    names = [(row["name"], row["value"], row["low"], row["high"], row["rows"]) for row in found["rows"]]
    assert names == [
        ("this adapter", 0.5, 0.15, 0.85, 92), ("majority", 0.5, None, None, None), ("probe", 0.63, 0.6, 0.66, 1200),
    ]  # fmt: skip
    assert "what this frozen model gives without virtual tokens" in found["rows"][-1]["about"]
    notes = service.view(run_id, "anna").notes
    assert notes[0].endswith("measured on 2,000 rows: mean 0.63, model 0.44.") and "head_input: model" in notes[1]
    assert service.poll({"run": run_id, "viewer": "anna"})["notes"] == list(notes) == found["notes"]


def test_what_is_known_while_a_run_trains(service: Service, store: Store) -> None:
    run_id = submit(service)
    assert "empty" in ask(service, run_id, "baselines")
    store.claim_next()
    directory = RunDirectory(store.get(run_id, None).directory)
    plan = {"kind": "plan", "steps": 9, "metric": "accuracy", "validation_examples": 92, "evaluated": 64}
    line = {"kind": "baseline", "majority": 0.5, "zero_shot": None, "probe": 0.63}
    directory.metrics.write_bytes(b"".join(map(json_line, [plan, line])))
    assert [row["name"] for row in ask(service, run_id, "baselines")["rows"]] == ["majority", "probe"]
    assert service.view(run_id, "anna").notes[-1].startswith("Between steps 64 of 92 validation rows are evaluated")


def test_a_head_is_offered_by_what_the_base_model_can_carry(service: Service, store: Store) -> None:
    run_id = submit(service, template="{text} [P*8][ANSWER:label]", labels={"bad": " bad", "good": " good"})
    finish(store, run_id, interval=[0.48, 0.52], **PROBE, train_examples=800, validation_examples=200)
    (alarm,) = service.alarms({"run": run_id, "viewer": "anna"})["alarms"]
    assert "below the probe" in alarm["text"]
    again = store.get(service.fix(run_id, alarm["fixes"][0]["key"], "anna"), None)
    assert again.settings.template == "[P*20] {text} [HEAD:label]" and again.settings.labels is None


def test_a_run_without_results_says_when_there_will_be_some(service: Service) -> None:
    run_id = submit(service)
    assert "after the first evaluation" in ask(service, run_id, "samples")["empty"]
    assert "empty" in ask(service, run_id, "confusion") and "empty" in ask(service, run_id, "log")
    assert service.alarms({"run": run_id, "viewer": "anna"}) == {"alarms": [], "active": True}


def test_a_fix_starts_the_same_rows_with_nothing_else_changed(service: Service, store: Store) -> None:
    run_id = submit(service, max_steps=50)
    finish(store, run_id)
    (alarm,) = service.alarms({"run": run_id, "viewer": "anna"})["alarms"]
    assert "no better" in alarm["text"] and not alarm["error"]
    (fix,) = alarm["fixes"]
    again = service.fix(run_id, fix["key"], "anna")
    assert service.fix(run_id, fix["key"], "anna") == again != run_id, "pressed twice, one run"
    old, new = store.get(run_id, None), store.get(again, None)
    assert new.owner == old.owner and new.state is RunState.QUEUED and new.name == "mine · retry: learning rates"
    changed = {"name": new.name, "sweep": {"learning_rate": [0.001, 0.003, 0.009]}}
    assert new.settings.model_dump() == old.settings.model_dump() | changed
    assert open_table(new.directory / "data").digest == open_table(old.directory / "data").digest
    with pytest.raises(RunError, match="not offered"):
        service.fix(run_id, "diverged-0", "anna")


def test_a_retry_checks_what_it_is_given(service: Service, store: Store, tmp_path: Path) -> None:
    run_id = submit(service)
    assert store.get(service.retry(run_id, {"batch_size": 4}, "anna"), None).settings.batch_size == 4
    for changes in ({"batch_size": 0}, {"nothing": 1}, {"base_model": str(tmp_path)}):
        with pytest.raises(SettingsError):
            service.retry(run_id, changes, "anna")


def sweep(service: Service, store: Store) -> tuple[str, RunDirectory]:
    run_id = submit(service, sweep={"learning_rate": [0.01, 0.001]})
    ranking = [
        {"trial": number, "settings": {"learning_rate": rate}, "value": value, "loss": 0.5, "best_step": 30,
         "steps": 30, "reason": "all steps done", "error": None}
        for number, rate, value in ((1, 0.001, 0.5), (0, 0.01, 0.25))
    ]  # fmt: skip
    directory = finish(store, run_id, sweep=ranking, trial=1)
    for number, value in ((0, 0.25), (1, 0.5)):
        export(directory.trial(number), f"trial {number}", RESULT | {"value": value, "seconds": 1})
    return run_id, directory


def test_another_trial_can_be_used_and_the_best_again(service: Service, store: Store) -> None:
    run_id, directory = sweep(service, store)
    found = ask(service, run_id, "sweep")
    assert [(row["trial"], row["values"], row["used"]) for row in found["rows"]] == [
        (1, ["0.001"], True), (0, ["0.01"], False),
    ]  # fmt: skip
    assert all(row["has_adapter"] for row in found["rows"]) and found["options"] == ["Learning rate"]
    for number, value in ((0, 0.25), (1, 0.5)):
        service.use_trial(run_id, number, "anna")
        view = service.view(run_id, "anna")
        snippet = (directory.adapter / "snippet.py").read_text()
        assert snippet == directory.adapter_zip.read_text() == f"trial {number}"
        assert view.score.startswith(f"**{value:.3f} accuracy**")
        assert [row["used"] for row in ask(service, run_id, "sweep")["rows"]] == [number == 1, number == 0]
        result = directory.result()
        assert result is not None and result["seconds"] == 72 and len(result["sweep"]) == 2
    for wrong in (-1, 2):
        with pytest.raises(RunError, match="no adapter"):
            service.use_trial(run_id, wrong, "anna")
    yaml = ask(service, run_id, "settings", trial=1)["yaml"]
    assert RunSettings.from_yaml(yaml) == store.get(run_id, None).settings.trials[1]


def test_a_sweep_is_ranked_while_it_trains(service: Service, store: Store) -> None:
    run_id = submit(service, sweep={"learning_rate": [0.01, 0.001, 0.1]})
    store.claim_next()
    directory = RunDirectory(store.get(run_id, None).directory)
    for number, values in ((0, (0.4, 0.5)), (1, (0.4, 0.7))):
        lines = [
            {"kind": "eval", "step": 5 * i, "loss": 0.5, "value": value, "best": True, "seconds": 1.0}
            for i, value in enumerate(values)
        ]
        directory.trial(number).metrics.write_bytes(b"".join(map(json_line, lines)))
    found = ask(service, run_id, "sweep")
    assert [(row["trial"], row["value"], row["reason"]) for row in found["rows"]] == [
        (1, 0.7, ""), (0, 0.5, ""), (2, None, "waits"),
    ]  # fmt: skip
    assert not found["ended"] and not any(row["used"] or row["has_adapter"] for row in found["rows"])
    with pytest.raises(RunError, match="not ended"):
        service.use_trial(run_id, 0, "anna")
