"""Peak memory of a training above the base model's weights.

Each side is measured in a process of its own: the base model is loaded and every weight touched, what is free goes
back to the system, and the process's resident memory is noted. Then the system's record of the peak is reset
(`/proc/self/clear_refs`), an epoch is trained, and the peak is read (`VmHWM`). The difference holds all that training
adds: prompt encoder, its gradients and the optimizer's moments, activations, texts, the libraries' scratch space.

PTune's text cache may be as large as memory allows and is not needed to train, so it is measured both full (and then
taken off and told beside) and turned off (`text_cache_mib: 0`). Where there is no text cache every row needs its
activations, as PEFT's do; with `gradient_checkpointing` they are computed twice instead of kept, measured beside.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch

from benchmarks import machine, peft_side, ptune_side
from benchmarks.peft_side import PeftSide, Setup
from benchmarks.ptune_side import PTuneSide
from benchmarks.workloads import Data, Workload, make_data
from ptune_core.model.recomputing import with_gradient_checkpointing

BATCHES = 8
"""Of the epoch that is trained; the same texts on both sides."""

Variant = tuple[str, ...]
PLAIN: Variant = ()
NO_CACHE: Variant = ("no text cache",)
CHECKPOINTED: Variant = ("gradient checkpointing",)


def memory(workload: Workload, directory: Path | None) -> dict[str, Any]:
    """MiB above the weights of every side of one workload, and of the text cache.

    Args:
        workload: Which.
        directory: Texts, see `make_data`.
    """
    workload = replace(workload, batches=BATCHES, peft_steps=BATCHES - 1, ptune_steps=BATCHES - 1)
    found: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        data = make_data(workload, directory, Path(folder))
        threads = torch.get_num_threads()
        with ProcessPoolExecutor(1, mp_context=get_context("spawn"), max_tasks_per_child=1) as pool:
            for precision in ("fp32", "bf16"):
                for variant in (PLAIN, NO_CACHE) if workload.is_cached else (PLAIN, CHECKPOINTED):
                    name = ", ".join([f"PTune {precision}", *variant])
                    found[name] = pool.submit(_ours, workload, data, precision, variant, threads).result()
            for name, setup in peft_side.SETUPS.items():
                found[name] = pool.submit(_theirs, workload, data, setup, threads).result()
    return {"name": workload.name, "mib": found}


def _ours(workload: Workload, data: Data, precision: str, variant: Variant, threads: int) -> dict[str, float]:
    torch.set_num_threads(threads)
    base = ptune_side.load(workload, data, precision)
    if variant == CHECKPOINTED:
        base = with_gradient_checkpointing(base)
    before = _begin(base.model)
    side = PTuneSide(base, workload, data, cache_mib=0 if variant == NO_CACHE else None)
    side.round()
    cache = side.cache_mib
    return {"above weights": machine.peak_mib() - before - cache, "text cache": cache}


def _theirs(workload: Workload, data: Data, setup: Setup, threads: int) -> dict[str, float]:
    torch.set_num_threads(threads)
    side = PeftSide(workload, data, setup)
    before = _begin(side.base)
    side.round()
    return {"above weights": machine.peak_mib() - before}


def _begin(model: torch.nn.Module) -> float:
    """MiB with all weights in memory; the peak counts from here."""
    for tensor in model.state_dict().values():
        tensor.sum()
    before = machine.resident_mib()
    machine.reset_peak()
    return before


def table(found: dict[str, Any]) -> Iterator[str]:
    """What `memory` found, as Markdown."""
    yield f"\n### {found['name']}: peak memory above the base model's weights\n"
    yield "| side | MiB | text cache, MiB | of PEFT in the same precision |"
    yield "|---|---|---|---|"
    for name, mib in found["mib"].items():
        above, cache = mib["above weights"], mib.get("text cache", 0.0)
        part = ""
        if name.startswith("PTune"):
            precision = name.split(",")[0].split()[1]
            part = f"{above / found['mib'][f'PEFT {precision}']['above weights']:.2f}"
        yield f"| {name} | {above:.0f} | {f'{cache:.0f}' if cache else ''} | {part} |"
