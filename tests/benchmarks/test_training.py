"""The benchmark of training runs, on two narrow layers; what it measures here means nothing."""

from __future__ import annotations

from dataclasses import replace

import pytest

from benchmarks.flops import Shape, count, needed
from benchmarks.speed import speed, table
from benchmarks.workloads import WORKLOADS
from ptune_core.data.batching import Row


def test_one_round_of_text_before_the_prompt() -> None:
    workload = replace(next(each for each in WORKLOADS if each.name == "gpt2-after-8").small, batches=2, ptune_steps=1)
    found = speed(replace(workload, peft_steps=1, batch_size=2), None, 1)
    assert set(found["losses_differ_by"]) == {"labels", "vocabulary"}
    assert found["text_cache_mib"].keys() == {name for name in found["examples_per_second"] if "PTune" in name}
    assert {"same fp32", "same bf16", "as installed", "PEFT tuned"} <= set(found["ratios"])
    assert "| PTune bf16, first epoch |" in "\n".join(table(found))


def test_flops_of_text_before_the_prompt_are_the_prompts_alone() -> None:
    """By hand: 2 layers of width 4 and 16, 2 rows of 3 words and 2 virtual tokens."""
    shape = Shape(layers=2, hidden=4, inner=16, causal=True)
    counts = count([Row((5, 6, 7, -1, -2))] * 2, causal=True)
    assert (counts.prompt_rows, counts.text_rows, counts.context_rows) == (4, 0, 6)
    row, keys_and_values = 8 * 16 + 4 * 4 * 16, 4 * 16
    last = 4 * keys_and_values + 2 * (row - keys_and_values) + 4 * 4 * 10
    forward = 4 * row + 4 * 4 * (6 + 12) + last
    back = 4 * row + 8 * 4 * 6 + 4 * 4 * 12 + last
    assert needed(shape, counts, 2) == forward + back + 2 * 3 * 3 * 2 * 16


@pytest.mark.parametrize("rows", [1, 3])
def test_a_prompt_in_front_is_computed_once_per_batch(rows: int) -> None:
    counts = count([Row((-1, -2, 5, 6, 7))] * rows, causal=True)
    assert (counts.prompt_rows, counts.text_rows) == (2, 3 * rows)
    assert counts.live_pairs == rows * 15 - (rows - 1) * 3
