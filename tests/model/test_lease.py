"""The device lease."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from ptune_core.model.lease import is_training, training_lease

HOLD = (
    "import sys; from pathlib import Path; from ptune_core.model.lease import training_lease\n"
    "with training_lease(Path(sys.argv[1])): print('held', flush=True); sys.stdin.read()"
)


def test_the_lease_is_held_by_any_number_of_runs_and_seen_until_the_last_has_ended(tmp_path: Path) -> None:
    assert not is_training(tmp_path)
    with training_lease(tmp_path):
        assert is_training(tmp_path)
        with training_lease(tmp_path):
            assert is_training(tmp_path)
        assert is_training(tmp_path)
    assert not is_training(tmp_path)


def test_looking_does_not_take_the_lease(tmp_path: Path) -> None:
    with training_lease(tmp_path):
        pass
    assert [is_training(tmp_path), is_training(tmp_path)] == [False, False]


def test_a_killed_run_holds_nothing(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as run:
        assert run.stdout is not None and run.stdout.readline() == "held\n"
        assert is_training(tmp_path)
        run.kill()
        run.wait()
    assert not is_training(tmp_path)
