"""The embedded demo: its data, its model, its card. `python -m ptune_core.demo.check` measures what takes longer."""

from __future__ import annotations

import csv
import json
import random
from collections import Counter
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from ptune_core.__main__ import main
from ptune_core.demo import DEMO_DATA, DEMO_LABELS, DEMO_MODEL, HANDWRITTEN
from ptune_core.demo.build import corpus, make_data
from ptune_core.demo.build.grammar import Grammar
from ptune_core.demo.build.surface import article, capital
from ptune_core.demo.check import MAXIMUM_SECONDS, MINIMUM_LIFT, NUMBERS, problems, rows

SENTENCES = [
    "Once upon a time there was a little girl who lived in a small house.",
    "The dog ran to the park and played with the ball.",
    "I bought this phone last week and I am very happy with it.",
    "He looked at her and did not say a word.",
    "We went back to the hotel because it was raining.",
    "The food was good but the service was slow.",
    "She opened the door and saw her mother in the kitchen.",
    "They walked down the street and talked about the day.",
]


@pytest.fixture(scope="module")
def tokenizer():  # type: ignore[no-untyped-def]
    return AutoTokenizer.from_pretrained(DEMO_MODEL)


@pytest.fixture(scope="module")
def model():  # type: ignore[no-untyped-def]
    return AutoModelForCausalLM.from_pretrained(DEMO_MODEL, dtype=torch.float32).eval()


def numbers() -> dict[str, float]:
    return json.loads(NUMBERS.read_text(encoding="utf-8"))


# ---- data ----------------------------------------------------------------------------------------------------------
def test_reviews_are_distinct_and_balanced() -> None:
    reviews = rows(DEMO_DATA)
    assert len({row["text"].lower() for row in reviews}) == len(reviews) >= 590
    counts = Counter(row["label"] for row in reviews)
    assert set(counts) == set(DEMO_LABELS) and max(counts.values()) <= 0.55 * len(reviews)
    assert all(15 <= len(row["text"]) <= 240 for row in reviews)


def test_reviews_are_what_the_grammar_writes() -> None:
    written = [(row["text"], row["label"]) for row in rows(DEMO_DATA)]
    assert written == make_data.make_rows(make_data.DRAWN, make_data.SEED)


def test_handwritten_sentences_are_nobodys_training_data() -> None:
    known = {row["text"].lower() for row in rows(DEMO_DATA)}
    sentences = rows(HANDWRITTEN)
    assert len(sentences) == 100 and set(row["label"] for row in sentences) == set(DEMO_LABELS)
    assert not known & {row["text"].lower() for row in sentences}


# ---- how the text was made -----------------------------------------------------------------------------------------
def test_the_grammar_repeats_itself_with_a_seed_only() -> None:
    assert [Grammar(1).review(True) for _ in range(3)] == [Grammar(1).review(True) for _ in range(3)]
    grammar = Grammar(2)
    assert len({grammar.review(at % 2 == 0) for at in range(500)}) > 450


def test_no_review_leaves_a_slot_open() -> None:
    grammar = Grammar(3)
    text = " ".join(grammar.review(at % 2 == 0) for at in range(3000))
    assert not set(text) & set("{}|~^_")


def test_a_verdict_never_follows_the_review_directly() -> None:
    documents = corpus.Documents(4, {True: [], False: []}, set())
    frames = [frame.strip() for frame in documents.verdicts.frames]
    for _ in range(300):
        document = documents.draw()
        assert document.verdicts
        for start, end in document.verdicts:
            assert document.text[start] == " " and document.text[start:end].strip().isalpha()
            names_both = document.text[end:].startswith(" or ") or document.text[:start].endswith("?")
            assert names_both or any(document.text[:start].endswith(frame) for frame in frames)


def test_a_question_names_the_verdicts_in_either_order() -> None:
    documents = corpus.Documents(5, {True: [], False: []}, set())
    text = "\n".join(documents.draw().text for _ in range(1500))
    assert 0.6 < text.count(" great or terrible?") / text.count(" terrible or great?") < 1.6


def test_surface() -> None:
    assert article("a awful film and a nice one") == "an awful film and a nice one"
    assert capital("it works. not bad") == "It works. Not bad"


def test_tone_of_a_sentence() -> None:
    valence = {"good": 1.9, "great": 3.1, "bad": -2.5}
    assert corpus.tone("A good and great day", valence) > 4
    assert corpus.tone("It was not good", valence) < 0
    assert corpus.tone("Good and bad", valence) == 0


# ---- the model -----------------------------------------------------------------------------------------------------
def test_the_model_is_small_and_whole(model, tokenizer) -> None:  # type: ignore[no-untyped-def]
    assert 4e6 <= model.num_parameters() <= 6e6
    assert (DEMO_MODEL / "model.safetensors").stat().st_size <= 12_000_000
    assert model.config.tie_word_embeddings and model.config.architectures == ["LlamaForCausalLM"]
    assert tokenizer.is_fast and tokenizer.eos_token and tokenizer.pad_token
    assert model.config.eos_token_id == tokenizer.eos_token_id
    assert len(tokenizer) == model.config.vocab_size


def test_answer_words_are_single_tokens(tokenizer) -> None:  # type: ignore[no-untyped-def]
    assert [len(tokenizer(word)["input_ids"]) for word in DEMO_LABELS.values()] == [1, 1]
    text = "Naïve café: 3 × 4 = 12 €, 日本"
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text


def test_the_model_prefers_english(model, tokenizer) -> None:  # type: ignore[no-untyped-def]
    def loss(text: str) -> float:
        ids = tokenizer(text, return_tensors="pt")["input_ids"]
        with torch.no_grad():
            return float(model(input_ids=ids, labels=ids).loss)

    shuffle = random.Random(0)
    for sentence in SENTENCES:
        words = sentence.split()
        shuffle.shuffle(words)
        assert loss(sentence) < loss(" ".join(words)) - 0.5
    assert sum(map(loss, SENTENCES)) / len(SENTENCES) < 4.5


# ---- what the card says --------------------------------------------------------------------------------------------
def test_the_card_states_what_the_demo_promises() -> None:
    stated = numbers()
    assert problems(stated, stated) == []
    assert stated["seconds"] <= MAXIMUM_SECONDS and stated["handwritten"] >= 0.75
    assert stated["weights_bytes"] == (DEMO_MODEL / "model.safetensors").stat().st_size
    assert stated["tokens_seen"] > 0 and stated["parameters"] > 4e6


def test_a_wrong_card_is_noticed() -> None:
    stated = numbers()
    assert problems(stated | {"handwritten": 0.2}, stated)
    assert problems(stated | {"seconds": 600.0}, stated)
    assert problems(stated | {"zero_shot": stated["held_out"] - MINIMUM_LIFT / 2}, stated)


def test_a_short_training_lifts_the_accuracy(tmp_path: Path) -> None:
    assert main(["train", "--out", str(tmp_path / "run"), "--set", "max_steps=60", "--set", "eval_every=60"]) == 0
    result = json.loads((tmp_path / "run" / "result.json").read_text(encoding="utf-8"))
    assert result["value"] - max(result["baseline_zero_shot"], result["baseline_majority"]) >= MINIMUM_LIFT


def test_the_data_is_plain_csv() -> None:
    with DEMO_DATA.open(encoding="utf-8", newline="") as file:
        assert next(csv.reader(file)) == ["text", "label"]
