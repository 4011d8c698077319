"""Where the base model runs, in which numbers, and whether it learns: what a person can choose. Imports no torch."""

from enum import StrEnum


class Precision(StrEnum):
    """Number format of the base model; the prompt encoder, the head and the loss are always fp32."""

    AUTO = "auto"
    FP32 = "fp32"
    BF16 = "bf16"
    INT8 = "int8"
    INT4 = "int4"


class BaseWeights(StrEnum):
    """Whether the base model's own weights learn too."""

    FROZEN = "frozen"
    TUNED = "tuned"


class Device(StrEnum):
    """Where the base model runs."""

    AUTO = "auto"
    CPU = "cpu"
    CUDA = "cuda"
