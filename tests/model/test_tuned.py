"""A tuned base model: every weight gets the gradient of the whole graph, and what is written is what was trained."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

from ptune_core.model.base import BaseModel, load_base_model
from ptune_core.model.prompted import PromptedModel
from ptune_core.model.recomputing import with_gradient_checkpointing
from ptune_core.model.tuned import BASE_FILES, learning, put_weights, save_base_model, tunable, untrained_weights
from ptune_core.model.virtual import combine
from ptune_core.prompt.template import TargetKind, parse_template
from ptune_core.prompt.verbalizer import Verbalizer

EXAMPLES = [{"text": text} for text in ("great film", "the food was bad and boring", "I loved every minute")]
LABELS = [1, 0, 1]


@pytest.fixture(autouse=True)
def by_onednn(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on an AMD CPU, wherever the tests run."""
    monkeypatch.setattr("ptune_core.model.base.onednn_is_faster", torch.backends.mkldnn.is_available)


def loaded(folder: Path, target: TargetKind) -> BaseModel:
    torch.manual_seed(0)
    return load_base_model(str(folder), target=target, num_labels=2, device="cpu", precision="fp32")


def prompted(base: BaseModel, template: str) -> PromptedModel:
    parsed = parse_template(template)
    answers = {"bad": " bad", "good": " good"} if parsed.target.kind is TargetKind.ANSWER else None
    return PromptedModel(base, parsed, Verbalizer.from_labels(("bad", "good"), answers))


def gradients(model: torch.nn.Module) -> dict[str, Tensor]:
    return {name: weight.grad for name, weight in model.named_parameters() if weight.grad is not None}


def whole_graph(model: PromptedModel, reference: torch.nn.Module, prompt: Tensor) -> dict[str, Tensor]:
    """Gradients by transformers alone: row after row, without padding, every position computed."""
    losses = []
    for row, label in zip(model.make_rows(EXAMPLES), LABELS, strict=True):
        ids = torch.tensor([row.ids])
        text = reference.get_input_embeddings()(ids.clamp(min=0))  # type: ignore[operator]
        embeddings = combine(text, -ids - 1, prompt)
        logits = reference(inputs_embeds=embeddings).logits
        scores = logits[:, -1, model.answer_ids] if model.answer_ids is not None else logits
        losses.append(functional.cross_entropy(scores, torch.tensor([label])))
    torch.stack(losses).sum().backward()
    return gradients(reference)


def check_gradients(base: BaseModel, reference: torch.nn.Module, template: str, copies_head: bool) -> None:
    model = prompted(base, template)
    if copies_head:
        assert base.head is not None
        reference.get_submodule(base.head_name or "").load_state_dict(base.head.state_dict())
    prompt = torch.randn(3, base.hidden_size, generator=torch.Generator().manual_seed(1)).requires_grad_(True)
    batch = model.label_batch(model.make_rows(EXAMPLES), LABELS)
    assert batch.labels is not None
    functional.cross_entropy(model.label_logits(batch, prompt), batch.labels, reduction="sum").backward()
    assert prompt.grad is not None
    found, of_prompt = gradients(base.model), prompt.grad.clone()
    prompt.grad = None
    expected = whole_graph(model, reference, prompt)
    assert found.keys() == expected.keys() and found
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-3, atol=1e-4 * float(gradient.abs().max()) + 1e-5)
    torch.testing.assert_close(of_prompt, prompt.grad, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("recomputed", [False, True])
@pytest.mark.parametrize("template", ["[P*3] {text}[ANSWER:label]", "{text} it was [P*3][ANSWER:label]"])
def test_weights_get_the_gradient_of_the_whole_graph(
    family: str, causal_folder: Callable[[str], Path], template: str, recomputed: bool
) -> None:
    base = tunable(loaded(causal_folder(family), TargetKind.ANSWER))
    base = with_gradient_checkpointing(base) if recomputed else base
    reference = AutoModelForCausalLM.from_pretrained(causal_folder(family)).eval()
    check_gradients(base, reference, template, copies_head=False)


@pytest.mark.parametrize("folder", ["tiny_bert", "tiny_llama"])
def test_so_they_do_below_a_classification_head(folder: str, request: pytest.FixtureRequest) -> None:
    base = tunable(loaded(request.getfixturevalue(folder), TargetKind.HEAD))
    reference = AutoModelForSequenceClassification.from_pretrained(
        request.getfixturevalue(folder), num_labels=2, pad_token_id=None
    ).eval()
    check_gradients(base, reference, "{text} [P*3] [HEAD:label]", copies_head=True)


def test_answers_give_weights_their_gradient_too(tiny_gpt2: Path) -> None:
    base = tunable(loaded(tiny_gpt2, TargetKind.ANSWER))
    model = PromptedModel(base, parse_template("{text} [P*3][ANSWER:label]"), None)
    rows, answers = model.make_rows(EXAMPLES), [[5, 6, 7], [8], [9, 10]]
    prompt = torch.randn(3, 32)
    model.text_losses(model.text_batch(rows, answers), prompt).sum().backward()
    reference = AutoModelForCausalLM.from_pretrained(tiny_gpt2).eval()
    for row, answer in zip(rows, answers, strict=True):
        ids = torch.tensor([[*row.ids, *answer]])
        logits = reference(inputs_embeds=combine(reference.transformer.wte(ids.clamp(min=0)), -ids - 1, prompt)).logits
        wanted = logits[0, len(row.ids) - 1 : -1]
        functional.cross_entropy(wanted, torch.tensor(answer), reduction="sum").backward()
    expected = gradients(reference)
    for name, gradient in gradients(base.model).items():
        torch.testing.assert_close(gradient, expected[name], rtol=1e-3, atol=1e-3)


def test_nothing_is_computed_ahead_for_weights_that_change(tiny_llama: Path) -> None:
    model = prompted(tunable(loaded(tiny_llama, TargetKind.ANSWER)), "{text} it was [P*3][ANSWER:label]")
    assert model.texts is None and model.why_not_in_parts == "the base model itself is being trained"


def test_weights_are_put_back_to_the_last_bit(tiny_gpt2: Path, tmp_path: Path) -> None:
    base = tunable(loaded(tiny_gpt2, TargetKind.ANSWER))
    before = {name: weight.detach().clone() for name, weight in learning(base)}
    kept = untrained_weights(base, tmp_path / "run")
    assert list((tmp_path / "run").iterdir()) == [], "the file has no name that a crash could leave behind"
    with torch.no_grad():
        for _, weight in learning(base):
            weight.add_(1)
    put_weights(base, kept)
    assert all(torch.equal(weight, before[name]) for name, weight in learning(base))
    assert base.model.lm_head.weight is base.model.transformer.wte.weight, "tied before and after"


@pytest.mark.parametrize(("folder", "target"), [("tiny_gpt2", TargetKind.ANSWER), ("tiny_bert", TargetKind.HEAD)])
def test_what_is_written_loads_as_what_was_trained(
    folder: str, target: TargetKind, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    base = tunable(loaded(request.getfixturevalue(folder), target))
    with torch.no_grad():
        for _, weight in learning(base):
            weight.mul_(1.01)
    save_base_model(base, tmp_path / "base")
    assert {path.name for path in (tmp_path / "base").iterdir()} <= BASE_FILES.keys()
    again = loaded(tmp_path / "base", target)
    ids = torch.tensor([[5, 6, 7, 8]])
    with torch.no_grad():
        assert torch.equal(again.model(input_ids=ids).logits, base.model(input_ids=ids).logits)
    assert again.tokenizer("great film").input_ids == base.tokenizer("great film").input_ids
