"""Adapters of a prompted module, in PEFT's files both ways.

A prompt that was trained in front is a standard PEFT P_TUNING adapter. Beside PEFT's tensors the file holds the state
of the prompt encoder, under names that PEFT ignores, so that training can go on exactly. A prompt that was trained
anywhere else is written under names that PEFT refuses, because PEFT would put it in front.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import safetensors.torch
import torch
from pydantic import Field, ValidationError
from torch import Tensor

from ptune_core.adapters.archive import read_files, write_files
from ptune_core.adapters.names import CONFIG_FILE, TENSOR_FILE
from ptune_core.adapters.sidecar import FRONT, TEMPLATE, AnyPeftConfig, dump_json, problems_of
from ptune_core.adapters.tensors import STATE_PREFIX, Shape, encoder_shapes, read_tensors, tensor_names
from ptune_core.errors import AdapterError
from ptune_core.model.module import DEFAULT_ADAPTER, PromptedModule, saved_modules
from ptune_core.model.module_adapter import ModuleAdapter, completed, head_parameters
from ptune_core.model.trained import MAX_ABSOLUTE_VALUE
from ptune_core.plain_json import parse_json
from ptune_core.prompt.config import PEFT_VERSION, PromptEncoderConfig, TaskType

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_PROMPT = {FRONT: "prompt_embeddings", TEMPLATE: "ptune.prompt_embeddings"}
_HEAD = {FRONT: "base_model.", TEMPLATE: "ptune.head."}
_LIMITS = {CONFIG_FILE: 2**16, TENSOR_FILE: 2**31}
_SAME = 1e-3
"""How far what an encoder makes may be from the prompt embeddings beside it: another machine rounds differently."""

ModuleName = Annotated[str, Field(max_length=1000)]


class ModuleConfig(AnyPeftConfig):
    """`adapter_config.json` of all tasks."""

    auto_mapping: dict[str, Any] | None = None
    modules_to_save: Annotated[list[ModuleName], Field(max_length=1000)] | None = None
    task_type: TaskType


def save_module(
    module: PromptedModule, directory: Path | str, adapter_name: str | None = None, *, with_encoder: bool = True
) -> None:
    """Write an adapter of a module into a folder; what is written does not depend on train or eval mode.

    Args:
        module: What was trained.
        directory: Made if it is not there.
        adapter_name: None: the adapter in use.
        with_encoder: Whether training can go on exactly from the files. Without, they are far smaller.

    Raises:
        AdapterError: What was trained holds NaN or infinity, or the folder cannot be written.
        DiskFull: There is no room.
    """
    name = module.active_adapter if adapter_name is None else adapter_name
    embeddings = module.prompt_embeddings(name)
    adapter = module.adapters[name]
    assert isinstance(adapter, ModuleAdapter)
    peft_type = FRONT if bool(adapter.in_front) else TEMPLATE
    named = {_PROMPT[peft_type]: embeddings}
    named |= {_HEAD[peft_type] + key: tensor for key, tensor in adapter.head.named_parameters()}
    if with_encoder and adapter.is_trainable:
        named |= {STATE_PREFIX + key: tensor for key, tensor in adapter.prompt.state_dict().items()}
    on_cpu = {key: tensor.detach().to("cpu", torch.float32).contiguous() for key, tensor in named.items()}
    if broken := [key for key, tensor in on_cpu.items() if not bool((tensor.abs() <= MAX_ABSOLUTE_VALUE).all())]:
        raise AdapterError(
            "What was trained holds values that are not finite or far too large, and is not written",
            got=", ".join(broken),
            needed=f"numbers up to {MAX_ABSOLUTE_VALUE:g}",
        )
    values = adapter.config.to_dict() | {
        "inference_mode": True,
        "modules_to_save": saved_modules(module, name) or None,
        "peft_type": peft_type,
        "peft_version": PEFT_VERSION,
    }
    try:
        config = ModuleConfig.model_validate(values | {"task_type": TaskType(values["task_type"])})
    except ValidationError as error:
        raise AdapterError("The config cannot be written", got="; ".join(problems_of(error, CONFIG_FILE))) from None
    files = {
        CONFIG_FILE: dump_json(config.model_dump(mode="json"), sort_keys=True),
        TENSOR_FILE: safetensors.torch.save(on_cpu, metadata={"format": "pt"}),
    }
    write_files(Path(directory), files)


def load_module(
    base: PreTrainedModel,
    path: Path | str,
    *,
    adapter_name: str = DEFAULT_ADAPTER,
    is_trainable: bool = False,
) -> PromptedModule:
    """Put an adapter that PTune or PEFT wrote onto a base model.

    Args:
        base: The base model that it was trained with.
        path: A folder or a zip file.
        adapter_name: What to call it.
        is_trainable: Whether it can be trained on. With its encoder's state training goes on exactly where it ended. An
            adapter of PEFT has none: then its prompt embeddings are the start of a fresh encoder that adds nothing yet.

    Returns:
        A module in train mode if `is_trainable`, else in eval mode.

    Raises:
        AdapterError: Anything that is missing, unknown, damaged or contradictory, all of it at once.
        SettingsError: It does not fit the base model.
    """
    loaded = _Loaded(base, Path(path), is_trainable=is_trainable)
    module = PromptedModule(base, loaded.config, start=loaded.start, adapter_name=adapter_name)
    loaded.fill(module.adapter)
    return module.train(is_trainable)


def load_into(module: PromptedModule, path: Path | str, adapter_name: str, *, is_trainable: bool = False) -> None:
    """Add an adapter that PTune or PEFT wrote to a module; `set_adapter` puts it to use.

    Args:
        module: With the base model that it was trained with.
        path: A folder or a zip file.
        adapter_name: What to call it; not in use yet, so that nothing is ever loaded over a live encoder.
        is_trainable: See `load_module`.

    Raises:
        AdapterError: Anything that is missing, unknown, damaged or contradictory, all of it at once.
        SettingsError: It does not fit the base model, or the name cannot be used.
    """
    loaded = _Loaded(module.base_model, Path(path), is_trainable=is_trainable)
    adapter = module.add_adapter(adapter_name, loaded.config, start=loaded.start)
    try:
        loaded.fill(adapter)
    except AdapterError:
        module.delete_adapter(adapter_name)
        raise


class _Loaded:
    """An adapter's files, read and checked.

    Attributes:
        config: For `PromptedModule.add_adapter`.
        start: Its `start`.
    """

    def __init__(self, base: PreTrainedModel, path: Path, *, is_trainable: bool) -> None:
        self._name = path.name
        files = read_files(path, _LIMITS)
        if missing := [f"{name} is missing" for name in (CONFIG_FILE, TENSOR_FILE) if name not in files]:
            raise self._error(missing)
        read = self._read_config(files[CONFIG_FILE])
        own = read.model_dump() | {"peft_type": FRONT, "inference_mode": True}
        self.config = completed(PromptEncoderConfig.from_dict(own), base)
        self._in_front = read.peft_type == FRONT
        self._head_prefix = _HEAD[read.peft_type]
        rows = self.config.total_virtual_tokens
        head = head_parameters(base, self.config)
        expected: dict[str, Shape] = {_PROMPT[read.peft_type]: (rows, self.config.token_dim or 0)}
        expected |= {self._head_prefix + name: tuple(each.shape) for name, each in head.items()}
        try:
            expected |= self._state_shapes(tensor_names(files[TENSOR_FILE], TENSOR_FILE))
            tensors = read_tensors(files[TENSOR_FILE], TENSOR_FILE, expected)
        except ValueError as error:
            raise self._error(str(error).split("\n")) from None
        self._embeddings = tensors[_PROMPT[read.peft_type]]
        self._head = _under(tensors, self._head_prefix)
        self._state = _under(tensors, STATE_PREFIX) if is_trainable else {}
        self.config.inference_mode = not is_trainable
        self.start: Tensor | None = self._state.get("start") if self._state else self._embeddings

    def fill(self, adapter: ModuleAdapter) -> None:
        """Load everything into an adapter that was made with `config` and `start`.

        Raises:
            AdapterError: The encoder does not make the prompt embeddings beside it.
        """
        adapter.in_front.fill_(self._in_front)
        adapter.head.load_state_dict(self._head)
        if not self._state:
            return
        adapter.prompt.load_state_dict(self._state)
        made = adapter.prompt_embeddings().cpu()
        if not torch.allclose(made, self._embeddings, rtol=_SAME, atol=_SAME * float(self._embeddings.std())):
            raise self._error(["the prompt encoder makes other prompt embeddings than those in the file"])

    def _read_config(self, content: bytes) -> ModuleConfig:
        try:
            values = parse_json(content, CONFIG_FILE)
            # Strict checking takes no text for an enum.
            task = values.get("task_type")
            return ModuleConfig.model_validate(
                values | {"task_type": TaskType(task) if task in list(TaskType) else task}
            )
        except ValidationError as error:
            raise self._error(problems_of(error, CONFIG_FILE)) from None
        except ValueError as error:
            raise self._error([str(error)]) from None

    def _state_shapes(self, names: list[str]) -> dict[str, Shape]:
        if not any(name.startswith(STATE_PREFIX) for name in names):
            return {}
        shapes = {STATE_PREFIX + name: shape for name, shape in encoder_shapes(self._trained_config()).items()}
        if f"{STATE_PREFIX}start" in names:
            shapes[f"{STATE_PREFIX}start"] = (self.config.total_virtual_tokens, self.config.token_dim or 0)
        return shapes

    def _trained_config(self) -> PromptEncoderConfig:
        return PromptEncoderConfig.from_dict(self.config.to_dict() | {"inference_mode": False})

    def _error(self, problems: list[str]) -> AdapterError:
        return AdapterError(
            f"The adapter {self._name} cannot be used",
            got="\n" + "\n".join(f"{number}. {problem}" for number, problem in enumerate(problems, start=1)),
            needed="a P_TUNING adapter that PTune or PEFT wrote for this base model",
        )


def _under(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
