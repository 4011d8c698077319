"""Endpoints about data and runs.

Annotations are no strings here (no `from __future__ import annotations`): gradio makes the endpoints' types from them.
"""

import secrets
from typing import Any, Literal

import gradio as gr

from ptune_core.app.data_report import choose_columns, example_pieces, report_on
from ptune_core.app.measuring import Stage
from ptune_core.data.table import Table
from ptune_core.demo import DEMO, DEMO_LABELS
from ptune_core.errors import DataError, RunError, SettingsError
from ptune_core.prompt.segments import TargetKind
from ptune_core.training.plain_yaml import load_mapping
from ptune_core.training.settings import RunSettings
from ptune_core.ui.api.base import ApiBase, uploaded

MOST_SETTINGS_CHARACTERS = 100_000


class RunApi(ApiBase):
    """What is done with data and runs."""

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

    def measure(
        self, settings: str = "", data: str = DEMO, rows: str = "", file: gr.FileData | None = None, viewer: str = ""
    ) -> dict:
        """What a run with these settings will take: seconds and MiB, measured on three real steps. Answers when it is
        done, which takes as long as loading the base model and those steps.

        Args:
            settings: Settings as YAML or JSON; empty for the defaults.
            data: `demo`, or a file of a Hugging Face data set as hf://datasets/OWNER/NAME/FILE.
            rows: Rows as text, with a header line as in CSV; instead of `data`.
            file: An uploaded file (CSV, TSV, JSON, JSONL, Parquet, XLSX, TXT); instead of `data`.
            viewer: Your key, on a shared page: at least 16 characters of your own choice. Elsewhere leave it empty.
        """
        viewer = self._key(viewer)
        table = self._service.uploads.open(self._token(data, rows, file))
        # Beside the form's own: measuring here calls off nothing that the page's form measures.
        found = self._service.measure_run(f"{viewer} by program", _settings(settings, table), table)
        found.ended.wait()
        if found.stage is not Stage.DONE:
            raise RunError("The run could not be measured", got=found.error or "it was called off")
        return found.numbers

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
        Of the baselines `probe` is what the frozen base model gives without virtual tokens; `notes` say what is to be
        known beside the number, such as what a classification head reads and why.

        Args:
            run_id: The run.
            viewer: Your key, on a shared page. Elsewhere leave it empty.
        """
        viewer = self._key(viewer)
        view = self._service.view(run_id, viewer)
        said = {"headline": view.headline.replace("**", ""), "problem": view.problem, "warning": view.warning}
        return {
            **self._service.status(run_id, viewer),
            **said,
            "has_adapter": view.has_adapter,
            "notes": list(view.notes),
        }

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

    def run_results(
        self,
        run_id: str,
        part: Literal["samples", "baselines", "confusion", "calibration", "cost", "settings", "log", "sweep"],
        offset: int = 0,
        order: Literal["wrong", "unsure", "data"] = "wrong",
        viewer: str = "",
    ) -> dict:
        """One part of what a run has come to, as the page shows it below the plots. `empty` says why there is nothing.

        Args:
            run_id: The run.
            part: `samples` are validation rows with what was predicted, `baselines` what the result stands beside,
                `sweep` the ranking of its trials.
            offset: Samples to leave out, for the next ones.
            order: Of samples: wrong ones first, unsure ones first, or as they are in the data.
            viewer: Your key, on a shared page. Elsewhere leave it empty.
        """
        question = {"run": run_id, "part": part, "offset": offset, "order": order, "viewer": self._key(viewer)}
        return self._service.results(question)

    def use_trial(self, run_id: str, trial: int, viewer: str = "") -> dict:
        """Make one trial's adapter the one of its sweep, which `classify`, `adapter_link` and the page take.

        Args:
            run_id: The run, a sweep that has ended.
            trial: Its number in the ranking.
            viewer: Your key, on a shared page. Elsewhere leave it empty.
        """
        self._service.use_trial(run_id, trial, self._key(viewer))
        return self.run_status(run_id, viewer)

    def _token(self, data: str, rows: str, file: Any) -> str:
        """Read the rows that were brought; their token."""
        if sum((bool(rows), file is not None, data not in ("", DEMO))) > 1:
            raise DataError("Rows came in more than one way", needed="one of data, rows and file")
        uploads = self._service.uploads
        if file is not None:
            return uploads.add_file(*uploaded(file))
        if rows:
            return uploads.add_text(rows)
        return uploads.demo() if data in ("", DEMO) else uploads.add_hub(data)


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
