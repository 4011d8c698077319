"""A run once more, on the same rows, with some settings changed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from ptune_core.data.table import open_table
from ptune_core.errors import DataError
from ptune_core.runs.directory import RunDirectory
from ptune_core.runs.run import Run
from ptune_core.runs.store import Store
from ptune_core.training.settings import RunSettings


def changed_settings(run: Run, changes: Mapping[str, Any], name: str) -> RunSettings:
    """The settings of `run` with `changes`, and nothing else but the name.

    Raises:
        SettingsError: A change is no option, or a value is wrong.
    """
    return RunSettings.parse(run.settings.model_dump(mode="json") | dict(changes) | {"name": name})


def retry(store: Store, run: Run, settings: RunSettings, owner: str) -> str:
    """Queue a run with `settings` on the rows of `run`; its id. Asked for twice, it is one run.

    Raises:
        DataError: The rows of `run` are gone or were changed.
        DiskFull: There is no room for a copy of them.
    """
    directory = RunDirectory(run.directory)
    if not directory.data_is_intact():
        raise DataError("The run's data were changed after it was started", remedy="Start a new run on the Train tab")
    validation = open_table(directory.validation) if directory.validation.exists() else None
    asked = json.dumps([run.id, settings.model_dump(mode="json")], sort_keys=True)
    key = f"retry-{hashlib.sha256(asked.encode()).hexdigest()[:32]}"
    return store.submit(settings, open_table(directory.data), validation=validation, owner=owner, key=key)
