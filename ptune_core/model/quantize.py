"""A base model in 8 or 4 bits: which library does it, if one is installed."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from typing import Any

import torch
from transformers import BitsAndBytesConfig, TorchAoConfig

from ptune_core.errors import SettingsError
from ptune_core.model.device import Precision

KEPT_WHOLE = ["lm_head", "score", "classifier"]
"""Heads: the trained one has to stay fp32, and the vocabulary's costs little and decides every answer."""


def quantization(precision: str) -> Any | None:
    """What transformers needs to load a base model in `precision`; None if it is not to be quantised.

    bitsandbytes does both kinds, torchao int8.

    Raises:
        SettingsError: No library that can do it is installed.
    """
    if precision not in (Precision.INT8, Precision.INT4):
        return None
    if find_spec("bitsandbytes"):
        if precision == Precision.INT8:
            return BitsAndBytesConfig(load_in_8bit=True, llm_int8_skip_modules=KEPT_WHOLE)
        return BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_compute_dtype=torch.bfloat16,
            llm_int8_skip_modules=KEPT_WHOLE,
        )
    if precision == Precision.INT8 and find_spec("torchao"):
        weights = import_module("torchao.quantization").Int8WeightOnlyConfig()
        return TorchAoConfig(weights, modules_to_not_convert=KEPT_WHOLE)
    library = "bitsandbytes or torchao" if precision == Precision.INT8 else "bitsandbytes"
    raise SettingsError(
        f"Nothing is installed that loads a base model in {precision}",
        needed=library,
        remedy=f"pip install {library.split()[0]}, or set precision to auto",
    )
