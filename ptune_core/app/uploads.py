"""The rows people bring: each upload is read once, kept under a random token, and opened again by that token."""

from __future__ import annotations

import hashlib
import re
import secrets
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path

from ptune_core.data.hub import HubSplit, list_splits
from ptune_core.data.ingest import ingest, ingest_hub, ingest_text, load_source
from ptune_core.data.table import Table, open_table
from ptune_core.demo import DEMO
from ptune_core.errors import DataError, PTuneError

_TOKEN = re.compile(r"[0-9a-f]{32}")
_KEEP_SECONDS = 2 * 24 * 3600
_ORIGIN = "origin"


class Uploads:
    """Tables by token, in one directory. A run copies the table it trains on, so these may go after two days.

    Args:
        directory: Where the tables are; made if it is not there.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._demo_token = ""
        self._demo_lock = threading.Lock()
        directory.mkdir(parents=True, exist_ok=True)
        self._remove_old()

    def demo(self) -> str:
        """The token of the embedded data, which is read once per start of the app.

        Raises:
            DataError: The installation is damaged.
        """
        with self._demo_lock:
            if not self._demo_token:
                self._demo_token = self._add(lambda out: load_source(DEMO, out), DEMO)
            return self._demo_token

    def add_file(self, path: Path, name: str) -> str:
        """Read an uploaded file; its token.

        Raises:
            DataError: With every problem of the file.
        """
        return self._add(lambda out: ingest(path, out, display_name=name), str(path))

    def add_text(self, pasted: str) -> str:
        """Read pasted rows; their token.

        Raises:
            DataError: With every problem of the rows.
        """
        return self._add(lambda out: ingest_text(pasted, out), pasted)

    def add_hub(self, reference: str) -> str:
        """Read one file or split of a Hub data set; its token.

        Raises:
            DataError: It cannot be fetched or read.
        """
        return self._add(lambda out: ingest_hub(reference.strip(), out), reference.strip())

    def hub_splits(self, reference: str) -> list[HubSplit]:
        """Every configuration and split of a Hub data set.

        Raises:
            DataError: As `list_splits`.
        """
        return list_splits(reference)

    def open(self, token: str | None) -> Table:
        """The table that `token` stands for.

        Raises:
            DataError: There is none.
        """
        if not token or not _TOKEN.fullmatch(token):
            raise DataError("There is no data yet", remedy="Choose the example, a file, pasted rows or a Hub data set")
        return open_table(self._directory / token)

    def is_of(self, token: str, origin: str) -> bool:
        """Whether the rows were read from this path, text or reference, as `add_file` and its like were given it."""
        if not _TOKEN.fullmatch(token):
            return False
        try:
            return (self._directory / token / _ORIGIN).read_text(encoding="ascii") == _digest(origin)
        except FileNotFoundError:
            return False

    def _add(self, read: Callable[[Path], Table], origin: str) -> str:
        token = secrets.token_hex(16)
        out = self._directory / token
        try:
            read(out)
            (out / _ORIGIN).write_text(_digest(origin), encoding="ascii")
        except PTuneError:
            shutil.rmtree(out, ignore_errors=True)
            raise
        return token

    def _remove_old(self) -> None:
        for folder in self._directory.iterdir():
            if _TOKEN.fullmatch(folder.name) and time.time() - folder.stat().st_mtime > _KEEP_SECONDS:
                shutil.rmtree(folder, ignore_errors=True)


def _digest(origin: str) -> str:
    return hashlib.sha256(origin.encode(errors="surrogatepass")).hexdigest()
