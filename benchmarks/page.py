"""How live the page is, and what its viewers cost: the real app, real runs of the demo, a real browser.

    python -m benchmarks.page [--starts 3] [--blocks 6] [--seconds 10] [--viewers 20] [--json FILE]

*First point*: from the press on Start to the first point on the plot, and where that time went by the run's own lines;
the first start also fills the disk's cache. *Lag*: from a line in metrics.jsonl to its point in the browser, of all
training steps of these runs. *Viewers*: one long run, without and with viewers in turn. A viewer asks over HTTP what
the page's scripts ask and as often (`poll` each second, `overview` every other); the browser is closed meanwhile. Told
are training steps per second of the wall clock, the worker's processor seconds per step, and the app's processor
seconds per second, which is what viewers take from training on a machine that has no core to spare.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import psutil
from playwright.sync_api import Page, sync_playwright

from benchmarks.machine import describe
from benchmarks.rounds import Spread
from ptune_core.data.ingest import load_source
from ptune_core.demo import DEMO
from ptune_core.files import read_lines
from ptune_core.runs.directory import RunDirectory
from ptune_core.runs.store import Store
from ptune_core.training.settings import RunSettings

ROOT = Path(__file__).parent.parent
CHROMIUM = Path("/usr/bin/chromium")
PATIENCE = 300.0
"""Seconds anything may take."""

RECORD = """() => {
  window.drawn = [];
  let last = '';
  const look = () => {
    const data = document.querySelector('#plot .lp-loss')?.data;
    const now = data ? [data[0].x.at(-1) ?? 0, data[2].x.length] : [0, 0];
    if (String(now) !== last) { last = String(now); window.drawn.push([Date.now() / 1000, ...now]); }
    requestAnimationFrame(look);
  };
  look();
}"""
"""Notes when the loss plot shows another last step or another number of evaluations."""


@dataclass
class App:
    """A running `app.py` with a data directory of its own."""

    url: str
    process: subprocess.Popen[bytes]
    data: Path

    @property
    def newest_run(self) -> RunDirectory:
        return RunDirectory(Store(self.data).list(None)[0].directory)

    def processor_seconds(self) -> float:
        times = psutil.Process(self.process.pid).cpu_times()
        return float(times.user + times.system)


@contextmanager
def running_app(folder: Path) -> Iterator[App]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "app.py", "--port", str(port), "--data-dir", str(folder)]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        app = App(f"http://127.0.0.1:{port}/", process, folder)
        _until(lambda: _answers(app.url))
        yield app
    finally:
        process.terminate()
        process.wait()


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5):
            return True
    except (urllib.error.URLError, ConnectionError, TimeoutError):
        return False


def _until(condition: Any) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError("The app or its run did not get that far")
        time.sleep(0.02)


@dataclass
class Written:
    """The lines of one run as they come to `metrics.jsonl`, each with the time at which it was there."""

    path: Path
    lines: list[tuple[float, dict[str, Any]]] = field(default_factory=list)
    _offset: int = 0

    def read_on(self) -> None:
        try:
            with self.path.open("rb") as file:
                file.seek(self._offset)
                data = file.read()
        except FileNotFoundError:
            return
        whole = data[: data.rfind(b"\n") + 1]
        self._offset += len(whole)
        now = time.time()
        self.lines += [(now, line) for line in read_lines(whole)]

    def follow(self, ended: threading.Event) -> None:
        while not ended.wait(0.005):
            self.read_on()

    def steps(self) -> list[tuple[float, int]]:
        return [(at, line["step"]) for at, line in self.lines if line["kind"] == "step"]


@dataclass(frozen=True)
class Start:
    """One run of the demo, started by a click.

    Attributes:
        first_point: Seconds from the click to the first point on the plot.
        parts: What happened -> seconds after the click.
        lags: Of each training step, seconds from its line to its point.
    """

    first_point: float
    parts: dict[str, float]
    lags: list[float]


def start_once(page: Page, app: App) -> Start:
    page.goto(app.url)
    page.wait_for_function("document.querySelector('#report')?.textContent.includes('Using')")
    page.evaluate(RECORD)
    page.wait_for_timeout(2000)  # what the page loads late is not part of a start
    before = len(Store(app.data).list(None))
    clicked = time.time()
    page.click("#start")
    _until(lambda: len(Store(app.data).list(None)) > before)
    submitted = time.time()
    files = app.newest_run
    written, ended = Written(files.metrics), threading.Event()
    watcher = threading.Thread(target=written.follow, args=(ended,))
    watcher.start()
    page.wait_for_function("window.drawn.some(([, step, evals]) => step || evals)")
    _until(lambda: files.result() is not None)
    page.wait_for_function("document.querySelector('#plot .lp-state').textContent === 'finished'")
    ended.set()
    watcher.join()
    drawn: list[list[float]] = page.evaluate("window.drawn")
    first = next(at for at, step, evals in drawn if step or evals)
    started = next(line["time"] for line in files.history() if line["event"] == "started")
    parts = {"run in the queue": submitted - clicked, "worker runs": started - clicked}
    for at, line in written.lines:
        name = {"phase": line.get("phase"), "eval": "evaluated", "step": "first step"}.get(line["kind"])
        if name:
            parts.setdefault(name, at - clicked)
    lags = []
    for at, number in written.steps():
        shown = next((seen for seen, step, _ in drawn if step >= number), None)
        if shown is not None:
            lags.append(shown - at)
    return Start(first - clicked, {name: round(value, 2) for name, value in parts.items()}, lags)


class Viewers:
    """Pages that look at one run, without the browser around them.

    Args:
        app: Whom they ask.
        run_id: The run they look at.
        count: How many.
    """

    def __init__(self, app: App, run_id: str, count: int) -> None:
        with urllib.request.urlopen(f"{app.url}config", timeout=30) as reply:
            components = json.load(reply)["components"]
        ids = {component["props"].get("elem_id"): component["id"] for component in components}
        self.plot, self.strip = ids["plot"], ids["strip"]
        self.host, self.run_id, self.count = app.url.split("/")[2], run_id, count
        self.bytes_per_poll: list[int] = []

    @contextmanager
    def looking(self) -> Iterator[None]:
        ended = threading.Event()
        threads = [threading.Thread(target=self._look, args=(i, ended)) for i in range(self.count)]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            ended.set()
            for thread in threads:
                thread.join()

    def _look(self, number: int, ended: threading.Event) -> None:
        connection = http.client.HTTPConnection(self.host, timeout=60)
        cursor = epoch = turn = 0
        ended.wait(number / self.count)  # they did not all come at the same moment
        while not ended.is_set():
            reply = self._ask(connection, self.plot, "poll", {"run": self.run_id, "cursor": cursor, "epoch": epoch})
            cursor, epoch = reply["cursor"], reply["epoch"]
            if turn % 2 == 0:
                self._ask(connection, self.strip, "overview", {})
            turn += 1
            ended.wait(1.0)
        connection.close()

    def _ask(self, connection: http.client.HTTPConnection, component: int, name: str, data: Any) -> Any:
        question = {"session_hash": "viewer", "component_id": component, "fn_name": name, "data": data | {"viewer": ""}}
        headers = {"Content-Type": "application/json"}
        connection.request("POST", "/gradio_api/component_server", json.dumps(question), headers)
        body = connection.getresponse().read()
        if name == "poll":
            self.bytes_per_poll.append(len(body))
        return json.loads(body)


@dataclass(frozen=True)
class Block:
    """Some seconds of training with so many viewers."""

    viewers: int
    steps_per_second: float
    worker_seconds_per_step: float
    app_seconds_per_second: float


def measure_block(app: App, worker: psutil.Process, written: Written, viewers: int, seconds: float) -> Block:
    def now() -> tuple[float, int, float, float]:
        written.read_on()
        own = worker.cpu_times()
        return time.monotonic(), len(written.steps()), own.user + own.system, app.processor_seconds()

    before = now()
    time.sleep(seconds)
    wall, steps, of_worker, of_app = (b - a for a, b in zip(before, now(), strict=True))
    return Block(viewers, steps / wall, of_worker / max(1, steps), of_app / wall)


def with_and_without(app: App, blocks: int, seconds: float, viewers: int) -> tuple[list[Block], float]:
    """Blocks in turn, and the bytes of a reply to a viewer that is up to date, on the median."""
    store = Store(app.data)
    with tempfile.TemporaryDirectory() as folder:
        table = load_source(DEMO, Path(folder) / "data")
        settings = RunSettings(name="long", max_steps=100_000, eval_every=100_000, patience=0)
        run_id = store.submit(settings, table, owner="", key="long")
    files = RunDirectory(store.get(run_id, None).directory)
    written = Written(files.metrics)

    def is_training() -> bool:
        written.read_on()
        return len(written.steps()) > 5

    _until(is_training)
    pid = next(line["pid"] for line in files.history() if line["event"] == "started")
    worker, audience = psutil.Process(pid), Viewers(app, run_id, viewers)
    found = []
    for _ in range(blocks):
        found.append(measure_block(app, worker, written, 0, seconds))
        with audience.looking():
            time.sleep(1.5)  # their first replies hold the whole history
            found.append(measure_block(app, worker, written, viewers, seconds))
    files.request_stop()
    _until(lambda: files.result() is not None)
    return found, median(audience.bytes_per_poll)


def report(starts: list[Start], blocks: list[Block], size: float, viewers: int) -> None:
    print(
        "| start | first point, s | lag, median s | lag, largest s | seconds after the click |\n|---|---|---|---|---|"
    )
    for number, start in enumerate(starts, start=1):
        parts = ", ".join(f"{name} {value}" for name, value in start.parts.items())
        print(f"| {number} | {start.first_point:.2f} | {median(start.lags):.2f} | {max(start.lags):.2f} | {parts} |")
    print("\n| viewers | training, steps/s | worker, processor ms per step | app, % of a core |\n|---|---|---|---|")
    for count in (0, viewers):
        of = [block for block in blocks if block.viewers == count]
        rates = Spread.of([block.steps_per_second for block in of])
        costs = Spread.of([1000 * block.worker_seconds_per_step for block in of])
        print(f"| {count} | {rates} | {costs} | {Spread.of([100 * block.app_seconds_per_second for block in of])} |")
    pairs = list(zip(blocks[::2], blocks[1::2], strict=True))
    speed = Spread.of([100 * (seen.steps_per_second / alone.steps_per_second - 1) for alone, seen in pairs])
    app = Spread.of([100 * (seen.app_seconds_per_second - alone.app_seconds_per_second) for alone, seen in pairs])
    print(
        f"\nWith {viewers} viewers training runs {speed} % faster (pair by pair), and the app takes {app} % of a core"
    )
    print(f"more. A reply to a viewer that is up to date has {size:.0f} bytes.")


def main() -> None:
    """Measure and print tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--starts", type=int, default=3)
    parser.add_argument("--blocks", type=int, default=6)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--viewers", type=int, default=20)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    machine = describe()
    threads = os.environ.get("OMP_NUM_THREADS", "as torch chooses")
    print(f"{machine['processor']}, {machine['cores']} cores, worker's threads {threads}, load {machine['load']}\n")
    with tempfile.TemporaryDirectory() as folder, running_app(Path(folder)) as app:
        with sync_playwright() as playwright:
            path = CHROMIUM if CHROMIUM.exists() else None  # else Playwright's own
            browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-gpu"])
            page = browser.new_page(viewport={"width": 1280, "height": 900})
            page.set_default_timeout(1000 * PATIENCE)
            starts = [start_once(page, app) for _ in range(arguments.starts)]
            browser.close()
        blocks, size = with_and_without(app, arguments.blocks, arguments.seconds, arguments.viewers)
    report(starts, blocks, size, arguments.viewers)
    if arguments.json:
        found = {"machine": machine, "threads": threads, "bytes_per_poll": size}
        found |= {"starts": [asdict(start) for start in starts], "blocks": [asdict(block) for block in blocks]}
        arguments.json.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
