"""Reads the word lists and topic files of the demo language.

A line of a topic or of `general.txt` is a pattern: `{a|b|}` stands for one of its alternatives. `+:` and `-:` mark the
polarity. An aspect line `a: soup, stew | hot, rich / cold, bland` lists nouns, then praise, then blame; a noun with `~`
is plural.
"""

import random
import re
from dataclasses import dataclass, field
from pathlib import Path

HERE = Path(__file__).resolve().parent
SLOT = re.compile(r"\{([^{}]*)\}")
ADJECTIVE_ENDINGS = ("ful", "less", "ous", "ive", "able", "ible", "some", "ic")
NOT_USED = {"suicidal", "sluttish", "admiral", "festival", "cynic", "phobic", "criminal"}


def expand(pattern: str, rng: random.Random) -> str:
    """Choose one alternative in every `{a|b}` of `pattern` and tidy the spaces."""
    text = SLOT.sub(lambda m: rng.choice(m.group(1).split("|")), pattern)
    return (
        re.sub(r"\s+", " ", text)
        .strip()
        .replace(" ,", ",")
        .replace(" 'd", "'d")
        .replace(" 'll", "'ll")
        .replace(" 'm", "'m")
    )


def split_list(text: str) -> list[str]:
    """`a, b , c` -> ['a', 'b', 'c']."""
    return [part.strip() for part in text.split(",") if part.strip()]


def data_lines(path: Path) -> list[str]:
    """The lines of a data file without blank lines and comments."""
    lines = (line.strip() for line in path.read_text(encoding="utf-8").splitlines())
    return [line for line in lines if line and not line.startswith("# ")]


def read_pairs(name: str) -> dict[bool, list[str]]:
    """Read `words/<name>.txt` with one `pos:` and one `neg:` list; the key True means praise."""
    found: dict[bool, list[str]] = {}
    for line in data_lines(HERE / "words" / f"{name}.txt"):
        kind, _, rest = line.partition(":")
        found[kind == "pos"] = split_list(rest)
    return found


def read_vader() -> dict[str, float]:
    """The word valences of the VADER lexicon (MIT licence, `words/vader.LICENSE.txt`)."""
    rows = (line.split("\t") for line in data_lines(HERE / "words" / "vader.tsv"))
    return {word: float(value) for word, value in rows}


def vader_adjectives(minimum: float = 1.3) -> dict[bool, list[str]]:
    """Clear adjectives (by their ending) of the VADER lexicon, per polarity."""
    words = [(w, v) for w, v in read_vader().items() if w.endswith(ADJECTIVE_ENDINGS) and w not in NOT_USED]
    return {True: [w for w, v in words if v >= minimum], False: [w for w, v in words if v <= -minimum]}


@dataclass
class Aspect:
    """Nouns that share what can be praised and blamed about them."""

    nouns: list[str]
    praise: list[str]
    blame: list[str]

    def adjectives(self, positive: bool) -> list[str]:
        """What one says about these nouns in that polarity."""
        return self.praise if positive else self.blame


@dataclass
class Topic:
    """One topic: the things reviewed, verbs for them, their aspects, and whole clauses per polarity."""

    name: str
    things: list[tuple[str, str]] = field(default_factory=list)
    done: list[str] = field(default_factory=list)
    did: list[str] = field(default_factory=list)
    aspects: list[Aspect] = field(default_factory=list)
    clauses: dict[bool, list[str]] = field(default_factory=lambda: {True: [], False: []})


def read_topic(path: Path) -> Topic:
    """Parse one file of `topics/`."""
    topic = Topic(path.stem)
    for line in data_lines(path):
        kind, _, rest = line.partition(":")
        if kind == "things":
            for thing in split_list(rest):
                one, _, many = thing.partition("/")
                topic.things.append((one, many))
        elif kind == "done":
            topic.done = split_list(rest)
        elif kind == "did":
            topic.did = split_list(rest)
        elif kind == "a":
            nouns, _, said = rest.partition("|")
            praise, _, blame = said.partition("/")
            topic.aspects.append(Aspect(split_list(nouns), split_list(praise), split_list(blame)))
        elif kind in "+-":
            topic.clauses[kind == "+"].append(rest.strip())
        else:
            raise ValueError(f"{path.name}: cannot read the line {line!r}; it needs one of things, done, did, a, +, -")
    return topic


def read_clauses(name: str) -> dict[bool, list[str]]:
    """Read `words/<name>.txt` of `+:` and `-:` patterns."""
    found: dict[bool, list[str]] = {True: [], False: []}
    for line in data_lines(HERE / "words" / f"{name}.txt"):
        kind, _, rest = line.partition(":")
        found[kind == "+"].append(rest.strip())
    return found


@dataclass
class Verdicts:
    """Frames that lead to a verdict, and (praise, blame) word pairs with their weights."""

    frames: list[str]
    words: list[tuple[str, str]]
    weights: list[int]


def read_verdicts() -> Verdicts:
    """Read `words/verdicts.txt`. `N` at the start of a frame is a new line, otherwise a space comes first."""
    frames: list[str] = []
    words: list[tuple[str, str]] = []
    weights: list[int] = []
    for line in data_lines(HERE / "words" / "verdicts.txt"):
        kind, _, rest = line.partition(":")
        rest = rest.strip()
        if kind == "frame":
            newline = rest.startswith("N") and not rest.startswith("No ")
            frames.append("\n" + rest[1:] if newline else " " + rest)
            continue
        for entry in split_list(rest):
            pair, _, weight = entry.partition("*")
            praise, _, blame = pair.partition("/")
            words.append((praise, blame))
            weights.append(int(weight))
    return Verdicts(frames, words, weights)


@dataclass
class Lexicon:
    """Everything the grammar draws from."""

    topics: list[Topic]
    adjectives: dict[bool, list[str]]
    wide: dict[bool, list[str]]
    nouns: dict[bool, list[str]]
    verbs: dict[bool, list[str]]
    adverbs: dict[bool, list[str]]
    superlatives: dict[bool, list[str]]
    general: dict[bool, list[str]]
    life: dict[bool, list[str]]
    neutral: list[str]
    linkers: dict[str, list[str]]
    verdicts: Verdicts


def load_lexicon() -> Lexicon:
    """Read all data files of this folder."""
    linkers: dict[str, list[str]] = {}
    for line in data_lines(HERE / "words" / "linkers.txt"):
        kind, _, rest = line.partition(":")
        linkers[kind] = [part.strip() for part in rest.split("|")]
    life, events, everyday = (read_clauses(name) for name in ("life", "events", "everyday"))
    return Lexicon(
        topics=[read_topic(path) for path in sorted((HERE / "topics").glob("*.txt"))],
        adjectives=read_pairs("adjectives"),
        wide=vader_adjectives(),
        nouns=read_pairs("nouns"),
        verbs=read_pairs("verbs"),
        adverbs=read_pairs("adverbs"),
        superlatives=read_pairs("superlatives"),
        general=read_clauses("general"),
        life={key: life[key] + events[key] + everyday[key] for key in (True, False)},
        neutral=data_lines(HERE / "words" / "neutral.txt"),
        linkers=linkers,
        verdicts=read_verdicts(),
    )
