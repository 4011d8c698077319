"""The client against a real child process with a fake engine (`fake_server.py`)."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest

from ptune_core.errors import AdapterError, InferenceError, TemplateError
from ptune_core.inference import client as client_module
from ptune_core.inference.client import InferenceClient
from ptune_core.inference.protocol import MAX_ROWS, MAX_VALUE_CHARACTERS

FAKE_SERVER = Path(__file__).with_name("fake_server.py")
ADAPTER = Path("adapter")
DEADLINE_SECONDS = 30


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, "nothing happened"
        time.sleep(0.01)


def is_gone(pid: int) -> bool:
    """Whether it has ended with all of its threads: until the last one is gone, its pipes are open."""
    try:
        process = psutil.Process(pid)
        return process.status() == psutil.STATUS_ZOMBIE and process.num_threads() == 1
    except psutil.NoSuchProcess:
        return True


def pids(data: Path) -> list[int]:
    """The inference processes there have been, in order."""
    return [int(line) for line in (data / "pids").read_text().split()]


def command() -> list[str]:
    return [sys.executable, str(FAKE_SERVER)]


@pytest.fixture
def client(tmp_path: Path) -> Iterator[InferenceClient]:
    with InferenceClient(tmp_path / "logs" / "inference.log", tmp_path, command=command()) as client:
        yield client


def rows(*texts: str) -> list[dict[str, str]]:
    return [{"text": text} for text in texts]


def test_classify_joins_the_parts_of_all_rows(client: InferenceClient) -> None:
    answer = client.classify(ADAPTER, rows("a", "b" * 50, "é" * 100))
    assert answer == {
        "labels": ["no", "yes"],
        "tuned": [[0.99, 0.01], [0.5, 0.5], [0.0, 1.0]],
        "base": [[0.5, 0.5]] * 3,
        "note": "",
    }
    assert client.classify(ADAPTER, rows("a", "b"), compare=False)["base"] is None


def test_generate_streams_both_texts(client: InferenceClient) -> None:
    parts = list(client.generate(ADAPTER, {"text": "go"}, max_new_tokens=3))
    assert parts == [{"tuned": text, "base": "b"} for text in ("x", "xx", "xxx")]


def test_one_process_serves_all_requests(client: InferenceClient, tmp_path: Path) -> None:
    for _ in range(3):
        client.classify(ADAPTER, rows("a"))
    assert len(pids(tmp_path)) == 1


def test_an_error_arrives_as_what_it_was(client: InferenceClient) -> None:
    with pytest.raises(AdapterError) as raised:
        client.classify(ADAPTER, rows("bad adapter"))
    assert str(raised.value) == "The adapter is broken. Got: 3 tensors. Needed: 1. Download it again."
    with pytest.raises(TemplateError) as raised_template:
        client.classify(ADAPTER, rows("bad template"))
    assert raised_template.value.position == 13
    assert str(raised_template.value).endswith("[P][ANSWER:a][ANSWER:b]\n               ^")
    assert client.classify(ADAPTER, rows("a"))["labels"] == ["no", "yes"]


def test_output_of_libraries_goes_to_the_log_not_into_the_answers(client: InferenceClient, tmp_path: Path) -> None:
    assert len(client.classify(ADAPTER, rows("chatter"))["tuned"]) == 1
    assert (tmp_path / "logs" / "inference.log").stat().st_size > 1_000_000


def test_kill_9_tells_the_request_in_flight_and_the_next_one_works(client: InferenceClient, tmp_path: Path) -> None:
    streaming = client.generate(ADAPTER, {"text": "endless"})
    next(streaming)
    os.kill(pids(tmp_path)[0], signal.SIGKILL)
    with pytest.raises(InferenceError, match="killed by signal 9.*Try again.*inference.log"):
        for _ in streaming:
            pass
    assert client.classify(ADAPTER, rows("a"))["tuned"] == [[0.99, 0.01]]
    assert len(pids(tmp_path)) == 2


def test_a_killed_idle_process_is_replaced_unseen(client: InferenceClient, tmp_path: Path) -> None:
    client.classify(ADAPTER, rows("a"))
    os.kill(pids(tmp_path)[0], signal.SIGKILL)
    wait_until(lambda: is_gone(pids(tmp_path)[0]))
    client.classify(ADAPTER, rows("a"))
    assert len(pids(tmp_path)) == 2


def test_everyone_in_flight_is_told_when_the_process_dies(client: InferenceClient) -> None:
    streams = [client.generate(ADAPTER, {"text": "endless"}) for _ in range(3)]
    for stream in streams:
        next(stream)
    with pytest.raises(InferenceError, match="killed by signal 9"):
        client.classify(ADAPTER, rows("die"))
    for stream in streams:
        with pytest.raises(InferenceError, match="killed by signal 9"):
            list(stream)


def test_a_bug_is_in_the_log_with_its_traceback(client: InferenceClient, tmp_path: Path) -> None:
    with pytest.raises(InferenceError, match="exit code 1"):
        client.classify(ADAPTER, rows("bug"))
    log = (tmp_path / "logs" / "inference.log").read_text()
    assert "Traceback" in log and "RuntimeError: a bug in the engine" in log
    assert client.classify(ADAPTER, rows("a"))["note"] == ""


def test_threads_get_their_own_answers_while_another_streams_without_end(client: InferenceClient) -> None:
    endless = client.generate(ADAPTER, {"text": "endless"})
    next(endless)
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda n: client.classify(ADAPTER, rows("a" * n))["tuned"][0][1], range(1, 60)))
    assert answers == [n / 100 for n in range(1, 60)]
    endless.close()


def test_closing_the_stream_stops_the_model(client: InferenceClient, tmp_path: Path) -> None:
    for part in client.generate(ADAPTER, {"text": "endless"}):
        if len(part["tuned"]) == 5:
            break
    wait_until((tmp_path / "closed").exists)
    assert client.classify(ADAPTER, rows("a"))["note"] == ""
    assert len(pids(tmp_path)) == 1


def test_a_process_that_leaves_for_idleness_is_started_again(client: InferenceClient, tmp_path: Path) -> None:
    client.classify(ADAPTER, rows("a"))
    (tmp_path / "leave-when-idle").touch()
    wait_until(lambda: is_gone(pids(tmp_path)[0]))
    (tmp_path / "leave-when-idle").unlink()
    client.classify(ADAPTER, rows("a"))
    assert len(pids(tmp_path)) == 2


def test_a_request_that_meets_a_leaving_process_is_asked_again(client: InferenceClient, tmp_path: Path) -> None:
    assert client.classify(ADAPTER, rows("leave once"))["tuned"] == [[0.9, 0.1]]
    assert len(pids(tmp_path)) == 2


def test_a_silent_process_is_ended_and_replaced(tmp_path: Path) -> None:
    with InferenceClient(tmp_path / "log", tmp_path, command=command(), silence_limit=DEADLINE_SECONDS) as client:
        client.classify(ADAPTER, rows("a"))
        client._silence_limit = 0.1
        with pytest.raises(InferenceError, match="no sign of life for 0.1 seconds"):
            client.classify(ADAPTER, rows("hang"))
        client._silence_limit = DEADLINE_SECONDS
        assert client.classify(ADAPTER, rows("a"))["note"] == ""
    assert all(is_gone(pid) for pid in pids(tmp_path))


def test_close_ends_the_process_and_a_later_request_starts_one(client: InferenceClient, tmp_path: Path) -> None:
    client.classify(ADAPTER, rows("a"))
    client.close()
    assert is_gone(pids(tmp_path)[0])
    client.classify(ADAPTER, rows("a"))
    assert len(pids(tmp_path)) == 2


def test_closing_tells_whoever_waits_and_starts_nothing_for_them(client: InferenceClient, tmp_path: Path) -> None:
    client.classify(ADAPTER, rows("a"))
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(client.classify, ADAPTER, rows("start", "hang"))
        wait_until((tmp_path / "started").exists)
        client.close()
        with pytest.raises(InferenceError, match="it was closed"):
            waiting.result(DEADLINE_SECONDS)
    assert len(pids(tmp_path)) == 1


def test_the_process_ends_with_the_app_even_when_it_is_killed(tmp_path: Path) -> None:
    app = (
        "import os, signal, sys; from pathlib import Path; from ptune_core.inference.client import InferenceClient\n"
        f"client = InferenceClient(Path({str(tmp_path / 'log')!r}), Path({str(tmp_path)!r}), command={command()!r})\n"
        "next(client.generate(Path('adapter'), {'text': 'endless'}))\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    assert subprocess.run([sys.executable, "-c", app], check=False).returncode == -signal.SIGKILL
    wait_until(lambda: is_gone(pids(tmp_path)[0]))


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (lambda c: c.classify(ADAPTER, []), "rows.*at least 1"),
        (lambda c: c.classify(ADAPTER, rows(*["a"] * (MAX_ROWS + 1))), "rows.*at most"),
        (lambda c: c.classify(ADAPTER, rows("a", "b" * (MAX_VALUE_CHARACTERS + 1))), "row 2, text.*at most"),
        (lambda c: c.classify(ADAPTER, rows(*["a" * 190_000] * 30)), "all rows together"),
        (lambda c: c.classify(ADAPTER, [{"text": 3}]), "row 1, text.*string"),
        (lambda c: c.classify(ADAPTER, rows("\ud800")), "row 1, text.*unicode"),
        (lambda c: c.generate(ADAPTER, {"text": "a"}, temperature=-1.0), "temperature"),
        (lambda c: c.generate(ADAPTER, {"text": "a"}, temperature=float("nan")), "temperature"),
        (lambda c: c.generate(ADAPTER, {"text": "a"}, max_new_tokens=10**6), "max_new_tokens"),
        (lambda c: c.generate(ADAPTER, {"text": "a"}, seed=-1), "seed"),
        (lambda c: c.generate(ADAPTER, {"text": "a"}, beams=2), "beams"),
    ],
)
def test_values_out_of_bounds_are_named_before_anything_is_started(
    client: InferenceClient, tmp_path: Path, ask: Callable[[InferenceClient], object], message: str
) -> None:
    with pytest.raises(InferenceError, match=message):
        ask(client)
    assert not (tmp_path / "pids").exists()


def test_a_process_that_cannot_be_started_is_said_so(tmp_path: Path) -> None:
    client = InferenceClient(tmp_path / "log", tmp_path, command=[str(tmp_path / "no-python")])
    with pytest.raises(InferenceError, match="cannot be started.*no-python"):
        client.classify(ADAPTER, rows("a"))


def test_the_log_does_not_grow_over_restarts(
    client: InferenceClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client_module, "_MAX_LOG_BYTES", 1000)
    client.classify(ADAPTER, rows("chatter"))
    client.close()
    client.classify(ADAPTER, rows("a"))
    assert (tmp_path / "logs" / "inference.log").stat().st_size < 1000
    assert (tmp_path / "logs" / "inference.log.1").stat().st_size > 1000


def test_the_client_imports_neither_torch_nor_transformers() -> None:
    code = "import sys, ptune_core.inference.client; print([m for m in ('torch', 'transformers') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
