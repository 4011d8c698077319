"""Generated text: a filled cache changes nothing, in every way that transformers generates; our own loop agrees."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, GenerationConfig

from ptune_core.data.batching import Row
from ptune_core.errors import SettingsError
from ptune_core.model.base import BaseModel, load_base_model
from ptune_core.model.generation import Sampling, complete, draw_token, generate, stream
from ptune_core.model.prompted import PromptedModel
from ptune_core.prompt.template import TargetKind, parse_template

NEW = 8
TEXT = "the food was bad and boring and the food was bad and"
TEMPLATES = {
    "front": "[P*4] {text}[ANSWER:answer]",
    "after": "{text} [P*4][ANSWER:answer]",
    "between": "The text [P*2] : {text} [P*2] so[ANSWER:answer]",
}
WAYS: dict[str, dict[str, Any]] = {
    "greedy": {"do_sample": False},
    "beams": {"num_beams": 3, "do_sample": False},
    "sampling": {"do_sample": True, "temperature": 1.3, "top_k": 20},
    "sequences": {"do_sample": True, "num_return_sequences": 3},
    "beams, all of them": {"num_beams": 3, "num_return_sequences": 2, "do_sample": False},
    "static cache": {"cache_implementation": "static", "do_sample": False},
    "static cache, beams": {"cache_implementation": "static", "num_beams": 2, "do_sample": False},
    "prompt lookup": {"prompt_lookup_num_tokens": 3, "do_sample": False},
    "chunked prefill": {"prefill_chunk_size": 3, "do_sample": False},
    "chunked prefill, static cache": {"prefill_chunk_size": 3, "cache_implementation": "static", "do_sample": False},
    "configured": {"generation_config": GenerationConfig(num_beams=2, cache_implementation="static")},
}
HOW = ("prompt_lookup_num_tokens", "prefill_chunk_size", "cache_implementation")
"""Options that change how, and not what."""


@cache
def base_in(folder: Path) -> BaseModel:
    return load_base_model(str(folder), target=TargetKind.ANSWER, device="cpu", precision="fp32")


def load(folder: Path, template: str) -> PromptedModel:
    return PromptedModel(base_in(folder), parse_template(template), None)


def prompt_for(model: PromptedModel) -> Tensor:
    generator = torch.Generator().manual_seed(7)
    return torch.randn(model.num_virtual_tokens, model.base.hidden_size, generator=generator)


def row_of(model: PromptedModel, text: str = TEXT) -> Row:
    return model.make_rows([{"text": text}])[0]


def plain(model: PromptedModel, row: Row, prompt: Tensor, **options: Any) -> Tensor:
    """transformers' `generate` from the embeddings of the whole row, with a cache of its own."""
    embeddings = model.embed(row.ids, prompt)
    mask = torch.ones(embeddings.shape[:2], dtype=torch.long)
    return model.base.model.generate(inputs_embeds=embeddings, attention_mask=mask, max_new_tokens=NEW, **options)


@pytest.mark.parametrize("template", TEMPLATES.values(), ids=TEMPLATES)
@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
@pytest.mark.parametrize("family", ["gpt2", "llama", "gemma3"])
def test_generates_what_transformers_generates_from_embeddings(
    causal_folder: Callable[[str], Path], family: str, way: dict[str, Any], template: str
) -> None:
    model = load(causal_folder(family), template)
    prompt, row = prompt_for(model), row_of(model)
    asked = {name: value for name, value in way.items() if name not in HOW}
    if "generation_config" in way:
        asked = {"num_beams": 2}
    torch.manual_seed(3)
    expected = plain(model, row, prompt, **asked)
    prefix = model.prefix(prompt)
    assert (prefix is None) == (template == TEMPLATES["after"])
    torch.manual_seed(3)
    found = generate(model, row, prompt, prefix=prefix, max_new_tokens=NEW, **way)
    assert found.tolist() == expected.tolist()
    if prefix is not None:
        assert prefix.past.width == len(prefix.numbers), "it is as it was before"


def test_the_prefix_is_not_computed_again(tiny_llama: Path) -> None:
    model = load(tiny_llama, TEMPLATES["front"])
    prompt, row = prompt_for(model), row_of(model)
    prefix = model.prefix(prompt)
    assert prefix is not None
    widths: list[int] = []
    layer = model.base.model.get_submodule("model.layers.0.self_attn.q_proj")
    handle = layer.register_forward_hook(lambda _, inputs, __: widths.append(inputs[0].shape[1]))
    generate(model, row, prompt, prefix=prefix, max_new_tokens=2)
    generate(model, row, prompt, prefix=prefix, max_new_tokens=2, prefill_chunk_size=6)
    list(stream(model, row, prompt, Sampling(max_new_tokens=2), prefix))
    handle.remove()
    rest = len(row.ids) - 4
    chunks = [6] * ((rest - 1) // 6) + [(rest - 1) % 6] * bool((rest - 1) % 6)
    assert widths == [rest, 1, *chunks, 1, 1, rest, 1]


def test_an_assistant_drafts(tiny_gpt2: Path) -> None:
    model = load(tiny_gpt2, TEMPLATES["between"])
    prompt, row = prompt_for(model), row_of(model)
    assistant = AutoModelForCausalLM.from_pretrained(tiny_gpt2)
    expected = plain(model, row, prompt, do_sample=False)
    found = generate(
        model, row, prompt, prefix=model.prefix(prompt), max_new_tokens=NEW, do_sample=False, assistant_model=assistant
    )
    assert found.tolist() == expected.tolist()
    assert not model.base.word_embeddings._forward_hooks, "the base model is left as it was"
    with pytest.raises(SettingsError, match="its own assistant"):
        generate(model, row, prompt, assistant_early_exit=1)


def test_a_repetition_penalty_sees_the_text_and_no_virtual_token(tiny_gpt2: Path) -> None:
    """The bug this pins: with the end-of-text token in their place, no text came to an end any more."""
    seen = []
    for template in TEMPLATES.values():
        model = load(tiny_gpt2, template)

        def look(input_ids: Tensor, scores: Tensor) -> Tensor:
            seen.append(input_ids[0].tolist())
            return scores

        prompt, row = prompt_for(model), row_of(model)
        generate(model, row, prompt, prefix=model.prefix(prompt), max_new_tokens=1, logits_processor=[look])
        assert seen.pop() == [number for number in row.ids if number >= 0]


def test_all_that_transformers_returns_can_be_asked_for(tiny_gpt2: Path) -> None:
    model = load(tiny_gpt2, TEMPLATES["front"])
    prompt, row = prompt_for(model), row_of(model)
    options = {"return_dict_in_generate": True, "output_logits": True, "do_sample": False}
    expected = plain(model, row, prompt, **options)
    found = generate(model, row, prompt, prefix=model.prefix(prompt), max_new_tokens=NEW, **options)
    assert found.sequences.tolist() == expected.sequences.tolist()
    torch.testing.assert_close(torch.cat(found.logits), torch.cat(expected.logits), atol=1e-4, rtol=1e-4)


def test_the_head_is_given_one_piece_of_memory(tiny_gpt2: Path) -> None:
    """The bug this pins: a slice of the last position made torch copy the whole head in bf16, at every request."""
    model = load(tiny_gpt2, TEMPLATES["after"])
    strides = []
    head = model.base.model.get_output_embeddings()
    handle = head.register_forward_hook(lambda _, inputs, __: strides.append(inputs[0].stride()))
    generate(model, row_of(model), prompt_for(model), max_new_tokens=2, do_sample=False)
    handle.remove()
    assert strides == [(32, 32, 1)] * 2
    assert not head._forward_pre_hooks, "the base model is left as it was"


def test_without_virtual_tokens_it_is_the_base_model_alone(tiny_gpt2: Path) -> None:
    model = load(tiny_gpt2, TEMPLATES["front"])
    row = model.make_rows([{"text": TEXT}], prompted=False)[0]
    ids = torch.tensor([row.ids])
    expected = model.base.model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=8, do_sample=False)
    assert generate(model, row, None, max_new_tokens=8).tolist() == expected[:, len(row.ids) :].tolist()


@pytest.mark.parametrize(
    ("template", "stored"), [("front", True), ("between", True), ("between", False), ("after", False)]
)
def test_streaming_equals_generating_with_transformers(
    causal_folder: Callable[[str], Path], family: str, template: str, stored: bool
) -> None:
    model = load(causal_folder(family), TEMPLATES[template])
    prompt, row = prompt_for(model), row_of(model)
    prefix = model.prefix(prompt) if stored else None
    pieces = list(stream(model, row, prompt, Sampling(max_new_tokens=NEW), prefix))
    output = plain(model, row, prompt, do_sample=False)
    assert pieces[-1] == model.base.tokenizer.decode(output[0], skip_special_tokens=True)
    assert all(later.startswith(earlier) for earlier, later in zip(pieces, pieces[1:], strict=False))


def test_same_seed_same_text_other_seed_other_text(tiny_gpt2: Path) -> None:
    model = load(tiny_gpt2, TEMPLATES["after"])

    def draw(seed: int) -> str:
        sampling = Sampling(max_new_tokens=20, temperature=1.5, seed=seed)
        return complete(model, row_of(model, "the dog"), prompt_for(model), sampling)

    assert draw(1) == draw(1)
    assert len({draw(seed) for seed in range(5)}) > 1


def test_generation_stops_at_the_models_last_position(tiny_gpt2: Path) -> None:
    model = load(tiny_gpt2, TEMPLATES["after"])
    full = row_of(model, "dog " * 100)
    assert len(full.ids) == 64
    assert complete(model, full, prompt_for(model), Sampling(max_new_tokens=20)) == ""
    with pytest.raises(SettingsError, match="no position for an answer. Got: 64.*fewer than 64"):
        generate(model, full, prompt_for(model))
    nearly = Row((*full.ids[:57], *full.ids[60:]))
    assert generate(model, nearly, prompt_for(model), max_new_tokens=20, min_new_tokens=3).shape == (1, 3)


def test_top_p_of_zero_is_the_likeliest_token() -> None:
    scores = torch.tensor([0.1, 3.0, 0.2])
    for seed in range(5):
        generator = torch.Generator().manual_seed(seed)
        assert draw_token(scores, Sampling(temperature=5.0, top_p=0.0), generator) == 1
