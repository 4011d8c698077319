"""The real app, its workers and its inference process, used through a browser as a person would."""

from __future__ import annotations

import json
import os
import re
import select
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from playwright.sync_api import Locator, Page, expect

import ptune_core
from ptune_core.demo import DEMO_TEMPLATE

pytestmark = pytest.mark.browser

NewPage = Callable[..., Page]
ROOT = Path(ptune_core.__file__).parent.parent
SLOW = 240_000
"""Milliseconds that a worker may take to import torch and train a few steps on a busy machine."""

USE_IN_PEFT = """
import json, sys
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer
base, adapter, text, words = sys.argv[1], sys.argv[2], sys.argv[3], json.loads(sys.argv[4])
tokenizer = AutoTokenizer.from_pretrained(base)
first = [tokenizer.encode(word, add_special_tokens=False)[0] for word in words.values()]
alone = AutoModelForCausalLM.from_pretrained(base).eval()
said = {}
for name, model in (("base", alone), ("tuned", PeftModel.from_pretrained(alone, adapter).eval())):
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([tokenizer.encode(text)])).logits[0, -1]
    said[name] = dict(zip(words, logits[first].softmax(0).tolist()))
print(json.dumps(said))
"""


@dataclass
class App:
    """A running `app.py`."""

    url: str
    process: subprocess.Popen[bytes]
    environment: dict[str, str]

    @classmethod
    def start(cls, environment: dict[str, str]) -> App:
        process = subprocess.Popen([sys.executable, str(ROOT / "app.py")], env=environment, cwd=ROOT)
        app = cls(f"http://127.0.0.1:{environment['GRADIO_SERVER_PORT']}/", process, environment)
        deadline = time.monotonic() + 120
        while not app.answers():
            assert time.monotonic() < deadline and process.poll() is None, "the page did not come up"
            select.select([], [], [], 0.05)
        return app

    def answers(self) -> bool:
        try:
            with urllib.request.urlopen(self.url, timeout=5):
                return True
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            return False

    def kill(self) -> None:
        """As a crash or the kernel would: no clean-up."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()


@pytest.fixture
def environment(tmp_path: Path, free_port: Callable[[], int]) -> dict[str, str]:
    own = {"PTUNE_DATA_DIR": str(tmp_path / "data"), "GRADIO_SERVER_PORT": str(free_port()), "OMP_NUM_THREADS": "1"}
    return {**os.environ, **own}


@pytest.fixture
def app(environment: dict[str, str]) -> Iterator[App]:
    app = App.start(environment)
    yield app
    app.kill()


def start_training(page: Page, app: App, base_model: Path, steps: int) -> None:
    page.goto(app.url)
    expect(page.locator("#report")).to_contain_text("rows")
    page.fill("#base-model input", str(base_model))
    page.keyboard.press("Tab")
    page.get_by_role("radio", name="In front").check()
    expect(page.locator("#template textarea")).to_have_value(DEMO_TEMPLATE)
    page.fill("#setting-max_steps input", str(steps))
    page.click("#advanced > button")
    page.locator("#advanced").get_by_role("button", name="Memory and precision").click()
    page.locator("#setting-precision").get_by_role("radio", name="32 bits").check()  # as PEFT loads it below
    page.click("#start")
    page.wait_for_selector("#plot .lp-loss.js-plotly-plot")


def loss_steps(page: Page) -> list[int]:
    steps: list[int] = page.evaluate("document.querySelector('#plot .lp-loss')?.data?.[0].x ?? []")
    return steps


def percentages(pane: Locator) -> dict[str, float]:
    """Label -> what stands beside its bar."""
    bars = [bar.split() for bar in pane.locator(".bar").all_inner_texts()]
    return {label: float(percent.removesuffix("%")) for label, percent in bars}


def wait_for_step(page: Page, step: int) -> None:
    page.wait_for_function(
        "step => (document.querySelector('#plot .lp-loss')?.data?.[0].x.at(-1) ?? 0) >= step", arg=step, timeout=SLOW
    )


def test_train_try_download_and_the_zip_says_the_same_in_peft(
    app: App, new_page: NewPage, tiny_gpt2: Path, tmp_path: Path
) -> None:
    page = new_page()
    start_training(page, app, tiny_gpt2, steps=12)
    wait_for_step(page, 1)
    expect(page.locator("#try-it")).to_have_text("Try it", timeout=SLOW)  # while it trains: Try newest
    steps = loss_steps(page)
    assert steps == list(range(1, steps[-1] + 1)), "the curve has a gap"
    page.click("#try-it")
    page.fill("#try-input-0 textarea", "the film was great")
    page.click("#classify")
    tuned, base = page.locator("#tuned-answer"), page.locator("#base-answer")
    expect(tuned).to_contain_text("%", timeout=SLOW)
    shown, shown_of_base = percentages(tuned), percentages(base)
    with page.expect_download() as download:
        page.click("#download")
    with zipfile.ZipFile(download.value.path()) as archive:
        archive.extractall(tmp_path / "adapter")

    words = json.dumps({"negative": " terrible", "positive": " great"})
    arguments = [str(tiny_gpt2), str(tmp_path / "adapter"), "the film was great", words]
    fresh = subprocess.run([sys.executable, "-c", USE_IN_PEFT, *arguments], capture_output=True, text=True, check=True)
    in_peft = json.loads(fresh.stdout)
    for of_page, alone in ((shown, in_peft["tuned"]), (shown_of_base, in_peft["base"])):
        assert of_page.keys() == alone.keys()
        assert {label: abs(100 * p - of_page[label]) < 0.51 for label, p in alone.items()} == dict.fromkeys(alone, True)
    assert in_peft["tuned"] != in_peft["base"]

    # A stranger's adapter is tried on the same page, over the base model that is loaded: the zip just downloaded.
    with page.expect_file_chooser() as chooser:
        page.click("#try-bring")
    shutil.copy(download.value.path(), tmp_path / "again.zip")
    chooser.value.set_files(tmp_path / "again.zip")
    expect(page.locator("#try-adapter input")).to_have_value(re.compile("again"), timeout=SLOW)
    page.click("#classify")
    expect(tuned).to_contain_text("%", timeout=SLOW)
    assert (percentages(tuned), percentages(base)) == (shown, shown_of_base)


def test_a_killed_app_finds_its_run_again(
    app: App, environment: dict[str, str], new_page: NewPage, tiny_gpt2: Path, tmp_path: Path
) -> None:
    page = new_page()
    start_training(page, app, tiny_gpt2, steps=1_000_000)
    wait_for_step(page, 5)
    (run,) = (tmp_path / "data" / "runs").glob("[0-9a-f]*")
    app.kill()
    expect(page.locator("#strip")).to_contain_text("Reconnecting")
    seen = loss_steps(page)[-1]

    again = App.start(environment)
    try:
        wait_for_step(page, seen + 5)
        second = new_page()
        second.goto(f"{again.url}?run={run.name}")
        wait_for_step(second, seen + 10)
        steps = loss_steps(second)
        assert steps[0] == 1 and steps == sorted(set(steps))
        if len(steps) < 1500:  # else thinned
            assert steps == list(range(1, steps[-1] + 1)), "the curve has a gap"
        second.click("#stop")
        expect(second.locator("#try-it")).to_have_text("Try it", timeout=SLOW)
        expect(page.locator("#try-it")).to_have_text("Try it", timeout=SLOW)
        assert json.loads((run / "result.json").read_text())["state"] == "stopped"
        assert (run / "adapter.zip").exists()
    finally:
        again.kill()


def test_a_terminated_app_ends_cleanly(app: App) -> None:
    # A container's stop is no failure: it used to end by the signal, which supervisors count as a crash.
    app.process.terminate()
    assert app.process.wait(60) == 0


def test_the_app_never_imports_torch(environment: dict[str, str]) -> None:
    # With everything the page does before a run: the example read, guessed, reported on, its template shown.
    code = """
import sys, tempfile, pathlib
import app
from ptune_core.app.drafts import Held
from ptune_core.ui.train.handlers import Brought, TrainHandlers
uploads = app.Uploads(pathlib.Path(tempfile.mkdtemp()))
store = app.Store(app.data_directory())
launcher = app.Launcher(store)
with app.InferenceClient(store.data_dir / "log", store.data_dir) as inference:
    service = app.Service(store, launcher, inference, uploads, shared=False)
    page = app.build_page(service, ephemeral=True)
    handlers = TrainHandlers(service)
    token = uploads.demo()
    template = "{text~} [P*8][ANSWER:label]"
    shown = handlers.show_data(token, template, [], None, 0, "demo", "", "")
    assert "Using" in shown[1], shown
    held, brought = Held(token, {"template": template, "base_model": "demo"}), Brought("Example")
    run_id, said = handlers.start("me", "key", held, brought)
    service.view(run_id, "me"), service.poll({"run": run_id}), service.overview({})
print(sorted({"torch", "transformers", "datasets", "accelerate", "peft"} & set(sys.modules)))
"""
    found = subprocess.run(
        [sys.executable, "-c", code], env=environment, cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert found.stdout.strip() == "[]"


def test_first_run_in_three_clicks_with_the_demo(app: App, new_page: NewPage) -> None:
    page = new_page()
    page.goto(app.url)
    expect(page.locator("#report")).to_contain_text("Using all")
    page.fill("#setting-max_steps input", "4")  # only to be quick: nothing has to be set
    page.keyboard.press("Tab")
    page.click("#start")
    expect(page.locator("#try-it")).to_have_text("Try it", timeout=SLOW)  # while it trains: Try newest
    page.click("#try-it")
    with page.expect_download() as download:
        page.click("#download")
    with zipfile.ZipFile(download.value.path()) as archive:
        assert {"adapter_config.json", "adapter_model.safetensors", "ptune.json"} <= set(archive.namelist())
