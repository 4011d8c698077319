"""The same formulas as in transformers' modules, by kernels that are faster.

oneDNN comes with torch, which multiplies by it in bf16. In fp32 torch takes MKL, and MKL's kernels for processors of
another maker are slow: on an AMD EPYC oneDNN takes 0.5 to 0.9 of its time, least for few rows (benchmarks/RESULTS.md).

What oneDNN makes of a row does not depend on the rows beside it, if there are any. MKL keeps that only on Intel's
processors, told so by `ptune_core.steady`. Without it a sweep that was resumed, whose trials have other company in
their batches than before, would not end as an undisturbed one.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers.activations import FastGELUActivation, NewGELUActivation
from transformers.pytorch_utils import Conv1D


def fuse_activations(model: nn.Module) -> None:
    """Put torch's GELU, which is one kernel and saves one tensor, where transformers writes the same formula out."""
    for module in model.modules():
        for name, child in module.named_children():
            if isinstance(child, NewGELUActivation | FastGELUActivation):
                setattr(module, name, nn.GELU(approximate="tanh"))


def onednn_is_faster() -> bool:
    """Whether fp32 matrices are multiplied faster by oneDNN than by what torch takes, on this machine's CPU."""
    maker = str(torch.cpu.get_capabilities().get("cpu_name", ""))
    return torch.backends.mkldnn.is_available() and torch.backends.mkl.is_available() and maker.startswith("AMD")


def use_onednn(body: nn.Module) -> None:
    """Let every layer of `body` with fp32 weights on a CPU multiply by oneDNN, but for single rows."""
    for module in body.modules():
        if type(module) not in (nn.Linear, Conv1D):
            continue
        weight: Any = module.weight
        if weight.dtype == torch.float32 and weight.device.type == "cpu":
            vars(module)["forward"] = partial(_linear, module, module.forward, type(module) is Conv1D, False)


def keep_rows_alike(body: nn.Module) -> None:
    """Where `body` multiplies by oneDNN, let what becomes of a single row be what becomes of it among others.

    For training: a token that is generated is a single row, and this takes up to twice as long.
    """
    for module in body.modules():
        if (forward := _by_onednn(module)) is not None:
            _, usual, is_transposed, _ = forward.args
            vars(module)["forward"] = partial(_linear, module, usual, is_transposed, True)


def _by_onednn(module: nn.Module) -> partial[Tensor] | None:
    forward = vars(module).get("forward")
    return forward if isinstance(forward, partial) and forward.func is _linear else None


def multiply(rows: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """`[..., in]` times `[out, in]`, of any strides, by oneDNN: `[..., out]`. For gradients see `Product`."""
    product: Tensor = torch.ops.mkldnn._linear_pointwise(rows, weight, bias, "none", [], "")
    return product


class Product(torch.autograd.Function):
    """`multiply` with a gradient of the rows, and of weight and bias where they learn."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """See `multiply`."""
        # The rows are of use to the weight's gradient alone: under a frozen layer they need not be kept.
        ctx.save_for_backward(weight, rows if ctx.needs_input_grad[1] else None)
        return multiply(rows, weight, bias)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        """The gradients of rows, weight and bias, as far as they are asked for."""
        (gradient,), (weight, rows) = gradients, ctx.saved_tensors
        for_rows, for_weight, for_bias = ctx.needs_input_grad
        flat = gradient.flatten(0, -2)
        return (
            multiply(gradient, weight.t()) if for_rows else None,
            _outer(flat, rows.flatten(0, -2)) if for_weight else None,
            flat.sum(0) if for_bias else None,
        )


def _outer(gradient: Tensor, rows: Tensor) -> Tensor:
    """`[out, in]` of `[N, out]` and `[N, in]`; oneDNN has no product over nothing."""
    return multiply(gradient.t(), rows.t()) if len(rows) else gradient.t() @ rows


def product_of(module: nn.Module) -> Callable[[Tensor, Tensor, Tensor | None], Tensor]:
    """`functional.linear` as `module` multiplies: for some of its rows, or of its weights'."""
    forward = _by_onednn(module)
    return functional.linear if forward is None else partial(_product, forward.args[-1])


def _linear(
    module: Any, usual: Callable[[Tensor], Tensor], is_transposed: bool, is_alike: bool, hidden: Tensor
) -> Tensor:
    if not hidden.is_cpu or (_is_one_row(hidden) and not is_alike):  # a model may move to a GPU after it was loaded
        return usual(hidden)
    return _product(is_alike, hidden, module.weight.t() if is_transposed else module.weight, module.bias)


def _product(is_alike: bool, hidden: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    if not hidden.is_cpu:
        return functional.linear(hidden, weight, bias)
    if not _is_one_row(hidden):
        product: Tensor = Product.apply(hidden, weight, bias)
        return product
    if not is_alike:  # as fast as its weights are read, by any library
        return functional.linear(hidden, weight, bias)
    # oneDNN has another kernel for one row, which rounds otherwise.
    two: Tensor = Product.apply(hidden.reshape(1, -1).expand(2, -1), weight, bias)
    return two[:1].reshape(*hidden.shape[:-1], -1)


def _is_one_row(hidden: Tensor) -> bool:
    return hidden.numel() == hidden.shape[-1]
