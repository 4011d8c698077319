"""An estimate is measured on the run's own steps, assumes what a run really does, and leaves nothing changed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ptune_core.data.ingest import ingest_text
from ptune_core.data.table import Table, Tables
from ptune_core.model.text_cache import Place, TextCache
from ptune_core.training import loop
from ptune_core.training.estimate import Counts, Estimate, choose_steps
from ptune_core.training.session import estimate_run, run_training
from ptune_core.training.settings import RunSettings
from ptune_core.training.tasks import LabelTask

ROWS = "text,label\n" + "".join(f"{'word ' * (i % 20)} {i},{'good' if i % 2 else 'bad'}\n" for i in range(80))
TEMPLATES = ["[P*4] {text} [ANSWER:label]", "{text} [P*4][ANSWER:label]", "[P*4] {text} [HEAD:label]"]
IN_FRONT = TEMPLATES[1]

MEASURED = Estimate(
    preparing=10.0, first_step=2.0, later_step=1.0, evaluation=3.0,
    counts=Counts(first_steps=5, later_steps=8, evaluations=4, of_base=1, in_context=1), share_batches=True,
    peak_mib=900.0, gpu_peak_mib=None, text_cache_mib=0.0, text_cache_place=Place.NOWHERE,
)  # fmt: skip


def settings_for(folder: Path, **changes: Any) -> RunSettings:
    values = {
        "base_model": str(folder), "data": "pasted", "max_steps": 13, "eval_every": 5, "patience": 0, "halving": False,
        "batch_size": 8, "device": "cpu", "precision": "fp32", "encoder_hidden_size": 16,
    }  # fmt: skip
    return RunSettings.parse(values | changes)


@pytest.fixture
def table(tmp_path: Path) -> Table:
    return ingest_text(ROWS, tmp_path / "data")


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[Any]]:
    """What is done meanwhile: the step of every step, the batch of every loss, every evaluation."""
    found: dict[str, list[Any]] = {"steps": [], "batches": [], "evaluations": []}
    begin_step, losses, evaluate = loop.Trainer.begin_step, LabelTask.losses, LabelTask.evaluate_rows

    def begins(trainer: loop.Trainer) -> Any:
        found["steps"].append(trainer.progress.step)
        return begin_step(trainer)

    def loses(task: LabelTask, position: int, prompts: Any) -> Any:
        found["batches"].append(position)
        return losses(task, position, prompts)

    def evaluates(task: LabelTask, *arguments: Any) -> Any:
        found["evaluations"].append(arguments)
        return evaluate(task, *arguments)

    monkeypatch.setattr(loop.Trainer, "begin_step", begins)
    monkeypatch.setattr(LabelTask, "losses", loses)
    monkeypatch.setattr(LabelTask, "evaluate_rows", evaluates)
    return found


@pytest.mark.parametrize("template", TEMPLATES)
@pytest.mark.parametrize("sweep", [{}, {"learning_rate": [0.01, 0.001]}])
def test_a_run_does_what_its_estimate_assumes(
    tmp_path: Path, tiny_gpt2: Path, table: Table, calls: dict[str, list[Any]], template: str, sweep: dict[str, Any]
) -> None:
    """Bug: the evaluation after the last step was forgotten, and a head's run was given one of the base model alone."""
    settings = settings_for(tiny_gpt2, template=template, sweep=sweep)
    found = estimate_run(settings, Tables(table), tmp_path / "estimate")
    assert len(calls["steps"]) == 6, "three steps, each without and with the text cache"
    assert not list((tmp_path / "estimate").glob("checkpoints/*"))
    for seen in calls.values():
        seen.clear()
    run_training(
        settings, Tables(table), tmp_path / "run", should_stop=lambda: False,
        report=lambda line: None, export=lambda trained, directory: None,
    )  # fmt: skip
    trials, counts = len(settings.trials), found.counts
    assert (
        len(calls["evaluations"]) == trials * (counts.evaluations + counts.at_end) + counts.of_base + counts.in_context
    )
    assert len(calls["steps"]) == trials * (counts.first_steps + counts.later_steps) == trials * 13
    assert counts.first_steps == 9, "68 training rows in batches of 8"
    assert min(found.preparing, found.first_step, found.later_step, found.evaluation) > 0
    assert found.peak_mib > 100 and found.gpu_peak_mib is None
    assert (found.text_cache_mib > 0) == (template == IN_FRONT) == (found.text_cache_place is Place.DEVICE)


def test_seconds_are_those_of_all_trials() -> None:
    assert MEASURED.seconds() == 10 + 9 + (5 * 2 + 8 * 1 + 4 * 3)
    assert MEASURED.seconds(6) == 10 + 9 + 6 * (5 * 2 + 8 * 1 + 4 * 3)
    sampled = replace(MEASURED, counts=replace(MEASURED.counts, share=0.5, share_of_base=0.1, at_end=2))
    assert sampled.seconds() == pytest.approx(10 + 0.9 + (5 * 2 + 8 * 1 + 2 * 3 + 2 * 3))
    assert MEASURED.seconds(6, templates=2) == 2 * (10 + 9) + 6 * (5 * 2 + 8 * 1 + 4 * 3)


def test_a_sweep_is_told_that_one_trial_was_measured() -> None:
    """Bug: the first trial's seconds were given as the whole sweep's."""
    text = MEASURED.of_sweep(6, 1)
    assert "One of 6 trials, measured alone: at most 49 s" in text and "All 6 trials: at most 199 s" in text
    assert "at most N times" in text and "more memory" in text
    assert "texts of all 2 templates" in MEASURED.of_sweep(6, 2)
    assert "one after the other" in replace(MEASURED, share_batches=False).of_sweep(6, 1)
    assert MEASURED.of_sweep(1, 1) == str(MEASURED)


@pytest.mark.parametrize(
    ("place", "gpu", "words"),
    [
        (Place.NOWHERE, None, "900 MiB of main memory"),
        (Place.DEVICE, None, "900 MiB of main memory, 600 MiB of them for the text cache"),
        (Place.DISK, None, "900 MiB of main memory, 600 MiB on disk for the text cache"),
        (Place.DEVICE, 700.0, "900 MiB of main memory, 700 MiB of GPU memory, 600 MiB of them for the text cache"),
        (Place.HOST, 700.0, "900 MiB of main memory, 600 MiB of them for the text cache, 700 MiB of GPU memory"),
        (Place.DISK, 700.0, "900 MiB of main memory, 700 MiB of GPU memory, 600 MiB on disk for the text cache"),
    ],
)
def test_the_text_cache_is_named_beside_the_memory_it_is_in(place: Place, gpu: float | None, words: str) -> None:
    cache = 0.0 if place is Place.NOWHERE else 600.0
    found = replace(MEASURED, gpu_peak_mib=gpu, text_cache_mib=cache, text_cache_place=place)
    assert str(found).splitlines()[1] == words


def test_main_memory_has_room_for_a_text_cache_that_is_not_filled_yet(
    tmp_path: Path, tiny_gpt2: Path, table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bug: memory nobody has written to is not taken yet, so the whole seemed smaller than the text cache in it."""
    monkeypatch.setattr("ptune_core.training.estimate._peak_bytes", lambda: 900 * 2**20)
    # Of a large base model, as it were.
    monkeypatch.setattr(TextCache, "mib", property(lambda texts: 6000.0 if texts.num_tokens else 0.0))
    settings = settings_for(tiny_gpt2, template=IN_FRONT, batch_size=4, max_steps=40)
    found = estimate_run(settings, Tables(table), tmp_path / "run")
    assert 900 + 3000 < found.peak_mib < 900 + 6000, "three of seventeen batches and the validation rows are in it"


@pytest.mark.parametrize("size", [1, 2, 5])
@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 6, 7, 11, 15, 16, 64])
def test_no_batch_is_measured_as_new_twice(count: int, size: int) -> None:
    """Bug: of few batches the same was chosen again, and found its texts in the text cache."""
    steps = choose_steps(range(count), size)
    chosen = [position for step in steps for position in step]
    assert len(set(chosen)) == len(chosen) == min(3, max(1, count // size)) * min(size, count)
    assert count - 1 in chosen, "the longest shows the memory"
    assert all(len(step) == min(size, count) for step in steps)


def test_every_batch_of_an_accumulated_step_is_another(
    tmp_path: Path, tiny_gpt2: Path, table: Table, calls: dict[str, list[Any]]
) -> None:
    """Bug: a step took one batch four times, three of them with their texts in the text cache."""
    settings = settings_for(tiny_gpt2, template=IN_FRONT, batch_size=4, gradient_accumulation_steps=4)
    estimate_run(settings, Tables(table), tmp_path / "run")
    steps = [calls["batches"][i : i + 4] for i in range(0, 24, 4)]
    assert len(calls["batches"]) == 24 and all(
        sorted(new) == sorted(again) for new, again in zip(steps[::2], steps[1::2], strict=True)
    )
    assert len({position for step in steps for position in step}) == 12
