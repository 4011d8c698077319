"""Write the demo data, 600 reviews of the demo language: `python -m ptune_core.demo.build.make_data`.

Run it before pretraining: the pretraining script leaves these very texts out.
"""

import csv
import random

from ptune_core.demo import DEMO_DATA
from ptune_core.demo.build.grammar import Grammar

COUNT = 600
SEED = 20_240_601


def make_rows(count: int, seed: int) -> list[tuple[str, str]]:
    """`count` distinct reviews with their labels, in random order."""
    grammar, rng = Grammar(seed), random.Random(seed)
    rows: dict[str, str] = {}
    while len(rows) < count:
        positive = len(rows) % 2 == 0
        text = grammar.review(positive)
        lowered = {known.lower() for known in rows}
        if 15 <= len(text) <= 240 and text.lower() not in lowered:
            rows[text] = "positive" if positive else "negative"
    pairs = list(rows.items())
    rng.shuffle(pairs)
    return pairs


def main() -> None:
    """Write `reviews.csv`."""
    with DEMO_DATA.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["text", "label"])
        writer.writerows(make_rows(COUNT, SEED))


if __name__ == "__main__":
    main()
