"""A base model in few bits: it learns through the frozen weights, and what is missing is named."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
import torch

from ptune_core.errors import SettingsError
from ptune_core.model.base import load_base_model
from ptune_core.model.prompted import PromptedModel
from ptune_core.prompt.template import TargetKind, parse_template
from ptune_core.prompt.verbalizer import Verbalizer


def test_int8_scores_nearly_the_same_and_passes_gradients_on(tiny_llama: Path) -> None:
    pytest.importorskip("torchao")
    found = {}
    for precision in ("bf16", "int8"):
        base = load_base_model(str(tiny_llama), target=TargetKind.ANSWER, device="cpu", precision=precision)
        assert base.precision == precision
        model = PromptedModel(base, parse_template("{text} [P*4][ANSWER:l]"), Verbalizer.from_labels(["a", "b"], None))
        prompt = torch.randn(4, 32, generator=torch.Generator().manual_seed(0)).requires_grad_(True)
        logits = model.label_logits(model.label_batch(model.make_rows([{"text": "great film"}])), prompt)
        logits[0, 0].backward()
        assert prompt.grad is not None and bool(prompt.grad.isfinite().all()) and float(prompt.grad.abs().sum()) > 0
        found[precision] = (logits.detach(), base)
    assert torch.allclose(found["int8"][0], found["bf16"][0], atol=0.15 * float(found["bf16"][0].abs().max()))
    weights = {name: sum(t.element_size() * t.numel() for t in layer_weights(b)) for name, (_, b) in found.items()}
    assert weights["int8"] < 0.8 * weights["bf16"]


def layer_weights(base: object) -> list[torch.Tensor]:
    tensors = []
    for parameter in base.body.layers.parameters():  # type: ignore[attr-defined]
        names = parameter.__tensor_flatten__()[0] if hasattr(parameter, "__tensor_flatten__") else None
        tensors += [parameter] if names is None else [getattr(parameter, name) for name in names]
    return tensors


def test_a_missing_library_is_named(tiny_llama: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = importlib.util.find_spec
    missing = ("bitsandbytes", "torchao")
    monkeypatch.setattr("ptune_core.model.quantize.find_spec", lambda name: None if name in missing else found(name))
    with pytest.raises(SettingsError, match="Nothing is installed .* int8. Needed: bitsandbytes or torchao"):
        load_base_model(str(tiny_llama), target=TargetKind.ANSWER, device="cpu", precision="int8")
    with pytest.raises(SettingsError, match="int4. Needed: bitsandbytes"):
        load_base_model(str(tiny_llama), target=TargetKind.ANSWER, device="cpu", precision="int4")
