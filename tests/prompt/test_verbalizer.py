"""Labels and their answer words."""

from __future__ import annotations

import pytest

from ptune_core.errors import SettingsError
from ptune_core.prompt.verbalizer import Verbalizer


def by_character(text: str) -> list[int]:
    return [ord(char) for char in text.strip()]


def by_word(text: str) -> list[int]:
    return [len(word) for word in text.split()]


def test_a_label_is_its_own_answer_after_a_space() -> None:
    verbalizer = Verbalizer.from_labels(["no", "yes"])
    assert verbalizer.answers == {"no": " no", "yes": " yes"}
    assert verbalizer.labels == ("no", "yes")


def test_the_labels_keep_their_order_whatever_the_answers_have() -> None:
    verbalizer = Verbalizer.from_labels(["0", "1"], {"1": " Yes", "0": " No"})
    assert verbalizer.labels == ("0", "1")
    assert verbalizer.first_ids(by_character) == [ord("N"), ord("Y")]
    assert list(verbalizer.token_ids(by_character)) == ["0", "1"]
    assert verbalizer.token_ids(by_character)["0"] == [ord("N"), ord("o")]


def test_all_problems_of_the_answers_are_told_at_once() -> None:
    with pytest.raises(SettingsError) as caught:
        Verbalizer.from_labels(["a", "b", "c"], {"a": " ", "x": " X", "b": " B", "y": " Y"})
    text = str(caught.value)
    assert "no answer for 'c'" in text
    assert "the data has no label 'x', 'y'" in text
    assert "the answer for 'a' is empty" in text
    assert "each of 'a', 'b', 'c'" in text


@pytest.mark.parametrize("labels", [[], ["a"], ["a", "a"]])
def test_one_label_is_no_choice(labels: list[str]) -> None:
    with pytest.raises(SettingsError, match="takes two"):
        Verbalizer.from_labels(labels)


def test_many_labels_are_not_all_listed() -> None:
    with pytest.raises(SettingsError, match="and 30 more"):
        Verbalizer.from_labels([str(n) for n in range(50)], {})


def test_answers_with_the_same_first_token_are_all_named() -> None:
    answers = {"0": " Yes", "1": " Yeah", "2": " No", "3": " Nope", "4": " Maybe", "5": " \u200b"}
    with pytest.raises(SettingsError) as caught:
        Verbalizer(answers).first_ids(lambda text: [ord(c) for c in text.strip(" \u200b")])
    text = str(caught.value)
    assert "' Yes', ' Yeah' begin with the same token" in text
    assert "' No', ' Nope' begin with the same token" in text
    assert "Maybe" not in text
    assert "has no token" in text


def test_mask_answers_have_exactly_as_many_tokens_as_masks() -> None:
    verbalizer = Verbalizer({"0": "a bb", "1": "bb a"})
    assert verbalizer.mask_ids(by_word, 2) == [[1, 2], [2, 1]]
    with pytest.raises(SettingsError) as caught:
        verbalizer.mask_ids(by_word, 1)
    assert "'a bb' has 2 tokens" in str(caught.value) and "'bb a' has 2 tokens" in str(caught.value)
    with pytest.raises(SettingsError, match="has 2 tokens, the template 3 mask tokens"):
        verbalizer.mask_ids(by_word, 3)


def test_mask_answers_with_the_same_tokens_are_named() -> None:
    with pytest.raises(SettingsError, match="'a', 'b' have the same tokens"):
        Verbalizer({"0": "a", "1": "b", "2": "cc"}).mask_ids(by_word, 1)


def test_answers_are_filled_from_the_row() -> None:
    answers = {"0": " {choice1|strip_punct|lower_first}.", "1": " not { choice2 }"}
    verbalizer = Verbalizer.from_labels(["0", "1"], answers)
    assert verbalizer.columns == ("choice1", "choice2")
    filled = verbalizer.filled({"choice1": "The dog ran!", "choice2": "a cat", "other": "x"})
    assert filled == (" the dog ran.", " not a cat")
    assert Verbalizer.from_labels(["0", "1"], {"0": " {", "1": " }"}).columns == ()


def test_an_unknown_filter_is_told() -> None:
    with pytest.raises(SettingsError, match="no filter 'shout'"):
        Verbalizer.from_labels(["0", "1"], {"0": " {a|shout}", "1": " {b}"})
