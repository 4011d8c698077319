r"""Template: where virtual tokens, anchors, columns and the target stand.

`{…}` is filled from the data, `[…]` belongs to the model, all else is literal text. This is what lets virtual tokens
stand anywhere and in several groups, as in the P-tuning paper (arXiv 2103.10385, section 2); PEFT only puts them in
front. `grammar.py` reads the text; the rules about the whole are here. No torch.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import NoReturn

from ptune_core.errors import BaseModelError, SettingsError, TemplateError
from ptune_core.prompt.grammar import MAX_COUNT, Role, Token, scan
from ptune_core.prompt.segments import (
    FILTERS,
    Column,
    Literal,
    Message,
    Segment,
    Special,
    Target,
    TargetKind,
    VirtualTokens,
    is_front,
    join_literals,
    tidy_spaces,
)

__all__ = [
    "FILTERS",
    "Column",
    "Literal",
    "Message",
    "Segment",
    "Special",
    "Target",
    "TargetKind",
    "Template",
    "VirtualTokens",
    "parse_template",
    "with_num_virtual_tokens",
]

FEW_EXAMPLES = 100
MANY_VIRTUAL_TOKENS = 8
"""Paper, Table 7 (CB, 32 examples): 2 and 4 virtual tokens do best, 8 worst; cutting a phrase costs 1 to 3 points."""

_EXAMPLE = "{text~} [P*8][ANSWER:label]"


@dataclass(frozen=True)
class Template:
    """A checked template.

    Attributes:
        text: The template as written.
        segments: Its parts in order; those of all messages for a chat template.
        messages: The blocks of a chat template; empty for a plain one.
    """

    text: str
    segments: tuple[Segment, ...]
    messages: tuple[Message, ...] = ()

    @property
    def target(self) -> Target:
        """The one target."""
        return next(segment for segment in self.segments if isinstance(segment, Target))

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the input columns, each once, in order; the target's column is not among them."""
        return tuple(dict.fromkeys(segment.name for segment in self.segments if isinstance(segment, Column)))

    @property
    def groups(self) -> tuple[VirtualTokens, ...]:
        """Every group of virtual tokens once, by its index."""
        occurrences = [segment for segment in self.segments if isinstance(segment, VirtualTokens)]
        return tuple(sorted(set(occurrences), key=lambda group: group.group))

    @property
    def num_virtual_tokens(self) -> int:
        """Trainable vectors P: the groups' counts, each group once; a group that awaits `resolve` counts as 0."""
        return sum(group.count or 0 for group in self.groups)

    @property
    def is_front(self) -> bool:
        """Whether the only virtual tokens stand before everything else, as in PEFT."""
        return not self.messages and is_front(self.segments)

    def without_virtual_tokens(self) -> tuple[Segment, ...]:
        """The segments of the zero-shot baseline: the same template, told to the base model alone."""
        kept: list[Segment] = [segment for segment in self.segments if not isinstance(segment, VirtualTokens)]
        if isinstance(self.segments[0], VirtualTokens) and isinstance(kept[0], Literal):
            kept[0] = Literal(kept[0].text.lstrip())
        return join_literals(kept)

    def resolve(self, count_tokens: Callable[[str], int]) -> Template:
        """Give every group that is initialised from text, without a count, the number of that text's tokens.

        Args:
            count_tokens: Tokens of a text, without special tokens.

        Raises:
            TemplateError: A text has no tokens at all, or more than `MAX_COUNT`.
        """
        counts: dict[int, int] = {}
        for group in self.groups:
            if group.count is None and group.init_text is not None:
                counts[group.group] = count_tokens(group.init_text)
                if not 1 <= counts[group.group] <= MAX_COUNT:
                    raise TemplateError(
                        "The text to initialise virtual tokens from does not have a usable number of tokens",
                        template=self.text,
                        position=_occurrences(self.text, group.group)[0].start,
                        got=f"{counts[group.group]} tokens",
                        needed=f"1 to {MAX_COUNT}",
                    )

        def resolved(segments: Sequence[Segment]) -> tuple[Segment, ...]:
            return tuple(
                replace(segment, count=counts.get(segment.group, segment.count))
                if isinstance(segment, VirtualTokens)
                else segment
                for segment in segments
            )

        text = self.text
        for group_index, count in counts.items():
            text = _write_count(text, group_index, count)
        messages = tuple(replace(message, segments=resolved(message.segments)) for message in self.messages)
        return Template(text, resolved(self.segments), messages)

    def expand_chat(self, apply_chat_template: Callable[[list[dict[str, str]]], str]) -> Template:
        """A chat template as a plain one: what the base model's chat template writes around the parts becomes literal.

        Every part that is not literal goes through the chat template as a private sentinel, and so does the target,
        which is the whole last message; whatever is written after it is dropped. The result's `text` stays the one
        that was written. A plain template is returned as it is.

        Args:
            apply_chat_template: Renders messages (`role`, `content`) to text, without a generation prompt. Its output
                holds the special tokens as text: tokenise the literals without adding special tokens.

        Raises:
            BaseModelError: The chat template loses, repeats or reorders a part.
        """
        if not self.messages:
            return self
        mark = next(char for char in map(chr, range(0xE000, 0xF8FF)) if char not in self.text)
        slots: list[Segment] = []

        def content(message: Message) -> str:
            written = ""
            for segment in message.segments:
                if isinstance(segment, Literal):
                    written += segment.text
                else:
                    written += f"{mark}{len(slots)}{mark}"
                    slots.append(segment)
            return written

        rendered = apply_chat_template([{"role": m.role, "content": content(m)} for m in self.messages])
        pieces = rendered.split(mark)
        if pieces[1::2] != [str(index) for index in range(len(slots))]:
            raise BaseModelError(
                "The chat template of the base model does not keep every part of the template once and in order",
                got=" ".join(rendered.replace(mark, "|").split()),
                remedy="Write a plain template, without roles, or choose another base model",
            )
        segments: list[Segment] = []
        for literal, slot in zip(pieces[0::2], slots, strict=False):
            segments += [Literal(literal), slot]
        return Template(self.text, tidy_spaces(join_literals(segments)))

    def warnings(self, num_examples: int | None) -> tuple[str, ...]:
        """What may be a mistake, one sentence each.

        Args:
            num_examples: Training examples, where known.
        """
        found = []
        for index in range(1, len(self.segments) - 1):
            before, here, after = self.segments[index - 1 : index + 2]
            if isinstance(here, VirtualTokens) and isinstance(before, Literal) and isinstance(after, Literal):
                if _is_one_phrase(before.text, after.text):
                    left, right = before.text.split()[-1], after.text.split()[0]
                    found.append(
                        f"Virtual tokens cut the phrase '{left} | {right}' in two; put them between phrases "
                        "(the paper lost 1 to 3 points this way)."
                    )
        if num_examples is not None and num_examples < FEW_EXAMPLES and self.num_virtual_tokens > MANY_VIRTUAL_TOKENS:
            found.append(
                f"{self.num_virtual_tokens} virtual tokens are many for {num_examples} examples; with fewer than "
                f"{FEW_EXAMPLES}, 2 to 4 often do better."
            )
        return tuple(found)


def parse_template(text: str) -> Template:
    """Read and check a template.

    Raises:
        TemplateError: The text breaks the grammar or a rule; `position` is the place.
    """
    text = text.replace("\r\n", "\n")
    if not text.strip():
        raise TemplateError("The template is empty", needed=f"text such as {_EXAMPLE}")
    tokens = scan(text)
    _check_target(text, tokens)
    _check_columns(text, tokens)
    if not any(isinstance(token.value, VirtualTokens) for token in tokens):
        place, remedy = _near_miss(text, "p")
        _fail(
            "The template has no virtual tokens, so there is nothing to train", text, place,
            needed=f"at least one, as in {_EXAMPLE}", remedy=remedy,
        )  # fmt: skip
    if any(isinstance(token.value, Role) for token in tokens):
        messages = _messages(text, tokens)
        return Template(text, tuple(segment for message in messages for segment in message.segments), messages)
    return Template(text, _segments(tokens))


def with_num_virtual_tokens(text: str, count: int) -> str:
    """The template with another number of virtual tokens in its only group.

    Raises:
        TemplateError: The text breaks the grammar, or has more than one group.
        SettingsError: `count` is out of range.
    """
    template = parse_template(text)
    if not 1 <= count <= MAX_COUNT:
        raise SettingsError("The number of virtual tokens is out of range", got=str(count), needed=f"1 to {MAX_COUNT}")
    if len(template.groups) > 1:
        _fail(
            "The template has more than one group of virtual tokens", template.text,
            _occurrences(template.text, 1)[0].start, got=f"{len(template.groups)} groups",
            remedy="Write the numbers into the template itself",
        )  # fmt: skip
    return _write_count(template.text, 0, count)


def _occurrences(text: str, group: int) -> list[Token]:
    return [t for t in scan(text) if isinstance(t.value, VirtualTokens) and t.value.group == group]


def _write_count(text: str, group: int, count: int) -> str:
    """Write `count` where the group is first named, and let the other places refer to it."""
    first, *others = _occurrences(text, group)
    assert isinstance(first.value, VirtualTokens)
    name = f":{first.value.name}" if first.value.name else ""
    init_text = first.value.init_text
    quoted = "" if init_text is None else '="' + init_text.replace("\\", "\\\\").replace('"', '\\"') + '"'
    for token in reversed(others):
        text = f"{text[: token.start]}[P{name}]{text[token.end :]}"
    return f"{text[: first.start]}[P*{count}{name}{quoted}]{text[first.end :]}"


def _check_target(text: str, tokens: Sequence[Token]) -> None:
    targets = [(index, token) for index, token in enumerate(tokens) if isinstance(token.value, Target)]
    if not targets:
        place, remedy = _near_miss(text, "answer|mask|head")
        _fail(
            "The template has no target", text, place,
            needed="one of [ANSWER:column] (words), [MASK:column] (words of a masked model), [HEAD:column] (a label)",
            remedy=remedy,
        )  # fmt: skip
    if len(targets) > 1:
        _fail("The template has more than one target", text, targets[1][1].start, needed="exactly one")
    index, token = targets[0]
    assert isinstance(token.value, Target)
    kind = token.value.kind
    if kind is TargetKind.MASK:
        return
    for later in tokens[index + 1 :]:
        if isinstance(later.value, VirtualTokens) and kind is TargetKind.ANSWER:
            _fail(
                "Virtual tokens after [ANSWER] have no effect: a causal model never sees them", text, later.start,
                remedy="Move them before [ANSWER]",
            )  # fmt: skip
        if not (isinstance(later.value, Literal) and not later.value.text.strip()):
            _fail(f"[{kind}] must come last", text, later.start, remedy=f"Move what follows before [{kind}]")


def _check_columns(text: str, tokens: Sequence[Token]) -> None:
    answer = next(token.value.column for token in tokens if isinstance(token.value, Target))
    shortened = ""
    for token in tokens:
        if not isinstance(token.value, Column):
            continue
        if token.value.name == answer:
            _fail(
                "The target's column is also shown to the model, which would only copy it", text, token.start,
                got=f"{{{answer}}} and the target {answer!r}", remedy="Take the column out of the text",
            )  # fmt: skip
        if token.value.shorten_first:
            if shortened not in ("", token.value.name):
                _fail("Only one column can be shortened first", text, token.start, got=f"{shortened} and this one")
            shortened = token.value.name


def _messages(text: str, tokens: Sequence[Token]) -> tuple[Message, ...]:
    """The blocks of a chat template: a system block at most first, then user and assistant in turn, the target last."""
    starts = [index for index, token in enumerate(tokens) if isinstance(token.value, Role)]
    messages: list[Message] = []
    expected: tuple[str, ...] = ("system", "user")
    for start, end in zip(starts, [*starts[1:], len(tokens)], strict=True):
        role = tokens[start].value
        assert isinstance(role, Role)
        place = tokens[start].start
        if role.name not in expected:
            _fail("This block is out of turn", text, place, got=f"{role.name}:", needed=" or ".join(expected))
        expected = ("assistant",) if role.name == "user" else ("user",)
        segments = _segments(tokens[start + 1 : end], strip=True)
        if not segments:
            _fail(f"The {role.name} block is empty", text, place, remedy="Fill it or leave it out")
        messages.append(Message(role.name, segments))
    last = messages[-1]
    answer = last.segments[0]
    if last.role != "assistant" or not isinstance(answer, Target):
        _fail(
            "A chat template must end with an assistant block that holds nothing but the target", text,
            tokens[starts[-1]].start, needed="assistant: [ANSWER:column]",
        )  # fmt: skip
    if answer.kind is not TargetKind.ANSWER:
        _fail("The target of a chat template must be words", text, tokens[starts[-1]].start, needed="[ANSWER:column]")
    return tuple(messages)


def _segments(tokens: Sequence[Token], strip: bool = False) -> tuple[Segment, ...]:
    segments: list[Segment] = [token.value for token in tokens if not isinstance(token.value, Role)]
    if strip and segments and isinstance(segments[0], Literal):
        segments[0] = Literal(segments[0].text.lstrip())
    return tidy_spaces(join_literals(segments))


def _is_one_phrase(before: str, after: str) -> bool:
    """Whether two literals read on: the first does not end a phrase and the second does not begin one."""
    before, after = before.rstrip(), after.lstrip()
    return bool(before and after) and before[-1].isalnum() and after[0].isalnum() and not after[0].isupper()


def _near_miss(text: str, words: str) -> tuple[int, str]:
    """Where a bracket holds one of `words` in lower case, and so is text, and what to say; else the end of `text`."""
    for match in re.finditer(rf"\[[ \t]*({words})\b[^\]\n]*\]?", text, re.IGNORECASE):
        if not match[1].isupper():
            return match.start(), f"{match[0]} is read as text: write {match[1].upper()} in capital letters"
    return len(text), ""


def _fail(what: str, text: str, position: int, *, got: str = "", needed: str = "", remedy: str = "") -> NoReturn:
    raise TemplateError(what, template=text, position=position, got=got, needed=needed, remedy=remedy)
