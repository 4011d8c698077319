"""What is wrong with a run, and what its buttons change."""

from __future__ import annotations

from typing import Any

import pytest

from ptune_core.runs.evaluations import Evaluated
from ptune_core.runs.states import RunState
from ptune_core.training.settings import RunSettings
from ptune_core.ui.alarms import Facts, Kind, alarms, fix_named, key_of, name_of_retry

GOOD = {
    "state": "finished", "metric": "accuracy", "value": 0.9, "baseline_majority": 0.5, "baseline_zero_shot": 0.6,
    "labels": ["bad", "good"], "confusion": [[9, 1], [1, 9]],
}  # fmt: skip
FALLING = [Evaluated(step, 0.7 - step / 200, 0.5 + step / 200, True, None) for step in (0, 10, 20, 30, 40, 50)]


def facts(state: RunState = RunState.FINISHED, **more: Any) -> Facts:
    values: dict[str, Any] = {"settings": RunSettings(), "result": GOOD, "evaluations": FALLING, "planned_steps": 50}
    return Facts(state=state, **(values | more))


def failed(kind: str, text: str, settings: RunSettings | None = None, phase: str = "training") -> Facts:
    result = {"state": "failed", "error": {"kind": kind, "text": text}}
    return facts(RunState.FAILED, settings=settings or RunSettings(), result=result, phase=phase)


def changes(found: Facts) -> list[dict[str, Any]]:
    return [fix.changes for alarm in alarms(found) for fix in alarm.fixes]


@pytest.mark.parametrize("state", [RunState.FINISHED, RunState.RUNNING, RunState.STOPPED, RunState.QUEUED])
def test_a_run_that_does_well_has_no_alarm(state: RunState) -> None:
    assert alarms(facts(state)) == []


def test_one_class_is_told_with_the_label_and_a_sweep() -> None:
    one = GOOD | {"value": 0.68, "baseline_majority": 0.68, "confusion": [[0, 16], [0, 34]]}
    (alarm,) = alarms(facts(result=one))
    assert alarm.kind is Kind.ONE_CLASS and not alarm.is_error
    assert (
        alarm.text
        == 'Every validation row is predicted "good": the model has not learnt more than the majority (0.680).'
    )
    assert alarm.fixes[0].changes == {"sweep": {"learning_rate": [0.001, 0.003, 0.009]}}


def test_one_class_is_told_while_the_run_goes_on() -> None:
    same = [Evaluated(step, 0.7 - step / 100, 0.5, True, "good") for step in (0, 5, 10, 15, 20)]
    assert [alarm.kind for alarm in alarms(facts(RunState.RUNNING, result={}, evaluations=same))] == [Kind.ONE_CLASS]
    assert alarms(facts(RunState.RUNNING, result={}, evaluations=same[:4])) == [], "too early to say"
    two = [*same[:-1], Evaluated(20, 0.5, 0.6, True, None)]
    assert alarms(facts(RunState.RUNNING, result={}, evaluations=two)) == []


def test_divergence_offers_the_rate_that_its_text_names() -> None:
    found = failed("TrainingDiverged", "The loss became inf at step 41. Try again with a learning rate of 0.001.")
    (alarm,) = alarms(found)
    assert alarm.is_error and "step 41" in alarm.text
    assert alarm.fixes[0].label == "Retry with learning rate 0.001" and changes(found) == [{"learning_rate": 0.001}]
    tuned = failed("TrainingDiverged", "x", RunSettings(base_weights="tuned", learning_rate=0.01))
    assert changes(tuned) == [{"learning_rate": 0.003, "base_learning_rate": 3e-06}]
    swept = failed("TrainingDiverged", "x", RunSettings(sweep={"learning_rate": [0.3, 0.03], "seed": [0, 1]}))
    assert changes(swept) == [{"sweep": {"learning_rate": [0.1, 0.01], "seed": [0, 1]}}]


@pytest.mark.parametrize(
    ("batch", "accumulation", "expected"), [(16, 1, (8, 2)), (15, 2, (5, 6)), (7, 1, (1, 7)), (1, 4, None)]
)
def test_out_of_memory_keeps_the_effective_batch(
    batch: int, accumulation: int, expected: tuple[int, int] | None
) -> None:
    settings = RunSettings(batch_size=batch, gradient_accumulation_steps=accumulation)
    *smaller, shorter = changes(failed("OutOfMemory", "Memory ran out while training.", settings))
    assert shorter == {"max_length": 256}
    found = [(fix["batch_size"], fix["gradient_accumulation_steps"]) for fix in smaller]
    assert found == ([] if expected is None else [expected])
    assert all(of * times == batch * accumulation for of, times in found)


def test_a_base_model_that_does_not_fit_is_not_mended_by_a_smaller_batch() -> None:
    (alarm,) = alarms(failed("OutOfMemory", "Memory ran out while loading base model.", phase="loading base model"))
    assert alarm.fixes == () and alarm.is_error


def test_a_worker_killed_for_memory_gets_the_same_offer() -> None:
    reason = "The system killed the worker because memory ran out."
    killed = facts(RunState.INTERRUPTED, reason=reason, result={}, phase="training")
    assert [alarm.kind for alarm in alarms(killed)] == [Kind.MEMORY] and len(changes(killed)) == 2


def test_an_interrupted_run_says_what_is_saved() -> None:
    reason = "The machine was restarted while the run was going."
    (alarm,) = alarms(facts(RunState.INTERRUPTED, reason=reason, result={}, saved_step=25, planned_steps=200))
    assert alarm.text == f"{reason} It had come past step 50 of 200."
    assert alarm.note == "Saved up to step 25. Resume goes on from there; nothing before it is lost."


def test_a_flat_loss_is_told_once_there_was_time() -> None:
    flat = [Evaluated(step, 0.693 - step / 1e5, 0.5, False, None) for step in (0, 10, 20, 30, 40, 50)]
    (alarm,) = alarms(facts(RunState.RUNNING, result={}, evaluations=flat))
    assert alarm.kind is Kind.FLAT and "50 steps (0.693 to 0.693)" in alarm.text
    assert alarms(facts(RunState.RUNNING, result={}, evaluations=flat, planned_steps=1000)) == []
    assert alarms(facts(RunState.RUNNING, result={}, evaluations=flat[:4])) == []


@pytest.mark.parametrize(("rate", "word"), [(1e-5, "below"), (0.5, "above")])
def test_an_unusual_learning_rate_is_told_while_it_matters(rate: float, word: str) -> None:
    settings = RunSettings(learning_rate=rate)
    running = facts(RunState.RUNNING, settings=settings, result={})
    (alarm,) = alarms(running)
    assert alarm.kind is Kind.RATE and word in alarm.text and changes(running) == [{"learning_rate": 0.003}]
    assert alarms(facts(settings=settings)) == [], "it did well all the same"
    in_vain = facts(settings=settings, result=GOOD | {"value": 0.5})
    assert [alarm.kind for alarm in alarms(in_vain)] == [Kind.RATE, Kind.NO_BETTER]
    assert changes(in_vain) == [{"learning_rate": 0.003}], "one button for both"


def test_no_better_offers_other_rates_and_after_a_sweep_more_steps() -> None:
    vain = GOOD | {"value": 0.6}
    assert changes(facts(result=vain)) == [{"sweep": {"learning_rate": [0.001, 0.003, 0.009]}}]
    swept = RunSettings(sweep={"learning_rate": [0.001, 0.01]}, max_steps=100)
    assert changes(facts(result=vain, settings=swept)) == [{"max_steps": 200}]


def test_every_fix_is_valid_and_found_by_its_key() -> None:
    for found in (facts(result=GOOD | {"value": 0.5}), failed("OutOfMemory", "x"), failed("TrainingDiverged", "x")):
        for alarm in alarms(found):
            for i, fix in enumerate(alarm.fixes):
                assert fix_named([alarm], key_of(alarm, i)) is fix
                assert RunSettings.parse(found.settings.model_dump(mode="json") | fix.changes) != found.settings
    assert fix_named(alarms(facts()), "memory-0") is None


def test_the_name_of_a_retry_says_what_changed_and_does_not_grow() -> None:
    (fix,) = (fix for alarm in alarms(failed("TrainingDiverged", "x")) for fix in alarm.fixes)
    once = name_of_retry("reviews", fix)
    assert once == "reviews · retry: learning rate 0.001" == name_of_retry(once, fix)
    assert len(name_of_retry("x" * 80, fix)) == 80
