"""Fetching a base model from a Hub that stands on this machine, with huggingface_hub's own downloader."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import huggingface_hub
import pytest
from huggingface_hub import constants, hf_hub_download

from ptune_core.model import fetching
from ptune_core.model.fetching import fetch_weights

COMMIT = "c" * 40
INDEX = b'{"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors", "c": "model-1.safetensors"}}'
SHARDS = {"model-1.safetensors": b"1" * 300_000, "model-2.safetensors": b"2" * 100_000}


class Hub(BaseHTTPRequestHandler):
    """Answers as the Hub does for the files of two repositories."""

    repos: ClassVar[dict[str, dict[str, bytes]]] = {
        "one/file": {"model.safetensors": b"0" * 200_000},
        "two/files": {"model.safetensors.index.json": INDEX, **SHARDS},
        "no/weights": {"pytorch_model.bin": b"0"},
    }

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self.wfile.write(self._answer())

    def _answer(self) -> bytes:
        repo, _, file = self.path.strip("/").partition("/resolve/main/")
        content = self.repos.get(repo, {}).get(file)
        if content is None:
            self.send_response(404)
            self.send_header("X-Error-Code", "EntryNotFound")
            content = b""
        else:
            self.send_response(200)
            self.send_header("ETag", f'"{file}"')
            self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        return content

    def log_message(self, format: str, *args: object) -> None:
        """Nothing: tests are quiet."""


@pytest.fixture
def download(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[partial[str]]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(fetching, "check_reachable", lambda place, revision: None)
    monkeypatch.setattr(fetching, "SECONDS_BETWEEN", 0.0)
    yield partial(hf_hub_download, endpoint=f"http://127.0.0.1:{server.server_port}")
    server.shutdown()
    thread.join()
    server.server_close()
    huggingface_hub.close_session()


@pytest.mark.parametrize(("id", "total"), [("one/file", 200_000), ("two/files", 400_000)])
def test_bytes_are_told_as_they_come(download: partial[str], tmp_path: Path, id: str, total: int) -> None:
    seen: list[tuple[int, int]] = []
    fetch_weights(id, None, lambda here, of: seen.append((here, of)), download=download)
    assert seen[0] == (0, total) and seen[-1] == (total, total) and seen == sorted(seen)
    assert {of for _, of in seen} == {total}
    weights = {path.name: path.read_bytes() for path in (tmp_path / "hub").rglob("*.safetensors")}
    assert weights == {name: data for name, data in Hub.repos[id].items() if name.endswith(".safetensors")}

    seen.clear()
    fetch_weights(id, None, lambda here, of: seen.append((here, of)), download=pytest.fail)
    assert seen == [], "what is here is not fetched again, and the Hub is not asked"


def test_only_what_is_lacking_is_fetched_and_counted(download: partial[str], tmp_path: Path) -> None:
    download("two/files", "model-1.safetensors")
    seen: list[tuple[int, int]] = []
    fetch_weights("two/files", None, lambda here, of: seen.append((here, of)), download=download)
    assert seen[0] == (0, 100_000) and seen[-1] == (100_000, 100_000)


def test_without_safetensors_loading_says_what_to_do(download: partial[str]) -> None:
    fetch_weights("no/weights", None, lambda here, of: pytest.fail("nothing to fetch"), download=download)


@pytest.mark.parametrize("place", ["demo", "."])
def test_folders_are_never_fetched(place: str) -> None:
    fetch_weights(place, None, lambda here, of: pytest.fail("nothing to fetch"), download=pytest.fail)
