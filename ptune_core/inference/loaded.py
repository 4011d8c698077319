"""Adapters in memory, and an adapter beside its base model. B rows, P virtual tokens, H hidden size, C labels."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from ptune_core.adapters.format import FILE_LIMITS, load_adapter, template_of
from ptune_core.adapters.sidecar import BASE_FOLDER
from ptune_core.data.columns import inputs_of
from ptune_core.errors import AdapterError
from ptune_core.model.base import BaseModel
from ptune_core.model.head_input import HeadInput
from ptune_core.model.prompted import PromptedModel
from ptune_core.model.targets import layers_of
from ptune_core.model.text_cache import TextCache
from ptune_core.model.trained import TrainedPrompt
from ptune_core.model.tuned import BASE_FILES
from ptune_core.model.virtual import why_not_deep
from ptune_core.prompt.template import TargetKind, Template
from ptune_core.prompt.verbalizer import Verbalizer, answer_columns

MAX_ADAPTERS = 16
"""Adapters kept loaded; some megabytes each at most."""

_WATCHED = (*FILE_LIMITS, *(f"{BASE_FOLDER}/{name}" for name in BASE_FILES))

Stamp = tuple[tuple[str, int, int], ...]


@dataclass(frozen=True)
class BaseKey:
    """What tells one loaded base model from another."""

    id: str
    revision: str | None
    target: TargetKind
    num_labels: int | None
    precision: str
    head_input: HeadInput = HeadInput.MODEL
    stamp: Stamp = ()
    """Of the files of a tuned base model: another training may have put others in their place."""


class LoadedAdapter:
    """An adapter as it was read from its files.

    Raises:
        AdapterError: It cannot be read, or does not name its base model.
    """

    def __init__(self, path: Path) -> None:
        self.trained: TrainedPrompt = load_adapter(path)
        self.template: Template = template_of(self.trained)
        if not self.trained.base_model:
            raise AdapterError(
                f"The adapter {path.name} does not say which base model it belongs to",
                remedy="Set base_model_name_or_path in its adapter_config.json",
            )

    @property
    def classifies(self) -> bool:
        """Whether it chooses between labels; else it writes text."""
        return bool(self.trained.labels)

    @cached_property
    def columns(self) -> tuple[str, ...]:
        """What it wants to know of a row: the template's columns, and those that answers are filled from."""
        return inputs_of(self.template, answer_columns(self.trained.verbalizer or {}))

    @cached_property
    def base_key(self) -> BaseKey:
        """The base model it needs, in the precision it was trained with."""
        target, own = self.template.target.kind, self.trained.tuned_base
        return BaseKey(
            id=self.trained.base_model if own is None else str(own),
            revision=self.trained.revision if own is None else None,
            target=target,
            num_labels=len(self.trained.labels) if target is TargetKind.HEAD else None,
            precision=self.trained.precision,
            head_input=self.trained.head_input,
            stamp=() if own is None else _stamp(own, BASE_FILES),
        )


class AdapterCache:
    """The adapters used last; one whose files have changed is read again."""

    def __init__(self) -> None:
        self._adapters: OrderedDict[str, tuple[Stamp, LoadedAdapter]] = OrderedDict()

    def get(self, path: str) -> LoadedAdapter:
        """The adapter in a folder or zip.

        Raises:
            AdapterError: As `LoadedAdapter`.
        """
        stamp = _stamp(Path(path))
        if path not in self._adapters or self._adapters[path][0] != stamp:
            self._adapters[path] = (stamp, LoadedAdapter(Path(path)))
        self._adapters.move_to_end(path)
        if len(self._adapters) > MAX_ADAPTERS:
            self._adapters.popitem(last=False)
        return self._adapters[path][1]


def prompted_model(adapter: LoadedAdapter, base: BaseModel, texts: TextCache | None = None) -> PromptedModel:
    """The base model with the adapter's template and verbalizer; its tensors stay apart.

    Args:
        adapter: Whose template.
        base: The base model.
        texts: Of another adapter on the same base model, to share; None finds out what this base model can.

    Raises:
        AdapterError: Its virtual tokens do not fit the base model.
        SettingsError: Its template or verbalizer does not.
    """
    trained = adapter.trained
    verbalizer = Verbalizer.from_labels(trained.labels, trained.verbalizer) if trained.labels else None
    model = PromptedModel(base, adapter.template, verbalizer, max_length=trained.max_length, texts=texts)
    check_fit(trained, model)
    return model


def check_fit(trained: TrainedPrompt, model: PromptedModel) -> None:
    """Whether an adapter's virtual tokens are those of a prompted model with its template.

    Raises:
        AdapterError: They are more or fewer, or of another size.
    """
    found, needed = tuple(trained.prompt_embeddings.shape), (model.num_virtual_tokens, model.base.hidden_size)
    if found != needed:
        raise AdapterError(
            f"The adapter does not fit the base model {model.base.id}",
            got=f"{found[0]} virtual tokens of size {found[1]}",
            needed=f"{needed[0]} of size {needed[1]}",
        )
    if trained.deep is None:
        return
    if (why := why_not_deep(model.base)) is not None:
        raise AdapterError(
            f"The adapter adds to every layer, which the base model {model.base.id} is not made for", got=why
        )
    if (layers := len(layers_of(model.base.body))) != len(trained.deep):
        raise AdapterError(
            f"The adapter does not fit the base model {model.base.id}",
            got=f"virtual tokens in {len(trained.deep)} layers",
            needed=f"{layers} layers",
        )


def put_head_on(base: BaseModel, head: Mapping[str, Tensor]) -> None:
    """Copy an adapter's classification head into the base model. Every adapter of a HEAD target brings its own.

    Raises:
        AdapterError: It has other parts than the base model's head, or other sizes.
    """
    module = base.head
    if module is None:
        return
    own = {f"{base.head_name}.{name}": parameter for name, parameter in module.named_parameters()}
    needed = {name: tuple(parameter.shape) for name, parameter in own.items()}
    found = {name: tuple(tensor.shape) for name, tensor in head.items()}
    if found != needed:
        raise AdapterError(
            f"The adapter's classification head does not fit the base model {base.id}",
            got=", ".join(f"{name} {shape}" for name, shape in found.items()),
            needed=", ".join(f"{name} {shape}" for name, shape in needed.items()),
        )
    with torch.no_grad():
        for name, parameter in own.items():
            parameter.copy_(head[name])


def _stamp(path: Path, names: Iterable[str] = _WATCHED) -> Stamp:
    """Size and time of the adapter's files. Files that are not there are for `load_adapter` to complain of."""
    files = [path / name for name in names] if path.is_dir() else [path]
    stats = [(file.name, file.stat()) for file in files if file.exists()]
    return tuple((name, stat.st_size, stat.st_mtime_ns) for name, stat in stats)
