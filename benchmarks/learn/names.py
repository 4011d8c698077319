"""Keys of the command line and of the JSON file, and what people call them; no torch is imported."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

MODELS = {"minilm": "MiniLM", "demo": "the demo model"}

FEW = (16, 64)
"""Rows a label of the few-shot sets that are drawn from each data set."""

FULL = {"ag_news": "AG News", "sst2": "SST-2", "banking77": "banking77"}

FEWSHOT16 = "sst2-fewshot16"
"""The published few-shot sets of SST-2, 16 a label."""

DATA_SETS = {
    **FULL,
    FEWSHOT16: "SST-2, published 16 a label",
    **{f"{key}-{count}": f"{name}, {count} a label" for count in FEW for key, name in FULL.items()},
}

PTUNE, PTUNE_DEEP, PTUNE_ANSWER, P_TUNING, LORA, LORA_OUR_HEAD, PROBE = (
    "ptune", "ptune-deep", "ptune-answer", "peft-p-tuning", "peft-lora", "lora-our-head", "logistic-regression",
)  # fmt: skip

SIDES = {
    PTUNE: "PTune",
    PTUNE_DEEP: "PTune, every layer",
    PTUNE_ANSWER: "PTune, answer words",
    P_TUNING: "PEFT P-tuning",
    LORA: "PEFT LoRA",
    LORA_OUR_HEAD: "LoRA with our head",
    PROBE: "logistic regression",
}


CHILD = "--child"
"""Stands before the moment a side was started and its job, on the command line of its process."""


def in_order(known: Mapping[str, str], found: Iterable[str]) -> list[str]:
    """The keys that were found, each once, in the order of those that are known."""
    there = set(found)
    return [key for key in known if key in there]
