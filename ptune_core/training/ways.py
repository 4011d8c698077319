"""Which way suits labels: answer words, a mask or a classification head, and what the head reads. Imports no torch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ptune_core.model.facts import BaseFacts
from ptune_core.model.head_input import READS, HeadInput
from ptune_core.prompt.grammar import scan
from ptune_core.prompt.segments import Column, Special
from ptune_core.prompt.template import TargetKind, parse_template
from ptune_core.prompt.verbalizer import answer_columns
from ptune_core.training.checked import Check, Fix, Level, Rows
from ptune_core.training.settings import RunSettings

FEW_ROWS, FEW_VIRTUAL_TOKENS, VIRTUAL_TOKENS = 100, 4, 20
"""Below so many rows the paper's best were 2 to 4 virtual tokens."""

MANY_LABELS = 20
"""From so many on, words that a base model tells apart are hard to find."""

CLEARLY = 0.02
"""How much better another way must be for it to be advised."""

_WORDS = {TargetKind.ANSWER: "answer words", TargetKind.MASK: "words in the mask"}


def head_template(template: str, count: int = VIRTUAL_TOKENS) -> str:
    """A template with the same columns for a classification head: ``[P*20] {text~} [HEAD:label]``.

    What stands between the columns helps a base model to go on with words; a head has no need of it. A `[SEP]` between
    two columns stays.

    Args:
        template: Any that can be read.
        count: Virtual tokens.
    """
    column = parse_template(template).target.column
    kept: list[str] = []
    for token in scan(template):
        piece = template[token.start : token.end]
        is_separator = isinstance(token.value, Special) and token.value.kind == "SEP" and bool(kept)
        if is_separator or (isinstance(token.value, Column) and piece not in kept):
            kept.append(piece)
    while kept and not kept[-1].startswith("{"):
        kept.pop()
    return f"[P*{count}] {' '.join(kept)} [HEAD:{column}]"


def head_instead(settings: RunSettings, num_rows: int) -> dict[str, Any]:
    """Settings that have a classification head in place of words; empty where they cannot.

    Args:
        settings: Of a run whose base model can have a head.
        num_rows: Rows there are.
    """
    is_of_words = settings.parsed_template.target.kind is not TargetKind.HEAD
    varies = {"template", "head_input"} & set(settings.sweep)
    if not is_of_words or varies or settings.candidates or settings.labels == {}:
        return {}
    if answer_columns(settings.labels or {}):  # each row brings its own words
        return {}
    count = VIRTUAL_TOKENS if num_rows >= FEW_ROWS else FEW_VIRTUAL_TOKENS
    return {"template": head_template(settings.template, count)}


def way_checks(settings: RunSettings, rows: Rows, base: BaseFacts, ways: Mapping[str, Any]) -> Iterator[Check]:
    """Whether another way suits these labels and this base model better.

    Args:
        settings: Of the run.
        rows: What the data give.
        base: What is known of the base model; of one that cannot have a head nothing is said.
        ways: As `measure_ways` found.
    """
    kind = settings.parsed_template.target.kind
    if TargetKind.HEAD not in base.targets or len(rows.labels) < 2:
        return
    head, words = ways.get("head"), ways.get(str(kind).lower())
    if kind is TargetKind.HEAD:
        if head:
            yield Check("way", Level.GOOD, f"{_head(head)}.")
        return
    changes = head_instead(settings, rows.training + rows.validation)
    if not changes:
        return
    fix = Fix("Use a classification head", changes)
    if head and words:
        numbers = f"{_head(head)}, {_WORDS[kind]} at {words['accuracy']:.2f} (on {words['rows']:,} rows)."
        better = head["accuracy"] > words["accuracy"] + CLEARLY
        yield Check("way", Level.NOTE if better else Level.GOOD, numbers, fix if better else None)
    elif not ways and len(rows.labels) >= MANY_LABELS:
        text = (
            f"For {len(rows.labels)} labels a classification head is mostly better than {_WORDS[kind]}. Measuring says."
        )
        yield Check("way", Level.NOTE, text, fix)


def told(ways: Mapping[str, Any]) -> str:
    """What was measured, in a sentence for a terminal; empty if nothing was."""
    parts = [_head(ways["head"])] if "head" in ways else []
    for kind, name in _WORDS.items():
        if found := ways.get(str(kind).lower()):
            parts.append(f"{name} start at {found['accuracy']:.2f} (on {found['rows']:,} rows)")
    return "; ".join(parts)


def _head(head: Mapping[str, Any]) -> str:
    reads = READS[HeadInput(head["reads"])]
    number, rows = f"{head['accuracy']:.2f}", f"{head['rows']:,}"
    return f"A classification head that reads {reads} starts at {number} here (measured on {rows} rows)"
