"""A prompted module against the whole graph written by hand, for every family, task, padding and placement."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ptune_core.errors import DataError, SettingsError
from ptune_core.model.module import PromptedModule
from ptune_core.prompt.config import PromptEncoderConfig

MakeBase = Callable[[str, str], Any]

DECODERS = ("gpt2", "llama", "qwen2", "gemma3", "opt")
ENCODERS = ("bert", "roberta", "deberta")
TASKS: dict[str, tuple[str, ...]] = {
    "CAUSAL_LM": DECODERS,
    "SEQ_CLS": (*DECODERS, *ENCODERS),
    "TOKEN_CLS": ("gpt2", "llama", "qwen2", *ENCODERS, "t5"),
    "QUESTION_ANS": ("gpt2", "llama", "qwen2", "opt", *ENCODERS),
    "SEQ_2_SEQ_LM": ("t5", "bart"),
    "FEATURE_EXTRACTION": (*DECODERS, *ENCODERS, "t5", "bart"),
}
CASES = [(task, family) for task, families in TASKS.items() for family in families]
V = 4
LENGTHS = (9, 5, 7)
PLACES: dict[str, Callable[[list[int]], list[int]]] = {
    "front": lambda text: [-1, -2, -3, -4, *text],
    "after the first token": lambda text: [text[0], -1, -2, -3, -4, *text[1:]],
    "end": lambda text: [*text, -1, -2, -3, -4],
    "two groups": lambda text: [-1, -2, *text[:2], -3, -4, *text[2:]],
    "one group twice": lambda text: [text[0], -1, -2, *text[1:], -1, -2],
}


def module_of(base: Any, task: str, encoder: str = "MLP", **values: Any) -> PromptedModule:
    torch.manual_seed(6)
    config = PromptEncoderConfig(
        task_type=task, num_virtual_tokens=V, encoder_hidden_size=16, encoder_reparameterization_type=encoder, **values
    )
    module = PromptedModule(base, config)
    for parameter in module.adapter.prompt.parameters():
        nn.init.normal_(parameter, std=0.3)
    return module


def texts_of(lengths: Sequence[int] = LENGTHS) -> list[list[int]]:
    generator = torch.Generator().manual_seed(8)
    return [torch.randint(3, 97, (length,), generator=generator).tolist() for length in lengths]


def padded(rows: Sequence[Sequence[int]], side: str, fill: int, width: int | None = None) -> Tensor:
    width = width or max(map(len, rows))
    if side == "left":
        return torch.tensor([[fill] * (width - len(row)) + list(row) for row in rows])
    return torch.tensor([list(row) + [fill] * (width - len(row)) for row in rows])


def per_token(rows: Sequence[Sequence[int]], modulus: int) -> list[list[int]]:
    return [[number % modulus if number >= 0 else -100 for number in row] for row in rows]


def arguments_for(task: str, base: Any, rows: Sequence[Sequence[int]], side: str) -> dict[str, Any]:
    """Labels of a task, for rows that may hold virtual tokens."""
    if task == "CAUSAL_LM":
        return {"labels": padded(per_token(rows, 97), side, -100)}
    if task == "TOKEN_CLS":
        return {"labels": padded(per_token(rows, 3), side, -100)}
    if task == "SEQ_CLS":
        return {"labels": torch.tensor([2, 0, 1])}
    if task == "QUESTION_ANS":
        pads = [max(map(len, rows)) - len(row) if side == "left" else 0 for row in rows]
        spans = torch.tensor([[1, 3], [0, 2], [2, 4]]) + torch.tensor(pads)[:, None]
        return {"start_positions": spans[:, 0], "end_positions": spans[:, 1]}
    if task == "SEQ_2_SEQ_LM":
        return {"labels": torch.tensor([[5, 6, 7, 2], [8, 9, 2, -100], [10, 11, 12, 2]])}
    takes_decoder = base.config.is_encoder_decoder
    return {"decoder_input_ids": torch.tensor([[2, 5, 6]] * len(rows))} if takes_decoder else {}


def by_hand(base: Any, prompt: Tensor, rows: Sequence[Sequence[int]], task: str) -> tuple[Tensor | None, list[Tensor]]:
    """Loss and each row's outputs, from embeddings in their places, padded on the right, in the base model itself."""
    words = base.get_input_embeddings()
    width = max(map(len, rows))
    embedded = []
    for row in rows:
        parts = [prompt[-number - 1] if number < 0 else words(torch.tensor(number)) for number in row]
        pads = [words(torch.tensor(0))] * (width - len(row))
        embedded.append(torch.stack([*parts, *pads]))
    mask = padded([[1] * len(row) for row in rows], "right", 0)
    inputs: dict[str, Any] = {"inputs_embeds": torch.stack(embedded), "attention_mask": mask}
    labels = arguments_for(task, base, rows, "right")
    text = [[place for place, number in enumerate(row) if number >= 0] for row in rows]
    if task == "SEQ_CLS" and hasattr(base, "score"):
        logits = [base(inputs_embeds=e[None, : len(row)]).logits for e, row in zip(embedded, rows, strict=True)]
        return nn.functional.cross_entropy(torch.cat(logits), labels["labels"]), [each[0] for each in logits]
    for name in ("start_positions", "end_positions"):
        if name in labels:
            labels[name] = torch.tensor([kept[place] for kept, place in zip(text, labels[name].tolist(), strict=True)])
    output = base(**inputs, **labels)
    if task == "SEQ_CLS" or (base.config.is_encoder_decoder and task != "TOKEN_CLS"):
        return output.get("loss"), list(output["logits" if "logits" in output else "last_hidden_state"])
    if task == "QUESTION_ANS":
        values = torch.stack([output.start_logits, output.end_logits], dim=-1)
    else:
        values = output["last_hidden_state" if task == "FEATURE_EXTRACTION" else "logits"]
    return output.get("loss"), [values[i, kept] for i, kept in enumerate(text)]


def outputs_of(output: Any, task: str, mask: Tensor) -> list[Tensor]:
    """Each row's outputs at the visible text."""
    if task == "QUESTION_ANS":
        values = torch.stack([output.start_logits, output.end_logits], dim=-1)
    else:
        values = output["last_hidden_state" if task == "FEATURE_EXTRACTION" else "logits"]
    if values.ndim == 2 or values.shape[1] != mask.shape[1] or "encoder_last_hidden_state" in output:
        return list(values)
    return [values[i][mask[i] > 0] for i in range(len(values))]


def close(found: Tensor, expected: Tensor) -> None:
    """Equal to 1e-5 of the largest number."""
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5 * max(1e-3, float(expected.detach().abs().max())))


def gradients(loss: Tensor, parameters: Sequence[Tensor]) -> list[Tensor]:
    found = torch.autograd.grad(loss, parameters, allow_unused=True)
    return [torch.zeros_like(p) if g is None else g for g, p in zip(found, parameters, strict=True)]


def check_by_hand(
    module: PromptedModule, task: str, placed: Sequence[Sequence[int]], rows: Sequence[Sequence[int]], side: str
) -> None:
    """`rows` go into the module, and stand for `placed`."""
    base, adapter = module.base_model, module.adapter
    head = dict(adapter.head.named_parameters())
    own = [base.get_parameter(name) for name in head]
    for parameter in own:
        parameter.requires_grad_(True)
    prompt = [parameter for parameter in adapter.prompt.parameters()]
    loss, expected = by_hand(base, adapter.prompt(), placed, task)
    if loss is None:
        loss = sum((each**2).mean() for each in expected)
    grads = gradients(loss, [*prompt, *own])
    for parameter in own:
        parameter.requires_grad_(False)

    mask = padded([[1] * len(row) for row in rows], side, 0)
    labels = arguments_for(task, base, rows, side)
    if task == "QUESTION_ANS" and any(number < 0 for row in rows for number in row):
        # Places count the text alone, which is padded as the batch is.
        text = [[number for number in row if number >= 0] for row in rows]
        labels = arguments_for(task, base, text, side)
    output = module(padded(rows, side, 0), mask, **labels)
    text_mask = padded([[1] * sum(number >= 0 for number in row) for row in rows], side, 0)
    wide = max(sum(number >= 0 for number in row) for row in rows) + mask.shape[1] - max(map(len, rows))
    assert text_mask.shape[1] == wide
    found = outputs_of(output, task, text_mask)
    for one, other in zip(found, expected, strict=True):
        close(one, other)
    own_loss = output.get("loss")
    if own_loss is None:
        own_loss = sum((each**2).mean() for each in found)
    close(own_loss, loss)
    for one, other in zip(gradients(own_loss, [*prompt, *head.values()]), grads, strict=True):
        close(one, other)


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize(("task", "family"), CASES)
def test_equals_the_graph_written_by_hand(make_base: MakeBase, task: str, family: str, side: str) -> None:
    """PEFT bugs: left padding separates prompt and text; decoders pool padding in SEQ_CLS; TOKEN_CLS with labels
    raises; in QUESTION_ANS the answer's places are not moved."""
    module = module_of(make_base(family, task), task)
    texts = texts_of()
    check_by_hand(module, task, [PLACES["front"](text) for text in texts], texts, side)


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize(
    ("task", "family"),
    [
        ("CAUSAL_LM", "gpt2"), ("CAUSAL_LM", "gemma3"), ("SEQ_CLS", "bert"), ("SEQ_CLS", "llama"),
        ("TOKEN_CLS", "deberta"), ("QUESTION_ANS", "roberta"), ("SEQ_2_SEQ_LM", "bart"), ("FEATURE_EXTRACTION", "opt"),
    ],
)  # fmt: skip
def test_virtual_tokens_stand_where_the_row_says(
    make_base: MakeBase, task: str, family: str, place: str, side: str
) -> None:
    module = module_of(make_base(family, task), task, "LSTM")
    rows = [PLACES[place](text) for text in texts_of()]
    check_by_hand(module, task, rows, rows, side)
    assert bool(module.adapter.in_front) == (place == "front")


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize(("task", "family"), [("CAUSAL_LM", "llama"), ("TOKEN_CLS", "bert"), ("SEQ_CLS", "gpt2")])
def test_rows_with_and_without_virtual_tokens_mix(make_base: MakeBase, task: str, family: str, side: str) -> None:
    module = module_of(make_base(family, task), task)
    texts = texts_of()
    rows = [texts[0], PLACES["two groups"](texts[1]), PLACES["end"](texts[2][:3])]
    placed = [PLACES["front"](texts[0]), *rows[1:]]
    mask = padded([[1] * len(row) for row in rows], side, 0)
    output = module(padded(rows, side, 0), mask)
    _, expected = by_hand(module.base_model, module.adapter.prompt(), placed, task)
    for i, row in enumerate(rows):
        alone = module(torch.tensor([row])).logits[0]
        count = sum(number >= 0 for number in row)
        given = output.logits[i]
        if task != "SEQ_CLS":
            hidden = mask.shape[1] - len(row)
            # Less text than others have, and then padding, both on the side of the batch's padding.
            given = given[:count] if side == "right" else given[len(given) - count :]
            assert (
                hidden == 0 or not (output.logits[i][-hidden:] if side == "right" else output.logits[i][:hidden]).any()
            )
        close(given, expected[i])
        close(alone, expected[i])


@pytest.mark.parametrize("task", ["CAUSAL_LM", "TOKEN_CLS"])
def test_labels_may_be_those_of_the_text(make_base: MakeBase, task: str) -> None:
    module = module_of(make_base("gpt2", task), task)
    text = texts_of((6,))[0]
    row = PLACES["two groups"](text)
    labels = torch.tensor(per_token([text], 3))
    by_column = torch.tensor(per_token([row], 3))
    close(module(torch.tensor([row]), labels=labels).loss, module(torch.tensor([row]), labels=by_column).loss)
    # A label at a virtual token counts for nothing, whatever it is.
    close(
        module(torch.tensor([row]), labels=by_column.masked_fill(by_column < 0, 1)).loss,
        module(torch.tensor([row]), labels=labels).loss,
    )


def test_position_ids_and_token_types_go_with_the_text(make_base: MakeBase) -> None:
    """PEFT bug: position ids are dropped, in QUESTION_ANS and FEATURE_EXTRACTION token types too."""
    module = module_of(make_base("bert", "TOKEN_CLS"), "TOKEN_CLS")
    base, prompt = module.base_model, module.adapter.prompt()
    text = torch.tensor(texts_of((6,)))
    types = torch.tensor([[0, 0, 0, 1, 1, 1]])
    positions = torch.tensor([[3, 4, 5, 6, 7, 8]])
    found = module(text, token_type_ids=types, position_ids=positions).logits
    embedded = torch.cat([prompt[None], base.get_input_embeddings()(text)], dim=1)
    in_front = torch.zeros(1, V, dtype=torch.long)
    expected = base(
        inputs_embeds=embedded,
        token_type_ids=torch.cat([in_front, types], dim=1),
        position_ids=torch.arange(3, 3 + V + 6)[None],
    ).logits[:, V:]
    close(found, expected)
    # A row with virtual tokens of its own counts them itself.
    row = torch.tensor([[-1, -2, -3, -4, *text[0].tolist()]])
    again = module(row, token_type_ids=torch.cat([in_front, types], 1), position_ids=torch.arange(3, 3 + V + 6)[None])
    close(again.logits, expected)


def test_positions_of_left_padded_rows(make_base: MakeBase) -> None:
    module = module_of(make_base("gpt2", "CAUSAL_LM"), "CAUSAL_LM")
    mask = padded([[1] * length for length in LENGTHS], "left", 0)
    ids = padded(texts_of(), "left", 0)
    positions = (mask.cumsum(dim=1) - 1).clamp(min=0)
    shown = mask.bool()
    close(module(ids, mask, position_ids=positions).logits[shown], module(ids, mask).logits[shown])


def test_embeddings_instead_of_ids(make_base: MakeBase) -> None:
    module = module_of(make_base("gpt2", "CAUSAL_LM"), "CAUSAL_LM")
    ids = padded(texts_of(), "left", 0)
    mask = padded([[1] * length for length in LENGTHS], "left", 0)
    embeddings = module.base_model.get_input_embeddings()(ids)
    assert torch.equal(module(ids, mask).logits, module(attention_mask=mask, inputs_embeds=embeddings).logits)


def test_hidden_states_are_the_texts_too(make_base: MakeBase) -> None:
    module = module_of(make_base("bart", "SEQ_2_SEQ_LM"), "SEQ_2_SEQ_LM")
    output = module(torch.tensor(texts_of((6,))), labels=torch.tensor([[5, 2]]), output_hidden_states=True)
    assert output.encoder_last_hidden_state.shape == (1, 6, 32)
    assert {tuple(each.shape) for each in output.encoder_hidden_states} == {(1, 6, 32)}
    module = module_of(make_base("bert", "SEQ_CLS"), "SEQ_CLS")
    output = module(torch.tensor(texts_of((6,))), output_hidden_states=True)
    assert {tuple(each.shape) for each in output.hidden_states} == {(1, 6, 32)}


def test_only_the_last_logits(make_base: MakeBase) -> None:
    """PEFT bug: labels together with logits_to_keep crash."""
    module = module_of(make_base("llama", "CAUSAL_LM"), "CAUSAL_LM")
    ids = torch.tensor(texts_of((6,)))
    output = module(ids, labels=ids, logits_to_keep=2)
    close(output.logits, module(ids).logits[:, -2:])
    assert isinstance(module(ids, labels=ids, return_dict=False), tuple)


def test_no_answer_is_found_in_padding(make_base: MakeBase) -> None:
    module = module_of(make_base("bert", "QUESTION_ANS"), "QUESTION_ANS")
    for parameter in module.adapter.head.parameters():
        nn.init.constant_(parameter, -5.0)
    mask = padded([[1] * length for length in LENGTHS], "right", 0)
    output = module(padded(texts_of(), "right", 0), mask)
    assert bool((output.start_logits.argmax(dim=1) < torch.tensor(LENGTHS)).all())
    # An answer beyond the text, or in padding, counts for nothing, as in transformers.
    far, inside = torch.tensor([70, 2, 8]), torch.tensor([-1, 2, -1])
    loss = module(padded(texts_of(), "right", 0), mask, start_positions=far, end_positions=far).loss
    assert torch.isfinite(loss) and inside[1] == 2


@pytest.mark.parametrize("family", ["gpt2", "opt", "bert", "roberta", "bart", "deberta"])
def test_rows_may_fill_the_positions_and_no_more(make_base: MakeBase, family: str) -> None:
    """PEFT bug: a bare IndexError."""
    task = "SEQ_2_SEQ_LM" if family == "bart" else "FEATURE_EXTRACTION"
    module = module_of(make_base(family, task), task)
    labels = {"labels": torch.tensor([[5, 2]])} if family == "bart" else {}
    module(torch.full((1, 60), 7), **labels)
    # Padding takes no position.
    mask = torch.cat([torch.zeros(1, 10), torch.ones(1, 60)], dim=1).long()
    module(torch.full((1, 70), 7), mask, **labels)
    with pytest.raises(DataError, match="Got: 65 tokens, 4 virtual tokens in the prompt. Needed: at most 64"):
        module(torch.full((1, 61), 7), **labels)


@pytest.mark.parametrize("family", ["llama", "t5"])
def test_models_that_compute_positions_have_no_limit(make_base: MakeBase, family: str) -> None:
    module = module_of(make_base(family, "FEATURE_EXTRACTION"), "FEATURE_EXTRACTION")
    extra = {"decoder_input_ids": torch.tensor([[0, 5]])} if family == "t5" else {}
    assert torch.isfinite(module(torch.full((1, 100), 7), **extra).last_hidden_state).all()


def test_what_cannot_work_is_told(make_base: MakeBase) -> None:
    module = module_of(make_base("gpt2", "CAUSAL_LM"), "CAUSAL_LM")
    with pytest.raises(DataError, match="Got: -100. Needed: token ids from 0, or -1 to -4"):
        module(torch.tensor([[5, -100]]))
    with pytest.raises(DataError, match="labels has another shape"):
        module(torch.tensor([[5, -1, 6]]), labels=torch.tensor([[5]]))
    with pytest.raises(DataError, match="attention_mask has another shape"):
        module(torch.tensor([[5, 6]]), torch.ones(1, 6))
    with pytest.raises(DataError, match="one of them"):
        module()
    with module.disable_adapter(), pytest.raises(DataError, match="no virtual tokens"):
        module(torch.tensor([[5, -1]]))
    cached = module(torch.tensor([[5, 6]]), use_cache=True).past_key_values
    with pytest.raises(DataError, match="no place for the prompt"):
        module(torch.tensor([[7]]), past_key_values=cached)


def test_a_config_that_does_not_fit_is_told(make_base: MakeBase) -> None:
    causal = make_base("gpt2", "CAUSAL_LM")
    # PEFT bug: without a task type the prompt is ignored.
    with pytest.raises(SettingsError, match="no task_type"):
        PromptedModule(causal, PromptEncoderConfig(num_virtual_tokens=4))
    with pytest.raises(SettingsError, match="num_virtual_tokens is not set"):
        PromptedModule(causal, PromptEncoderConfig(task_type="CAUSAL_LM"))
    with pytest.raises(SettingsError, match="needs finished prompt embeddings"):
        PromptedModule(causal, PromptEncoderConfig(task_type="CAUSAL_LM", num_virtual_tokens=4, inference_mode=True))
    for family, made_for, task in [
        ("bert", "SEQ_CLS", "CAUSAL_LM"), ("gpt2", "CAUSAL_LM", "SEQ_2_SEQ_LM"), ("gpt2", "CAUSAL_LM", "QUESTION_ANS"),
        ("bart", "SEQ_CLS", "SEQ_CLS"),
    ]:  # fmt: skip
        with pytest.raises(SettingsError, match="Needed: a base model for"):
            module_of(make_base(family, made_for), task)
    with pytest.raises(SettingsError, match="lacks modules that modules_to_save names. Got: nothing"):
        module_of(make_base("gpt2", "CAUSAL_LM"), "CAUSAL_LM", modules_to_save=["nothing"])
    with pytest.raises(SettingsError, match="names the word embeddings"):
        module_of(make_base("gpt2", "CAUSAL_LM"), "CAUSAL_LM", modules_to_save=["wte"])
    with pytest.raises(SettingsError, match="token_dim is not the width"):
        module_of(make_base("gpt2", "CAUSAL_LM"), "CAUSAL_LM", token_dim=16)
    base = make_base("gpt2", "SEQ_CLS")
    base.config.pad_token_id = None
    with pytest.raises(SettingsError, match="Set model.config.pad_token_id"):
        module_of(base, "SEQ_CLS")(torch.tensor([[5, 6], [7, 8]]))
