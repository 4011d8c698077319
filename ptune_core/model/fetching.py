"""Bringing a Hub model's weights to this machine and telling how it goes; loading it afterwards finds them there."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from huggingface_hub import hf_hub_download, try_to_load_from_cache
from huggingface_hub.errors import EntryNotFoundError
from huggingface_hub.utils import tqdm

from ptune_core.model.source import check_reachable, explained, place_of

WEIGHTS, INDEX_OF_WEIGHTS = "model.safetensors", "model.safetensors.index.json"
"""What transformers loads: one file, or the index of several."""

SECONDS_BETWEEN = 1.0

Told = Callable[[int, int], None]
"""Called with how many bytes are here and how many there are."""


def fetch_weights(id: str, revision: str | None, told: Told, *, download: Callable[..., Any] = hf_hub_download) -> None:
    """Fetch the safetensors weights that a base model is loaded from; nothing happens with those that are here.

    Args:
        id: `demo`, a Hub id, or a local folder.
        revision: Branch, tag or commit of a Hub model.
        told: Told at the beginning, every second and at the end, if there is anything to fetch.
        download: As in `huggingface_hub`, from which it comes by default.

    Raises:
        BaseModelError: It does not exist, is gated, or cannot be fetched.
    """
    place = place_of(id)
    if os.path.isdir(place) or _are_here(place, revision):
        return
    with explained(id):
        check_reachable(place, revision)
        try:
            names = _weight_files(place, revision, download)
            files = [download(place, name, revision=revision, dry_run=True) for name in names]
        except EntryNotFoundError:  # no such weights, or no connection: loading says what to do
            return
        lacking = [file for file in files if file.will_download]
        if not lacking:
            return
        count = _Count(sum(file.file_size for file in lacking), told)
        for file in lacking:
            download(place, file.filename, revision=revision, tqdm_class=_bar_of(count))
        count.tell()


def _weight_files(place: str, revision: str | None, download: Callable[..., Any]) -> list[str]:
    try:
        index = download(place, INDEX_OF_WEIGHTS, revision=revision)
    except EntryNotFoundError:
        return [WEIGHTS]
    return _named_in(index)


def _named_in(index: str) -> list[str]:
    return sorted(set(json.loads(Path(index).read_bytes())["weight_map"].values()))


def _are_here(place: str, revision: str | None) -> bool:
    """Without asking the Hub: where it cannot be reached, huggingface_hub tries again for many seconds."""

    def here(name: str) -> str | None:
        found = try_to_load_from_cache(place, name, revision=revision)
        return found if isinstance(found, str) else None

    index = here(INDEX_OF_WEIGHTS)
    return here(WEIGHTS) is not None or (index is not None and all(map(here, _named_in(index))))


class _Count:
    """Bytes that have come, told now and then."""

    def __init__(self, total: int, told: Told) -> None:
        self._total, self._told = total, told
        self._here, self._last = 0, 0.0
        self.tell()

    def add(self, num_bytes: float) -> None:
        self._here += int(num_bytes)
        if time.monotonic() - self._last >= SECONDS_BETWEEN:
            self.tell()

    def tell(self) -> None:
        self._last = time.monotonic()
        self._told(min(self._here, self._total), self._total)


def _bar_of(count: _Count) -> type[tqdm]:
    """A progress bar that draws nothing and counts what `huggingface_hub` tells it."""

    class Bar(tqdm):
        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **{**options, "disable": True})
            count.add(options.get("initial") or 0)  # of a download that goes on

        def update(self, n: float | None = 1) -> bool | None:
            count.add(n or 0)
            return None

    return Bar
