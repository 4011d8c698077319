"""Tokenised rows on disk: the same rows as one by one, made once and when needed, in memory that does not grow."""

from __future__ import annotations

import gc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from transformers import AutoTokenizer

from ptune_core.data import tokens
from ptune_core.data.batching import RowMaker
from ptune_core.data.examples import Example, ExampleSet
from ptune_core.data.order import BatchOrder, first_epoch
from ptune_core.data.table import ROW, Table
from ptune_core.data.tokens import TokenRows, stretch_bounds, which_fit
from ptune_core.errors import DataError
from ptune_core.prompt.template import parse_template

WORDS = ["great", "film", "terrible ;", "über", "日本", "dog"]
LABELLED = "so {text~} it is [P*3] then[ANSWER:label]"


def examples_in(directory: Path, count: int, *, labelled: bool = True) -> ExampleSet:
    """Texts of one to forty words, in a file of several row groups."""
    numbers = np.arange(count)
    texts = [" ".join(WORDS[(i * j) % 6] for j in range(1 + i % 40)) + f" {i}" for i in range(count)]
    labels = [f"answer {'dog ' * (i % 7)}" for i in range(count)]
    directory.mkdir(exist_ok=True)
    table = Table(directory / "table.parquet", ("text", "label"), count, [])
    columns = pa.table({ROW: numbers + 2, "text": texts, "label": labels})
    pq.write_table(columns, table.path, row_group_size=700)
    mapping = {"text": "text", "label": "label"}
    return ExampleSet(table, mapping, "label", numbers, numbers + 2, numbers % 2 if labelled else None)


@pytest.fixture
def maker(tiny_gpt2: Path) -> RowMaker:
    return RowMaker(AutoTokenizer.from_pretrained(tiny_gpt2), parse_template(LABELLED), 60)


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many rows each call tokenised."""
    calls: list[int] = []
    original = RowMaker.rows

    def rows(self: RowMaker, examples: Any, reserve: Any = None) -> Any:
        calls.append(len(examples))
        return original(self, examples, reserve)

    monkeypatch.setattr(RowMaker, "rows", rows)
    return calls


@pytest.mark.parametrize("labelled", [True, False])
def test_rows_from_disk_are_the_rows_made_one_by_one(tmp_path: Path, maker: RowMaker, labelled: bool) -> None:
    examples = examples_in(tmp_path, 2500, labelled=labelled)
    rows = TokenRows(examples, maker, tmp_path, first_epoch(2500, seed=1))
    chosen = [2499, 0, 39, 1023, 1024, 39]
    for index, row, answer in zip(chosen, rows.rows(chosen), rows.answers(chosen), strict=True):
        [example] = examples.read([index])
        expected = [] if labelled else maker.answer_ids(example.values["label"])
        assert answer == expected
        assert row == maker.row(example.values, reserve=len(expected))
        assert rows.lengths_of(np.array([index])).tolist() == [len(row.ids) + len(expected)]
    assert any(row.num_cut for row in rows.rows(range(40)))


def test_a_short_run_tokenises_the_rows_it_comes_to(
    tmp_path: Path, maker: RowMaker, counted: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tokens, "FIRST_STRETCH", 512)
    count = 6000
    rows = TokenRows(examples_in(tmp_path, count), maker, tmp_path, first_epoch(count, seed=0))
    order = BatchOrder(rows.lengths_of, count, 16, seed=0)
    for position in range(32):
        rows.rows(order.indices(position))
    assert sum(counted) == 512
    rows.rows(order.indices(32))
    assert sum(counted) == 1024


def test_rows_are_tokenised_once_and_used_again_after_an_interruption(
    tmp_path: Path, maker: RowMaker, counted: list[int]
) -> None:
    examples = examples_in(tmp_path, 600)
    first = TokenRows(examples, maker, tmp_path / "tokens").rows(range(600))
    (tmp_path / "tokens" / ".tmp-1-left-behind.arrow").write_bytes(b"half a file")
    done = sum(counted)
    again = TokenRows(examples, maker, tmp_path / "tokens")
    assert again.rows(range(600)) == first and sum(counted) == done


@pytest.mark.parametrize("other", ["data", "split", "template", "length"])
def test_rows_of_other_data_or_settings_are_made_anew(
    tmp_path: Path, maker: RowMaker, counted: list[int], other: str
) -> None:
    examples = examples_in(tmp_path, 600)
    TokenRows(examples, maker, tmp_path / "tokens").rows([0])
    if other == "data":
        examples = examples_in(tmp_path / "other", 601).select(np.arange(600))
    if other == "split":
        examples = examples.select(np.arange(1, 600))
    if other == "template":
        maker = RowMaker(maker.tokenizer, parse_template("{text} [P*3] then[ANSWER:label]"), 60)
    if other == "length":
        maker = RowMaker(maker.tokenizer, parse_template(LABELLED), 61)
    before = sum(counted)
    [row] = TokenRows(examples, maker, tmp_path / "tokens").rows([0])
    assert sum(counted) == before + len(examples)
    assert row == maker.row(next(iter(examples)).values)


def test_a_file_that_could_not_be_finished_is_not_there(
    tmp_path: Path, maker: RowMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = TokenRows(examples_in(tmp_path, 1100), maker, tmp_path / "tokens")

    def full(*_: object) -> None:
        raise OSError("no space left")

    with monkeypatch.context() as patched, pytest.raises(OSError, match="no space"):
        patched.setattr(tokens.os, "fsync", full)
        rows.rows([0])
    assert list((tmp_path / "tokens").iterdir()) == []
    assert rows.rows([0])


def test_examples_and_texts_do_not_pile_up(tmp_path: Path, maker: RowMaker, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many rows there are, no more than a group of them is alive as Python objects."""
    alive: list[int] = []
    original: Callable[..., Any] = RowMaker.rows

    def rows(self: RowMaker, examples: Any, reserve: Any = None) -> Any:
        alive.append(sum(type(thing) is Example for thing in gc.get_objects()))
        return original(self, examples, reserve)

    monkeypatch.setattr(RowMaker, "rows", rows)
    examples = examples_in(tmp_path, 9000)
    token_rows = TokenRows(examples, maker, tmp_path, first_epoch(9000, seed=0))
    token_rows.lengths_of(np.arange(9000))
    assert len(alive) == 9 and max(alive) <= 2 * 1024
    assert which_fit(examples, maker).all()


@pytest.mark.parametrize("count", [0, 1, 4096, 4097, 100_000, 1_000_000])
def test_stretches_begin_short_and_double_up_to_a_length(count: int) -> None:
    bounds = stretch_bounds(count)
    sizes = np.diff(bounds)
    assert bounds[0] == 0 and bounds[-1] == count
    assert all(size <= 65_536 for size in sizes)
    assert all(after in (before, 2 * before) for before, after in zip(sizes[1:-2], sizes[2:-1], strict=True))


def test_one_long_answer_after_many_rows_is_the_one_left_out(tmp_path: Path, tiny_gpt2: Path) -> None:
    """Bug: the end of each 1024 rows swallowed an index, so that a row before the long one was left out."""
    examples = examples_in(tmp_path, 2500, labelled=False)
    maker = RowMaker(AutoTokenizer.from_pretrained(tiny_gpt2), parse_template(LABELLED), 40)
    table = pq.read_table(examples.table.path)
    labels = table["label"].to_pylist()
    for row in (1500, 2499):
        labels[row] = "dog " * 50
    pq.write_table(table.set_column(2, "label", pa.array(labels)), examples.table.path, row_group_size=700)
    assert np.flatnonzero(~which_fit(examples, maker)).tolist() == [1500, 2499]


def test_only_answers_that_leave_no_room_are_left_out(tmp_path: Path, tiny_gpt2: Path) -> None:
    examples = examples_in(tmp_path, 300, labelled=False)
    maker = RowMaker(AutoTokenizer.from_pretrained(tiny_gpt2), parse_template(LABELLED), 19)
    fits = which_fit(examples, maker)
    assert 0 < fits.sum() < 300
    for example, fit in zip(examples, fits, strict=True):
        answer = maker.answer_ids(example.values["label"])
        if fit:
            assert len(maker.row(example.values, reserve=len(answer)).ids) + len(answer) <= 19
        else:
            with pytest.raises(DataError):
                maker.row(example.values, reserve=len(answer))
