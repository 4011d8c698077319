"""A template as a base model would read it, before there is an adapter: its tokenizer is loaded, never its weights."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, replace

from ptune_core.data.batching import RowMaker
from ptune_core.data.columns import inputs_of
from ptune_core.errors import DataError
from ptune_core.inference.preview import MAX_CUT_SHOWN, row_pieces, token_texts
from ptune_core.inference.protocol import AnswerTokens, Look, Looked, Measure, Measured, Piece
from ptune_core.model.base_kind import BaseKind
from ptune_core.model.outline import Outline, load_outline, stamp_of
from ptune_core.model.suiting import longest_row, resolve_template, row_options
from ptune_core.prompt.template import TargetKind, Template, parse_template
from ptune_core.prompt.verbalizer import Verbalizer, answer_columns

MAX_OUTLINES = 8
"""Tokenizers kept loaded; some ten megabytes each."""


class Outlines:
    """The outlines used last; a folder whose files have changed is read again."""

    def __init__(self) -> None:
        self._outlines: OrderedDict[tuple[object, ...], Outline] = OrderedDict()

    def get(self, request: Look | Measure, target: TargetKind) -> Outline:
        """The outline of the request's base model.

        Raises:
            BaseModelError: As `load_outline`.
        """
        key = (request.base_model, request.revision, target, stamp_of(request.base_model))
        if key not in self._outlines:
            self._outlines[key] = load_outline(
                request.base_model, target=target, revision=request.revision, fetch=request.fetch
            )
        self._outlines.move_to_end(key)
        if len(self._outlines) > MAX_OUTLINES:
            self._outlines.popitem(last=False)
        return self._outlines[key]


@dataclass(frozen=True)
class _Written:
    """A template on a base model's outline: `as_read` is resolved, `verbalizer` None where the target is text."""

    outline: Outline
    as_read: Template
    verbalizer: Verbalizer | None
    rows: RowMaker

    @property
    def is_text(self) -> bool:
        """Whether the target is text that a decoder or encoder-decoder writes."""
        return self.verbalizer is None and self.as_read.target.kind is TargetKind.ANSWER

    def answer_ids(self, values: Mapping[str, str]) -> list[int]:
        """Tokens of the text to write, with what closes it; empty where the target is a label."""
        return self.rows.answers([values[self.as_read.target.column]])[0] if self.is_text else []

    def reserve(self, values: Mapping[str, str]) -> int:
        """Tokens that a row keeps free for its answer, as in training."""
        if self.outline.kind is BaseKind.ENCODER_DECODER:
            return 0
        if self.verbalizer is not None and self.verbalizer.columns:
            return max(map(len, self.rows.encode_answers(self.verbalizer.filled(values))))
        return len(self.answer_ids(values))


def look(request: Look, outlines: Outlines) -> Looked:
    """What the base model would see of one row.

    Raises:
        PTuneError: The template, its answers or the base model cannot be used, or values are missing.
    """
    written = _written(request, outlines, [request.values])
    values, rows = request.values, written.rows
    reserve = written.reserve(values)
    pieces, length, num_cut = row_pieces(rows, values, reserve=reserve)
    first_virtual = next((i for i, piece in enumerate(pieces) if piece["kind"] == "virtual"), 0)
    reused = sum(piece["kind"] != "cut" for piece in pieces[:first_virtual]) if written.outline.is_causal else 0
    return {
        "pieces": pieces + _target_pieces(written, values),
        "length": length + reserve,
        "max_length": rows.max_length,
        "num_virtual_tokens": written.as_read.num_virtual_tokens,
        "num_answer": reserve,
        "num_reused": reused,
        "num_cut": num_cut,
        "answers": _answer_tokens(written, values),
    }


def measure(request: Measure, outlines: Outlines) -> Measured:
    """How many tokens rows have, and how many are cut of them.

    Raises:
        PTuneError: As `look`.
    """
    written = _written(request, outlines, request.rows)
    reserve = [written.reserve(values) for values in request.rows]
    lengths, cut = [], []
    for row, room in zip(written.rows.rows(request.rows, reserve), reserve, strict=True):
        lengths.append(-1 if isinstance(row, DataError) else len(row.ids) + room)
        cut.append(0 if isinstance(row, DataError) else row.num_cut)
    return {"lengths": lengths, "cut": cut, "max_length": written.rows.max_length}


def _written(request: Look | Measure, outlines: Outlines, examples: list[dict[str, str]]) -> _Written:
    template = parse_template(request.template)
    _check_columns(template, request.labels or {}, examples)
    outline = outlines.get(request, template.target.kind)
    is_head = template.target.kind is TargetKind.HEAD
    labels = None if is_head else request.labels
    verbalizer = Verbalizer.from_labels(list(labels), labels) if labels else None
    as_read = resolve_template(template, outline)
    max_length = longest_row(request.max_length, outline.max_positions)
    options = row_options(template, outline.kind, verbalizer)
    return _Written(outline, as_read, verbalizer, RowMaker(outline.tokenizer, as_read, max_length, **options))


def _check_columns(template: Template, labels: Mapping[str, str], examples: list[dict[str, str]]) -> None:
    needed = (*inputs_of(template, answer_columns(labels)), template.target.column)
    missing = [name for name in needed if any(name not in values for values in examples)]
    if missing:
        raise DataError("Values for the template are missing", got=f"no {', '.join(missing)}", needed=", ".join(needed))


def _target_pieces(written: _Written, values: Mapping[str, str]) -> list[Piece]:
    """What stands after the row for its target; masks stand in the row."""
    target = written.as_read.target
    if target.kind is TargetKind.MASK:
        return []
    if written.is_text:
        shown = written.answer_ids(values)[:MAX_CUT_SHOWN]
        return [{"text": text, "kind": "target"} for text in token_texts(written.rows.tokenizer, shown)]
    label = values[target.column].strip()
    text = label
    if written.verbalizer is not None and label in written.verbalizer.answers:
        text = written.verbalizer.filled(values)[written.verbalizer.labels.index(label)]
    return [{"text": text, "kind": "target"}]


def _answer_tokens(written: _Written, values: Mapping[str, str]) -> list[AnswerTokens]:
    """The answers of the labels as tokens, and what keeps them from being told apart."""
    verbalizer, rows = written.verbalizer, written.rows
    if verbalizer is None:
        return []
    target = written.as_read.target
    is_mask = target.kind is TargetKind.MASK
    own = bool(verbalizer.columns)  # compared by all of their words, so that any may begin alike
    filled = replace(verbalizer, answers=dict(zip(verbalizer.labels, verbalizer.filled(values), strict=True)))
    ids = filled.token_ids(rows.encode_answer)
    told: dict[str, str] = {}
    for labels, problem in [] if own else filled.problems(ids, target.count if is_mask else None):
        told |= {label: problem for label in labels}
    return [
        {"label": label, "ids": found, "tokens": token_texts(rows.tokenizer, found), "problem": told.get(label, "")}
        for label, found in ids.items()
    ]
