"""What all imports share: the result, the account of every problem, and the way from segments to template text."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NoReturn

import yaml

from ptune_core.errors import TemplateError
from ptune_core.prompt.grammar import Role, scan
from ptune_core.prompt.segments import join_literals
from ptune_core.prompt.template import (
    Column,
    Literal,
    Segment,
    Special,
    Target,
    TargetKind,
    VirtualTokens,
    parse_template,
)

MAX_TEXT = 50_000
"""Characters of a foreign template; the longest of OpenPrompt's own has 400."""

MAX_CONFIG = 65_536
"""Characters of a YAML or JSON configuration: the parser takes a second for so many."""

MAX_SEGMENTS = 2000
"""Parts of an imported template; the settings of a run hold no longer one."""

_DEEPEST = 50
_MOST_PROBLEMS = 20
_EXCERPT = 100


@dataclass(frozen=True)
class Imported:
    """What a foreign template means here.

    Attributes:
        template: Template text in PTune's language; it parses.
        settings: Other options of a run that it decides, as `RunSettings` names them: labels, encoder, max_length.
        notes: What is not the same here as where it comes from, one sentence each.
    """

    template: str
    settings: dict[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


class Problems:
    """Every reason why a foreign text cannot be imported, each with its place.

    Args:
        text: The text that positions count in.
    """

    def __init__(self, text: str = "") -> None:
        self.text = text
        self._told: list[str] = []
        self._count = 0

    def __bool__(self) -> bool:
        return self._count > 0

    def add(self, what: str, position: int | None = None, *, got: str = "", needed: str = "", remedy: str = "") -> None:
        """Note one problem, at a position of the text if it has one."""
        self._count += 1
        if len(self._told) < _MOST_PROBLEMS:
            line, place = ("", 0) if position is None else excerpt(self.text, position)
            error = TemplateError(what, template=line, position=place, got=got, needed=needed, remedy=remedy)
            self._told.append(str(error))

    def fail(self, what: str) -> NoReturn:
        """Raise all that was found as one error; `what` begins it."""
        told = [f"{number}. {problem}" for number, problem in enumerate(self._told, start=1)]
        if self._count > len(told):
            told.append(f"And {self._count - len(told)} more.")
        raise TemplateError("\n".join([f"{what}:", *told]))


def excerpt(text: str, position: int) -> tuple[str, int]:
    """The line of `text` around a position, short enough to show, and the position in it."""
    start = max(text.rfind("\n", 0, position) + 1, position - _EXCERPT // 2)
    end = text.find("\n", position)
    end = min(len(text) if end < 0 else end, start + _EXCERPT)
    line = "".join(char if char.isprintable() else "·" for char in text[start:end])
    before, after = "…" * (start > 0 and text[start - 1] != "\n"), "…" * (end < len(text) and text[end] != "\n")
    return f"{before}{line}{after}", position - start + len(before)


def shown(value: object) -> str:
    """A foreign value for a message: its kind where it is a container, which may be endless, and never much."""
    if not isinstance(value, str | int | float | bool | None):
        return f"a {type(value).__name__}"
    text = repr(value if not isinstance(value, str) else value[:60])
    return f"{text}…" if isinstance(value, str) and len(value) > 60 else text


def finish(
    segments: Sequence[Segment], problems: Problems, settings: dict[str, Any], notes: Sequence[str], source: str
) -> Imported:
    """The import, if nothing spoke against it.

    Args:
        segments: In their order; the groups of virtual tokens numbered as they appear.
        problems: Found so far.
        settings: Of the run.
        notes: What differs here.
        source: The library's name, for messages.

    Raises:
        TemplateError: There were problems, or there is no such template here.
    """
    for segment in segments:
        if odd := next((char for char in _words_of(segment) if _is_odd(char)), None):
            problems.add(f"The template holds a control character, {odd!r}", remedy="Take it out")
    if len(segments) > MAX_SEGMENTS:
        problems.add("The template has too many parts", got=f"{len(segments):,}", needed=f"at most {MAX_SEGMENTS:,}")
    what = f"The template of {source} cannot be imported"
    if problems:
        problems.fail(what)
    text = template_text(segments)
    if any(isinstance(token.value, Role) for token in scan(text)):
        got, remedy = shown(text[:30]), "Begin it with another word"
        problems.add("A template that begins with a role is a chat here", got=got, remedy=remedy)
        problems.fail(what)
    try:
        parsed = parse_template(text)
    except TemplateError as error:
        again = Problems(error.template)
        at = error.position if error.template else None
        again.add(error.what, at, got=error.got, needed=error.needed, remedy=error.remedy)
        again.fail(f"{what}; what it means here is no template")
    dropped = _dropped_spaces(join_literals(segments), parsed.segments)
    return Imported(text, settings, (*notes, *dropped))


def template_text(segments: Sequence[Segment]) -> str:
    """Segments as template text: parsed again they are the same, but for the spaces beside brackets."""
    text, named = "", set[str]()
    for segment in segments:
        match segment:
            case Literal(text=literal):
                text += _escaped(literal)
            case Column(name=name, shorten_first=shorten_first, filters=filters):
                text += "{" + "|".join([name + "~" * shorten_first, *filters]) + "}"
            case VirtualTokens(count=count, name=name, init_text=init_text):
                again = name is not None and name in named
                named |= {name} if name is not None else set()
                amount = f"*{count}" if count not in (None, 1) and not again else ""
                quoted = "" if init_text is None or again else f'="{_quoted(init_text)}"'
                text = _apart(text) + f"[P{amount}{f':{name}' if name else ''}{quoted}]"
            case Special(kind=kind):
                text = _apart(text) + f"[{kind}]"
            case Target(kind=kind, column=column, count=masks):
                # A space before a mask is text; before the other targets it only sets the bracket apart.
                text = text if kind is TargetKind.MASK else _apart(text)
                text += f"[{kind}{f'*{masks}' if masks > 1 else ''}:{column}]"
    return text


def load_config(text: str, source: str) -> Any:
    """The value of YAML or JSON text (JSON is YAML), plain data without references.

    Raises:
        TemplateError: It is neither, too long, nested too deep, or uses references, which can make a value endless.
    """
    what = f"The configuration of {source} cannot be read"
    if len(text) > MAX_CONFIG:
        raise TemplateError(what, got=f"{len(text):,} characters", needed=f"at most {MAX_CONFIG:,}")
    try:
        return yaml.load(text, Loader=_PlainYaml)
    except yaml.YAMLError as error:
        raise TemplateError(what, got=" ".join(str(error).split())[:300], needed="YAML or JSON") from None
    except (RecursionError, ValueError, TypeError, OverflowError) as error:
        # What PyYAML's constructors raise for values such as the date 2020-13-45 and keys such as {[]: 1}.
        got = "lists in lists in lists" if isinstance(error, RecursionError) else str(error)[:300]
        raise TemplateError(what, got=got, needed="plain YAML or JSON") from None


def load_json(text: str, source: str) -> Any:
    """The value of JSON text.

    Raises:
        TemplateError: It is not JSON, or nested too deep.
    """
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        got = "lists in lists in lists" if isinstance(error, RecursionError) else str(error)[:300]
        raise TemplateError(f"{source} cannot be read", got=got, needed="JSON") from None


def is_column_name(name: str) -> bool:
    """Whether a template here can name a column so."""
    return bool(name) and name == name.strip() and not set(name) & set("{}[]|~\n")


class _PlainYaml(yaml.SafeLoader):
    """YAML without what a hostile text could use.

    A reference, or a merge of one, lets a short text stand for an endless value; and the time to read brackets within
    brackets grows with the square of their depth.
    """

    def fetch_flow_collection_start(self, TokenClass: Any) -> None:
        if self.flow_level >= _DEEPEST:
            raise yaml.scanner.ScannerError(None, None, "lists in lists in lists", self.get_mark())
        super().fetch_flow_collection_start(TokenClass)

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise yaml.composer.ComposerError(
                None, None, "references (*name) are not read", self.peek_event().start_mark
            )
        return super().compose_node(parent, index)


def _escaped(literal: str) -> str:
    return literal.replace("\\", "\\\\").replace("[", "\\[").replace("{", "{{").replace("}", "}}")


def _quoted(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"')


def _apart(text: str) -> str:
    """With a space before the bracket that follows, which parsing drops, except after another bracket."""
    return text if not text or text[-1] in " \n]" else f"{text} "


def _words_of(segment: Segment) -> str:
    match segment:
        case Literal(text=text) | VirtualTokens(init_text=str(text)):
            return text
        case Column(name=name) | Target(column=name):
            return name
    return ""


def _is_odd(char: str) -> bool:
    """Control characters and halves of surrogate pairs; what joins or directs text is part of many languages."""
    return unicodedata.category(char) in ("Cc", "Cs") and char not in "\n\t"


def _dropped_spaces(wanted: Sequence[Segment], found: Sequence[Segment]) -> list[str]:
    """What parsing dropped of the literals: spaces beside brackets and at the ends."""
    rest = list(found)
    changed = []
    for place, segment in enumerate(wanted):
        if rest and segment == rest[0]:
            rest.pop(0)
            continue
        first, kept = rest[0] if rest else None, ""
        if isinstance(first, Literal):
            kept = first.text
            rest.pop(0)
        after = wanted[place + 1] if place + 1 < len(wanted) else None
        assert isinstance(segment, Literal), "parsing changes literals alone"
        # The one space before an answer is the first character of the answer.
        if not (isinstance(after, Target) and segment.text == f"{kept} "):
            changed.append(segment.text)
    if not changed:
        return []
    places = ", ".join(shown(text[-20:] if text.endswith((" ", "\n")) else text[:20]) for text in changed[:5])
    return [f"Spaces beside virtual tokens and before the answer are no tokens here; dropped in {places}."]
