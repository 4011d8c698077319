"""The page over a fake service, and a browser that fails the test on requests to other hosts and JavaScript errors."""

from __future__ import annotations

import asyncio
import shutil
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from ptune_core.ui.page import build_page, launch
from tests.app.fake_service import FakeService

CHROMIUM = shutil.which("chromium")
"""None: Playwright's own, as on Ubuntu, where `.ci/test` installs that one."""

expect.set_options(timeout=60_000)
PERIOD = 100
"""Milliseconds between two questions of the live plot in these tests."""


@pytest.fixture
def free_port() -> Callable[[], int]:
    def find() -> int:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            return int(probe.getsockname()[1])

    return find


@pytest.fixture
def service(tmp_path: Path) -> Any:
    return FakeService(tmp_path)


def in_a_loop(call: Callable[[], Any]) -> Any:
    """What `call` returns, called inside an event loop: outside of one, gradio makes loops that it never closes."""

    async def inside() -> Any:
        return call()

    try:
        asyncio.get_running_loop()  # Playwright's
    except RuntimeError:
        return asyncio.run(inside())
    return call()


@pytest.fixture
def in_loop() -> Callable[[Callable[[], Any]], Any]:
    return in_a_loop


@pytest.fixture
def build_with(service: Any) -> Callable[..., Any]:
    """`build_page` over `service` with the given options."""
    return lambda **options: in_a_loop(lambda: build_page(service, **options))


@pytest.fixture
def site(service: Any, build_with: Callable[..., Any], free_port: Callable[[], int]) -> Iterator[str]:
    """Address of a page over `service`."""
    page = build_with(ephemeral=False, period=PERIOD)
    where = {"server_name": "127.0.0.1", "server_port": free_port()}
    _, url, _ = in_a_loop(lambda: launch(page, service, prevent_thread_lock=True, quiet=True, **where))
    yield url
    page.close()


@pytest.fixture(scope="session")
def chromium() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        yield browser
        browser.close()


@pytest.fixture
def new_page(chromium: Browser) -> Iterator[Callable[..., Page]]:
    """Makes pages, each in a browser profile of its own; the test fails if any of them did something it must not."""
    contexts, wrong = [], []

    def note(request: Any) -> None:
        if not request.url.startswith(("http://127.0.0.1:", "http://localhost:", "data:", "blob:")):
            wrong.append(f"request to {request.url}")

    def make(**options: Any) -> Page:
        context = chromium.new_context(viewport={"width": 1280, "height": 900}, accept_downloads=True, **options)
        context.set_default_timeout(60_000)
        contexts.append(context)
        page = context.new_page()
        page.on("request", note)
        page.on("pageerror", lambda error: wrong.append(f"JavaScript: {error}"))
        return page

    yield make
    for context in contexts:
        context.close()
    assert not wrong, wrong
