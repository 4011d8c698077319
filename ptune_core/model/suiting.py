"""A template, a verbalizer and a longest row as they suit one base model."""

from __future__ import annotations

from typing import Any

from ptune_core.errors import SettingsError
from ptune_core.model.base import BaseModel
from ptune_core.model.base_kind import BaseKind
from ptune_core.model.outline import Outline
from ptune_core.prompt.template import Template
from ptune_core.prompt.verbalizer import Verbalizer

DEFAULT_MAX_LENGTH = 512


def row_options(template: Template, kind: BaseKind, verbalizer: Verbalizer | None) -> dict[str, Any]:
    """How a `RowMaker` makes the rows of a template, as parsed, for a kind of base model."""
    return {
        "special_tokens": not template.messages,
        "writes_apart": kind is BaseKind.ENCODER_DECODER,
        "verbalizer": verbalizer,
    }


def resolve_template(template: Template, base: BaseModel | Outline) -> Template:
    """Give every text-initialised group its count, and turn chat messages into the model's own chat format.

    A chat that an adapter brings is already in that format and stays as it was trained: some models write today's date
    into theirs.

    Raises:
        SettingsError: A chat template is used with a base model that has none.
    """
    tokenizer = base.tokenizer
    if template.messages and template.segments == tuple(part for m in template.messages for part in m.segments):
        if tokenizer.chat_template is None:
            raise SettingsError(
                "The template has chat messages, but the base model is not a chat model",
                got=base.id,
                needed="a base model with a chat template",
                remedy="Write the template as plain text, without system:, user: and assistant:",
            )

        def render(messages: list[dict[str, str]]) -> str:
            return str(tokenizer.apply_chat_template(messages, tokenize=False))

        template = template.expand_chat(render)
    return template.resolve(lambda text: len(tokenizer(text, add_special_tokens=False)["input_ids"]))


def longest_row(wanted: int | None, max_positions: int | None) -> int:
    """Tokens of the longest row of a base model: what was `wanted`, else what fits, at most 512.

    Raises:
        SettingsError: `wanted` is more than the base model has positions.
    """
    if wanted is None:
        return min(DEFAULT_MAX_LENGTH, max_positions or DEFAULT_MAX_LENGTH)
    if max_positions is not None and wanted > max_positions:
        raise SettingsError(
            "max_length is more than the base model has positions",
            got=str(wanted),
            needed=f"at most {max_positions}",
            remedy="Lower max_length or leave it empty",
        )
    return wanted
