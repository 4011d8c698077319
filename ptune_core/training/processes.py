"""Several processes as one: `accelerate launch` starts them, the main one reports, saves and decides."""

from __future__ import annotations

import atexit
import os
from collections.abc import Callable
from datetime import timedelta

import torch

# Its functions have the group as a default argument: imported after the group was made, they would keep it alive.
import torch.distributed.nn.functional  # noqa: F401
from accelerate import PartialState
from accelerate.utils import broadcast_object_list, parse_flag_from_env


def join_processes(*, cpu: bool = False) -> None:
    """Become one of the processes that were launched; the first call in a process decides where it computes.

    Args:
        cpu: Even where there is a GPU.
    """
    on_cpu = cpu or not torch.cuda.is_available() or parse_flag_from_env("ACCELERATE_USE_CPU")
    # The others wait while the main process evaluates, for as long as that takes.
    together = {"timeout": timedelta(days=1)} if "WORLD_SIZE" in os.environ else {}
    state = PartialState(cpu=on_cpu, **together)
    if state.num_processes > 1:  # threads of the group that run at exit can abort a process that is done
        atexit.register(state.destroy_process_group)


def is_main_process() -> bool:
    """Whether this process reports and saves; true where there is only one."""
    return bool(PartialState().is_main_process)


def wait_for_all() -> None:
    """Go on when every process has come this far."""
    PartialState().wait_for_everyone()


def told_by_main(ask: Callable[[], bool]) -> Callable[[], bool]:
    """`ask` of the main process, with the same answer in all: a collective call where there are several."""
    if PartialState().num_processes == 1:
        return ask

    def asked() -> bool:
        answer = [ask() if is_main_process() else False]
        broadcast_object_list(answer)
        return answer[0]

    return asked
