"""OpenPrompt's language: what its templates mean here, and that nothing in them is evaluated."""

from __future__ import annotations

from typing import Any

import pytest

from ptune_core.errors import TemplateError
from ptune_core.prompt.foreign.openprompt_config import import_openprompt_config
from ptune_core.prompt.foreign.openprompt_meaning import Asked, import_openprompt, known_function
from ptune_core.prompt.template import TargetKind, parse_template

MASK, ANSWER = Asked(), Asked(TargetKind.ANSWER)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        # Of OpenPrompt's own scripts and documentation.
        ('{"placeholder": "text_a"} Question: {"placeholder": "text_b"} ? {"soft"} {"soft"} Answer: {"mask"} .',
         "{text_a} Question: {text_b} ? [P*2] Answer: [MASK:label] ."),
        ('{"soft"} Topic {"soft"} {"mask"} {"soft"} {"placeholder": "text_a"} {"placeholder": "text_b"}',
         "[P] Topic [P][MASK:label][P] {text_a} {text_b}"),
        ('{"placeholder": "text_a"} {"placeholder": "text_b"} {"soft":"This"} topic {"soft":"is about"} {"mask"}.',
         '{text_a} {text_b} [P=" This"] topic [P=" is about"][MASK:label].'),
        ('{"soft": None} {"soft": "the", "soft_id": 1} {"soft": None} {"soft": "it", "soft_id": 3} {"soft_id": 1} '
         '{"soft": "was"} {"mask"}',
         '[P][P:soft_1=" the"][P][P:soft_3=" it"][P:soft_1][P=" was"][MASK:label]'),
        ('{"meta": "text"} {"soft": None, "duplicate": 10} {"mask"}', "{text} [P*10][MASK:label]"),
        ('{"soft": None, "duplicate": 3, "same": True} {"meta": "x"} {"mask"}',
         "[P:same_1][P:same_1][P:same_1] {x} [MASK:label]"),
        ('{"soft"} [ Category : {"mask"} ] {"text": "It {is}"} {"special": "<sep>"}',
         "[P] \\[ Category : [MASK:label] ] It {{is}} [SEP]"),
        ('a {"meta": "title", "shortenable": False} {"placeholder": "text_a"} {"soft"} {"mask"}{"mask"}',
         "a {title} {text_a~} [P][MASK*2:label]"),
        ('{"placeholder": "text_a", "post_processing": lambda x: x + "."} {"soft"} {"mask"}',
         "{text_a~}. [P][MASK:label]"),
        ("""{'meta': 'context', "post_processing": lambda s: s.rstrip(string.punctuation)}. {"soft"} {"mask"}""",
         "{context|strip_punct}. [P][MASK:label]"),
        ('{"placeholder": "text_b", "post_processing": lambda s: s[:1].lower() + s[1:]}{"soft"}{"mask"}',
         "{text_b~|lower_first} [P][MASK:label]"),
        ('  {"soft"}  a  b  {"placeholder":"text_a"}\\n {"mask"}  ', "[P] a  b {text_a~}\\\\n [MASK:label]"),
    ],
)  # fmt: skip
def test_a_template_is_translated(text: str, expected: str) -> None:
    template = import_openprompt(text, MASK).template
    assert template == expected
    assert parse_template(template).target.kind is TargetKind.MASK


def test_a_decoder_answers_at_the_mask() -> None:
    found = import_openprompt('{"placeholder":"text_a"} It {"soft"} was {"mask"} .', Asked(TargetKind.ANSWER, "gold"))
    assert found.template == "{text_a~} It [P] was [ANSWER:gold]"
    assert found.notes == ("What stands behind the mask is left out: '.'. A decoder that answers never reads it.",)


def test_soft_tokens_in_front_join_those_that_follow() -> None:
    asked = Asked(front=5)
    assert import_openprompt('{"meta":"x"} {"mask"}', asked).template == "[P*5]{x} [MASK:label]"
    assert import_openprompt('{"soft"}{"meta":"x"} {"mask"}', asked).template == "[P*6]{x} [MASK:label]"


@pytest.mark.parametrize(
    ("code", "known"),
    [
        ("lambda x:x", ((), "")),
        ("lambda text : text.strip( '.' )", (("strip_punct",), "")),
        ("lambda q: q.strip().lower() + '!'", (("strip", "lower"), "!")),
        ("lambda s: s[0].upper()+s[1:]", (("upper_first",), "")),
        ("lambda s: s[:-1]", None),
        ("lambda s: s.strip('ab')", None),
        ("lambda s: t.strip()", None),
        ("lambda t: s.strip()", None),
        ("lambda s: s.strip().__class__", None),
        ("lambda s: s.strip(__import__('os'))", None),
        ("lambda s: s + s", None),
        ("lambda s, t: s", None),
        ("lambda s: s.strip() or exit()", None),
        ("__import__('os').system('true')", None),
        ("mlp", None),
        ("lambda s: s" + ".strip()" * 100, None),
    ],
)
def test_a_function_is_known_by_its_looks_or_not_at_all(code: str, known: Any) -> None:
    found = known_function(code)
    assert (found and found[:2]) == known


def test_a_filter_that_is_not_quite_the_same_is_told() -> None:
    [note] = import_openprompt(
        '{"placeholder":"text_a","post_processing":lambda s:s.rstrip(".")}{"soft"}{"mask"}', MASK
    ).notes
    assert "strip_punct stands for" in note


def test_every_problem_is_told_with_its_place() -> None:
    text = (
        '{"placeholder": "text_a", "post_processing": open("x").read()} {"soft": [1, 2]}\n'
        '{"mask"} {"loss": 1} {"special": "</s>"} {"meta": "a|b"} {"soft_id": 0} {"mask"} {mask}'
    )
    with pytest.raises(TemplateError) as caught:
        import_openprompt(text, MASK)
    told = str(caught.value)
    for what in ("would have to be evaluated", "value of 'soft'", "'loss'", "special token", "'a|b'", "soft_id",
                 "second mask", "A key in quotes"):  # fmt: skip
        assert what in told
    lines = told.splitlines()
    marked = [lines[number - 1][line.index("^") :] for number, line in enumerate(lines) if line.strip() == "^"]
    starts = ('"post_processing"', '"soft": [', '{"loss"', '"special": "</s>"', '"meta": "a|b"', '"soft_id": 0')
    assert all(any(place.startswith(start) for place in marked) for start in starts)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('{"soft"} {"meta": "x"}', "no mask"),
        ('{"meta": "x"} {"mask"}', "no soft tokens"),
        ('{"soft"} {"mask"', "never closed"),
        ('{"soft"} {"mask} x', "never ends"),
        ('{"soft"} {} {"mask"}', "empty"),
        ('{"soft": "", "soft": None} {"mask"}', "twice"),
        ('{"soft", "duplicate": 99999} {"mask"}', "1 to 9999"),
        ('{"soft", "duplicate": 600, "same": True} {"mask"}', "at most 512"),
        ('{"soft"} {"placeholder"} {"mask"}', "placeholder needs a text"),
        ('{"soft"} {"meta": "label"} {"mask"}', "target's column"),
        ('user: {"soft"} {"mask"}', "begins with a role"),
        ('{"soft"} a\x00b {"mask"}', "control character"),
        ('{"soft"} a\ud800b {"mask"}', "control character"),
        ('{"soft"} {"meta": "x", "shortenable": 1} {"mask"}', "neither True nor False"),
    ],
)
def test_what_cannot_be_imported_is_explained(text: str, told: str) -> None:
    with pytest.raises(TemplateError, match=told):
        import_openprompt(text, MASK)


@pytest.mark.parametrize("behind", ['{"soft"}', '{"placeholder": "text_b"}'])
def test_what_a_decoder_would_never_read_is_refused(behind: str) -> None:
    with pytest.raises(TemplateError, match="no effect on a decoder"):
        import_openprompt('{"soft"} {"mask"} ' + behind, ANSWER)


def config(**changes: Any) -> dict[str, Any]:
    values = {
        "plm": {"model_name": "gpt2"},
        "template": "ptuning_template",
        "ptuning_template": {"text": '{"placeholder":"text_a"} {"soft"} {"mask"}', "prompt_encoder_type": "mlp"},
        "verbalizer": "manual_verbalizer",
        "manual_verbalizer": {"label_words": [["bad"], ["good", "great"]]},
        "dataloader": {"max_seq_length": 128},
    }
    return values | changes


def test_a_configuration_decides_more() -> None:
    found = import_openprompt_config(config(), MASK, None)
    assert found.template == "{text_a~} [P][ANSWER:label]"
    assert found.settings == {
        "encoder_reparameterization_type": "MLP", "max_length": 128, "labels": {"0": " bad", "1": " good"},
    }  # fmt: skip
    assert found.notes == ("Only the first word of each label is used, where OpenPrompt averages: 1 (1 more).",)
    assert "[MASK:label]" in import_openprompt_config(config(), MASK, TargetKind.MASK).template


@pytest.mark.parametrize(("name", "count"), [("soft_template", 20), ("prefix_tuning_template", 5)])
def test_templates_with_soft_tokens_in_front_say_how_many(name: str, count: int) -> None:
    block = {"text": '{"placeholder":"text_a"} {"mask"}'}
    found = import_openprompt_config(config(template=name, **{name: block}), MASK, None)
    assert found.template == f"[P*{count}]{{text_a~}} [ANSWER:label]"
    assert any("encoder" in note for note in found.notes)


def test_files_that_a_configuration_names_are_not_opened() -> None:
    with pytest.raises(TemplateError, match="not opened"):
        import_openprompt_config(config(ptuning_template={"file_path": "/etc/passwd"}), MASK, None)
    found = import_openprompt_config(config(manual_verbalizer={"file_path": "/etc/passwd"}), MASK, None)
    assert "labels" not in found.settings and "/etc/passwd" in found.notes[0]
