"""What the page does, for programs: named endpoints for `gradio_client`, and MCP tools where the app has `--mcp`.

Annotations are no strings here (no `from __future__ import annotations`): gradio makes the endpoints' types from them,
and what the docstrings say is what a program's author or a language model reads about an endpoint.
"""

import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.utils import get_upload_folder

from ptune_core.data.table import Table
from ptune_core.demo import DEMO, DEMO_LABELS
from ptune_core.errors import DataError, RunError, SettingsError
from ptune_core.prompt.segments import TargetKind
from ptune_core.training.plain_yaml import load_mapping
from ptune_core.training.settings import RunSettings
from ptune_core.ui import texts
from ptune_core.ui.preview import choose_columns, example_pieces, report_on
from ptune_core.ui.service import Service
from ptune_core.ui.show import told

MOST_SETTINGS_CHARACTERS = 100_000
SHORTEST_KEY = 16
"""Characters of a viewer's key on a shared page: whoever knows or guesses the key has the runs."""

INFERENCE: dict[str, Any] = {"concurrency_id": "inference", "concurrency_limit": 4}
"""How the endpoints that ask the inference process are registered: in the same queue as the page's own requests."""


def add_api(service: Service) -> None:
    """Register every endpoint on the page that is being built."""
    api = Api(service)
    for endpoint in api.endpoints():
        options = INFERENCE if endpoint in (api.classify, api.generate) else {"concurrency_limit": None}
        gr.api(told(endpoint), api_name=endpoint.__name__, **options)


class Api:
    """The endpoints over one service."""

    def __init__(self, service: Service) -> None:
        self._service = service

    def endpoints(self) -> tuple[Callable[..., Any], ...]:
        """Every endpoint; its name is the function's."""
        return (
            self.list_runs, self.preview, self.start_run, self.run_status, self.run_metrics, self.stop_run,
            self.resume_run, self.move_run_up, self.delete_run, self.classify, self.generate, self.adapter_link,
        )  # fmt: skip

    def list_runs(self, viewer: str = "") -> list[dict]:
        """All runs, newest first: id, name, state, best result, time of creation.

        Args:
            viewer: Your key, on a shared page: at least 16 characters of your own choice. Elsewhere leave it empty.
        """
        runs: list[dict] = self._service.overview({"viewer": self._key(viewer)})["runs"]
        return runs

    def preview(self, settings: str = "", data: str = DEMO, rows: str = "", file: gr.FileData | None = None) -> dict:
        """What the data give with these settings, before anything is trained: which column is read for what, how many
        rows are used and why others are not, the labels with their answer words, and the first row in the template.

        Args:
            settings: Settings as YAML or JSON; empty for the defaults. `template` decides what is needed of the data.
            data: `demo`, or a file of a Hugging Face data set as hf://datasets/OWNER/NAME/FILE.
            rows: Rows as text, with a header line as in CSV; instead of `data`.
            file: An uploaded file (CSV, TSV, JSON, JSONL, Parquet, XLSX, TXT); instead of `data`.
        """
        table = self._service.uploads.open(self._token(data, rows, file))
        chosen = _settings(settings, table)
        report = report_on(table, chosen)
        pieces = example_pieces(chosen.parsed_template, table.preview[0], chosen.columns)
        return {
            "summary": report.text, "problems": list(report.problems), "labels": report.labels,
            "answers": report.verbalizer, "columns": chosen.columns,
            "first_row": [{"text": text, "kind": kind} for text, kind in pieces],
        }  # fmt: skip

    def start_run(
        self,
        settings: str = "",
        data: str = DEMO,
        rows: str = "",
        file: gr.FileData | None = None,
        viewer: str = "",
        key: str = "",
    ) -> dict:
        """Put a run into the queue and return its id at once; ask `run_status` how it gets on.

        Args:
            settings: Settings as YAML or JSON, such as `{"max_steps": 60}`; empty for the defaults.
            data: `demo`, or a file of a Hugging Face data set as hf://datasets/OWNER/NAME/FILE.
            rows: Rows as text, with a header line as in CSV; instead of `data`.
            file: An uploaded file (CSV, TSV, JSON, JSONL, Parquet, XLSX, TXT); instead of `data`.
            viewer: Your key, on a shared page: at least 16 characters of your own choice. Elsewhere leave it empty.
            key: Any text of your own; the same key again is the same run. Empty: every call is a new run.
        """
        viewer = self._key(viewer)
        token = self._token(data, rows, file)
        table = self._service.uploads.open(token)
        chosen = _settings(settings, table)
        summary = report_on(table, chosen).text
        run_id = self._service.start(chosen, token, viewer=viewer, key=key or secrets.token_hex(16))
        return {"id": run_id, "summary": summary}

    def run_status(self, run_id: str, viewer: str = "") -> dict:
        """How far a run is: state, step of steps, seconds left, best result beside its baselines, place in the queue.

        Args:
            run_id: The run.
            viewer: Your key, on a shared page. Elsewhere leave it empty.
        """
        viewer = self._key(viewer)
        view = self._service.view(run_id, viewer)
        said = {"headline": view.headline.replace("**", ""), "problem": view.problem, "warning": view.warning}
        return {**self._service.status(run_id, viewer), **said, "has_adapter": view.has_adapter}

    def run_metrics(self, run_id: str, cursor: int = 0, epoch: int = 0, viewer: str = "") -> dict:
        """The points of a run's curves that were written after `cursor`; 0 is everything, thinned to what a plot shows.

        Args:
            run_id: The run.
            cursor: `cursor` of the answer before; 0 at first.
            epoch: `epoch` of the answer before; 0 at first. If `reset` is true in the answer, it replaces all you have.
            viewer: Your key, on a shared page. Elsewhere leave it empty.
        """
        question = {"run": run_id, "cursor": cursor, "epoch": epoch, "viewer": self._key(viewer)}
        return self._service.poll(question)

    def stop_run(self, run_id: str, viewer: str = "") -> dict:
        """Stop a run at its next step and keep its best result; one that waits is taken from the queue.

        Args:
            run_id: The run.
            viewer: Your key, on a shared page. Elsewhere leave it empty.
        """
        self._service.stop(run_id, self._key(viewer))
        return self.run_status(run_id, viewer)

    def resume_run(self, run_id: str, viewer: str = "") -> dict:
        """Queue a run that was stopped, failed or interrupted again; it goes on from its last checkpoint.

        Args:
            run_id: The run.
            viewer: Your key, on a shared page. Elsewhere leave it empty.
        """
        self._service.resume(run_id, self._key(viewer))
        return self.run_status(run_id, viewer)

    def move_run_up(self, run_id: str, viewer: str = "") -> dict:
        """Let a waiting run change places with the one of yours that waits before it.

        Args:
            run_id: The run.
            viewer: Your key, on a shared page. Elsewhere leave it empty.
        """
        self._service.move_up(run_id, self._key(viewer))
        return self.run_status(run_id, viewer)

    def delete_run(self, run_id: str, viewer: str = "") -> dict:
        """Delete a run that has ended, with its adapter and all its files.

        Args:
            run_id: The run.
            viewer: Your key, on a shared page. Elsewhere leave it empty.
        """
        self._service.delete(run_id, self._key(viewer))
        return {"deleted": run_id}

    def classify(self, run_id: str, values: dict[str, str], viewer: str = "") -> dict:
        """Label probabilities of one text, by the tuned model and by the base model alone.

        Args:
            run_id: A run that has an adapter and labels.
            values: Text for each column of its template, such as `{"text": "a fine film"}`.
            viewer: Your key, on a shared page. Elsewhere leave it empty.
        """
        viewer = self._key(viewer)
        found = self._service.classify(run_id, viewer, self._values(run_id, viewer, values))
        base = found["base"]
        return {
            "tuned": dict(zip(found["labels"], found["tuned"][0], strict=True)),
            "base": None if base is None else dict(zip(found["labels"], base[0], strict=True)),
            "note": found["note"],
        }

    def generate(
        self,
        run_id: str,
        values: dict[str, str],
        max_new_tokens: int = 48,
        temperature: float = 0.0,
        seed: int = 0,
        viewer: str = "",
    ) -> dict:
        """The texts that the tuned model and the base model alone write.

        Args:
            run_id: A run that has an adapter and was trained on text.
            values: Text for each column of its template, such as `{"text": "Once"}`.
            max_new_tokens: Longest answer, in tokens; 1 to 256.
            temperature: 0 always takes the likeliest token; up to 2, more is more varied.
            seed: The same seed gives the same answer.
            viewer: Your key, on a shared page. Elsewhere leave it empty.
        """
        viewer = self._key(viewer)
        options = {"max_new_tokens": max_new_tokens, "temperature": temperature, "seed": seed}
        answer: dict = {"tuned": "", "base": None}
        for part in self._service.generate(run_id, viewer, self._values(run_id, viewer, values), **options):
            answer = {"tuned": part["tuned"], "base": part["base"]}
        return answer

    def adapter_link(self, run_id: str, viewer: str = "") -> dict:
        """Where the zip of a run's adapter can be downloaded: a link under this page's address, a name, and its files.

        Args:
            run_id: A run that has an adapter.
            viewer: Your key, on a shared page. Elsewhere leave it empty.
        """
        view = self._service.view(run_id, self._key(viewer))
        if not view.has_adapter:
            raise RunError("This run has no adapter yet", remedy="Wait until it has ended, or start a new run")
        files = [{"name": name, "bytes": num_bytes} for name, num_bytes in view.files]
        return {"link": f"adapters/{view.id}.zip", "name": f"{texts.file_name(view.name)}.zip", "files": files}

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

    def _token(self, data: str, rows: str, file: Any) -> str:
        """Read the rows that were brought; their token."""
        if sum((bool(rows), file is not None, data not in ("", DEMO))) > 1:
            raise DataError("Rows came in more than one way", needed="one of data, rows and file")
        uploads = self._service.uploads
        if file is not None:
            return uploads.add_file(*_uploaded(file))
        if rows:
            return uploads.add_text(rows)
        return uploads.demo() if data in ("", DEMO) else uploads.add_hub(data)

    def _values(self, run_id: str, viewer: str, values: Any) -> dict[str, str]:
        """The texts for the template's columns, and nothing else."""
        columns = self._service.view(run_id, viewer).columns
        given = values if isinstance(values, dict) else {}
        missing = [column for column in columns if not isinstance(given.get(column), str)]
        if missing or set(given) - set(columns):
            raise SettingsError(
                "The values do not fit the template of this run",
                got=", ".join(map(str, given)) or "nothing",
                needed=f"text for {', '.join(columns)}",
            )
        return given


def _uploaded(file: Any) -> tuple[Path, str]:
    """Path and name of a file that really was uploaded: gradio does not look where an endpoint's own path leads."""
    path = file.get("path") if isinstance(file, dict) else None
    found = Path(path).resolve() if isinstance(path, str) else None
    if found is None or not found.is_relative_to(Path(get_upload_folder()).resolve()):
        raise DataError("This file was not uploaded", remedy="Upload it first; gradio_client's handle_file does so")
    return found, str(file.get("orig_name") or found.name)[:200]


def _settings(text: str, table: Table) -> RunSettings:
    """The settings for `table`: columns that are not named are guessed, and the demo's labels have their own words."""
    if not isinstance(text, str) or len(text) > MOST_SETTINGS_CHARACTERS:
        raise SettingsError("The settings are too long", needed=f"at most {MOST_SETTINGS_CHARACTERS:,} characters")
    values = load_mapping(text)
    if values.get("validation_data"):
        raise SettingsError("A second file of rows cannot be named here", got="validation_data")
    chosen = RunSettings.parse({**values, "data": table.source or "uploaded rows"})
    template = chosen.parsed_template
    columns = choose_columns(table, template, chosen.columns)
    settings = chosen.model_copy(update={"columns": columns})
    if chosen.labels is None and template.target.kind is not TargetKind.HEAD and not chosen.candidates:
        found = report_on(table, settings).labels
        if set(found) == set(DEMO_LABELS):
            settings = settings.model_copy(update={"labels": dict(DEMO_LABELS)})
    return settings
