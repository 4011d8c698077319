"""The benchmark of sweeps: what its table says of the rounds."""

from __future__ import annotations

from benchmarks.sweep import HALVED, ONE, WHOLE, Trained, table


def test_times_are_taken_round_by_round_and_the_winner_is_looked_up_among_all() -> None:
    ranking = [{"trial": 3}, {"trial": 5}]
    result = {"value": 0.9, "loss": 0.1, "trial": 5, "sweep": ranking}
    rounds = {
        ONE: [Trained(10.0, result), Trained(20.0, result)],
        HALVED: [Trained(15.0, result), Trained(40.0, result)],
        WHOLE: [Trained(40.0, result), Trained(80.0, result)],
    }
    lines = table("front", rounds)
    assert lines[1].startswith("| front | eight, halving | 27.5 (15.0 to 40.0) | 1.75 (1.50 to 2.00) |")
    assert lines[1].endswith("in full training number 2 |") and "number" not in lines[2]
