"""An adapter from elsewhere becomes one of ours, with what its files do not say."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save

from ptune_core.adapters.adoption import adopt
from ptune_core.adapters.format import load_adapter
from ptune_core.errors import AdapterError

WORDS = {"bad": " bad", "good": " good"}


def peft_zip(path: Path, *, base: str | None = None, head: bool = False, folder: str = "", **changed: Any) -> Path:
    """An adapter as PEFT writes it, with 3 virtual tokens of size 8."""
    config = {
        "base_model_name_or_path": base, "encoder_dropout": 0.0, "encoder_hidden_size": 8, "encoder_num_layers": 2,
        "encoder_reparameterization_type": "MLP", "inference_mode": True, "num_attention_heads": 2, "num_layers": 2,
        "num_transformer_submodules": 1, "num_virtual_tokens": 3, "peft_type": "P_TUNING", "token_dim": 8,
        "modules_to_save": ["score"] if head else None, "task_type": "SEQ_CLS" if head else "CAUSAL_LM", **changed,
    }  # fmt: skip
    tensors = {"prompt_embeddings": torch.ones(3, 8)} | ({"base_model.score.weight": torch.ones(2, 8)} if head else {})
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"{folder}adapter_config.json", json.dumps(config))
        archive.writestr(f"{folder}adapter_model.safetensors", save(tensors, metadata={"format": "pt"}))
    return path


def test_labels_and_their_words_make_it_choose(tmp_path: Path) -> None:
    source = peft_zip(tmp_path / "a.zip", folder="my-adapter/")  # a folder that was packed whole
    usage = {"base_model": "me/model", "template": "[P*3] {review} It was[ANSWER:label]", "answers": WORDS}
    adopt(source, tmp_path / "out", usage)
    for place in (tmp_path / "out" / "adapter", tmp_path / "out" / "adapter.zip"):
        found = load_adapter(place)
        assert found.base_model == "me/model" and found.labels == ("bad", "good") and found.verbalizer == WORDS
        assert found.template == usage["template"] and torch.equal(found.prompt_embeddings, torch.ones(3, 8))
    assert {"README.md", "snippet.py"} <= {path.name for path in (tmp_path / "out" / "adapter").iterdir()}


def test_the_labels_of_a_head_get_names(tmp_path: Path) -> None:
    adopt(peft_zip(tmp_path / "a.zip", base="me/model", head=True), tmp_path / "out", {"answers": WORDS})
    found = load_adapter(tmp_path / "out" / "adapter")
    assert found.labels == ("bad", "good") and found.verbalizer is None and found.base_model == "me/model"


def test_all_that_does_not_fit_is_said_at_once_and_nothing_is_written(tmp_path: Path) -> None:
    usage = {"template": "{text} [P*2] It was [HEAD:label]", "answers": {"bad": " "}}
    with pytest.raises(AdapterError) as caught:
        adopt(peft_zip(tmp_path / "a.zip"), tmp_path / "out", usage)
    told = str(caught.value)
    assert "6. " in told and "7. " not in told, told
    for word in (
        "which base model",
        "2 virtual tokens",
        "stand in front",
        "[HEAD:",
        "two to choose",
        "no answer words",
    ):
        assert word in told
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "template", ["{text}", "user: [P*3] {text}\nassistant: [ANSWER:answer]", '[P="a"] {t}[ANSWER:a]']
)
def test_templates_that_fit_no_finished_adapter(tmp_path: Path, template: str) -> None:
    with pytest.raises(AdapterError, match="template"):
        adopt(peft_zip(tmp_path / "a.zip", base="me/model"), tmp_path / "out", {"template": template})


@pytest.mark.parametrize(
    "names", [["../a/adapter_config.json"], ["a/adapter_config.json", "b/adapter_model.safetensors"]]
)
def test_only_one_folder_may_stand_around_the_files(tmp_path: Path, names: list[str]) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for name in names:
            archive.writestr(name, "{}")
    with pytest.raises(AdapterError, match="missing|outside"):
        adopt(tmp_path / "a.zip", tmp_path / "out", {})
