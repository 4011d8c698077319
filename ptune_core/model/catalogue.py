"""Base models the page offers by name. Any other Hub id or folder works too. Importable without torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from ptune_core.prompt.template import TargetKind

_WRITES = (TargetKind.ANSWER, TargetKind.HEAD)
_READS = (TargetKind.MASK, TargetKind.HEAD)


@dataclass(frozen=True)
class CatalogueEntry:
    """One base model known to work.

    Attributes:
        id: What to write as `base_model`.
        target: The kind of target it is best at.
        summary: One line for the list.
        targets: The kinds of target it can have.
        parameters: How many numbers its weights are.
        hidden_size: Size of a virtual token.
        max_positions: Longest example in tokens.
        settings: Options that suit it better than the defaults do; the same for all base models if it says nothing.
    """

    id: str
    target: TargetKind
    summary: str
    targets: tuple[TargetKind, ...]
    parameters: int
    hidden_size: int
    max_positions: int
    settings: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))


_HALF_BATCHES = MappingProxyType({"batch_size": 8, "gradient_accumulation_steps": 2})
"""As much per step as by default where words are scored, with half the memory for activations."""

_LONGEST_READ = MappingProxyType({"max_length": 256})
"""What its makers cut its texts to."""

CATALOGUE = (
    CatalogueEntry(
        "demo", TargetKind.ANSWER, "Embedded demo model: works offline, trains in about a minute",
        _WRITES, 4_262_144, 256, 256,
    ),
    CatalogueEntry(
        "openai-community/gpt2", TargetKind.ANSWER, "GPT-2: small and well understood",
        _WRITES, 124_439_808, 768, 1024,
    ),
    CatalogueEntry("HuggingFaceTB/SmolLM2-135M", TargetKind.ANSWER, "SmolLM2 135M", _WRITES, 134_515_008, 576, 8192),
    CatalogueEntry(
        "HuggingFaceTB/SmolLM2-360M-Instruct", TargetKind.ANSWER, "SmolLM2 360M, chat",
        _WRITES, 361_821_120, 960, 8192, _HALF_BATCHES,
    ),
    CatalogueEntry(
        "Qwen/Qwen2.5-0.5B", TargetKind.ANSWER, "Qwen2.5 0.5B, many languages",
        _WRITES, 494_032_768, 896, 32_768, _HALF_BATCHES,
    ),
    CatalogueEntry(
        "Qwen/Qwen2.5-0.5B-Instruct", TargetKind.ANSWER, "Qwen2.5 0.5B, chat",
        _WRITES, 494_032_768, 896, 32_768, _HALF_BATCHES,
    ),
    CatalogueEntry(
        "sentence-transformers/all-MiniLM-L6-v2", TargetKind.HEAD, "MiniLM: fast text classifier",
        (TargetKind.HEAD,), 22_713_216, 384, 512, _LONGEST_READ,
    ),
    CatalogueEntry(
        "google-bert/bert-base-uncased", TargetKind.HEAD, "BERT base: text classifier",
        _READS, 109_514_298, 768, 512,
    ),
)  # fmt: skip
"""First the demo model, then small models that are known to be prompted well."""


def entry_of(id: str) -> CatalogueEntry | None:
    """The entry of a base model; None for one that is not in the catalogue."""
    return next((entry for entry in CATALOGUE if entry.id == id), None)


def settings_of(id: str) -> Mapping[str, Any]:
    """Options that suit a base model better than the defaults do."""
    entry = entry_of(id)
    return {} if entry is None else entry.settings
