"""The grammar of a template: what each piece of text means, and where it is wrong."""

from __future__ import annotations

import random
import subprocess
import sys

import pytest

from ptune_core.errors import TemplateError
from ptune_core.prompt.grammar import scan
from ptune_core.prompt.template import (
    FILTERS,
    Column,
    Literal,
    Segment,
    Special,
    Target,
    TargetKind,
    Template,
    VirtualTokens,
    parse_template,
)

ANSWER = Target(TargetKind.ANSWER, "label")


def group(index: int, count: int | None = 1, name: str | None = None, init_text: str | None = None) -> VirtualTokens:
    return VirtualTokens(index, count, name, init_text)


WORKED_EXAMPLES = {
    "{passage~} [P*3] Question: {question}? [P*3] Answer:[ANSWER:label]": [
        Column("passage", True), group(0, 3), Literal(" Question: "), Column("question"), Literal("?"), group(1, 3),
        Literal(" Answer:"), ANSWER,
    ],
    "{premise~} Question: {hypothesis|strip_punct}? [P*4] Answer: [MASK:label].": [
        Column("premise", True), Literal(" Question: "), Column("hypothesis", False, ("strip_punct",)), Literal("?"),
        group(0, 4), Literal(" Answer: "), Target(TargetKind.MASK, "label"), Literal("."),
    ],
    "[P*10] {text~} [HEAD:label]": [group(0, 10), Column("text", True), Target(TargetKind.HEAD, "label")],
    '[P="Summarise the dialogue in one sentence:"] {dialogue~}\\nSummary:[ANSWER:label]': [
        group(0, None, None, "Summarise the dialogue in one sentence:"), Column("dialogue", True),
        Literal("\nSummary:"), ANSWER,
    ],
    "[P*3] {sub_label} [P*3][ANSWER:label]": [
        group(0, 3), Literal(" "), Column("sub_label"), group(1, 3), ANSWER,
    ],
    "[P*3] {sub_label} [P*3] [MASK:obj_label] [P*3]": [
        group(0, 3), Literal(" "), Column("sub_label"), group(1, 3), Target(TargetKind.MASK, "obj_label"), group(2, 3),
    ],
    "{premise~} [P*3] {hypothesis|strip_punct}? [P*3] [MASK:label]": [
        Column("premise", True), group(0, 3), Literal(" "), Column("hypothesis", False, ("strip_punct",)), Literal("?"),
        group(1, 3), Target(TargetKind.MASK, "label"),
    ],
    "{text~} [P*8][ANSWER:label]": [Column("text", True), group(0, 8), ANSWER],
}  # fmt: skip


@pytest.mark.parametrize("text", WORKED_EXAMPLES)
def test_worked_examples(text: str) -> None:
    template = parse_template(text)
    assert list(template.segments) == WORKED_EXAMPLES[text]
    assert template.text == text
    assert template.messages == ()


@pytest.mark.parametrize(
    ("bracket", "expected"),
    [
        ("[P]", group(0)),
        ("[P*8]", group(0, 8)),
        ("[ P * 8 ]", group(0, 8)),
        ("[P:task]", group(0, 1, "task")),
        ("[P*4:task]", group(0, 4, "task")),
        ('[P="Yes or no:"]', group(0, None, None, "Yes or no:")),
        ('[P*8="a ] b"]', group(0, 8, None, "a ] b")),
        (r'[P*8:q="say \"a\\b\""]', group(0, 8, "q", r'say "a\b"')),
        ('[P="{not_a_column}"]', group(0, None, None, "{not_a_column}")),
    ],
)
def test_virtual_tokens(bracket: str, expected: VirtualTokens) -> None:
    assert parse_template(f"{{text}}{bracket}[ANSWER:label]").groups == (expected,)


@pytest.mark.parametrize(
    ("braces", "expected"),
    [
        ("{a}", Column("a")),
        ("{ a }", Column("a")),
        ("{two words}", Column("two words")),
        ("{größe.1}", Column("größe.1")),
        ("{a~}", Column("a", True)),
        ("{a|strip|lower_first}", Column("a", False, ("strip", "lower_first"))),
        ("{a~ | strip_punct | upper_first}", Column("a", True, ("strip_punct", "upper_first"))),
    ],
)
def test_columns(braces: str, expected: Column) -> None:
    assert parse_template(f"{braces}[P][ANSWER:label]").segments[0] == expected


@pytest.mark.parametrize(
    ("bracket", "expected"),
    [
        ("[ANSWER:label]", Target(TargetKind.ANSWER, "label")),
        ("[HEAD: my label ]", Target(TargetKind.HEAD, "my label")),
        ("[MASK:label]", Target(TargetKind.MASK, "label", 1)),
        ("[MASK*3:label]", Target(TargetKind.MASK, "label", 3)),
    ],
)
def test_targets(bracket: str, expected: Target) -> None:
    assert parse_template(f"{{text}}[P]{bracket}").target == expected


def test_special_tokens_and_literal_brackets() -> None:
    template = parse_template(r"[BOS]a [words] {{b}} \[SEP] \\n\[P]\] [p*3:] c[SEP]{x}[EOS][CLS][P][ANSWER:label]")
    literal = r"a [words] {b} [SEP] \n[P]] [p*3:] c"
    specials = (Special("BOS"), Literal(literal), Special("SEP"), Column("x"), Special("EOS"), Special("CLS"))
    assert template.segments[:-2] == specials


@pytest.mark.parametrize("word", ["[Paris]", "[PAD]", "[P.S.]", "[answer: yes]", "[ANSWERS:a]", "[P vs NP]", "[1]"])
def test_other_brackets_stay_text(word: str) -> None:
    assert parse_template(f"{word}[P][ANSWER:label]").segments[0] == Literal(word)


def test_a_line_break_of_windows_is_one_line_break() -> None:
    assert parse_template("a\r\nb[P][ANSWER:label]").segments[0] == Literal("a\nb")


ERRORS = {
    # grammar: text, part that the caret must point at (found from the right with rfind), words of the message
    "{x} [P*0][ANSWER:y]": ("0]", "1 to 9999"),
    "{x} [P*][ANSWER:y]": ("][A", "1 to 9999"),
    "{x} [P*-3][ANSWER:y]": ("-3", "1 to 9999"),
    "{x} [P*99999][ANSWER:y]": ("99999", "1 to 9999"),
    f"{{x}} [P*{'9' * 5000}][ANSWER:y]": ("9" * 5000, "1 to 9999"),
    "{x} [P*٣][ANSWER:y]": ("٣", "1 to 9999"),
    "{x} [P3][ANSWER:y]": ("3]", "[P*8]"),
    "{x} [P 3][ANSWER:y]": ("3]", "[P*8]"),
    "{x} [P*3:][ANSWER:y]": ("][A", "name of the group is missing"),
    "{x} [P*3:4][ANSWER:y]": ("4]", "name of the group is missing"),
    "{x} [P*3:a b][ANSWER:y]": ("b]", "does not belong"),
    "{x} [P*3=a][ANSWER:y]": ("a]", "straight double quotes"),
    '{x} [P="a][ANSWER:y]': ('"a', "never ends"),
    '{x} [P=" "][ANSWER:y]': ('" "', "is empty"),
    "{x} [P*3 [ANSWER:y]": ("[ANSWER", "does not belong"),
    "[ANSWER:y] {x} [P*3": ("[P", "never closed"),
    "{x}[P][ANSWER]": ("[ANSWER", "which data column"),
    "{x}[P][ANSWER:]": ("]", "name of the data column is missing"),
    "{x}[P][ANSWER*3:y]": ("*3", "takes no '*'"),
    "{x}[P][HEAD=3]": ("=3", "takes no '='"),
    "{x}[SEP*2][P][ANSWER:y]": ("*2", "takes no '*'"),
    "{x}[P][ANSWER:y|strip]": ("|strip", "does not belong"),
    "{}[P][ANSWER:y]": ("}[", "name of the data column is missing"),
    "{x[P][ANSWER:y]": ("[P", "inside a column"),
    "{x [P*3] }[ANSWER:y]": ("[P", "inside a column"),
    "{x [y]}[P][ANSWER:y]": ("[y", "does not belong"),
    "{x{y}}[P][ANSWER:y]": ("{y", "does not belong"),
    "x}[P][ANSWER:y]": ("}[", "write }}"),
    "[P]{x\n}[ANSWER:y]": ("{x", "never closed"),
    "{x|nope}[P][ANSWER:y]": ("nope", "strip_punct, lower_first, upper_first, lower, strip"),
    "{x|}[P][ANSWER:y]": ("}[", "no such filter"),
    "{x|strip~}[P][ANSWER:y]": ("~", "does not belong"),
    "[P*2:a]{x}[P*3:a][ANSWER:y]": ("[P*3", "3 here, 2 where it is first named"),
    '[P:a="b"]{x}[P*3:a][ANSWER:y]': ("[P*3", "3 here, as many as its text has"),
    '[P:a="b"]{x}[P:a="c"][ANSWER:y]': ('[P:a="c', "two different ways"),
    # rules
    "{x} [P*3] hello": ("", "no target"),
    "{x} [P*3] [answer:y]": ("[answer", "[answer:y] is read as text: write ANSWER in capital letters"),
    "{x} [P*3] [Mask:y] [P]": ("[Mask", "[Mask:y] is read as text: write MASK in capital letters"),
    "{x} [p*3] [ANSWER:y]": ("[p", "[p*3] is read as text: write P in capital letters"),
    "{x} hello [ANSWER:y]": ("", "nothing to train"),
    "{x}[P][MASK:y] or [HEAD:y]": ("[HEAD", "more than one target"),
    "{x}[P][ANSWER:y][P]": ("[P]", "a causal model never sees them"),
    "{x}[P][ANSWER:y] .": (" .", "[ANSWER] must come last"),
    "{x}[P][ANSWER:y]{z}": ("{z", "[ANSWER] must come last"),
    "{x}[P][HEAD:y][P]": ("[P]", "[HEAD] must come last"),
    "{x}{y}[P][ANSWER:y]": ("{y", "only copy it"),
    "{x~}{z~}[P][ANSWER:y]": ("{z", "Only one column"),
    # chat
    "user: {x}[P]\nassistant: so [ANSWER:y]": ("assistant", "nothing but the target"),
    "user: {x}[P][ANSWER:y]": ("user", "nothing but the target"),
    "user: {x}[P]\nassistant: hello\nuser: [ANSWER:y]": ("user", "nothing but the target"),
    "user: {x}[P]\nassistant: [MASK:y]": ("assistant", "must be words"),
    "user: {x}[P]\nuser: more\nassistant: [ANSWER:y]": ("user: m", "Got: user:. Needed: assistant"),
    "assistant: {x}[P]\nuser: [ANSWER:y]": ("assistant", "Needed: system or user"),
    "system: \nuser: {x}[P]\nassistant: [ANSWER:y]": ("system", "block is empty"),
}


@pytest.mark.parametrize("text", ERRORS)
def test_every_error_points_at_its_place(text: str) -> None:
    place, words = ERRORS[text]
    with pytest.raises(TemplateError) as caught:
        parse_template(text)
    assert caught.value.position == (text.rfind(place) if place else len(text))
    assert words in str(caught.value)
    assert str(caught.value).endswith("^")


@pytest.mark.parametrize("text", ["", "  \n"])
def test_an_empty_template_is_an_error(text: str) -> None:
    with pytest.raises(TemplateError, match="empty"):
        parse_template(text)


def chatml(messages: list[dict[str, str]]) -> str:
    return "".join(f"<|{m['role']}|>\n{m['content']}<|end|>\n" for m in messages)


FRAGMENTS = [
    *("[P", "[P*", "[P*3", "[P*3:a", '="x', '"', "]", "[", "{", "}", "{x", "~", "|", "|strip", ":", "*", "\\", "\\n"),
    *("{x}", "{y~}", "[P]", "[P*4:a]", '[P="t u"]', "[ANSWER:l]", "[MASK*2:l]", "[HEAD:l]", "[SEP]", "[EOS", "\n", " "),
    *("user:", "\nuser: ", "\nassistant: ", "system: ", "word", "{{", "}}", "\\[", "\r\n", "é", "日", "\0", "9", "٣"),
]


def test_any_text_parses_or_fails_at_a_place_in_it() -> None:
    rng = random.Random(20240229)
    parsed = 0
    for _ in range(8_000):
        text = "".join(rng.choice(FRAGMENTS) for _ in range(rng.randint(0, 9)))
        frame = rng.choice(["{}", "{}[P][ANSWER:l]", "user: {{x}}{}[P]\nassistant: [ANSWER:l]"])
        text = frame.format(text)
        try:
            template = parse_template(text)
        except TemplateError as error:
            assert 0 <= error.position <= len(error.template)
            assert str(error)
            continue
        parsed += 1
        tokens = scan(template.text)
        assert "".join(template.text[token.start : token.end] for token in tokens) == template.text
        assert all(token.start < token.end for token in tokens)
        template.warnings(10)
        template.without_virtual_tokens()
        resolved = template.resolve(len)
        assert parse_template(resolved.text) == resolved
        assert all(g.count for g in resolved.groups)
        assert resolved.expand_chat(chatml).num_virtual_tokens == resolved.num_virtual_tokens
    assert parsed > 500


def write(segment: Segment) -> str:
    """The most direct way to write a segment."""
    match segment:
        case Literal(text):
            return text.translate({ord("{"): "{{", ord("}"): "}}", ord("["): "\\[", ord("\\"): "\\\\"})
        case Column(name, shorten_first, filters):
            return "{" + name + "~" * shorten_first + "".join(f"|{f}" for f in filters) + "}"
        case VirtualTokens(_, count, name, init_text):
            quoted = "" if init_text is None else '="' + init_text.replace("\\", "\\\\").replace('"', '\\"') + '"'
            return f"[P{'' if count is None else f'*{count}'}{f':{name}' if name else ''}{quoted}]"
        case Special(kind):
            return f"[{kind}]"
        case Target(kind, column, count):
            return f"[{kind}{f'*{count}' if count > 1 else ''}:{column}]"


def random_segments(rng: random.Random) -> list[Segment]:
    """Segments without spaces at their ends and no two literals in a row, so that nothing is tidied."""
    segments: list[Segment] = [VirtualTokens(0, rng.randint(1, 99))]
    for _ in range(rng.randint(1, 8)):
        groups = len({s.group for s in segments if isinstance(s, VirtualTokens)})
        letters = 'ab [](){}|~\\"*:é'
        choice: Segment = rng.choice(
            [
                Column(f"c {rng.randint(0, 9)}", False, tuple(rng.sample(list(FILTERS), rng.randint(0, 2)))),
                VirtualTokens(groups, rng.randint(1, 99), f"g{groups}", "".join(rng.choices(letters, k=5)) + "."),
                VirtualTokens(groups, None, None, "".join(rng.choices(letters, k=5)) + "."),
                Special(rng.choice(["SEP", "CLS", "BOS", "EOS"])),
                Literal("," + "".join(rng.choices(letters, k=6)) + "."),
            ]
        )
        if not (isinstance(choice, Literal) and isinstance(segments[-1], Literal)):
            segments.append(choice)
    return [*segments, Target(rng.choice(list(TargetKind)), "y")]


def test_what_is_written_is_what_is_read() -> None:
    rng = random.Random(7)
    for _ in range(1500):
        segments = random_segments(rng)
        text = "".join(write(segment) for segment in segments)
        template = parse_template(text)
        assert list(template.segments) == segments
        assert template == Template(text, tuple(segments))
        tokens = scan(text)
        broken = rng.choice([t.start for t in tokens])
        with pytest.raises(TemplateError) as caught:
            parse_template(f"{text[:broken]}{{x|nope}}{text[broken:]}")
        assert caught.value.position == broken + len("{x|")


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("strip_punct", "It rains?!. ", "It rains"),
        ("strip_punct", 'He said "no".', 'He said "no"'),
        ("lower_first", "The NATO", "the NATO"),
        ("upper_first", "the nato", "The nato"),
        ("lower", "The NATO", "the nato"),
        ("strip", "  a b\n", "a b"),
    ],
)
def test_filters(name: str, value: str, expected: str) -> None:
    assert Column("x", filters=(name,)).apply(value) == expected
    assert FILTERS[name]("") == ""


def test_filters_apply_in_the_order_they_are_written() -> None:
    assert Column("x", filters=("strip", "lower_first")).apply(" The end") == "the end"
    assert Column("x", filters=("lower_first", "strip")).apply(" The end") == "The end"


def test_parsing_imports_no_torch() -> None:
    code = (
        "import sys, ptune_core.prompt.template, ptune_core.prompt.verbalizer, ptune_core.prompt.config; "
        "sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
