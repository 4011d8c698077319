"""A row's own answers: from the table to the rows, and which rows can be used."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ptune_core.data.choices import pack, unpack
from ptune_core.data.examples import SplitOptions, build_examples
from ptune_core.data.ingest import ingest_text
from ptune_core.errors import DataError
from ptune_core.prompt.template import parse_template

COPA = """text,one,two,label
It rained.,the street is wet,the sun came out,0
He fell.,he laughed,it hurt,1
She ran.,,she was late,1
They sang.,it was dark,it was a feast,1
It rained.,the dog slept,the sun came out,1
"""
ANSWERS = {"0": " {one}", "1": " {two|strip}"}


@pytest.mark.parametrize("choices", [(), ((5,), (6, 7, 8)), ((1, 2), (3,), (4,))])
def test_choices_are_stored_as_one_list(choices: tuple[tuple[int, ...], ...]) -> None:
    assert unpack(np.array(pack(choices), dtype=np.int32)) == choices


def test_rows_come_with_the_columns_of_their_answers(tmp_path: Path) -> None:
    table = ingest_text(COPA, tmp_path)
    template = parse_template("{text} [P*2][ANSWER:label]")
    examples = build_examples(
        table, template, columns={}, labels=ANSWERS, split=SplitOptions(0.3, 10, 0), validation=table
    )
    assert examples.report.dropped == {"empty one": [4]}
    assert examples.report.duplicates == 0, "the same text with other choices is another example"
    assert examples.verbalizer is not None
    first, second, *_ = examples.train
    assert examples.verbalizer.filled(first.values) == (" the street is wet", " the sun came out")
    assert second.values["two"] == "it hurt" and examples.train.labels is not None
    assert examples.train.labels.tolist() == [0, 1, 1, 1]


def test_a_column_that_is_not_there_is_told(tmp_path: Path) -> None:
    table, split = ingest_text(COPA.replace("two", "other"), tmp_path), SplitOptions(0.3, 10, 0)
    with pytest.raises(DataError, match=r"no column was found for \{two\}"):
        build_examples(table, parse_template("{text} [P*2][ANSWER:label]"), columns={}, labels=ANSWERS, split=split)


def test_no_labels_at_all_make_a_text(tmp_path: Path) -> None:
    """Few different values look like labels, unless it is said that there are none."""
    table = ingest_text(COPA, tmp_path)
    template = parse_template("{text} [P*2][ANSWER:label]")
    guessed, told = (
        build_examples(table, template, columns={}, labels=labels, split=SplitOptions(0.3, 10, 0), validation=table)
        for labels in (None, {})
    )
    assert guessed.verbalizer is not None and told.verbalizer is None
