"""A chat with more than one turn, from a template that was trained on one.

Every turn goes through the template's user block as the trained one does, virtual tokens included; the system block
stands once, in front. What was said before is filled in as data: it is cut, the longest text first, where a
conversation outgrows the base model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ptune_core.errors import InferenceError
from ptune_core.inference.protocol import Generate, Turn
from ptune_core.model.prompted import PromptedModel
from ptune_core.prompt.template import Column, Message, Segment, Target, Template, VirtualTokens

LONGEST = 4096
"""Tokens of a conversation at most, if the base model has so many positions."""

_MARK = "\x1f"


def conversation(
    model: PromptedModel, template: Template, request: Generate
) -> tuple[PromptedModel, dict[str, dict[str, str]]]:
    """The model with a template for so many turns, and the values of its columns for `tuned` and for `base`.

    Args:
        model: With the adapter's template.
        template: Of the adapter, with its messages.
        request: With at least one turn in its history.

    Raises:
        InferenceError: The template is no chat.
    """
    if not template.messages:
        raise InferenceError("This adapter completes texts, it holds no conversations", remedy="Send one text alone")
    turns = request.history
    longest = max(model.max_length, min(LONGEST, model.base.max_positions or LONGEST))
    whole = with_turns(template, len(turns))
    longer = PromptedModel(model.base, whole, None, max_length=longest, texts=model.texts)
    return longer, {
        "tuned": _values(request, turns, [turn.tuned for turn in turns]),
        "base": _values(request, turns, [turn.base or "" for turn in turns]),
    }


def with_turns(template: Template, num_turns: int) -> Template:
    """A chat template with `num_turns` turns before its own, whose texts are columns.

    Args:
        template: Of an adapter: its segments say every group's count, which the text of its messages may not.
    """
    counts = {part.group: part.count for part in template.segments if isinstance(part, VirtualTokens)}
    first = next(i for i, message in enumerate(template.messages) if message.role != "system")
    system, rest = template.messages[:first], template.messages[first:]
    before = [
        Message(message.role, tuple(_as_past(segment, turn) for segment in message.segments))
        for turn in range(num_turns)
        for message in rest
    ]
    messages = tuple(
        Message(message.role, tuple(_counted(segment, counts) for segment in message.segments))
        for message in (*system, *before, *rest)
    )
    return Template(template.text, tuple(part for message in messages for part in message.segments), messages)


def _as_past(segment: Segment, turn: int) -> Segment:
    match segment:
        case Column(name=name):
            return replace(segment, name=f"{turn}{_MARK}{name}", shorten_first=True)
        case Target():
            return Column(f"{turn}{_MARK}", shorten_first=True)
        case _:
            return segment


def _counted(segment: Segment, counts: dict[int, int | None]) -> Segment:
    return replace(segment, count=counts[segment.group]) if isinstance(segment, VirtualTokens) else segment


def _values(request: Generate, turns: Sequence[Turn], answers: Sequence[str]) -> dict[str, str]:
    values = dict(request.values)
    for number, (turn, answer) in enumerate(zip(turns, answers, strict=True)):
        values |= {f"{number}{_MARK}{name}": text for name, text in turn.values.items()}
        values[f"{number}{_MARK}"] = answer
    return values
