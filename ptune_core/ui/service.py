"""What the page can do, in plain Python: runs, adapters and the inference process. No gradio, no torch.

Who may do what: on one's own machine everybody who reaches the page sees and controls every run. On a Space every
browser has a random id, and a run of another browser does not exist for it.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from collections.abc import Generator, Mapping
from pathlib import Path
from typing import Any

from ptune_core.data.table import Table
from ptune_core.demo import DEMO
from ptune_core.errors import RunError, SettingsError
from ptune_core.inference.client import InferenceClient
from ptune_core.inference.protocol import Classification, Generated
from ptune_core.model.device import BaseWeights
from ptune_core.runs import live
from ptune_core.runs.directory import RunDirectory
from ptune_core.runs.launcher import Launcher
from ptune_core.runs.states import RunState
from ptune_core.runs.store import Run, Store
from ptune_core.training.settings import RunSettings
from ptune_core.ui import texts
from ptune_core.ui.measuring import Measures
from ptune_core.ui.run_view import ENDED_BADLY, RunView, has_adapter, row_of, view_of
from ptune_core.ui.uploads import Uploads

_WAIT = "Wait until it has ended, or start a new run"


class Service:
    """Everything behind the page.

    Args:
        store: The runs.
        launcher: Starts and stops their workers.
        inference: Asks the inference process.
        uploads: The rows people brought.
        shared: Whether strangers share this page, as on a Space: each then sees only their own runs.
    """

    def __init__(
        self, store: Store, launcher: Launcher, inference: InferenceClient, uploads: Uploads, *, shared: bool
    ) -> None:
        self._store, self._launcher, self._inference = store, launcher, inference
        self.uploads = uploads
        self._shared = shared
        self.measures = Measures(store.data_dir)
        self._device = _device_line()

    @property
    def is_shared(self) -> bool:
        """Whether strangers share this page."""
        return self._shared

    def active(self) -> int:
        """How many runs come before one that is started now, whoever's they are."""
        return sum(run.state.is_active for run in self._store.list(None))

    def measure(self, viewer: str, settings: RunSettings, table: Table) -> None:
        """Begin to measure what a run would take.

        Raises:
            PTuneError: A run trains, somebody else measures, or a shared page is asked for a local folder.
        """
        self._check_places(settings)
        self.measures.start(viewer, settings, table.path.parent)

    def start(self, settings: RunSettings, token: str, *, viewer: str, key: str) -> str:
        """Put a run into the queue; its id. The same `key` again gives the same run, however often Start was pressed.

        Raises:
            PTuneError: The data are gone, there is no room for the run, or a shared page is asked for a local folder.
        """
        self._check_places(settings)
        table = self.uploads.open(token)
        return self._store.submit(settings, table, owner=_owner(viewer), key=key)

    def _check_places(self, settings: RunSettings) -> None:
        if self._shared and any(trial.prompt_init_adapter for trial in settings.trials):
            raise SettingsError(
                "On a shared page virtual tokens cannot start from an adapter of this machine",
                got="prompt_init_adapter",
                remedy="Leave the initial adapter empty, and choose another start of the virtual tokens",
            )
        if self._shared and settings.base_model != DEMO and Path(settings.base_model).exists():
            raise SettingsError(
                "On a shared page a base model cannot be a folder of this machine",
                got=settings.base_model,
                needed="'demo' or a Hub id such as openai-community/gpt2",
            )

    def stop(self, run_id: str, viewer: str) -> None:
        """Stop the run and keep its result; one that waits is taken from the queue.

        Raises:
            RunError: There is no such run for this viewer.
        """
        self._launcher.stop(run_id, self._scope(viewer))

    def resume(self, run_id: str, viewer: str) -> None:
        """Queue a run that ended early again; it goes on from its last checkpoint.

        Raises:
            RunError: There is no such run for this viewer, or it cannot be resumed.
        """
        self._launcher.resume(run_id, self._scope(viewer))

    def delete(self, run_id: str, viewer: str) -> None:
        """Remove the run with all its files.

        Raises:
            RunError: There is no such run for this viewer, or it is running.
        """
        self._store.delete(run_id, self._scope(viewer))

    def poll(self, question: Mapping[str, Any]) -> dict[str, Any]:
        """What is new about one run, for the live plot: `live.since`, as the browser's script reads it.

        Raises:
            RunError: There is no such run for this viewer.
        """
        run = self._get(_text(question, "run"), self._scope(_text(question, "viewer")))
        return live.since(run.directory, _number(question, "cursor"), _number(question, "epoch"))

    def overview(self, question: Mapping[str, Any]) -> dict[str, Any]:
        """What the strip and the list of runs show."""
        runs = self._list(_text(question, "viewer"))
        active = next((run for run in runs if run.state is RunState.RUNNING), None)
        waiting = sum(run.state is RunState.QUEUED for run in runs)
        if active is None and waiting:
            active = [run for run in runs if run.state is RunState.QUEUED][-1]
            waiting -= 1
        return {
            "active": active and {"id": active.id, "state": active.state, "line": self._line(active), "can_stop": True},
            "idle": self._device,
            "newest": self._newest(runs[0]) if runs else None,
            "waiting": waiting,
            "runs": [row_of(run) for run in runs],
        }

    def choices(self, viewer: str) -> list[tuple[str, str]]:
        """(what to call it, id) of every run that has an adapter, newest first."""
        choices = []
        for run in self._list(viewer):
            directory = RunDirectory(run.directory)
            if has_adapter(directory):
                value = (directory.result() or {}).get("value")
                choices.append((texts.adapter(run.name, value, run.created), run.id))
        return choices

    def view(self, run_id: str, viewer: str) -> RunView:
        """One run, for the Runs, Try and Export tabs.

        Raises:
            RunError: There is no such run for this viewer.
        """
        run = self._get(run_id, self._scope(viewer))
        return view_of(run, self._store.queue_position(run.id))

    def adapter_zip(self, run_id: str) -> tuple[Path, str]:
        """The zip to download and the name to give it. A link carries no viewer: who knows the random id may download.

        Raises:
            RunError: There is no such run, or it has no adapter yet.
        """
        run = self._get(run_id, None)
        path = RunDirectory(run.directory).adapter_zip
        if not path.exists():
            raise RunError("This run has no adapter yet", remedy=_WAIT)
        what = "adapter" if run.settings.base_weights is BaseWeights.FROZEN else "tuned-model"
        return path, f"{texts.file_name(run.name)}-{what}.zip"

    def classify(self, run_id: str, viewer: str, values: Mapping[str, str]) -> Classification:
        """Label probabilities of the tuned model and of the base model alone.

        Raises:
            PTuneError: As `InferenceClient.classify`, or there is no such run for this viewer.
        """
        return self._inference.classify(self._adapter(run_id, viewer), [dict(values)])

    def generate(
        self, run_id: str, viewer: str, values: Mapping[str, str], **options: Any
    ) -> Generator[Generated, None, None]:
        """The texts of both models as they grow. Closing the iterator stops the models.

        Raises:
            PTuneError: As `InferenceClient.generate`, or there is no such run for this viewer.
        """
        yield from self._inference.generate(self._adapter(run_id, viewer), values, **options)

    def _adapter(self, run_id: str, viewer: str) -> Path:
        directory = RunDirectory(self._get(run_id, self._scope(viewer)).directory)
        if not has_adapter(directory):
            raise RunError("This run has no adapter yet", remedy=_WAIT)
        return directory.adapter

    def _list(self, viewer: str) -> list[Run]:
        return [run for run in self._store.list(self._scope(viewer)) if RunDirectory(run.directory).exists()]

    def _get(self, run_id: str, owner: str | None) -> Run:
        run = self._store.get(run_id, owner)
        if not RunDirectory(run.directory).exists():  # somebody tidied up; the store hears of it at its next start
            raise RunError("The files of this run are gone", remedy="Choose another run")
        return run

    def _scope(self, viewer: str) -> str | None:
        """Whose runs this viewer may see: None is everybody's."""
        return _owner(viewer) if self._shared else None

    def _line(self, run: Run) -> str:
        if run.state is RunState.QUEUED:
            return texts.queued(run.name, self._store.queue_position(run.id))
        return f"Training {run.name} · {live.summary(run)['status']}"

    def _newest(self, run: Run) -> dict[str, Any]:
        """The run that was started last, for the strip and for the card that started it."""
        directory = RunDirectory(run.directory)
        state, reason = directory.recorded_state()
        result = directory.result() or {}
        return {
            "id": run.id,
            "name": run.name,
            "state": state,
            "ended": not state.is_active,
            "line": live.summary(run)["status"] if state.is_active else texts.plain_headline(state, result),
            "warning": reason if state in ENDED_BADLY else texts.no_better(result),
        }


def _owner(viewer: str) -> str:
    """The viewer's id is what lets them in, so the store and the files get its hash."""
    return hashlib.sha256(viewer.encode()).hexdigest()[:32]


def _text(question: Mapping[str, Any], key: str) -> str:
    value = question.get(key)
    return value if isinstance(value, str) and len(value) <= 64 else ""


def _number(question: Mapping[str, Any], key: str) -> int:
    value = question.get(key)
    return value if isinstance(value, int) and 0 <= value < 2**53 else 0


def _device_line() -> str:
    """What trains here, without torch: it would take seconds to import and does not belong in the app."""
    if (tool := shutil.which("nvidia-smi")) is None:
        return texts.IDLE_CPU
    query = [tool, "--query-gpu=name,memory.total", "--format=csv,noheader"]
    try:
        found = subprocess.run(query, capture_output=True, text=True, timeout=3, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return texts.IDLE_CPU
    return f"Ready · GPU: {found.splitlines()[0]}" if found.strip() else texts.IDLE_CPU
