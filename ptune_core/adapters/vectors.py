"""Trained vectors from elsewhere, with a template for them, as an adapter. P virtual tokens, H hidden size."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from ptune_core.adapters import tensors
from ptune_core.adapters.archive import refuse_pickle
from ptune_core.adapters.format import load_adapter
from ptune_core.adapters.sidecar import TASK_TYPES
from ptune_core.errors import AdapterError
from ptune_core.model.base import BaseModel
from ptune_core.model.prompted import PromptedModel
from ptune_core.model.trained import TrainedPrompt
from ptune_core.prompt.config import PromptEncoderConfig
from ptune_core.prompt.template import TargetKind, Template, parse_template
from ptune_core.prompt.verbalizer import Verbalizer

MAX_BYTES = 2**28
_NUMBER = re.compile(r"([0-9]{1,6})(?:\.weight)?$")


def adapter_of(template: str, labels: Mapping[str, str] | None, vectors: Path, base: BaseModel) -> TrainedPrompt:
    """An adapter from vectors that were trained elsewhere.

    Args:
        template: Where they stand.
        labels: Label -> answer words; None: the answer is text to generate.
        vectors: A `.safetensors` file with one `[P, H]` tensor, or one for each group, whose names end with the group's
            number; or an adapter's folder or zip.
        base: The base model they were trained for.

    Raises:
        AdapterError: They cannot be read, or do not fit the template and the base model.
        SettingsError: The template or the labels do not fit the base model.
    """
    parsed = parse_template(template)
    kind = parsed.target.kind
    if kind is TargetKind.HEAD or kind not in TASK_TYPES:
        raise AdapterError(
            "Vectors with this target make no adapter", got=f"[{kind}:{parsed.target.column}]",
            needed="[ANSWER:column]", remedy="An adapter of PEFT with a head needs no import",
        )  # fmt: skip
    verbalizer = None if labels is None else Verbalizer.from_labels(list(labels), labels)
    model = PromptedModel(base, parsed, verbalizer)
    prompt_embeddings = read_vectors(vectors, model.template, base.hidden_size)
    return TrainedPrompt(
        prompt_embeddings=prompt_embeddings,
        template=template,
        verbalizer=None if labels is None else dict(labels),
        labels=() if labels is None else tuple(labels),
        columns={},
        base_model=base.id,
        revision=base.revision,
        head={},
        encoder_state={},
        prompt_config=PromptEncoderConfig(
            task_type=base.task_type(kind),
            num_virtual_tokens=model.num_virtual_tokens,
            token_dim=base.hidden_size,
            inference_mode=True,
        ),
        max_length=model.max_length,
        precision=base.precision,
        segments=model.template.segments,
    )


def read_vectors(path: Path, template: Template, hidden_size: int) -> Tensor:
    """`[P, H]` fp32, the rows of the template's groups in their order.

    Args:
        path: See `adapter_of`.
        template: Resolved.
        hidden_size: H of the base model.

    Raises:
        AdapterError: With every problem.
    """
    refuse_pickle(path)
    if path.is_dir() or path.suffix.lower() == ".zip":
        trained = load_adapter(path)
        if trained.tuned_base is not None:
            raise AdapterError(
                f"The virtual tokens of {path.name} belong to the base model that was tuned with them",
                needed="vectors of a frozen base model",
                remedy="Use this adapter as it is: classify, chat and export take it",
            )
        if trained.deep is not None:
            raise AdapterError(
                f"The virtual tokens of {path.name} add to every layer, which is lost if their vectors alone are taken",
                needed="vectors that were trained in the input alone (prompt_depth: input)",
                remedy="Use this adapter as it is: classify, chat and export take it",
            )
        found = trained.prompt_embeddings
        needed = (template.num_virtual_tokens, hidden_size)
        if tuple(found.shape) != needed:
            raise _unfit(path, [f"its vectors are {list(found.shape)}, not {list(needed)}"])
        return found
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise AdapterError(f"The vectors in {path} cannot be read", got=error.strerror or str(error)) from error
    if len(content) > MAX_BYTES:
        raise _unfit(path, [f"it holds more than {MAX_BYTES:,} bytes"])
    try:
        names = tensors.tensor_names(content, path.name)
        if len(names) == 1:
            order = {names[0]: template.num_virtual_tokens}
        else:
            order = _in_groups(names, template, path)
        shapes: dict[str, tensors.Shape] = {name: (count, hidden_size) for name, count in order.items()}
        read = tensors.read_tensors(content, path.name, shapes)
    except ValueError as error:
        raise _unfit(path, str(error).split("\n")) from None
    return torch.cat([read[name] for name in order])


def _in_groups(names: list[str], template: Template, path: Path) -> dict[str, int]:
    """Tensor name -> virtual tokens, group after group: the number at the end of a name is the group's."""
    numbered = {name: int(match[1]) for name in names if (match := _NUMBER.search(name))}
    counts = [group.count or 0 for group in template.groups]
    if len(numbered) < len(names) or len(set(numbered.values())) < len(names) or len(names) != len(counts):
        raise _unfit(
            path,
            [f"it holds the tensors {', '.join(map(repr, sorted(names)[:10]))}"],
            f"one tensor of {sum(counts)} rows, or {len(counts)} named by the group's number, such as group.0",
        )
    return dict(zip(sorted(names, key=numbered.__getitem__), counts, strict=True))


def _unfit(path: Path, problems: list[str], needed: str = "vectors of this template and base model") -> AdapterError:
    told = "\n" + "\n".join(f"{number}. {problem}" for number, problem in enumerate(problems, start=1))
    return AdapterError(f"The vectors in {path.name} cannot be used", got=told, needed=needed)
