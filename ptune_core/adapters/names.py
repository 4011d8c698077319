"""Names of an adapter's files. Imports no torch: the page looks for them too."""

from __future__ import annotations

from ptune_core.prompt.config import CONFIG_NAME

CONFIG_FILE = CONFIG_NAME
TENSOR_FILE = "adapter_model.safetensors"
SIDECAR_FILE = "ptune.json"
ENCODER_FILE = "prompt_encoder.safetensors"
CARD_FILE = "README.md"
SNIPPET_FILE = "snippet.py"
LOADER_FILE = "ptune_loader.py"

READ = (CONFIG_FILE, TENSOR_FILE, SIDECAR_FILE, ENCODER_FILE)
"""What is ever read of an adapter that somebody brings."""

EXPORTED = (CARD_FILE, CONFIG_FILE, TENSOR_FILE, SIDECAR_FILE, ENCODER_FILE, SNIPPET_FILE, LOADER_FILE)
"""Every file that may be in an adapter's zip, in the order it has there. Nothing else of a folder goes in."""

UNCLEAR = "The adapter cannot be used like this"
"""What an error says when an adapter is whole, but not enough is known of how it is used."""
