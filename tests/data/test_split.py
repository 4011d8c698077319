from __future__ import annotations

import random
from collections import Counter

import numpy as np
import pytest

from ptune_core.data.split import SplitOptions, split_by_group
from ptune_core.errors import DataError


def split(labels: list[str] | None, groups: list[str] | None = None, **options: float) -> list[bool]:
    assert labels is not None or groups is not None
    count = len(labels or groups or [])
    values = {"fraction": 0.2, "max_rows": 1000, "seed": 0} | options
    given = SplitOptions(values["fraction"], int(values["max_rows"]), int(values["seed"]))
    keys = np.array(groups or range(count))
    return split_by_group(keys, None if labels is None else np.array(labels), given).tolist()


def sides(labels: list[str], aside: list[bool]) -> tuple[Counter[str], Counter[str]]:
    train = Counter(label for label, away in zip(labels, aside, strict=True) if not away)
    return train, Counter(label for label, away in zip(labels, aside, strict=True) if away)


def test_shares_follow_the_labels() -> None:
    labels = ["a"] * 100 + ["b"] * 300 + ["c"] * 600
    train, validation = sides(labels, split(labels))
    assert validation == {"a": 20, "b": 60, "c": 120}
    assert train == {"a": 80, "b": 240, "c": 480}


def test_small_labels_are_on_both_sides() -> None:
    labels = ["a"] * 95 + ["b"] * 3 + ["c"] * 2
    train, validation = sides(labels, split(labels, fraction=0.1))
    assert set(train) == set(validation) == {"a", "b", "c"}
    assert validation.total() == 10


def test_a_label_with_one_row_is_learnt_from() -> None:
    labels = ["a"] * 10 + ["b"]
    train, validation = sides(labels, split(labels))
    assert train["b"] == 1 and set(validation) == {"a"}


def test_many_labels_and_few_rows() -> None:
    labels = [str(index % 10) for index in range(20)]
    train, validation = sides(labels, split(labels, fraction=0.1))
    assert all(train[label] == validation[label] == 1 for label in labels)


@pytest.mark.parametrize(
    ("count", "fraction", "most", "expected"), [(100, 0.2, 5, 5), (10, 0.01, 9, 1), (2, 0.9, 9, 1)]
)
def test_how_many_are_set_aside(count: int, fraction: float, most: int, expected: int) -> None:
    assert sum(split(None, [str(i) for i in range(count)], fraction=fraction, max_rows=most)) == expected


def test_never_more_than_allowed_even_with_more_labels() -> None:
    labels = [str(index % 50) for index in range(200)]
    assert sum(split(labels, max_rows=7)) == 7


def test_the_seed_decides_and_nothing_else() -> None:
    labels = ["ab"[index % 2] for index in range(100)]
    assert split(labels, seed=3) == split(labels, seed=3)
    assert split(labels, seed=3) != split(labels, seed=4)


def test_the_split_of_a_seed_stays_the_same_in_all_versions() -> None:
    """A resumed run must find the split that it was started with."""
    aside = split(["ab"[index % 2] for index in range(20)], seed=1)
    assert [index for index, away in enumerate(aside) if away] == [9, 12, 16, 17]


def test_groups_stay_together() -> None:
    generator = random.Random(0)
    groups = [str(generator.randrange(40)) for _ in range(200)]
    labels = ["ab"[int(group) % 2] for group in groups]
    aside = split(labels, groups)
    assert {g for g, away in zip(groups, aside, strict=True) if away}.isdisjoint(
        g for g, away in zip(groups, aside, strict=True) if not away
    )
    assert 30 <= sum(aside) <= 40


def test_a_group_larger_than_the_share_is_set_aside_if_there_is_no_other() -> None:
    aside = split(None, ["a"] * 60 + ["b"] * 40)
    assert aside == [False] * 60 + [True] * 40


@pytest.mark.parametrize("labels", [["a", "b", "c"], ["a"], None])
def test_nothing_to_set_aside(labels: list[str] | None) -> None:
    with pytest.raises(DataError, match="No rows can be set aside"):
        split(labels, ["same", "same"] if labels is None else None)
