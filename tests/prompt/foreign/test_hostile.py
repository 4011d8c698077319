"""Whatever the text: a template that parses, or an error with the place, and soon."""

from __future__ import annotations

import json
import random
import time

import pytest

from ptune_core.errors import TemplateError
from ptune_core.prompt.foreign.common import MAX_TEXT, template_text
from ptune_core.prompt.foreign.source import Wanted, import_template
from ptune_core.prompt.segments import join_literals, tidy_spaces
from ptune_core.prompt.template import Column, Literal, Segment, Special, Target, TargetKind, VirtualTokens
from ptune_core.prompt.template import parse_template as parse

PIECES = (
    '{"soft"}', '{"mask"}', '{"placeholder": "text_a"}', '{"meta": "x", "post_processing": ', 'lambda s: s + "."',
    '{"soft": "a b", "soft_id": 2}', '{"soft_id": 2}', '"duplicate": 3', '"same": True', "{", "}", '"', "'", ":", ",",
    "(", "[", "]", "\\", "\\u", "\n", "\x00", "\ud800", "é", "名", "\u202e", " ", "[P]", "[MASK:a]", "user:", "None",
    "__import__('os').abort()", "<|VIRTUAL_PROMPT_0|>", "{passage}", "{{", "}}", "1e999", "~", "|",
)  # fmt: skip
SECONDS = 5
"""Far more than any of these takes; what backtracks or is quadratic takes minutes."""


def survives(text: str, *, is_config: bool = False) -> bool:
    """Whether it can be imported; anything but a template or a `TemplateError` fails the test."""
    began = time.process_time()
    try:
        found = import_template(text, Wanted(), is_config=is_config)
        parse(found.template)
    except TemplateError as error:
        assert len(str(error)) < 20_000, "a message is no copy of the text"
        return False
    finally:
        assert time.process_time() - began < SECONDS
    return True


def test_random_texts() -> None:
    chance = random.Random(5)
    outcomes = [survives("".join(chance.choices(PIECES, k=chance.randrange(1, 12)))) for _ in range(3000)]
    whole = ['{"soft"}', '{"mask"}', '{"placeholder": "text_a"}', " ", "x", "é", '{"soft": "a b", "soft_id": 2}']
    outcomes += [survives("".join(chance.choices(whole, k=6))) for _ in range(300)]
    assert True in outcomes and False in outcomes


def test_random_task_templates() -> None:
    chance = random.Random(6)
    for _ in range(500):
        values = {
            "prompt_template": "<|VIRTUAL_PROMPT_0|>" + "".join(chance.choices(PIECES, k=6)) + "{answer}",
            "total_virtual_tokens": 3, "virtual_token_splits": chance.choice([[3], [1, 2], [], None, [[3]]]),
            "answer_field": chance.choice(["answer", "passage", None, 3]), "truncate_field": None,
        }  # fmt: skip
        survives(json.dumps(values), is_config=True)


@pytest.mark.parametrize("size", [MAX_TEXT - 100, 1_000_000])
@pytest.mark.parametrize(
    "piece",
    ["{", "}", "[", "(", '"', "'", "\\", " ", "\n", "\x00", "名", '{"', '{"soft"}', '{"soft":', '{"a": {', "{'a': (",
     '{"soft", "duplicate": 512, "same": True}', '{"soft", "soft_id": 7}', '{"meta": "x"}', '{"mask"}', "{a", "[P",
     "<|VIRTUAL_PROMPT_", "<|VIRTUAL_PROMPT_0|>", '{"soft": lambda s: ', "[P*2]", "- ", "{a: ", "&a ", "!", "? "],
)  # fmt: skip
def test_long_texts_are_told_soon(piece: str, size: int) -> None:
    text = piece * (size // len(piece))
    assert not survives(text)
    assert not survives(text, is_config=True)


def test_long_task_templates_are_told_soon() -> None:
    for piece in ("{", "{a", "}", "{a}", "{{a}", "<|VIRTUAL_PROMPT_", "<|VIRTUAL_PROMPT_1|>", " ", "\\"):
        task = {
            "prompt_template": piece * (40_000 // len(piece)),
            "virtual_token_splits": [1],
            "total_virtual_tokens": 1,
        }
        assert not survives(json.dumps(task), is_config=True)


def test_code_is_never_run(monkeypatch: pytest.MonkeyPatch) -> None:
    ran = []
    monkeypatch.setattr("os.system", lambda command: ran.append(command))
    code = "__import__('os').system('x')"
    for slot in (code, f'"{code}"', f"lambda s: {code}", f'f"{{{code}}}"', f"[{code}]"):
        for key in ("post_processing", "soft", "placeholder", "duplicate", "add_prefix_space"):
            assert not survives(f'{{"placeholder": "text_a", "{key}": {slot}}} {{"soft"}} {{"mask"}}')
    assert not survives("!!python/object/apply:os.system ['x']", is_config=True)
    assert ran == []


def test_segments_survive_the_way_through_text() -> None:
    chance = random.Random(7)
    texts = (" a", "b ", "{", "}", "[P*3]", "\\", "\\[", "[SEP", "]", '"', "{{x}}", "\n", "é", "~", "|", ":")
    for _ in range(2000):
        parts: list[Segment] = []
        for _ in range(chance.randrange(1, 8)):
            group = sum(isinstance(part, VirtualTokens) for part in parts)
            parts.append(chance.choice([
                Literal("".join(chance.choices(texts, k=3))), Column("c d", chance.random() < 0.5, ("lower", "strip")),
                VirtualTokens(group, chance.randrange(1, 5)), VirtualTokens(group, None, f"g{group}", 'say "\\ x'),
                Special("SEP"),
            ]))  # fmt: skip
        group = sum(isinstance(part, VirtualTokens) for part in parts)
        parts += [VirtualTokens(group, 2), Target(TargetKind.ANSWER, "label")]
        assert parse(template_text(parts)).segments == tidy_spaces(join_literals(parts))
