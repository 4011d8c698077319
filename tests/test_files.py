"""Files that survive a kill, and the lock that tells who is alive."""

from __future__ import annotations

import errno
import fcntl
import os
from pathlib import Path

import pytest

from ptune_core.files import Lock, atomic_write, read_lines


def test_an_atomic_write_that_fails_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "result.json"
    atomic_write(path, b"old")

    def broken(*_: object) -> None:
        raise OSError(5, "Input/output error")

    for failing in ("write", "fsync", "replace"):
        with monkeypatch.context() as patch:
            patch.setattr(os, failing, broken)
            with pytest.raises(OSError):
                atomic_write(path, b"new")
        assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]
    atomic_write(path, b"new")
    assert path.read_bytes() == b"new"


def test_a_lock_has_one_holder_and_is_seen(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    assert not Lock.is_held(path)
    lock = Lock.acquire(path)
    assert lock is not None and Lock.acquire(path) is None and Lock.is_held(path)
    lock.release()
    lock.release()
    assert not Lock.is_held(path)


def test_only_the_lock_that_was_handed_down_is_inherited(tmp_path: Path) -> None:
    path, other = tmp_path / "lock", tmp_path / "other"
    with Lock.acquire(path) as mine, Lock.acquire(other) as theirs:  # type: ignore[union-attr]
        assert Lock.inherited(theirs.descriptor, path) is None, "another file"
        assert Lock.inherited(10_000, path) is None, "nothing open"
        descriptor = os.open(path, os.O_RDWR)
        assert Lock.inherited(descriptor, path) is None, "the file, but not the lock"
        os.close(descriptor)
        copy = os.dup(mine.descriptor)
        os.set_inheritable(copy, True)
        with Lock.inherited(copy, path) as handed_down:  # type: ignore[union-attr]
            assert not os.get_inheritable(handed_down.descriptor), "the worker's own children must not hold it"


def test_a_lock_is_shared_by_many_or_held_by_one(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with Lock.share(path), Lock.share(path):
        assert Lock.acquire(path) is None and Lock.is_held(path, shared=True)
        assert not Lock.is_held(path), "nobody has it alone"
    with Lock.acquire(path):  # type: ignore[union-attr]
        assert Lock.is_held(path) and Lock.is_held(path, shared=True)
    assert not Lock.is_held(path, shared=True)


def test_a_lock_that_cannot_be_had_leaves_no_file_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bug: where a file system has no locks, every look at a lock left a descriptor open, until none was left."""

    def no_locks(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", no_locks)
    before = os.listdir("/proc/self/fd")
    for take in (Lock.acquire, Lock.share, Lock.is_held):
        with pytest.raises(OSError, match="No locks"):
            take(tmp_path / "lock")
    assert os.listdir("/proc/self/fd") == before


def test_lines_that_are_no_objects_are_left_out() -> None:
    assert read_lines(b'{"a":1}\nnonsense\n[1]\n\n{"a":2}\n{"a":') == [{"a": 1}, {"a": 2}]
