"""PromptEncoderConfig against PEFT's own."""

from __future__ import annotations

import copy
import json
import pickle
from dataclasses import fields
from pathlib import Path
from typing import Any

import peft
import pytest
from peft import PromptEncoderReparameterizationType as PeftEncoderType

from ptune_core import PromptEncoderConfig
from ptune_core.errors import SettingsError
from ptune_core.prompt.config import PromptEncoderReparameterizationType, TaskType

SIZES: dict[str, Any] = {
    "num_virtual_tokens": 4,
    "token_dim": 8,
    "num_transformer_submodules": 1,
    "num_attention_heads": 2,
    "num_layers": 3,
    "encoder_hidden_size": 6,
}


def test_fields_order_and_defaults_are_pefts() -> None:
    theirs = peft.PromptEncoderConfig()
    assert [field.name for field in fields(PromptEncoderConfig)] == [field.name for field in fields(theirs)]
    assert PromptEncoderConfig().to_dict() == theirs.to_dict()


@pytest.mark.parametrize("task_type", [*TaskType, *peft.TaskType, None])
@pytest.mark.parametrize("encoder_type", ["LSTM", PromptEncoderReparameterizationType.LSTM, PeftEncoderType.LSTM])
def test_written_files_are_the_same_bytes(task_type: str | None, encoder_type: str, tmp_path: Path) -> None:
    values = {"task_type": task_type, "encoder_reparameterization_type": encoder_type, "base_model_name_or_path": "é"}
    PromptEncoderConfig(**values, **SIZES).save_pretrained(tmp_path / "ours")
    peft.PromptEncoderConfig(**values, **SIZES).save_pretrained(tmp_path / "theirs")
    ours = (tmp_path / "ours/adapter_config.json").read_bytes()
    assert ours == (tmp_path / "theirs/adapter_config.json").read_bytes()
    assert len(json.loads(ours)) == 17


def test_each_reads_what_the_other_wrote(tmp_path: Path) -> None:
    values = {**SIZES, "task_type": "SEQ_2_SEQ_LM", "inference_mode": True, "modules_to_save": ["score"],
              "revision": "main", "encoder_dropout": 0.5, "encoder_num_layers": 3}  # fmt: skip
    ours, theirs = PromptEncoderConfig(**values), peft.PromptEncoderConfig(**values)
    ours.save_pretrained(tmp_path / "ours")
    theirs.save_pretrained(str(tmp_path / "theirs"))
    assert peft.PeftConfig.from_pretrained(str(tmp_path / "ours")).to_dict() == theirs.to_dict()
    assert PromptEncoderConfig.from_pretrained(tmp_path / "theirs") == ours


def test_peft_type_is_always_p_tuning() -> None:
    assert PromptEncoderConfig().peft_type == "P_TUNING"
    assert PromptEncoderConfig(peft_type="LORA").peft_type == peft.PromptEncoderConfig(peft_type="LORA").peft_type


def test_a_given_peft_version_is_kept() -> None:
    assert PromptEncoderConfig(peft_version="0.9.0").peft_version == "0.9.0"


@pytest.mark.parametrize("task_type", ["causal_lm", "FOO", "", 1])
def test_an_invalid_task_type_is_pefts_error(task_type: Any) -> None:
    with pytest.raises(ValueError) as theirs:
        peft.PromptEncoderConfig(task_type=task_type)
    with pytest.raises(ValueError) as ours:
        PromptEncoderConfig(task_type=task_type)
    assert str(ours.value) == str(theirs.value)


@pytest.mark.parametrize(("submodules", "task_type", "total"), [
    (1, "CAUSAL_LM", 20), (2, "CAUSAL_LM", 40), (1, "SEQ_2_SEQ_LM", 20), (None, "SEQ_2_SEQ_LM", 40), (None, None, 20),
])  # fmt: skip
def test_total_virtual_tokens(submodules: int | None, task_type: str | None, total: int) -> None:
    config = PromptEncoderConfig(task_type=task_type, num_virtual_tokens=20, num_transformer_submodules=submodules)
    assert config.total_virtual_tokens == total


def test_total_virtual_tokens_needs_a_number() -> None:
    with pytest.raises(SettingsError, match="num_virtual_tokens is not set"):
        _ = PromptEncoderConfig().total_virtual_tokens


@pytest.mark.parametrize("name", [*SIZES, "encoder_num_layers"])
@pytest.mark.parametrize("value", [0, -1, 2.0, "8", True])
def test_unusable_sizes_are_refused(name: str, value: Any) -> None:
    with pytest.raises(SettingsError, match=f"{name} is {value!r}"):
        PromptEncoderConfig(**{**SIZES, name: value})


@pytest.mark.parametrize("value", [-0.1, 1.5, float("nan"), "0.1", None, True])
def test_an_unusable_dropout_is_refused(value: Any) -> None:
    with pytest.raises(SettingsError, match="encoder_dropout"):
        PromptEncoderConfig(encoder_dropout=value)


def test_all_problems_are_told_at_once() -> None:
    with pytest.raises(SettingsError) as caught:
        PromptEncoderConfig(num_virtual_tokens=0, token_dim=-1, encoder_dropout=2)
    assert "num_virtual_tokens is 0, token_dim is -1, encoder_dropout is 2" in str(caught.value)


def test_copies_and_dicts_are_equal() -> None:
    config = PromptEncoderConfig(task_type=TaskType.SEQ_CLS, modules_to_save=["score"], **SIZES)
    assert copy.deepcopy(config) == pickle.loads(pickle.dumps(config)) == config
    assert PromptEncoderConfig.from_dict(config.to_dict()) == config
    assert {type(value) for value in config.to_dict().values()} <= {str, int, float, bool, list, type(None)}


def test_unknown_keys_are_ignored_with_pefts_warning() -> None:
    with pytest.warns(UserWarning, match=r"Unexpected keyword arguments \['a', 'b'\] for class PromptEncoderConfig"):
        config = PromptEncoderConfig.from_dict({"b": 1, "a": 2, "num_virtual_tokens": 3})
    assert config == PromptEncoderConfig(num_virtual_tokens=3)


def test_the_config_of_another_method_is_refused() -> None:
    with pytest.raises(SettingsError, match="peft_type 'LORA'.*P_TUNING"):
        PromptEncoderConfig.from_dict({"peft_type": "LORA"})


@pytest.mark.parametrize(("content", "message"), [
    (None, "Can't find 'adapter_config.json'"), ("{", "is not a JSON file"), ("[]", "does not hold a JSON object"),
    (b"\xff\xfe", "is not a JSON file"), ('{"num_virtual_tokens": 0}', "num_virtual_tokens is 0"),
])  # fmt: skip
def test_unreadable_files(content: str | bytes | None, message: str, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / "adapter_config.json").write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(SettingsError, match=message):
        PromptEncoderConfig.from_pretrained(tmp_path)


def test_saving_onto_a_file_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("")
    with pytest.raises(SettingsError, match="should be a directory, not a file"):
        PromptEncoderConfig().save_pretrained(path)
