"""The prompted model: padding and batching change nothing, PEFT agrees in front, a stored prefix is what it spares."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path

import peft
import pytest
import torch
from torch import Tensor

from ptune_core.data.batching import Row
from ptune_core.data.layout import make_batch
from ptune_core.errors import SettingsError
from ptune_core.model.base import load_base_model
from ptune_core.model.prompted import PromptedModel
from ptune_core.model.virtual import combine
from ptune_core.prompt.config import PromptEncoderConfig
from ptune_core.prompt.encoder import PromptEncoder
from ptune_core.prompt.template import TargetKind, parse_template
from ptune_core.prompt.verbalizer import Verbalizer

TEXTS = ["great film", "the food was bad and boring and a terrible waste of time", "once upon a time there was a dog"]
PLACEMENTS = ["[P*4] {text} [{t}]", "{text} [P*4][{t}]", "The text : {text} [P*2] was [P*2][{t}]"]


def prompted(folder: Path, template: str, *, labels: bool = True, max_length: int | None = None) -> PromptedModel:
    parsed = parse_template(template)
    torch.manual_seed(5)
    base = load_base_model(
        str(folder), target=parsed.target.kind, num_labels=2, device="cpu", precision="fp32"
    )  # fmt: skip
    verbalizer = Verbalizer.from_labels(["bad", "good"], None) if labels else None
    return PromptedModel(base, parsed, verbalizer, max_length=max_length)


def prompt_for(model: PromptedModel) -> Tensor:
    generator = torch.Generator().manual_seed(7)
    return torch.randn(model.num_virtual_tokens, model.base.hidden_size, generator=generator)


def logits(model: PromptedModel, texts: list[str], prompt: Tensor | None) -> Tensor:
    rows = model.make_rows([{"text": text} for text in texts], prompted=prompt is not None)
    with torch.no_grad():
        return model.label_logits(model.label_batch(rows), prompt)


def whole_graph(model: PromptedModel, row: Row, prompt: Tensor) -> dict[str, Tensor]:
    """What transformers is given for one row, with nothing left out."""
    batch = make_batch([row])
    embeddings = combine(model.base.word_embeddings(batch.token_ids), batch.virtual_index, prompt)
    return {"inputs_embeds": embeddings, "attention_mask": batch.attention_mask}


@pytest.mark.parametrize("placement", PLACEMENTS)
@pytest.mark.parametrize(
    ("base", "target"),
    [
        ("tiny_gpt2", "ANSWER"),
        ("tiny_llama", "ANSWER"),
        ("tiny_gpt2", "HEAD"),
        ("tiny_llama", "HEAD"),
        ("tiny_bert", "HEAD"),
    ],
)
def test_batched_equals_single(request: pytest.FixtureRequest, base: str, target: str, placement: str) -> None:
    model = prompted(request.getfixturevalue(base), placement.replace("{t}", f"{target}:label"))
    prompt = prompt_for(model)
    single = torch.cat([logits(model, [text], prompt) for text in TEXTS])
    torch.testing.assert_close(logits(model, TEXTS, prompt), single, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("placement", PLACEMENTS)
def test_every_virtual_token_matters_wherever_it_stands(tiny_gpt2: Path, placement: str) -> None:
    model = prompted(tiny_gpt2, placement.replace("{t}", "ANSWER:label"))
    prompt = prompt_for(model).requires_grad_(True)
    rows = model.make_rows([{"text": text} for text in TEXTS])
    model.label_logits(model.label_batch(rows), prompt).sum().backward()
    assert prompt.grad is not None and (prompt.grad.abs().sum(dim=1) > 0).all()
    assert not any(parameter.requires_grad for parameter in model.base.model.parameters())


@pytest.mark.parametrize("encoder", ["MLP", "LSTM"])
@pytest.mark.parametrize(("base", "target"), [("tiny_gpt2", "ANSWER"), ("tiny_gpt2", "HEAD"), ("tiny_bert", "HEAD")])
def test_front_prompt_gives_pefts_logits(request: pytest.FixtureRequest, base: str, target: str, encoder: str) -> None:
    folder = request.getfixturevalue(base)
    model = prompted(folder, f"[P*4] {{text}} [{target}:label]")
    options = {"num_virtual_tokens": 4, "encoder_hidden_size": 16, "encoder_reparameterization_type": encoder}
    task_type = "SEQ_CLS" if target == "HEAD" else "CAUSAL_LM"
    # PEFT changes the model it is given: it replaces the head by a copy.
    peft_model = peft.get_peft_model(
        copy.deepcopy(model.base.model), peft.PromptEncoderConfig(task_type=task_type, **options)
    ).eval()
    ours = PromptEncoder(
        PromptEncoderConfig(task_type=task_type, token_dim=32, num_transformer_submodules=1, **options)
    )
    state = peft_model.prompt_encoder["default"].state_dict()
    ours.load_state_dict(state)
    prompt = ours(torch.arange(4).unsqueeze(0))[0].detach()
    for text in TEXTS:
        inputs = model.base.tokenizer(text, return_tensors="pt")
        with torch.no_grad():
            theirs = peft_model(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"]).logits
        if target == "ANSWER":
            assert model.answer_ids is not None
            theirs = theirs[:, -1, model.answer_ids]
        torch.testing.assert_close(logits(model, [text], prompt), theirs, atol=1e-4, rtol=1e-4)


def test_without_prompt_is_the_base_model_alone(tiny_gpt2: Path) -> None:
    model = prompted(tiny_gpt2, "{text} [P*4][ANSWER:label]")
    assert model.answer_ids is not None
    inputs = model.base.tokenizer(TEXTS[1], return_tensors="pt")
    with torch.no_grad():
        expected = model.base.model(**inputs).logits[:, -1, model.answer_ids]
    torch.testing.assert_close(logits(model, [TEXTS[1]], None), expected, atol=1e-4, rtol=1e-4)


PREFIXED = {
    "[P*4] {text} [{t}]": True,
    "Is this good ? [P*4] {text} [{t}]": True,
    "The film [P*2] was [P*2] so {text} [{t}]": True,
    "{text} [P*4][{t}]": False,
    "The text : {text} [P*2] was [P*2][{t}]": False,
}


@pytest.mark.parametrize(("template", "is_stored"), PREFIXED.items(), ids=PREFIXED)
@pytest.mark.parametrize("target", ["ANSWER", "HEAD"])
def test_scores_after_the_stored_prefix_are_those_of_whole_rows(
    causal_folder: Callable[[str], Path], family: str, template: str, is_stored: bool, target: str
) -> None:
    model = prompted(causal_folder(family), template.replace("{t}", f"{target}:label"))
    prompt = prompt_for(model)
    prefix = model.prefix(prompt)
    assert (prefix is not None) == is_stored
    for texts in (TEXTS, ["", *TEXTS]):  # without a text, nothing may be left after the prefix
        rows = model.make_rows([{"text": text} for text in texts])
        assert all(row.ids[: len(model.rows.fixed_prefix)] == model.rows.fixed_prefix for row in rows)
        expected = torch.cat([model.scores([row], prompt) for row in rows])
        torch.testing.assert_close(model.scores(rows, prompt, prefix), expected, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(logits(model, texts, prompt), expected, atol=1e-4, rtol=1e-4)
    if prefix is not None:
        assert [number for number in prefix.numbers if number < 0] == [-1, -2, -3, -4] and prefix.numbers[-1] == -4
        assert not any(tensor.requires_grad for pair in prefix.past.layers for tensor in pair)


def test_no_prefix_where_the_base_model_cannot_be_computed_in_parts(tiny_bert: Path) -> None:
    model = prompted(tiny_bert, "[P*4] {text} [HEAD:label]")
    assert model.prefix(prompt_for(model)) is None


def test_rows_of_another_template_are_refused(tiny_gpt2: Path) -> None:
    model = prompted(tiny_gpt2, "[P*4] {text} [ANSWER:label]")
    prefix = model.prefix(prompt_for(model))
    with pytest.raises(AssertionError, match="another template"):
        model.scores(model.make_rows([{"text": "great"}], prompted=False), None, prefix)


def test_text_loss_is_transformers_loss_on_the_answer(tiny_gpt2: Path) -> None:
    model = prompted(tiny_gpt2, "{text} [P*4] so[ANSWER:answer]", labels=False)
    prompt = prompt_for(model)
    rows = model.make_rows([{"text": text} for text in TEXTS])
    answers = [model.rows.answer_ids(answer) for answer in ("it was great", "bad", "I loved every minute of it .")]
    losses = model.text_losses(model.text_batch(rows, answers), prompt)
    assert len(losses) == sum(map(len, answers))
    expected = 0.0
    for row, answer in zip(rows, answers, strict=True):
        whole = Row((*row.ids, *answer))
        labels = torch.tensor([[-100] * len(row.ids) + answer])
        with torch.no_grad():
            expected += model.base.model(**whole_graph(model, whole, prompt), labels=labels).loss.item() * len(answer)
    assert float(losses.sum()) == pytest.approx(expected, rel=1e-4)


def test_more_length_than_positions_is_refused(tiny_gpt2: Path) -> None:
    with pytest.raises(SettingsError, match="Got: 65.*at most 64"):
        prompted(tiny_gpt2, "{text} [P*4][ANSWER:label]", max_length=65)


def test_chat_template_needs_a_chat_model(tiny_gpt2: Path) -> None:
    with pytest.raises(SettingsError, match="not a chat model"):
        prompted(tiny_gpt2, "user: {text} [P*4]\nassistant: [ANSWER:label]", labels=False)


def test_chat_template_renders_the_models_own_format(tiny_gpt2: Path) -> None:
    parsed = parse_template("system: Be kind . [P*3]\nuser: {text}\nassistant: [ANSWER:answer]")
    base = load_base_model(str(tiny_gpt2), target=TargetKind.ANSWER, device="cpu", precision="fp32")
    base.tokenizer.chat_template = "{% for m in messages %}<{{ m.role }}>{{ m.content }}</{{ m.role }}>\n{% endfor %}"
    model = PromptedModel(base, parsed, None)
    row = model.make_rows([{"text": "great"}])[0]
    text = base.tokenizer.decode([number for number in row.ids if number >= 0])
    assert text == "<system>Be kind .</system>\n<user>great</user>\n<assistant>"
    assert [number for number in row.ids if number < 0] == [-1, -2, -3]
