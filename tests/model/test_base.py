"""Loading a base model: frozen, fp32 head, safetensors only, and an answer for everything that can be wrong."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from transformers import DistilBertConfig, DistilBertModel, RobertaConfig, RobertaForSequenceClassification

from ptune_core.errors import BaseModelError, SettingsError
from ptune_core.model.base import load_base_model, with_head_input
from ptune_core.model.head_input import HeadInput
from ptune_core.prompt.template import TargetKind


def test_language_model_is_frozen_and_in_eval_mode(tiny_gpt2: Path) -> None:
    base = load_base_model(str(tiny_gpt2), target=TargetKind.ANSWER, device="cpu", precision="fp32")
    assert not base.model.training and not any(p.requires_grad for p in base.model.parameters())
    assert (base.hidden_size, base.max_positions, base.is_causal, base.head) == (32, 64, True, None)


def test_head_is_trainable_and_fp32_on_a_bf16_base(tiny_bert: Path) -> None:
    base = load_base_model(str(tiny_bert), target=TargetKind.HEAD, num_labels=3, device="cpu", precision="bf16")
    trainable = {name: p for name, p in base.model.named_parameters() if p.requires_grad}
    assert set(trainable) == {"classifier.weight", "classifier.bias"}
    assert all(p.dtype == torch.float32 for p in trainable.values())
    assert base.embedding_weight.dtype == torch.bfloat16
    logits = base.model(input_ids=torch.tensor([[2, 7, 3]])).logits
    assert logits.dtype == torch.float32 and logits.shape == (1, 3)


def test_roberta_has_fewer_positions_than_its_table(tiny_bert: Path, tmp_path: Path) -> None:
    config = RobertaConfig(
        vocab_size=60, hidden_size=32, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2,
        max_position_embeddings=34, pad_token_id=1,
    )  # fmt: skip
    RobertaForSequenceClassification(config).save_pretrained(tmp_path)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(tiny_bert / name, tmp_path)
    base = load_base_model(str(tmp_path), target=TargetKind.HEAD, num_labels=2, device="cpu", precision="fp32")
    assert base.max_positions == 32
    embeds = torch.zeros(1, 32, 32)
    assert base.model(inputs_embeds=embeds, attention_mask=torch.ones(1, 32)).logits.shape == (1, 2)


@pytest.mark.parametrize("id", ["../no-such-folder", "a/b/c", "http://example.org/model", "", "no such model!"])
def test_what_is_no_model_id_is_said_to_be_none(id: str) -> None:
    with pytest.raises(BaseModelError, match="There is no base model"):
        load_base_model(id, target=TargetKind.ANSWER)


def test_unreachable_hub_is_told_from_a_wrong_id(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(BaseModelError, match="Hub cannot be reached.*'demo', or give a local folder"):
        load_base_model("nobody-here/does-not-exist", target=TargetKind.ANSWER)


def test_weights_that_are_not_safetensors_are_never_read(tiny_gpt2: Path, tmp_path: Path) -> None:
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        shutil.copy(tiny_gpt2 / name, tmp_path)
    (tmp_path / "pytorch_model.bin").write_bytes(b"\x80\x04cos\nsystem\n")
    with pytest.raises(BaseModelError, match="no safetensors weights"):
        load_base_model(str(tmp_path), target=TargetKind.ANSWER)


def test_remote_code_is_never_run(tiny_gpt2: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny_gpt2, tmp_path / "model")
    canary = tmp_path / "canary"
    (tmp_path / "model" / "evil.py").write_text(f"open({str(canary)!r}, 'w')\nclass Config: pass\n")
    config = json.loads((tmp_path / "model" / "config.json").read_text())
    config |= {"model_type": "evil", "auto_map": {"AutoConfig": "evil.Config", "AutoModelForCausalLM": "evil.Config"}}
    (tmp_path / "model" / "config.json").write_text(json.dumps(config))
    with pytest.raises(BaseModelError, match="never run here"):
        load_base_model(str(tmp_path / "model"), target=TargetKind.ANSWER)
    assert not canary.exists()


def test_folder_without_a_model_is_explained(tmp_path: Path) -> None:
    with pytest.raises(BaseModelError, match="cannot be loaded"):
        load_base_model(str(tmp_path), target=TargetKind.ANSWER)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"n_embd": 64}, "weights of other sizes"),
        ({"n_embd": "32"}, "n_embd"),
        ({"n_head": 0}, "zero"),
        ({}, "cannot be loaded"),  # with weights that are cut short
    ],
)
def test_damaged_folders_are_explained(tiny_gpt2: Path, tmp_path: Path, changes: dict[str, object], told: str) -> None:
    """Each ended in another exception of the libraries below; a stranger's adapter may bring such a base model."""
    shutil.copytree(tiny_gpt2, tmp_path / "model")
    config, weights = tmp_path / "model" / "config.json", tmp_path / "model" / "model.safetensors"
    config.write_text(json.dumps(json.loads(config.read_text()) | changes))
    if not changes:
        weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(BaseModelError, match=told):
        load_base_model(str(tmp_path / "model"), target=TargetKind.ANSWER, device="cpu")


@pytest.mark.skipif(torch.cuda.is_available(), reason="asks for a machine without a GPU")
def test_missing_gpu_is_said_so(tiny_gpt2: Path) -> None:
    with pytest.raises(SettingsError, match="no GPU"):
        load_base_model(str(tiny_gpt2), target=TargetKind.ANSWER, device="cuda")


def test_layers_below_the_head_that_no_file_holds_are_refused(tiny_bert: Path, tmp_path: Path) -> None:
    """DistilBERT's `pre_classifier` was random at every load and in no adapter: the tuned model was useless in Try."""
    config = DistilBertConfig(vocab_size=60, dim=32, hidden_dim=32, n_layers=1, n_heads=2, max_position_embeddings=34)
    DistilBertModel(config).save_pretrained(tmp_path)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(tiny_bert / name, tmp_path)
    loaded = load_base_model(str(tmp_path), target=TargetKind.HEAD, num_labels=2, device="cpu")
    with pytest.raises(BaseModelError, match="pre_classifier.weight.*Set head_input to mean or auto"):
        with_head_input(loaded, HeadInput.MODEL)
    base = with_head_input(loaded, HeadInput.MEAN)
    assert base.head is not None and base.head.in_features == 32, "the mean stands on layers that the files hold"


def test_an_encoder_cannot_write_answers(tiny_bert: Path) -> None:
    """transformers loads BERT as a causal model that still reads in both directions: it would see its own answer."""
    with pytest.raises(BaseModelError, match=r"both directions.*\[HEAD:label\]"):
        load_base_model(str(tiny_bert), target=TargetKind.ANSWER, device="cpu")
