"""The device lease: how a training run says that it needs the GPU, to whoever could take memory from it.

One file in the data directory, locked (shared, as several runs may train) while a run trains. The kernel frees the lock
when its holder dies, whatever ended it. Imports no torch.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_FILE = "device.lock"


@contextmanager
def training_lease(data_directory: Path) -> Iterator[None]:
    """Hold the lease while the block trains."""
    descriptor = os.open(data_directory / _FILE, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH)  # waits only for the instant in which `is_training` looks
        yield
    finally:
        os.close(descriptor)


def is_training(data_directory: Path) -> bool:
    """Whether any run holds the lease."""
    try:
        descriptor = os.open(data_directory / _FILE, os.O_RDWR)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False
