"""Writing that survives a kill at any instant: atomic files, whole lines, locks, and room kept back for bad times."""

from __future__ import annotations

import errno
import fcntl
import json
import math
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

NO_ROOM = (errno.ENOSPC, errno.EDQUOT)


def atomic_write(path: Path, data: bytes) -> None:
    """Replace `path` by `data`: a reader, or a machine after a power cut, finds the old file or the new one whole."""
    temporary = path.with_name(f".tmp-{path.name}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        try:
            write_all(descriptor, data)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        os.replace(temporary, path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
    sync(path.parent)


def write_all(descriptor: int, data: bytes) -> None:
    """Write all of `data`, in one system call where the kernel allows it.

    Raises:
        OSError: The disk is full (a short write is not left to be found by readers: the next call raises), or worse.
    """
    while data:
        data = data[os.write(descriptor, data) :]


def sync(path: Path) -> None:
    """Make a file's content, or the names just created or replaced in a folder, survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def json_line(values: Mapping[str, Any]) -> bytes:
    """`values` as one line of JSON that every parser accepts: NaN and infinities, which JSON lacks, become null."""
    return json.dumps(_finite(values), ensure_ascii=False, separators=(",", ":")).encode() + b"\n"


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value


def read_lines(data: bytes) -> list[dict[str, Any]]:
    """The JSON objects of JSONL `data`; a torn last line, and lines that are no objects, are left out."""
    lines = []
    for line in data.split(b"\n"):
        try:
            value = json.loads(line)
        except ValueError:
            continue
        if isinstance(value, dict):
            lines.append(value)
    return lines


class Lock:
    """A flock on a file, freed by the kernel when its last holder is gone, whatever ended it.

    This is what tells a live worker from a dead one: no clock, heartbeat or process number is trusted for it. A
    context manager that releases it.
    """

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor

    @classmethod
    def acquire(cls, path: Path) -> Self | None:
        """Take the lock for itself alone, or return None at once if somebody else holds it."""
        return cls._lock(os.open(path, os.O_RDWR | os.O_CREAT, 0o600), fcntl.LOCK_EX | fcntl.LOCK_NB)

    @classmethod
    def share(cls, path: Path) -> Self:
        """Take the lock together with any number of others who share it; waits while somebody has it alone."""
        lock = cls._lock(os.open(path, os.O_RDWR | os.O_CREAT, 0o600), fcntl.LOCK_SH)
        assert lock is not None, "a flock that may wait is not refused"
        return lock

    @classmethod
    def inherited(cls, descriptor: int, path: Path) -> Self | None:
        """The lock on `path` that the parent process took and handed down as `descriptor`; None if it is not that."""
        try:
            if not os.path.samestat(os.fstat(descriptor), os.stat(path)):
                return None
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)  # no change if we hold it, the same open file
        except OSError:
            return None
        os.set_inheritable(descriptor, False)
        return cls(descriptor)

    @classmethod
    def is_held(cls, path: Path, *, shared: bool = False) -> bool:
        """Whether somebody holds the lock on `path`: alone, or with `shared` also together with others.

        To look is to take the lock for an instant, if it can be had: shared, so that any number may look at once,
        unless those who share it are looked for.
        """
        try:
            descriptor = os.open(path, os.O_RDWR)
        except FileNotFoundError:
            return False
        lock = cls._lock(descriptor, (fcntl.LOCK_EX if shared else fcntl.LOCK_SH) | fcntl.LOCK_NB)
        if lock is not None:
            lock.release()
        return lock is None

    @classmethod
    def _lock(cls, descriptor: int, how: int) -> Self | None:
        """The lock, or None if `how` does not wait and somebody else has it; closes `descriptor` if it is not taken."""
        try:
            fcntl.flock(descriptor, how)
        except OSError as error:
            os.close(descriptor)
            if isinstance(error, BlockingIOError):
                return None
            raise
        return cls(descriptor)

    def release(self) -> None:
        """Close our end, once. A child that inherited the lock goes on holding it."""
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


class Ballast:
    """Room kept back on the disk, so that when it is full the reason can still be written down."""

    def __init__(self, path: Path, size: int) -> None:
        self.path, self.size = path, size

    def hold(self) -> None:
        """Take the room, unless it is held already or the disk is too full to spare it."""
        if self.path.exists() or shutil.disk_usage(self.path.parent).free < 8 * self.size:
            return
        with self.path.open("wb") as file:
            for _ in range(0, self.size, 65536):
                file.write(b"\0" * 65536)  # real blocks: a sparse file would keep nothing back

    def release(self) -> None:
        """Give the room back."""
        self.path.unlink(missing_ok=True)
