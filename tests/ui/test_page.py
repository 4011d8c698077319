"""What the page offers to the outside."""

from __future__ import annotations

import urllib.error
import urllib.request
from collections.abc import Callable
from typing import Any

import pytest

from ptune_core.ui.page import LAUNCH

pytestmark = pytest.mark.filterwarnings("ignore::pandas.errors.Pandas4Warning")


def test_no_handler_shows_gradios_spinner(build_with: Callable[..., Any]) -> None:
    # It left `common.complete`, a key of gradio's translations, in the page's text.
    dependencies = build_with(ephemeral=False).config["dependencies"]
    assert {each["show_progress"] for each in dependencies if each["outputs"]} == {"hidden"}


def test_what_a_person_sets_is_looked_at_though_a_handler_is_busy(build_with: Callable[..., Any]) -> None:
    """Bug: gradio drops an event whose handler is under way, and so a second file, choice or run was not shown."""
    page = build_with(ephemeral=False)
    dropped = [fn for fn in page.fns.values() if fn.fn is not None and fn.trigger_mode == "once" and fn.targets]
    # A second press of a button is no second order; neither is what such a press, or the page's load, leads to.
    orders = {"click", "submit", "load", "tick", "fix"}
    jobs = {"demo", "label", "push", "fetch", "apply"}
    events = {(fn.name, event) for fn in dropped for _, event in fn.targets if event not in orders}
    assert {name for name, _ in events} <= jobs, events


def test_nothing_is_sent_out_or_left_open(build_with: Callable[..., Any]) -> None:
    page = build_with(ephemeral=False)
    assert not page.analytics_enabled
    assert LAUNCH["ssr_mode"] is LAUNCH["run_history"] is LAUNCH["show_error"] is LAUNCH["enable_monitoring"] is False
    assert LAUNCH["max_file_size"]


@pytest.mark.parametrize("ephemeral", [True, False])
def test_runs_that_will_be_lost_are_announced(build_with: Callable[..., Any], ephemeral: bool) -> None:
    page = build_with(ephemeral=ephemeral)
    ids = {component["props"].get("elem_id") for component in page.config["components"]}
    assert ("ephemeral" in ids) is ephemeral


@pytest.mark.parametrize(
    "path", ["adapters/ffffffffffffffff.zip", "adapters/..%2F..%2Fetc.zip", "gradio_api/file=/etc/passwd", "monitoring"]
)
def test_what_is_not_there_is_not_found(site: str, path: str) -> None:
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(site + path, timeout=30)
    assert caught.value.code in (403, 404)
    caught.value.close()


def test_the_zip_is_served_by_the_runs_id(site: str, service: Any) -> None:
    run = service.add()
    with urllib.request.urlopen(f"{site}adapters/{run.id}.zip", timeout=30) as reply:
        assert reply.read() == service.zip.read_bytes()
        assert 'filename="demo-adapter.zip"' in reply.headers["Content-Disposition"]
