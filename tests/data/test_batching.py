"""Rows and batches: nothing but columns is cut, padding changes nothing, a resumed order is the same order."""

from __future__ import annotations

from pathlib import Path

import pytest
from transformers import AutoTokenizer

from ptune_core.data.batching import RowMaker
from ptune_core.errors import BaseModelError, DataError, SettingsError
from ptune_core.prompt.template import parse_template


def maker(folder: Path, template: str, max_length: int = 60) -> RowMaker:
    return RowMaker(AutoTokenizer.from_pretrained(folder), parse_template(template), max_length)


def test_front_row_is_virtual_tokens_and_what_a_peft_user_tokenises(tiny_gpt2: Path, tiny_bert: Path) -> None:
    for folder, template in ((tiny_gpt2, "[P*3] {text} [ANSWER:label]"), (tiny_bert, "[P*3] {text} [HEAD:label]")):
        rows = maker(folder, template)
        plain = rows.tokenizer("the film was great")["input_ids"]
        assert rows.row({"text": "the film was great"}).ids == (-1, -2, -3, *plain)


def test_special_tokens_enclose_a_row_whose_prompt_is_not_in_front(tiny_bert: Path) -> None:
    rows = maker(tiny_bert, "{text} [P*2] [HEAD:label]")
    tokenizer = rows.tokenizer
    ids = rows.row({"text": "great film"}).ids
    assert ids[0] == tokenizer.cls_token_id and ids[-1] == tokenizer.sep_token_id
    assert ids[-3:-1] == (-1, -2)


def test_special_tokens_written_in_the_template_are_not_doubled(tiny_bert: Path) -> None:
    rows = maker(tiny_bert, "[CLS] {a} [SEP] [P*2] {b} [SEP] [HEAD:label]")
    ids = rows.row({"a": "great film", "b": "bad food"}).ids
    assert ids.count(rows.tokenizer.cls_token_id) == 1
    assert ids.count(rows.tokenizer.sep_token_id) == 2


def test_text_without_a_break_is_tokenised_as_one_string(tiny_gpt2: Path) -> None:
    rows = maker(tiny_gpt2, "Question: {q}? [P*2] Answer:[ANSWER:a]")
    tokenizer = rows.tokenizer
    ids = rows.row({"q": "is the film great"}).ids
    assert ids == (
        *tokenizer("Question: is the film great?")["input_ids"], -1, -2, *tokenizer(" Answer:")["input_ids"],
    )  # fmt: skip


def test_same_named_group_uses_the_same_vectors(tiny_gpt2: Path) -> None:
    rows = maker(tiny_gpt2, "[P*2:a] {x} [P*1] [P*2:a][ANSWER:y]")
    virtual = [number for number in rows.row({"x": "dog"}).ids if number < 0]
    assert virtual == [-1, -2, -3, -1, -2]


@pytest.mark.parametrize("length", range(0, 120, 7))
def test_only_columns_are_cut(tiny_gpt2: Path, length: int) -> None:
    rows = maker(tiny_gpt2, "Question: {a} and {b~} [P*4] Answer :[ANSWER:y]", max_length=40)
    values = {"a": "the film was great", "b": "dog " * length}
    row = rows.row(values, reserve=5)
    whole = maker(tiny_gpt2, "Question: {a} and {b~} [P*4] Answer :[ANSWER:y]", max_length=10_000).row(values)
    assert len(row.ids) + 5 <= 40
    assert len(whole.ids) - len(row.ids) == row.num_cut
    literal = rows.tokenizer("Question: the film was great and")["input_ids"]
    assert list(row.ids[: len(literal)]) == literal, "the column that is not marked ~ is cut last"
    fixed_end = 4 + len(rows.tokenizer(" Answer :")["input_ids"])
    assert row.ids[-fixed_end:] == whole.ids[-fixed_end:]


def test_longest_column_is_cut_when_none_is_marked(tiny_gpt2: Path) -> None:
    rows = maker(tiny_gpt2, "{a} | {b} [P*2][ANSWER:y]", max_length=30)
    row = rows.row({"a": "great", "b": "dog " * 50})
    assert list(row.ids[: len(rows.tokenizer("great |")["input_ids"])]) == rows.tokenizer("great |")["input_ids"]


def test_an_answer_that_cannot_fit_is_an_error_not_a_cut(tiny_gpt2: Path) -> None:
    rows = maker(tiny_gpt2, "{a} [P*2][ANSWER:y]", max_length=20)
    with pytest.raises(DataError, match="answer is too long"):
        rows.row({"a": "great"}, reserve=19)


def test_template_longer_than_the_positions_is_refused_before_training(tiny_gpt2: Path) -> None:
    with pytest.raises(SettingsError, match="leave no room for data.*Got: 64 tokens.*fewer than 64"):
        maker(tiny_gpt2, "{a} [P*64][ANSWER:y]", max_length=64)


def test_missing_special_token_is_named(tiny_gpt2: Path) -> None:
    with pytest.raises(BaseModelError, match=r"\[SEP\]"):
        maker(tiny_gpt2, "{a} [SEP] [P*2][ANSWER:y]")


def test_text_to_generate_starts_with_a_space_and_ends_with_the_end_token(tiny_gpt2: Path) -> None:
    rows = maker(tiny_gpt2, "{a} [P*2][ANSWER:y]")
    expected = rows.tokenizer(" great film")["input_ids"]
    assert rows.answer_ids("great film ") == [*expected, rows.tokenizer.eos_token_id]
    line = maker(tiny_gpt2, "{a} [P*2] Summary:\n[ANSWER:y]")
    assert line.answer_ids("great film")[:-1] == line.tokenizer("great film")["input_ids"]


@pytest.mark.parametrize("base", ["tiny_gpt2", "tiny_bert"])
@pytest.mark.parametrize("template", ["[P*3] {a} [HEAD:y]", "Q: {a~}{b} [P*2] so, {b|lower}? [P*1:x] A:[HEAD:y]"])
def test_rows_made_together_are_the_rows_made_one_by_one(
    request: pytest.FixtureRequest, base: str, template: str
) -> None:
    rows = maker(request.getfixturevalue(base), template, max_length=40)
    words = ["", "great film", "日本 ", " don't", "dog " * 60, "ÜBER"]
    examples = [{"a": words[i % 6], "b": words[i // 6]} for i in range(36)]
    reserve = [i % 5 for i in range(36)]
    together = rows.rows(examples, reserve)
    assert together == [rows.row(values, reserve=room) for values, room in zip(examples, reserve, strict=True)]
    assert rows.answers(words) == [rows.answer_ids(word) for word in words]


def test_one_example_without_a_row_does_not_take_the_others_with_it(tiny_gpt2: Path) -> None:
    rows = maker(tiny_gpt2, "{a} [P*2][ANSWER:y]", max_length=20)
    fits, too_long = rows.rows([{"a": "great"}] * 2, [3, 19])
    assert fits == rows.row({"a": "great"}) and isinstance(too_long, DataError)
