"""Pushing an adapter, with an object in the place of the Hub."""

from __future__ import annotations

import inspect
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import HfApi, errors

from ptune_core.adapters.hub import push
from ptune_core.errors import AdapterError

TOKEN = "hf_secret"


class Hub:
    """Remembers what it was asked, and refuses with an error if it has one."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error, self.calls = error, list[tuple[str, dict[str, Any]]]()

    def create_repo(self, repo_id: str, **options: Any) -> Any:
        self.calls.append(("create_repo", {"repo_id": repo_id, **options}))
        if self.error:
            raise self.error
        return type("Url", (), {"repo_id": f"me/{repo_id}"})()

    def upload_folder(self, **options: Any) -> None:
        self.calls.append(("upload_folder", options))


def refused(status: int) -> errors.HfHubHTTPError:
    library = import_module(errors.HTTPError.__module__)  # what the Hub's library speaks HTTP with
    response = library.Response(status, request=library.Request("POST", "https://huggingface.co"))
    return errors.HfHubHTTPError("no", response=response)


def test_the_files_of_an_adapter_go_into_a_new_repository_and_no_others(tmp_path: Path) -> None:
    hub = Hub()
    assert push(tmp_path, "reviews", token=TOKEN, private=True, api=hub) == "https://huggingface.co/me/reviews"
    (_, made), (_, uploaded) = hub.calls
    assert made["private"] is True and made["exist_ok"] is False and made["token"] == uploaded["token"] == TOKEN
    assert uploaded["repo_id"] == "me/reviews" and uploaded["folder_path"] == str(tmp_path)
    assert "*" not in uploaded["allow_patterns"] and "adapter_config.json" in uploaded["allow_patterns"]


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (refused(401), "signed in"),
        (refused(403), "may not write"),
        (refused(409), "already"),
        (refused(500), "status 500"),
        (errors.LocalTokenNotFoundError("none"), "signed in"),
        (errors.HTTPError("offline"), "cannot be reached"),
        (errors.OfflineModeIsEnabled("offline"), "cannot be reached"),
    ],
)
def test_each_failure_is_named_without_the_token(tmp_path: Path, error: Exception, told: str) -> None:
    with pytest.raises(AdapterError, match=told) as caught:
        push(tmp_path, "reviews", token=TOKEN, private=True, api=Hub(error))
    assert TOKEN not in str(caught.value)


@pytest.mark.parametrize("name", ["", "../up", "a/b/c", "https://huggingface.co/a", "a b", "a--b", "-a"])
def test_what_is_no_name_never_leaves(tmp_path: Path, name: str) -> None:
    hub = Hub()
    with pytest.raises(AdapterError, match="no name"):
        push(tmp_path, name, token=TOKEN, private=True, api=hub)
    assert hub.calls == []


def test_every_call_fits_the_installed_library(tmp_path: Path) -> None:
    hub = Hub()
    push(tmp_path, "reviews", token=None, private=False, api=hub)
    for method, arguments in hub.calls:
        inspect.signature(getattr(HfApi, method)).bind(None, **arguments)
