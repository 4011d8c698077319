from __future__ import annotations

import tracemalloc
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ptune_core.data.examples import Example, SplitOptions, build_examples, read_rows
from ptune_core.data.ingest_child import Task, run
from ptune_core.data.kinds import Kind
from ptune_core.data.limits import Limits
from ptune_core.data.table import ROW, Table, open_table
from ptune_core.errors import DataError, SettingsError
from ptune_core.prompt.template import parse_template

TEMPLATE = parse_template("{text~} [P*4][ANSWER:label]")
HEAD = parse_template("[P*4] {text} [HEAD:label]")
SPLIT = SplitOptions(fraction=0.25, max_rows=1000, seed=0)

Make = Callable[..., Table]


@pytest.fixture
def table(tmp_path: Path) -> Make:
    """Builds a table from rows of (text, label) through the CSV reader."""

    def make(rows: Sequence[Sequence[str]], header: Sequence[str] = ("text", "label")) -> Table:
        out = tmp_path / f"table-{len(list(tmp_path.iterdir()))}"
        out.mkdir()
        lines = ["\t".join(row) for row in (header, *rows)]
        (out / "rows.tsv").write_text("\n".join(lines), encoding="utf-8")
        run(Task(out / "rows.tsv", "rows.tsv", Kind.TSV, out, Limits()))
        return open_table(out)

    return make


def many(count: int, *labels: str) -> list[tuple[str, str]]:
    return [(f"text {index}", labels[index % len(labels)]) for index in range(count)]


def label_counts(examples: Iterable[Example]) -> Counter[str]:
    return Counter(example.values["label"] for example in examples)


def test_every_dropped_row_is_counted_and_explained(table: Make) -> None:
    rows = many(312, "no", "yes")
    for place in (10, 20, 30, 40, 50):
        rows.insert(place, ("", "yes"))
    for place in (60, 70, 80):
        rows.insert(place, ("what", "perhaps"))
    rows.insert(90, ("only a text",))  # type: ignore[arg-type]
    examples = build_examples(table(rows), TEMPLATE, columns={}, labels={"no": " No", "yes": " Yes"}, split=SPLIT)
    report = examples.report
    assert report.summary() == (
        "Using 312 of 321 rows; 9 dropped: 5 empty text, 3 unknown label, 1 wrong number of columns"
    )
    # The header is line 1, so row i of the list is in line i + 2.
    assert report.dropped == {
        "wrong number of columns": [92],
        "empty text": [12, 22, 32, 42, 52],
        "unknown label": [62, 72, 82],
    }
    assert report.used + sum(map(len, report.dropped.values())) == report.total
    assert len(examples.train) + len(examples.validation) == report.used == 312
    assert any('"perhaps" (3)' in warning for warning in report.warnings)


def test_an_empty_input_beside_another_is_used_and_told(table: Make) -> None:
    """As in Alpaca: more than half of the instructions have no input."""
    template = parse_template("{instruction} {input} [P*4][ANSWER:output]")
    rows = [("do this", "", "done"), ("do", "that", "ok"), ("", "", "what"), ("add", "one", ""), ("", "two", "2")]
    data = table(rows, header=("instruction", "input", "output"))
    report = build_examples(data, template, columns={}, labels=None, split=SPLIT).report
    assert report.summary() == "Using 3 of 5 rows; 2 dropped: 1 empty instruction and input, 1 empty output"
    assert "1 row without input: used as they are." in report.warnings


def test_a_template_without_input_columns(table: Make) -> None:
    template = parse_template("[P*4][ANSWER:label]")
    examples = build_examples(table(many(8, "a", "b")), template, columns={}, labels=None, split=SPLIT)
    assert len(examples.train) == 6 and len(examples.validation) == 2


def test_rows_without_input_columns_are_not_copies_of_each_other(table: Make) -> None:
    """They were told to be the same, and minus six of them to have another label."""
    template = parse_template("[P*4][ANSWER:label]")
    data = table(many(8, "a", "b"))
    report = build_examples(data, template, columns={}, labels=None, split=SPLIT, validation=data).report
    assert report.duplicates == 0 and report.warnings == ()


def test_the_data_pass_keeps_no_texts(tmp_path: Path) -> None:
    """A text takes some numbers, however long it is."""
    count, length = 20_000, 1000
    rows = {ROW: range(count), "text": [f"{i} " + "x" * length for i in range(count)], "label": ["a", "b"] * 10_000}
    pq.write_table(pa.table(rows), tmp_path / "table.parquet")
    data = Table(tmp_path / "table.parquet", ("text", "label"), count, [])
    del rows
    tracemalloc.start()
    examples = build_examples(data, TEMPLATE, columns={}, labels=None, split=SPLIT)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < count * length / 4
    assert [example.row for example in examples.train.read([7, 0])] == examples.train.rows[[7, 0]].tolist()


def test_a_few_examples_are_read_in_any_order(table: Make) -> None:
    examples = build_examples(table(many(2500, " a", "b ")), TEMPLATE, columns={}, labels=None, split=SPLIT).train
    everything = list(examples)
    assert examples.read([1800, 3, 3, 0]) == [everything[i] for i in (1800, 3, 3, 0)]
    assert {example.values["label"] for example in everything} == {"a", "b"}


def test_two_columns_of_a_template_may_be_one_of_the_data(table: Make) -> None:
    template = parse_template("{a} or {b} [P*4][ANSWER:label]")
    columns = {"a": "text", "b": "text"}
    examples = build_examples(table(many(8, "x", "y")), template, columns=columns, labels=None, split=SPLIT)
    assert all(example.values["a"] == example.values["b"] for example in examples.train)


def test_all_rows_used_says_so(table: Make) -> None:
    examples = build_examples(table(many(8, "a", "b")), TEMPLATE, columns={}, labels=None, split=SPLIT)
    assert examples.report.summary() == "Using all 8 rows"


def test_words_for_nothing_stay_text(table: Make) -> None:
    words = ["NA", "null", "None", "nan", "N/A", "-"]
    rows = [(word, label) for word in words for label in ("None", "null")]
    examples = build_examples(table(rows), TEMPLATE, columns={}, labels=None, split=SPLIT)
    assert examples.report.used == 12
    assert {example.values["text"] for example in (*examples.train, *examples.validation)} == set(words)
    assert examples.verbalizer is not None and examples.verbalizer.labels == ("None", "null")


def test_examples_carry_the_rows_number_and_the_templates_names(table: Make) -> None:
    rows = table([(f"{index % 2}", f"film {index}", "x") for index in range(8)], header=("sentiment", "review", "id"))
    examples = build_examples(rows, TEMPLATE, columns={}, labels=None, split=SPLIT)
    numbers = sorted(example.row for example in (*examples.train, *examples.validation))
    assert numbers == list(range(2, 10))
    assert all(list(example.values) == ["text", "label"] for example in examples.train)


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        (["10", "9", "2"], ("2", "9", "10")),
        (["-1", "1.5", "0"], ("-1", "0", "1.5")),
        (["item 10", "item 9"], ("item 9", "item 10")),
        (["b", "10", "a"], ("10", "a", "b")),
        (["yes ", " no"], ("no", "yes")),
    ],
)
def test_labels_stand_in_natural_order(table: Make, labels: list[str], expected: tuple[str, ...]) -> None:
    examples = build_examples(table(many(12, *labels)), TEMPLATE, columns={}, labels=None, split=SPLIT)
    assert examples.verbalizer is not None
    assert examples.verbalizer.labels == expected
    assert tuple(examples.report.labels) == expected


def test_given_labels_keep_their_order_and_answers(table: Make) -> None:
    answers = {"yes": " Yes", "no": " No", "maybe": " Hm"}
    examples = build_examples(table(many(8, "no", "yes")), TEMPLATE, columns={}, labels=answers, split=SPLIT)
    assert examples.verbalizer is not None and examples.verbalizer.answers == answers
    assert examples.report.labels == {"yes": 4, "no": 4, "maybe": 0}
    assert 'No row has the label "maybe".' in examples.report.warnings


def test_an_answer_without_words_is_an_error(table: Make) -> None:
    with pytest.raises(SettingsError, match="'yes' is empty"):
        build_examples(table(many(8, "no", "yes")), TEMPLATE, columns={}, labels={"no": " No", "yes": " "}, split=SPLIT)


@pytest.mark.parametrize("rows", [many(8, "1"), [*many(8, "1"), ("", "0")]])
def test_one_class(table: Make, rows: list[tuple[str, str]]) -> None:
    with pytest.raises(DataError, match='All rows have the label "1"'):
        build_examples(table(rows), TEMPLATE, columns={}, labels=None, split=SPLIT)


def test_one_class_of_given_labels(table: Make) -> None:
    with pytest.raises(DataError, match='All rows have the label "1"'):
        build_examples(table(many(8, "1")), TEMPLATE, columns={}, labels={"0": " No", "1": " Yes"}, split=SPLIT)


def test_labels_that_never_match_are_told_beside_those_that_would(table: Make) -> None:
    """Integers that went through a float column of pandas: "1.0" is not "1"."""
    with pytest.raises(DataError, match="too few usable rows") as error:
        build_examples(table(many(8, "1.0", "0.0")), TEMPLATE, columns={}, labels={"0": " N", "1": " Y"}, split=SPLIT)
    assert any('"1.0" (4)' in line and '"0", "1"' in line for line in error.value.problems)


def test_more_than_a_thousand_labels(table: Make) -> None:
    with pytest.raises(DataError, match="too many labels"):
        build_examples(table(many(1001, *map(str, range(1001)))), HEAD, columns={}, labels=None, split=SPLIT)


@pytest.mark.parametrize(("labels", "word"), [(["1", "1.0"], "one number"), (["Good", "good"], "upper and lower case")])
def test_labels_that_may_be_the_same_are_told(table: Make, labels: list[str], word: str) -> None:
    examples = build_examples(table(many(8, *labels)), TEMPLATE, columns={}, labels=None, split=SPLIT)
    assert any(word in warning for warning in examples.report.warnings)


@pytest.mark.parametrize(
    ("different", "rows", "is_label"), [(2, 4, True), (50, 100, True), (51, 102, False), (50, 99, False), (4, 4, False)]
)
def test_few_different_values_are_labels(table: Make, different: int, rows: int, is_label: bool) -> None:
    data = table(many(rows, *(f"value {index}" for index in range(different))))
    examples = build_examples(data, TEMPLATE, columns={}, labels=None, split=SPLIT)
    assert (examples.verbalizer is not None) == is_label
    assert bool(examples.report.labels) == is_label


def test_a_head_always_has_labels(table: Make) -> None:
    data = table(many(180, *(f"intent {index}" for index in range(60))))
    assert build_examples(data, TEMPLATE, columns={}, labels=None, split=SPLIT).verbalizer is None
    examples = build_examples(data, HEAD, columns={}, labels=None, split=SPLIT)
    assert examples.verbalizer is not None and len(examples.verbalizer.labels) == 60


def test_free_text_with_returning_values_is_told(table: Make) -> None:
    data = table(many(180, *(f"intent {index}" for index in range(60))))
    examples = build_examples(data, TEMPLATE, columns={}, labels=None, split=SPLIT)
    assert any("60 different values" in warning for warning in examples.report.warnings)


def test_copies_are_counted_and_stay_on_one_side(table: Make) -> None:
    rows = [(f"text {index % 20}", "ab"[index % 2]) for index in range(60)]
    examples = build_examples(table(rows), TEMPLATE, columns={}, labels=None, split=SPLIT)
    assert examples.report.duplicates == 40
    assert any("40 rows the same" in told and "(rows 22, 23, " in told for told in examples.report.warnings)
    sides = [{example.values["text"] for example in side} for side in (examples.train, examples.validation)]
    assert sides[0].isdisjoint(sides[1]) and all(sides)


def test_one_text_with_two_labels_is_told(table: Make) -> None:
    rows = [*many(8, "a", "b"), ("text 0", "b")]
    examples = build_examples(table(rows), TEMPLATE, columns={}, labels=None, split=SPLIT)
    assert "1 row with the text of an earlier row, but another label: row 10." in examples.report.warnings


def test_rows_of_a_second_file_validate(table: Make) -> None:
    validation = table([("new one", "a"), ("text 1", "b"), ("other", "c"), ("", "a")])
    examples = build_examples(
        table(many(8, "a", "b")), TEMPLATE, columns={}, labels=None, split=SPLIT, validation=validation
    )
    assert len(examples.train) == examples.report.used == 8
    assert [example.row for example in examples.validation] == [2, 3]
    told = " ".join(examples.report.warnings)
    assert "Validation data: Using 2 of 4 rows; 2 dropped: 1 empty text, 1 unknown label." in told
    assert "1 row of the validation data with a text that is in the training data too: row 3." in told


def test_a_second_file_without_usable_rows(table: Make) -> None:
    with pytest.raises(DataError, match="validation data has no usable rows"):
        build_examples(
            table(many(8, "a", "b")), TEMPLATE, columns={}, labels=None, split=SPLIT, validation=table([("x", "c")])
        )


def test_too_few_rows(table: Make) -> None:
    with pytest.raises(DataError, match="too few usable rows") as error:
        build_examples(table([("a", "1"), ("", "0"), ("b", "")]), TEMPLATE, columns={}, labels=None, split=SPLIT)
    assert error.value.problems == ("empty text: row 3", "empty label: row 4")


def test_the_split_is_by_label_and_by_seed(table: Make) -> None:
    data = table(many(400, "a", "b", "b", "b"))

    def rows(seed: int) -> list[int]:
        split = SplitOptions(0.2, 1000, seed)
        examples = build_examples(data, TEMPLATE, columns={}, labels=None, split=split)
        assert label_counts(examples.validation) == {"a": 20, "b": 60}
        assert label_counts(examples.train) == {"a": 80, "b": 240}
        return [example.row for example in examples.validation]

    assert rows(1) == rows(1) != rows(2)


def test_rows_are_read_back_in_order(table: Make) -> None:
    data = table(many(2500, "a", "b"))
    assert list(read_rows(data, ["label", "text"])) == [
        {"label": label, "text": text} for text, label in many(2500, "a", "b")
    ]


def test_in_a_chat_an_answer_has_no_space_in_front(table: Make) -> None:
    """After `<|assistant|>` and a line break, " yes" is a token no chat model says: its zero-shot line was too low."""
    chat = parse_template("user: {text} [P*2]\nassistant: [ANSWER:label]")
    for template, answer in ((chat, "yes"), (TEMPLATE, " yes")):
        examples = build_examples(table(many(8, "no", "yes")), template, columns={}, labels=None, split=SPLIT)
        assert examples.verbalizer is not None and examples.verbalizer.answers["yes"] == answer


def test_a_guessed_column_is_told(table: Make) -> None:
    """`{foo}` and `[ANSWER:bar]` trained on columns of other names without a word."""
    template = parse_template("{foo} [P*2][ANSWER:bar]")
    guessed = build_examples(table(many(8, "no", "yes")), template, columns={}, labels=None, split=SPLIT)
    assert guessed.report.warnings[-2:] == (
        "{foo} of the template is read from the column 'text'",
        "{bar} of the template is read from the column 'label'",
    )
    said = {"foo": "text", "bar": "label"}
    chosen = build_examples(table(many(8, "no", "yes")), template, columns=said, labels=None, split=SPLIT)
    assert not any("read from" in warning for warning in chosen.report.warnings)


def few(per_label: int, seed: int = 0) -> SplitOptions:
    return replace(SPLIT, per_label=per_label, seed=seed)


def test_a_few_shot_run_takes_so_many_of_each_label(table: Make) -> None:
    rows = table([*many(60, "a", "b"), *[(f"rare {i}", "c") for i in range(6)]])
    everything = build_examples(rows, TEMPLATE, columns={}, labels=None, split=SPLIT)
    shots = {k: build_examples(rows, TEMPLATE, columns={}, labels=None, split=few(k)) for k in (2, 4, 8, 1000)}
    numbers = {k: set(each.train.rows.tolist()) for k, each in shots.items()}
    assert label_counts(shots[4].train) == {"a": 4, "b": 4, "c": 4}
    assert label_counts(shots[8].train) == {"a": 8, "b": 8, "c": label_counts(everything.train)["c"]}
    assert numbers[2] < numbers[4] < numbers[8] < numbers[1000] == set(everything.train.rows.tolist())
    for each in shots.values():
        assert each.validation.rows.tolist() == everything.validation.rows.tolist(), "validation stays the same"
    assert "; 12 to train on, at most 4 for each label, and 16 to validate on" in shots[4].report.summary()
    assert "to train on" not in everything.report.summary()


def test_the_seed_decides_which_few(table: Make) -> None:
    rows = table(many(80, "a", "b"))
    drawn = [
        build_examples(rows, TEMPLATE, columns={}, labels=None, split=few(4, seed)).train.rows.tolist()
        for seed in (1, 1, 2)
    ]
    assert drawn[0] == drawn[1] != drawn[2]


def test_of_text_to_generate_a_few_shot_run_takes_so_many_rows(table: Make) -> None:
    rows = table([(f"text {i}", f"summary {i}") for i in range(40)])
    examples = build_examples(rows, TEMPLATE, columns={}, labels={}, split=few(5))
    assert len(examples.train) == 5 and len(examples.validation) == 10
