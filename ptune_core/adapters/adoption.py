"""Take in an adapter from elsewhere: check all of it, add what its files do not say, and write it as one of ours.

A PEFT adapter says where its vectors are, but not which text they were trained with, nor what its labels are called.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from ptune_core.adapters.export import export_adapter
from ptune_core.adapters.format import load_adapter, template_of
from ptune_core.adapters.names import UNCLEAR
from ptune_core.errors import AdapterError, TemplateError
from ptune_core.model.trained import TrainedPrompt
from ptune_core.prompt.template import TargetKind, parse_template


def adopt(source: Path, out: Path, usage: Mapping[str, object]) -> None:
    """Read the adapter in `source`, and write it with card, script and loader to `out/adapter/` and `out/adapter.zip`.

    Args:
        source: A folder or a zip, which is read and nothing more.
        out: A folder of ours.
        usage: `base_model`, `template` and `answers` as in `inference.protocol.Usage`.

    Raises:
        AdapterError: Everything that is wrong with its files; or everything that they and `usage` do not say, or say
            against each other.
        DiskFull: There is no room.
    """
    export_adapter(with_usage(load_adapter(source), usage), out / "adapter", out / "adapter.zip")


def with_usage(trained: TrainedPrompt, usage: Mapping[str, object]) -> TrainedPrompt:
    """`trained` with what `usage` says of it; see `adopt`.

    Raises:
        AdapterError: With all problems.
    """
    problems: list[str] = []
    if base_model := str(usage.get("base_model") or "").strip():
        if trained.tuned_base is not None and base_model != trained.base_model:
            problems.append("it brings its own tuned base model and works with no other")
        elif base_model != trained.base_model:
            trained = replace(trained, base_model=base_model, revision=None)
    elif not trained.base_model:
        problems.append("its files do not say which base model it belongs to: name it")
    if (template := str(usage.get("template") or "").strip()) and template != trained.template:
        trained = _with_template(trained, template, problems)
    answers = usage.get("answers")
    if isinstance(answers, Mapping) and answers:
        trained = _with_answers(trained, {str(label): str(words) for label, words in answers.items()}, problems)
    if problems:
        raise AdapterError(
            UNCLEAR,
            got="\n" + "\n".join(f"{number}. {problem}" for number, problem in enumerate(problems, start=1)),
        )
    return trained


def _with_template(trained: TrainedPrompt, text: str, problems: list[str]) -> TrainedPrompt:
    """With another template around the same virtual tokens: where they stand and what is asked for stay."""
    now, before = template_of(trained), len(problems)
    try:
        template = parse_template(text)
    except TemplateError as error:
        problems.append(f"the template cannot be read: {error}")
        return trained
    if template.messages or any(group.count is None for group in template.groups):
        problems.append("a template with roles or with virtual tokens of no number fits no finished adapter")
        return trained
    if template.num_virtual_tokens != now.num_virtual_tokens:
        problems.append(
            f"the template has {template.num_virtual_tokens} virtual tokens, the adapter {now.num_virtual_tokens}"
        )
    if now.is_front and not template.is_front:
        problems.append(f"its virtual tokens stand in front: the template begins with [P*{now.num_virtual_tokens}]")
    if template.target.kind is not now.target.kind:
        problems.append(f"its target is [{now.target.kind.value}:…], not [{template.target.kind.value}:…]")
    if len(problems) > before:
        return trained
    return replace(trained, template=text, segments=template.segments, columns={})


def _with_answers(trained: TrainedPrompt, answers: dict[str, str], problems: list[str]) -> TrainedPrompt:
    """With names for the labels of a head, or with labels and the words that answer for them."""
    if template_of(trained).target.kind is TargetKind.HEAD:
        if len(answers) != len(trained.labels):
            problems.append(f"{len(answers)} labels are named, its classification head has {len(trained.labels)}")
            return trained
        return replace(trained, labels=tuple(answers))
    if len(answers) < 2:
        problems.append("one label is named, and it takes two to choose from")
    if silent := [label for label, words in answers.items() if not words.strip()]:
        problems.append(f"no answer words for {', '.join(silent[:10])}")
    return replace(trained, labels=tuple(answers), verbalizer=answers)
