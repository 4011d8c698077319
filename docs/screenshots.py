"""Pictures of the page for README and docs, made from the real app: `python docs/screenshots.py`.

It starts app.py on a temporary data directory, trains the demo through the page, tries the adapter, and writes
`page-train.png`, `page-runs.png`, `page-try.png`, `page-export.png` (1280 pixels wide, light) and `page-phone.png`
(390) beside this file. It needs a browser, as the tests do, takes about two minutes, and asks no other machine.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from playwright.sync_api import Page, expect, sync_playwright

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
MINUTES = 60_000
"""Milliseconds of one minute, as Playwright counts."""

WIDE, PHONE = {"width": 1280, "height": 900}, {"width": 390, "height": 844}
MOST_BYTES = 400_000
EXAMPLE = "The waiter was rude and the soup was cold."


def main() -> int:
    """Take all pictures; 1 if one is too large to be kept in a repository."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=HERE, help="where the pictures go (default: docs)")
    parser.add_argument("--steps", type=int, help="steps of the run (default: the page's)")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    expect.set_options(timeout=MINUTES)
    with tempfile.TemporaryDirectory() as folder, running_app(Path(folder)) as url, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        with contextlib.closing(browser):
            wide = browser.new_page(viewport=WIDE, color_scheme="light", reduced_motion="reduce")
            wide.set_default_timeout(MINUTES)
            take_wide(wide, url, options.out, options.steps)
            phone = browser.new_page(
                viewport=PHONE, color_scheme="light", reduced_motion="reduce", device_scale_factor=2
            )
            phone.set_default_timeout(MINUTES)
            phone.goto(wide.url)
            phone.wait_for_selector("#plot .js-plotly-plot")
            phone.wait_for_load_state("networkidle")
            phone.screenshot(path=options.out / "page-phone.png")
    pictures = sorted(options.out.glob("page-*.png"))
    for picture in pictures:
        print(f"{picture.name}: {picture.stat().st_size / 1000:.0f} kB")
    return int(any(picture.stat().st_size > MOST_BYTES for picture in pictures))


def take_wide(page: Page, url: str, out: Path, steps: int | None) -> None:
    """Go through the first run as a person would, with a picture of each tab."""
    page.goto(f"{url}?__theme=light")
    expect(page.locator("#report")).to_contain_text("Using all")
    expect(page.locator("#template-preview, .template-preview").first).to_contain_text("of 256", timeout=2 * MINUTES)
    if steps:
        page.fill("#setting-max_steps input", str(steps))
        page.keyboard.press("Tab")
    picture(page, out / "page-train.png")
    page.click("#start")
    expect(page.locator("#try-it")).to_have_text("Try it", timeout=10 * MINUTES)  # while it trains: Try newest
    expect(page.locator("#results table").first).to_be_visible()
    picture(page, out / "page-runs.png")
    page.click("#try-it")
    page.fill("#try-input-0 textarea", EXAMPLE)
    page.click("#classify")
    expect(page.locator("#tuned-answer")).to_contain_text("%", timeout=5 * MINUTES)
    picture(page, out / "page-try.png")
    page.get_by_role("tab", name="Export").click()
    picture(page, out / "page-export.png")


def picture(page: Page, path: Path) -> None:
    """The page from its top, without what only a mouse or a cursor leaves there."""
    page.mouse.move(0, 0)
    page.evaluate("document.activeElement?.blur(); window.scrollTo(0, 0)")
    page.screenshot(path=path, full_page=True, animations="disabled")


@contextlib.contextmanager
def running_app(data: Path) -> Iterator[str]:
    """The address of app.py over the empty directory `data`."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = {**os.environ, "PTUNE_DATA_DIR": str(data), "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, str(ROOT / "app.py"), "--port", str(port)]
    process = subprocess.Popen(command, env=environment, cwd=ROOT, stdout=subprocess.DEVNULL)
    url = f"http://127.0.0.1:{port}/"
    try:
        while not answers(url):
            if process.poll() is not None:
                raise SystemExit("The app ended before its page was there; start app.py to see why")
            select.select([], [], [], 0.2)
        yield url
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)


def answers(url: str) -> bool:
    """Whether the page is there."""
    try:
        with urllib.request.urlopen(url, timeout=5):
            return True
    except (urllib.error.URLError, ConnectionError, TimeoutError):
        return False


if __name__ == "__main__":
    sys.exit(main())
