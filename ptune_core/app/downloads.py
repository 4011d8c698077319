"""Files of a run that are downloads: settings, the curve, predictions.

A link carries no viewer. It carries a key instead, which only those get to see who may see the run, and which fits this
one file of this one run.
"""

from __future__ import annotations

import csv
import hashlib
import hmac
import io
from collections.abc import Iterator
from pathlib import Path

import yaml

from ptune_core.app import texts
from ptune_core.app.texts import trying
from ptune_core.errors import RunError
from ptune_core.files import read_lines
from ptune_core.runs.directory import RunDirectory
from ptune_core.runs.run import Run

SETTINGS, METRICS, PREDICTIONS = "settings.yaml", "metrics.csv", "predictions.jsonl"

_CURVE = (
    "step", "epoch", "loss", "learning_rate", "grad_norm", "validation_loss", "validation_value", "best", "seconds",
)  # fmt: skip
_OF_EVALUATION = {"loss": "validation_loss", "value": "validation_value"}


def downloads_of(run: Run) -> tuple[tuple[str, str], ...]:
    """What to call each file of a run, and its link, relative to the page."""
    directory = RunDirectory(run.directory)
    there = {SETTINGS: True, METRICS: directory.metrics.exists(), PREDICTIONS: _predictions(directory).exists()}
    return tuple(
        (trying.DOWNLOADS[name], f"downloads/{run.id}/{name}?key={_key(run, name)}")
        for name, is_there in there.items()
        if is_there
    )


def content_of(run: Run, name: str, key: str) -> tuple[bytes, str]:
    """A file of a run, and the name to give it.

    Raises:
        RunError: There is no such file, or the key is not its own.
    """
    directory = RunDirectory(run.directory)
    if not hmac.compare_digest(key.encode(), _key(run, name).encode()):
        raise _no_such_file()
    match name:
        case "settings.yaml":
            content = yaml.safe_dump(run.setting_values, sort_keys=False, allow_unicode=True).encode()
        case "metrics.csv" if directory.metrics.exists():
            content = curve_as_csv(directory.metrics).encode()
        case "predictions.jsonl" if _predictions(directory).exists():
            content = _predictions(directory).read_bytes()
        case _:
            raise _no_such_file()
    return content, f"{texts.file_name(run.name)}-{name}"


def curve_as_csv(metrics: Path) -> str:
    """The steps and evaluations of `metrics.jsonl`, one line each; what a line has no number for stays empty."""
    out = io.StringIO()
    writer = csv.DictWriter(out, _CURVE, lineterminator="\n", extrasaction="ignore")
    writer.writeheader()
    writer.writerows(_rows(metrics))
    return out.getvalue()


def _rows(metrics: Path) -> Iterator[dict[str, object]]:
    for line in read_lines(metrics.read_bytes()):
        if line.get("kind") == "step":
            yield line
        elif line.get("kind") == "eval":
            yield {_OF_EVALUATION.get(name, name): value for name, value in line.items()}


def _predictions(directory: RunDirectory) -> Path:
    return directory.path / PREDICTIONS


def _key(run: Run, name: str) -> str:
    return hmac.new(run.owner.encode(), f"{run.id}/{name}".encode(), hashlib.sha256).hexdigest()[:32]


def _no_such_file() -> RunError:
    return RunError("There is no such file")
