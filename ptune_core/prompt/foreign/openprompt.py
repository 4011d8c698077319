r"""OpenPrompt's template language (thunlp/OpenPrompt 1.0.1), read without Python's `eval`, which OpenPrompt uses.

    template := (text | slot)*                   spaces in front of a part become its one prefix space
    slot     := "{" (entry ("," entry)*)? "}"
    entry    := string (":" value)?              {"mask"} is a set in Python: a key without a value
    value    := string | number | "True" | "False" | "None" | expression
    string   := '"' … '"' | "'" … "'"            with Python's escapes

An expression (a lambda) is taken as it stands, and only the few that are known by their looks mean something.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from ptune_core.prompt.foreign.common import Problems, shown

_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "\\": "\\", '"': '"', "'": "'", "\n": ""}
_WORD = re.compile(r"[A-Za-z_][A-Za-z_0-9]*")
_NUMBER = re.compile(r"[+-]?[0-9]{1,9}(?=[\s,}]|\Z)")
_SPACES = re.compile(r"\s*")
_PLAIN_TEXT = re.compile(r"[^\"'\\\n]+")
_CONSTANTS = {"True": True, "true": True, "False": False, "false": False, "None": None, "null": None}
_PAIRS = {"(": ")", "[": "]", "{": "}"}


class Expression(str):
    """Python code, never evaluated."""


Value = str | int | bool | Expression | None


@dataclass(frozen=True)
class Part:
    """Text, or a slot.

    Attributes:
        start: Where it begins in the template.
        space: Whether a space stands before it.
        entries: Key -> value; of text `{"text": …}`.
        places: Key -> where it stands in the template.
    """

    start: int
    space: bool
    entries: dict[str, Value]
    places: dict[str, int]


def read_parts(text: str, problems: Problems) -> list[Part]:
    """The parts of a template, in their order; what cannot be read becomes a problem and is left out."""
    return _Reader(text, problems).parts()


@dataclass
class _Reader:
    text: str
    problems: Problems
    at: int = 0

    def parts(self) -> list[Part]:
        parts: list[Part] = []
        while True:
            while self.text[self.at : self.at + 1] == " ":
                self.at += 1
            if self.at >= len(self.text):
                return parts
            space = self.at > 0 and self.text[self.at - 1] == " "
            part = self.slot(space) if self.text[self.at] == "{" else self.literal(space)
            if part is not None:
                parts.append(part)

    def literal(self, space: bool) -> Part:
        start, end = self.at, self.text.find("{", self.at)
        self.at = len(self.text) if end < 0 else end
        return Part(start, space, {"text": self.text[start : self.at].rstrip(" ")}, {"text": start})

    def slot(self, space: bool) -> Part | None:
        start = self.at
        self.at += 1
        entries: dict[str, Value] = {}
        places: dict[str, int] = {}
        is_whole = True
        while self.skip_spaces() and self.text[self.at] != "}":
            is_whole = self.entry(entries, places) and is_whole
        if self.at >= len(self.text):
            self.problems.add("This brace is never closed", start, needed="a closing }")
            return None
        self.at += 1
        if is_whole and not entries:
            self.problems.add("This slot is empty", start, needed='such as {"mask"}')
        return Part(start, space, entries, places) if is_whole and entries else None

    def entry(self, entries: dict[str, Value], places: dict[str, int]) -> bool:
        """Read one entry and the comma after it; whether it could be read. Goes on by at least one character."""
        start = self.at
        if self.text[start] not in "\"'":
            self.problems.add("A key in quotes is needed here", start, needed='such as {"soft"} or {"meta": "word"}')
            self.at += self.text[start] == ","
            self.expression()
            return False
        key = self.string()
        if key is None:
            return False
        value: Value = None
        if self.skip_spaces() and self.text[self.at] == ":":
            self.at += 1
            value = self.value()
        if key in entries:
            self.problems.add(f"The key {shown(key)} stands here twice", start)
        entries[key], places[key] = value, start
        if self.skip_spaces() and self.text[self.at] == ",":
            self.at += 1
        elif self.at < len(self.text) and self.text[self.at] != "}":
            self.problems.add("This does not belong here", self.at, needed="a comma or the closing }")
            self.expression()
            return False
        return True

    def value(self) -> Value:
        if not self.skip_spaces():
            return None
        start = self.at
        if self.text[start] in "\"'":
            return self.string()
        if number := _NUMBER.match(self.text, start):
            self.at = number.end()
            return int(number[0])
        word = _WORD.match(self.text, start)
        if word and word[0] in _CONSTANTS:
            self.at = word.end()
            return _CONSTANTS[word[0]]
        code = Expression(self.expression())
        if not code:
            self.problems.add("The value is missing", start)
        return code

    def string(self) -> str | None:
        """A quoted string; None, and the rest of the line skipped, if it never ends."""
        start, quote = self.at, self.text[self.at]
        pieces: list[str] = []
        self.at += 1
        while self.at < len(self.text) and self.text[self.at] not in (quote, "\n"):
            if plain := _PLAIN_TEXT.match(self.text, self.at):
                pieces.append(plain[0])
                self.at = plain.end()
            elif self.text[self.at] == "\\":
                after = self.text[self.at + 1 : self.at + 2]
                pieces.append(_ESCAPES.get(after, f"\\{after}"))
                self.at += 2
            else:  # the other quote
                pieces.append(self.text[self.at])
                self.at += 1
        if self.text[self.at : self.at + 1] != quote:
            self.problems.add("The quoted text never ends", start, needed=f"a closing {quote}")
            self.at = min(self.at, len(self.text))
            return None
        self.at += 1
        return "".join(pieces)

    def expression(self) -> str:
        """Whatever stands up to the next comma or brace that belongs to the slot; brackets and quotes in it pair."""
        start, closing = self.at, list[str]()
        while self.at < len(self.text):
            char = self.text[self.at]
            if char in "\"'":
                self.skip_string()
                continue
            if not closing and char in ",}":
                break
            if char in _PAIRS:
                closing.append(_PAIRS[char])
            elif closing and char == closing[-1]:
                closing.pop()
            self.at += 1
        return self.text[start : self.at].strip()

    def skip_string(self) -> None:
        quote = self.text[self.at]
        self.at += 1
        while self.at < len(self.text) and self.text[self.at] not in (quote, "\n"):
            self.at += 2 if self.text[self.at] == "\\" else 1
        self.at += 1

    def skip_spaces(self) -> bool:
        """Go to the next character that is no space; False if there is none."""
        match = _SPACES.match(self.text, self.at)
        self.at = match.end() if match else self.at
        return self.at < len(self.text)
