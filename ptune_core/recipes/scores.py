"""What recipes measure: predictions of N test rows -> numbers between 0 and 1, by name; the first decides.

A prediction is a label, a word, or a generated text.
"""

from __future__ import annotations

import re
import statistics
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from ptune_core.training.metrics import accuracy, confusion_matrix, macro_f1

Row = Mapping[str, str]
Numbers = dict[str, float]

_NUMBER = re.compile(r"-?\d[\d,]*(?:\.\d+)?")


@dataclass(frozen=True)
class Score:
    """One way to measure.

    Attributes:
        measure: `[N]` test rows, `[N]` predictions and the target's column -> numbers.
        constants: Predictions that look at no row, as `[N]` lists, whose best is the majority line; may be none.
    """

    measure: Callable[[Sequence[Row], Sequence[str], str], Numbers]
    constants: Callable[[Sequence[Row], str], list[list[str]]]


def shares_right(rows: Sequence[Row], predicted: Sequence[str], target: str) -> Numbers:
    """Accuracy."""
    return {"accuracy": _accuracy(_gold(rows, target), predicted)}


def precision_at_one(rows: Sequence[Row], predicted: Sequence[str], target: str) -> Numbers:
    """LAMA's P@1: the same share, by its name."""
    return {"P@1": _accuracy(_gold(rows, target), predicted)}


def accuracy_and_macro_f1(rows: Sequence[Row], predicted: Sequence[str], target: str) -> Numbers:
    """CB's two numbers; F1 is the mean over the labels that occur or are predicted."""
    gold = _gold(rows, target)
    number = {label: i for i, label in enumerate(dict.fromkeys([*gold, *predicted]))}
    matrix = confusion_matrix([number[label] for label in gold], [number[label] for label in predicted], len(number))
    return {"accuracy": _accuracy(gold, predicted), "macro-F1": macro_f1(matrix)}


def exact_match_and_f1a(rows: Sequence[Row], predicted: Sequence[str], target: str) -> Numbers:
    """MultiRC's two numbers: questions whose answers are all judged rightly, and F1 of "true" over all answers."""
    gold = _gold(rows, target)
    whole: dict[str, bool] = defaultdict(lambda: True)
    for row, label, said in zip(rows, gold, predicted, strict=True):
        whole[row["group"]] &= label == said
    hits = sum(label == said == "true" for label, said in zip(gold, predicted, strict=True))
    named = gold.count("true") + list(predicted).count("true")
    return {"EM": sum(whole.values()) / len(whole), "F1a": 2 * hits / named if named else 0.0}


def spans_found(rows: Sequence[Row], predicted: Sequence[str], target: str) -> Numbers:
    """WSC's accuracy: a row counts as true if the text that was generated names the span, as PET compares them."""
    said = ["true" if _same_span(text, row[target]) else "false" for row, text in zip(rows, predicted, strict=True)]
    return {"accuracy": _accuracy(_gold(rows, "label"), said)}


def last_numbers_right(rows: Sequence[Row], predicted: Sequence[str], target: str) -> Numbers:
    """GSM8K's exact match of the number that a solution ends with."""
    gold = [final_number(row[target]) for row in rows]
    found = [final_number(text) for text in predicted]
    right = sum(a is not None and a == b for a, b in zip(gold, found, strict=True))
    return {"exact match": right / len(gold)}


def final_number(text: str) -> float | None:
    """The number after the last "answer is" or ``####``, else the last number of all; None if there is none."""
    _, *endings = re.split(r"(?i)####|answer is", text)
    found = [number for ending in endings[-1:] for number in _NUMBER.findall(ending)[:1]] + _NUMBER.findall(text)[-1:]
    return float(found[0].replace(",", "")) if found else None


def _same_span(found: str, wanted: str) -> bool:
    """Whether all words of one are among the words of the other."""
    words, others = ({*re.findall(r"[\w']+", text.lower())} for text in (found, wanted))
    return bool(words) and (words <= others or others <= words)


def _gold(rows: Sequence[Row], target: str) -> list[str]:
    return [row[target].strip() for row in rows]


def _accuracy(gold: Sequence[str], predicted: Sequence[str]) -> float:
    number = {label: i for i, label in enumerate({*gold, *predicted})}
    return accuracy([number[label] for label in gold], [number[label] for label in predicted])


def _each_label(rows: Sequence[Row], target: str) -> list[list[str]]:
    most = Counter(_gold(rows, target)).most_common(4)
    return [[label] * len(rows) for label, _ in most]


def _all_or_no_span(rows: Sequence[Row], target: str) -> list[list[str]]:
    return [[row[target] for row in rows], [""] * len(rows)]


SCORES: dict[str, Score] = {
    "accuracy": Score(shares_right, _each_label),
    "P@1": Score(precision_at_one, _each_label),
    "accuracy, macro-F1": Score(accuracy_and_macro_f1, _each_label),
    "EM, F1a": Score(exact_match_and_f1a, _each_label),
    "span": Score(spans_found, _all_or_no_span),
    "final number": Score(last_numbers_right, lambda rows, target: []),
}
"""Every way to measure, by the name that a recipe calls it."""


def majority(score: Score, rows: Sequence[Row], target: str) -> Numbers | None:
    """The best that a constant prediction reaches by the first number; None where there is no constant to name."""
    found = [score.measure(rows, constant, target) for constant in score.constants(rows, target)]
    return max(found, key=lambda numbers: next(iter(numbers.values())), default=None)


def mean_and_deviation(values: Sequence[float]) -> tuple[float, float | None]:
    """Mean, and the standard deviation of a sample; None for one value."""
    return statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None
