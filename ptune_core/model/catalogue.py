"""Base models the page offers by name. Any other Hub id or folder works too. Importable without torch."""

from __future__ import annotations

from dataclasses import dataclass

from ptune_core.prompt.template import TargetKind


@dataclass(frozen=True)
class CatalogueEntry:
    """One base model known to work.

    Attributes:
        id: What to write as `base_model`.
        target: The kind of target it is best at.
        summary: One line for the list.
    """

    id: str
    target: TargetKind
    summary: str


CATALOGUE = (
    CatalogueEntry("demo", TargetKind.ANSWER, "Embedded demo model: works offline, trains in about a minute"),
    CatalogueEntry("openai-community/gpt2", TargetKind.ANSWER, "GPT-2: small and well understood"),
    CatalogueEntry("HuggingFaceTB/SmolLM2-135M", TargetKind.ANSWER, "SmolLM2 135M"),
    CatalogueEntry("HuggingFaceTB/SmolLM2-360M-Instruct", TargetKind.ANSWER, "SmolLM2 360M, chat"),
    CatalogueEntry("Qwen/Qwen2.5-0.5B", TargetKind.ANSWER, "Qwen2.5 0.5B, many languages"),
    CatalogueEntry("Qwen/Qwen2.5-0.5B-Instruct", TargetKind.ANSWER, "Qwen2.5 0.5B, chat"),
    CatalogueEntry("sentence-transformers/all-MiniLM-L6-v2", TargetKind.HEAD, "MiniLM: fast text classifier"),
    CatalogueEntry("google-bert/bert-base-uncased", TargetKind.HEAD, "BERT base: text classifier"),
)
"""First the demo model, then small models that are known to be prompted well."""
