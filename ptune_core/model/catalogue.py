"""Base models the page offers by name. Any other Hub id or folder works too. Importable without torch."""

from __future__ import annotations

from dataclasses import dataclass

from ptune_core.prompt.template import TargetKind


@dataclass(frozen=True)
class CatalogueEntry:
    """One base model known to work.

    Attributes:
        id: What to write as `base_model`.
        parameters: Number of parameters.
        target: The kind of target it is best at.
        summary: One line for the list.
    """

    id: str
    parameters: int
    target: TargetKind
    summary: str

    @property
    def memory_mib(self) -> int:
        """MiB its weights take in bf16; training needs about as much again for small batches."""
        return round(self.parameters * 2 / 2**20)


CATALOGUE = (
    CatalogueEntry(
        "demo", 4_300_000, TargetKind.ANSWER, "Embedded demo model: works offline, trains in about a minute"
    ),
    CatalogueEntry("openai-community/gpt2", 124_439_808, TargetKind.ANSWER, "GPT-2: small and well understood"),
    CatalogueEntry("HuggingFaceTB/SmolLM2-135M", 134_515_008, TargetKind.ANSWER, "SmolLM2 135M"),
    CatalogueEntry("HuggingFaceTB/SmolLM2-360M-Instruct", 361_821_120, TargetKind.ANSWER, "SmolLM2 360M, chat"),
    CatalogueEntry("Qwen/Qwen2.5-0.5B", 494_032_768, TargetKind.ANSWER, "Qwen2.5 0.5B, many languages"),
    CatalogueEntry("Qwen/Qwen2.5-0.5B-Instruct", 494_032_768, TargetKind.ANSWER, "Qwen2.5 0.5B, chat"),
    CatalogueEntry(
        "sentence-transformers/all-MiniLM-L6-v2", 22_713_216, TargetKind.HEAD, "MiniLM: fast text classifier"
    ),
    CatalogueEntry("google-bert/bert-base-uncased", 109_482_240, TargetKind.HEAD, "BERT base: text classifier"),
)
"""First the demo model, then small models that are known to be prompted well."""
