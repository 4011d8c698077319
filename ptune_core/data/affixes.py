"""What a tokenizer adds to a text: special tokens before and after it, and a space in front."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ptune_core.prompt.template import Special, Target, TargetKind, Template, VirtualTokens

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def special_affixes(tokenizer: PreTrainedTokenizerBase, template: Template) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The special tokens this tokenizer puts before and after a text, where the template has none of its own."""
    plain = tokenizer("a", add_special_tokens=False)["input_ids"]
    full = tokenizer("a")["input_ids"]
    for start in range(len(full) - len(plain) + 1):
        if full[start : start + len(plain)] == plain:
            prefix = () if _starts_special(template) else tuple(full[:start])
            suffix = () if _ends_special(template) else tuple(full[start + len(plain) :])
            return prefix, suffix
    return (), ()


def separates_texts(template: Template) -> bool:
    """Whether something stands behind a template's own separator; one written in a text begins no second text."""
    is_mask = template.target.kind is TargetKind.MASK
    rest = [segment for segment in template.segments if is_mask or not isinstance(segment, Target)]
    return any(isinstance(segment, Special) and segment.kind == "SEP" for segment in rest[:-1])


def space_is_a_token(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether the tokenizer already puts a word boundary before a text, so that a space in front would be a token."""
    spaced = tokenizer(" a", add_special_tokens=False)["input_ids"]
    return len(spaced) > len(tokenizer("a", add_special_tokens=False)["input_ids"])


def _starts_special(template: Template) -> bool:
    rest = [segment for segment in template.segments if not isinstance(segment, VirtualTokens)]
    return bool(rest) and isinstance(rest[0], Special) and rest[0].kind in ("CLS", "BOS")


def _ends_special(template: Template) -> bool:
    is_mask = template.target.kind is TargetKind.MASK
    nothing = VirtualTokens if is_mask else VirtualTokens | Target
    rest = [segment for segment in template.segments if not isinstance(segment, nothing)]
    return bool(rest) and isinstance(rest[-1], Special) and rest[-1].kind in ("SEP", "EOS")
