"""Adapters with something for every layer: saved is loaded, by us, by the loader, and by PEFT as keys and values."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

from ptune_core.adapters.adoption import adopt
from ptune_core.adapters.card import model_card
from ptune_core.adapters.export import export_adapter
from ptune_core.adapters.format import load_adapter, save_adapter
from ptune_core.adapters.module_files import load_module
from ptune_core.adapters.prefix import export_prefix
from ptune_core.adapters.ptune_loader import Adapter
from ptune_core.adapters.sentence_form import export_sentence_transformers
from ptune_core.adapters.snippet import snippet
from ptune_core.adapters.vectors import read_vectors
from ptune_core.adapters.vocabulary import export_vocabulary
from ptune_core.errors import AdapterError, PTuneError
from ptune_core.inference.loaded import LoadedAdapter, prompted_model, put_head_on
from ptune_core.model.base import load_base_model, with_head_input
from ptune_core.model.generation import Sampling, complete
from ptune_core.model.head_input import HeadInput
from ptune_core.model.trained import TrainedPrompt
from ptune_core.prompt.template import TargetKind, parse_template

# PEFT 0.21.2 asks transformers 5 for attributes by their old names.
pytestmark = [
    pytest.mark.filterwarnings("ignore:.*is deprecated and will be removed in v6:FutureWarning"),
    pytest.mark.filterwarnings("ignore:Position ids are not supported:UserWarning"),
]

TEXTS = ("the film was great", "a terrible , boring waste of time ; the food was bad .")
DEEP: list[tuple[str, str, dict[str, Any]]] = [
    ("tiny_gpt2", "[P*4] {text}[ANSWER:label]", {}),
    ("tiny_llama", "[P*4] {text}[ANSWER:label]", {}),
    ("tiny_llama", "[P*4] {text} [HEAD:label]", {"head_name": "score"}),
    ("tiny_gpt2", "[P*4] {text} [HEAD:label]", {"head_name": "score", "head_input": HeadInput.MEAN}),
    ("tiny_bert", "[P*4] {text} [HEAD:label]", {"head_name": "classifier"}),
    ("tiny_bert", "[P*4] {text} [HEAD:label]", {"head_name": "classifier", "head_input": HeadInput.MEAN}),
    ("tiny_bert_lm", "[P*4] {text} It was [MASK:label] .", {"answers": {"negative": "bad", "positive": "great"}}),
]
MakeDeep = Callable[..., TrainedPrompt]


@pytest.fixture
def make_deep(make_trained) -> MakeDeep:
    """As `make_trained`, with something that each of two layers adds."""

    def make(*args: Any, **options: Any) -> TrainedPrompt:
        trained = make_trained(*args, **options)
        torch.manual_seed(3)
        if "score.weight" in trained.head and not trained.head_input.is_models:
            trained.head["score.bias"] = torch.randn(2)
        return replace(trained, deep=torch.randn(2, len(trained.prompt_embeddings), 32))

    return make


@torch.no_grad()
def scores_of(folder: Path) -> torch.Tensor:
    """Of an adapter by the inference's own way, `[2, C]`."""
    adapter = LoadedAdapter(folder)
    key = adapter.base_key
    own = load_base_model(key.id, target=key.target, num_labels=key.num_labels, device="cpu", precision="fp32")
    base = with_head_input(own, key.head_input)
    model = prompted_model(adapter, base)
    put_head_on(base, adapter.trained.head)
    prompt = adapter.trained.prompt
    return model.scores(model.make_rows([{"text": text} for text in TEXTS]), prompt, model.prefix(prompt))


@pytest.mark.parametrize(("base", "template", "options"), DEEP)
def test_saved_is_loaded_and_the_loader_says_the_same(base, template, options, make_deep, tmp_path, request) -> None:
    trained = make_deep(request.getfixturevalue(base), template, **options)
    export_adapter(trained, tmp_path / "adapter", tmp_path / "adapter.zip")
    loaded = load_adapter(tmp_path / "adapter.zip")
    assert loaded.deep is not None and torch.equal(loaded.deep, trained.deep)
    assert torch.equal(loaded.prompt, trained.prompt) and loaded.head.keys() == trained.head.keys()
    config = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    sidecar = json.loads((tmp_path / "adapter" / "ptune.json").read_text())
    assert (config["peft_type"], sidecar["prompt_depth"]) == ("PTUNE_TEMPLATE", "all")
    expected, alone = scores_of(tmp_path / "adapter"), Adapter(tmp_path / "adapter")
    found = torch.stack([alone.logits({"text": text}) for text in TEXTS])
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
    save_adapter(replace(trained, deep=None), tmp_path / "input")
    assert "prompt_depth" not in json.loads((tmp_path / "input" / "ptune.json").read_text())
    assert (scores_of(tmp_path / "input") - expected).abs().max() > 1e-2


@torch.no_grad()
@pytest.mark.parametrize("base", ["tiny_gpt2", "tiny_llama"])
def test_the_loader_writes_the_same_text(base, make_deep, tmp_path, request) -> None:
    folder = request.getfixturevalue(base)
    trained = make_deep(folder, "[P*4] {text}[ANSWER:answer]", answers={})
    export_adapter(trained, tmp_path / "adapter", tmp_path / "adapter.zip")
    own = load_base_model(str(folder), target=TargetKind.ANSWER, device="cpu", precision="fp32")
    model = prompted_model(LoadedAdapter(tmp_path / "adapter"), own)
    text = complete(model, model.rows.row({"text": TEXTS[0]}), trained.prompt, Sampling(max_new_tokens=8))
    assert Adapter(tmp_path / "adapter").generate({"text": TEXTS[0]}, max_new_tokens=8) == text != ""


@pytest.mark.parametrize(("base", "template", "options"), DEEP[:3])
def test_a_decoders_keys_and_values_are_all_of_it_in_stock_peft(
    base, template, options, make_deep, tmp_path, request
) -> None:
    folder = request.getfixturevalue(base)
    trained = make_deep(folder, template, **options)
    export_adapter(trained, tmp_path / "adapter", tmp_path / "adapter.zip")
    export_prefix(load_adapter(tmp_path / "adapter"), tmp_path / "prefix.zip")
    with zipfile.ZipFile(tmp_path / "prefix.zip") as archive:
        archive.extractall(tmp_path / "prefix")
    is_head = "HEAD" in template
    auto_class: Any = AutoModelForSequenceClassification if is_head else AutoModelForCausalLM
    model = auto_class.from_pretrained(folder, dtype=torch.float32, **({"num_labels": 2} if is_head else {}))
    peft = PeftModel.from_pretrained(model, str(tmp_path / "prefix")).eval()
    tokenizer, alone = AutoTokenizer.from_pretrained(folder), Adapter(tmp_path / "adapter")
    for text, expected in zip(TEXTS, scores_of(tmp_path / "adapter"), strict=True):
        ids = [number for number in alone.rows.ids({"text": text}) if number >= 0]
        assert tokenizer.decode(ids).strip() == text
        with torch.no_grad():
            logits = peft(input_ids=torch.tensor([ids]), attention_mask=torch.ones(1, len(ids))).logits[0].float()
        found = logits if is_head else logits[-1, [ids[0] for ids in alone.answer_ids]]
        torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


def test_stock_peft_refuses_it(tiny_gpt2, make_deep, tmp_path) -> None:
    save_adapter(make_deep(tiny_gpt2), tmp_path / "adapter")
    model = AutoModelForCausalLM.from_pretrained(tiny_gpt2)
    with pytest.raises(KeyError, match="PTUNE_TEMPLATE"):
        PeftModel.from_pretrained(model, str(tmp_path / "adapter"))


def test_card_and_script_say_why_and_where_to_go(tiny_gpt2, tiny_bert, make_deep) -> None:
    decoder = make_deep(tiny_gpt2)
    assert "before each of 2 layers for" in model_card(decoder)
    assert "--format prefix" in model_card(decoder) and "before each layer" in model_card(decoder)
    assert "from ptune_loader import Adapter" in snippet(decoder) and "add to every layer" in snippet(decoder)
    encoder = make_deep(tiny_bert, "[P*4] {text} [HEAD:label]", head_name="classifier")
    assert "--format prefix" not in model_card(encoder) and "and a classification head of 66" in model_card(encoder)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda tensors, sidecar: tensors.pop("ptune.deep"), "'ptune.deep' is missing"),
        (lambda tensors, sidecar: sidecar.pop("prompt_depth"), "does not fit the place"),
        (lambda tensors, sidecar: tensors.update({"ptune.deep": torch.zeros(2, 5, 32)}), "shape"),
        (lambda tensors, sidecar: tensors.update({"ptune.deep": torch.zeros(2, 4, 31)}), "shape"),
        (lambda tensors, sidecar: tensors["ptune.deep"].fill_(torch.nan), "not finite"),
        (lambda tensors, sidecar: sidecar.update({"prompt_depth": "some"}), "prompt_depth"),
    ],
)
def test_what_contradicts_itself_is_not_loaded(change, told, tiny_gpt2, make_deep, tmp_path) -> None:
    save_adapter(make_deep(tiny_gpt2), tmp_path / "adapter")
    tensors = safetensors.torch.load_file(tmp_path / "adapter" / "adapter_model.safetensors")
    sidecar = json.loads((tmp_path / "adapter" / "ptune.json").read_text())
    change(tensors, sidecar)
    safetensors.torch.save_file(tensors, tmp_path / "adapter" / "adapter_model.safetensors", {"format": "pt"})
    (tmp_path / "adapter" / "ptune.json").write_text(json.dumps(sidecar))
    with pytest.raises(AdapterError, match=told):
        load_adapter(tmp_path / "adapter")


def test_another_number_of_layers_is_refused_by_the_base_model(tiny_gpt2, make_trained, tmp_path) -> None:
    save_adapter(replace(make_trained(tiny_gpt2), deep=torch.ones(3, 4, 32)), tmp_path / "adapter")
    with pytest.raises(AdapterError, match="2 layers"):
        scores_of(tmp_path / "adapter")


def test_forms_that_would_lose_what_layers_add_are_refused(tiny_gpt2, tiny_bert, make_deep, tmp_path) -> None:
    trained = make_deep(tiny_gpt2)
    save_adapter(trained, tmp_path / "adapter")
    with pytest.raises(AdapterError, match="add to every layer"):
        export_vocabulary(trained, tmp_path / "vocabulary.zip")
    with pytest.raises(AdapterError, match="add to every layer"):
        read_vectors(tmp_path / "adapter", parse_template(trained.template), 32)
    with pytest.raises(AdapterError, match=r"ptune\.deep"):
        load_module(AutoModelForCausalLM.from_pretrained(tiny_gpt2), tmp_path / "adapter")
    encoder = make_deep(tiny_bert, "[P*4] {text} [HEAD:label]", head_name="classifier")
    by_mean = make_deep(tiny_bert, "[P*4] {text} [HEAD:label]", head_name="classifier", head_input=HeadInput.MEAN)
    with pytest.raises(AdapterError, match="add to every layer"):
        export_sentence_transformers(by_mean, tmp_path / "sentence.zip")
    with pytest.raises(AdapterError, match="reads in both directions"):
        export_prefix(encoder, tmp_path / "prefix.zip")
    with pytest.raises(PTuneError, match="in front"):
        save_adapter(replace(trained, template="{text} [P*4][ANSWER:label]"), tmp_path / "elsewhere")


def test_an_adopted_adapter_keeps_its_layers(tiny_gpt2, make_deep, tmp_path) -> None:
    trained = make_deep(tiny_gpt2)
    save_adapter(trained, tmp_path / "adapter")
    adopt(tmp_path / "adapter", tmp_path / "own", {})
    assert torch.equal(load_adapter(tmp_path / "own" / "adapter").prompt, trained.prompt)
