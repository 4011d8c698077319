"""A base model in few bits: training goes through the frozen weights, and a missing library is named."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from ptune_core.errors import SettingsError
from ptune_core.model.base import BaseModel, load_base_model
from ptune_core.model.prompted import PromptedModel
from ptune_core.prompt.template import TargetKind, parse_template
from ptune_core.prompt.verbalizer import Verbalizer


def logits_and_gradient(base: BaseModel) -> tuple[Tensor, Tensor]:
    model = PromptedModel(base, parse_template("{text} [P*4][ANSWER:l]"), Verbalizer.from_labels(["a", "b"], None))
    prompt = torch.randn(4, 128, generator=torch.Generator().manual_seed(0)).requires_grad_(True)
    logits = model.label_logits(model.label_batch(model.make_rows([{"text": "great film"}])), prompt)
    logits[0, 0].backward()
    assert prompt.grad is not None
    return logits.detach(), prompt.grad


def bytes_of_layers(base: BaseModel) -> int:
    return sum(parameter.numel() * parameter.element_size() for parameter in base.body.layers.parameters())


@pytest.mark.filterwarnings("ignore:MatMul8bitLt. inputs will be cast")
@pytest.mark.parametrize(("precision", "most"), [("int8", 0.6), ("int4", 0.4)])
def test_few_bits_score_nearly_the_same_and_pass_gradients_on(
    tiny_llama: Path, tmp_path: Path, precision: str, most: float
) -> None:
    # A little wider than the others: bitsandbytes packs 64 numbers at a time.
    config = AutoConfig.from_pretrained(tiny_llama, hidden_size=128, intermediate_size=256)
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
    AutoTokenizer.from_pretrained(tiny_llama).save_pretrained(tmp_path)
    whole = load_base_model(str(tmp_path), target=TargetKind.ANSWER, device="cpu", precision="bf16")
    small = load_base_model(str(tmp_path), target=TargetKind.ANSWER, device="cpu", precision=precision)
    assert small.precision == precision
    assert bytes_of_layers(small) < most * bytes_of_layers(whole)
    (expected, expected_gradient), (logits, gradient) = logits_and_gradient(whole), logits_and_gradient(small)
    assert float((logits - expected).norm() / expected.norm()) < 0.3
    assert torch.nn.functional.cosine_similarity(gradient.flatten(), expected_gradient.flatten(), dim=0) > 0.6


def test_a_missing_library_is_named(tiny_llama: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ptune_core.model.quantize.find_spec", lambda name: None)
    with pytest.raises(SettingsError, match="Precision int4 needs bitsandbytes.*pip install bitsandbytes") as error:
        load_base_model(str(tiny_llama), target=TargetKind.ANSWER, device="cpu", precision="int4")
    assert "train with precision auto; an adapter trained in int4 is used in int4" in str(error.value)
