"""Reading `predictions.jsonl`: what the tuned model and the base model alone answer on the validation rows.

The first line is a header::

    {"kind": "labels" | "words" | "text", "labels": [...] or null, "columns": [...], "step": best step,
     "rows": validation rows, "kept": of them in this file, "changed": rows whose answer the adapter changes or null}

Each other line is a row. With labels ``{"row", "input", "gold", "tuned", "base"}``: its number in the data, template
column -> text, the index of its label, and the probabilities of all labels by both models, `base` null if the base
model has no answer. With words to choose and with text ``{"row", "input", "gold", "tuned", "p", "base", "base_p"}``:
the texts, and their probabilities where they have one.

K rows, C labels. Plain Python, for the page.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

from ptune_core.files import read_lines
from ptune_core.training.metrics import Bin, LabelScore, confusion_matrix, label_scores, reliability

_HEADER_BYTES = 1 << 20
_KEPT_FILES = 8


@dataclass(frozen=True)
class Prediction:
    """One validation row.

    Attributes:
        row: Its number in the data.
        texts: Template column -> text, long ones cut.
        gold: Its label, word or text.
        predicted: The tuned model's.
        p: The probability of that, None for text to generate.
        p_gold: The probability of the right label; None without labels.
        base: The base model's answer, None if it has none.
        base_p: The probability of that.
    """

    row: int
    texts: Mapping[str, str]
    gold: str
    predicted: str
    p: float | None
    p_gold: float | None
    base: str | None
    base_p: float | None

    @property
    def is_right(self) -> bool:
        """Whether the tuned model found it; of generated text, word for word."""
        return self.gold == self.predicted


@dataclass(frozen=True)
class Predictions:
    """What `predictions.jsonl` holds.

    Attributes:
        labels: Class names; empty if there are none.
        columns: The template's input columns.
        step: The step whose answers these are.
        num_rows: Validation rows there are, of which `rows` are kept.
        rows: In the order of the data.
    """

    labels: tuple[str, ...]
    columns: tuple[str, ...]
    step: int
    num_rows: int
    rows: tuple[Prediction, ...]

    @cached_property
    def gold(self) -> list[int]:
        """`[K]` label indices."""
        return [self._index[row.gold] for row in self.rows]

    @cached_property
    def predicted(self) -> list[int]:
        """`[K]` label indices."""
        return [self._index[row.predicted] for row in self.rows]

    @cached_property
    def confusion(self) -> list[list[int]]:
        """`[C][C]` counts: row is the label, column what was predicted."""
        return confusion_matrix(self.gold, self.predicted, len(self.labels))

    @cached_property
    def scores(self) -> list[LabelScore]:
        """`[C]`: precision, recall and F1 of each label."""
        return label_scores(self.confusion)

    @cached_property
    def reliability(self) -> list[Bin | None]:
        """Ten bins of probability, and how often the predictions in them are right."""
        return reliability(self.gold, self.predicted, [row.p or 0.0 for row in self.rows])

    @cached_property
    def _index(self) -> dict[str, int]:
        return {label: i for i, label in enumerate(self.labels)}


def read_predictions(path: Path) -> Predictions | None:
    """The predictions in a file; None if it is not there or cannot be read."""
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    return _read(path, status.st_size, status.st_mtime_ns)


def changed_answers(path: Path) -> tuple[int, int] | None:
    """On how many of how many kept rows the tuned model answers otherwise than the base model.

    None if the base model has no answer, or there is no such file. Reads no more than the header.
    """
    try:
        with path.open("rb") as file:
            header = json.loads(file.readline(_HEADER_BYTES))
        changed, kept = header["changed"], header["kept"]
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None
    return (int(changed), int(kept)) if changed is not None and kept else None


@lru_cache(maxsize=_KEPT_FILES)
def _read(path: Path, size: int, modified: int) -> Predictions | None:
    try:
        header, *lines = read_lines(path.read_bytes())
        labels = tuple(map(str, header["labels"] or ()))
        read = _with_labels if labels else _with_texts
        rows = tuple(read(line, labels) for line in lines)
        return Predictions(labels, tuple(header["columns"]), int(header["step"]), int(header["rows"]), rows)
    except (OSError, ValueError, KeyError, TypeError, IndexError):
        return None


def _with_labels(line: Mapping[str, Any], labels: tuple[str, ...]) -> Prediction:
    tuned, base = line["tuned"], line["base"]
    best = _best(tuned)
    best_of_base = None if base is None else _best(base)
    return Prediction(
        row=int(line["row"]),
        texts=line["input"],
        gold=labels[line["gold"]],
        predicted=labels[best],
        p=tuned[best],
        p_gold=tuned[line["gold"]],
        base=None if best_of_base is None else labels[best_of_base],
        base_p=None if best_of_base is None else base[best_of_base],
    )


def _with_texts(line: Mapping[str, Any], labels: tuple[str, ...]) -> Prediction:
    return Prediction(
        row=int(line["row"]),
        texts=line["input"],
        gold=str(line["gold"]),
        predicted=str(line["tuned"]),
        p=line["p"],
        p_gold=None,
        base=line["base"],
        base_p=line["base_p"],
    )


def _best(probabilities: list[float]) -> int:
    return max(range(len(probabilities)), key=probabilities.__getitem__)
