"""Less work, the same numbers: every way to compute a batch gives the whole graph's losses and gradients."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from ptune_core.data.layout import make_batch
from ptune_core.model.base import load_base_model
from ptune_core.model.past import why_not_in_parts
from ptune_core.model.prompted import PromptedModel
from ptune_core.model.recomputing import with_gradient_checkpointing
from ptune_core.model.text_cache import Budget, Place
from ptune_core.model.virtual import combine
from ptune_core.prompt.template import TargetKind, parse_template
from ptune_core.prompt.verbalizer import Verbalizer

TEXTS = ["great film", "the food was bad and boring and a terrible waste of time", "", "once upon a time"]
LABELS = [1, 0, 0, 1]
ANSWERS = [" it was great", " bad", " I loved every minute", " no"]
TEMPLATES = {
    "front": "[P*4] {text} :[ANSWER:label]",
    "after": "{text} is [P*4][ANSWER:label]",
    "between": "The text : {text} [P*2] was [P*2][ANSWER:label]",
    "same text before": "Is this good ? [P*4] {text} :[ANSWER:label]",
}


def load(folder: Path, template: str, *, labels: bool = True, precision: str = "fp32") -> PromptedModel:
    base = load_base_model(str(folder), target=TargetKind.ANSWER, device="cpu", precision=precision)
    verbalizer = Verbalizer.from_labels(["bad", "good"], None) if labels else None
    return PromptedModel(base, parse_template(template), verbalizer)


def prompt_for(model: PromptedModel) -> Tensor:
    generator = torch.Generator().manual_seed(7)
    values = torch.randn(model.num_virtual_tokens, model.base.hidden_size, generator=generator)
    return values.requires_grad_(True)


def whole_graph(model: PromptedModel, prompt: Tensor, answers: list[list[int]] | None = None) -> tuple[Tensor, Tensor]:
    """Loss and gradient row by row through transformers' own forward, with all logits: what PEFT would compute."""
    prompt = prompt.detach().requires_grad_(True)
    total = torch.zeros(())
    for i, row in enumerate(model.make_rows([{"text": text} for text in TEXTS])):
        batch = make_batch([row])
        embeddings = combine(model.base.word_embeddings(batch.token_ids), batch.virtual_index, prompt)
        if answers is None:
            logits = model.base.model(inputs_embeds=embeddings).logits[:, -1, model.answer_ids]
            total = total + functional.cross_entropy(logits, torch.tensor([LABELS[i]]))
        else:
            embeddings = torch.cat([embeddings, model.base.word_embeddings(torch.tensor([answers[i]]))], dim=1)
            logits = model.base.model(inputs_embeds=embeddings).logits[0, len(row.ids) - 1 : -1]
            total = total + functional.cross_entropy(logits, torch.tensor(answers[i]), reduction="sum")
    total.backward()
    assert prompt.grad is not None
    return total.detach(), prompt.grad


def in_batch(model: PromptedModel, prompt: Tensor, answers: list[list[int]] | None = None) -> tuple[Tensor, Tensor]:
    prompt = prompt.detach().requires_grad_(True)
    rows = model.make_rows([{"text": text} for text in TEXTS])
    if answers is None:
        batch = model.label_batch(rows, LABELS)
        assert batch.labels is not None
        total = functional.cross_entropy(model.label_logits(batch, prompt), batch.labels, reduction="sum")
    else:
        total = model.text_losses(model.text_batch(rows, answers), prompt).sum()
    total.backward()
    assert prompt.grad is not None
    return total.detach(), prompt.grad


def assert_same(found: tuple[Tensor, Tensor], expected: tuple[Tensor, Tensor], relative: float = 1e-5) -> None:
    for ours, theirs in zip(found, expected, strict=True):
        assert float((ours - theirs).norm() / theirs.norm()) < relative


@pytest.mark.parametrize("template", TEMPLATES.values(), ids=TEMPLATES)
def test_loss_and_gradient_are_the_whole_graphs(
    causal_folder: Callable[[str], Path], family: str, template: str
) -> None:
    model = load(causal_folder(family), template)
    assert model.why_not_in_parts is None
    prompt = prompt_for(model)
    assert_same(in_batch(model, prompt), whole_graph(model, prompt))


@pytest.mark.parametrize("template", TEMPLATES.values(), ids=TEMPLATES)
def test_answers_have_the_whole_graphs_loss_and_gradient(
    causal_folder: Callable[[str], Path], family: str, template: str
) -> None:
    model = load(causal_folder(family), template, labels=False)
    prompt = prompt_for(model)
    answers = [model.rows.answer_ids(answer) for answer in ANSWERS]
    assert_same(in_batch(model, prompt, answers), whole_graph(model, prompt, answers))


@pytest.mark.parametrize("place", [Place.DEVICE, Place.DISK])
def test_cached_equals_computed(
    causal_folder: Callable[[str], Path], tmp_path: Path, family: str, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = load(causal_folder(family), TEMPLATES["between"])
    prompt = prompt_for(model)
    expected = in_batch(model, prompt)
    assert model.texts is not None and model.texts.place is Place.NOWHERE
    if place is Place.DISK:
        monkeypatch.setattr("ptune_core.model.text_cache.free_memory", lambda: 0)
    contexts = [row.context for row in model.make_rows([{"text": text} for text in TEXTS])]
    model.texts.reserve([contexts[:2], contexts], Budget(directory=tmp_path))
    assert model.texts.place is place
    assert model.texts.num_tokens == sum(map(len, contexts)), "a text that comes again is stored once"
    assert_same(in_batch(model, prompt), expected)

    def fail(*_: object) -> None:
        raise AssertionError("computed again")

    monkeypatch.setattr(model.texts, "_compute", fail)
    assert_same(in_batch(model, prompt), expected)
    assert list(tmp_path.iterdir()) == [], "no crash can leave the mapped file behind"


def test_what_is_stored_does_not_depend_on_when_it_was_computed(causal_folder: Callable[[str], Path]) -> None:
    """The bug this pins: a resumed run that fills the cache in other batches is no longer bit-identical."""
    found = []
    for order in ([0, 1, 2, 3], [3, 0], [1]):
        model = load(causal_folder("llama"), TEMPLATES["after"])
        contexts = [row.context for row in model.make_rows([{"text": text} for text in TEXTS])]
        assert model.texts is not None
        model.texts.reserve([contexts[:2], contexts[2:]], Budget())
        for i in order:
            model.texts.past([contexts[i]])
        found.append(model.texts.past(contexts[:2]).layers)
    for layers in found[1:]:
        assert all(
            torch.equal(a, b)
            for ours, first in zip(layers, found[0], strict=True)
            for a, b in zip(ours, first, strict=True)
        )


def test_a_budget_that_is_too_small_computes_every_time(causal_folder: Callable[[str], Path], tmp_path: Path) -> None:
    model = load(causal_folder("gpt2"), TEMPLATES["after"])
    contexts = [row.context for row in model.make_rows([{"text": text} for text in TEXTS])]
    assert model.texts is not None
    model.texts.reserve([contexts], Budget(mib=0, directory=tmp_path))
    assert (model.texts.place, model.texts.mib) == (Place.NOWHERE, 0)
    assert_same(in_batch(model, prompt_for(model)), whole_graph(model, prompt_for(model)))


def test_processes_on_one_machine_share_what_is_free(
    causal_folder: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bug: each of two processes took half of the free memory for its text cache."""
    model = load(causal_folder("gpt2"), TEMPLATES["after"])
    contexts = [row.context for row in model.make_rows([{"text": text} for text in TEXTS])]
    assert model.texts is not None
    model.texts.reserve([contexts], Budget())
    needed = int(2.2 * model.texts.mib * 2**20)  # half of it is just enough
    monkeypatch.setattr("ptune_core.model.text_cache.free_memory", lambda: needed)
    for processes, place in (("1", Place.DEVICE), ("2", Place.NOWHERE)):
        monkeypatch.setenv("LOCAL_WORLD_SIZE", processes)
        model = load(causal_folder("gpt2"), TEMPLATES["after"])
        assert model.texts is not None
        model.texts.reserve([contexts], Budget())
        assert model.texts.place is place


def test_a_disk_that_is_full_is_told_before_training(
    causal_folder: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bug: the mapped file had holes; a disk that filled up later killed the worker when it wrote into one."""

    def full(*_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("ptune_core.model.text_cache.free_memory", lambda: 0)
    monkeypatch.setattr(os, "posix_fallocate", full)
    model = load(causal_folder("gpt2"), TEMPLATES["after"])
    contexts = [row.context for row in model.make_rows([{"text": text} for text in TEXTS])]
    assert model.texts is not None
    with pytest.raises(OSError, match="No space left"):
        model.texts.reserve([contexts], Budget(directory=tmp_path))


def test_no_gradient_goes_through_a_context(causal_folder: Callable[[str], Path]) -> None:
    model = load(causal_folder("llama"), TEMPLATES["after"])
    batch = model.label_batch(model.make_rows([{"text": text} for text in TEXTS]), LABELS)
    assert batch.contexts and model.texts is not None
    past = model.texts.past(batch.contexts)
    assert not any(tensor.requires_grad for pair in past.layers for tensor in pair)


def test_bidirectional_and_training_models_are_not_computed_in_parts(tiny_bert: Path, tiny_gpt2: Path) -> None:
    bert = load_base_model(str(tiny_bert), target=TargetKind.HEAD, num_labels=2, device="cpu", precision="fp32")
    assert why_not_in_parts(bert) == "the base model reads in both directions"
    gpt2 = load_base_model(str(tiny_gpt2), target=TargetKind.ANSWER, device="cpu", precision="fp32")
    gpt2.model.train()  # dropout would make every computation another one
    assert why_not_in_parts(gpt2) == "the base model itself is being trained"
    gpt2.model.eval()
    gpt2.word_embeddings.requires_grad_(True)
    assert why_not_in_parts(gpt2) == "the base model itself is being trained"


def test_only_target_rows_and_the_verbalizers_words_reach_the_head(tiny_gpt2: Path) -> None:
    model = load(tiny_gpt2, TEMPLATES["front"])
    seen = []
    head = model.base.model.get_output_embeddings()
    before = vars(head).get("forward")  # it multiplies by oneDNN on some processors
    with torch.no_grad():
        logits = model.label_logits(
            model.label_batch(model.make_rows([{"text": text} for text in TEXTS])), prompt_for(model)
        )
        handle = head.register_forward_hook(lambda _, inputs, output: seen.append((inputs[0].shape, output.shape)))
        model.label_logits(model.label_batch(model.make_rows([{"text": text} for text in TEXTS])), prompt_for(model))
        handle.remove()
    assert seen == [((1, 4, 32), (1, 4, 2))]
    assert logits.dtype == torch.float32
    assert vars(head).get("forward") is before, "the head is left as it was"


@pytest.mark.parametrize("template", TEMPLATES.values(), ids=TEMPLATES)
def test_prompts_that_pass_together_get_what_each_gets_alone(
    causal_folder: Callable[[str], Path], family: str, template: str
) -> None:
    model = load(causal_folder(family), template)
    prompts = [(prompt_for(model) * scale).detach().requires_grad_(True) for scale in (1.0, -0.5, 2.0)]
    alone = [in_batch(model, prompt) for prompt in prompts]
    batch = model.label_batch(model.make_rows([{"text": text} for text in TEXTS]), LABELS, copies=len(prompts))
    assert batch.labels is not None
    losses = functional.cross_entropy(model.label_logits(batch, torch.cat(prompts)), batch.labels, reduction="none")
    totals = losses.view(len(prompts), -1).sum(dim=1)
    totals.sum().backward()
    for prompt, total, (expected, gradient) in zip(prompts, totals, alone, strict=True):
        assert prompt.grad is not None
        assert_same((total.detach(), prompt.grad), (expected, gradient))


@pytest.mark.parametrize("template", ["front", "after"])
def test_activations_computed_again_give_the_same_gradient(
    causal_folder: Callable[[str], Path], family: str, template: str
) -> None:
    plain = load(causal_folder(family), TEMPLATES[template])
    base = with_gradient_checkpointing(load(causal_folder(family), TEMPLATES[template]).base)
    saving = PromptedModel(base, parse_template(TEMPLATES[template]), plain.verbalizer)

    def kept(model: PromptedModel) -> int:
        numbers = 0

        def count(tensor: Tensor) -> Tensor:
            nonlocal numbers
            numbers += tensor.numel()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
            found.append(in_batch(model, prompt_for(model)))
        return numbers

    found: list[tuple[Tensor, Tensor]] = []
    whole, less = kept(plain), kept(saving)
    assert_same(found[1], found[0])
    assert template == "after" or less < whole


@pytest.mark.parametrize("template", TEMPLATES.values(), ids=TEMPLATES)
def test_written_out_attention_is_the_kernels(
    causal_folder: Callable[[str], Path], family: str, template: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = load(causal_folder(family), template, precision="bf16")
    found = in_batch(model, prompt_for(model))
    monkeypatch.setattr("ptune_core.model.past.WRITTEN_OUT_AT_MOST", 0)
    # These weights are wild: rounding to bf16 alone moves a gradient by a tenth, a wrong mask by more than its length.
    assert_same(found, in_batch(model, prompt_for(model)), relative=0.3)
