"""A base model in 8 or 4 bits, by bitsandbytes where it is installed."""

from __future__ import annotations

from importlib.util import find_spec

import torch
from torch import nn
from transformers import BitsAndBytesConfig

from ptune_core.errors import SettingsError
from ptune_core.model.device import Precision

KEPT_WHOLE = ["lm_head", "score", "classifier"]
"""Heads: the trained one has to stay fp32, and the vocabulary's costs little and decides every answer."""


def quantization(precision: str) -> BitsAndBytesConfig | None:
    """What transformers needs to load a base model in `precision`; None if it is not to be quantised.

    Raises:
        SettingsError: bitsandbytes is not installed.
    """
    if precision not in (Precision.INT8, Precision.INT4):
        return None
    if not find_spec("bitsandbytes"):
        raise SettingsError(
            f"Precision {precision} needs bitsandbytes, which is not installed",
            # An adapter brings its precision along: who opens one has no setting to change.
            remedy=f"pip install bitsandbytes. To do without it, train with precision auto; an adapter trained in "
            f"{precision} is used in {precision}",
        )
    if precision == Precision.INT8:
        return BitsAndBytesConfig(load_in_8bit=True, llm_int8_skip_modules=KEPT_WHOLE)
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_compute_dtype=torch.bfloat16,
        llm_int8_skip_modules=KEPT_WHOLE,
    )


def keep_layout(model: nn.Module) -> None:
    """Keep bitsandbytes from repacking 4-bit weights at the first pass without gradients.

    On CPUs with AVX-512 bf16 it does so for speed; not every size can be packed, and no gradient goes through it.
    """
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            vars(module)["support_avx512bf16_for_cpu"] = False
