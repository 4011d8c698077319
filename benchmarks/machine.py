"""The machine a measurement ran on: its name, its load, its memory, and how fast it multiplies matrices."""

from __future__ import annotations

import ctypes
import gc
import importlib.metadata
import os
import platform
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from ptune_core.model.kernels import multiply, onednn_is_faster

LIBRARIES = ("torch", "transformers", "peft", "accelerate")
_MIB = 2**20


def describe() -> dict[str, Any]:
    """Processor, cores, threads, versions and the load average (1, 5 and 15 minutes) at this moment."""
    flags = torch.cpu.get_capabilities()
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else "none",
        "bf16": "AMX" if flags.get("amx_bf16") else "AVX-512" if flags.get("avx512_bf16") else "not native",
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "python": platform.python_version(),
        "versions": {name: importlib.metadata.version(name) for name in LIBRARIES},
        "load": [round(value, 2) for value in os.getloadavg()],
        "date": time.strftime("%Y-%m-%d"),
    }


def _processor() -> str:
    """The model name, with family and model number where the name says little."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return platform.processor() or platform.machine()
    found = dict(line.split(":", 1) for line in reversed(text.splitlines()) if ":" in line)
    values = {key.strip(): value.strip() for key, value in found.items()}
    name = values.get("model name", platform.machine())
    return f"{name} (family {values.get('cpu family')}, model {values.get('model')})"


class MatmulRate:
    """How fast this machine does the matrix products of L layers, forward and towards the inputs, at its best.

    Every layer has weights of its own, as in the model: they come from memory and not from the processor's cache.

    Args:
        rows: Rows of the left matrix, what a batch gives each product.
        sizes: `(inputs, outputs)` of each product of a layer.
        layers: L.
        dtype: Of all matrices.
        now: The clock.
        device: Where they are.
    """

    def __init__(
        self,
        rows: int,
        sizes: list[tuple[int, int]],
        layers: int,
        dtype: torch.dtype,
        now: Callable[[], float],
        device: str = "cpu",
    ) -> None:
        def random(*shape: int) -> Tensor:
            return torch.randn(*shape, dtype=dtype, device=device)

        self.now = now
        by_onednn = device == "cpu" and dtype == torch.float32 and onednn_is_faster()
        self.multiply = multiply if by_onednn else functional.linear
        self.weights = [[random(*size) for size in sizes] for _ in range(layers)]
        self.inputs = [random(rows, size) for size, _ in sizes]
        self.gradients = [random(rows, size) for _, size in sizes]
        self.flops = 4 * rows * layers * sum(inputs * outputs for inputs, outputs in sizes)

    @torch.no_grad()
    def measure(self, times: int = 3) -> float:
        """FLOP/s: the best of `times` passes, after one that warms up."""
        seconds = []
        for _ in range(times + 1):
            begun = self.now()
            for layer in self.weights:
                for left, weight in zip(self.inputs, layer, strict=True):
                    self.multiply(left, weight.t())
            for layer in reversed(self.weights):
                for gradient, weight in zip(self.gradients, layer, strict=True):
                    self.multiply(gradient, weight)
            seconds.append(self.now() - begun)
        return self.flops / min(seconds[1:])


def can_measure_memory() -> bool:
    """Whether this system tells and resets a process's peak memory."""
    return sys.platform == "linux" and os.access("/proc/self/clear_refs", os.W_OK)


def resident_mib() -> float:
    """MiB this process has in memory, after what it no longer needs went back to the system."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    return _status("VmRSS")


def reset_peak() -> None:
    """Let the peak that `peak_mib` tells begin at what is in memory now."""
    Path("/proc/self/clear_refs").write_text("5")


def peak_mib() -> float:
    """The most MiB this process had in memory since `reset_peak`."""
    return _status("VmHWM")


def _status(name: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:")) * 1024 / _MIB
