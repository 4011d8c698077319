"""Tokens as text, for people."""

from __future__ import annotations

from pathlib import Path

import pytest
from transformers import AutoTokenizer

from ptune_core.inference.preview import token_texts


@pytest.mark.parametrize(
    ("model", "text", "seen"),
    [
        ("tiny_bert", "the film was wonderful", "[CLS] the film was wonderful[SEP]"),
        ("tiny_gpt2", " the film was wonderful", " the film was wonderful"),
    ],
)
def test_side_by_side_they_read_as_the_text(model: str, text: str, seen: str, request: pytest.FixtureRequest) -> None:
    """Bug: those of a WordPiece vocabulary stood there without spaces, and with its signs in the words."""
    folder: Path = request.getfixturevalue(model)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert "".join(token_texts(tokenizer, tokenizer(text)["input_ids"])) == seen
