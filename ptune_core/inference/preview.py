"""What the model sees: every token of a row as text, virtual tokens by number, and what was cut."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from ptune_core.inference.protocol import Piece, Seen
from ptune_core.model.prompted import PromptedModel
from ptune_core.prompt.template import TargetKind

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

MAX_CUT_SHOWN = 200
"""Tokens shown of each place where text was cut; a book pasted by mistake should not be sent back whole."""

_WORD_START = "▁"
"""How SentencePiece vocabularies write the space before a word, which `decode` drops."""


def preview(model: PromptedModel, values: Mapping[str, str]) -> Seen:
    """The row that `values` become, token by token.

    Args:
        model: Base model and template.
        values: Template column -> text.
    """
    pieces: list[Piece] = []
    length = 0
    for kept, cut in model.rows.pieces(values):
        pieces += [_piece(model.base.tokenizer, number) for number in kept]
        pieces += [{"text": _text(model.base.tokenizer, number), "kind": "cut"} for number in cut[:MAX_CUT_SHOWN]]
        length += len(kept)
    target = model.template.target
    if target.kind is TargetKind.ANSWER:
        pieces.append({"text": target.column, "kind": "target"})
    return {
        "pieces": pieces,
        "length": length,
        "max_length": model.max_length,
        "num_virtual_tokens": model.num_virtual_tokens,
    }


def _piece(tokenizer: PreTrainedTokenizerBase, number: int) -> Piece:
    if number < 0:
        return {"text": f"v{-number}", "kind": "virtual"}
    is_special = number in tokenizer.all_special_ids
    return {"text": _text(tokenizer, number), "kind": "special" if is_special else "text"}


def _text(tokenizer: PreTrainedTokenizerBase, token_id: int) -> str:
    """The token as text; where it is only a part of a character, its name in the vocabulary."""
    text = str(tokenizer.decode([token_id]))
    name = str(tokenizer.convert_ids_to_tokens(token_id))
    if "\ufffd" in text:
        return name
    return f" {text}" if name.startswith(_WORD_START) and not text.startswith(" ") else text
