"""The prompt embeddings of adapters that a run starts from, copied into its directory when it first reads them."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

from ptune_core.errors import AdapterError
from ptune_core.files import atomic_write
from ptune_core.runs.directory import RunDirectory
from ptune_core.training.settings import PromptInit, RunSettings

if TYPE_CHECKING:
    import numpy as np

_TENSOR = "prompt_embeddings"


def read_starts(settings: RunSettings, directory: Path, *, keep: bool = True) -> dict[str, np.ndarray]:
    """Prompt embeddings `[N, H]` fp32 of every adapter that a trial starts from, by the name the settings give it.

    What was read is kept in `directory`: a resumed run needs the adapter no more, and does not see it change.

    Args:
        settings: Of the run.
        directory: For the copies.
        keep: Whether to make them; of several processes one does.

    Raises:
        AdapterError: There is no adapter, or it is not to be trusted.
    """
    named = [each.prompt_init_adapter for each in settings.trials if each.prompt_init is PromptInit.ADAPTER]
    return {name: _read(name, directory, keep=keep) for name in dict.fromkeys(named) if name is not None}


def _read(name: str, directory: Path, *, keep: bool) -> np.ndarray:
    from safetensors.numpy import load, save

    from ptune_core.adapters.format import load_adapter

    copy = directory / f"{hashlib.sha256(name.encode()).hexdigest()[:16]}.safetensors"
    if copy.exists():
        return load(copy.read_bytes())[_TENSOR]
    place = Path(name.strip()).expanduser()
    run = RunDirectory(place)
    trained = load_adapter(run.adapter if run.exists() else place)
    if trained.deep is not None:
        raise AdapterError(
            "Virtual tokens cannot start from the vectors alone of an adapter that adds to every layer",
            got=f"{name}, with prompt_depth: all",
            needed="an adapter that was trained in the input alone",
            remedy="Choose another adapter, or another prompt_init",
        )
    vectors: np.ndarray = trained.prompt_embeddings.numpy()
    if keep:
        directory.mkdir(parents=True, exist_ok=True)
        atomic_write(copy, save({_TENSOR: vectors}))
    return vectors
