"""Finds out whose template a text is, and imports it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from ptune_core.errors import TemplateError
from ptune_core.prompt.foreign.common import Imported, load_config, shown
from ptune_core.prompt.foreign.nemo import MARKER, import_config
from ptune_core.prompt.foreign.nemo import SOURCE as NEMO
from ptune_core.prompt.foreign.openprompt_config import import_openprompt_config
from ptune_core.prompt.foreign.openprompt_meaning import Asked, import_openprompt
from ptune_core.prompt.template import TargetKind, parse_template

MAX_OWN = 4000
"""Characters of a template in PTune's own language, as in the settings of a run."""

_SLOT = re.compile(r"\{\s*[\"']")


@dataclass(frozen=True)
class Wanted:
    """What a foreign template may leave open.

    Attributes:
        task: NeMo: the taskname, where there are several.
        kind: OpenPrompt: ANSWER or MASK; None: what its base model is, else MASK.
        column: OpenPrompt: data column of the target.
        front: OpenPrompt: virtual tokens before everything.
        labels: Label -> answer words.
    """

    task: str | None = None
    kind: TargetKind | None = None
    column: str = "label"
    front: int = 0
    labels: dict[str, str] | None = None


def import_template(text: str, wanted: Wanted, *, is_config: bool = False) -> Imported:
    """Import a template of NeMo or OpenPrompt, or take one in PTune's own language.

    Args:
        text: A template, or a configuration that holds one.
        wanted: What it may leave open.
        is_config: Whether it is YAML or JSON. A text with NeMo's markers is, whatever is said.

    Raises:
        TemplateError: It cannot be imported; every reason with its place.
    """
    asked = Asked(wanted.kind or TargetKind.MASK, wanted.column, wanted.front)
    if is_config or MARKER in text:
        config = load_config(text, NEMO if MARKER in text else "OpenPrompt")
        if isinstance(config, str):
            raise TemplateError(
                "A template of NeMo does not say how many virtual tokens there are", got=shown(config),
                needed="its entry in task_templates, as YAML or JSON",
            )  # fmt: skip
        if isinstance(config, Mapping) and "template" in config:
            return import_openprompt_config(config, asked, wanted.kind, wanted.labels)
        return import_config(config, wanted.task, wanted.labels)
    labels = {} if wanted.labels is None else {"labels": wanted.labels}
    if "[P" in text and not _SLOT.search(text):
        if len(text) > MAX_OWN:
            raise TemplateError(
                "The template is too long", got=f"{len(text):,} characters", needed=f"up to {MAX_OWN:,}"
            )
        parse_template(text)
        return Imported(text, labels)
    return import_openprompt(text, asked, labels)
