"""The benchmark of answering, on two narrow layers; what it measures here means nothing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.inference import WORKLOAD, measure, parse_arguments, table
from benchmarks.workloads import make_data


@pytest.mark.filterwarnings("ignore:Position ids are not supported:UserWarning")  # of every generate of PEFT
def test_one_round(tmp_path: Path) -> None:
    workload = replace(WORKLOAD.small, batches=4)
    arguments = parse_arguments(["--rounds", "1", "--adapters", "40", "--stored-mib", "1"])
    found = measure(workload, make_data(workload, None, tmp_path), "fp32", arguments)
    assert found["scores_differ_by"] < 1e-5
    assert found["memory"]["adapters"] == 40 and 1 < found["memory"]["adapters stored"] <= 40
    assert found["memory"]["MiB stored"] <= 1
    assert "| ratio" in "\n".join(table(found))
