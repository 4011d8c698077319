"""What viewers are told: everything once, only what is new after that, and never a line that is not whole."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ptune_core.runs import live
from ptune_core.runs.directory import RunDirectory
from ptune_core.runs.live import MOST_MOMENTS, MOST_POINTS, duration, since, summary, thinned
from ptune_core.runs.metrics_log import MetricsLog
from ptune_core.runs.states import RunState
from ptune_core.runs.store import Store

PLAN = {"kind": "plan", "steps": 300, "metric": "accuracy", "warnings": [], "data": "Using 4 of 4 rows"}


def step(number: int, loss: float = 1.0, **more: Any) -> dict[str, Any]:
    line = {"kind": "step", "step": number, "epoch": 0.1, "loss": loss, "learning_rate": 0.1, "grad_norm": 2.0}
    return line | {"seconds": number / 4} | more


def evaluation(number: int, value: float = 0.5, best: bool = False) -> dict[str, Any]:
    return {"kind": "eval", "step": number, "loss": 0.9, "value": value, "macro_f1": 0.4, "best": best, "seconds": 1.0}


@pytest.fixture
def files(store: Store, submit: Callable[..., str]) -> RunDirectory:
    directory = RunDirectory(store.runs_dir / submit())
    directory.record("started", attempt=1, pid=1)
    return directory


@pytest.fixture
def write(files: RunDirectory) -> Callable[..., None]:
    """Append lines as a worker's attempt does; each call is one attempt."""

    def _write(*lines: dict[str, Any]) -> None:
        with MetricsLog(files.metrics) as log:
            for line in lines:
                log.append(line)

    return _write


@pytest.fixture
def append(files: RunDirectory) -> Callable[..., None]:
    """Append lines to the attempt under way."""

    def _append(*lines: dict[str, Any]) -> None:
        with files.metrics.open("a") as file:
            file.writelines(json.dumps(line) + "\n" for line in lines)

    return _append


Write = Callable[..., None]


def test_a_viewer_gets_everything_and_then_what_is_new(files: RunDirectory, write: Write, append: Write) -> None:
    write(PLAN, {"kind": "baseline", "majority": 0.5, "zero_shot": 0.52}, evaluation(0, 0.52, True), step(1, 0.7))
    first = since(files.path, 0, 0)
    assert first["reset"] and not first["done"] and first["state"] == "running"
    assert first["steps"] == {"x": [1], "loss": [0.7], "learning_rate": [0.1], "grad_norm": [2.0], "seconds": [0.25]}
    unknown = {"rows": [None], "low": [None], "high": [None]}
    assert first["evals"] == {"x": [0], "loss": [0.9], "value": [0.52], "best": [True], "seconds": [1.0], **unknown}
    assert first["epochs_per_step"] == 0.1
    assert first["baseline"] == {"majority": 0.5, "zero_shot": 0.52} and first["plan"]["steps"] == 300

    nothing = since(files.path, first["cursor"], first["epoch"])
    assert not nothing["reset"] and nothing["steps"]["x"] == [] == nothing["evals"]["x"]

    append(step(2), step(3), evaluation(3, 0.6))
    second = since(files.path, first["cursor"], first["epoch"])
    assert not second["reset"] and second["steps"]["x"] == [2, 3]
    assert second["evals"] == {"x": [3], "loss": [0.9], "value": [0.6], "best": [False], "seconds": [1.0], **unknown}


def test_viewers_with_cursors_of_their_own_all_see_every_point_once(
    files: RunDirectory, write: Write, append: Write
) -> None:
    write(PLAN)
    seen: list[list[int]] = [[] for _ in range(5)]
    cursors = [(0, 0)] * 5
    for number in range(1, 41):
        append(step(number))
        for viewer in range(5):
            if number % (viewer + 1) == 0:
                reply = since(files.path, *cursors[viewer])
                seen[viewer] = reply["steps"]["x"] if reply["reset"] else seen[viewer] + reply["steps"]["x"]
                cursors[viewer] = (reply["cursor"], reply["epoch"])
    for viewer in range(5):
        assert seen[viewer] == list(range(1, 40 // (viewer + 1) * (viewer + 1) + 1))


def test_a_line_is_shown_when_it_is_whole(files: RunDirectory, write: Write) -> None:
    write(PLAN, step(1))
    seen = since(files.path, 0, 0)
    line = json.dumps(step(2)) + "\n"
    for end in range(1, len(line)):
        with files.metrics.open("a") as file:
            file.write(line[end - 1 : end])
        reply = since(files.path, seen["cursor"], seen["epoch"])
        assert reply["steps"]["x"] == [] and reply["cursor"] == seen["cursor"]
    with files.metrics.open("a") as file:
        file.write("\n")
    assert since(files.path, seen["cursor"], seen["epoch"])["steps"]["x"] == [2]


def test_a_first_line_that_is_not_whole_is_waited_for(files: RunDirectory) -> None:
    files.metrics.write_text('{"kind":"edi')
    assert since(files.path, 0, 0)["cursor"] == 0
    files.metrics.write_text('{"kind":"edition","edition":1}\n' + json.dumps(step(1)) + "\n")
    assert since(files.path, 0, 0)["steps"]["x"] == [1]


def test_a_resumed_run_replaces_what_viewers_have(files: RunDirectory, write: Write) -> None:
    write(PLAN, *(step(number, 1.0) for number in range(1, 9)))
    before = since(files.path, 0, 0)
    write({"kind": "resume", "step": 5}, step(6, 2.0))
    after = since(files.path, before["cursor"], before["epoch"])
    assert after["reset"] and after["epoch"] > before["epoch"]
    assert after["steps"]["x"] == [1, 2, 3, 4, 5, 6] and after["steps"]["loss"][-1] == 2.0
    assert not since(files.path, after["cursor"], after["epoch"])["reset"]


def test_the_time_axis_goes_on_after_a_resume(files: RunDirectory, write: Write) -> None:
    write(PLAN, *(step(number, seconds=10.0 + number) for number in range(1, 9)))
    preparing = {"kind": "phase", "phase": "preparing", "seconds": 3.0}
    write(preparing, {"kind": "resume", "step": 5}, step(6, seconds=4.0), step(7, seconds=5.0))
    assert since(files.path, 0, 0)["steps"]["seconds"] == [11, 12, 13, 14, 15, 19, 20]


def test_accuracy_comes_with_its_interval_and_a_loss_without(files: RunDirectory, write: Write) -> None:
    write(PLAN | {"validation_examples": 200}, evaluation(0, 0.9), evaluation(3, math.nan))
    evals = since(files.path, 0, 0)["evals"]
    assert evals["low"] == [pytest.approx(0.85058, abs=1e-4), None]
    assert evals["high"] == [pytest.approx(0.93434, abs=1e-4), None]
    write(PLAN | {"validation_examples": 200, "metric": "loss"}, evaluation(0, 0.9))
    assert "low" not in since(files.path, 0, 0)["evals"]


def test_an_evaluation_of_some_rows_has_the_interval_of_so_many(files: RunDirectory, write: Write) -> None:
    write(PLAN | {"validation_examples": 5000}, evaluation(0, 0.6) | {"rows": 100, "interval": [0.5, 0.69]})
    evals = since(files.path, 0, 0)["evals"]
    assert (evals["rows"], evals["low"], evals["high"]) == ([100], [0.5], [0.69])


FINAL = {
    "kind": "final", "step": 3, "loss": 0.8, "value": 0.64, "rows": 5000, "interval": [0.62, 0.66],
    "baseline": {"majority": 0.5, "zero_shot": 0.52, "probe": 0.7, "probe_interval": [0.68, 0.72], "probe_rows": 900},
}  # fmt: skip


def test_the_result_on_all_rows_is_the_best_and_brings_what_was_measured_last(
    store: Store, files: RunDirectory, write: Write, append: Write
) -> None:
    first = {"majority": 0.5, "zero_shot": 0.52}
    write(PLAN, {"kind": "baseline", **first}, evaluation(0, 0.5, True), evaluation(3, 0.6), evaluation(6, 0.9, True))
    before = since(files.path, 0, 0)
    assert before["final"] is None and before["baseline"] == first
    assert "best accuracy 0.900 at step 6" in before["status"]
    append(FINAL)
    after = since(files.path, before["cursor"], before["epoch"])
    assert (after["final"]["step"], after["final"]["value"], after["final"]["rows"]) == (3, 0.64, 5000)
    assert (after["final"]["low"], after["final"]["high"]) == (0.62, 0.66)
    assert after["baseline"]["probe"] == 0.7 and "best accuracy 0.640 at step 3" in after["status"]
    store.claim_next()
    listed = summary(store.get(files.path.name, None))
    assert (listed["best"], listed["best_step"], listed["baseline"]["probe_rows"]) == (0.64, 3, 900)


def test_a_run_that_goes_on_has_no_result_any_more(files: RunDirectory, write: Write) -> None:
    write(PLAN, {"kind": "baseline", "majority": 0.5}, evaluation(0, 0.5, True), step(1), step(2), FINAL)
    write({"kind": "resume", "step": 1})
    reply = since(files.path, 0, 0)
    assert reply["final"] is None and reply["baseline"] == {"majority": 0.5}
    assert "best accuracy 0.500 at step 0" in reply["status"]


def tokens(number: int) -> dict[str, Any]:
    return {"kind": "tokens", "step": number, "trial": 1, "numbers": [1], "moved": [number / 10], "nearest": [["a"]]}


def test_virtual_tokens_come_once_and_what_a_resume_repeats_is_dropped(
    files: RunDirectory, write: Write, append: Write
) -> None:
    write(PLAN, step(1), tokens(1))
    first = since(files.path, 0, 0)
    assert first["tokens"] == [{"step": 1, "numbers": [1], "moved": [0.1], "nearest": [["a"]]}]
    append(step(2), tokens(2))
    assert [line["step"] for line in since(files.path, first["cursor"], first["epoch"])["tokens"]] == [2]
    write({"kind": "resume", "step": 1}, step(2))
    assert [line["step"] for line in since(files.path, 0, 0)["tokens"]] == [1]


def test_however_many_evaluations_few_moments_of_virtual_tokens_are_sent(
    files: RunDirectory, write: Write, append: Write
) -> None:
    write(PLAN)
    append(*(tokens(number) for number in range(1, 1001)))
    steps = [line["step"] for line in since(files.path, 0, 0)["tokens"]]
    assert len(steps) == MOST_MOMENTS and steps == sorted(set(steps)) and (steps[0], steps[-1]) == (1, 1000)


def test_two_resumes_between_two_looks_are_noticed(files: RunDirectory, write: Write) -> None:
    """A hidden tab may sleep through any number of attempts, and files may get the same inode again."""
    write(PLAN, *(step(number, 1.0) for number in range(1, 9)))
    before = since(files.path, 0, 0)
    for loss in (2.0, 3.0):
        write({"kind": "resume", "step": 5}, *(step(number, loss) for number in range(6, 9)))
    after = since(files.path, before["cursor"], before["epoch"])
    assert after["reset"] and after["steps"]["loss"] == [1.0] * 5 + [3.0] * 3


@pytest.mark.parametrize("cursor", [-1, 10**9, 2**52])
def test_a_cursor_that_cannot_be_is_answered_with_everything(files: RunDirectory, write: Write, cursor: int) -> None:
    write(step(1))
    reply = since(files.path, cursor, 1)
    assert reply["reset"] and reply["steps"]["x"] == [1]


def test_a_long_history_is_thinned_but_keeps_its_shape(files: RunDirectory, write: Write, append: Write) -> None:
    write(PLAN)
    losses = [1.0 + math.sin(number / 50) / 10 for number in range(1, 10_001)]
    losses[4321], losses[7000] = 9.0, 0.01
    append(*(step(number, loss) for number, loss in enumerate(losses, start=1)))
    reply = since(files.path, 0, 0)
    points = dict(zip(reply["steps"]["x"], reply["steps"]["loss"], strict=True))
    assert len(points) <= MOST_POINTS and list(points) == sorted(points)
    assert points[4322] == 9.0 and points[7001] == 0.01 and {1, 10_000} <= points.keys()
    assert all(loss == pytest.approx(losses[number - 1], rel=1e-5) for number, loss in points.items())
    assert len(json.dumps(reply)) < 100_000


def test_a_viewer_that_slept_for_long_gets_a_thinned_history(files: RunDirectory, write: Write, append: Write) -> None:
    write(PLAN, step(1))
    seen = since(files.path, 0, 0)
    append(*(step(number) for number in range(2, 3 * MOST_POINTS)))
    reply = since(files.path, seen["cursor"], seen["epoch"])
    assert reply["reset"] and len(reply["steps"]["x"]) <= MOST_POINTS


@pytest.mark.parametrize("count", [0, 1, 2, 9, 10, 11, 100, 1003])
def test_thinning_keeps_ends_order_and_limit(count: int) -> None:
    values = [float((7 * i) % 13) for i in range(count)]
    kept = list(thinned(values, 10))
    assert kept == sorted(set(kept)) and len(kept) == count if count <= 10 else len(kept) <= 10
    if count > 10:
        assert kept[0] == 0 and kept[-1] == count - 1
        assert {max(values), min(values)} == {max(values[i] for i in kept), min(values[i] for i in kept)}


def test_the_rate_is_that_of_this_attempt(files: RunDirectory, write: Write) -> None:
    fast = [step(number, seconds=0.01 * number) for number in range(1, 101)]
    write(PLAN, {"kind": "phase", "phase": "training"}, *fast)
    write({"kind": "resume", "step": 100}, {"kind": "phase", "phase": "training"})
    progress = since(files.path, 0, 0)["progress"]
    assert progress == {"step": 100, "steps": 300, "rate": None, "seconds_left": None}
    write_on = [step(101, seconds=5.0), step(102, seconds=7.0), step(103, seconds=9.0)]
    with files.metrics.open("a") as file:
        file.writelines(json.dumps(line) + "\n" for line in write_on)
    reply = since(files.path, 0, 0)
    assert reply["progress"] == {"step": 103, "steps": 300, "rate": 0.5, "seconds_left": 394.0}
    assert reply["status"] == "Step 103 of 300 · 0.5 steps/s · at most 6 min 34 s left"


def test_numbers_that_are_missing_or_null_are_null(files: RunDirectory, write: Write) -> None:
    write(step(1, math.nan), {"kind": "step", "step": 2, "loss": 1.0})
    reply = since(files.path, 0, 0)
    assert reply["steps"]["loss"] == [None, 1.0] and reply["steps"]["grad_norm"] == [2.0, None]
    json.dumps(reply, allow_nan=False)


def test_samples_come_when_they_are_new(files: RunDirectory, write: Write, append: Write) -> None:
    rows = [{"row": 1, "text": "good", "label": "positive", "predicted": "negative", "p": 0.6}]
    write({"kind": "sample", "step": 3, "rows": []}, {"kind": "sample", "step": 6, "rows": rows})
    first = since(files.path, 0, 0)
    assert first["samples"] == [{"step": 6, "rows": rows}]
    append(step(7))
    assert since(files.path, first["cursor"], first["epoch"])["samples"] == []


def test_a_run_that_waits_has_nothing_to_show_yet(store: Store, submit: Callable[..., str]) -> None:
    reply = since(store.runs_dir / submit("other"), 0, 0)
    assert (reply["state"], reply["status"], reply["done"]) == ("queued", "Waiting for its turn", False)
    assert reply["steps"]["x"] == [] and reply["plan"] is None and reply["progress"]["step"] == 0


@pytest.mark.parametrize(
    ("end", "status"),
    [
        (
            {"state": "finished", "reason": "all steps done"},
            "Step 2 of 300 · best accuracy 0.750 at step 2 · all steps done",
        ),
        ({"state": "stopped", "reason": "stopped"}, "Step 2 of 300 · best accuracy 0.750 at step 2"),
        (
            {"state": "failed", "error": {"kind": "DiskFull", "text": "The disk is full."}},
            "Step 2 of 300 · best accuracy 0.750 at step 2 · The disk is full.",
        ),
    ],
)
def test_a_run_that_has_ended_says_how(files: RunDirectory, write: Write, end: dict[str, Any], status: str) -> None:
    write(PLAN, step(1), step(2), evaluation(2, 0.75, True))
    files.write_result(end)
    reply = since(files.path, 0, 0)
    assert (reply["state"], reply["done"], reply["status"]) == (end["state"], True, status)
    assert reply["progress"]["seconds_left"] is None


def test_the_status_says_how_much_of_a_base_model_has_come(files: RunDirectory, write: Write, append: Write) -> None:
    write({"kind": "phase", "phase": "downloading base model", "bytes": 240_000_000, "of": 548_000_000})
    assert since(files.path, 0, 0)["status"] == "Downloading base model, 43% of 548 MB…"
    append({"kind": "phase", "phase": "loading base model", "bytes": 548_000_000, "of": 548_000_000})
    assert since(files.path, 0, 0)["status"] == "Loading base model…"


def test_the_status_names_the_phase_and_a_stop_under_way(files: RunDirectory, write: Write, append: Write) -> None:
    write({"kind": "phase", "phase": "loading base model"})
    assert since(files.path, 0, 0)["status"] == "Loading base model…"
    append(PLAN, {"kind": "phase", "phase": "training"})
    assert since(files.path, 0, 0)["status"] == "First evaluation…", "the line was empty for seconds"
    append(step(1))
    assert since(files.path, 0, 0)["status"] == "Step 1 of 300"
    files.request_stop()
    assert since(files.path, 0, 0)["status"].startswith("Stopping; the best result so far is kept")


def test_lists_get_a_summary(store: Store, files: RunDirectory, write: Write) -> None:
    write(PLAN, {"kind": "baseline", "majority": 0.5, "zero_shot": 0.52})
    with files.metrics.open("a") as file:
        values = [evaluation(number, 0.5 + number / 1000, number == 77) for number in range(200)]
        file.writelines(json.dumps(line) + "\n" for line in values)
    store.claim_next()
    listed = summary(store.get(files.path.name, None))
    assert (listed["id"], listed["state"], listed["metric"]) == (files.path.name, RunState.RUNNING, "accuracy")
    assert (listed["best"], listed["best_step"]) == (pytest.approx(0.577), 77)
    assert 2 < len(listed["spark"]) <= 40 and listed["baseline"]["zero_shot"] == 0.52
    json.dumps(listed, allow_nan=False)


def test_the_file_is_read_forward_only(files: RunDirectory, write: Write, append: Write, monkeypatch: Any) -> None:
    """A hundred viewers must not mean a hundred readings of a long file."""
    write(PLAN, *(step(number) for number in range(1, 2000)))
    seen = since(files.path, 0, 0)
    read: list[int] = []
    pread = live.os.pread

    def counting(descriptor: int, size: int, offset: int) -> bytes:
        data = pread(descriptor, size, offset)
        read.append(len(data))
        return data

    monkeypatch.setattr(live.os, "pread", counting)
    append(step(2000))
    for _ in range(10):
        since(files.path, seen["cursor"], seen["epoch"])
    assert sum(read) < 10 * 300 + 1000


def test_time_spans_are_said_as_people_do() -> None:
    assert [duration(seconds) for seconds in (0.4, 59.4, 59.6, 200, 7500)] == [
        "0 s", "59 s", "1 min 0 s", "3 min 20 s", "2 h 5 min",
    ]  # fmt: skip


def test_a_run_directory_that_is_gone_is_no_error(tmp_path: Path) -> None:
    assert since(tmp_path / "gone", 5, 1)["steps"]["x"] == []
