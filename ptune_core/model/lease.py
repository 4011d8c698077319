"""The device lease: how a training run says that it needs the GPU, to whoever could take memory from it.

One file in the data directory, locked while a run trains: shared, as several runs may. Imports no torch.
"""

from __future__ import annotations

from pathlib import Path

from ptune_core.files import Lock

_FILE = "device.lock"


def training_lease(data_directory: Path) -> Lock:
    """Take the lease, to be held with `with` while a run trains; waits only while `is_training` looks."""
    return Lock.share(data_directory / _FILE)


def is_training(data_directory: Path) -> bool:
    """Whether any run holds the lease."""
    return Lock.is_held(data_directory / _FILE, shared=True)
