"""The surface of a review: articles, capitals, punctuation, and the slips of ordinary writing."""

import random
import re


def article(text: str) -> str:
    """Turn `a` into `an` before a vowel sound."""
    return re.sub(r"\b([Aa]) (?=[aeiou])(?!(?:one|uni|use|eu))", r"\1n ", text)


def join_list(words: list[str]) -> str:
    """`a`, `a and b`, or `a, b and c`."""
    return words[0] if len(words) == 1 else ", ".join(words[:-1]) + " and " + words[-1]


def capital(text: str) -> str:
    """Capitals at the start and after a full stop."""
    text = text[:1].upper() + text[1:]
    return re.sub(r"([.!?] )([a-z])", lambda m: m.group(1) + m.group(2).upper(), text)


def slip(text: str, rng: random.Random) -> str:
    """Swap or drop one letter in the middle of a long word, as hasty typing does."""
    words = text.split(" ")
    places = [i for i, word in enumerate(words) if len(word) > 5 and word.isalpha()]
    if not places:
        return text
    at = rng.choice(places)
    word, cut = words[at], rng.randrange(2, len(words[at]) - 2)
    words[at] = (
        word[:cut] + word[cut + 1] + word[cut] + word[cut + 2 :]
        if rng.random() < 0.5
        else (word[:cut] + word[cut + 1 :])
    )
    return " ".join(words)


def end_mark(rng: random.Random, last: bool) -> str:
    """How a sentence ends; the last one may end with nothing."""
    marks, weights = [".", "!", "!!", "..."], [76, 18, 2, 4]
    if last:
        marks, weights = [*marks, ""], [66, 14, 2, 3, 15]
    return rng.choices(marks, weights)[0]


def finish(parts: list[str], positive: bool, rng: random.Random) -> str:
    """Join sentences into the review as somebody would type it."""
    text = " ".join(part + (end_mark(rng, last=at == len(parts) - 1)) for at, part in enumerate(parts))
    text = capital(re.sub(r"\s+", " ", text))
    roll = rng.random()
    if roll < 0.08:
        text = text.lower()
    elif roll < 0.10:
        text = text.replace("'", "")
    elif roll < 0.12 and len(text) < 60:
        text = text.upper()
    elif roll < 0.15:
        text = slip(text, rng)
    elif roll < 0.18:
        text += rng.choice([" :)", " :-)", " :D"] if positive else [" :(", " :-(", " :/"])
    return text
