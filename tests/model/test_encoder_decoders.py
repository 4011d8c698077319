"""Encoder-decoders: scores, losses and texts are transformers' own, with virtual tokens in what is read."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from ptune_core.model.base import load_base_model
from ptune_core.model.base_kind import BaseKind
from ptune_core.model.generation import Sampling, complete, generate
from ptune_core.model.prompted import PromptedModel
from ptune_core.model.virtual import combine
from ptune_core.prompt.template import TargetKind, parse_template
from ptune_core.prompt.verbalizer import Verbalizer

TEXTS = ["great film", "the food was bad and boring and a terrible waste of time", "once upon a time there was a dog"]
PLACEMENTS = ["[P*4] {text} [ANSWER:label]", "{text} [P*4][ANSWER:label]", "Is {text} [P*2] good ? [P*2][ANSWER:label]"]
FAMILIES = ["tiny_t5", "tiny_bart"]


def prompted(folder: Path, template: str, labels: list[str]) -> PromptedModel:
    base = load_base_model(str(folder), target=TargetKind.ANSWER, device="cpu", precision="fp32")
    verbalizer = Verbalizer.from_labels(labels) if labels else None
    return PromptedModel(base, parse_template(template), verbalizer)


def prompt_for(model: PromptedModel) -> Tensor:
    generator = torch.Generator().manual_seed(7)
    return torch.randn(model.num_virtual_tokens, model.base.hidden_size, generator=generator)


def inputs_by_hand(model: PromptedModel, text: str, prompt: Tensor) -> dict[str, Tensor]:
    (row,) = model.make_rows([{"text": text}])
    assert row.ids[-1] == model.base.tokenizer.eos_token_id, "what an encoder reads is closed as its tokenizer does"
    ids = torch.tensor([row.ids])
    return {"inputs_embeds": combine(model.base.word_embeddings(ids.clamp(min=0)), -ids - 1, prompt)}


def start(model: PromptedModel) -> list[int]:
    config = model.base.model.config
    return [config.decoder_start_token_id] + ([5] if config.model_type == "bart" else [])


@pytest.mark.parametrize("placement", PLACEMENTS)
@pytest.mark.parametrize("family", FAMILIES)
def test_label_scores_are_the_first_written_word(request: pytest.FixtureRequest, family: str, placement: str) -> None:
    model = prompted(request.getfixturevalue(family), placement, ["bad", "great"])
    assert model.base.kind is BaseKind.ENCODER_DECODER and model.texts is None
    prompt = prompt_for(model)
    ours, theirs = prompt.clone().requires_grad_(), prompt.clone().requires_grad_()
    rows = model.make_rows([{"text": text} for text in TEXTS])
    found = model.label_logits(model.label_batch(rows), ours)
    assert model.answer_ids is not None
    decoder_ids = torch.tensor([start(model)])
    expected = torch.cat(
        [
            model.base.model(**inputs_by_hand(model, text, theirs), decoder_input_ids=decoder_ids).logits[
                :, -1, model.answer_ids
            ]
            for text in TEXTS
        ]
    )
    torch.testing.assert_close(found, expected, atol=2e-5, rtol=1e-4)
    found.log_softmax(dim=1)[:, 0].sum().backward()
    expected.log_softmax(dim=1)[:, 0].sum().backward()
    assert ours.grad is not None and float(ours.grad.abs().sum()) > 0
    assert theirs.grad is not None
    assert float((ours.grad - theirs.grad).norm()) <= 1e-4 * float(theirs.grad.norm())


@pytest.mark.parametrize("family", FAMILIES)
def test_text_losses_are_transformers_loss(request: pytest.FixtureRequest, family: str) -> None:
    model = prompted(request.getfixturevalue(family), "{text} [P*4][ANSWER:answer]", [])
    prompt = prompt_for(model)
    rows = model.make_rows([{"text": text} for text in TEXTS])
    answers = model.rows.answers(["it was great", "bad", "I loved every minute of it ."])
    losses = model.text_losses(model.text_batch(rows, answers, copies=2), prompt.repeat(2, 1)).view(2, -1)
    expected = 0.0
    for text, answer in zip(TEXTS, answers, strict=True):
        given = start(model) + answer[:-1]
        logits = model.base.model(**inputs_by_hand(model, text, prompt), decoder_input_ids=torch.tensor([given])).logits
        logs = logits[0, len(start(model)) - 1 :].log_softmax(-1)
        expected -= float(logs[range(len(answer)), answer].sum())
    for copy in losses:
        assert float(copy.sum()) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("family", FAMILIES)
def test_texts_are_those_of_generate(request: pytest.FixtureRequest, family: str) -> None:
    model = prompted(request.getfixturevalue(family), "{text} [P*4][ANSWER:answer]", [])
    prompt = prompt_for(model)
    (row,) = model.make_rows([{"text": TEXTS[1]}])
    inputs = inputs_by_hand(model, TEXTS[1], prompt)
    expected = model.base.model.generate(**inputs, max_new_tokens=11 + len(start(model)), do_sample=False)
    new = expected[0, len(start(model)) :]
    text = model.base.tokenizer.decode(new, skip_special_tokens=True)
    assert complete(model, row, prompt, Sampling(max_new_tokens=12)) == text != ""
    ours = generate(model, row, prompt, max_new_tokens=12, do_sample=False)
    assert ours[0].tolist() == new.tolist()
    beams = generate(model, row, prompt, max_new_tokens=12, num_beams=3, num_return_sequences=2)
    assert beams.shape[0] == 2


def test_a_long_answer_takes_nothing_from_what_is_read(tiny_t5: Path) -> None:
    model = prompted(tiny_t5, "{text} [P*4][ANSWER:answer]", [])
    assert model.rows.row({"text": TEXTS[1]}, reserve=500) == model.rows.row({"text": TEXTS[1]})
    assert model.rows.fits(model.max_length) and not model.rows.fits(model.max_length + 1)


def test_relative_positions_have_no_end(tiny_t5: Path, tiny_bart: Path) -> None:
    model = prompted(tiny_t5, "{text} [P*4][ANSWER:answer]", [])
    model.base.model.config.n_positions = 16  # as T5's own files have it
    assert model.base.max_positions is None
    assert prompted(tiny_bart, "{text} [P*4][ANSWER:answer]", []).base.max_positions == 64
