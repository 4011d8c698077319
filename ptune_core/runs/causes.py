"""Why a worker is gone without having left a result, as far as it can be known from outside, and what helps."""

from __future__ import annotations

import signal
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

_OOM_COUNTERS = (Path("/sys/fs/cgroup/memory.events"), Path("/proc/vmstat"))


def machine_start() -> str:
    """A text that stays the same until the machine, or the container this is in, is started again."""
    with suppress(OSError, IndexError):
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        first_process = Path("/proc/1/stat").read_text().rpartition(")")[2].split()[19]
        return f"{boot} {first_process}"
    return ""


def memory_kills() -> int:
    """How often the kernel has killed a process here because memory had run out."""
    for counter in _OOM_COUNTERS:
        with suppress(OSError, ValueError):
            for line in counter.read_text().splitlines():
                name, _, value = line.partition(" ")
                if name == "oom_kill":
                    return int(value)
    return 0


def memory_remedy(phase: str) -> str:
    """What to do when memory ran out in the `phase` that `metrics.jsonl` named last; empty if none did."""
    match phase:
        case "exporting":
            return (
                "What was trained is kept, so no setting has to change: end programs that use memory, then resume. "
                "Steps after the last checkpoint are repeated, and the adapter is written again"
            )
        case "loading data":
            return "Use fewer rows or shorter texts, or end other programs that use memory"
        case "loading base model":
            return "Choose a smaller base model or precision bf16, or end other programs that use memory"
        case _:
            return (
                "Lower batch_size, eval_batch_size or max_length, and raise gradient_accumulation_steps to keep the "
                "effective batch. If the template has text before the first virtual token, lower text_cache_mib: what "
                "does not fit goes to disk. If this is a sweep, sweep fewer values: trials of one template pass "
                "through the base model together"
            )


def why_it_died(started: Mapping[str, Any] | None, exit_code: int | None, phase: str = "") -> str:
    """One sentence for people, and one of advice where there is any.

    Args:
        started: What the worker recorded when it began (`machine_start`, `memory_kills`), None if it never did.
        exit_code: As `subprocess` gives it, negative for a signal; None if it ended while no app was watching.
        phase: What it was doing, as `metrics.jsonl` named it last; empty if it did not.
    """
    if started is not None and started.get("machine_start", "") != machine_start():
        return "The machine was restarted while the run was going."
    if started is not None and exit_code in (None, -signal.SIGKILL) and memory_kills() > started.get("memory_kills", 0):
        return f"The system killed the worker because memory ran out. {memory_remedy(phase)}."
    if exit_code == -signal.SIGKILL:
        return "The worker was killed (SIGKILL): by somebody, or by the system because memory ran out."
    if exit_code is not None and exit_code < 0:
        return f"The worker crashed ({_signal_name(-exit_code)}). The log may say where."
    if exit_code is not None:
        return f"The worker ended with exit code {exit_code} and left no result. The log may say why."
    if started is None:
        return "PTune was ended before the worker could begin."
    return "The worker ended without a result while PTune was not running; it may have been killed."


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
