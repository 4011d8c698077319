"""One run as the store knows it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from ptune_core.errors import SettingsError
from ptune_core.model.device import BaseWeights
from ptune_core.runs.directory import RunDirectory
from ptune_core.runs.states import RunState
from ptune_core.training.settings import RunSettings


@dataclass(frozen=True)
class Run:
    """One run as the store knows it at this moment.

    Attributes:
        created: Unix time of the submission; `started` and `ended` likewise, of the current attempt, or None.
        attempt: 1, and one more for each time it was resumed.
        reason: Why it is in this state, for people; empty if there is nothing to say.
    """

    id: str
    name: str
    state: RunState
    directory: Path
    owner: str
    created: float
    started: float | None
    ended: float | None
    attempt: int
    reason: str
    settings_json: str

    @cached_property
    def settings(self) -> RunSettings:
        """What the run was asked to do.

        Raises:
            SettingsError: The run is of another version of PTune, and these settings are not valid in this one.
        """
        return RunSettings.parse(self.setting_values)

    @property
    def setting_values(self) -> dict[str, Any]:
        """The settings as they were written, by whatever version."""
        values: dict[str, Any] = json.loads(self.settings_json)
        return values

    @cached_property
    def outdated(self) -> str:
        """Why its settings are not valid in this version of PTune; empty if they are."""
        try:
            RunSettings.parse(self.setting_values)
        except SettingsError as error:
            return str(error)
        return ""

    @property
    def base_weights(self) -> BaseWeights:
        """Whether its base model was frozen or tuned, whatever else its settings say."""
        is_tuned = self.setting_values.get("base_weights") == BaseWeights.TUNED
        return BaseWeights.TUNED if is_tuned else BaseWeights.FROZEN


def run_at(path: Path) -> Run:
    """The run in a run directory, of which no store need know.

    Raises:
        RunError: It is no run directory.
    """
    directory = RunDirectory(path)
    asked = directory.run()
    state, reason = directory.recorded_state()
    return Run(
        id=str(asked.get("id") or path.name), name=str(asked.get("name") or path.name), state=state, directory=path,
        owner="", created=float(asked.get("created") or 0.0), started=None, ended=None, attempt=1, reason=reason,
        settings_json=json.dumps(asked.get("settings") or {}),
    )  # fmt: skip
