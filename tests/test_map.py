"""docs/MAP.md leads to files that are there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
MAP = (ROOT / "docs" / "MAP.md").read_text(encoding="utf-8")
ROWS = [line for line in MAP.splitlines() if line.startswith("| ") and "**" in line]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: re.search(r"\*\*(.+?)\*\*", row)[1])
def test_every_file_of_the_map_is_there(row: str) -> None:
    named = [name for name in re.findall(r"`([^`]+)`", row) if "/" in name or name.endswith(".py")]
    assert named
    beside = (ROOT / "ptune_core" / named[0]).parent
    missing = [name for name in named if not any((place / name).exists() for place in (ROOT / "ptune_core", beside))]
    assert missing == []


def test_the_map_fits_on_a_screen_and_names_what_people_change() -> None:
    assert len(MAP.splitlines()) <= 40
    changed = {re.search(r"\*\*(.+?)\*\*", row)[1] for row in ROWS}
    wanted = {
        "setting",
        "tab",
        "metric",
        "prompt encoder",
        "model family",
        "file format",
        "export form",
        "alarm",
        "endpoint",
    }
    assert wanted <= changed
