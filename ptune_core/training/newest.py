"""The present state of a run that trains, as an adapter, for whoever asks: `newest/` in the run directory.

Asking is an empty file that the worker looks for after every step (5 µs); it answers by writing the adapter and taking
the file away. Imports no torch: the page asks.
"""

from __future__ import annotations

from pathlib import Path

FOLDER = "newest"
"""Holds `adapter/` and `adapter.zip`, as the run directory does at the end."""

_WANTED = "newest.wanted"


def ask(directory: Path) -> None:
    """Ask the worker of the run in `directory` for its present state."""
    (directory / _WANTED).touch()


def is_asked(directory: Path) -> bool:
    """Whether the worker has still to answer."""
    return (directory / _WANTED).exists()


def answered(directory: Path) -> None:
    """Take the question away."""
    (directory / _WANTED).unlink(missing_ok=True)
