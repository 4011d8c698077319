"""What is wrong with a run, and what its buttons change."""

from __future__ import annotations

from typing import Any

import pytest

from ptune_core.app.alarms import Facts, Kind, alarms, fix_named, key_of, name_of_retry
from ptune_core.runs.evaluations import Evaluated
from ptune_core.runs.states import RunState
from ptune_core.training.settings import RunSettings

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


ANSWERS, HEAD = "{text~} [P*8][ANSWER:label]", "[P*20] {text~} [HEAD:label]"
BELOW = GOOD | {
    "value": 0.7, "interval": [0.66, 0.74], "baseline_zero_shot": 0.6, "baseline_probe": 0.8,
    "probe_interval": [0.77, 0.83], "train_examples": 800, "validation_examples": 200, "steps": 50, "best_step": 40,
}  # fmt: skip


def test_below_the_probe_a_head_on_the_same_rows_is_offered_where_there_can_be_one() -> None:
    settings = RunSettings(template=ANSWERS, labels={"bad": " bad", "good": " good"})
    (alarm,) = alarms(facts(result=BELOW, settings=settings, can_have_head=True))
    assert alarm.kind is Kind.BELOW_PROBE and not alarm.is_error
    assert alarm.text == (
        "This adapter (0.700) is below the probe (0.800), what this frozen model gives without virtual tokens."
    )
    (fix,) = alarm.fixes
    assert fix.label == "Retry with a classification head"
    assert fix.changes == {"template": HEAD, "labels": None}
    assert RunSettings.parse(settings.model_dump(mode="json") | fix.changes).template == HEAD
    (alarm,) = alarms(facts(result=BELOW, settings=settings, can_have_head=False))
    assert [fix.changes for fix in alarm.fixes] == [{"max_steps": 400}] and "head" not in alarm.note


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ({}, [{"prompt_depth": "all"}, {"learning_rate": 0.001}, {"max_steps": 400}]),
        ({"prompt_depth": "all"}, [{"learning_rate": 0.001}, {"max_steps": 400}]),
        ({"template": "{text} [P*20] [HEAD:label]"}, [{"learning_rate": 0.001}, {"max_steps": 400}]),
        ({"head_start": "zero"}, [{"head_start": "auto"}]),
    ],
)
def test_a_head_below_the_probe_is_to_learn_deeper_or_more_gently(
    more: dict[str, Any], expected: list[dict[str, Any]]
) -> None:
    found = facts(result=BELOW, settings=RunSettings.parse({"template": HEAD} | more), can_have_head=True)
    assert [alarm.kind for alarm in alarms(found)] == [Kind.BELOW_PROBE] and changes(found) == expected


@pytest.mark.parametrize(
    ("value", "spread", "is_told"),
    [(0.77, 0.04, False), (0.75, 0.04, True), (0.795, 0.001, False), (0.785, 0.001, True), (0.9, 0.01, False)],
)
def test_what_chance_or_a_point_makes_is_not_below(value: float, spread: float, is_told: bool) -> None:
    result = BELOW | {
        "value": value, "interval": [value - spread, value + spread], "probe_interval": [0.8 - spread, 0.8 + spread],
    }  # fmt: skip
    assert [alarm.kind for alarm in alarms(facts(result=result))] == ([Kind.BELOW_PROBE] if is_told else [])


def test_one_alarm_of_several_reasons_the_one_that_explains_most() -> None:
    worse = BELOW | {"value": 0.55, "interval": [0.5, 0.6]}  # no better than the base model alone either
    (alarm,) = alarms(facts(result=worse, settings=RunSettings(template=ANSWERS), can_have_head=True))
    assert alarm.kind is Kind.BELOW_PROBE
    one = worse | {"confusion": [[0, 16], [0, 34]]}
    (alarm,) = alarms(facts(result=one, settings=RunSettings(template=ANSWERS), can_have_head=True))
    assert alarm.kind is Kind.ONE_CLASS
    assert [set(fix.changes) for fix in alarm.fixes] == [{"template", "labels"}, {"sweep"}]
    few = one | {"validation_examples": 4, "train_examples": 36}
    assert [alarm.kind for alarm in alarms(facts(result=few))] == [Kind.FEW_MEASURED]


def test_a_handful_of_rows_to_measure_on_is_told_and_more_are_set_aside() -> None:
    """Bug: with 4 rows early stop kept step 0, and the run ended green."""
    few = GOOD | {"validation_examples": 4, "train_examples": 36, "steps": 60, "best_step": 0}
    (alarm,) = alarms(facts(result=few))
    assert alarm.kind is Kind.FEW_MEASURED and changes(facts(result=few)) == [{"validation_fraction": 0.5}]
    assert alarm.text.startswith("Only 4 rows were set aside to measure on: one of them is 25% of the result.")
    assert "what training began with" in alarm.text
    assert "chance" in alarms(facts(result=few | {"best_step": 20}))[0].text
    second = RunSettings(validation_data="more.csv")
    assert alarms(facts(result=few, settings=second))[0].fixes == ()
    assert alarms(facts(result=few | {"validation_examples": 20})) == []


def test_a_run_that_was_best_at_its_end_and_has_not_seen_all_rows_is_told() -> None:
    """Bug: 60 steps saw a third of the rows, and nothing was said."""
    seen = GOOD | {"validation_examples": 500, "train_examples": 2880, "steps": 50, "best_step": 50}
    (alarm,) = alarms(facts(result=seen))
    assert alarm.kind is Kind.UNSEEN and "seen 800 of 2,880 training rows" in alarm.text
    assert changes(facts(result=seen)) == [{"max_steps": 180}]
    for more in ({"best_step": 20}, {"train_examples": 800}, {"steps": 30, "best_step": 30}):
        assert alarms(facts(result=seen | more)) == []
    assert alarms(facts(RunState.STOPPED, result=seen)) == []
