"""What OpenPrompt's templates mean here: ManualTemplate, MixedTemplate, PtuningTemplate, and what SoftTemplate and
PrefixTuningTemplate say beside their vectors."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from ptune_core.prompt.foreign.common import MAX_TEXT, Imported, Problems, finish, is_column_name, shown
from ptune_core.prompt.foreign.openprompt import Expression, Part, read_parts
from ptune_core.prompt.grammar import MAX_COUNT
from ptune_core.prompt.segments import SENTENCE_PUNCTUATION
from ptune_core.prompt.template import Column, Literal, Segment, Special, Target, TargetKind, VirtualTokens

SOURCE = "OpenPrompt"
SPECIALS = {"<sep>": Special("SEP"), "<cls>": Special("CLS"), "<bos>": Special("BOS"), "<eos>": Special("EOS")}
MAX_SAME = 512
"""Places of one shared vector: a template of ours writes each of them."""

_WHAT = ("placeholder", "meta", "soft", "soft_id", "mask", "special", "text")
_BESIDE = {
    "placeholder": {"shortenable", "post_processing", "add_prefix_space"},
    "meta": {"shortenable", "post_processing", "add_prefix_space"},
    "soft": {"soft_id", "duplicate", "same", "add_prefix_space"},
    "soft_id": {"duplicate", "same", "add_prefix_space"},
    "mask": {"add_prefix_space"},
    "special": {"add_prefix_space"},
    "text": {"shortenable", "add_prefix_space"},
}
_FILTERS_OF_METHODS = {"strip()": "strip", "lower()": "lower"}
_LAMBDA = re.compile(r"lambda\s+([A-Za-z_]\w*)\s*:(.*)", re.DOTALL)
_CODE = re.compile(r"""\s*(?:([A-Za-z_]\w*)|("[^"\\\n]*"|'[^'\\\n]*')|([^\s\w"']|\d+))""")
_STRIPS = re.compile(r"""r?strip\((?:string\.punctuation|"([^"]*)")\)""")
_MAX_CODE = 200


@dataclass(frozen=True)
class Asked:
    """What an OpenPrompt template does not say itself.

    Attributes:
        kind: MASK for masked models; ANSWER for decoders, which OpenPrompt also asks at the mask.
        column: Data column of the target.
        front: Virtual tokens before everything, as SoftTemplate has them.
    """

    kind: TargetKind = TargetKind.MASK
    column: str = "label"
    front: int = 0


def import_openprompt(
    text: str, asked: Asked, settings: dict[str, Any] | None = None, notes: Sequence[str] = ()
) -> Imported:
    """Translate a template text of OpenPrompt.

    Args:
        text: As it stands in a template file's line or in `text=`.
        asked: What it leaves open.
        settings: Of the run, known from elsewhere, such as labels.
        notes: What is known from elsewhere to differ.

    Raises:
        TemplateError: With every problem and its place.
    """
    text = text.replace("\r\n", "\n")
    problems = Problems(text)
    if len(text) > MAX_TEXT:
        problems.add("The template is too long", got=f"{len(text):,} characters", needed=f"at most {MAX_TEXT:,}")
        problems.fail(f"The template of {SOURCE} cannot be imported")
    if not is_column_name(asked.column):
        problems.add("The target's column cannot be named so here", got=shown(asked.column))
    parts = read_parts(text, problems)
    reading = _Reading(asked, problems, list(notes))
    for part in parts:
        reading.take(part)
    reading.close(len(text))
    return finish(reading.segments, problems, settings or {}, reading.notes, SOURCE)


@dataclass
class _Reading:
    """The parts read so far, as segments."""

    asked: Asked
    problems: Problems
    notes: list[str]
    segments: list[Segment] = field(default_factory=list)
    groups: int = 0
    shared: dict[int, list[VirtualTokens]] = field(default_factory=dict)
    columns: list[tuple[int, bool]] = field(default_factory=list)
    has_mask: bool = False
    after_answer: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        if self.asked.front:
            self.segments.append(self.group(self.asked.front))

    def take(self, part: Part) -> None:
        """Add one part."""
        what = next((key for key in _WHAT if key in part.entries), None)
        if what is None:
            self.problems.add(
                "This slot says nothing that is known", part.start, got=", ".join(map(shown, part.entries)),
                needed=", ".join(_WHAT),
            )  # fmt: skip
            return
        for key in part.entries.keys() - {what} - _BESIDE[what]:
            self.problems.add(f"{shown(key)} does not belong beside {what!r}", part.places[key])
        self.check_values(part, what)
        if self.has_mask and self.asked.kind is TargetKind.ANSWER and what != "mask":
            self.after(part, what)
            return
        space = part.entries.get("add_prefix_space", " " if part.space else "")
        prefix = Literal(space if isinstance(space, str) else "")
        match what:
            case "placeholder" | "meta":
                self.column(part, what, prefix)
            case "soft" | "soft_id":
                self.soft(part, prefix.text)
            case "mask":
                self.mask(part, prefix)
            case "special":
                self.special(part)
            case _:
                if part.entries.get("shortenable") is True:
                    self.notes.append(f"{shown(part.entries['text'])} is never shortened here: only columns are.")
                self.segments += [prefix, Literal(str(part.entries["text"]))]

    def close(self, end: int) -> None:
        """What is to be said when all parts are read; `end` is the end of the text."""
        if not self.has_mask:
            self.problems.add("The template has no mask, so nothing is asked", end, needed='{"mask"}')
        if not self.groups:
            self.problems.add(
                "The template has no soft tokens, so there would be nothing to train", end, needed='{"soft"}',
                remedy="SoftTemplate and PrefixTuningTemplate put them before everything: import with --front N",
            )  # fmt: skip
        if self.after_answer:
            self.notes.append(f"What stands behind the mask is left out: {', '.join(self.after_answer)}. A decoder "
                              "that answers never reads it.")  # fmt: skip
        shortened = [index for index, is_shortened in self.columns if is_shortened]
        kept = [
            column.name for index, cut in self.columns if not cut and isinstance(column := self.segments[index], Column)
        ]
        if len(shortened) == 1:
            column = self.segments[shortened[0]]
            assert isinstance(column, Column)
            self.segments[shortened[0]] = replace(column, shorten_first=True)
        elif kept:
            self.notes.append(
                f"Here the longest column is shortened, and that may be {', '.join(dict.fromkeys(kept))}."
            )

    def check_values(self, part: Part, what: str) -> None:
        """The values that are code, or of the wrong kind."""
        for key, value in part.entries.items():
            place = part.places[key]
            if isinstance(value, Expression) and key != "post_processing":
                self.problems.add(
                    f"The value of {shown(key)} would have to be evaluated", place, got=shown(value),
                    needed="text, a number, True, False or None",
                )  # fmt: skip
            elif key in ("shortenable", "same") and not isinstance(value, bool | Expression):
                self.problems.add(f"{key} is neither True nor False", place, got=shown(value))
            elif key in ("placeholder", "meta", "special", "text") and key == what and not isinstance(value, str):
                self.problems.add(f"{key} needs a text", place, got=shown(value), needed=f'such as {{"{key}": "…"}}')
            elif key == "add_prefix_space" and value not in ("", " "):
                self.problems.add("add_prefix_space is a space or nothing", place, got=shown(value))

    def after(self, part: Part, what: str) -> None:
        """What stands behind the answer: text that has no effect is left out, all else is a problem."""
        if what in ("text", "special"):
            self.after_answer.append(shown(part.entries[what]))
        else:
            self.problems.add(
                "Behind the mask this has no effect on a decoder", part.start, remedy='Move it before {"mask"}, or '
                "import for a masked model",
            )  # fmt: skip

    def column(self, part: Part, what: str, prefix: Literal) -> None:
        name = part.entries[what]
        if isinstance(name, str) and not isinstance(name, Expression) and not is_column_name(name):
            self.problems.add(
                "A data column cannot be named so here", part.places[what], got=shown(name),
                remedy="Rename it in the template and in the data",
            )  # fmt: skip
        filters, behind = self.post_processing(part)
        self.segments.append(prefix)
        self.columns.append((len(self.segments), part.entries.get("shortenable", what == "placeholder") is True))
        self.segments += [Column(str(name), filters=filters), Literal(behind)]

    def post_processing(self, part: Part) -> tuple[tuple[str, ...], str]:
        """The filters a column goes through, and the text put behind it."""
        if "post_processing" not in part.entries:
            return (), ""
        code = part.entries["post_processing"]
        known = known_function(code if isinstance(code, str) else "")
        if known is None:
            self.problems.add(
                "This post_processing would have to be evaluated", part.places["post_processing"], got=shown(code),
                needed="none, or lambda s: followed by s.strip(), s.lower(), s.rstrip(string.punctuation), "
                's[:1].lower() + s[1:], s[:1].upper() + s[1:] or s + "text"',
                remedy="Change the data instead",
            )  # fmt: skip
            return (), ""
        filters, behind, note = known
        self.notes += [note] * bool(note and note not in self.notes)
        return filters, behind

    def soft(self, part: Part, space: str) -> None:
        entries, place = part.entries, part.start
        soft_id = entries.get("soft_id")
        if "soft_id" in entries and (isinstance(soft_id, bool) or not isinstance(soft_id, int) or soft_id < 1):
            self.problems.add("soft_id is not a number from 1", part.places["soft_id"], got=shown(soft_id))
            return
        name = f"soft_{soft_id}" if isinstance(soft_id, int) else None
        if isinstance(soft_id, int) and soft_id in self.shared:
            if entries.get("soft") is not None:
                self.notes.append(f"{name} has its start where it is first named; {shown(entries['soft'])} is ignored.")
            self.segments += self.shared[soft_id]
            return
        text, count = entries.get("soft"), entries.get("duplicate", 1)
        if isinstance(count, bool) or not isinstance(count, int) or not 1 <= count <= MAX_COUNT:
            at = part.places.get("duplicate", place)
            self.problems.add("duplicate is no usable number", at, got=shown(count), needed=f"1 to {MAX_COUNT}")
            return
        if text is not None:
            if isinstance(text, Expression) or not isinstance(text, str) or not text.strip():
                if not isinstance(text, Expression):  # that is told already
                    needed = 'a text to start from, or nothing, as in {"soft"}'
                    self.problems.add("soft needs words", part.places["soft"], got=shown(text), needed=needed)
                return
            if "duplicate" in entries:
                self.notes.append(f"duplicate beside {shown(text)} is ignored, as OpenPrompt does.")
            added = [self.group(None, name, space + text)]
        elif entries.get("same") is True and count > 1:
            if count > MAX_SAME:
                at = part.places["duplicate"]
                self.problems.add("Too many places of one vector", at, got=shown(count), needed=f"at most {MAX_SAME}")
                return
            added = [self.group(1, name or f"same_{self.groups + 1}")] * count
        else:
            added = [self.group(count, name)]
        if isinstance(soft_id, int):
            self.shared[soft_id] = added
        self.add_group(added)

    def group(self, count: int | None, name: str | None = None, init_text: str | None = None) -> VirtualTokens:
        """A new group."""
        self.groups += 1
        return VirtualTokens(self.groups - 1, count, name, init_text)

    def add_group(self, added: list[VirtualTokens]) -> None:
        """Add virtual tokens; those that only follow each other become one group."""
        last = self.segments[-1] if self.segments else None
        before, more = _plain_count(last), _plain_count(added[0])
        if isinstance(last, VirtualTokens) and before and more and before + more <= MAX_COUNT:
            self.segments[-1] = replace(last, count=before + more)
            self.groups -= 1
        else:
            self.segments += added

    def mask(self, part: Part, prefix: Literal) -> None:
        last = self.segments[-1] if self.segments else None
        if not self.has_mask:
            self.has_mask = True
            # OpenPrompt puts no space before a mask. Between two words one reads better, and masked models drop it.
            is_between = self.asked.kind is TargetKind.MASK and isinstance(last, Literal | Column)
            self.segments += [prefix] * is_between + [Target(self.asked.kind, self.asked.column)]
        elif isinstance(last, Target) and last.kind is TargetKind.MASK:
            self.segments[-1] = replace(last, count=last.count + 1)
        else:
            self.problems.add(
                "A template here has one target, and this is a second mask", part.start, needed="one mask, or several "
                "side by side for a masked model",
            )  # fmt: skip

    def special(self, part: Part) -> None:
        name = part.entries["special"]
        if isinstance(name, str) and name in SPECIALS:
            self.segments.append(SPECIALS[name])
        elif isinstance(name, str):
            self.problems.add(
                "There is no such special token here", part.places["special"], got=shown(name),
                needed=", ".join(SPECIALS),
            )  # fmt: skip


def known_function(code: str) -> tuple[tuple[str, ...], str, str] | None:
    """What a function of a text is known to do: filters, the text it puts behind, and how it differs here.

    Code is compared with what is known, by its looks alone; None: unknown.
    """
    function = _LAMBDA.fullmatch(code[: _MAX_CODE + 1].strip())
    if function is None or len(code) > _MAX_CODE:
        return None
    body = _canonical(function[2], function[1])
    if body in ("s[:1].lower()+s[1:]", "s[0].lower()+s[1:]"):
        return ("lower_first",), "", ""
    if body in ("s[:1].upper()+s[1:]", "s[0].upper()+s[1:]"):
        return ("upper_first",), "", ""
    if behind := re.fullmatch(r'(s[^+]*)\+"([^"]*)"', body):
        body, added = behind[1], behind[2]
    else:
        added = ""
    filters, note = [], ""
    subject, *methods = body.split(".")
    methods = re.findall(r"[a-z]+\([^)]*\)", body[len(subject) :])
    if subject != "s" or ".".join(["s", *methods]) != body:
        return None
    for method in methods:
        strips = _STRIPS.fullmatch(method)
        if strips and set(strips[1] or ".") <= set(SENTENCE_PUNCTUATION + " "):
            filters.append("strip_punct")
            note = f"strip_punct stands for {shown(code)}: it takes {SENTENCE_PUNCTUATION} and spaces from the end."
        elif method in _FILTERS_OF_METHODS:
            filters.append(_FILTERS_OF_METHODS[method])
        else:
            return None
    return tuple(filters), added, note


def _canonical(body: str, argument: str) -> str:
    """Code without its spaces, its argument as `s`, its quotes double; empty if it is no simple code."""
    pieces, at = [], 0
    body = body.strip()
    while at < len(body):
        match = _CODE.match(body, at)
        if match is None:
            return ""
        name, quoted, other = match.groups()
        if quoted:
            pieces.append("" if '"' in quoted[1:-1] else f'"{quoted[1:-1]}"')
        else:
            pieces.append("s" if name == argument else f"_{name}" if name == "s" else name or other)
        at = match.end()
    return "".join(pieces)


def _plain_count(segment: Segment | None) -> int:
    """The number of virtual tokens without name and text; 0 for all else."""
    if not isinstance(segment, VirtualTokens) or segment.name is not None or segment.init_text is not None:
        return 0
    return segment.count or 0
