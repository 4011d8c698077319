"""What a person takes home: the adapter's files with a model card, a script that runs it, and all of it as one zip."""

from __future__ import annotations

import os
import tempfile
from dataclasses import replace
from pathlib import Path

from ptune_core.adapters.archive import write_error, write_files, write_zip
from ptune_core.adapters.card import model_card
from ptune_core.adapters.format import save_adapter
from ptune_core.adapters.names import CARD_FILE, EXPORTED, LOADER_FILE, SNIPPET_FILE
from ptune_core.adapters.sidecar import BASE_FOLDER
from ptune_core.adapters.snippet import snippet
from ptune_core.demo import DEMO
from ptune_core.files import sync
from ptune_core.model.trained import TrainedPrompt
from ptune_core.model.tuned import BASE_FILES, WEIGHTS_FILE

OF_BASE = tuple(f"{BASE_FOLDER}/{name}" for name in BASE_FILES)
"""What is there too if the base model was tuned."""


def export_adapter(trained: TrainedPrompt, directory: Path, zip_path: Path) -> None:
    """Write the adapter with its card, script and loader as a folder and as a zip.

    Each appears complete or not at all, the folder first; what stood there before is replaced. A base model in a folder
    is named by its whole path: a relative one would mean another place, or none, wherever the adapter is used.

    Raises:
        AdapterError: What was trained cannot be written as an adapter.
        DiskFull: There is no room.
    """
    trained = with_whole_path(trained)
    try:
        directory.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=directory.parent, prefix=".tmp-adapter-") as scratch:
            unfinished = Path(scratch) / "new"
            save_adapter(trained, unfinished)
            write_files(unfinished, _companions(trained))
            if directory.exists():
                directory.rename(Path(scratch) / "old")
            unfinished.rename(directory)
        sync(directory.parent)
    except OSError as error:
        raise write_error(directory, error) from error
    export_zip(directory, zip_path)


def export_zip(directory: Path, zip_path: Path) -> None:
    """Pack an adapter's folder; the same files give the same bytes.

    Raises:
        AdapterError: The file cannot be written.
        DiskFull: There is no room.
    """
    write_zip(zip_path, directory, EXPORTED + OF_BASE, stored=[f"{BASE_FOLDER}/{WEIGHTS_FILE}"])


def with_whole_path(trained: TrainedPrompt) -> TrainedPrompt:
    """The same with a base model in a folder named by its whole path."""
    is_from_hub = trained.revision is not None
    if is_from_hub or trained.base_model in ("", DEMO) or not os.path.isdir(trained.base_model):
        return trained
    return replace(trained, base_model=os.path.abspath(trained.base_model))


def _companions(trained: TrainedPrompt) -> dict[str, bytes]:
    return {
        CARD_FILE: model_card(trained).encode(),
        SNIPPET_FILE: snippet(trained).encode(),
        LOADER_FILE: Path(__file__).with_name(LOADER_FILE).read_bytes(),
    }
