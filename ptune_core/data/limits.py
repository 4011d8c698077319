"""What a file from a stranger may cost, and the rules that the reading process puts on itself."""

from __future__ import annotations

import sys
from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """Bounds on one file and on the process that reads it.

    Attributes:
        max_bytes: Size of the file.
        max_rows: Rows in it.
        max_columns: Columns in it.
        max_cell_chars: Characters in one cell; a row with a longer one is dropped.
        max_chars: Characters in all cells together, counted after decompression.
        memory_bytes: Address space of the reading process.
        cpu_seconds: Processor time of the reading process.
        wall_seconds: Time after which the reading process is ended.
    """

    max_bytes: int = 256 * 2**20
    max_rows: int = 1_000_000
    max_columns: int = 200
    max_cell_chars: int = 100_000
    max_chars: int = 500_000_000
    memory_bytes: int = 2 * 2**30
    cpu_seconds: int = 60
    wall_seconds: float = 90.0

    def apply_to_this_process(self) -> None:
        """Let the kernel hold this process to the limits. Windows has no such limits; there only the clock holds."""
        if sys.platform == "win32":
            return
        import resource

        _lower(resource.RLIMIT_AS, self.memory_bytes)
        # The signal at the first limit tells that it was time; SIGKILL at the second is for who ignores it.
        _lower(resource.RLIMIT_CPU, self.cpu_seconds, self.cpu_seconds + 5)
        # Text in UTF-8 has at most four bytes a character; nothing that is written here is ever larger.
        _lower(resource.RLIMIT_FSIZE, 4 * self.max_chars)
        _lower(resource.RLIMIT_CORE, 0)


def _lower(kind: int, soft: int, hard: int | None = None) -> None:
    import resource

    _, now = resource.getrlimit(kind)
    wanted = soft if hard is None else hard
    allowed = wanted if now == resource.RLIM_INFINITY else min(wanted, now)
    resource.setrlimit(kind, (min(soft, allowed), allowed))
