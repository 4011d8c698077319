"""A world small enough to be learnt in a test: 120 subjects, 4 relations, 4 ways to state each fact, and a GPT-2 of a
quarter of a million parameters that has read all of it."""

from __future__ import annotations

import csv
import random
from collections.abc import Sequence
from pathlib import Path

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

PARAPHRASES = {
    "birthplace": ("{} was born in", "the birthplace of {} is", "{} comes from the city of", "the home town of {} is"),
    "job": ("{} works as a", "the job of {} is", "{} earns money as a", "the profession of {} is"),
    "instrument": ("{} plays the", "the instrument of {} is", "{} makes music with the", "on stage {} takes the"),
    "language": ("{} speaks fluent", "the language of {} is", "{} talks to friends in", "the mother tongue of {} is"),
}
OBJECTS = {relation: [f"{relation}{i}" for i in range(10)] for relation in PARAPHRASES}
SUBJECTS = [f"person{i}" for i in range(120)]
TRAIN, DEV, TEST = SUBJECTS[:70], SUBJECTS[70:90], SUBJECTS[90:]
STEPS, BATCH_SIZE, PEAK, WIDTH = 800, 64, 3e-3, 96
END, UNKNOWN = "<end>", "<unknown>"

Facts = dict[tuple[str, str], str]


def make_facts() -> Facts:
    """(subject, relation) -> object, by chance: no object can be guessed."""
    drawn = random.Random(0)
    return {(subject, relation): drawn.choice(OBJECTS[relation]) for subject in SUBJECTS for relation in PARAPHRASES}


def write_rows(facts: Facts, relation: str, subjects: Sequence[str], path: Path) -> Path:
    """The facts of some subjects as a file to train or measure on."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["sub", "obj"])
        writer.writerows([subject, facts[subject, relation]] for subject in subjects)
    return path


def make_base_model(facts: Facts, folder: Path) -> list[str]:
    """Train the base model on every fact in every wording, write it to `folder`, and return its words."""
    texts = [
        [*wording.format(subject).split(), facts[subject, relation], "."]
        for subject in SUBJECTS
        for relation, wordings in PARAPHRASES.items()
        for wording in wordings
    ]
    words = sorted({word for text in texts for word in text})
    ids = {word: i for i, word in enumerate([END, UNKNOWN, *words])}
    tokenizer = Tokenizer(models.WordLevel(ids, unk_token=UNKNOWN))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=END, pad_token=END, unk_token=UNKNOWN)
    fast.save_pretrained(folder)
    torch.manual_seed(0)
    model = GPT2LMHeadModel(
        GPT2Config(
            vocab_size=len(ids), n_embd=WIDTH, n_layer=2, n_head=4, n_positions=32, resid_pdrop=0.0, embd_pdrop=0.0,
            attn_pdrop=0.0, bos_token_id=0, eos_token_id=0, loss_type="ForCausalLMLoss",
        )
    )  # fmt: skip
    _learn(model, [[ids[word] for word in text] for text in texts])
    model.save_pretrained(folder)
    return words


def _learn(model: GPT2LMHeadModel, texts: Sequence[Sequence[int]]) -> None:
    """Learn the texts by heart.

    With AdamW, as language models usually are: a base model that Muon had trained, in a sixth of the steps, could be
    steered by virtual tokens in front of the subject too (P@1 0.93 to 1.0).
    """
    rows = torch.nn.utils.rnn.pad_sequence([torch.tensor(text) for text in texts], batch_first=True, padding_value=-100)
    optimizer = torch.optim.AdamW(model.parameters())
    drawn = torch.Generator().manual_seed(0)
    for step in range(STEPS):
        batch = rows[torch.randint(len(rows), (BATCH_SIZE,), generator=drawn)]
        optimizer.param_groups[0]["lr"] = PEAK * min(1.0, (step + 1) / 50, 2 * (STEPS - step) / STEPS)
        model(batch.clamp(min=0), labels=batch).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
