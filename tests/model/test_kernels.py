"""Faster kernels give the same numbers and gradients."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification
from transformers.pytorch_utils import Conv1D

from ptune_core.model.base import load_base_model
from ptune_core.model.kernels import Product, keep_rows_alike, onednn_is_faster, product_of, use_onednn
from ptune_core.model.targets import only_rows
from ptune_core.prompt.template import TargetKind

pytestmark = pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="this torch has no oneDNN")


def product_and_gradients(
    rows: Tensor, weight: Tensor, bias: Tensor | None, *, plain: bool, learns: bool
) -> list[Tensor]:
    rows = rows.detach().requires_grad_(True)
    asked = [rows]
    if learns:
        weight, bias = (
            weight.detach().requires_grad_(True),
            None if bias is None else bias.detach().requires_grad_(True),
        )
        asked += [weight] if bias is None else [weight, bias]
    product = functional.linear(rows, weight, bias) if plain else Product.apply(rows, weight, bias)
    return [product.detach(), *torch.autograd.grad(product.sin().sum(), asked)]


@pytest.mark.parametrize("is_transposed", [False, True])
@pytest.mark.parametrize("has_bias", [False, True])
@pytest.mark.parametrize("shape", [(5, 24), (2, 3, 24), (1, 0, 24)])
@pytest.mark.parametrize("learns", [False, True])
def test_a_product_has_its_value_and_gradients(
    is_transposed: bool, has_bias: bool, shape: tuple[int, ...], learns: bool
) -> None:
    rows, bias = torch.randn(shape), torch.randn(40) if has_bias else None
    weight = torch.randn(24, 40).t() if is_transposed else torch.randn(40, 24)
    if len(shape) == 3:
        rows = rows.transpose(0, 1)
    found, expected = (product_and_gradients(rows, weight, bias, plain=plain, learns=learns) for plain in (False, True))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("base", ["tiny_gpt2", "tiny_llama"])
def test_a_model_is_the_same_by_onednn(base: str, request: pytest.FixtureRequest) -> None:
    model = AutoModelForCausalLM.from_pretrained(request.getfixturevalue(base)).eval().requires_grad_(False)
    ids = torch.tensor([[5, 6, 7, 8], [9, 8, 7, 6]])
    expected, one = model(input_ids=ids).logits, model(input_ids=ids[:1, :1]).logits
    use_onednn(model)
    torch.testing.assert_close(model(input_ids=ids).logits, expected, rtol=1e-4, atol=1e-4)
    assert torch.equal(model(input_ids=ids[:1, :1]).logits, one), "a single row is no matter of kernels"


@pytest.mark.parametrize("learns", [False, True])
@pytest.mark.parametrize("is_transposed", [False, True])
def test_what_onednn_makes_of_a_row_does_not_depend_on_those_beside_it(is_transposed: bool, learns: bool) -> None:
    """Bug: a single row was left to MKL, which rounds otherwise, so a sweep of such batches did not resume exactly."""
    model = nn.Sequential(Conv1D(40, 24) if is_transposed else nn.Linear(24, 40)).requires_grad_(False)
    use_onednn(model)
    keep_rows_alike(model)
    rows, weight = torch.randn(1, 33, 24).requires_grad_(learns), torch.randn(3, 24)
    whole, by_head = model(rows), product_of(model[0])(rows, weight, None)
    for first, end in ((0, 1), (5, 6), (0, 2), (3, 8), (1, 33)):
        assert torch.equal(model(rows[:, first:end]), whole[:, first:end])
        assert torch.equal(product_of(model[0])(rows[:, first:end], weight, None), by_head[:, first:end])
    if learns:
        (every,) = torch.autograd.grad(whole.sum(), rows)
        (one,) = torch.autograd.grad(model(rows[:, 5:6]).sum(), rows)
        assert torch.equal(one[:, 5], every[:, 5])


def test_the_vocabulary_head_multiplies_as_before_when_its_rows_were_chosen(tiny_llama: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(tiny_llama).eval().requires_grad_(False)
    use_onednn(model)
    before = vars(model.lm_head)["forward"]
    with only_rows(model.lm_head, torch.tensor([1, 2]), torch.tensor([7, 9, 30])):
        found = model(input_ids=torch.tensor([[5, 6, 7, 8]])).logits
    assert found.shape == (1, 2, 3) and vars(model.lm_head)["forward"] is before


def test_a_model_that_moves_to_a_gpu_leaves_onednn_behind(tiny_llama: Path) -> None:
    """Bug: inference loads on the CPU and then moves; oneDNN has no kernel elsewhere."""
    model = AutoModelForCausalLM.from_pretrained(tiny_llama).eval().requires_grad_(False)
    use_onednn(model.base_model)
    assert model.to("meta")(input_ids=torch.tensor([[5, 6, 7, 8]], device="meta")).logits.shape[:2] == (1, 4)


def test_only_frozen_fp32_layers_below_the_head_are_changed(tiny_bert: Path) -> None:
    for dtype, is_changed in ((torch.float32, True), (torch.bfloat16, False)):
        model = AutoModelForSequenceClassification.from_pretrained(tiny_bert, dtype=dtype).requires_grad_(False)
        use_onednn(model.base_model)
        changed = {name for name, module in model.named_modules() if "forward" in vars(module)}
        linear = {name for name, module in model.base_model.named_modules() if isinstance(module, nn.Linear)}
        assert changed == ({f"{model.base_model_prefix}.{name}" for name in linear} if is_changed else set())


@pytest.mark.parametrize(("maker", "expected"), [("AMD EPYC 9B14", True), ("Intel(R) Xeon(R) Processor", False)])
def test_onednn_is_taken_where_it_was_measured_to_be_faster(
    maker: str, expected: bool, tiny_gpt2: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"cpu_name": maker})
    monkeypatch.setattr(torch.backends.mkl, "is_available", lambda: True)
    assert onednn_is_faster() is expected
    base = load_base_model(str(tiny_gpt2), target=TargetKind.ANSWER, device="cpu", precision="fp32")
    assert any("forward" in vars(module) for module in base.body.modules()) is expected
