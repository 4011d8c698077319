"""Pytest plugin under which PEFT's own tests run offline with PTune's prompt encoder and config in place of PEFT's.

It is loaded before PEFT's tests are imported. Both classes take over every name and both mappings in which PEFT keeps
its own; what they inherit from PEFT beside them is only what ties them into its machinery. When the tests are done, it
writes what it counted to the file that `PTUNE_PEFT_REPORT` names.
"""

from __future__ import annotations

import json
import os
import sys
from collections import Counter
from contextlib import nullcontext
from dataclasses import dataclass
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

import peft
import pytest
from datasets import Dataset, DatasetDict
from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING, PEFT_TYPE_TO_TUNER_MAPPING
from peft.tuners.tuners_utils import BasePromptEncoder
from tiny_hub import QUOTES, fill

from ptune_core.prompt.config import PEFT_TYPE
from ptune_core.prompt.config import PromptEncoderConfig as OwnConfig
from ptune_core.prompt.encoder import PromptEncoder as OwnEncoder

COUNTS: Counter[str] = Counter()


@dataclass
class PromptEncoderConfig(OwnConfig, peft.PromptLearningConfig):
    """PTune's config: fields, defaults, rules and files are its own. PEFT's base reaches the Hub and other methods."""

    def __post_init__(self) -> None:
        COUNTS["configs"] += 1
        self.peft_version = self.peft_version or self._get_peft_version()
        super().__post_init__()
        self.peft_type = peft.PeftType.P_TUNING  # PEFT reads its `value`

    def save_pretrained(self, save_directory: str | Path, **kwargs: Any) -> None:
        """As PTune does; PEFT passes an `auto_mapping_dict` of custom model classes, which no test here has."""
        assert not any(kwargs.values())
        OwnConfig.save_pretrained(self, save_directory)

    @classmethod
    def from_pretrained(cls, name: str | Path, subfolder: str | None = None, **kwargs: Any) -> Any:
        """As PTune does where a folder holds a P-tuning adapter; the Hub and all else is PEFT's."""
        file = Path(name, subfolder or "", "adapter_config.json")
        if file.is_file() and json.loads(file.read_text(encoding="utf-8")).get("peft_type") == PEFT_TYPE:
            return super().from_pretrained(file.parent)
        return peft.PeftConfig.from_pretrained.__func__(cls, name, subfolder=subfolder, **kwargs)


class PromptEncoder(OwnEncoder, BasePromptEncoder):
    """PTune's encoder: modules, start and forward are its own. PEFT's base says how its result is saved and loaded."""

    def __init__(self, config: PromptEncoderConfig) -> None:
        COUNTS["encoders"] += 1
        super().__init__(config)

    def forward(self, indices: Any) -> Any:
        """Counted."""
        COUNTS["forward passes"] += 1
        return super().forward(indices)


def take_over(old: type, new: type) -> None:
    """Give `new` every name that `old` has in PEFT, and count every object of `old` that is made nevertheless."""
    for name, module in list(sys.modules.items()):
        if name.split(".")[0] == "peft":
            for attribute in [key for key, value in vars(module).items() if value is old]:
                setattr(module, attribute, new)
    original: Any = old.__init__

    def counted(self: Any, *args: Any, **kwargs: Any) -> None:
        COUNTS[f"PEFT's own {old.__name__}"] += 1
        original(self, *args, **kwargs)

    old.__init__ = counted  # type: ignore[misc]


take_over(peft.PromptEncoderConfig, PromptEncoderConfig)
take_over(peft.PromptEncoder, PromptEncoder)
PEFT_TYPE_TO_CONFIG_MAPPING[peft.PeftType.P_TUNING] = PromptEncoderConfig
PEFT_TYPE_TO_TUNER_MAPPING[peft.PeftType.P_TUNING] = PromptEncoder

# PEFT's tests import this library for image models, of which none is selected.
diffusers = ModuleType("diffusers")
diffusers.__spec__ = ModuleSpec("diffusers", None)
diffusers.StableDiffusionPipeline = type("StableDiffusionPipeline", (), {})  # type: ignore[attr-defined]
sys.modules.setdefault("diffusers", diffusers)


def pytest_collection_finish() -> None:
    """Keep PEFT's tests off the network, now that they are imported."""
    fill(Path(os.environ["HF_HUB_CACHE"]))
    for module in list(sys.modules.values()):
        if hasattr(module, "hub_online_once"):
            module.hub_online_once = nullcontext
        if hasattr(module, "load_dataset_english_quotes"):
            module.load_dataset_english_quotes = english_quotes


def english_quotes() -> DatasetDict:
    """What the data set of quotes is for the tests that train on it."""
    return DatasetDict(train=Dataset.from_dict({"quote": QUOTES * 4}))


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Count outcomes as pytest's last line does."""
    if report.when == "call" or report.outcome != "passed":
        COUNTS[report.outcome] += 1


def pytest_deselected(items: list[pytest.Item]) -> None:
    """Count what PEFT's tests hold beside those selected."""
    COUNTS["deselected"] += len(items)


def pytest_unconfigure() -> None:
    """Write the counts."""
    Path(os.environ["PTUNE_PEFT_REPORT"]).write_text(json.dumps(COUNTS), encoding="utf-8")
