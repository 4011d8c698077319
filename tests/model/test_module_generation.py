"""Generated text of a prompted module: what full recomputation gives, in batches too, in every way of transformers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import GenerationConfig

from ptune_core.errors import DataError, SettingsError
from ptune_core.model.module import PromptedModule
from ptune_core.prompt.config import PromptEncoderConfig

MakeBase = Callable[[str, str], Any]

V, NEW = 3, 6
DECODERS = ("gpt2", "llama", "qwen2", "gemma3", "opt")
TEXTS = [[11, 12, 13, 14, 15, 16, 17, 18], [21, 22, 23], [31, 32, 33, 34, 35]]
PLACED = [[11, -1, 12, 13, -2, -3], [-1, -2, 21, -1, -2], [31, 32, 33, 34, 35]]
"""In the middle, one group twice, and a row that gets the prompt in front."""

WAYS: dict[str, dict[str, Any]] = {
    "beams": {"num_beams": 3},
    "all beams": {"num_beams": 3, "num_return_sequences": 2},
    "static cache": {"cache_implementation": "static"},
    "chunked prefill": {"prefill_chunk_size": 3},
    "chunked prefill, beams": {"prefill_chunk_size": 3, "num_beams": 2},
    "repetition penalty": {"repetition_penalty": 2.0},
    "configured": {"generation_config": GenerationConfig(num_beams=2, do_sample=False)},
}
HOW = ("prefill_chunk_size", "cache_implementation", "prompt_lookup_num_tokens")
"""Options that change how, and not what."""


def module_of(make_base: MakeBase, family: str) -> PromptedModule:
    task = "SEQ_2_SEQ_LM" if family in ("t5", "bart") else "CAUSAL_LM"
    torch.manual_seed(6)
    base = make_base(family, task)
    base.generation_config.eos_token_id = None  # so that every row has all its tokens
    base.generation_config.pad_token_id = 0
    config = PromptEncoderConfig(task_type=task, num_virtual_tokens=V, encoder_hidden_size=16)
    module = PromptedModule(base, config)
    for parameter in module.adapter.prompt.parameters():
        nn.init.normal_(parameter, std=0.5)
    return module


def batch(rows: Sequence[Sequence[int]], side: str = "left") -> tuple[Tensor, Tensor]:
    width = max(map(len, rows))
    ids, mask = torch.zeros(len(rows), width, dtype=torch.long), torch.zeros(len(rows), width, dtype=torch.long)
    for i, row in enumerate(rows):
        where = slice(width - len(row), width) if side == "left" else slice(len(row))
        ids[i, where], mask[i, where] = torch.tensor(row), 1
    return ids, mask


@torch.no_grad()
def embedded(module: PromptedModule, row: Sequence[int]) -> Tensor:
    row = row if min(row) < 0 else [*range(-1, -V - 1, -1), *row]
    prompt, words = module.prompt_embeddings(), module.base_model.get_input_embeddings()
    return torch.stack([prompt[-number - 1] if number < 0 else words(torch.tensor(number)) for number in row])[None]


@torch.no_grad()
def recomputed(module: PromptedModule, row: Sequence[int]) -> list[int]:
    """Greedy, computing everything anew for each token."""
    base, inputs = module.base_model, embedded(module, row)
    new: list[int] = []
    for _ in range(NEW):
        if base.config.is_encoder_decoder:
            start = torch.tensor([[base.config.decoder_start_token_id, *new]])
            logits = base(inputs_embeds=inputs, decoder_input_ids=start, use_cache=False).logits
        else:
            tail = base.get_input_embeddings()(torch.tensor([new], dtype=torch.long))
            logits = base(inputs_embeds=torch.cat([inputs, tail], dim=1), use_cache=False).logits
        new.append(int(logits[0, -1].argmax()))
    return new


def new_tokens(module: PromptedModule, rows: Sequence[Sequence[int]], side: str = "left", **options: Any) -> list[Any]:
    ids, mask = batch(rows, side)
    output = module.generate(ids, mask, max_new_tokens=NEW, **{"do_sample": False, **options})
    if module.base_model.config.is_encoder_decoder:
        return output[:, 1:].tolist()
    times = len(output) // len(rows)
    for i, row in enumerate(output.tolist()):
        text = [number for number in rows[i // times] if number >= 0]
        assert row[:-NEW] == [0] * (ids.shape[1] - len(text)) + text
    return output[:, ids.shape[1] :].tolist()


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("rows", [TEXTS, PLACED], ids=["in front", "placed"])
@pytest.mark.parametrize("family", [*DECODERS, "t5", "bart"])
def test_greedy_is_full_recomputation(
    make_base: MakeBase, family: str, rows: Sequence[Sequence[int]], side: str
) -> None:
    """PEFT bug: with left padding the prompt stands before the padding, and a batch writes other text than its rows."""
    module = module_of(make_base, family)
    assert new_tokens(module, rows, side) == [recomputed(module, row) for row in rows]


@pytest.mark.parametrize(
    ("family", "way"),
    [
        (family, way)
        for family in ("gpt2", "gemma3", "bart")
        for way in WAYS
        if family != "bart" or "chunked" not in way
    ],
)
def test_a_row_of_a_batch_is_the_row_alone_in_transformers(make_base: MakeBase, family: str, way: str) -> None:
    """PEFT bugs: static caches and prompt lookup raise, chunked prefill computes something else, silently."""
    module, options = module_of(make_base, family), WAYS[way]
    found = new_tokens(module, TEXTS, **options)
    plain = {name: value for name, value in options.items() if name not in HOW}
    expected = []
    for row in TEXTS:
        inputs = embedded(module, row)
        given = {"attention_mask": torch.ones(inputs.shape[:2], dtype=torch.long), "inputs_embeds": inputs}
        start = 1
        if family != "bart":
            given["input_ids"], start = torch.tensor([row]), len(row)
        output = module.base_model.generate(**given, max_new_tokens=NEW, **{"do_sample": False, **plain})
        expected += output[:, start:].tolist()
    if way == "repetition penalty" and family != "bart":
        # The padding of a batch is a token of its rows for transformers' processor: compared alone.
        found = [new_tokens(module, [row], **options)[0] for row in TEXTS]
    assert found == expected


@pytest.mark.parametrize("row", [*TEXTS[:1], *PLACED[:2]])
@pytest.mark.parametrize("family", ["gpt2", "llama", "t5"])
def test_prompt_lookup_is_greedy(make_base: MakeBase, family: str, row: list[int]) -> None:
    module = module_of(make_base, family)
    assert new_tokens(module, [row], prompt_lookup_num_tokens=2) == [recomputed(module, row)]


def test_sampling_draws_what_the_base_model_draws(make_base: MakeBase) -> None:
    module = module_of(make_base, "llama")
    options: dict[str, Any] = {"do_sample": True, "temperature": 1.4, "num_return_sequences": 3}
    torch.manual_seed(3)
    found = new_tokens(module, TEXTS[:1], **options)
    inputs = embedded(module, TEXTS[0])
    torch.manual_seed(3)
    mask = torch.ones(inputs.shape[:2], dtype=torch.long)
    expected = module.base_model.generate(inputs_embeds=inputs, attention_mask=mask, max_new_tokens=NEW, **options)
    assert found == expected.tolist() and len({tuple(each) for each in found}) > 1


def test_without_a_mask_padding_tokens_are_hidden(make_base: MakeBase) -> None:
    module = module_of(make_base, "gpt2")
    ids, mask = batch(TEXTS)
    found = module.generate(ids, max_new_tokens=NEW, do_sample=False)
    assert torch.equal(found, module.generate(ids, mask, max_new_tokens=NEW, do_sample=False))
    options = {"max_new_tokens": NEW, "min_new_tokens": NEW, "do_sample": False, "eos_token_id": 0}
    found = module.generate(ids, **options)  # as in transformers: a token that also ends texts hides nothing
    assert torch.equal(found, module.generate(ids, torch.ones_like(ids), **options))


def test_text_does_not_depend_on_the_mode(make_base: MakeBase) -> None:
    values = {"encoder_hidden_size": 16, "encoder_reparameterization_type": "LSTM", "encoder_dropout": 0.9}
    config = PromptEncoderConfig(task_type="CAUSAL_LM", num_virtual_tokens=V, **values)
    module = PromptedModule(make_base("gpt2", "CAUSAL_LM"), config, start=torch.zeros(V, 32))
    for parameter in module.adapter.prompt.parameters():
        nn.init.normal_(parameter, std=0.5)
    assert not torch.equal(module.adapter.prompt(), module.adapter.prompt())
    texts = [module.train(mode).generate(torch.tensor(TEXTS[:1]), do_sample=False).tolist() for mode in (True, False)]
    assert texts[0] == texts[1] and module.training is False


def test_lengths_count_the_text(make_base: MakeBase) -> None:
    module = module_of(make_base, "gpt2")
    ids, mask = batch(TEXTS)
    assert module.generate(ids, mask, max_length=ids.shape[1] + 2, do_sample=False).shape == (3, ids.shape[1] + 2)
    config = GenerationConfig(max_length=ids.shape[1] + 2, do_sample=False)
    assert module.generate(ids, mask, generation_config=config).shape == (3, ids.shape[1] + 2)
    assert module.generate(ids, mask, do_sample=False).shape == (3, ids.shape[1] + 20)
    output = module.generate(ids, mask, max_new_tokens=2, return_dict_in_generate=True, output_scores=True)
    assert output.sequences.shape == (3, ids.shape[1] + 2) and len(output.scores) == 2
    # 64 positions: 3 virtual tokens, 58 of the text, 3 new ones.
    assert module.generate(torch.full((1, 58), 7), max_new_tokens=9, do_sample=False).shape == (1, 61)
    with pytest.raises(DataError, match="leave no position"):
        module.generate(torch.full((1, 61), 7))


def test_the_base_model_is_left_as_it_was(make_base: MakeBase) -> None:
    module = module_of(make_base, "gpt2")
    base = module.base_model
    before = {name: parameter.clone() for name, parameter in base.named_parameters()}
    state = {name: dict(vars(part)) for name, part in base.named_modules()}
    for options in ({}, {"prompt_lookup_num_tokens": 2}, {"prefill_chunk_size": 2}, {"num_beams": 2}):
        new_tokens(module, TEXTS[:1], **options)
    assert all(torch.equal(parameter, before[name]) for name, parameter in base.named_parameters())
    hooks = "_forward_hooks", "_forward_pre_hooks"
    for name, part in base.named_modules():
        now = vars(part)
        assert set(now) == set(state[name]), name
        assert not any(now[kind] for kind in hooks)
        assert "prepare_inputs_for_generation" not in now and "forward" not in now

    # Hooks go even when generating fails.
    def fail(*_: Any) -> Tensor:
        raise ValueError("a processor of a person")

    with pytest.raises(ValueError, match="of a person"):
        new_tokens(module, TEXTS[:1], prefill_chunk_size=20, logits_processor=[fail])
    assert not base.get_input_embeddings()._forward_hooks


def test_without_adapter_it_is_the_base_model(make_base: MakeBase) -> None:
    """PEFT bug: disable_adapter does nothing for generate of encoder-decoder models."""
    for family in ("gpt2", "t5"):
        module = module_of(make_base, family)
        ids = torch.tensor(TEXTS[1:2])
        expected = module.base_model.generate(ids, max_new_tokens=NEW, do_sample=False)
        with module.disable_adapter():
            assert torch.equal(module.generate(ids, max_new_tokens=NEW, do_sample=False), expected)
        assert not torch.equal(module.generate(ids, max_new_tokens=NEW, do_sample=False), expected)


def test_options_that_cannot_be_used_are_told(make_base: MakeBase) -> None:
    module = module_of(make_base, "gpt2")
    with pytest.raises(SettingsError, match="Got: inputs_embeds"):
        module.generate(torch.tensor(TEXTS[:1]), inputs_embeds=torch.zeros(1, 2, 32))
    with pytest.raises(SettingsError, match="assistant_early_exit"):
        module.generate(torch.tensor(TEXTS[:1]), assistant_early_exit=1)
    config = PromptEncoderConfig(task_type="FEATURE_EXTRACTION", num_virtual_tokens=V)
    with pytest.raises(SettingsError, match="does not generate"):
        PromptedModule(make_base("bert", "FEATURE_EXTRACTION"), config).generate(torch.tensor(TEXTS[:1]))


def test_trained_modules_take_their_place_while_generating(make_base: MakeBase) -> None:
    base = make_base("gpt2", "CAUSAL_LM")
    config = PromptEncoderConfig(task_type="CAUSAL_LM", num_virtual_tokens=V, modules_to_save=["ln_f"])
    module = PromptedModule(base, config)
    ids = torch.tensor(TEXTS[:1])
    before = module.generate(ids, max_new_tokens=NEW, do_sample=False)
    with torch.no_grad():
        for parameter in module.adapter.head.parameters():
            parameter.normal_()
    found = module.generate(ids, max_new_tokens=NEW, do_sample=False)
    assert not torch.equal(found, before)
    logits = module(found).logits[0, ids.shape[1] - 1 : -1]
    assert torch.equal(logits.argmax(-1), found[0, ids.shape[1] :])
    assert torch.equal(base.transformer.ln_f.weight, torch.ones(32))
