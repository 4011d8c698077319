"""Several processes as one: `accelerate launch` starts them, the main one reports, saves and decides."""

from __future__ import annotations

import atexit
import os
from collections.abc import Callable, Iterable
from datetime import timedelta

import torch

# Its functions have the group as a default argument: imported after the group was made, they would keep it alive.
import torch.distributed.nn.functional  # noqa: F401
from accelerate import Accelerator, PartialState
from accelerate.utils import broadcast_object_list, parse_flag_from_env
from torch import Tensor


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


def sum_over_processes(
    accelerator: Accelerator,
    small: Iterable[Tensor],
    of_base: Iterable[Tensor],
    losses: Tensor,
    targets: int,
) -> tuple[Tensor, int]:
    """Add up what the processes found; the summed losses `[S]` and the number of targets.

    The prompt encoders' own gradients need no exchange: every process computes them from the same `[P, H]`.

    Args:
        accelerator: Knows the processes.
        small: Prompt embeddings and heads. Their gradients are summed in place, all in one message.
        of_base: A tuned base model's weights. Theirs are summed one by one: in one piece they would be the base model
            once more.
        losses: `[S]`, summed over this process's targets.
        targets: How many these are.
    """
    tensors = [tensor.grad for tensor in small if tensor.grad is not None]
    flat = torch.cat([*(tensor.flatten().float() for tensor in tensors), losses])
    count = torch.tensor([targets], device=flat.device)
    flat, count = accelerator.reduce(flat, "sum"), accelerator.reduce(count, "sum")
    parts = flat.split([*(tensor.numel() for tensor in tensors), len(losses)])
    for tensor, part in zip(tensors, parts, strict=False):
        tensor.copy_(part.view_as(tensor))
    for weight in of_base:
        if weight.grad is not None:
            weight.grad.copy_(accelerator.reduce(weight.grad, "sum"))
    return parts[-1], int(count)
