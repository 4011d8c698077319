"""What the page can do, in plain Python: runs, adapters and the inference process. No gradio, no torch.

Who may do what: on one's own machine everybody who reaches the page sees and controls every run. On a Space every
browser has a random id, and a run of another browser does not exist for it.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from collections.abc import Generator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ptune_core.app import texts
from ptune_core.app.adapters import Adapters, Owners, is_brought
from ptune_core.app.alarms import fix_named, name_of_retry
from ptune_core.app.comparison import compare
from ptune_core.app.downloads import content_of
from ptune_core.app.measuring import Measurement, Measures
from ptune_core.app.overview import overview
from ptune_core.app.results import alarms_answer, alarms_of, results_answer
from ptune_core.app.run_view import RunView, notes_of, view_of
from ptune_core.app.uploads import Uploads
from ptune_core.data.table import Table
from ptune_core.demo import DEMO
from ptune_core.errors import RunError, SettingsError
from ptune_core.inference.client import InferenceClient
from ptune_core.inference.protocol import Classification, Generated, Looked, Measured, Seen
from ptune_core.model.device import BaseWeights
from ptune_core.runs import live
from ptune_core.runs.directory import RunDirectory
from ptune_core.runs.launcher import Launcher
from ptune_core.runs.retry import changed_settings, retry
from ptune_core.runs.run import Run
from ptune_core.runs.store import Store
from ptune_core.runs.trials import use_trial
from ptune_core.training.settings import RunSettings

_WAIT = "Wait until it has ended, or start a new run"


class Service:
    """Everything behind the page.

    Args:
        store: The runs.
        launcher: Starts and stops their workers.
        inference: Asks the inference process.
        uploads: The rows people brought.
        shared: Whether strangers share this page, as on a Space: each then sees only their own runs.

    Attributes:
        is_shared: The same.
        uploads: The rows people brought.
        adapters: Those of runs, and those people brought.
        measures: What runs would take, measured before they start.
    """

    def __init__(
        self, store: Store, launcher: Launcher, inference: InferenceClient, uploads: Uploads, *, shared: bool
    ) -> None:
        self._store, self._launcher, self._inference = store, launcher, inference
        self.uploads = uploads
        self.is_shared = shared
        self._device = _device_lines()
        owners = Owners(lambda id, viewer: self._get(id, self._scope(viewer)), self._list, _owner, shared)
        self.adapters = Adapters(owners, inference, store.data_dir / "adapters")
        self.measures = Measures(store.data_dir)

    def active(self) -> int:
        """How many runs come before one that is started now, whoever's they are."""
        return sum(run.state.is_active for run in self._store.list(None))

    @property
    def measures_unasked(self) -> bool:
        """Whether a page may measure by itself; where strangers share the machine, only who asks for it."""
        return not self.is_shared

    def measure_run(self, viewer: str, settings: RunSettings, table: Table, *, unasked: bool = False) -> Measurement:
        """Begin to measure what a run would take; its thread goes on with it.

        Raises:
            PTuneError: A run trains, somebody else measures, or a shared page is asked for a local folder.
        """
        self._check_places(settings)
        return self.measures.start(viewer, settings, table.path.parent, unasked=unasked)

    def start(self, settings: RunSettings, token: str, *, viewer: str, key: str) -> str:
        """Put a run into the queue; its id. The same `key` again gives the same run, however often Start was pressed.

        Raises:
            PTuneError: The data are gone, there is no room for the run, or a shared page is asked for a local folder.
        """
        self._check_places(settings)
        table = self.uploads.open(token)
        run_id = self._store.submit(settings, table, owner=_owner(viewer), key=key)
        self._launcher.wake()
        return run_id

    def _check_places(self, settings: RunSettings) -> None:
        """A shared page reads no folder of this machine for strangers."""
        self._check_base_model(settings.base_model)
        if self.is_shared and any(trial.prompt_init_adapter for trial in settings.trials):
            raise SettingsError(
                "On a shared page virtual tokens cannot start from an adapter of this machine",
                got="prompt_init_adapter",
                remedy="Leave the initial adapter empty, and choose another start of the virtual tokens",
            )

    def retry(self, run_id: str, changes: Mapping[str, Any], viewer: str, *, name: str = "") -> str:
        """Queue the run once more on the same rows, with other settings; the new run's id. Asked twice, it is one run.

        Raises:
            PTuneError: There is no such run for this viewer, a setting is wrong, or its rows are gone.
        """
        run = self._get(run_id, self._scope(viewer))
        settings = changed_settings(run, changes, name or run.settings.name)
        self._check_places(settings)
        return retry(self._store, run, settings, _owner(viewer))

    def fix(self, run_id: str, key: str, viewer: str) -> str:
        """Do what a button of an alarm offers, see `ui.alarms`; the new run's id.

        Raises:
            PTuneError: As `retry`, or the alarm is gone.
        """
        run = self._get(run_id, self._scope(viewer))
        if (fix := fix_named(alarms_of(run), key)) is None:
            raise RunError("This is not offered any more", remedy="Reload the page to see how the run stands")
        return self.retry(run_id, fix.changes, viewer, name=name_of_retry(run.name, fix))

    def use_trial(self, run_id: str, trial: int, viewer: str) -> None:
        """Make a trial's adapter the one that Try, Export and Download take.

        Raises:
            RunError: There is no such run for this viewer, or no such trial.
        """
        use_trial(RunDirectory(self._get(run_id, self._scope(viewer)).directory), trial)

    def alarms(self, question: Mapping[str, Any]) -> dict[str, Any]:
        """What is wrong with a run, and what its buttons offer."""
        return alarms_answer(self._get(_text(question, "run"), self._scope(_text(question, "viewer"))))

    def results(self, question: Mapping[str, Any]) -> dict[str, Any]:
        """One part of what a run has come to, for below its plots."""
        return results_answer(self._get(_text(question, "run"), self._scope(_text(question, "viewer"))), question)

    def stop(self, run_id: str, viewer: str) -> None:
        """Stop the run and keep its result; one that waits is taken from the queue. Asked twice, it is stopped once.

        Raises:
            RunError: There is no such run for this viewer, or it has ended without being asked to.
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
        """What is new about one run, for the live plot: `live.since` and `notes`, as the browser's script reads it.

        Raises:
            RunError: There is no such run for this viewer.
        """
        run = self._get(_text(question, "run"), self._scope(_text(question, "viewer")))
        found = live.since(run.directory, _number(question, "cursor"), _number(question, "epoch"))
        return {**found, "notes": notes_of(run)}

    def compare(self, question: Mapping[str, Any]) -> dict[str, Any]:
        """What is new about several runs, for the overlay: see `comparison.compare`.

        Raises:
            RunError: One of them is not there for this viewer, or they are too many.
        """
        scope = self._scope(_text(question, "viewer"))
        return compare(question.get("runs"), lambda run_id: self._get(run_id, scope))

    def overview(self, question: Mapping[str, Any]) -> dict[str, Any]:
        """What the strip and the list of runs show. Whoever looks may start a run soon."""
        self._launcher.expect()
        return overview(self._list(_text(question, "viewer")), self._store.queue_position, self._device)

    def status(self, run_id: str, viewer: str) -> dict[str, Any]:
        """How far the run is, and its place in the queue, 0 if it does not wait.

        Raises:
            RunError: There is no such run for this viewer.
        """
        run = self._get(run_id, self._scope(viewer))
        return {**live.summary(run), "position": self._store.queue_position(run.id)}

    def move_up(self, run_id: str, viewer: str) -> None:
        """Let a waiting run change places with the one of this viewer's that waits before it.

        Raises:
            RunError: There is no such run for this viewer, or it does not wait.
        """
        self._store.move_up(run_id, self._scope(viewer))

    def choices(self, viewer: str) -> list[tuple[str, str]]:
        """(what to call it, id) of every adapter, newest first."""
        return self.adapters.choices(viewer)

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
        if is_brought(run_id):
            return self.adapters.zip_file(run_id)
        run = self._get(run_id, None)
        path = RunDirectory(run.directory).adapter_zip
        if not path.exists():
            raise RunError("This run has no adapter yet", remedy=_WAIT)
        what = "adapter" if run.base_weights is BaseWeights.FROZEN else "tuned-model"
        return path, f"{texts.file_name(run.name)}-{what}.zip"

    def download(self, run_id: str, name: str, key: str) -> tuple[bytes, str]:
        """A file of a run, and the name to give it; see `downloads.content_of`.

        Raises:
            RunError: There is no such run or file, or the key is not its own.
        """
        return content_of(self._get(run_id, None), name, key)

    def classify(self, adapter: str, viewer: str, values: Mapping[str, str], *, compare: bool = True) -> Classification:
        """Label probabilities of the tuned model and of the base model alone.

        Raises:
            PTuneError: As `InferenceClient.classify`, or there is no such adapter for this viewer.
        """
        return self._inference.classify(self.adapters.locate(adapter, viewer), [dict(values)], compare=compare)

    def generate(
        self, adapter: str, viewer: str, values: Mapping[str, str], **options: Any
    ) -> Generator[Generated, None, None]:
        """The texts of both models as they grow. Closing the iterator stops the models.

        Raises:
            PTuneError: As `InferenceClient.generate`, or there is no such adapter for this viewer.
        """
        yield from self._inference.generate(self.adapters.locate(adapter, viewer), values, **options)

    def seen(self, adapter: str, viewer: str, values: Mapping[str, str]) -> Seen:
        """What the tuned model sees, token by token.

        Raises:
            PTuneError: As `InferenceClient.preview`, or there is no such adapter for this viewer.
        """
        return self._inference.preview(self.adapters.locate(adapter, viewer), values)

    def look(self, fields: Mapping[str, object]) -> Looked:
        """What a base model would see of a row in a template; `fields` as `InferenceClient.look`.

        Raises:
            PTuneError: As there, or a shared page is asked for a local folder.
        """
        self._check_base_model(str(fields["base_model"]))
        return self._inference.look(fields)

    def measure(self, fields: Mapping[str, object]) -> Measured:
        """How many tokens rows have in a template, as `InferenceClient.measure`; raises what `look` does."""
        self._check_base_model(str(fields["base_model"]))
        return self._inference.measure(fields)

    def _check_base_model(self, base_model: str) -> None:
        if self.is_shared and base_model != DEMO and Path(base_model).exists():
            raise SettingsError(
                "On a shared page a base model cannot be a folder of this machine",
                got=base_model,
                needed="'demo' or a Hub id such as openai-community/gpt2",
            )

    def _list(self, viewer: str) -> list[Run]:
        return [run for run in self._store.list(self._scope(viewer)) if RunDirectory(run.directory).exists()]

    def _get(self, run_id: str, owner: str | None) -> Run:
        run = self._store.get(run_id, owner)
        if not RunDirectory(run.directory).exists():  # somebody tidied up; the store hears of it at its next start
            raise RunError("The files of this run are gone", remedy="Choose another run")
        return run

    def _scope(self, viewer: str) -> str | None:
        """Whose runs this viewer may see: None is everybody's."""
        return _owner(viewer) if self.is_shared else None


def _owner(viewer: str) -> str:
    """The viewer's id is what lets them in, so the store and the files get its hash."""
    return hashlib.sha256(viewer.encode()).hexdigest()[:32]


def _text(question: Mapping[str, Any], key: str) -> str:
    value = question.get(key)
    return value if isinstance(value, str) and len(value) <= 64 else ""


def _number(question: Mapping[str, Any], key: str) -> int:
    value = question.get(key)
    return value if isinstance(value, int) and 0 <= value < 2**53 else 0


def _device_lines() -> Sequence[str]:
    """What trains here, the longest form first; without torch, which would take seconds to import in the app."""
    if (tool := shutil.which("nvidia-smi")) is None:
        return texts.IDLE_CPU
    query = [tool, "--query-gpu=name,memory.total", "--format=csv,noheader"]
    try:
        found = subprocess.run(query, capture_output=True, text=True, timeout=3, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return texts.IDLE_CPU
    return texts.idle_gpu(found.splitlines()[0]) if found.strip() else texts.IDLE_CPU
