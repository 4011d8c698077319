"""What the model sees: every token of a row as text, virtual tokens by number, and what was cut."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from ptune_core.data.batching import RowMaker
from ptune_core.inference.protocol import Piece, Seen
from ptune_core.model.prompted import PromptedModel
from ptune_core.prompt.template import TargetKind

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

MAX_CUT_SHOWN = 200
"""Tokens shown of each place where text was cut; a book pasted by mistake should not be sent back whole."""

_WORD_START = "▁"
"""How SentencePiece vocabularies write the space before a word, which `decode` drops."""

_WORD_GOES_ON = "##"
"""How WordPiece vocabularies write that there is none."""

_WITHOUT_SPACES = "\u2e80"
"""Where the scripts begin that have no spaces between words."""


def preview(model: PromptedModel, values: Mapping[str, str]) -> Seen:
    """The row that `values` become, token by token.

    Args:
        model: Base model and template.
        values: Template column -> text.
    """
    pieces, length, _ = row_pieces(model.rows, values)
    target = model.template.target
    if target.kind is TargetKind.ANSWER:
        pieces.append({"text": target.column, "kind": "target"})
    return {
        "pieces": pieces,
        "length": length,
        "max_length": model.max_length,
        "num_virtual_tokens": model.num_virtual_tokens,
    }


def row_pieces(rows: RowMaker, values: Mapping[str, str], *, reserve: int = 0) -> tuple[list[Piece], int, int]:
    """The tokens of a row and what is cut of it, how many tokens it has, and how many were cut.

    Args:
        rows: Makes rows of the template.
        values: Column -> text.
        reserve: Tokens to keep free for an answer.

    Raises:
        DataError: The answer alone leaves no room.
    """
    pieces: list[Piece] = []
    length = num_cut = 0
    for kept, cut in rows.pieces(values, reserve=reserve):
        pieces += [_piece(rows, number) for number in kept]
        pieces += [{"text": token_text(rows.tokenizer, number), "kind": "cut"} for number in cut[:MAX_CUT_SHOWN]]
        length += len(kept)
        num_cut += len(cut)
    return pieces, length, num_cut


def token_texts(tokenizer: PreTrainedTokenizerBase, token_ids: Sequence[int]) -> list[str]:
    """Tokens as text."""
    return [token_text(tokenizer, token_id) for token_id in token_ids]


def token_text(tokenizer: PreTrainedTokenizerBase, token_id: int) -> str:
    """A token as text; where it is only a part of a character, its name in the vocabulary."""
    text = str(tokenizer.decode([token_id]))
    name = str(tokenizer.convert_ids_to_tokens(token_id))
    if "\ufffd" in text:
        return name
    if _is_wordpiece(tokenizer) and token_id not in tokenizer.all_special_ids:
        if name.startswith(_WORD_GOES_ON):
            return name.removeprefix(_WORD_GOES_ON)
        return f" {text}" if text[:1].isalnum() and text < _WITHOUT_SPACES else text
    return f" {text}" if name.startswith(_WORD_START) and not text.startswith(" ") else text


def _is_wordpiece(tokenizer: PreTrainedTokenizerBase) -> bool:
    backend = getattr(tokenizer, "backend_tokenizer", None)
    return type(getattr(backend, "model", None)).__name__ == "WordPiece"


def _piece(rows: RowMaker, number: int) -> Piece:
    if number < 0:
        return {"text": f"P{-number}", "kind": "virtual"}
    text = token_text(rows.tokenizer, number)
    if number == rows.mask_id:
        return {"text": text, "kind": "target"}
    return {"text": text, "kind": "special" if number in rows.tokenizer.all_special_ids else "text"}
