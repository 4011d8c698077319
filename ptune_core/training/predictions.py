"""What the best step answers on the validation rows, for people to look at: `predictions.jsonl` of a run or a trial.

The numbers are those of the evaluation that chose the step; nothing is computed again. Until the end they are in the
best checkpoint, and those of the base model alone in a file of their own, so a resumed run writes the same file. The
first line is a header, the others are a row each, see `runs.predictions`.

N validation rows, K of them kept, C labels.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load, save
from torch import Tensor

from ptune_core.data.example_set import Example
from ptune_core.files import atomic_write, json_line
from ptune_core.training.evaluating import rows_of
from ptune_core.training.metrics import Evaluation
from ptune_core.training.tasks import AnyTask, LabelTask, TextTask

FILE = "predictions.jsonl"
BASE_FILE = "zero_shot.safetensors"
"""The base model's answers, there from the first evaluation on."""

MOST_ROWS = 5000
MOST_NUMBERS = 1_000_000
"""Probabilities of one model in one file: with very many labels fewer rows are kept."""

MOST_CHARACTERS = 500
"""Of one column's text."""

_PREFIX = "answers."


def kept_rows(task: AnyTask) -> np.ndarray:
    """`[K]` indices of the validation rows to keep: all, or as many as there is room for, evenly spread."""
    count = len(task.validation)
    room = max(1, MOST_NUMBERS // len(task.labels)) if isinstance(task, LabelTask) else MOST_ROWS
    kept = min(count, MOST_ROWS, room)
    return np.arange(kept) * count // kept


def answers(task: AnyTask, evaluation: Evaluation) -> dict[str, Tensor]:
    """What a model answered on the rows to keep that were evaluated, as tensors; nothing for text to generate."""
    kept, chosen = kept_rows(task), rows_of(evaluation, len(task.validation))
    rows, _, places = np.intersect1d(kept, chosen, return_indices=True)
    if evaluation.probabilities is not None:
        found = {"probabilities": torch.from_numpy(evaluation.probabilities[places])}
    elif evaluation.predicted:
        found = {
            "predicted": torch.tensor(evaluation.predicted)[places],
            "confidence": torch.tensor(evaluation.confidence, dtype=torch.float32)[places],
        }
    else:
        return {}
    found["rows"] = torch.from_numpy(rows)
    return {_PREFIX + name: tensor for name, tensor in found.items()}


def keep_base_answers(directory: Path, task: AnyTask, zero_shot: Evaluation | None) -> None:
    """Remember what the base model alone answered, which a resumed run does not ask again.

    Args:
        directory: Of the run or trial.
        task: Whose validation rows.
        zero_shot: Of all rows or some; None with a new classification head: the base model has no answer then.
    """
    if zero_shot is not None and (found := answers(task, zero_shot)):
        directory.mkdir(parents=True, exist_ok=True)
        atomic_write(directory / BASE_FILE, save(found))


def write_predictions(directory: Path, task: AnyTask, tensors: Mapping[str, Tensor], state: Mapping[str, Any]) -> None:
    """Write `predictions.jsonl` of the best step.

    Args:
        directory: Of the run or trial.
        task: Whose validation rows.
        tensors: The `answers` on all rows.
        state: Its `step`, and `samples` if the task is text to generate.
    """
    base = directory / BASE_FILE
    tuned = _readable(task, tensors)
    alone = _readable(task, load(base.read_bytes())) if base.exists() else {}
    if isinstance(task, TextTask):
        tuned = {i: (str(sample["predicted"]), None) for i, sample in enumerate(state.get("samples", ()))}
    kept = list(tuned)
    compared = [row for row in kept if row in alone]
    changed = sum(_answer(tuned[row]) != _answer(alone[row]) for row in compared) if compared else None
    header = {
        "kind": "text" if isinstance(task, TextTask) else "labels" if isinstance(task, LabelTask) else "words",
        "labels": list(task.labels) if isinstance(task, LabelTask) else None,
        "columns": _inputs(task),
        "step": state["step"],
        "rows": len(task.validation),
        "kept": len(kept),
        "changed": changed,
        "compared": len(compared),
    }
    lines = _lines(task, kept, [tuned[row] for row in kept], [alone.get(row) for row in kept])
    atomic_write(directory / FILE, json_line(header) + b"".join(map(json_line, lines)))


def copy_predictions(source: Path, target: Path) -> None:
    """Make the predictions of one trial those of its run; both are directories."""
    if (source / FILE).exists():
        atomic_write(target / FILE, (source / FILE).read_bytes())


def _lines(task: AnyTask, kept: Sequence[int], tuned: Sequence[Any], base: Sequence[Any]) -> Iterator[dict[str, Any]]:
    for index, example, of_tuned, of_base in zip(kept, task.validation.read(kept), tuned, base, strict=True):
        line = {
            "row": example.row,
            "input": {column: _shortened(example.values[column]) for column in _inputs(task)},
            "gold": task.validation_gold[index] if isinstance(task, LabelTask) else _target(task, example),
        }
        if isinstance(task, LabelTask):
            yield line | {"tuned": of_tuned, "base": of_base}
        else:
            word, p = of_base or (None, None)
            yield line | {"tuned": of_tuned[0], "p": of_tuned[1], "base": word, "base_p": p}


def _readable(task: AnyTask, tensors: Mapping[str, Tensor]) -> dict[int, Any]:
    """Validation row -> answer: probabilities of all labels, or the chosen word and its probability."""
    if isinstance(task, TextTask) or _PREFIX + "rows" not in tensors:
        return {}
    rows = tensors[_PREFIX + "rows"].tolist()
    if (probabilities := tensors.get(_PREFIX + "probabilities")) is not None:
        return {row: [_short(p) for p in each] for row, each in zip(rows, probabilities.tolist(), strict=True)}
    assert not isinstance(task, LabelTask), "labels have probabilities"
    words = [task.candidates[i] for i in tensors[_PREFIX + "predicted"].tolist()]
    said = zip(words, map(_short, tensors[_PREFIX + "confidence"].tolist()), strict=True)
    return dict(zip(rows, said, strict=True))


def _answer(answer: Any) -> Any:
    """The label or the word that an answer comes to."""
    return answer[0] if isinstance(answer, tuple) else int(np.argmax(answer))


def _inputs(task: AnyTask) -> list[str]:
    return [column for column in task.validation.columns if column != task.validation.target]


def _target(task: AnyTask, example: Example) -> str:
    return _shortened(example.values[task.validation.target].strip())


def _shortened(text: str) -> str:
    return text if len(text) <= MOST_CHARACTERS else text[:MOST_CHARACTERS] + "…"


def _short(p: float) -> float:
    """Seven digits: all that a number in fp32 has."""
    return float(f"{p:.7g}")
