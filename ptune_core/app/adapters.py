"""The adapters that a page shows: those of runs, the present state of a run that trains, and those people bring.

An adapter's id is its run's; with `@newest` the run's present state; 32 hex digits for one that was brought, which lies
in a folder of its own, rewritten as one of ours. No gradio, no torch.
"""

from __future__ import annotations

import json
import math
import re
import secrets
import shutil
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ptune_core.adapters.archive import refuse_pickle
from ptune_core.adapters.hub import pull, push
from ptune_core.adapters.names import READ
from ptune_core.app import texts
from ptune_core.app.adapter_view import AdapterView, Origin, view_of_adapter
from ptune_core.app.downloads import PREDICTIONS, downloads_of
from ptune_core.app.run_view import has_adapter
from ptune_core.app.texts import trying
from ptune_core.data.table import open_table
from ptune_core.demo import DEMO
from ptune_core.errors import AdapterError, DataError, PTuneError, RunError, SettingsError
from ptune_core.files import atomic_write
from ptune_core.inference.batch import BatchReport, Progress, label_file
from ptune_core.inference.client import InferenceClient
from ptune_core.inference.protocol import Usage
from ptune_core.model.device import BaseWeights
from ptune_core.runs.directory import RunDirectory
from ptune_core.runs.run import Run
from ptune_core.runs.states import RunState
from ptune_core.training import newest

NEWEST = "@newest"
_BROUGHT = re.compile(r"[0-9a-f]{32}")
_ABOUT = "about.json"
MOST_BROUGHT = 20
"""Adapters that one viewer of a shared page may keep."""

KEEP_SECONDS = 7 * 24 * 3600
"""How long a shared page keeps them."""

FRESH_SECONDS = 2.0
"""A present state this young is not asked for again: one press asks several things of it."""

ANSWER_SECONDS = 20.0
"""How long a worker may take to write its present state: it does so after the step it is at."""


@dataclass(frozen=True)
class Owners:
    """Who may see which runs: `Service`'s own rules.

    Attributes:
        find: A run by its id, for a viewer. Raises `RunError` if there is none.
        runs: All runs of a viewer, newest first.
        owner: What stands in files for a viewer.
        is_shared: Whether strangers share the page.
    """

    find: Callable[[str, str], Run]
    runs: Callable[[str], list[Run]]
    owner: Callable[[str], str]
    is_shared: bool


class Adapters:
    """All adapters behind the page.

    Args:
        owners: Who may see what.
        inference: Reads them, and answers with them.
        directory: Where those that people bring are kept.
        wait: Sleeps for so many seconds.
    """

    def __init__(
        self,
        owners: Owners,
        inference: InferenceClient,
        directory: Path,
        *,
        wait: Callable[[float], None] = time.sleep,
    ) -> None:
        self._owners, self._inference, self._directory, self._wait = owners, inference, directory, wait

    def choices(self, viewer: str) -> list[tuple[str, str]]:
        """(what to call it, id) of every adapter, newest first, those that people brought last."""
        choices = []
        for run in self._owners.runs(viewer):
            directory = RunDirectory(run.directory)
            if run.state is RunState.RUNNING and run.base_weights is BaseWeights.FROZEN:
                choices.append((trying.newest(run.name), run.id + NEWEST))
            if has_adapter(directory):
                value = (directory.result() or {}).get("value")
                choices.append((texts.adapter(run.name, value, run.created), run.id))
        return choices + [(trying.brought(about["name"]), about["id"]) for about in self._brought(viewer)]

    def view(self, id: str, viewer: str) -> AdapterView:
        """One adapter, for Try and Export.

        Raises:
            RunError: There is no such adapter for this viewer, or not yet.
        """
        if is_brought(id):
            about = self._about(id, viewer)
            return view_of_adapter(id, about["name"], Origin.IMPORTED, self._directory / id / "adapter")
        run = self._owners.find(id.removesuffix(NEWEST), viewer)
        directory = RunDirectory(run.directory)
        folder = self.locate(id, viewer)
        is_newest = folder != directory.adapter
        try:
            rows = open_table(directory.data).preview
        except DataError:
            rows = []  # the adapter is of use without its data
        if is_newest:
            return view_of_adapter(id, run.name, Origin.NEWEST, folder, rows=rows)
        predictions = directory.path / PREDICTIONS
        view = view_of_adapter(id, run.name, Origin.RUN, folder, predictions=predictions, rows=rows)
        return replace(view, downloads=downloads_of(run))

    def locate(self, id: str, viewer: str) -> Path:
        """The folder of an adapter; of a run that trains, its state as it is now.

        Raises:
            RunError: There is no such adapter for this viewer, or not yet.
        """
        if is_brought(id):
            self._about(id, viewer)
            return self._directory / id / "adapter"
        run = self._owners.find(id.removesuffix(NEWEST), viewer)
        directory = RunDirectory(run.directory)
        if id.endswith(NEWEST) and directory.recorded_state()[0] is RunState.RUNNING:
            return self._present(directory)
        if not has_adapter(directory):
            raise RunError("This run has no adapter yet", remedy="Wait until it has ended, or start a new run")
        return directory.adapter

    def zip_file(self, id: str) -> tuple[Path, str]:
        """The zip of an adapter that somebody brought, and its name; who knows the random id may download.

        Raises:
            RunError: There is none.
        """
        about = self._read_about(id)
        return self._directory / id / "adapter.zip", f"{texts.file_name(about['name'])}-adapter.zip"

    def bring(self, paths: Sequence[Path], viewer: str, usage: Usage, name: str = "") -> str:
        """Take in an adapter from elsewhere; its id.

        Args:
            paths: One zip, or the files of one adapter.
            usage: What its files do not say.
            name: What to call it; empty: as its zip is called.

        Raises:
            PTuneError: With everything that is wrong with it; nothing is kept then.
        """
        self._check_base(usage.base_model)
        self._forget_old()
        if self._owners.is_shared and len(self._brought(viewer)) >= MOST_BROUGHT:
            raise AdapterError("There are too many adapters here already", remedy="Remove some on the Export tab")
        id = secrets.token_hex(16)
        folder = self._directory / id
        try:
            found_name = _copy(paths, folder / "brought")
            self._take_in(id, usage)
            self._write_about(id, name or found_name, viewer)
        except PTuneError:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        return id

    def fetch(self, name: str, viewer: str, usage: Usage) -> str:
        """Take in a public adapter of the Hub, `OWNER/NAME`; its id.

        Raises:
            PTuneError: It cannot be fetched, or something is wrong with it.
        """
        return self.bring(pull(name), viewer, usage, name)

    def use_as(self, id: str, viewer: str, usage: Usage) -> None:
        """Say anew how an adapter that was brought is used.

        Raises:
            PTuneError: It cannot be used so; it stays as it was.
        """
        self._about(id, viewer)
        self._check_base(usage.base_model)
        self._take_in(id, usage)

    def remove(self, id: str, viewer: str) -> None:
        """Remove an adapter that was brought.

        Raises:
            RunError: There is none for this viewer.
        """
        self._about(id, viewer)
        shutil.rmtree(self._directory / id, ignore_errors=True)

    def push(self, id: str, viewer: str, name: str, *, token: str, private: bool) -> str:
        """Push an adapter to the Hub as `name`, `OWNER/NAME`; its address.

        Args:
            token: With write access; empty: this machine's own, which strangers on a shared page do not get.

        Raises:
            PTuneError: There is no such adapter, a token is needed, or the Hub refused.
        """
        folder = self.locate(id, viewer)
        if not token.strip() and self._owners.is_shared:
            raise SettingsError(
                "A token is needed", needed="one with write access, from huggingface.co/settings/tokens"
            )
        return push(folder, name.strip(), token=token.strip() or None, private=private)

    def label(
        self, id: str, viewer: str, source: Path, output: Path
    ) -> Generator[Progress, None, BatchReport]:  # fmt: skip
        """Label every row of a file; see `inference.batch.label_file`.

        Raises:
            PTuneError: The file, the adapter or its base model cannot be used.
        """
        return (yield from label_file(self.locate(id, viewer), source, output, classifier=self._inference))

    def _take_in(self, id: str, usage: Usage) -> None:
        folder = self._directory / id
        (brought,) = (folder / "brought").iterdir()
        found = self._inference.take_in(brought, folder, usage)
        if found["base_weights"] == BaseWeights.FROZEN:
            try:
                self._check_base(found["base_model"])
            except SettingsError:  # its own files say so: nothing of it is to stay
                shutil.rmtree(folder, ignore_errors=True)
                raise

    def _check_base(self, base_model: str) -> None:
        if self._owners.is_shared and base_model not in ("", DEMO) and Path(base_model).exists():
            raise SettingsError(
                "On a shared page a base model cannot be a folder of this machine",
                got=base_model,
                needed="'demo' or a Hub id such as openai-community/gpt2",
            )

    def _present(self, directory: RunDirectory) -> Path:
        folder = directory.path / newest.FOLDER
        if _age(folder / "adapter") < FRESH_SECONDS:
            return folder / "adapter"
        newest.ask(directory.path)
        waited = 0.0
        while newest.is_asked(directory.path) and waited < ANSWER_SECONDS:
            if directory.recorded_state()[0] is not RunState.RUNNING:
                break
            self._wait(0.05)
            waited += 0.05
        if not (folder / "adapter").is_dir():
            raise RunError(
                "This run has nothing to try yet",
                got="it is still loading, or makes its first evaluation",
                remedy="Try again in a moment",
            )
        return folder / "adapter"

    def _forget_old(self) -> None:
        if not self._owners.is_shared or not self._directory.is_dir():
            return
        for folder in self._directory.iterdir():
            if is_brought(folder.name) and _age(folder) > KEEP_SECONDS:
                shutil.rmtree(folder, ignore_errors=True)

    def _brought(self, viewer: str) -> list[dict[str, Any]]:
        if not self._directory.is_dir():
            return []
        abouts = []
        for folder in self._directory.iterdir():
            try:
                abouts.append(self._about(folder.name, viewer))
            except RunError:
                continue
        return sorted(abouts, key=lambda about: -about["created"])

    def _about(self, id: str, viewer: str) -> dict[str, Any]:
        about = self._read_about(id)
        if self._owners.is_shared and about["owner"] != self._owners.owner(viewer):
            raise _no_such_adapter()
        return about

    def _read_about(self, id: str) -> dict[str, Any]:
        if not is_brought(id):
            raise _no_such_adapter()
        try:
            about: dict[str, Any] = json.loads((self._directory / id / _ABOUT).read_bytes())
        except (OSError, ValueError) as error:
            raise _no_such_adapter() from error
        return about

    def _write_about(self, id: str, name: str, viewer: str) -> None:
        about: Mapping[str, object] = {
            "id": id, "name": name, "owner": self._owners.owner(viewer), "created": time.time(),
        }  # fmt: skip
        atomic_write(self._directory / id / _ABOUT, json.dumps(about).encode())


def _age(path: Path) -> float:
    try:
        return time.time() - path.stat().st_mtime
    except FileNotFoundError:
        return math.inf


def is_brought(id: str) -> bool:
    """Whether an id is of the form that adapters have which people brought."""
    return _BROUGHT.fullmatch(id) is not None


def _no_such_adapter() -> RunError:
    return RunError("There is no such adapter", remedy="Choose one from the list")


def _copy(paths: Sequence[Path], place: Path) -> str:
    """Copy what was uploaded to `place`, as one zip or as one folder of files; what to call the adapter.

    Raises:
        AdapterError: It is neither.
    """
    for path in paths:
        refuse_pickle(path)
    zips = [path for path in paths if path.suffix.lower() == ".zip"]
    strange = [path.name for path in paths if path not in zips and path.name not in READ]
    if not paths or strange or len(zips) > 1 or (zips and len(paths) > 1):
        raise AdapterError(
            "This is not one adapter",
            got=", ".join(path.name for path in paths[:10]) or "no file",
            needed=f"one zip, or {READ[0]} and {READ[1]} together",
        )
    place.mkdir(parents=True)
    if zips:
        shutil.copyfile(zips[0], place / f"{texts.file_name(zips[0].stem)}.zip")
        return zips[0].stem[:80]
    (place / "files").mkdir()
    for path in paths:
        shutil.copyfile(path, place / "files" / path.name)
    return "Adapter"
