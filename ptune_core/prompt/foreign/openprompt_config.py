"""OpenPrompt's experiment configurations: which template and verbalizer they name, and what else they decide."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from ptune_core.prompt.foreign.common import Imported, Problems, shown
from ptune_core.prompt.foreign.label_words import label_words
from ptune_core.prompt.foreign.openprompt_meaning import SOURCE, Asked, import_openprompt
from ptune_core.prompt.grammar import MAX_COUNT
from ptune_core.prompt.template import TargetKind

FRONT = {"soft_template": ("num_tokens", 20), "prefix_tuning_template": ("num_token", 5)}
"""Templates with soft tokens before everything: the key of their number, and OpenPrompt's default for it."""

ENCODERS = {"lstm": "LSTM", "mlp": "MLP"}
_TEMPLATES = {*FRONT, "manual_template", "mixed_template", "ptuning_template"}
_KINDS = {"bert": TargetKind.MASK, "roberta": TargetKind.MASK, "albert": TargetKind.MASK, "gpt": TargetKind.ANSWER,
          "gpt2": TargetKind.ANSWER, "gptj": TargetKind.ANSWER, "opt": TargetKind.ANSWER}  # fmt: skip


def import_openprompt_config(
    config: Mapping[str, Any], asked: Asked, kind: TargetKind | None, labels: dict[str, str] | None = None
) -> Imported:
    """Translate a configuration that was read as plain data.

    Args:
        config: With `template` and the block that it names, whose `text` is the template's.
        asked: What the person said of the target.
        kind: The kind of target the person said; None: as the configuration's base model has it.
        labels: Label -> answer words, instead of the configuration's verbalizer.

    Raises:
        TemplateError: With every problem.
    """
    problems = Problems()
    notes: list[str] = []
    name = config.get("template")
    if not isinstance(name, str) or name not in _TEMPLATES:
        problems.add("`template` names no kind that is known", got=shown(name), needed=", ".join(sorted(_TEMPLATES)))
        problems.fail(f"The configuration of {SOURCE} cannot be imported")
    block = _block(config, name)
    text = block.get("text")
    if not isinstance(text, str):
        named = block.get("file_path")
        problems.add(
            f"{name}.text is no text" if named is None else f"{name} names a file, which is not opened",
            got=shown(text if named is None else named), remedy="Import the file with the template itself",
        )  # fmt: skip
    settings = _settings(config, name, block, problems, notes)
    if labels is None:
        labels = _labels(config, problems, notes)
    if problems:
        problems.fail(f"The configuration of {SOURCE} cannot be imported")
    if labels is not None:
        settings["labels"] = labels
    found = _KINDS.get(str(_block(config, "plm").get("model_name")), asked.kind)
    asked = replace(asked, kind=kind or found)
    if name in FRONT and not asked.front:
        key, default = FRONT[name]
        asked = replace(asked, front=block.get(key, default))
    return import_openprompt(str(text), asked, settings, notes)


def _settings(
    config: Mapping[str, Any], name: str, block: Mapping[str, Any], problems: Problems, notes: list[str]
) -> dict[str, Any]:
    settings: dict[str, Any] = {}
    if name == "ptuning_template":
        encoder = block.get("prompt_encoder_type", "lstm")
        if not isinstance(encoder, str) or encoder not in ENCODERS:
            needed = ", ".join(ENCODERS)
            problems.add("prompt_encoder_type is unknown", got=shown(encoder), needed=needed)
        else:
            settings["encoder_reparameterization_type"] = ENCODERS[encoder]
    else:
        notes.append("OpenPrompt trains these vectors without a prompt encoder; here there is one.")
    if name in FRONT:
        count = block.get(FRONT[name][0], FRONT[name][1])
        if isinstance(count, bool) or not isinstance(count, int) or not 1 <= count <= MAX_COUNT:
            problems.add(f"{name}.{FRONT[name][0]} is no usable number", got=shown(count), needed=f"1 to {MAX_COUNT}")
    if name == "prefix_tuning_template":
        notes.append("PrefixTuningTemplate trains keys and values of every layer; virtual tokens are input alone.")
    length = _block(config, "dataloader").get("max_seq_length")
    if isinstance(length, int) and not isinstance(length, bool):
        settings["max_length"] = length
    return settings


def _labels(config: Mapping[str, Any], problems: Problems, notes: list[str]) -> dict[str, str] | None:
    """The answers of the labels, if the configuration itself holds their words."""
    name = config.get("verbalizer")
    block = _block(config, name) if isinstance(name, str) else {}
    if block.get("label_words") is None:
        if block.get("file_path") is not None:
            notes.append(f"The verbalizer's file {shown(block['file_path'])} is not opened: give it with --verbalizer.")
        return None
    prefix = block.get("prefix", " ")
    if not isinstance(prefix, str):
        problems.add(f"{name}.prefix is no text", got=shown(prefix))
        return None
    if block.get("multi_token_handler", "first") != "first":
        notes.append("Labels are told apart by the first token of their word here, as multi_token_handler first does.")
    answers, more = label_words(block["label_words"], prefix=prefix)
    notes += more
    return answers


def _block(config: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found = config.get(name)
    return found if isinstance(found, Mapping) else {}
