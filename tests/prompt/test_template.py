"""The template as a whole: spaces, groups, chat, and what is derived from it."""

from __future__ import annotations

import pytest

from ptune_core.errors import BaseModelError, SettingsError, TemplateError
from ptune_core.prompt.grammar import MAX_COUNT
from ptune_core.prompt.template import (
    Column,
    Literal,
    Message,
    Special,
    Target,
    TargetKind,
    VirtualTokens,
    parse_template,
    with_num_virtual_tokens,
)

ANSWER = Target(TargetKind.ANSWER, "label")


def group(index: int, count: int | None = 1, name: str | None = None, init_text: str | None = None) -> VirtualTokens:
    return VirtualTokens(index, count, name, init_text)


SPACES = {
    "great [P*3] {x} [P] {y} [ANSWER:label]": [
        Literal("great"), group(0, 3), Literal(" "), Column("x"), group(1), Literal(" "), Column("y"), ANSWER,
    ],
    "[P] [P] [SEP] {x}[ANSWER:label]": [
        group(0), group(1), Special("SEP"), Literal(" "), Column("x"), ANSWER,
    ],
    "{x} [SEP] {y} so [EOS] [P] [HEAD:label]": [
        Column("x"), Special("SEP"), Literal(" "), Column("y"), Literal(" so"), Special("EOS"), group(0),
        Target(TargetKind.HEAD, "label"),
    ],
    "[P*20] \n {x} {y}[ANSWER:label]": [group(0, 20), Column("x"), Literal(" "), Column("y"), ANSWER],
    "[P] Title: {x} [ANSWER:label]": [group(0), Literal("Title: "), Column("x"), ANSWER],
    "{x} [P] [MASK:label] . ": [Column("x"), group(0), Target(TargetKind.MASK, "label"), Literal(" .")],
    "{x} [MASK:label] [P]": [Column("x"), Literal(" "), Target(TargetKind.MASK, "label"), group(0)],
    "Review:\n[P]\nAnswer:\n[ANSWER:label]\n": [Literal("Review:\n"), group(0), Literal("\nAnswer:\n"), ANSWER],
    "\n{x}[P][HEAD:label] \n": [Column("x"), group(0), Target(TargetKind.HEAD, "label")],
}  # fmt: skip


@pytest.mark.parametrize("text", SPACES)
def test_only_spaces_that_set_brackets_apart_are_dropped(text: str) -> None:
    assert list(parse_template(text).segments) == SPACES[text]


def test_the_same_name_means_the_same_vectors() -> None:
    template = parse_template('[P*4:task="do it"] {x} [P*2] [P:task] [P*4:task][P*2][ANSWER:label]')
    task = group(0, 4, "task", "do it")
    assert [s for s in template.segments if isinstance(s, VirtualTokens)] == [
        task,
        group(1, 2),
        task,
        task,
        group(2, 2),
    ]
    assert template.groups == (task, group(1, 2), group(2, 2))
    assert template.num_virtual_tokens == 8


def test_columns_are_listed_once_without_the_target() -> None:
    assert parse_template("{b}[P]{a}{b}{c~}{c~}[ANSWER:label]").columns == ("b", "a", "c")


@pytest.mark.parametrize(
    ("text", "is_front"),
    [
        ("[P*20] {x}[ANSWER:y]", True),
        ("\n [P*20]{x}[ANSWER:y]", True),
        ("[P*20:name] {x} [MASK:y].", True),
        ("{x}[P*20][ANSWER:y]", False),
        ("[BOS][P*20]{x}[ANSWER:y]", False),
        ("Text [P*20]{x}[ANSWER:y]", False),
        ("[P*2][P*3]{x}[ANSWER:y]", False),
        ("[P*2:a]{x}[P:a][ANSWER:y]", False),
        ("user: [P*2]{x}\nassistant: [ANSWER:y]", False),
    ],
)
def test_is_front_only_when_peft_can_say_the_same(text: str, is_front: bool) -> None:
    assert parse_template(text).is_front is is_front


def test_without_virtual_tokens_the_text_is_whole() -> None:
    template = parse_template("[P*2] {x} is [P] so [P] good[P]:[ANSWER:label]")
    assert template.without_virtual_tokens() == (Column("x"), Literal(" is so good:"), ANSWER)
    assert parse_template("[P*20] {x}[ANSWER:label]").without_virtual_tokens() == (Column("x"), ANSWER)


def test_resolve_counts_the_tokens_of_initial_texts() -> None:
    template = parse_template(r'[P:a="one \"two\" three"] {x} [P*2="x"] [P="y z"] [P:a][ANSWER:label]')
    assert template.num_virtual_tokens == 2
    resolved = template.resolve(lambda text: len(text.split()))
    assert [g.count for g in resolved.groups] == [3, 2, 2]
    assert resolved.num_virtual_tokens == 7
    assert resolved.segments[-2] == resolved.groups[0]
    assert parse_template(resolved.text) == resolved
    assert resolved.resolve(lambda text: pytest.fail("nothing is left to count")) == resolved


def test_resolve_refuses_a_text_without_tokens() -> None:
    with pytest.raises(TemplateError) as caught:
        parse_template('{x}[P]  [P="."][ANSWER:label]').resolve(lambda text: 0)
    assert caught.value.position == 8


def test_resolve_keeps_chat_messages_in_step() -> None:
    template = parse_template('system: [P="a b c"]\nuser: {x}\nassistant: [ANSWER:label]')
    resolved = template.resolve(lambda text: len(text.split()))
    assert resolved.messages[0].segments == resolved.segments[:1] == (group(0, 3, None, "a b c"),)


CHAT = "system: You answer from the context only. [P*10:task]\nuser:\n{context~}\n{{q}}: {q}?\nassistant: [ANSWER:a]"


def test_chat_blocks() -> None:
    template = parse_template(CHAT)
    task = group(0, 10, "task")
    assert template.messages == (
        Message("system", (Literal("You answer from the context only."), task)),
        Message("user", (Column("context", True), Literal("\n{q}: "), Column("q"), Literal("?"))),
        Message("assistant", (Target(TargetKind.ANSWER, "a"),)),
    )
    assert template.segments == sum((m.segments for m in template.messages), ())
    assert template.columns == ("context", "q")


def test_roles_elsewhere_are_text() -> None:
    template = parse_template("Chat log\nuser: {x}\nassistant:[P][ANSWER:label]")
    assert template.messages == ()
    assert template.segments[0] == Literal("Chat log\nuser: ")


def test_earlier_turns_may_be_examples() -> None:
    template = parse_template("user: 1+1?\nassistant: 2\nuser: {x}[P]\nassistant: [ANSWER:label]")
    assert [m.role for m in template.messages] == ["user", "assistant", "user", "assistant"]


def chatml(messages: list[dict[str, str]]) -> str:
    return "".join(f"<|{m['role']}|>\n{m['content']}<|end|>\n" for m in messages)


def test_expand_chat_writes_the_chat_template_around_the_parts() -> None:
    flat = parse_template(CHAT).expand_chat(chatml)
    assert flat.messages == ()
    assert flat.segments == (
        Literal("<|system|>\nYou answer from the context only."),
        group(0, 10, "task"),
        Literal("<|end|>\n<|user|>\n"),
        Column("context", True),
        Literal("\n{q}: "),
        Column("q"),
        Literal("?<|end|>\n<|assistant|>\n"),
        Target(TargetKind.ANSWER, "a"),
    )


def test_expand_chat_survives_private_characters_in_the_template() -> None:
    flat = parse_template("user: \ue0000\ue000 {x}[P]\nassistant: [ANSWER:label]").expand_chat(chatml)
    assert flat.segments[0] == Literal("<|user|>\n\ue0000\ue000 ")
    assert flat.segments[1:3] == (Column("x"), group(0))


def test_expand_chat_leaves_a_plain_template_alone() -> None:
    template = parse_template("{x}[P][ANSWER:label]")
    assert template.expand_chat(chatml) is template


@pytest.mark.parametrize(
    "render",
    [
        lambda messages: chatml(messages[1:]),
        lambda messages: chatml(messages + messages[:1]),
        lambda messages: chatml(messages[::-1]),
    ],
    ids=["loses the system block", "repeats it", "reorders"],
)
def test_expand_chat_refuses_a_chat_template_that_loses_parts(render) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(BaseModelError, match="once and in order"):
        parse_template(CHAT).expand_chat(render)


@pytest.mark.parametrize(
    ("text", "count", "expected"),
    [
        ("{x} [P*8] so[ANSWER:y]", 3, "{x} [P*3] so[ANSWER:y]"),
        ("{x} [P][ANSWER:y]", 12, "{x} [P*12][ANSWER:y]"),
        ('{x} [P*4:a="q\\"\\\\"] [P*4:a] [P:a][ANSWER:y]', 5, '{x} [P*5:a="q\\"\\\\"] [P:a] [P:a][ANSWER:y]'),
        ('[P="do it"] {x}[ANSWER:y]', 7, '[P*7="do it"] {x}[ANSWER:y]'),
    ],
)
def test_with_num_virtual_tokens(text: str, count: int, expected: str) -> None:
    changed = with_num_virtual_tokens(text, count)
    assert changed == expected
    assert parse_template(changed).num_virtual_tokens == count


def test_with_num_virtual_tokens_refuses_what_it_cannot_do() -> None:
    with pytest.raises(TemplateError, match="more than one group") as caught:
        with_num_virtual_tokens("[P*2]{x}[P*3][ANSWER:y]", 4)
    assert caught.value.position == 8
    for count in (0, MAX_COUNT + 1):
        with pytest.raises(SettingsError, match="1 to 9999"):
            with_num_virtual_tokens("{x}[P][ANSWER:y]", count)


@pytest.mark.parametrize(
    ("text", "cut"),
    [
        ("{x} the answer [P*2] is:[ANSWER:y]", "answer | is:"),
        ("{x} ans[P*2]wer:[ANSWER:y]", "ans | wer:"),
        ("{x} Question: {y}? [P*2] Answer:[ANSWER:z]", None),
        ("{x} Question [P*2] Answer:[ANSWER:z]", None),
        ("{x} [P*2] is it? [P*2] yes:[ANSWER:z]", None),
        ("{x} good [P*2] {y}[ANSWER:z]", None),
    ],
)
def test_warns_when_virtual_tokens_cut_a_phrase(text: str, cut: str | None) -> None:
    warnings = parse_template(text).warnings(None)
    assert len(warnings) == (cut is not None)
    assert cut is None or f"'{cut}'" in warnings[0]


@pytest.mark.parametrize(("count", "examples", "warned"), [(9, 99, 1), (8, 99, 0), (9, 100, 0), (9, None, 0)])
def test_warns_of_many_virtual_tokens_for_few_examples(count: int, examples: int | None, warned: int) -> None:
    warnings = parse_template(f"{{x}}[P*{count}][ANSWER:y]").warnings(examples)
    assert len(warnings) == warned
    assert all(f"{count} virtual tokens" in warning and str(examples) in warning for warning in warnings)
