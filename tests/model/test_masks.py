"""Masked models: what is read at mask tokens is what transformers itself says there, wherever virtual tokens stand."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor
from transformers import (
    AlbertConfig,
    AutoModelForMaskedLM,
    AutoTokenizer,
    DebertaV2Config,
    DistilBertConfig,
    RobertaConfig,
)
from transformers.configuration_utils import PreTrainedConfig

from ptune_core.errors import BaseModelError, SettingsError
from ptune_core.model.base import load_base_model
from ptune_core.model.base_kind import BaseKind
from ptune_core.model.generation import Sampling, complete
from ptune_core.model.prompted import PromptedModel
from ptune_core.model.virtual import combine
from ptune_core.prompt.template import TargetKind, parse_template
from ptune_core.prompt.verbalizer import Verbalizer

TEXTS = ["great film", "the food was bad and boring and a terrible waste of time", "once upon a time"]
PLACEMENTS = [
    "[P*4] {text} It was [MASK:label] .",
    "{text} [P*2] Answer : [MASK:label] [P*2] .",
    "{text} [SEP] Answer : [P*4] [MASK:label]",
]


def prompted(folder: Path, template: str, answers: dict[str, str] | None) -> PromptedModel:
    base = load_base_model(str(folder), target=TargetKind.MASK, device="cpu", precision="fp32")
    verbalizer = None if answers is None else Verbalizer.from_labels(list(answers), answers)
    return PromptedModel(base, parse_template(template), verbalizer)


def prompt_for(model: PromptedModel) -> Tensor:
    generator = torch.Generator().manual_seed(7)
    return torch.randn(model.num_virtual_tokens, model.base.hidden_size, generator=generator)


SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "initializer_range": 0.4}
MASKED: dict[str, Callable[[int], PreTrainedConfig]] = {
    "roberta": lambda size: RobertaConfig(
        vocab_size=size, intermediate_size=64, max_position_embeddings=66, pad_token_id=0, type_vocab_size=1, **SIZES
    ),
    "deberta-v2": lambda size: DebertaV2Config(
        vocab_size=size, intermediate_size=64, max_position_embeddings=64, relative_attention=True,
        pos_att_type=["c2p", "p2c"], position_biased_input=False, type_vocab_size=0, **SIZES,
    ),
    "albert": lambda size: AlbertConfig(
        vocab_size=size, embedding_size=16, intermediate_size=64, max_position_embeddings=64, **SIZES
    ),
    "distilbert": lambda size: DistilBertConfig(
        vocab_size=size, dim=32, hidden_dim=64, n_layers=2, n_heads=4, max_position_embeddings=64, initializer_range=0.4
    ),
}  # fmt: skip


@pytest.fixture(scope="module", params=["bert", *MASKED])
def masked_folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, tiny_bert_lm: Path) -> Path:
    """Folder of a tiny masked model, of one family after the other."""
    if request.param == "bert":
        return tiny_bert_lm
    tokenizer = AutoTokenizer.from_pretrained(tiny_bert_lm)
    folder = tmp_path_factory.mktemp(request.param)
    torch.manual_seed(6)
    AutoModelForMaskedLM.from_config(MASKED[request.param](len(tokenizer))).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def by_hand(model: PromptedModel, text: str, prompt: Tensor) -> Tensor:
    """Log-probabilities `[M, V]` at the mask tokens, by transformers alone, of a row that is put together here."""
    (row,) = model.make_rows([{"text": text}])
    ids = torch.tensor([row.ids])
    embeddings = combine(model.base.word_embeddings(ids.clamp(min=0)), -ids - 1, prompt)
    separator = model.base.tokenizer.sep_token_id
    first = row.ids.index(separator)
    types = torch.tensor([[0] * (first + 1) + [1] * (len(row.ids) - first - 1)])
    given = {"token_type_ids": types} if model.base.model.config.model_type in ("bert", "albert") else {}
    logits = model.base.model(inputs_embeds=embeddings, **given).logits[0]
    return logits.log_softmax(-1)[[i for i, n in enumerate(row.ids) if n == model.base.tokenizer.mask_token_id]]


@pytest.mark.parametrize("placement", PLACEMENTS)
def test_scores_and_gradients_are_those_of_transformers(masked_folder: Path, placement: str) -> None:
    model = prompted(masked_folder, placement, {"n": "bad", "p": "great"})
    assert model.base.kind is BaseKind.ENCODER
    prompt = prompt_for(model)
    ours, theirs = prompt.clone().requires_grad_(), prompt.clone().requires_grad_()
    rows = model.make_rows([{"text": text} for text in TEXTS])
    found = model.label_logits(model.label_batch(rows), ours).log_softmax(dim=1)
    ids = model.base.tokenizer.convert_tokens_to_ids(["bad", "great"])
    expected = torch.stack([by_hand(model, text, theirs)[0, ids] for text in TEXTS]).log_softmax(dim=1)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
    found[:, 0].sum().backward()
    expected[:, 0].sum().backward()
    assert ours.grad is not None and float(ours.grad.abs().sum()) > 0
    assert theirs.grad is not None
    assert float((ours.grad - theirs.grad).norm()) <= 1e-4 * float(theirs.grad.norm())
    torch.testing.assert_close(model.scores(rows, prompt).log_softmax(dim=1), expected.detach(), atol=1e-4, rtol=1e-4)


def test_an_answer_of_several_masks_is_scored_by_all_of_them(tiny_bert_lm: Path) -> None:
    answers = {"a": "bad food", "b": "bad film", "c": "great film"}
    model = prompted(tiny_bert_lm, "{text} [P*3] [MASK*2:label] .", answers)
    prompt = prompt_for(model)
    rows = model.make_rows([{"text": text} for text in TEXTS])
    with torch.no_grad():
        found = model.label_logits(model.label_batch(rows), prompt).softmax(dim=1)
        pairs = [model.base.tokenizer.convert_tokens_to_ids(w.split()) for w in answers.values()]
        logs = [by_hand(model, text, prompt) for text in TEXTS]
    expected = torch.stack([torch.stack([log[0, a] + log[1, b] for a, b in pairs]) for log in logs]).softmax(dim=1)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


def test_text_losses_are_the_words_at_the_masks(tiny_bert_lm: Path) -> None:
    model = prompted(tiny_bert_lm, "{text} [P*3] [MASK*2:answer] .", None)
    prompt = prompt_for(model)
    rows = model.make_rows([{"text": text} for text in TEXTS])
    answers = model.rows.answers(["bad food", "great film", "a dog"])
    losses = model.text_losses(model.text_batch(rows, answers, copies=2), prompt.repeat(2, 1)).view(2, 3, 2)
    expected = [[-by_hand(model, t, prompt)[m, a[m]] for m in range(2)] for t, a in zip(TEXTS, answers, strict=True)]
    for copy in losses:
        torch.testing.assert_close(copy, torch.tensor(expected), atol=1e-4, rtol=1e-4)
    said = complete(model, rows[0], prompt, Sampling())
    likeliest = by_hand(model, TEXTS[0], prompt).argmax(dim=-1)
    assert said == model.base.tokenizer.decode(likeliest)


def test_a_mask_token_that_somebody_wrote_is_not_a_target(tiny_bert_lm: Path) -> None:
    model = prompted(tiny_bert_lm, "{text} [P*3] [MASK:label]", {"n": "bad", "p": "great"})
    (row,) = model.make_rows([{"text": "the [MASK] was [MASK]"}])
    mask, unknown = model.base.tokenizer.mask_token_id, model.base.tokenizer.unk_token_id
    assert row.ids.count(mask) == 1 and row.ids.count(unknown) == 2
    assert model.label_batch([row]).targets.tolist() == [row.ids.index(mask)]


def test_the_row_is_what_the_tokenizer_makes_of_the_text(tiny_bert_lm: Path) -> None:
    model = prompted(tiny_bert_lm, "{text} [SEP] It was [MASK:label] . [P*2]", {"n": "bad", "p": "great"})
    (row,) = model.make_rows([{"text": "great film"}])
    expected = model.base.tokenizer("great film", "It was [MASK] .")["input_ids"]
    assert list(row.ids) == [*expected[:-1], -1, -2, expected[-1]]


@pytest.mark.parametrize("answers", [{"n": "bad food", "p": "great"}, {"n": "bad", "p": "bad"}])
def test_answers_that_do_not_fill_the_masks_are_told(tiny_bert_lm: Path, answers: dict[str, str]) -> None:
    with pytest.raises(SettingsError, match="cannot be told apart"):
        prompted(tiny_bert_lm, "{text} [P*3] [MASK:label]", answers)


def test_base_models_that_fill_no_masks_say_what_to_do(tiny_gpt2: Path, tiny_t5: Path, tiny_bert: Path) -> None:
    with pytest.raises(BaseModelError, match=r"not trained to fill masks.*\[ANSWER:label\]"):
        load_base_model(str(tiny_gpt2), target=TargetKind.MASK)
    with pytest.raises(BaseModelError, match=r"writes its answers.*with \[ANSWER\]"):
        load_base_model(str(tiny_t5), target=TargetKind.MASK)
    with pytest.raises(BaseModelError, match="lacks the layers that name words.*cls.predictions"):
        load_base_model(str(tiny_bert), target=TargetKind.MASK)
