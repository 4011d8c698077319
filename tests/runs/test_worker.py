"""The worker in this process: what it records of a training, however that ends."""

from __future__ import annotations

import errno
import importlib.util
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from ptune_core import files as files_module
from ptune_core.errors import DataError, RunError, SettingsError, TrainingDiverged
from ptune_core.files import Ballast, Lock, read_lines
from ptune_core.model.lease import is_training
from ptune_core.runs.directory import RunDirectory
from ptune_core.runs.metrics_log import MetricsLog
from ptune_core.runs.store import Store
from ptune_core.runs.worker import EXIT_LOCKED, train_here, work
from ptune_core.training.settings import RunSettings


def load_fake() -> ModuleType:
    spec = importlib.util.spec_from_file_location("fake_training", Path(__file__).with_name("fake_training.py"))
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["fake_training"] = module
    spec.loader.exec_module(module)
    return module


fake = load_fake()


@pytest.fixture
def files(store: Store, submit: Callable[..., str]) -> RunDirectory:
    return RunDirectory(store.runs_dir / submit())


def test_a_run_holds_the_device_lease_while_it_trains(store: Store, files: RunDirectory) -> None:
    data_directory = store.runs_dir.parent
    held = []

    def train(*_: object, **__: object) -> dict[str, Any]:
        held.append(is_training(data_directory))
        raise SettingsError("enough")

    assert work(files.path, train) == 0
    assert held == [True] and not is_training(data_directory)


def raising(error: BaseException) -> Callable[..., dict[str, Any]]:
    def train(*_: object, **__: object) -> dict[str, Any]:
        raise error

    return train


def failure(files: RunDirectory, error: BaseException) -> dict[str, str]:
    assert work(files.path, raising(error)) == 0
    result = files.result()
    assert result is not None and result["state"] == "failed"
    return result["error"]


def lines_of(path: Path, kind: str) -> list[dict[str, Any]]:
    return [line for line in read_lines(path.read_bytes()) if line["kind"] == kind]


def test_a_training_leaves_its_curve_and_its_result(files: RunDirectory) -> None:
    assert work(files.path, fake.FakeTraining()) == 0
    result = files.result()
    assert result is not None
    promised = {"state", "metric", "value", "baseline_majority", "baseline_zero_shot", "steps", "seconds", "error"}
    assert promised <= set(result)
    assert (result["state"], result["value"], result["error"]) == ("finished", 0.9, None)
    assert [line["step"] for line in lines_of(files.metrics, "step")] == list(range(1, 21))
    assert [line["event"] for line in files.history()] == ["queued", "started"]
    assert not files.is_alive()


def test_training_gets_the_settings_the_rows_and_the_directory(store: Store, table: Any) -> None:
    settings = RunSettings(learning_rate=0.02, validation_data="other.csv")
    run_id = store.submit(settings, table, validation=table, owner="ana", key="k")
    seen: dict[str, Any] = {}

    def train(*arguments: Any, **options: Any) -> dict[str, Any]:
        seen.update(options, arguments=arguments)
        return {}

    directory = store.runs_dir / run_id
    work(directory, train)
    given, tables, place = seen["arguments"]
    assert (given, place) == (settings, directory)
    assert tables.table.path == directory / "data" / "table.parquet"
    assert tables.validation.path == directory / "validation" / "table.parquet"
    result = RunDirectory(directory).result()
    assert result is not None and result["value"] is None, "what is not known stands there as null"


def test_a_run_that_has_a_result_is_left_alone(files: RunDirectory) -> None:
    files.write_result({"state": "stopped"})
    before = files.result_file.read_bytes()
    assert work(files.path, raising(AssertionError("must not be called"))) == 0
    assert files.result_file.read_bytes() == before


def test_a_run_that_another_worker_has_is_left_alone(files: RunDirectory) -> None:
    lock = Lock.acquire(files.lock_file)
    assert lock is not None
    with lock:
        assert work(files.path, raising(AssertionError("must not be called"))) == EXIT_LOCKED
    assert files.result() is None and [line["event"] for line in files.history()] == ["queued"]


def test_a_directory_without_a_run_is_refused(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "ptune_core.runs.worker", str(tmp_path / "nothing")]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 1 and "not a run directory" in ended.stderr and "Traceback" not in ended.stderr


def test_the_worker_starts_without_torch() -> None:
    """Its lock and its first line of history must not wait for seconds of imports."""
    code = "import sys, ptune_core.runs.worker; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_an_error_of_ours_reaches_the_person_as_it_is(files: RunDirectory) -> None:
    error = TrainingDiverged("The loss became NaN at step 7", remedy="Lower the learning rate")
    assert failure(files, error) == {"kind": "TrainingDiverged", "text": str(error)}


def test_an_error_of_others_is_a_plain_sentence_and_a_traceback_in_the_log(files: RunDirectory) -> None:
    error = failure(files, ZeroDivisionError("division by zero\nsecond line"))
    assert error["kind"] == "ZeroDivisionError" and "division by zero" in error["text"]
    assert "Traceback" not in error["text"] and "\n" not in error["text"]
    log = files.log.read_text()
    assert "Traceback" in log and "ZeroDivisionError: division by zero" in log


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError("[enforce fail at alloc_cpu.cpp:127] . DefaultCPUAllocator: can't allocate memory: you tried ..."),
        RuntimeError("CUDA out of memory. Tried to allocate 20.00 MiB"),
    ],
)
def test_running_out_of_memory_comes_with_advice(files: RunDirectory, error: Exception) -> None:
    described = failure(files, error)
    assert described["kind"] == "OutOfMemory"
    assert "batch_size" in described["text"] and "max_length" in described["text"]


def test_memory_that_runs_out_at_the_end_is_not_blamed_on_the_batch(files: RunDirectory) -> None:
    """Bug: whoever lacked memory for writing the adapter was told to lower batch_size."""

    def train(*_: object, report: Callable[[dict[str, object]], None], **__: object) -> dict[str, object]:
        report({"kind": "phase", "phase": "training", "seconds": 0.0})
        report({"kind": "phase", "phase": "exporting", "seconds": 1.0})
        raise MemoryError

    work(files.path, train)
    error = (files.result() or {})["error"]
    assert error["kind"] == "OutOfMemory" and "while exporting" in error["text"]
    assert "then resume" in error["text"] and "batch_size" not in error["text"]


def test_torch_says_out_of_memory_in_a_way_that_is_understood(files: RunDirectory) -> None:
    """Held to torch's own class, which is not imported where errors are described."""
    import torch

    assert failure(files, torch.OutOfMemoryError("HIP failed"))["kind"] == "OutOfMemory"


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        OSError(errno.EDQUOT, "Disk quota exceeded"),
        RuntimeError("[enforce fail at inline_container.cc:668] . unexpected pos 64 vs 0"),
        ValueError("I/O error: No space left on device (os error 28)"),
    ],
)
def test_a_full_disk_is_said_to_be_one(files: RunDirectory, error: Exception) -> None:
    described = failure(files, error)
    assert described["kind"] == "DiskFull" and "resume" in described["text"]


def test_other_errors_of_the_system_are_not_a_full_disk(files: RunDirectory) -> None:
    assert failure(files, OSError(errno.EACCES, "Permission denied"))["kind"] == "PermissionError"


def test_the_state_is_recorded_on_a_disk_that_is_full(files: RunDirectory, monkeypatch: pytest.MonkeyPatch) -> None:
    """The ballast is what makes room for it: while it is there, nothing can be written."""
    write = os.write

    def full(descriptor: int, data: bytes) -> int:
        if files.ballast.path.exists():
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(descriptor, data)

    def train(*_: Any, report: Callable[[dict[str, Any]], None], **__: Any) -> dict[str, Any]:
        report({"kind": "step", "step": 1, "loss": 1.0})
        monkeypatch.setattr(files_module.os, "write", full)
        assert files.ballast.path.stat().st_blocks * 512 >= files.ballast.size, "room that is really taken"
        report({"kind": "step", "step": 2, "loss": 1.0})
        raise AssertionError("the line must not have been written")

    assert work(files.path, train) == 0
    result = files.result()
    assert result is not None and result["error"]["kind"] == "DiskFull"
    assert [line["step"] for line in lines_of(files.metrics, "step")] == [1]


def test_ballast_is_not_taken_from_a_disk_that_has_no_room(tmp_path: Path) -> None:
    ballast = Ballast(tmp_path / "ballast", 1 << 60)
    ballast.hold()
    assert not ballast.path.exists()


@pytest.mark.parametrize("way", ["the flag", "SIGTERM"])
def test_a_stop_ends_training_with_its_result(files: RunDirectory, way: str) -> None:
    def train(*_: Any, should_stop: Callable[[], bool], **__: Any) -> dict[str, Any]:
        assert not should_stop()
        if way == "the flag":
            files.request_stop()
        else:
            signal.raise_signal(signal.SIGTERM)
        assert should_stop()
        return {"value": 0.7, "reason": "stopped", "stopped": True}

    before = signal.getsignal(signal.SIGTERM)
    assert work(files.path, train) == 0
    result = files.result()
    assert result is not None and (result["state"], result["value"]) == ("stopped", 0.7)
    assert "stopped" not in result and signal.getsignal(signal.SIGTERM) is before


def test_changed_data_are_refused(files: RunDirectory) -> None:
    (files.data / "table.parquet").write_bytes(b"something else")
    assert work(files.path, fake.FakeTraining()) == 0
    result = files.result()
    assert result is not None and "data were changed" in result["error"]["text"]


def test_what_is_not_an_error_is_not_recorded_as_one(files: RunDirectory) -> None:
    """A second Ctrl-C breaks off; the run is then found interrupted, not failed."""
    with pytest.raises(KeyboardInterrupt):
        work(files.path, raising(KeyboardInterrupt()))
    assert files.result() is None and files.recorded_state()[0] == "running" and not files.is_alive()


# --- metrics.jsonl ---------------------------------------------------------------------------------------------------


def step(number: int) -> dict[str, Any]:
    return {"kind": "step", "step": number, "loss": 1 / number}


def write(path: Path, *lines: dict[str, Any]) -> list[dict[str, Any]]:
    with MetricsLog(path) as log:
        for line in lines:
            log.append(line)
    return read_lines(path.read_bytes())


def test_resuming_drops_what_came_after_the_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    plan, evaluated = {"kind": "plan", "steps": 9}, {"kind": "eval", "step": 4, "loss": 1.0}
    write(path, plan, *map(step, range(1, 5)), evaluated, step(5), step(6), {"kind": "sample", "step": 6, "rows": []})
    lines = write(path, {"kind": "phase", "phase": "loading"}, {"kind": "resume", "step": 4}, step(5))
    assert lines == [
        {"kind": "edition", "edition": 2}, plan, *map(step, range(1, 5)), evaluated,
        {"kind": "phase", "phase": "loading"}, {"kind": "resume", "step": 4}, step(5),
    ]  # fmt: skip


def test_each_resume_is_a_new_edition(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    write(path, step(1), step(2))
    for edition in (2, 3, 4):
        lines = write(path, {"kind": "resume", "step": 1}, step(2))
        assert lines[0] == {"kind": "edition", "edition": edition}
        assert [line["step"] for line in lines if line["kind"] == "step"] == [1, 2]


def test_starting_over_without_a_checkpoint_drops_the_earlier_attempt(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    write(path, {"kind": "baseline", "majority": 0.5}, step(1), step(2))
    lines = write(path, {"kind": "plan", "steps": 3}, {"kind": "baseline", "majority": 0.6}, step(1))
    assert lines[1:] == [{"kind": "plan", "steps": 3}, {"kind": "baseline", "majority": 0.6}, step(1)]
    assert lines[0]["edition"] == 2


def test_the_earlier_curve_stays_until_the_new_attempt_knows_where_it_stands(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    write(path, step(1), step(2))
    lines = write(path, {"kind": "phase", "phase": "loading base model"})
    assert [line["step"] for line in lines if line["kind"] == "step"] == [1, 2] and lines[0]["edition"] == 1


@pytest.mark.parametrize("torn", [b'{"kind":"step","st', b"\0" * 100_000, b"{"])
def test_a_torn_last_line_is_cut_off(tmp_path: Path, torn: bytes) -> None:
    path = tmp_path / "metrics.jsonl"
    whole = write(path, step(1))
    with path.open("ab") as file:
        file.write(torn)
    assert write(path, {"kind": "phase", "phase": "x"}) == [*whole, {"kind": "phase", "phase": "x"}]
    assert all(json.loads(line) for line in path.read_text().splitlines())


def test_numbers_that_json_lacks_become_null(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    write(path, {"kind": "step", "step": 1, "loss": float("nan"), "more": [float("inf"), (1.5,)]})
    line = path.read_text().splitlines()[1]
    assert json.loads(line, parse_constant=lambda name: pytest.fail(f"{name} is not JSON")) == {
        "kind": "step", "step": 1, "loss": None, "more": [None, [1.5]],
    }  # fmt: skip


# --- in a terminal ---------------------------------------------------------------------------------------------------


@pytest.fixture
def settings(tmp_path: Path) -> RunSettings:
    source = tmp_path / "reviews.csv"
    source.write_text("text,label\ngood,positive\nbad,negative\nfine,positive\npoor,negative\n")
    return RunSettings(data=str(source))


def test_training_here_makes_the_same_run_directory(tmp_path: Path, settings: RunSettings) -> None:
    seen: list[dict[str, Any]] = []
    out = tmp_path / "out"
    result = train_here(settings, out, report=seen.append, train=fake.FakeTraining())
    files = RunDirectory(out)
    assert result["state"] == "finished" and files.result()["value"] == result["value"]  # type: ignore[index]
    assert files.settings() == settings and files.data_is_intact()
    assert [line for line in read_lines(files.metrics.read_bytes()) if line["kind"] != "edition"] == seen


def test_training_here_again_changes_nothing(tmp_path: Path, settings: RunSettings) -> None:
    first = train_here(settings, tmp_path / "out", train=fake.FakeTraining())
    again = train_here(settings, tmp_path / "out", train=raising(AssertionError("must not be called")))
    assert again.items() >= first.items()


def test_training_here_goes_on_after_a_stop(tmp_path: Path, settings: RunSettings) -> None:
    calls: list[int] = []

    def should_stop() -> bool:
        calls.append(1)
        return len(calls) > 12

    out = tmp_path / "out"
    stopped = train_here(settings, out, should_stop=should_stop, train=fake.FakeTraining())
    assert stopped["state"] == "stopped" and stopped["steps"] < 20
    finished = train_here(settings, out, train=fake.FakeTraining())
    assert finished["state"] == "finished" and finished["attempt"] == 2
    assert [line["step"] for line in lines_of(out / "metrics.jsonl", "step")] == list(range(1, 21))


def test_training_here_with_other_settings_is_refused(tmp_path: Path, settings: RunSettings) -> None:
    train_here(settings, tmp_path / "out", train=fake.FakeTraining())
    other = settings.model_copy(update={"learning_rate": 0.5})
    with pytest.raises(RunError, match="other settings"):
        train_here(other, tmp_path / "out", train=fake.FakeTraining())


def test_training_here_twice_at_once_is_refused(tmp_path: Path, settings: RunSettings) -> None:
    out = tmp_path / "out"

    def train(*_: Any, **__: Any) -> dict[str, Any]:
        with pytest.raises(RunError, match="Another process"):
            train_here(settings, out, train=fake.FakeTraining())
        return {}

    assert train_here(settings, out, train=train)["state"] == "finished"


def test_data_that_cannot_be_read_leave_no_run_behind(tmp_path: Path, settings: RunSettings) -> None:
    Path(settings.data).write_text("")
    with pytest.raises(DataError):
        train_here(settings, tmp_path / "out", train=fake.FakeTraining())
    Path(settings.data).write_text("text,label\ngood,positive\nbad,negative\n")
    assert train_here(settings, tmp_path / "out", train=fake.FakeTraining())["state"] == "finished"


def test_a_failed_training_here_says_why_and_can_be_repeated(tmp_path: Path, settings: RunSettings) -> None:
    error = SettingsError("The template has no target")
    failed = train_here(settings, tmp_path / "out", train=raising(error))
    assert failed["state"] == "failed" and failed["error"]["text"] == str(error)
    assert train_here(settings, tmp_path / "out", train=fake.FakeTraining())["state"] == "finished"
