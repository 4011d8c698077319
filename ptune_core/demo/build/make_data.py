"""Write the demo data, reviews of the demo language: `python -m ptune_core.demo.build.make_data`.

Run it before pretraining: the pretraining script leaves these very texts out. A short sentence can still come about
there with another full stop or capital; those that did are listed in `words/seen.txt` and are left out here.
"""

import csv
import random
import re

from ptune_core.demo import DEMO_DATA
from ptune_core.demo.build.grammar import Grammar
from ptune_core.demo.build.lexicon import HERE, data_lines

DRAWN = 740
SEED = 20_240_601


def plain(text: str) -> str:
    """The words alone, to compare two texts whatever their capitals and punctuation."""
    return " ".join(re.sub(r"[^a-z' ]", " ", text.lower()).split())


def make_rows(drawn: int, seed: int) -> list[tuple[str, str]]:
    """Distinct reviews with their labels in random order: those of `drawn` that were not seen in pretraining."""
    grammar, rng = Grammar(seed), random.Random(seed)
    rows: dict[str, tuple[str, str]] = {}
    known: set[str] = set()
    while len(known) < drawn:
        positive = len(known) % 2 == 0
        text = grammar.review(positive)
        if 15 <= len(text) <= 240 and text.lower() not in known:
            known.add(text.lower())
            rows.setdefault(plain(text), (text, "positive" if positive else "negative"))
    seen = set(data_lines(HERE / "words" / "seen.txt"))
    pairs = [row for words, row in rows.items() if words not in seen]
    rng.shuffle(pairs)
    return pairs


def main() -> None:
    """Write `reviews.csv`."""
    with DEMO_DATA.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["text", "label"])
        writer.writerows(make_rows(DRAWN, SEED))


if __name__ == "__main__":
    main()
