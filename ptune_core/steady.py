"""What MKL, torch's library for products on Intel's processors, is told before it multiplies for the first time.

Left alone it takes the kernel that is fastest for so many rows, so what it makes of a row depends, in the last bits, on
how many rows stand beside it. A sweep that was killed and resumed has other trials in its batches than an undisturbed
one, and would not end as that. Strict, one row is computed as any number of rows. Intel promises this for its own
processors; on others `ptune_core.model.kernels` multiplies.
"""

from __future__ import annotations

import os
from collections.abc import MutableMapping

STEADY = {"MKL_CBWR": "AUTO,STRICT"}
"""Environment variable -> value."""


def keep_steady(environ: MutableMapping[str, str] = os.environ) -> None:
    """Say so for this process and those it starts; whoever has said something else is followed."""
    for name, value in STEADY.items():
        environ.setdefault(name, value)
