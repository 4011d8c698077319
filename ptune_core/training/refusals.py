"""Combinations of options that cannot work, and why, in words. No torch is imported."""

from __future__ import annotations

from collections.abc import Sequence

from ptune_core.errors import SettingsError
from ptune_core.model.device import Precision
from ptune_core.model.head_input import HeadInput


def revision_of_a_folder(base_model: str, revision: str) -> SettingsError:
    """A revision is given for a base model that is not of the Hub."""
    return SettingsError(
        "A revision belongs to a base model of the Hub, and this one is a folder",
        got=f"base_model: {base_model}, revision: {revision}",
        needed="a Hub id with a revision, or a folder without one",
        remedy="Leave revision empty, or give the Hub id",
    )


def too_coarse_to_learn(precision: Precision) -> SettingsError:
    """The base model should be tuned in numbers of few bits."""
    why = (
        "bf16 has 8 bits for a weight, and a step as small as a base model needs is lost when it is rounded"
        if precision is Precision.BF16
        else f"{precision} weights are steps of a scale and have no gradient"
    )
    return SettingsError(
        f"A base model cannot be tuned in {precision}: {why}",
        got=f"base_weights: tuned, precision: {precision}",
        needed="auto or fp32, which are the same here",
        remedy="Set precision to auto, or base_weights to frozen",
    )


def not_compiled(others: Sequence[str]) -> SettingsError:
    """`others`, options as they are set, do not go with `compile`."""
    return SettingsError(
        "Only a frozen base model with whole weights, which computes its layers once, can be compiled",
        got=", ".join(["compile: true", *others]),
        needed="base_weights frozen, gradient_checkpointing off, and precision auto, fp32 or bf16",
        remedy="Set compile to off (false), or change the others",
    )


def read_by_its_own_head(head_input: HeadInput) -> SettingsError:
    """A tuned base model is taken home as a plain model of transformers, whose class reads what it reads."""
    return SettingsError(
        "A tuned base model has its own classification head, which reads what the base model's class reads",
        got=f"base_weights: tuned and head_input: {head_input}",
        needed="head_input: model or auto",
        remedy="Leave head_input at auto, or keep the base model frozen",
    )
