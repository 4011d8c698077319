"""The pretraining text as token rows: reviews with verdicts, tone-marked sentences of books, stories, books.

A verdict never follows a review directly: one of about fifty frames ("Verdict:", "All in all it was") stands between.
So a frozen model knows the tone of a text but does not say it right after the text, which is what a prompt must find.
In one of eight texts a question follows, " great or terrible?", with the words in either order: right after a text,
either word is as likely as the other.
"""

import random
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer

from ptune_core.demo.build.grammar import Grammar
from ptune_core.demo.build.lexicon import read_vader

END = "<|endoftext|>"
VERDICT_WEIGHT = 6.0
QUESTIONS = 0.12
NEGATORS = {"not", "no", "never", "nor", "neither", "without", "hardly", "nobody", "nothing", "cannot"}
WORD = re.compile(r"[a-z]+(?:'[a-z]+)?")


@dataclass
class Document:
    """A text and the character ranges of its verdict words."""

    text: str
    verdicts: list[tuple[int, int]]


def plain_marks(text: str) -> str:
    """Typewriter quotes and dashes in place of printed ones."""
    text = text.replace("“", '"').replace("”", '"').replace("’", "'").replace("‘", "'")
    return text.replace("—", " - ").replace("<unk>", "")


def read_stories(folder: Path) -> list[str]:
    """The TinyStories files of the folder, one story an item."""
    stories: list[str] = []
    for path in sorted(folder.glob("tinystories*.txt")):
        text = plain_marks(path.read_text(encoding="utf-8", errors="ignore"))
        parts = text.split(END) if END in text else re.split(r"\n\s*\n\s*\n|\n(?=Once upon|One day)", text)
        stories += [re.sub(r"[ \t]+", " ", part).strip() for part in parts if len(part) > 80]
    return stories


def read_books(folder: Path) -> list[str]:
    """The books of the folder as plain paragraphs joined into texts of about 4000 characters."""
    texts: list[str] = []
    for path in sorted((folder / "books").glob("*.md")):
        raw = plain_marks(path.read_text(encoding="utf-8", errors="ignore"))
        paragraphs = [re.sub(r"\s+", " ", part).strip() for part in re.split(r"\n\s*\n", raw)]
        kept = [re.sub(r"[*_]", "", part) for part in paragraphs if len(part) > 40 and part[0] not in "#|>[!<"]
        text = ""
        for part in kept:
            text += part + "\n"
            if len(text) > 4000:
                texts.append(text.strip())
                text = ""
    return texts


def tone(sentence: str, valence: dict[str, float]) -> float:
    """Sum of the word valences, turned around within three words after a negation; 0 when words disagree."""
    total, signs, since = 0.0, set(), 9
    for word in WORD.findall(sentence.lower()):
        if word in NEGATORS or word.endswith("n't"):
            since = 0
            continue
        since += 1
        value = valence.get(word, 0.0)
        if abs(value) < 0.8:
            continue
        value = -value if since <= 3 else value
        signs.add(value > 0)
        total += value
    return total if len(signs) == 1 else 0.0


def toned_sentences(texts: list[str], limit: float = 3.6) -> dict[bool, list[str]]:
    """Ordinary sentences of stories and books whose tone the word valences make clear."""
    valence = read_vader()
    found: dict[bool, list[str]] = {True: [], False: []}
    for text in texts:
        for sentence in re.split(r"(?<=[.!?])\s+", text.replace("\n", " ")):
            if not 25 < len(sentence) < 150 or '"' in sentence or not sentence[0].isupper():
                continue
            score = tone(sentence, valence)
            if abs(score) >= limit:
                found[score > 0].append(sentence)
    return found


class Documents:
    """Draws documents of one to four texts, each followed by a frame and a verdict."""

    def __init__(self, seed: int, toned: dict[bool, list[str]], avoid: set[str]) -> None:
        self.rng = random.Random(seed)
        self.grammar = Grammar(seed + 1)
        self.verdicts = self.grammar.lex.verdicts
        self.toned = toned
        self.avoid = avoid

    def text(self, positive: bool) -> str:
        """A review, or now and then a toned sentence from a story or a book; never one of the demo data."""
        if self.toned[positive] and self.rng.random() < 0.10:
            return self.rng.choice(self.toned[positive])
        while True:
            review = self.grammar.review(positive)
            if review not in self.avoid:
                return review

    def draw(self) -> Document:
        """One document."""
        rng, text, spans = self.rng, "", []
        pair = rng.choices(self.verdicts.words, self.verdicts.weights)[0]
        frame = rng.choice(self.verdicts.frames)
        same_frame, end = rng.random() < 0.5, rng.choice([".", ".", "", "!"])
        for _ in range(rng.choices([1, 2, 3, 4], [45, 25, 18, 12])[0]):
            positive = rng.random() < 0.5
            frame = frame if same_frame else rng.choice(self.verdicts.frames)
            text += self.text(positive)
            if rng.random() < QUESTIONS:
                first, second = rng.sample(pair, 2)
                spans.append((len(text), len(text) + len(first) + 1))
                text += f" {first} or {second}?{frame if rng.random() < 0.5 else ''}"
            else:
                text += frame
            word = " " + pair[0 if positive else 1]
            spans.append((len(text), len(text) + len(word)))
            text += word + end + "\n"
        return Document(text.rstrip("\n"), spans)


@dataclass
class Rows:
    """Token rows `[N, L]` and the loss weight of every token."""

    tokens: np.ndarray
    weights: np.ndarray


def end_id(tokenizer: Tokenizer) -> int:
    """Id of the token that ends a document."""
    found = tokenizer.token_to_id(END)
    assert found is not None, "the tokenizer was trained with this token"
    return found


def pack(documents: list[Document], tokenizer: Tokenizer, length: int) -> Rows:
    """Fill rows that begin at a document; documents are joined by the end token, the last one of a row is cut."""
    end = end_id(tokenizer)
    rows: list[list[int]] = [[]]
    weights: list[list[float]] = [[]]
    for document, encoded in zip(documents, tokenizer.encode_batch([d.text for d in documents]), strict=True):
        starts = {span[0] for span in document.verdicts}
        if len(rows[-1]) >= length:
            rows.append([])
            weights.append([])
        rows[-1] += [*encoded.ids, end]
        weights[-1] += [VERDICT_WEIGHT if offset[0] in starts else 1.0 for offset in encoded.offsets] + [1.0]
    full = [at for at, row in enumerate(rows) if len(row) >= length]
    return Rows(
        np.array([rows[at][:length] for at in full], dtype=np.int16),
        np.array([weights[at][:length] for at in full], dtype=np.float32),
    )


def review_rows(documents: Documents, tokenizer: Tokenizer, length: int, batch: int = 12000) -> Iterator[Rows]:
    """Fresh reviews without end."""
    while True:
        yield pack([documents.draw() for _ in range(batch)], tokenizer, length)


def text_rows(texts: list[str], tokenizer: Tokenizer, length: int, seed: int) -> Iterator[Rows]:
    """The texts in a new order every time round, without end."""
    order = list(texts)
    rng = random.Random(seed)
    while True:
        rng.shuffle(order)
        for start in range(0, len(order), 3000):
            yield pack([Document(text, []) for text in order[start : start + 3000]], tokenizer, length)


def single_rows(source: Iterator[Rows], seed: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The rows of `source` one by one, shuffled within a batch."""
    rng = np.random.default_rng(seed)
    for rows in source:
        for at in rng.permutation(len(rows.tokens)):
            yield rows.tokens[at], rows.weights[at]
