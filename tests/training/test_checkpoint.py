"""Checkpoints survive being cut anywhere: the newest whole one is found, or it is said that there is none."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from ptune_core.errors import CheckpointError
from ptune_core.training.checkpoint import load_checkpoint, save_checkpoint


def save(directory: Path, step: int) -> Path:
    return save_checkpoint(directory, step, {"w": torch.full((3,), float(step))}, {"best": step / 10})


def test_what_was_saved_comes_back(tmp_path: Path) -> None:
    save(tmp_path, 7)
    loaded = load_checkpoint(tmp_path)
    assert loaded is not None
    tensors, state = loaded
    assert torch.equal(tensors["w"], torch.full((3,), 7.0))
    assert state == {"best": 0.7, "step": 7}


def test_the_two_newest_are_kept(tmp_path: Path) -> None:
    for step in (5, 10, 100, 1_000_000):
        save(tmp_path, step)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-000100", "step-1000000"]


def test_no_checkpoint_is_not_an_error(tmp_path: Path) -> None:
    assert load_checkpoint(tmp_path / "nothing") is None


@pytest.mark.parametrize("name", ["tensors.safetensors", "state.json", "manifest.json"])
@pytest.mark.parametrize("damage", ["truncate", "remove", "flip"])
def test_a_damaged_newest_falls_back_to_the_one_before(tmp_path: Path, name: str, damage: str) -> None:
    save(tmp_path, 5)
    newest = save(tmp_path, 10)
    file = newest / name
    content = file.read_bytes()
    if damage == "remove":
        file.unlink()
    elif damage == "truncate":
        file.write_bytes(content[: len(content) // 2])
    else:
        file.write_bytes(content[:-3] + bytes([content[-3] ^ 1]) + content[-2:])
    loaded = load_checkpoint(tmp_path)
    assert loaded is not None and loaded[1]["step"] == 5


def test_all_damaged_is_an_error_that_names_them(tmp_path: Path) -> None:
    for step in (5, 10):
        (save(tmp_path, step) / "manifest.json").unlink()
    with pytest.raises(CheckpointError, match="step-000010.*step-000005"):
        load_checkpoint(tmp_path)


def test_an_unfinished_folder_never_counts_and_is_swept(tmp_path: Path) -> None:
    save(tmp_path, 5)
    shutil.copytree(tmp_path / "step-000005", tmp_path / ".tmp-step-000010")
    loaded = load_checkpoint(tmp_path)
    assert loaded is not None and loaded[1]["step"] == 5
    assert [path.name for path in tmp_path.iterdir()] == ["step-000005"]


def test_a_full_disk_leaves_the_older_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(tmp_path, 5)

    def full(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("ptune_core.training.checkpoint.save_file", full)
    with pytest.raises(OSError, match="No space"):
        save(tmp_path, 10)
    loaded = load_checkpoint(tmp_path)
    assert loaded is not None and loaded[1]["step"] == 5
