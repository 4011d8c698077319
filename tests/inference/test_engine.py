"""The engine on tiny real models, held against plain transformers."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from ptune_core.adapters.format import load_adapter, save_adapter
from ptune_core.adapters.ptune_loader import Adapter
from ptune_core.errors import AdapterError, BaseModelError, DataError, InferenceError, OutOfMemory
from ptune_core.inference.engine import NO_HEAD_NOTE, Engine, check_gpu_room
from ptune_core.inference.protocol import (
    Classification,
    Classify,
    Describe,
    Generate,
    Generated,
    Import,
    Preview,
    Usage,
)
from ptune_core.model import prompted
from ptune_core.model.base import load_base_model
from ptune_core.prompt.template import TargetKind, parse_template

LABELS = {"negative": " bad", "positive": " good"}
AFTER = "{text~} [P*4][ANSWER:label]"
TEXTS = ["the film was great", "a terrible waste of time ; the food was bad and I loved every minute", "great"]


@pytest.fixture(params=["tiny_gpt2", "tiny_llama"])
def base(request: pytest.FixtureRequest) -> Path:
    """Folder of a tiny decoder."""
    return request.getfixturevalue(request.param)


def classify(engine: Engine, adapter: Path, texts: list[str], *, compare: bool = True) -> Classification:
    rows = [{"text": text} for text in texts]
    return engine.classify(Classify(adapter=str(adapter), rows=rows, compare=compare))


def generate(engine: Engine, adapter: Path, text: str, **options: object) -> list[Generated]:
    return list(start(engine, adapter, text, **options))


def start(engine: Engine, adapter: Path, text: str, **options: object) -> Iterator[object]:
    request = Generate.model_validate({"adapter": str(adapter), "values": {"text": text}, **options})
    engine.base_key(request)
    return engine.answer(request)


@torch.no_grad()
def plain_probabilities(base: Path, text: str, prompt: torch.Tensor | None) -> list[float]:
    """Label probabilities by transformers alone: the text's embeddings, the prompt's after them, one softmax."""
    model, tokenizer = AutoModelForCausalLM.from_pretrained(base), AutoTokenizer.from_pretrained(base)
    embeddings = model.get_input_embeddings()(torch.tensor([tokenizer(text)["input_ids"]]))
    if prompt is not None:
        embeddings = torch.cat([embeddings, prompt[None]], dim=1)
    logits = model(inputs_embeds=embeddings).logits[0, -1]
    answers = [tokenizer(answer)["input_ids"][0] for answer in LABELS.values()]
    return torch.softmax(logits[answers], dim=0).tolist()


def test_both_panes_are_what_transformers_computes(base: Path, make_adapter) -> None:
    """unsloth #4503: the pane called base silently ran the tuned model."""
    adapter = make_adapter(base, AFTER, labels=LABELS)
    prompt = load_adapter(adapter).prompt_embeddings
    answer = classify(Engine(), adapter, TEXTS)
    assert answer["labels"] == ["negative", "positive"] and answer["base"] is not None
    for text, tuned, alone in zip(TEXTS, answer["tuned"], answer["base"], strict=True):
        torch.testing.assert_close(tuned, plain_probabilities(base, text, prompt), atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(alone, plain_probabilities(base, text, None), atol=1e-4, rtol=1e-4)
        assert abs(tuned[0] - alone[0]) > 1e-3


def test_adapters_are_swapped_without_a_trace_over_a_base_model_loaded_once(
    tiny_gpt2: Path, make_adapter, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = (make_adapter(tiny_gpt2, AFTER, labels=LABELS, seed=seed) for seed in (1, 2))
    alone = classify(Engine(), one, TEXTS), classify(Engine(), other, TEXTS)
    engine, loaded = Engine(), []

    def load(id: str, **options: object) -> object:
        loaded.append(id)
        return load_base_model(id, **options)

    monkeypatch.setattr("ptune_core.inference.engine.load_base_model", load)
    for _ in range(2):
        assert (classify(engine, one, TEXTS), classify(engine, other, TEXTS)) == alone
    assert loaded == [str(tiny_gpt2)]
    assert alone[0]["base"] == alone[1]["base"]
    assert alone[0]["tuned"] != alone[1]["tuned"]


def test_an_adapter_from_elsewhere_is_taken_in_and_used(tiny_gpt2: Path, tmp_path: Path, make_adapter) -> None:
    theirs = make_adapter("someone/their-model", "[P*4] {text}[ANSWER:answer]")
    for name in ("ptune.json", "prompt_encoder.safetensors"):  # which PEFT does not write
        (theirs / name).unlink(missing_ok=True)
    engine = Engine()
    usage = Usage(base_model=str(tiny_gpt2), answers=LABELS)
    request = Import(adapter=str(theirs), out=str(tmp_path / "taken-in"), usage=usage)
    assert engine.base_key(request) is None
    (about,) = engine.answer(request)
    assert (about["task"], about["labels"], about["base_model"]) == ("classify", list(LABELS), str(tiny_gpt2))
    ours = make_adapter(tiny_gpt2, "[P*4] {text}[ANSWER:answer]", labels=LABELS, max_length=None)  # the same vectors
    assert classify(engine, tmp_path / "taken-in" / "adapter", TEXTS) == classify(engine, ours, TEXTS)


def test_rows_do_not_influence_each_other(base: Path, make_adapter) -> None:
    adapter = make_adapter(base, AFTER, labels=LABELS)
    engine = Engine()
    together = classify(engine, adapter, TEXTS * 15)
    assert len(together["tuned"]) == 45
    for text, tuned in zip(TEXTS * 15, together["tuned"], strict=True):
        torch.testing.assert_close(classify(engine, adapter, [text])["tuned"][0], tuned, atol=1e-4, rtol=1e-4)


def test_the_base_model_is_loaded_in_the_precision_it_was_trained_in(tiny_gpt2: Path, make_adapter) -> None:
    """An adapter trained on one device and asked on another got the other device's own number format."""
    in_fp32, in_bf16 = (make_adapter(tiny_gpt2, AFTER, labels=LABELS, precision=name) for name in ("fp32", "bf16"))
    engine = Engine()
    exact, rounded = classify(engine, in_fp32, TEXTS)["tuned"], classify(engine, in_bf16, TEXTS)["tuned"]
    assert exact != rounded
    torch.testing.assert_close(exact, rounded, atol=0.05, rtol=0)
    assert classify(engine, in_fp32, TEXTS)["tuned"] == exact


def test_without_comparison_the_base_model_is_not_asked(tiny_gpt2: Path, make_adapter) -> None:
    adapter = make_adapter(tiny_gpt2, AFTER, labels=LABELS)
    answer = classify(Engine(), adapter, TEXTS, compare=False)
    assert answer["base"] is None and answer["note"] == ""


@pytest.mark.parametrize("name", ["tiny_gpt2", "tiny_bert"])
def test_heads_are_swapped_and_the_base_model_says_it_has_none(
    name: str, request: pytest.FixtureRequest, make_adapter
) -> None:
    base = request.getfixturevalue(name)
    one, other = (make_adapter(base, "[P*4] {text~} [HEAD:label]", labels=LABELS, seed=seed) for seed in (1, 2))
    alone = classify(Engine(), one, TEXTS), classify(Engine(), other, TEXTS)
    assert alone[0]["base"] is None and alone[0]["note"] == NO_HEAD_NOTE
    assert alone[0]["tuned"] != alone[1]["tuned"]
    engine = Engine()
    parts = [
        engine.answer(Classify(adapter=str(adapter), rows=[{"text": text} for text in TEXTS * 10]))
        for adapter in (one, other)
    ]
    for first, second in zip(*parts, strict=True):  # in turns, as the server does
        torch.testing.assert_close(first["tuned"][:3], rolled(alone[0]["tuned"], first), atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(second["tuned"][:3], rolled(alone[1]["tuned"], second), atol=1e-4, rtol=1e-4)


def rolled(expected: list[list[float]], part: Classification) -> list[list[float]]:
    """The three rows in the order in which a part begins: the first has 16 rows, so the second starts one later."""
    return expected if len(part["tuned"]) == 16 else expected[1:] + expected[:1]


def test_generated_text_is_what_transformers_generates(base: Path, make_adapter) -> None:
    adapter = make_adapter(base, "{text~} [P*4][ANSWER:answer]")
    model, tokenizer = AutoModelForCausalLM.from_pretrained(base), AutoTokenizer.from_pretrained(base)
    ids = torch.tensor([tokenizer(TEXTS[0])["input_ids"]])
    embeddings = model.get_input_embeddings()(ids).detach()
    prompt = load_adapter(adapter).prompt_embeddings
    options = {"max_new_tokens": 20, "do_sample": False, "pad_token_id": tokenizer.pad_token_id}
    tuned = model.generate(inputs_embeds=torch.cat([embeddings, prompt[None]], dim=1), **options)
    alone = model.generate(ids, attention_mask=torch.ones_like(ids), **options)[:, ids.shape[1] :]
    last = generate(Engine(), adapter, TEXTS[0], max_new_tokens=20)[-1]
    assert last["tuned"].rstrip("\ufffd") == tokenizer.decode(tuned[0], skip_special_tokens=True).rstrip("\ufffd")
    assert last["base"] == tokenizer.decode(alone[0], skip_special_tokens=True).rstrip("\ufffd")
    assert last["base"] != last["tuned"]


def test_the_seed_decides_what_is_drawn_and_comparing_changes_nothing(tiny_gpt2: Path, make_adapter) -> None:
    adapter = make_adapter(tiny_gpt2, "{text~} [P*4][ANSWER:answer]")
    engine = Engine()
    options = {"max_new_tokens": 12, "temperature": 1.0}
    drawn = generate(engine, adapter, "the film", seed=3, **options)
    assert drawn == generate(Engine(), adapter, "the film", seed=3, **options)
    assert drawn[-1]["tuned"] != generate(engine, adapter, "the film", seed=4, **options)[-1]["tuned"]
    only_tuned = generate(engine, adapter, "the film", seed=3, compare=False, **options)
    assert only_tuned[-1] == {"tuned": drawn[-1]["tuned"], "base": None}


def test_streams_of_two_adapters_in_turns_give_the_same_texts(tiny_gpt2: Path, make_adapter) -> None:
    adapters = [make_adapter(tiny_gpt2, "{text~} [P*4][ANSWER:answer]", seed=seed) for seed in (1, 2)]
    options = {"max_new_tokens": 12, "temperature": 1.0, "seed": 5}
    alone = [generate(Engine(), adapter, "the film", **options)[-1] for adapter in adapters]
    engine = Engine()
    streams = [start(engine, adapter, "the film", **options) for adapter in adapters]
    last: list[object] = [None, None]
    running = {0, 1}
    while running:
        for index in list(running):
            part = next(streams[index], None)
            last[index] = part or last[index]
            running -= set() if part else {index}
    assert last == alone


def test_a_chat_is_answered_in_the_format_it_was_trained_in(tiny_llama: Path, tmp_path: Path, make_adapter) -> None:
    """Llama 3 writes the date into its chat format: on another day the adapter got another text than in training."""
    chat = tmp_path / "chat-model"
    shutil.copytree(tiny_llama, chat)
    tokenizer = AutoTokenizer.from_pretrained(chat)
    turns = "{% for m in messages %}<{{ m.role }}>{{ m.content }} ;{% endfor %}"

    def write_format(day: str) -> None:
        tokenizer.chat_template = f"{day} {turns}"
        tokenizer.save_pretrained(chat)

    write_format("once upon a time")
    text = "user: {text~} [P*4]\nassistant: [ANSWER:answer]"
    base = load_base_model(str(chat), target=TargetKind.ANSWER, device="cpu", precision="fp32")
    segments = prompted.PromptedModel(base, parse_template(text), None).template.segments
    adapter = make_adapter(chat, text, segments=segments)
    expected = generate(Engine(), adapter, "the film")
    (seen,) = Engine().answer(Preview(adapter=str(adapter), values={"text": "the film"}))
    write_format("a small dog who liked to run")
    assert generate(Engine(), adapter, "the film") == expected
    shown = "".join(piece["text"] for piece in seen["pieces"] if piece["kind"] != "target")
    assert shown == "once upon a time <user>the filmP1P2P3P4 ;<assistant>"


def test_a_long_text_leaves_room_for_an_answer(tiny_gpt2: Path, make_adapter) -> None:
    adapter = make_adapter(tiny_gpt2, "{text~} [P*4][ANSWER:answer]", max_length=64)
    last = generate(Engine(), adapter, "great film " * 200, max_new_tokens=16)[-1]
    assert last["tuned"] and last["base"]


def test_describe_says_what_the_page_needs(make_adapter) -> None:
    adapter = make_adapter("someone/not-here", AFTER, labels=LABELS)
    request = Describe(adapter=str(adapter))
    engine = Engine()
    assert engine.base_key(request) is None
    (about,) = engine.answer(request)
    assert about == {
        "task": "classify",
        "columns": ["text"],
        "data_columns": {},
        "target": "label",
        "labels": ["negative", "positive"],
        "template": AFTER,
        "base_model": "someone/not-here",
        "revision": None,
        "base_weights": "frozen",
        "num_virtual_tokens": 4,
        "is_chat": False,
    }


def test_the_wrong_task_is_refused_before_a_model_is_loaded(make_adapter) -> None:
    labels = make_adapter("someone/not-here", AFTER, labels=LABELS)
    writes = make_adapter("someone/not-here", "{text~} [P*4][ANSWER:answer]")
    with pytest.raises(AdapterError, match="does not write text"):
        generate(Engine(), labels, "a")
    with pytest.raises(AdapterError, match="no labels to choose from"):
        classify(Engine(), writes, ["a"])


def test_missing_columns_are_all_named(tiny_gpt2: Path, make_adapter) -> None:
    adapter = make_adapter(tiny_gpt2, "{question} {text~} [P*4][ANSWER:label]", labels=LABELS)
    rows = [{"text": "a", "question": "b"}, {"text": "a"}, {}]
    with pytest.raises(DataError) as raised:
        Engine().classify(Classify(adapter=str(adapter), rows=rows))
    assert raised.value.problems == ("row 2: no question", "row 3: no question, text")


def test_an_adapter_of_another_size_is_refused(tiny_gpt2: Path, tmp_path: Path, make_adapter) -> None:
    from transformers import GPT2Config, GPT2LMHeadModel

    narrow = tmp_path / "narrow"
    shutil.copytree(tiny_gpt2, narrow)
    config = GPT2Config.from_pretrained(tiny_gpt2)
    config.n_embd = 16
    GPT2LMHeadModel(config).save_pretrained(narrow)
    with pytest.raises(AdapterError, match="does not fit.*4 virtual tokens of size 32.*4 of size 16"):
        classify(Engine(), make_adapter(narrow, AFTER, labels=LABELS), ["a"])


def test_after_an_adapter_that_cannot_be_used_others_can(tiny_gpt2: Path, make_adapter) -> None:
    engine = Engine()
    good = make_adapter(tiny_gpt2, AFTER, labels=LABELS)
    expected = classify(engine, good, TEXTS)
    with pytest.raises(BaseModelError, match="not on this machine"):
        classify(engine, make_adapter("someone/not-here", AFTER, labels=LABELS), TEXTS)
    with pytest.raises(AdapterError, match="no adapter"):
        classify(engine, good.with_name("nothing"), TEXTS)
    assert classify(engine, good, TEXTS) == expected


def test_an_adapter_trained_again_in_the_same_place_is_read_again(tiny_gpt2: Path, make_adapter) -> None:
    one, other = (make_adapter(tiny_gpt2, AFTER, labels=LABELS, seed=seed) for seed in (1, 2))
    engine = Engine()
    classify(engine, one, TEXTS)
    expected = classify(engine, other, TEXTS)["tuned"]
    shutil.rmtree(one)
    shutil.copytree(other, one)
    assert classify(engine, one, TEXTS)["tuned"] == expected


def test_numbers_that_are_none_are_an_error_not_an_answer(tiny_gpt2: Path, tmp_path: Path, make_adapter) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(tiny_gpt2, broken)
    model = AutoModelForCausalLM.from_pretrained(broken)
    model.transformer.ln_f.weight.data[0] = torch.nan
    model.save_pretrained(broken)
    adapter = make_adapter(broken, AFTER, labels=LABELS)
    with pytest.raises(InferenceError, match="no usable numbers"):
        classify(Engine(), adapter, ["a"])


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA out of memory. Tried"), MemoryError()])
def test_memory_that_runs_out_is_explained(
    error: Exception, tiny_gpt2: Path, make_adapter, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run_out(*_: object) -> None:
        raise error

    monkeypatch.setattr(prompted.PromptedModel, "scores", run_out)
    with pytest.raises(OutOfMemory, match="Shorten the text"):
        classify(Engine(), make_adapter(tiny_gpt2, AFTER, labels=LABELS), ["a"])


def test_room_on_the_gpu_is_checked_by_the_weights(tiny_gpt2: Path) -> None:
    base = load_base_model(str(tiny_gpt2), target=TargetKind.ANSWER, device="cpu", precision="fp32")
    weights = sum(tensor.numel() * 4 for tensor in base.model.state_dict().values())
    check_gpu_room(base, 2**30 + weights * 2, is_training=True)
    with pytest.raises(InferenceError, match="beside the run that is training.*0.5 GiB free.*stop it"):
        check_gpu_room(base, 2**29, is_training=True)
    with pytest.raises(InferenceError, match="no room left. Got.*End what else"):
        check_gpu_room(base, 2**30 + weights, is_training=False)


def test_preview_shows_every_token_virtual_tokens_and_what_was_cut(base: Path, make_adapter) -> None:
    adapter = make_adapter(base, "Question : {text~} [P*4] Answer :[ANSWER:label]", labels=LABELS, max_length=20)
    text = "is the capital of France Paris ? " * 4
    (seen,) = Engine().answer(Preview(adapter=str(adapter), values={"text": text}))
    pieces = seen["pieces"]
    shown = [piece for piece in pieces if piece["kind"] in ("text", "virtual")]
    assert len(shown) == seen["length"] == seen["max_length"] == 20
    assert [piece["text"] for piece in pieces if piece["kind"] == "virtual"] == ["P1", "P2", "P3", "P4"]
    assert seen["num_virtual_tokens"] == 4
    written = "".join(piece["text"] for piece in pieces if piece["kind"] in ("text", "cut"))
    assert written == f"Question : {text.rstrip()} Answer :" or written == f"Question : {text} Answer :"
    kinds = [piece["kind"] for piece in pieces]
    assert kinds.index("cut") > kinds.index("text") and pieces[-1] == {"text": "label", "kind": "target"}


def test_preview_marks_special_tokens(tiny_bert: Path, make_adapter) -> None:
    adapter = make_adapter(tiny_bert, "[P*2] {text~} [HEAD:label]", labels=LABELS)
    (seen,) = Engine().answer(Preview(adapter=str(adapter), values={"text": "great film"}))
    kinds = [(piece["text"], piece["kind"]) for piece in seen["pieces"]]
    assert kinds[:3] == [("P1", "virtual"), ("P2", "virtual"), ("[CLS]", "special")]
    assert kinds[-1] == ("[SEP]", "special")


@pytest.mark.parametrize(("base", "target"), [("tiny_bert_lm", "[MASK:label]"), ("tiny_t5", "[ANSWER:label]")])
def test_masks_and_encoder_decoders_answer(
    request: pytest.FixtureRequest, base: str, target: str, make_adapter
) -> None:
    folder, labels = request.getfixturevalue(base), {"negative": "bad", "positive": "great"}
    adapter = make_adapter(folder, f"{{text~}} [P*4] {target}", labels=labels)
    answer = classify(Engine(), adapter, TEXTS)
    assert answer["base"] is not None and answer["note"] == ""
    for tuned, alone in zip(answer["tuned"], answer["base"], strict=True):
        assert sum(tuned) == pytest.approx(1) and abs(tuned[0] - alone[0]) > 1e-4
    writer = make_adapter(folder, f"{{text~}} [P*4] {target.replace('label', 'answer')}")
    (*_, last) = generate(Engine(), writer, TEXTS[1], max_new_tokens=6, compare=True)
    assert last["tuned"] and last["base"] is not None


def test_a_deep_adapter_answers_with_its_layers_and_the_base_model_without(base: Path, make_adapter, tmp_path) -> None:
    for template, labels in (("[P*4] {text~}[ANSWER:label]", LABELS), ("[P*4] {text~}[ANSWER:answer]", None)):
        of_input = make_adapter(base, template, labels=labels)
        torch.manual_seed(0)
        save_adapter(replace(load_adapter(of_input), deep=torch.randn(2, 4, 32)), tmp_path / "deep")
        engine = Engine()
        if labels is None:
            plain, deep = (generate(engine, path, TEXTS[0])[-1] for path in (of_input, tmp_path / "deep"))
            assert plain["base"] == deep["base"] and plain["tuned"] != deep["tuned"]
            continue
        found, others = classify(engine, tmp_path / "deep", TEXTS), classify(engine, of_input, TEXTS)
        torch.testing.assert_close(found["base"], others["base"], atol=1e-4, rtol=1e-4)
        assert found["tuned"][0] != pytest.approx(others["tuned"][0], abs=1e-3)
        alone = Adapter(tmp_path / "deep")
        for text, tuned in zip(TEXTS, found["tuned"], strict=True):
            expected = list(alone.classify({"text": text}).values())
            torch.testing.assert_close(tuned, expected, atol=1e-4, rtol=0)
