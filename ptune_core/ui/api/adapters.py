"""Endpoints about adapters: those of runs, and those that are brought.

Annotations are no strings here (no `from __future__ import annotations`): gradio makes the endpoints' types from them.
"""

import tempfile
from pathlib import Path
from typing import Any

import gradio as gr

from ptune_core.app import texts
from ptune_core.errors import AdapterError, DataError, RunError, SettingsError
from ptune_core.inference.batch import finish
from ptune_core.inference.protocol import Usage, build_request
from ptune_core.ui.api.base import ApiBase, uploaded


class AdapterApi(ApiBase):
    """What is done with adapters."""

    def list_adapters(self, viewer: str = "") -> list[dict]:
        """All adapters, newest first: id and name. That of a run has the run's id.

        Args:
            viewer: Your key, on a shared page. Elsewhere leave it empty.
        """
        return [{"id": id, "name": name} for name, id in self._service.adapters.choices(self._key(viewer))]

    def bring_adapter(
        self,
        file: gr.FileData | None = None,
        name: str = "",
        base_model: str = "",
        template: str = "",
        answers: dict[str, str] | None = None,
        viewer: str = "",
    ) -> dict:
        """Take in an adapter from elsewhere, such as one of PEFT's P-tuning, and return its id for `classify`,
        `generate` and the others. If it cannot be used, everything that is wrong with it is said at once.

        Args:
            file: An uploaded zip of the adapter; or
            name: a public adapter of the Hub, as OWNER/NAME.
            base_model: Where its files do not say: `demo`, a Hub id, or a folder of this machine.
            template: Where its files do not say: where text and virtual tokens stand, as `[P*8] {text} [ANSWER:label]`.
            answers: Where its files do not say: label -> answer words.
            viewer: Your key, on a shared page. Elsewhere leave it empty.
        """
        viewer = self._key(viewer)
        fields = {"base_model": base_model, "template": template, "answers": answers or {}}
        usage = build_request(Usage, fields)
        if (file is None) == (not name.strip()):
            raise AdapterError("One adapter is needed", needed="either an uploaded file or a name on the Hub")
        adapters = self._service.adapters
        if file is None:
            return {"adapter": adapters.fetch(name.strip(), viewer, usage)}
        return {"adapter": adapters.bring([uploaded(file)[0]], viewer, usage)}

    def remove_adapter(self, adapter: str, viewer: str = "") -> dict:
        """Remove an adapter that was brought. That of a run goes with its run.

        Args:
            adapter: Of `bring_adapter`.
            viewer: Your key, on a shared page. Elsewhere leave it empty.
        """
        self._service.adapters.remove(adapter, self._key(viewer))
        return {"removed": adapter}

    def classify(self, adapter: str, values: dict[str, str], viewer: str = "") -> dict:
        """Label probabilities of one text, by the tuned model and by the base model alone.

        Args:
            adapter: Of `list_adapters`, one with labels.
            values: Text for each column of its template, such as `{"text": "a fine film"}`.
            viewer: Your key, on a shared page. Elsewhere leave it empty.
        """
        viewer = self._key(viewer)
        found = self._service.classify(adapter, viewer, self._values(adapter, viewer, values))
        base = found["base"]
        return {
            "tuned": dict(zip(found["labels"], found["tuned"][0], strict=True)),
            "base": None if base is None else dict(zip(found["labels"], base[0], strict=True)),
            "note": found["note"],
        }

    def generate(
        self,
        adapter: str,
        values: dict[str, str],
        max_new_tokens: int = 48,
        temperature: float = 0.0,
        seed: int = 0,
        viewer: str = "",
    ) -> dict:
        """The texts that the tuned model and the base model alone write.

        Args:
            adapter: Of `list_adapters`, one that writes text.
            values: Text for each column of its template, such as `{"text": "Once"}`.
            max_new_tokens: Longest answer, in tokens; 1 to 256.
            temperature: 0 always takes the likeliest token; up to 2, more is more varied.
            seed: The same seed gives the same answer.
            viewer: Your key, on a shared page. Elsewhere leave it empty.
        """
        viewer = self._key(viewer)
        options = {"max_new_tokens": max_new_tokens, "temperature": temperature, "seed": seed}
        answer: dict = {"tuned": "", "base": None}
        for part in self._service.generate(adapter, viewer, self._values(adapter, viewer, values), **options):
            answer = {"tuned": part["tuned"], "base": part["base"]}
        return answer

    def adapter_link(self, adapter: str, viewer: str = "") -> dict:
        """Where the zip of an adapter can be downloaded: a link under this page's address, a name, and its files.

        Args:
            adapter: Of `list_adapters`.
            viewer: Your key, on a shared page. Elsewhere leave it empty.
        """
        view = self._service.adapters.view(adapter, self._key(viewer))
        if not view.zip_bytes:
            raise RunError("This adapter has no zip", remedy="Wait until its run has ended")
        files = [{"name": name, "bytes": num_bytes} for name, num_bytes in view.files]
        return {"link": f"adapters/{view.id}.zip", "name": f"{texts.file_name(view.name)}.zip", "files": files}

    def label_rows(self, adapter: str, rows: str = "", file: gr.FileData | None = None, viewer: str = "") -> dict:
        """Label every row of a file: the same rows as CSV text with the label and every label's probability beside
        them, how often each label was given, and what could not be read.

        Args:
            adapter: Of `list_adapters`, one with labels.
            rows: Rows as text, with a header line as in CSV; or
            file: an uploaded file (CSV, TSV, JSON, JSONL, Parquet, XLSX, TXT).
            viewer: Your key, on a shared page. Elsewhere leave it empty.
        """
        viewer = self._key(viewer)
        if (file is None) == (not rows):
            raise DataError("Rows are needed once", needed="either rows as text or an uploaded file")
        with tempfile.TemporaryDirectory() as folder:
            source, output = Path(folder) / "rows.csv", Path(folder) / "labelled.csv"
            if file is None:
                source.write_text(rows, encoding="utf-8")
            else:
                source = uploaded(file)[0]
            report = finish(self._service.adapters.label(adapter, viewer, source, output))
            found = {"labels": report.labels, "blank": report.blank, "problems": list(report.problems)}
            return {"csv": output.read_text(encoding="utf-8"), **found}

    def push_adapter(self, adapter: str, name: str, token: str = "", private: bool = True, viewer: str = "") -> dict:
        """Push an adapter with its card to the Hugging Face Hub; its address.

        Args:
            adapter: Of `list_adapters`.
            name: Where to, as OWNER/NAME.
            token: With write access. Empty: the one this machine is signed in with; on a shared page it is needed.
            private: Whether only you may see it there.
            viewer: Your key, on a shared page. Elsewhere leave it empty.
        """
        address = self._service.adapters.push(adapter, self._key(viewer), name, token=token, private=private)
        return {"address": address}

    def _values(self, adapter: str, viewer: str, values: Any) -> dict[str, str]:
        """The texts for the template's columns, and nothing else."""
        columns = self._service.adapters.view(adapter, viewer).columns
        given = values if isinstance(values, dict) else {}
        missing = [column for column in columns if not isinstance(given.get(column), str)]
        if missing or set(given) - set(columns):
            raise SettingsError(
                "The values do not fit the template of this adapter",
                got=", ".join(map(str, given)) or "nothing",
                needed=f"text for {', '.join(columns)}",
            )
        return given
