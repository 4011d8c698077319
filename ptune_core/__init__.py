"""PTune: P-tuning (arXiv 2103.10385) of frozen language models.

The two public classes are imported on first use, so that importing `ptune_core` (as the page and the command line do)
does not import torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ptune_core.prompt.config import PromptEncoderConfig
    from ptune_core.prompt.encoder import PromptEncoder

__version__ = "0.1.0"
__all__ = ["PromptEncoder", "PromptEncoderConfig", "__version__"]


def __getattr__(name: str) -> object:
    if name == "PromptEncoderConfig":
        from ptune_core.prompt.config import PromptEncoderConfig

        return PromptEncoderConfig
    if name == "PromptEncoder":
        from ptune_core.prompt.encoder import PromptEncoder

        return PromptEncoder
    raise AttributeError(f"module 'ptune_core' has no attribute {name!r}")
