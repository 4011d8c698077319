"""The states of a run and the only ways from one to another.

    queued -> running -> finished | stopped | failed | interrupted
    queued -> stopped                          stopped before a worker took it
    stopped | failed | interrupted -> queued   resumed

`failed` is an error with a message of ours; `interrupted` means the worker is gone and left no result.
"""

from __future__ import annotations

from enum import StrEnum


class RunState(StrEnum):
    """Where a run stands; the values are what files, database and page hold."""

    QUEUED = "queued"
    RUNNING = "running"
    FINISHED = "finished"
    STOPPED = "stopped"
    FAILED = "failed"
    INTERRUPTED = "interrupted"

    @property
    def is_active(self) -> bool:
        """Whether a worker has it or will have it without anybody asking again."""
        return self in (RunState.QUEUED, RunState.RUNNING)

    @property
    def can_resume(self) -> bool:
        """Whether `Launcher.resume` would put it back into the queue."""
        return RunState.QUEUED in TRANSITIONS[self]


TRANSITIONS: dict[RunState, frozenset[RunState]] = {
    RunState.QUEUED: frozenset({RunState.RUNNING, RunState.STOPPED}),
    RunState.RUNNING: frozenset({RunState.FINISHED, RunState.STOPPED, RunState.FAILED, RunState.INTERRUPTED}),
    RunState.FINISHED: frozenset(),
    RunState.STOPPED: frozenset({RunState.QUEUED}),
    RunState.FAILED: frozenset({RunState.QUEUED}),
    RunState.INTERRUPTED: frozenset({RunState.QUEUED}),
}
