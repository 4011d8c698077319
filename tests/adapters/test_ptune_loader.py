"""The loader that goes home with an adapter says exactly what PTune says."""

from __future__ import annotations

import ast
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from ptune_core.adapters import ptune_loader
from ptune_core.adapters.export import export_adapter
from ptune_core.adapters.format import load_adapter, template_of
from ptune_core.model.base import load_base_model
from ptune_core.model.generation import Sampling, stream
from ptune_core.model.prompted import PromptedModel
from ptune_core.prompt.segments import FILTERS
from ptune_core.prompt.template import TargetKind, parse_template
from ptune_core.prompt.verbalizer import Verbalizer

ROWS = (
    {"a": "The film was great.", "b": "Paris ?"},
    {"a": " I loved  every minute of it", "b": "a terrible , boring waste of time ; the food was bad . " * 5},
    {"a": "the small dog liked to run in the park . " * 9, "b": "naïve [SEP] {x} <|endoftext|> 日本"},
    {"a": "", "b": ""},
)
TEMPLATES = (
    "[P*3] {a} {b}",
    "[P*3] {a~} Question: {b}?",
    "[P*3] {a} [SEP] {b}",
    "{a} [P*3] {b} [P*2]",
    "{a}{b} [P*3:task] Question: {b|strip_punct|lower_first}? [P:task] Answer:",
    "[CLS] {a|strip|upper_first} [P*2] [SEP] {b|lower} [SEP]",
    "Answer: [P*2]{a~} yes [P*2] {b}",
)


def prompted_model(trained, *, classifies: bool = True) -> PromptedModel:
    template = parse_template(trained.template)
    base = load_base_model(
        trained.base_model, target=template.target.kind, num_labels=len(trained.labels), device="cpu",
        precision=trained.precision,
    )  # fmt: skip
    if template.target.kind is TargetKind.HEAD:
        base.model.load_state_dict(trained.head, strict=False)
    verbalizer = Verbalizer(trained.verbalizer or {label: label for label in trained.labels}) if classifies else None
    return PromptedModel(base, template, verbalizer, max_length=trained.max_length)


@torch.no_grad()
def assert_same_logits(trained, directory: Path) -> None:
    export_adapter(trained, directory, directory.with_suffix(".zip"))
    loaded = load_adapter(directory.with_suffix(".zip"))
    prompted, alone = prompted_model(loaded), ptune_loader.Adapter(directory)
    rows = prompted.make_rows(ROWS)
    assert [alone.rows.ids(row) for row in ROWS] == [list(row.ids) for row in rows]
    assert any(row.num_cut for row in rows)
    expected = prompted.label_logits(prompted.label_batch(rows), loaded.prompt_embeddings)
    found = torch.stack([alone.logits(row) for row in ROWS])
    assert expected.std() > 0.1
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
    for row, probabilities in zip(ROWS, expected.softmax(1).tolist(), strict=True):
        classified = alone.classify(row)
        assert tuple(classified) == loaded.labels
        assert list(classified.values()) == pytest.approx(probabilities, abs=1e-4)


@pytest.mark.parametrize("template", TEMPLATES)
@pytest.mark.parametrize("base", ["tiny_gpt2", "tiny_llama"])
def test_answers_are_scored_the_same(template, base, make_trained, tmp_path, request) -> None:
    if "[SEP]" in template:
        template = template.replace("[SEP]", "[EOS]").replace("[CLS]", "[BOS]")
    assert_same_logits(make_trained(request.getfixturevalue(base), template + "[ANSWER:label]"), tmp_path / "adapter")


@pytest.mark.parametrize("template", TEMPLATES)
def test_an_encoders_head_scores_the_same(template, tiny_bert, make_trained, tmp_path) -> None:
    trained = make_trained(tiny_bert, template + " [HEAD:label]", head_name="classifier", max_length=40)
    assert_same_logits(trained, tmp_path / "adapter")


@pytest.mark.parametrize(
    ("base", "template", "head_name"),
    [
        ("tiny_llama", "{a} [P*3] {b}[ANSWER:label]", None),
        ("tiny_llama", "{a} [P*3] {b} [HEAD:label]", "score"),
        ("tiny_bert", "{a} [P*3] {b} [HEAD:label]", "classifier"),
    ],
)
def test_the_precision_of_training_is_kept(base, template, head_name, make_trained, tmp_path, request) -> None:
    """Bug: the loader computed in fp32 what was trained in bf16, and said other probabilities in the second digit."""
    folder = request.getfixturevalue(base)
    trained = make_trained(folder, template, head_name=head_name, precision="bf16", max_length=60)
    export_adapter(trained, tmp_path / "adapter", tmp_path / "adapter.zip")
    prompted, alone = prompted_model(trained), ptune_loader.Adapter(tmp_path / "adapter")
    rounded = ptune_loader.Adapter(tmp_path / "adapter", dtype=torch.float32)
    for values in ROWS[:2]:
        with torch.no_grad():
            batch = prompted.label_batch(prompted.make_rows([values]))
            expected = prompted.label_logits(batch, trained.prompt_embeddings)[0]
        # The engine scores answer words in fp32, the loader in the base model's precision, as transformers does; and a
        # decoder's text before the virtual tokens is computed apart. Each may round once more, by 2^-8.
        tolerance = 1e-6 if head_name == "classifier" else 4e-3
        torch.testing.assert_close(alone.logits(values), expected, atol=tolerance, rtol=tolerance)
        assert (rounded.logits(values) - expected).abs().max() > 1e-4


@pytest.mark.parametrize("template", TEMPLATES)
def test_mask_tokens_score_the_same(template, tiny_bert_lm, make_trained, tmp_path) -> None:
    answers = {"negative": "bad", "positive": "great"}
    trained = make_trained(tiny_bert_lm, template + " It was [MASK:label] .", answers=answers, max_length=44)
    assert_same_logits(trained, tmp_path / "adapter")


def test_several_mask_tokens_score_the_same(tiny_bert_lm, make_trained, tmp_path) -> None:
    answers = {"negative": "bad food", "positive": "great film"}
    trained = make_trained(tiny_bert_lm, "{a} [P*3] [MASK*2:label] . {b}", answers=answers)
    assert_same_logits(trained, tmp_path / "adapter")


@pytest.mark.parametrize("template", ["[P*3] {a} {b}", "{a} [P*3] {b} [P*2]"])
@pytest.mark.parametrize("base", ["tiny_t5", "tiny_bart"])
def test_encoder_decoders_score_the_same(template, base, make_trained, tmp_path, request) -> None:
    trained = make_trained(request.getfixturevalue(base), template + "[ANSWER:label]", task_type="SEQ_2_SEQ_LM")
    assert_same_logits(trained, tmp_path / "adapter")


@pytest.mark.parametrize(
    ("base", "template"),
    [
        ("tiny_t5", "{a} [P*3] {b}[ANSWER:answer]"),
        ("tiny_bart", "{a} [P*3] {b}[ANSWER:answer]"),
        ("tiny_bert_lm", "{a} [P*3] {b} [MASK*2:answer]"),
    ],
)
def test_texts_of_other_kinds_are_the_same(base, template, make_trained, tmp_path, request) -> None:
    folder = request.getfixturevalue(base)
    task_type = None if "MASK" in template else "SEQ_2_SEQ_LM"
    trained = make_trained(folder, template, answers={}, task_type=task_type)
    export_adapter(trained, tmp_path / "adapter", tmp_path / "adapter.zip")
    prompted, alone = prompted_model(trained, classifies=False), ptune_loader.Adapter(tmp_path / "adapter")
    for values in ROWS[:2]:
        row = prompted.rows.row(values)
        texts = list(stream(prompted, row, trained.prompt_embeddings, Sampling(max_new_tokens=8)))
        assert alone.generate(values, max_new_tokens=8) == texts[-1] != ""


def test_a_decoders_head_scores_the_same(tiny_gpt2, make_trained, tmp_path) -> None:
    trained = make_trained(tiny_gpt2, "{a} [P*3] {b} [HEAD:label]", head_name="score")
    assert_same_logits(trained, tmp_path / "adapter")


def test_a_tokenizer_that_adds_special_tokens_and_a_word_boundary(tiny_llama, make_trained, tmp_path) -> None:
    """As Llama 2 has: `<s>` before every text, and a boundary before its first word, so that ` yes` has two tokens."""
    folder = with_sentencepiece_tokenizer(tiny_llama, tmp_path / "base")
    for number, template in enumerate(TEMPLATES):
        template = template.replace("[SEP]", "[EOS]").replace("[CLS]", "[BOS]")
        trained = make_trained(folder, template + "[ANSWER:label]", answers={"n": " no", "y": " yes"})
        assert_same_logits(trained, tmp_path / f"adapter{number}")


def with_sentencepiece_tokenizer(model_folder: Path, folder: Path) -> Path:
    """A copy of the model with another tokenizer: `▁` before every word, `<s>` in front and `</s>` behind."""
    from tokenizers import Tokenizer, decoders, models, normalizers, processors, trainers
    from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.Fuse()])
    words = ["the film was great yes no a terrible waste of time Question Answer"] * 3
    tokenizer.train_from_iterator(
        words, trainers.BpeTrainer(vocab_size=300, special_tokens=["<unk>", "<s>", "</s>"], max_token_length=4)
    )
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 1), ("</s>", 2)]
    )
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>", bos_token="<s>", eos_token="</s>")
    assert fast(" no")["input_ids"][1] == fast(" yes")["input_ids"][1]
    fast.save_pretrained(folder)
    AutoModelForCausalLM.from_pretrained(model_folder).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("template", ["[P*4] {a}", "{a} [P*4]"])
def test_text_is_generated_the_same(template, tiny_llama, make_trained, tmp_path) -> None:
    trained = make_trained(tiny_llama, template + "[ANSWER:label]", answers={})
    export_adapter(trained, tmp_path / "adapter", tmp_path / "adapter.zip")
    prompted = prompted_model(trained, classifies=False)
    [row] = prompted.make_rows(ROWS[:1])
    *_, expected = stream(prompted, row, trained.prompt_embeddings, Sampling(max_new_tokens=12))
    assert ptune_loader.Adapter(tmp_path / "adapter").generate(ROWS[0], max_new_tokens=12) == expected


def test_generation_ends_at_the_last_position(tiny_gpt2, make_trained, tmp_path) -> None:
    trained = make_trained(tiny_gpt2, "{a} [P*4][ANSWER:label]", answers={}, max_length=60)
    export_adapter(trained, tmp_path / "adapter", tmp_path / "adapter.zip")
    adapter = ptune_loader.Adapter(tmp_path / "adapter")
    text = adapter.generate(ROWS[2], max_new_tokens=500)
    assert len(adapter.rows.ids(ROWS[2])) == 60
    assert len(adapter.rows.encode(text)) <= 8


def test_a_chat_is_read_as_it_was_trained(tiny_gpt2, make_trained, tmp_path) -> None:
    text = "system: Be brief. [P*4]\nuser: {a} {b~}\nassistant: [ANSWER:label]"
    expanded = parse_template(text).expand_chat(
        lambda messages: "<|endoftext|>" + "".join(f"{m['role']}: {m['content']}\n" for m in messages)
    )
    trained = replace(make_trained(tiny_gpt2, text), segments=expanded.segments)
    export_adapter(trained, tmp_path / "adapter", tmp_path / "adapter.zip")
    alone = ptune_loader.Adapter(tmp_path / "adapter")
    base = load_base_model(str(tiny_gpt2), target=TargetKind.ANSWER, device="cpu", precision="fp32")
    base.tokenizer.chat_template = (
        "<|endoftext|>{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}"
    )
    template = template_of(load_adapter(tmp_path / "adapter"))
    prompted = PromptedModel(base, template, Verbalizer(trained.verbalizer), max_length=trained.max_length)
    assert [list(row.ids) for row in prompted.make_rows(ROWS)] == [alone.rows.ids(row) for row in ROWS]


def test_the_filters_are_ptunes_own() -> None:
    texts = ["Hello World?!", "  a b. \n", "", "ÉTÉ…", "(x)", "。句。"]
    assert ptune_loader.FILTERS.keys() == FILTERS.keys()
    for name, apply in FILTERS.items():
        assert [ptune_loader.FILTERS[name](text) for text in texts] == [apply(text) for text in texts]


def test_it_is_small_and_needs_nothing_of_ptune() -> None:
    source = Path(ptune_loader.__file__).read_text()
    assert source.count("\n") < 360
    nodes = ast.walk(ast.parse(source))
    modules = {node.module for node in nodes if isinstance(node, ast.ImportFrom)}
    nodes = ast.walk(ast.parse(source))
    modules |= {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    assert modules == {
        "__future__", "functools", "inspect", "json", "pathlib", "re", "typing", "torch", "safetensors.torch",
        "transformers", "transformers.modeling_layers", "transformers.modeling_outputs",
    }  # fmt: skip
