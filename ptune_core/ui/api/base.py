"""What all endpoints share: the service behind them, whose runs are whose, and files that were uploaded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from gradio.utils import get_upload_folder

from ptune_core.app.service import Service
from ptune_core.errors import DataError, SettingsError

SHORTEST_KEY = 16
"""Characters of a viewer's key on a shared page: whoever knows or guesses the key has the runs."""


class ApiBase:
    """Endpoints over one service."""

    def __init__(self, service: Service) -> None:
        self._service = service

    def _key(self, viewer: str) -> str:
        if not isinstance(viewer, str):
            raise SettingsError("The viewer's key must be text", got=type(viewer).__name__)
        if self._service.is_shared and not SHORTEST_KEY <= len(viewer) <= 64:
            raise SettingsError(
                "This page is shared by strangers, and a key tells whose runs are whose",
                got=f"a key of {len(viewer)} characters",
                needed=f"{SHORTEST_KEY} to 64 characters that nobody can guess, the same in every call",
            )
        return viewer[:64]


def uploaded(file: Any) -> tuple[Path, str]:
    """Path and name of a file that really was uploaded: gradio does not look where an endpoint's own path leads."""
    path = file.get("path") if isinstance(file, dict) else None
    found = Path(path).resolve() if isinstance(path, str) else None
    if found is None or not found.is_relative_to(Path(get_upload_folder()).resolve()):
        raise DataError("This file was not uploaded", remedy="Upload it first; gradio_client's handle_file does so")
    return found, str(file.get("orig_name") or found.name)[:200]
