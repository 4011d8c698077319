"""Pushing an adapter, with an object in the place of the Hub."""

from __future__ import annotations

import inspect
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from huggingface_hub import HfApi, errors

from ptune_core.adapters.hub import pull, push
from ptune_core.adapters.names import READ
from ptune_core.errors import AdapterError

TOKEN = "hf_secret"


class Hub:
    """Remembers what it was asked, and refuses with an error if it has one."""

    def __init__(self, error: Exception | None = None) -> None:
        self.size = 100
        self.error, self.calls = error, list[tuple[str, dict[str, Any]]]()

    def model_info(self, repo_id: str, **options: Any) -> Any:
        self.calls.append(("model_info", {"repo_id": repo_id, **options}))
        if self.error:
            raise self.error
        files = [SimpleNamespace(rfilename=name, size=self.size) for name in (*READ, "evil.py")]
        return SimpleNamespace(siblings=files, sha="abc")

    def hf_hub_download(self, repo_id: str, filename: str, **options: Any) -> str:
        self.calls.append(("hf_hub_download", {"repo_id": repo_id, "filename": filename, **options}))
        return f"/cache/{filename}"

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
    pull("me/reviews", api=hub)
    for method, arguments in hub.calls:
        inspect.signature(getattr(HfApi, method)).bind(None, **arguments)


def test_only_an_adapters_own_files_are_fetched_and_without_any_token() -> None:
    hub = Hub()
    assert pull("me/reviews", api=hub) == [Path("/cache") / name for name in READ]
    assert {call["token"] for _, call in hub.calls} == {False}
    assert {call["revision"] for name, call in hub.calls if name == "hf_hub_download"} == {"abc"}


def test_a_huge_file_is_not_fetched() -> None:
    hub = Hub()
    hub.size = 2**29
    with pytest.raises(AdapterError, match="too large"):
        pull("me/reviews", api=hub)
    assert [name for name, _ in hub.calls] == ["model_info"]


@pytest.mark.parametrize(
    ("name", "error", "told"),
    [
        ("reviews", None, "OWNER/NAME"),
        ("me/../you", None, "OWNER/NAME"),
        ("me/none", refused(404), "no public adapter"),
        ("me/reviews", errors.OfflineModeIsEnabled("offline"), "cannot be reached"),
    ],
)
def test_why_an_adapter_cannot_be_fetched(name: str, error: Exception | None, told: str) -> None:
    with pytest.raises(AdapterError, match=told):
        pull(name, api=Hub(error))
