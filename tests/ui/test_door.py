"""With a password nothing of the page is open: not what gradio covers, and not what it leaves to others."""

from __future__ import annotations

import base64
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from http.cookiejar import CookieJar
from typing import Any

import pytest

from ptune_core.ui.page import launch

pytestmark = pytest.mark.filterwarnings("ignore::pandas.errors.Pandas4Warning")

CLOSED = [
    "adapters/{}.zip",
    "downloads/{}/settings.yaml?key=k",
    "config",
    "gradio_api/info",
    "gradio_api/mcp/",
    "gradio_api/mcp/sse",
]


@pytest.fixture
def locked(
    service: Any, build_with: Callable[..., Any], free_port: Callable[[], int], in_loop: Callable[..., Any]
) -> Iterator[str]:
    """Address of a page that asks for a password."""
    page = build_with(ephemeral=False)
    where = {"server_name": "127.0.0.1", "server_port": free_port(), "auth": [("ana", "söcret")]}
    _, url, _ = in_loop(lambda: launch(page, service, prevent_thread_lock=True, quiet=True, **where))
    yield url
    page.close()


def ask(url: str, header: str = "", opener: Any = None) -> int:
    """Status of the answer."""
    request = urllib.request.Request(url, headers={"Authorization": header} if header else {})
    try:
        with (opener or urllib.request.build_opener()).open(request, timeout=30) as reply:
            return int(reply.status)
    except urllib.error.HTTPError as error:
        error.close()
        return error.code


def basic(name: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{name}:{password}".encode()).decode()


@pytest.mark.parametrize("path", [*CLOSED, "//adapters/{}.zip", "adapters/./{}.zip"])
def test_without_the_password_nothing_is_served(locked: str, service: Any, path: str) -> None:
    run = service.add()
    wrong = ["", basic("ana", "other"), basic("bob", "söcret"), "Basic !!!", "Basic //8=", "Bearer x"]
    assert {ask(locked + path.format(run.id), header) for header in wrong} <= {401, 404}
    ours = [own for own in CLOSED if own.startswith(("adapters", "downloads"))]
    assert {ask(locked + own.format(run.id)) for own in ours} == {401}, "gradio asks for nothing there"


def test_the_zip_comes_with_the_pages_login_or_with_name_and_password(locked: str, service: Any) -> None:
    run = service.add()
    link = f"{locked}adapters/{run.id}.zip"
    assert ask(link, basic("ana", "söcret")) == 200
    opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(CookieJar()))
    form = urllib.parse.urlencode({"username": "ana", "password": "söcret"}).encode()
    with opener.open(f"{locked}login", form, timeout=30):
        pass
    assert ask(link, opener=opener) == 200
