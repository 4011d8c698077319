"""Behind the last attention only target rows are computed, and nothing that is asked for changes."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import Tensor
from transformers import ModernBertConfig, ModernBertForSequenceClassification, PreTrainedModel

from ptune_core.model.base import BaseModel, load_base_model
from ptune_core.model.prompted import PromptedModel
from ptune_core.model.recomputing import with_gradient_checkpointing
from ptune_core.model.targets import ReadAt, last_layer_at, row_wise_modules
from ptune_core.prompt.template import TargetKind, parse_template
from ptune_core.prompt.verbalizer import Verbalizer

ROW_WISE = {
    "gpt2": {"attn.c_proj", "mlp"},  # queries are one product with keys and values
    "opt": {"self_attn.q_proj", "self_attn.out_proj"},  # its MLP is given rows without a batch
}
USUAL = {"self_attn.q_proj", "self_attn.o_proj", "mlp"}
TEXTS = ["great film", "the food was bad and boring and a terrible waste of time", "once upon a time"]


def load(folder: Path, target: TargetKind = TargetKind.ANSWER) -> BaseModel:
    return load_base_model(str(folder), target=target, num_labels=2, device="cpu", precision="fp32")


def in_last_layer(base: BaseModel) -> set[str]:
    """Names of the row-wise modules, without what stands before the layer's number."""
    names = {module: name for name, module in base.model.named_modules()}
    return {names[module].partition(".1.")[2] for module in base.row_wise}


def count_rows(base: BaseModel) -> list[int]:
    """Rows that the products inside the row-wise modules are given, filled as the model is called."""
    counts: list[int] = []

    def counted(forward: Callable[[Tensor], Tensor], hidden: Tensor) -> Tensor:
        counts.append(hidden.flatten(0, -2).shape[0])
        return forward(hidden)

    for module in base.row_wise:
        inner = next(each for each in module.modules() if not list(each.children()))
        vars(inner)["forward"] = partial(counted, inner.forward)
    return counts


def test_what_is_row_wise_is_found_in_every_family(causal_folder: Callable[[str], Path], family: str) -> None:
    assert in_last_layer(load(causal_folder(family))) == ROW_WISE.get(family, USUAL)


def test_an_encoders_head_reads_its_first_row(tiny_bert: Path) -> None:
    base = load(tiny_bert, TargetKind.HEAD)
    inner = {"attention.self.query", "attention.output.dense", "intermediate", "output.dense"}
    assert in_last_layer(base) == inner


def test_a_head_that_reads_every_row_leaves_nothing_out() -> None:
    config = ModernBertConfig(
        vocab_size=64, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4, pad_token_id=0,
        classifier_pooling="mean",
    )  # fmt: skip
    model: PreTrainedModel = ModernBertForSequenceClassification(config).eval()
    assert row_wise_modules(model, ReadAt.POOLED) == ()
    config.classifier_pooling = "cls"
    assert row_wise_modules(ModernBertForSequenceClassification(config).eval(), ReadAt.POOLED)


@pytest.mark.parametrize("template", ["[P*4] {text} :[ANSWER:label]", "{text} is [P*4][ANSWER:label]"])
def test_a_batch_computes_its_targets_and_a_text_nothing(tiny_llama: Path, template: str) -> None:
    base = load(tiny_llama)
    model = PromptedModel(base, parse_template(template), Verbalizer.from_labels(["bad", "good"], None))
    counts = count_rows(base)
    batch = model.label_batch(model.make_rows([{"text": text} for text in TEXTS]))
    model.label_logits(batch, torch.randn(4, base.hidden_size))
    # First the text before the prompt, or the prompt all rows share, for keys and values alone; then the targets.
    assert counts == [0] * len(base.row_wise) + [len(TEXTS)] * len(base.row_wise)


def test_an_encoders_loss_and_gradient_are_the_whole_graphs(tiny_bert: Path) -> None:
    base = load(tiny_bert, TargetKind.HEAD)
    verbalizer = Verbalizer.from_labels(["bad", "good"], None)
    model = PromptedModel(base, parse_template("[P*4] {text} [HEAD:label]"), verbalizer)
    counts = count_rows(base)
    batch = model.label_batch(model.make_rows([{"text": text} for text in TEXTS]))
    found = []
    for row_wise in (base.row_wise, ()):
        vars(base)["row_wise"] = row_wise
        prompt = torch.randn(4, base.hidden_size, generator=torch.Generator().manual_seed(1)).requires_grad_(True)
        logits = model.label_logits(batch, prompt)
        logits.logsumexp(1).sum().backward()
        found.append((logits.detach(), prompt.grad))
    torch.testing.assert_close(found[0], found[1], rtol=1e-4, atol=1e-4)
    assert set(counts[:4]) == {len(TEXTS)} and set(counts[4:]) == {batch.token_ids.numel()}


def test_a_layer_is_as_before_when_its_targets_are_done(tiny_llama: Path) -> None:
    base = load(tiny_llama)
    ids = torch.tensor([[5, 6, 7, 8]])
    before = base.body(input_ids=ids).last_hidden_state
    with pytest.raises(KeyboardInterrupt), last_layer_at(base.row_wise, torch.tensor([3])):
        only = base.body(input_ids=ids).last_hidden_state
        torch.testing.assert_close(only[:, 3], before[:, 3], rtol=1e-4, atol=1e-4)
        assert not torch.allclose(only[:, 0], before[:, 0])
        raise KeyboardInterrupt
    assert torch.equal(base.body(input_ids=ids).last_hidden_state, before)


def test_layers_that_are_computed_again_are_computed_whole(tiny_llama: Path) -> None:
    """The second time is in the backward pass, when the targets are no longer known."""
    assert with_gradient_checkpointing(load(tiny_llama)).row_wise == ()
