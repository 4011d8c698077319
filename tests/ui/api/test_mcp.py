"""With `--mcp` the same endpoints are tools for language models, and still nothing leaves the machine."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from ptune_core.ui.api.endpoints import Api
from ptune_core.ui.page import launch

pytest.importorskip("mcp", reason="an optional package: pip install 'mcp>=1.21,<2'")
pytestmark = [
    pytest.mark.browser,
    pytest.mark.filterwarnings("ignore::pandas.errors.Pandas4Warning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # what gradio 6.31 takes from mcp and websockets
]


@pytest.fixture
def tools(
    service: Any, build_with: Callable[..., Any], free_port: Callable[[], int], in_loop: Callable[..., Any]
) -> Iterator[str]:
    """Address of a page that offers MCP tools."""
    page = build_with(ephemeral=False)
    where = {"server_name": "127.0.0.1", "server_port": free_port(), "mcp_server": True}
    _, url, _ = in_loop(lambda: launch(page, service, prevent_thread_lock=True, quiet=True, **where))
    assert page.mcp_error is None
    yield url
    page.close()


def ask(url: str, method: str, **parameters: Any) -> dict[str, Any]:
    body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": parameters}).encode()
    headers = {"Content-Type": "application/json", "Accept": "application/json, text/event-stream"}
    with urllib.request.urlopen(urllib.request.Request(f"{url}gradio_api/mcp/", body, headers), timeout=60) as reply:
        lines = [line[5:] for line in reply.read().decode().splitlines() if line.startswith("data:")]
    result: dict[str, Any] = json.loads(lines[0])["result"]
    return result


def test_the_tools_are_the_endpoints_and_the_page_asks_nobody_else(
    tools: str, service: Any, new_page: Callable[..., Page]
) -> None:
    listed = ask(tools, "tools/list")["tools"]
    assert [tool["name"] for tool in listed] == [endpoint.__name__ for endpoint in Api(service).endpoints()]
    assert all(tool["description"] for tool in listed)
    run = service.add(step=5)
    stopped = ask(tools, "tools/call", name="stop_run", arguments={"run_id": run.id})
    assert not stopped["isError"] and not run.state.is_active
    page = new_page()
    page.goto(tools)
    expect(page.locator("#report")).to_contain_text("Using all")
