"""Deep prompts in the base model: the same however rows are computed, and a start from a text that is the text."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AlbertConfig, AlbertModel, AutoTokenizer

from ptune_core.model.base import BaseModel, load_base_model, with_head_input
from ptune_core.model.generation import Sampling, complete, generate, stream
from ptune_core.model.head_input import HeadInput
from ptune_core.model.prompted import PromptedModel
from ptune_core.model.recomputing import with_gradient_checkpointing
from ptune_core.model.virtual import hidden_lengths, why_not_deep
from ptune_core.prompt.template import TargetKind, parse_template
from ptune_core.prompt.verbalizer import Verbalizer

ANSWERS = Verbalizer({"good": " great", "bad": " terrible"})
TEXTS = ["the film was great", "bad", "a terrible , boring waste of time ; the food was bad .", "once upon a time"]
P, L, H = 3, 2, 32


def loaded(folder: Path, target: TargetKind = TargetKind.ANSWER, head_input: HeadInput = HeadInput.MODEL) -> BaseModel:
    num_labels = 2 if target is TargetKind.HEAD else None
    torch.manual_seed(0)
    base = load_base_model(str(folder), target=target, num_labels=num_labels, device="cpu", precision="fp32")
    return with_head_input(base, head_input)


def model_of(base: BaseModel, template: str = "[P*3] {text}[ANSWER:label]", verbalizer: Any = ANSWERS) -> PromptedModel:
    return PromptedModel(base, parse_template(template), verbalizer)


def deep_prompt(seed: int = 0, scale: float = 1.0) -> Tensor:
    torch.manual_seed(seed)
    return torch.randn((1 + L) * P, H) * scale


def by_hand(base: BaseModel, model: PromptedModel, text: str, prompt: Tensor) -> Tensor:
    """Scores of one row, with what is added written out: another hook a layer, the whole row at once."""
    [row] = model.make_rows([{"text": text}])
    embeddings = model.embed(row.ids, prompt)
    layers = base.body.h if hasattr(base.body, "h") else base.body.layers
    handles = []
    for number, layer in enumerate(layers):
        added = prompt[(1 + number) * P : (2 + number) * P]

        def add(_: Any, args: Any, kwargs: Any, added: Tensor = added) -> Any:
            hidden = args[0].clone()
            hidden[:, :P] += added
            return (hidden, *args[1:]), kwargs

        handles.append(layer.register_forward_pre_hook(add, with_kwargs=True))
    logits = base.model(inputs_embeds=embeddings).logits[0, -1].float()
    for handle in handles:
        handle.remove()
    return logits[model.answer_ids]


@torch.no_grad()
@pytest.mark.parametrize("family", ["tiny_gpt2", "tiny_llama"])
def test_scores_are_those_of_the_formula_however_rows_are_computed(family, request) -> None:
    base = loaded(request.getfixturevalue(family))
    model, prompt = model_of(base), deep_prompt()
    rows = model.make_rows([{"text": text} for text in TEXTS])
    expected = torch.stack([by_hand(base, model, text, prompt) for text in TEXTS])
    plain = model.label_logits(model.label_batch(rows), prompt[:P])
    assert (plain - expected).abs().max() > 0.1, "the layers do something"
    ways = {
        "shared": model.label_logits(model.label_batch(rows), prompt),
        "one by one": torch.cat([model.label_logits(model.label_batch([row]), prompt) for row in rows]),
        "whole": model.scores(rows, prompt),
        "prefix": model.scores(rows, prompt, model.prefix(prompt)),
        "checkpointed": model_of(with_gradient_checkpointing(base)).label_logits(model.label_batch(rows), prompt),
    }
    for name, found in ways.items():
        torch.testing.assert_close(found, expected, atol=2e-4, rtol=1e-4, msg=lambda told, name=name: f"{name}: {told}")


@torch.no_grad()
@pytest.mark.parametrize("head_input", [HeadInput.MODEL, HeadInput.MEAN, HeadInput.LAST])
def test_an_encoders_scores_do_not_depend_on_the_rest_of_the_batch(head_input, tiny_bert) -> None:
    base = loaded(tiny_bert, TargetKind.HEAD, head_input=head_input)
    assert base.head is not None
    for parameter in base.head.parameters():
        parameter.normal_()
    model, prompt = model_of(base, "[P*3] {text} [HEAD:label]"), deep_prompt()
    rows = model.make_rows([{"text": text} for text in TEXTS])
    together = model.label_logits(model.label_batch(rows), prompt)
    alone = torch.cat([model.label_logits(model.label_batch([row]), prompt) for row in rows])
    torch.testing.assert_close(together, alone, atol=1e-4, rtol=1e-4)
    assert (together - model.label_logits(model.label_batch(rows), prompt[:P])).abs().max() > 1e-3
    zeros = torch.cat([prompt[:P], torch.zeros(L * P, H)])
    assert torch.equal(
        model.label_logits(model.label_batch(rows), zeros), model.label_logits(model.label_batch(rows), prompt[:P])
    )


@pytest.mark.parametrize(("family", "target"), [("tiny_llama", "ANSWER"), ("tiny_bert", "HEAD")])
def test_prompts_that_pass_together_have_the_losses_and_gradients_they_have_alone(family, target, request) -> None:
    base = loaded(request.getfixturevalue(family), TargetKind[target])
    model = model_of(base, f"[P*3] {{text}} [{target}:label]" if target == "HEAD" else "[P*3] {text}[ANSWER:label]")
    rows = model.make_rows([{"text": text} for text in TEXTS])
    prompts = [deep_prompt(seed).requires_grad_(True) for seed in range(3)]
    together = model.label_logits(model.label_batch(rows, copies=3), torch.cat(prompts))
    gradients = torch.autograd.grad(together[:, 0].sum(), prompts)
    for i, prompt in enumerate(prompts):
        alone = model.label_logits(model.label_batch(rows), prompt)
        torch.testing.assert_close(together[4 * i : 4 * i + 4], alone, atol=1e-4, rtol=1e-4)
        [gradient] = torch.autograd.grad(alone[:, 0].sum(), prompt)
        torch.testing.assert_close(gradients[i], gradient, atol=1e-3, rtol=1e-3)
        assert (gradient.view(1 + L, -1).norm(dim=1) > 0).all(), "every layer has a gradient"
    assert all(parameter.grad is None for parameter in base.model.parameters())


@torch.no_grad()
@pytest.mark.parametrize("family", ["tiny_gpt2", "tiny_llama"])
def test_a_start_from_a_text_is_that_text(family, request) -> None:
    """Step 0: nothing is added yet, and the virtual tokens are the words, so their keys and values are the text's."""
    base = loaded(request.getfixturevalue(family))
    text = "Question : is the film"
    model = model_of(base, f'[P="{text}"] {{text}}[ANSWER:label]')
    count = model.num_virtual_tokens
    start = base.embedding_weight[base.tokenizer(text, add_special_tokens=False)["input_ids"]]
    prompt = torch.cat([start, torch.zeros(L * count, H)])
    ids = [base.tokenizer(f"{text}")["input_ids"] + list(row.ids[count:]) for row in model.make_rows([{"text": "was"}])]
    expected = base.model(input_ids=torch.tensor(ids)).logits[0, -1].float()[model.answer_ids]
    [found] = model.scores(model.make_rows([{"text": "was"}]), prompt)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
    prefix = model.prefix(prompt)
    assert prefix is not None
    past = base.body(input_ids=torch.tensor([ids[0][:count]]), use_cache=True).past_key_values
    for (keys, values), layer in zip(prefix.past.layers, past.layers, strict=True):
        torch.testing.assert_close(keys, layer.keys, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(values, layer.values, atol=1e-4, rtol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("family", ["tiny_gpt2", "tiny_llama"])
def test_text_is_the_same_with_a_prefix_without_and_by_generate(family, request) -> None:
    base = loaded(request.getfixturevalue(family))
    model, prompt = model_of(base, "[P*3] {text}[ANSWER:answer]", None), deep_prompt()
    row = model.rows.row({"text": "the film was"})
    wanted = Sampling(max_new_tokens=8)
    text = complete(model, row, prompt, wanted)
    assert text != complete(model, row, prompt[:P], wanted)
    prefix = model.prefix(prompt)
    options: list[dict[str, Any]] = [{}, {"prefix": prefix}, {"prefill_chunk_size": 2}, {"num_beams": 1}]
    for chosen in options:
        ids = generate(model, row, prompt, max_new_tokens=8, do_sample=False, **chosen)
        assert base.tokenizer.decode(ids[0], skip_special_tokens=True) == text, chosen
    assert [*stream(model, row, prompt, wanted, prefix)][-1] == text
    beams = [generate(model, row, prompt, max_new_tokens=6, num_beams=3, prefix=each) for each in (None, prefix)]
    assert torch.equal(*beams)
    bare = replace(row, ids=row.ids[:P])  # nothing but virtual tokens: the last one is computed after its prefix
    assert [*stream(model, bare, prompt, wanted, prefix)][-1] == complete(model, bare, prompt, wanted)


def test_how_long_hidden_states_are_is_measured_layer_by_layer(tiny_gpt2, tiny_bert) -> None:
    for folder, target in ((tiny_gpt2, TargetKind.ANSWER), (tiny_bert, TargetKind.HEAD)):
        base = loaded(folder, target)
        lengths = hidden_lengths(base)
        assert lengths.shape == (L,) and (lengths > 0).all() and torch.equal(lengths, hidden_lengths(base))
        assert why_not_deep(base) is None


def test_base_models_whose_layers_do_not_suit_say_why(tiny_t5, tiny_bert, tmp_path, causal_folder) -> None:
    assert "encoder-decoder" in (why_not_deep(loaded(tiny_t5)) or "")
    tokenizer = AutoTokenizer.from_pretrained(tiny_bert)
    tokenizer.save_pretrained(tmp_path)
    config = AlbertConfig(
        vocab_size=len(tokenizer), embedding_size=16, hidden_size=32, num_hidden_layers=2, num_attention_heads=4,
        intermediate_size=64, max_position_embeddings=64,
    )  # fmt: skip
    AlbertModel(config).save_pretrained(tmp_path)
    assert why_not_deep(loaded(tmp_path, TargetKind.HEAD)) is not None
    # OPT's word embeddings are narrower than its layers.
    assert "hidden states [1, 8, 32] for word embeddings [1, 8, 16]" in (
        why_not_deep(loaded(causal_folder("opt"))) or ""
    )
