"""Raw rows of a data set -> rows with the columns that a recipe's template names. Cells are text, as `ingest` reads.

Each adapter takes the forms in which the data set is passed around: the authors' JSONL, the Hub's Parquet, CSV.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from enum import StrEnum
from typing import Any

from ptune_core.errors import DataError

RawRow = Mapping[str, str]
Rows = Iterable[dict[str, str]]


class Split(StrEnum):
    """What rows are for."""

    TRAIN = "train"
    DEV = "dev"
    TEST = "test"


LONGEST_SOLUTION = 1300
"""Characters of question and solution together; PEFT's method comparison leaves out longer ones."""

_TRUTH = {"0": "false", "1": "true"}


def lama(rows: Iterable[RawRow], split: Split) -> Rows:
    """LAMA's facts: `sub_label`, `obj_label`."""
    for row in rows:
        yield {"sub_label": row["sub_label"], "obj_label": row["obj_label"]}


def boolq(rows: Iterable[RawRow], split: Split) -> Rows:
    """BoolQ: a passage and a question that is true or false of it."""
    for row in rows:
        yield {"passage": row["passage"], "question": row["question"], "label": _truth(row["label"])}


def cb(rows: Iterable[RawRow], split: Split) -> Rows:
    """CommitmentBank: entailment, contradiction or neutral."""
    names = {"0": "entailment", "1": "contradiction", "2": "neutral"}
    for row in rows:
        yield {"premise": row["premise"], "hypothesis": row["hypothesis"], "label": _named(row["label"], names)}


def rte(rows: Iterable[RawRow], split: Split) -> Rows:
    """RTE: entailment or not."""
    names = {"0": "entailment", "1": "not_entailment"}
    for row in rows:
        yield {"premise": row["premise"], "hypothesis": row["hypothesis"], "label": _named(row["label"], names)}


def wic(rows: Iterable[RawRow], split: Split) -> Rows:
    """WiC: whether a word means the same in both sentences."""
    for row in rows:
        kept = {name: row[name] for name in ("word", "sentence1", "sentence2")}
        yield kept | {"label": _truth(row["label"])}


def copa(rows: Iterable[RawRow], split: Split) -> Rows:
    """COPA: which of two sentences is cause or effect; training rows come in both orders, as in THUDM's code."""
    for row in rows:
        link = {"cause": "because", "effect": "so"}[row["question"]]
        first, second, right = row["choice1"], row["choice2"], row["label"]
        made = {"premise": row["premise"], "link": link, "choice1": first, "choice2": second, "label": right}
        yield made
        if split is Split.TRAIN:
            yield made | {"choice1": second, "choice2": first, "label": "1" if right == "0" else "0"}


def multirc(rows: Iterable[RawRow], split: Split) -> Rows:
    """MultiRC: one row for each answer of a question; `group` is the question it belongs to."""
    for number, row in enumerate(rows):
        if "passage" not in row:
            place = _nested(row, "idx")
            group = f"{place.get('paragraph')}-{place.get('question')}"
            kept = {"passage": row["paragraph"], "question": row["question"], "answer": row["answer"]}
            yield kept | {"label": _truth(row["label"]), "group": group}
            continue
        passage = _nested(row, "passage")
        for index, question in enumerate(passage["questions"]):
            for answer in question["answers"]:
                yield {
                    "passage": passage["text"],
                    "question": question["question"],
                    "answer": answer["text"],
                    "label": _truth(str(answer["label"])),
                    "group": f"{number}-{index}",
                }


def wsc(rows: Iterable[RawRow], split: Split) -> Rows:
    """WSC as the search for what a pronoun refers to. Only rows where the span is right teach that, so only they train.

    The pronoun stands between stars, as in PET.
    """
    for row in rows:
        target: Mapping[str, Any] = _nested(row, "target") if "target" in row else row
        label = _truth(row["label"])
        if label == "true" or split is Split.TEST:
            pronoun = str(target["span2_text"])
            text = _with_stars(row["text"], int(target["span2_index"]), pronoun)
            yield {"text": text, "pronoun": pronoun, "span": str(target["span1_text"]), "label": label}


def sst2(rows: Iterable[RawRow], split: Split) -> Rows:
    """SST-2: `sentence` or `text`, and 0 or 1, or the names."""
    for row in rows:
        text = row["sentence"] if "sentence" in row else row["text"]
        yield {"text": text, "label": _named(row["label"], {"0": "negative", "1": "positive"})}


def ag_news(rows: Iterable[RawRow], split: Split) -> Rows:
    """AG News: `text` and 0 to 3, or the names; or the authors' CSV with class 1 to 4, title and description."""
    names = ("World", "Sports", "Business", "Sci/Tech")
    for row in rows:
        if "label" in row:
            label = _named(row["label"], {str(i): name for i, name in enumerate(names)})
            yield {"text": row["text"], "label": label}
        else:
            number, title, description = list(row.values())[:3]
            label = _named(number, {str(i): name for i, name in enumerate(names, start=1)})
            yield {"text": f"{title}. {description}", "label": label}


def gsm8k(rows: Iterable[RawRow], split: Split) -> Rows:
    """Worked solutions: MetaMathQA's `query` and `response`, or GSM8K's `question` and `answer` with ``#### 42``."""
    for row in rows:
        question, answer = (row["query"], row["response"]) if "query" in row else (row["question"], row["answer"])
        if split is Split.TEST or len(question) + 1 + len(answer) <= LONGEST_SOLUTION:
            solution, hashes, number = answer.partition("####")
            answer = f"{solution.strip()}\nThe answer is: {number.strip()}" if hashes else answer
            yield {"question": question, "answer": answer}


ADAPTERS: dict[str, Callable[[Iterable[RawRow], Split], Rows]] = {
    adapter.__name__: adapter
    for adapter in (lama, boolq, cb, rte, wic, copa, multirc, wsc, sst2, ag_news, gsm8k)
}  # fmt: skip
"""Every data adapter, by the name that a recipe calls it."""


def adapt(adapter: str, rows: Iterable[RawRow], split: Split, source: str) -> Iterator[dict[str, str]]:
    """The rows of `source` with the columns of the template.

    Raises:
        DataError: They are not in a form of this data set.
    """
    try:
        yield from ADAPTERS[adapter](rows, split)
    except (KeyError, ValueError, TypeError, IndexError) as error:
        raise DataError(
            f"{source} is not in a form that the adapter {adapter} knows",
            got=f"{type(error).__name__}: {error}",
            needed=" ".join((ADAPTERS[adapter].__doc__ or "").split()),
        ) from error


def _truth(value: str) -> str:
    return _named(value.lower(), _TRUTH)


def _named(value: str, names: Mapping[str, str]) -> str:
    """A label by its name, whether it was a number or the name already."""
    value = value.strip()
    if value not in names and value not in names.values():
        raise ValueError(f"the label {value!r} is none of {', '.join(names.values())}")
    return names.get(value, value)


def _nested(row: RawRow, name: str) -> dict[str, Any]:
    """What was an object in the file; `ingest` keeps it as JSON."""
    value = json.loads(row[name])
    if not isinstance(value, dict):
        raise ValueError(f"{name} is no object")
    return value


def _with_stars(text: str, index: int, pronoun: str) -> str:
    """The text with the pronoun, which is word number `index` of it, between stars; the data is off by one at times."""
    words = text.split()
    places = [i for i, word in enumerate(words) if word.strip(".,;:!?\"'").lower() == pronoun.lower()]
    if not places:
        return text
    nearest = min(places, key=lambda place: abs(place - index))
    words[nearest] = words[nearest].replace(pronoun, f"*{pronoun}*", 1)
    return " ".join(words)
