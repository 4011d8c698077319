"""PromptEncoderConfig: the fields, defaults and rules of PEFT 0.21.2's P_TUNING config. Imports no torch."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from enum import Enum, StrEnum
from pathlib import Path
from typing import Any, Self

from ptune_core.errors import SettingsError

CONFIG_NAME = "adapter_config.json"
PEFT_TYPE = "P_TUNING"

PEFT_VERSION = "0.21.2"
"""The PEFT version whose adapter format is written; PEFT fills `peft_version` in the same way."""


class TaskType(StrEnum):
    """What the base model does; PEFT's values."""

    SEQ_CLS = "SEQ_CLS"
    SEQ_2_SEQ_LM = "SEQ_2_SEQ_LM"
    CAUSAL_LM = "CAUSAL_LM"
    TOKEN_CLS = "TOKEN_CLS"
    QUESTION_ANS = "QUESTION_ANS"
    FEATURE_EXTRACTION = "FEATURE_EXTRACTION"


class PromptEncoderReparameterizationType(StrEnum):
    """The two prompt encoders; PEFT's values."""

    MLP = "MLP"
    LSTM = "LSTM"


@dataclass
class PromptEncoderConfig:
    """Configuration of a `PromptEncoder`; `adapter_config.json` holds exactly these fields.

    As in PEFT the object can be changed after it is made, sizes may stay None until they are known, and enum members
    (PEFT's too) and strings mean the same. Unlike PEFT, sizes that are given must be usable.

    Attributes:
        task_type: One of `TaskType`.
        peft_type: Always P_TUNING, whatever is passed.
        auto_mapping: PEFT's note about custom model classes; only kept.
        peft_version: Filled with `PEFT_VERSION` when None.
        base_model_name_or_path: Hub id or folder of the base model.
        revision: Hub revision of the base model.
        inference_mode: True: the encoder is only the table of finished prompt embeddings.
        num_virtual_tokens: Virtual tokens per transformer submodule.
        token_dim: Hidden size H of the base model's word embeddings.
        num_transformer_submodules: 2 for encoder-decoder models; None means 2 for SEQ_2_SEQ_LM and 1 otherwise.
        num_attention_heads: Of the base model; only kept.
        num_layers: Of the base model; only kept.
        modules_to_save: Modules of the base model that are trained and saved too, such as the classification head.
        encoder_reparameterization_type: MLP or LSTM.
        encoder_hidden_size: Width of the prompt encoder.
        encoder_num_layers: LSTM layers; the MLP has three linear layers whatever is passed.
        encoder_dropout: Dropout between LSTM layers; the MLP has none.

    Raises:
        SettingsError: (a ValueError) The task type is unknown, or a given size is not usable.
    """

    task_type: TaskType | str | None = None
    peft_type: str | None = None
    auto_mapping: dict[str, Any] | None = None
    peft_version: str | None = None
    base_model_name_or_path: str | None = None
    revision: str | None = None
    inference_mode: bool = False
    num_virtual_tokens: int | None = None
    token_dim: int | None = None
    num_transformer_submodules: int | None = None
    num_attention_heads: int | None = None
    num_layers: int | None = None
    modules_to_save: list[str] | None = None
    encoder_reparameterization_type: PromptEncoderReparameterizationType | str = PromptEncoderReparameterizationType.MLP
    encoder_hidden_size: int | None = None
    encoder_num_layers: int = 2
    encoder_dropout: float = 0.0

    def __post_init__(self) -> None:
        if self.task_type is not None and self.task_type not in list(TaskType):
            raise SettingsError(
                f"Invalid task type: '{self.task_type}'. Must be one of the following task types: {', '.join(TaskType)}"
            )
        self._check_values()
        self.peft_type = PEFT_TYPE
        if self.peft_version is None:
            self.peft_version = PEFT_VERSION

    @property
    def total_virtual_tokens(self) -> int:
        """Rows of the prompt encoder's output: `num_virtual_tokens` for each transformer submodule.

        Raises:
            SettingsError: `num_virtual_tokens` is not set.
        """
        self._check_values(required=("num_virtual_tokens",))
        submodules = self.num_transformer_submodules
        if submodules is None:
            submodules = 2 if self.task_type == TaskType.SEQ_2_SEQ_LM else 1
        return (self.num_virtual_tokens or 0) * submodules

    @property
    def encoder_type(self) -> PromptEncoderReparameterizationType:
        """`encoder_reparameterization_type` as a member of our enum.

        Raises:
            SettingsError: It is neither MLP nor LSTM.
        """
        try:
            return PromptEncoderReparameterizationType(self.encoder_reparameterization_type)
        except ValueError:
            raise SettingsError(
                "Prompt encoder type not recognized. Please use one of MLP (recommended) or LSTM",
                got=repr(self.encoder_reparameterization_type),
            ) from None

    def check_complete(self) -> None:
        """Check that a prompt encoder can be built.

        Raises:
            SettingsError: With every size that is missing or not usable, or an unknown encoder type.
        """
        required = ["num_virtual_tokens", "token_dim"]
        if not self.inference_mode:
            required += ["encoder_hidden_size", "encoder_num_layers"]
        self._check_values(required)
        if not self.inference_mode:
            _ = self.encoder_type

    def to_dict(self) -> dict[str, Any]:
        """Every field; enum members as their plain strings."""
        return {name: value.value if isinstance(value, Enum) else value for name, value in asdict(self).items()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Build from what `to_dict` or an `adapter_config.json` gives.

        Keys that are not ours are ignored with a UserWarning, as in PEFT, so that files of later versions load.

        Raises:
            SettingsError: It is the config of another method, or holds values that cannot work.
        """
        peft_type = values.get("peft_type")
        if peft_type is not None and peft_type != PEFT_TYPE:
            raise SettingsError(
                "This is not the config of a P-tuning adapter", got=f"peft_type {peft_type!r}", needed=PEFT_TYPE
            )
        names = {field.name for field in fields(cls)}
        if unexpected := sorted(set(values) - names):
            warnings.warn(
                f"Unexpected keyword arguments {unexpected} for class {cls.__name__}, these are ignored. This probably "
                "means that you're loading a configuration file that was saved using a higher version of the library "
                "and additional parameters have been introduced since.",
                stacklevel=2,
            )
        return cls(**{name: value for name, value in values.items() if name in names})

    def save_pretrained(self, save_directory: str | Path) -> None:
        """Write `adapter_config.json` into a folder, byte for byte as PEFT does.

        Raises:
            SettingsError: The path is a file.
        """
        directory = Path(save_directory)
        if directory.is_file():
            raise SettingsError(f"Provided path ({directory}) should be a directory, not a file")
        directory.mkdir(parents=True, exist_ok=True)
        text = json.dumps(self.to_dict(), indent=2, sort_keys=True)
        (directory / CONFIG_NAME).write_text(text, encoding="utf-8")

    @classmethod
    def from_pretrained(cls, directory: str | Path) -> Self:
        """Read `adapter_config.json` from a local folder.

        Raises:
            SettingsError: The file is missing, is not a JSON object, or holds values that cannot work.
        """
        path = Path(directory) / CONFIG_NAME
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
        except OSError:
            raise SettingsError(f"Can't find '{CONFIG_NAME}' at '{directory}'") from None
        except ValueError as error:
            raise SettingsError(f"'{path}' is not a JSON file", got=str(error)) from None
        if not isinstance(values, dict):
            raise SettingsError(f"'{path}' does not hold a JSON object", got=type(values).__name__)
        return cls.from_dict(values)

    def _check_values(self, required: Sequence[str] = ()) -> None:
        problems = []
        for name in _SIZES:
            value = getattr(self, name)
            if value is None and name in required:
                problems.append(f"{name} is not set")
            elif value is not None and (type(value) is not int or value < 1):
                problems.append(f"{name} is {value!r}")
        dropout = self.encoder_dropout
        if isinstance(dropout, bool) or not isinstance(dropout, int | float) or not 0 <= dropout <= 1:
            problems.append(f"encoder_dropout is {dropout!r}")
        if problems:
            raise SettingsError(
                "The prompt encoder cannot be built from these sizes",
                got=", ".join(problems),
                needed="whole numbers of at least 1 for sizes, and a dropout from 0 to 1",
            )


_SIZES = (
    "num_virtual_tokens",
    "token_dim",
    "num_transformer_submodules",
    "num_attention_heads",
    "num_layers",
    "encoder_hidden_size",
    "encoder_num_layers",
)
