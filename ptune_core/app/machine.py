"""What a run may use of this machine, seen without torch: it would take seconds to import and not leave the app."""

from __future__ import annotations

import shutil
import subprocess
from importlib.util import find_spec

import psutil

from ptune_core.training.checks import Machine

_MIB = 2**20


def look_at_machine() -> Machine:
    """Memory that is free now: the GPU's where there is one."""
    has_bitsandbytes = find_spec("bitsandbytes") is not None
    if (gpu := _gpu_mib()) is not None:
        return Machine(gpu[0] * _MIB, gpu[1] * _MIB, has_gpu=True, has_bitsandbytes=has_bitsandbytes)
    memory = psutil.virtual_memory()
    return Machine(memory.available, memory.total, has_bitsandbytes=has_bitsandbytes)


def _gpu_mib() -> tuple[int, int] | None:
    """Free and total memory of the first GPU."""
    if (tool := shutil.which("nvidia-smi")) is None:
        return None
    query = [tool, "--query-gpu=memory.free,memory.total", "--format=csv,noheader,nounits"]
    try:
        found = subprocess.run(query, capture_output=True, text=True, timeout=3, check=True).stdout
        free, total = found.splitlines()[0].split(",")
        return int(free), int(total)
    except (OSError, subprocess.SubprocessError, ValueError, IndexError):
        return None
