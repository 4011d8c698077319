"""Where runs live, and what the files of one say."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from ptune_core.errors import RunError
from ptune_core.runs.directory import RunDirectory, data_directory, is_ephemeral
from ptune_core.runs.states import RunState
from ptune_core.runs.store import Store


def test_the_data_directory_is_the_one_that_was_chosen(tmp_path: Path) -> None:
    chosen = tmp_path / "a" / "b"
    assert data_directory({"PTUNE_DATA_DIR": str(chosen), "SPACE_ID": "x/y"}, tmp_path) == chosen
    assert chosen.is_dir() and list(chosen.iterdir()) == []


def test_a_space_with_a_disk_keeps_runs_on_it(tmp_path: Path) -> None:
    assert data_directory({"SPACE_ID": "x/y"}, space_disk=tmp_path) == tmp_path / "ptune"
    assert not is_ephemeral({"SPACE_ID": "x/y"}, space_disk=tmp_path)


def test_a_space_without_a_disk_forgets_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "home"))
    nothing = tmp_path / "data"
    assert data_directory({"SPACE_ID": "x/y"}, space_disk=nothing) == tmp_path / "home" / "ptune"
    assert is_ephemeral({"SPACE_ID": "x/y"}, space_disk=nothing)
    assert not is_ephemeral({"SPACE_ID": "x/y", "PTUNE_DATA_DIR": "/elsewhere"}, space_disk=nothing)
    assert not is_ephemeral({}, space_disk=nothing), "at home nothing is lost"


def test_at_home_it_is_the_users_data_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    assert data_directory({}, space_disk=tmp_path) == tmp_path / "ptune"


def test_a_data_directory_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(RunError, match=str(tmp_path / "file")) as error:
        data_directory({"PTUNE_DATA_DIR": str(tmp_path / "file" / "x")})
    assert "PTUNE_DATA_DIR" in str(error.value)
    with pytest.raises(RunError, match=str(tmp_path / "file")):
        Store(tmp_path / "file")


def test_the_files_alone_tell_the_state(store: Store, submit: Callable[..., str]) -> None:
    files = RunDirectory(store.runs_dir / submit())
    assert files.recorded_state() == (RunState.QUEUED, "")
    files.record("started", attempt=1)
    assert files.recorded_state() == (RunState.RUNNING, "")
    files.record("interrupted", attempt=1, reason="The machine was restarted.")
    assert files.recorded_state() == (RunState.INTERRUPTED, "The machine was restarted.")
    files.reopen(2)
    assert (files.recorded_state(), files.attempt()) == ((RunState.QUEUED, ""), 2)
    files.write_result({"state": "finished", "reason": "all steps done"})
    assert files.recorded_state() == (RunState.FINISHED, "all steps done")


@pytest.mark.parametrize("text", ["", "{", "[]", '{"state": "running"}', '{"state": ["finished"]}', "\0"])
def test_a_damaged_result_is_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "result.json").write_text(text)
    assert RunDirectory(tmp_path).result() is None


def test_a_torn_line_of_history_spoils_neither_the_lines_before_nor_after(tmp_path: Path) -> None:
    files = RunDirectory(tmp_path)
    files.record("queued", attempt=1)
    with (tmp_path / "history.jsonl").open("a") as history:
        history.write('{"event":"star')
    files.record("interrupted", attempt=1)
    assert [line["event"] for line in files.history()] == ["queued", "interrupted"]
