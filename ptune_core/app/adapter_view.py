"""What the page shows of one adapter, whoever made it, in plain Python. No gradio, no torch."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import islice
from pathlib import Path
from typing import Any

from ptune_core.adapters.names import CARD_FILE, SIDECAR_FILE, SNIPPET_FILE
from ptune_core.app import texts
from ptune_core.app.data_report import varied_rows
from ptune_core.app.texts import trying
from ptune_core.data.columns import inputs_of
from ptune_core.model.device import BaseWeights
from ptune_core.prompt.template import TargetKind, parse_template
from ptune_core.prompt.verbalizer import answer_columns
from ptune_core.runs.predictions import changed_answers

MOST_EXAMPLES = 4
_MOST_READ = 200
_MOST_LINE = 1 << 20


class Origin(StrEnum):
    """Where an adapter comes from."""

    RUN = "run"
    NEWEST = "newest"
    IMPORTED = "imported"


@dataclass(frozen=True)
class AdapterView:
    """One adapter as Try and Export show it.

    Attributes:
        about: What it does, in one line.
        proof: What it changes on the rows set aside for validation; empty if that is not known.
        columns: What is to be filled in.
        labels: Class names; empty if it writes text.
        is_head: Whether a classification head chooses, so that the base model alone has no answer.
        is_chat: Whether it answers in a conversation.
        examples: Some rows to try, template column -> text.
        num_virtual_tokens: P.
        card: The model card, Markdown with the Hub's front matter.
        snippet: Code that uses it.
        files: Name and bytes of everything in its zip.
        zip_bytes: Of the zip; 0 without one.
        downloads: What to call further files of its run, and their links.
    """

    id: str
    name: str
    origin: Origin
    about: str
    proof: str
    columns: tuple[str, ...]
    labels: tuple[str, ...]
    is_head: bool
    is_chat: bool
    examples: tuple[dict[str, str], ...]
    base_weights: BaseWeights
    base_model: str
    template: str
    answers: dict[str, str]
    num_virtual_tokens: int
    card: str
    snippet: str
    files: tuple[tuple[str, int], ...]
    zip_bytes: int
    downloads: tuple[tuple[str, str], ...] = ()


def view_of_adapter(
    id: str,
    name: str,
    origin: Origin,
    folder: Path,
    *,
    predictions: Path | None = None,
    rows: Sequence[Mapping[str, str]] = (),
) -> AdapterView:
    """An adapter from its folder, which PTune wrote.

    Args:
        predictions: The run's answers on its validation rows, if they were kept.
        rows: The data's first rows, for an adapter without predictions.
    """
    sidecar = json.loads((folder / SIDECAR_FILE).read_bytes())
    zip_file = folder.with_suffix(".zip")  # an adapter's zip lies beside its folder
    template = parse_template(sidecar["template"])
    columns = inputs_of(template, answer_columns(sidecar["verbalizer"] or {}))
    is_tuned = sidecar.get("tuned_from") is not None
    base_model = sidecar["tuned_from"]["base_model"] if is_tuned else sidecar["base_model"]
    count = sum(part["count"] for part in _groups(sidecar["segments"]).values())
    labels = tuple(sidecar["labels"])
    kept = _read_predictions(predictions)
    target = template.target
    examples = _examples(columns, kept, "gold") or _from_data(columns, rows, sidecar["columns"], target.column)
    return AdapterView(
        id=id,
        name=name,
        origin=origin,
        about=trying.about_adapter(labels, bool(template.messages), base_model, count, _step(origin, sidecar)),
        proof=_proof(predictions),
        columns=columns,
        labels=labels,
        is_head=target.kind is TargetKind.HEAD,
        is_chat=bool(template.messages),
        examples=examples,
        base_weights=BaseWeights.TUNED if is_tuned else BaseWeights.FROZEN,
        base_model=base_model,
        template=sidecar["template"],
        answers=dict(sidecar["verbalizer"] or dict.fromkeys(labels, "")),
        num_virtual_tokens=count,
        card=_text(folder / CARD_FILE),
        snippet=_text(folder / SNIPPET_FILE),
        files=tuple(
            (path.relative_to(folder).as_posix(), path.stat().st_size)
            for path in sorted(folder.rglob("*"))
            if path.is_file()
        ),
        zip_bytes=zip_file.stat().st_size if zip_file.is_file() else 0,
    )


def without_front_matter(card: str) -> str:
    """A model card as people read it, without what only the Hub reads."""
    if card.startswith("---\n") and (end := card.find("\n---\n", 4)) > 0:
        return card[end + 5 :].lstrip("\n")
    return card


def _proof(predictions: Path | None) -> str:
    found = None if predictions is None else changed_answers(predictions)
    return "" if found is None else texts.changed(*found)


def _step(origin: Origin, sidecar: Mapping[str, Any]) -> int | None:
    step = sidecar["metrics"].get("steps")
    return step if origin is Origin.NEWEST and isinstance(step, int) else None


def _groups(segments: Sequence[Mapping[str, Any]]) -> dict[int, Mapping[str, Any]]:
    return {part["group"]: part for part in segments if part["kind"] == "virtual_tokens"}


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8") if path.is_file() else ""


def _read_predictions(path: Path | None) -> list[dict[str, Any]]:
    """The first rows of a run's `predictions.jsonl`; none where it is missing or of another kind."""
    if path is None or not path.is_file():
        return []
    with path.open("rb") as file:
        lines = list(islice(iter(lambda: file.readline(_MOST_LINE), b""), 1 + _MOST_READ))
    try:
        rows = [json.loads(line) for line in lines[1:]]
    except ValueError:
        return []
    return [row for row in rows if isinstance(row, dict) and isinstance(row.get("input"), dict)]


def _examples(columns: Sequence[str], kept: Sequence[Mapping[str, Any]], label: str) -> tuple[dict[str, str], ...]:
    """Validation rows, of every label the first."""
    rows = [{**row["input"], "\x1f": str(row.get(label))} for row in kept if set(columns) <= row["input"].keys()]
    chosen = varied_rows(rows, "\x1f", MOST_EXAMPLES)
    return tuple({name: str(row[name]) for name in columns} for row in chosen)


def _from_data(
    columns: Sequence[str], rows: Sequence[Mapping[str, str]], filled_from: Mapping[str, str], target: str
) -> tuple[dict[str, str], ...]:
    chosen = varied_rows(rows, filled_from.get(target, target), MOST_EXAMPLES)
    return tuple({name: row.get(filled_from.get(name, name), "") for name in columns} for row in chosen)
