"""Combinations of options that cannot work, and why, in words. No torch is imported."""

from __future__ import annotations

from ptune_core.errors import SettingsError
from ptune_core.model.device import Precision
from ptune_core.model.head_input import HeadInput
from ptune_core.prompt.kinds import PromptInit


def revision_of_a_folder(base_model: str, revision: str) -> SettingsError:
    """A revision is given for a base model that is not of the Hub."""
    return SettingsError(
        "A revision belongs to a base model of the Hub, and this one is a folder",
        got=f"base_model: {base_model}, revision: {revision}",
        needed="a Hub id with a revision, or a folder without one",
        remedy="Leave revision empty, or give the Hub id",
    )


def no_word_to_find(other: str) -> SettingsError:
    """There are candidates, and `other` says that no single word is to be found among them."""
    return SettingsError(
        "Candidates are for one word to find, and this run has another target",
        got=other,
        needed="candidates with [ANSWER:column] or one [MASK:column], and without labels",
    )


def head_without_labels(column: str) -> SettingsError:
    """A classification head for text that has no labels."""
    return SettingsError(
        "A classification head needs labels, and empty labels say that there are none",
        got=f"labels: {{}} and [HEAD:{column}]",
        remedy="Leave labels out, or let the base model write the text with [ANSWER:column]",
    )


def start_from_nothing(init: PromptInit, option: str, value: str | None) -> SettingsError:
    """A start needs `option`, which is `value`."""
    return SettingsError(
        f"The virtual tokens should start from {init}, and {option} does not say which",
        got=f"{option}: {value!r}",
        remedy=f"Give {option}, or choose another prompt_init",
    )


def other_target(found: str, needed: str) -> SettingsError:
    """Templates of one sweep ask for different things."""
    return SettingsError("All templates of a sweep need the same target", got=found, needed=needed)


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


def not_deep(template: str) -> SettingsError:
    """A prompt should be deep that does not stand in front."""
    return SettingsError(
        "Only virtual tokens in front of everything can be trained in every layer",
        got=f"prompt_depth: all, and the template {template!r}",
        needed="a template that begins with its only virtual tokens, as in [P*20] {text} [HEAD:label]",
        remedy="Move them to the front, or set prompt_depth to input",
    )


def deep_and_tuned() -> SettingsError:
    """A prompt should be deep in a base model that is trained itself."""
    return SettingsError(
        "Virtual tokens are trained in the layers of a frozen base model only; a tuned one learns there itself",
        got="base_weights: tuned and prompt_depth: all",
        needed="prompt_depth: input, or base_weights: frozen",
        remedy="Set prompt_depth to input, or keep the base model frozen",
    )


def read_by_its_own_head(head_input: HeadInput) -> SettingsError:
    """A tuned base model is taken home as a plain model of transformers, whose class reads what it reads."""
    return SettingsError(
        "A tuned base model has its own classification head, which reads what the base model's class reads",
        got=f"base_weights: tuned and head_input: {head_input}",
        needed="head_input: model or auto",
        remedy="Leave head_input at auto, or keep the base model frozen",
    )
