r"""The grammar of a template: text in, segments with their places out.

    template  := part* | (role part*)+              a chat template starts with a role
    role      := ("system" | "user" | "assistant") ":"                        at the start of a line
    part      := literal | column | tokens | special | target
    column    := "{" name "~"? ("|" filter)* "}"
    tokens    := "[P" ("*" count)? (":" name)? ("=" '"' text '"')? "]"
    special   := "[SEP]" | "[CLS]" | "[BOS]" | "[EOS]"
    target    := "[ANSWER:" name "]" | "[HEAD:" name "]" | "[MASK" ("*" count)? ":" name "]"
    literal   := any other text; "{{" "}}" "\[" "\]" "\\" are a brace, bracket or backslash, "\n" is a new line

A bracket whose first word is not one of ours, such as `[words]`, is literal text.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import NoReturn

from ptune_core.errors import TemplateError
from ptune_core.prompt.segments import FILTERS, Column, Literal, Segment, Special, Target, TargetKind, VirtualTokens

USAGE = {
    "P": '[P], [P*8], [P*8:name] or [P="text"]',
    "ANSWER": "[ANSWER:column]",
    "MASK": "[MASK:column] or [MASK*3:column]",
    "HEAD": "[HEAD:column]",
    "SEP": "[SEP]",
    "CLS": "[CLS]",
    "BOS": "[BOS]",
    "EOS": "[EOS]",
}
SPECIALS = {"SEP": Special("SEP"), "CLS": Special("CLS"), "BOS": Special("BOS"), "EOS": Special("EOS")}
PARTS = {"P": "*:=", "ANSWER": ":", "HEAD": ":", "MASK": "*:"}
"""The parts each word may carry, in their order; the words not named here carry none."""

MAX_COUNT = 9999

_ESCAPES = {"\\[": "[", "\\]": "]", "\\\\": "\\", "\\n": "\n", "{{": "{", "}}": "}"}
_FIRST_WORD = re.compile(r"\[[ \t]*([A-Z]+)[ \t]*([*:=\"\]0-9]|\Z)")
_ROLE = re.compile(r"[ \t]*(system|user|assistant):")
_CHAT = re.compile(rf"\s*{_ROLE.pattern}")
_GROUP_NAME = re.compile(r"[^\W\d][\w-]*")
_VIRTUAL_TOKENS = re.compile(r"\[[ \t]*P\b")
_COLUMN_NAME = re.compile(r"[^{}\[\]|~\n]*")
_DIGITS = re.compile(r"[0-9]*")


@dataclass(frozen=True)
class Role:
    """Start of a chat block."""

    name: str


@dataclass(frozen=True)
class Token:
    """A segment or role and the part `text[start:end]` of the template that it was read from."""

    start: int
    end: int
    value: Segment | Role


def scan(text: str) -> list[Token]:
    """Split a template into tokens that cover all of `text`, in order.

    Raises:
        TemplateError: At the first place that breaks the grammar.
    """
    scanner = _Scanner(text, is_chat=_CHAT.match(text) is not None)
    return scanner.tokens()


@dataclass
class _Scanner:
    text: str
    is_chat: bool
    at: int = 0
    groups: list[VirtualTokens] = field(default_factory=list)

    def tokens(self) -> list[Token]:
        tokens: list[Token] = []
        literal, literal_start = "", 0
        while self.at < len(self.text):
            start = self.at
            found = self._next()
            if isinstance(found, str):
                literal += found
                continue
            if start > literal_start:
                tokens.append(Token(literal_start, start, Literal(literal)))
            tokens.append(Token(start, self.at, found))
            literal, literal_start = "", self.at
        if self.at > literal_start:
            tokens.append(Token(literal_start, self.at, Literal(literal)))
        return tokens

    def _next(self) -> str | Segment | Role:
        """Read one character of literal text, or one segment, or one role."""
        if self.is_chat and (self.at == 0 or self.text[self.at - 1] == "\n"):
            if role := _ROLE.match(self.text, self.at):
                self.at = role.end()
                return Role(role[1])
        char, pair = self.text[self.at], self.text[self.at : self.at + 2]
        if pair in _ESCAPES:
            self.at += 2
            return _ESCAPES[pair]
        if char == "{":
            return self._column()
        if char == "}":
            self._fail("A closing brace has no opening one", self.at, remedy="For a literal brace write }}")
        if char == "[" and (word := _FIRST_WORD.match(self.text, self.at)) and word[1] in USAGE:
            return self._bracket(word[1], word.end(1))
        self.at += 1
        return char

    def _column(self) -> Column:
        start = self.at
        self.at += 1
        name = self._name_of_column(start)
        shorten_first = self._skip("~")
        filters = []
        while self._skip("|"):
            filters.append(self._filter())
        if not self._skip("}"):
            self._unclosed(start, "}", usage="{column}, {column~} or {column|filter}", literal="{{")
        return Column(name, shorten_first, tuple(filters))

    def _name_of_column(self, start: int) -> str:
        """Read a column name; `start` is where its brace or bracket opened."""
        name_at = self.at
        name = self._read(_COLUMN_NAME).strip()
        if not name:
            self._fail("The name of the data column is missing", name_at, needed="such as {text} or [ANSWER:label]")
        if self.text[start] == "{" and _VIRTUAL_TOKENS.match(self.text, self.at):
            self._fail(
                "Virtual tokens cannot stand inside a column",
                self.at,
                remedy="Put the bracket before or after the braces",
            )
        return name

    def _filter(self) -> str:
        self._skip_spaces()
        start = self.at
        name = self._read(_COLUMN_NAME).strip()
        if name not in FILTERS:
            self._fail("There is no such filter", start, got=name or "nothing", needed=", ".join(FILTERS))
        return name

    def _bracket(self, word: str, end_of_word: int) -> Segment:
        start, self.at = self.at, end_of_word
        allowed = PARTS.get(word, "")
        count = self._count(word) if self._has_part("*", word, allowed) else None
        name: str | None = None
        if self._has_part(":", word, allowed):
            name = self._group_name() if word == "P" else self._name_of_column(start)
        init_text = self._quoted() if self._has_part("=", word, allowed) else None
        if not self._skip("]"):
            self._unclosed(start, "]", usage=USAGE[word], literal="\\[")
        if word == "P":
            return self._virtual_tokens(start, count, name, init_text)
        if word in SPECIALS:
            return SPECIALS[word]
        if name is None:
            self._fail(f"[{word}] does not say which data column it stands for", start, needed=USAGE[word])
        return Target(TargetKind(word), name, count or 1)

    def _virtual_tokens(self, start: int, count: int | None, name: str | None, init_text: str | None) -> VirtualTokens:
        """A new group, or another occurrence of the named one."""
        known = next((group for group in self.groups if name is not None and group.name == name), None)
        if known is None:
            if init_text is None and count is None:
                count = 1
            self.groups.append(VirtualTokens(len(self.groups), count, name, init_text))
            return self.groups[-1]
        if count is not None and count != known.count:
            self._fail(
                f"The group {name!r} has two different numbers of virtual tokens",
                start,
                got=f"{count} here, {known.count or 'as many as its text has'} where it is first named",
                remedy=f"Write [P:{name}] here, or another name for another group",
            )
        if init_text is not None and init_text != known.init_text:
            self._fail(
                f"The group {name!r} is initialised in two different ways",
                start,
                remedy="Give the text only where the group is first named",
            )
        return known

    def _has_part(self, sign: str, word: str, allowed: str) -> bool:
        self._skip_spaces()
        if not self.text.startswith(sign, self.at):
            return False
        if sign not in allowed:
            self._fail(f"[{word}] takes no {sign!r}", self.at, needed=USAGE[word])
        self.at += 1
        self._skip_spaces()
        return True

    def _count(self, word: str) -> int:
        start = self.at
        digits = self._read(_DIGITS)
        # The length is looked at first: int() of thousands of digits is refused by Python itself.
        if not digits or len(digits) > len(str(MAX_COUNT)) or int(digits) < 1:
            self._fail(f"The number in [{word}*…] is not usable", start, got=digits, needed=f"1 to {MAX_COUNT}")
        return int(digits)

    def _group_name(self) -> str:
        name = self._read(_GROUP_NAME)
        if not name:
            self._fail("The name of the group is missing", self.at, needed="a word, as in [P*4:task]")
        return name

    def _quoted(self) -> str:
        start = self.at
        if not self._skip('"'):
            self._fail("The text after = must stand in straight double quotes", start, needed=USAGE["P"])
        quoted = ""
        while self.at < len(self.text) and self.text[self.at] != '"':
            pair = self.text[self.at : self.at + 2]
            quoted += pair[1] if pair in ('\\"', "\\\\") else pair[0]
            self.at += 2 if pair in ('\\"', "\\\\") else 1
        if not self._skip('"'):
            self._fail("The quoted text never ends", start, needed='a closing "')
        if not quoted.strip():
            self._fail("The text to initialise from is empty", start, remedy="Write a number instead, as in [P*8]")
        return quoted

    def _read(self, pattern: re.Pattern[str]) -> str:
        """Read what `pattern` matches here; empty if it does not."""
        match = pattern.match(self.text, self.at)
        self.at = match.end() if match else self.at
        return match[0] if match else ""

    def _skip(self, sign: str) -> bool:
        self._skip_spaces()
        found = self.text.startswith(sign, self.at)
        self.at += len(sign) if found else 0
        return found

    def _skip_spaces(self) -> None:
        while self.text[self.at : self.at + 1] in (" ", "\t"):
            self.at += 1

    def _unclosed(self, start: int, closing: str, *, usage: str, literal: str) -> NoReturn:
        remedy = f"For a literal {literal[-1]} write {literal}"
        if self.at >= len(self.text) or self.text[self.at] == "\n":
            self._fail(f"{self.text[start]} is never closed", start, needed=f"a closing {closing}", remedy=remedy)
        self._fail(
            f"This does not belong between {self.text[start]} and {closing}",
            self.at,
            got=self.text[self.at],
            needed=usage,
            remedy=remedy,
        )

    def _fail(self, what: str, position: int, *, got: str = "", needed: str = "", remedy: str = "") -> NoReturn:
        raise TemplateError(what, template=self.text, position=position, got=got, needed=needed, remedy=remedy)
