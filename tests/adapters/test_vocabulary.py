"""Virtual tokens as tokens of the vocabulary: a text with them, through a plain model, is the row of training."""

from __future__ import annotations

import json
import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from torch import Tensor
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
)

from ptune_core.adapters.format import save_adapter, template_of
from ptune_core.adapters.prefix import export_prefix
from ptune_core.adapters.ptune_loader import Adapter
from ptune_core.adapters.row_text import find_row_text
from ptune_core.adapters.vocabulary import export_vocabulary
from ptune_core.data.batching import RowMaker
from ptune_core.errors import AdapterError
from ptune_core.model.base import load_base_model
from ptune_core.model.generation import Sampling, complete
from ptune_core.model.prompted import PromptedModel
from ptune_core.model.trained import TrainedPrompt
from ptune_core.prompt.template import TargetKind, parse_template

# PEFT 0.21.2 asks transformers 5 for attributes by their old names.
pytestmark = pytest.mark.filterwarnings("ignore:.*is deprecated and will be removed in v6:FutureWarning")

TEMPLATES = (
    "[P*4] {text}[ANSWER:label]",
    "{text} [P*3][ANSWER:label]",
    "[P*2:a] Review: {text|strip}. [P*3] It was [P*2:a][ANSWER:label]",
)
SMALL: dict[str, Any] = {
    "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 128, "initializer_range": 0.4,
}  # fmt: skip
TEXT = "Write a text here."
WORDS = ["the film was great and I loved it .", "Review It was a text. Write here", "terrible boring waste of time"] * 4

BaseOf = Callable[[str], Path]


@pytest.fixture
def base_of(tiny_gpt2: Path, tiny_llama: Path, tmp_path: Path) -> BaseOf:
    """Folder of a base model by what is special about it."""

    def make(kind: str) -> Path:
        if kind in ("tied", "untied"):
            return {"tied": tiny_gpt2, "untied": tiny_llama}[kind]
        folder = tmp_path / kind
        tokenizer: Any = AutoTokenizer.from_pretrained(tiny_llama)
        torch.manual_seed(6)
        if kind == "scaled":  # Gemma's word embedding multiplies by the root of its size
            config = Gemma3TextConfig(vocab_size=len(tokenizer), head_dim=8, query_pre_attn_scalar=8, **SMALL)
            model: Any = Gemma3ForCausalLM(config)
        elif kind == "spare rows":  # as Qwen has: more rows than tokens
            model = LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer) + 9, tie_word_embeddings=True, **SMALL))
            model.get_input_embeddings().weight.data[len(tokenizer) :] = 0
        else:
            tokenizer = word_boundaries(kind)
            model = LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer), **SMALL))
        tokenizer.save_pretrained(folder)
        model.save_pretrained(folder)
        return folder

    return make


def word_boundaries(prepend_scheme: str) -> PreTrainedTokenizerFast:
    """A tokenizer as Llama 2 has it: a boundary before each word, and a first special token."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=prepend_scheme, split=False)
    tokenizer.decoder = decoders.Metaspace(prepend_scheme=prepend_scheme)
    trainer = trainers.BpeTrainer(vocab_size=120, special_tokens=["<unk>", "<s>", "</s>"])
    tokenizer.train_from_iterator(WORDS, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", unk_token="<unk>")


def run_card(folder: Path, capsys: Any) -> tuple[dict[str, Any], str]:
    """Run all Python of the card in its folder: what it has named in the end, and what it printed."""
    text = (folder / "README.md").read_text(encoding="utf-8")
    names: dict[str, Any] = {}
    capsys.readouterr()
    exec("".join(re.findall(r"```python\n(.*?)```", text, re.DOTALL)), names)
    return names, capsys.readouterr().out


def exported(trained: TrainedPrompt, folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    export_vocabulary(trained, folder / "vocabulary.zip")
    with zipfile.ZipFile(folder / "vocabulary.zip") as archive:
        archive.extractall(folder / "vocabulary")
    return folder / "vocabulary"


@torch.no_grad()
def by_ptune(trained: TrainedPrompt) -> tuple[Tensor, str]:
    """Logits `[T, V]` of the row of `TEXT`, and the text that PTune writes after it."""
    base = load_base_model(trained.base_model, target=TargetKind.ANSWER, device="cpu", precision="fp32")
    prompted = PromptedModel(base, template_of(trained), None, max_length=trained.max_length)
    [row] = prompted.make_rows([{"text": TEXT}])
    logits = base.model(inputs_embeds=prompted.embed(row.ids, trained.prompt_embeddings)).logits[0]
    return logits, complete(prompted, row, trained.prompt_embeddings, Sampling(max_new_tokens=12))


@pytest.mark.parametrize(
    ("kind", "template"),
    [
        *(("tied", template) for template in TEMPLATES),
        ("untied", TEMPLATES[1]),
        ("scaled", TEMPLATES[2]),
        ("spare rows", TEMPLATES[1]),
        ("first", TEMPLATES[0]),
        ("first", TEMPLATES[2]),
        ("always", TEMPLATES[2]),
    ],
)
def test_a_text_with_the_new_tokens_is_the_row_of_training(
    kind, template, base_of, make_trained, tmp_path, capsys, monkeypatch
) -> None:
    trained = make_trained(base_of(kind), template, answers={}, settings={"max_new_tokens": 12})
    monkeypatch.chdir(exported(trained, tmp_path))
    names, printed = run_card(Path(), capsys)
    expected, written = by_ptune(trained)
    assert expected.std() > 0.1
    assert printed == written + "\n"
    plain = AutoModelForCausalLM.from_pretrained("whole", dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained("whole")
    inputs = tokenizer(names["text"], add_special_tokens=False, return_tensors="pt", return_token_type_ids=False)
    for model in (plain, names["model"]):
        with torch.no_grad():
            found = model(**inputs).logits[0, :, : expected.shape[1]]
        old = sorted(set(range(expected.shape[1])) - set(names["NEW"]))
        torch.testing.assert_close(found[:, old], expected[:, old], atol=1e-4, rtol=1e-4)
    generated = plain.generate(**inputs, max_new_tokens=12, do_sample=False)[0, inputs["input_ids"].shape[1] :]
    assert tokenizer.decode(generated, skip_special_tokens=True) == written


def test_new_tokens_are_never_written_even_where_they_score_best(base_of, make_trained, tmp_path, capsys, monkeypatch):
    trained = make_trained(base_of("tied"), TEMPLATES[1], answers={}, settings={"max_new_tokens": 12})
    trained.prompt_embeddings.mul_(30)
    monkeypatch.chdir(exported(trained, tmp_path))
    names, printed = run_card(Path(), capsys)
    plain = AutoModelForCausalLM.from_pretrained("whole", dtype=torch.float32).eval()
    with torch.no_grad():
        best = plain(**names["inputs"]).logits[0].argmax(-1)
    assert set(best.tolist()) & set(names["NEW"])
    assert printed == by_ptune(trained)[1] + "\n"
    generated = plain.generate(**names["inputs"], max_new_tokens=12, do_sample=False)[0]
    assert not set(generated[names["inputs"]["input_ids"].shape[1] :].tolist()) & set(names["NEW"])


def test_labels_have_the_probabilities_of_the_adapter(base_of, make_trained, tmp_path, capsys, monkeypatch) -> None:
    for number, precision in enumerate(("fp32", "bf16")):
        trained = make_trained(base_of("untied"), TEMPLATES[2], precision=precision)
        folder = exported(trained, tmp_path / str(number))
        save_adapter(trained, tmp_path / str(number) / "adapter")
        monkeypatch.chdir(folder)
        printed = json.loads(run_card(Path(), capsys)[1].replace("'", '"'))
        expected = Adapter(tmp_path / str(number) / "adapter").classify({"text": TEXT})
        assert printed == pytest.approx(expected, abs=1e-4 if precision == "fp32" else 1e-2)


def test_the_zip_holds_adapter_card_and_tokenizer(base_of, make_trained, tmp_path) -> None:
    folder = exported(make_trained(base_of("untied"), TEMPLATES[2]), tmp_path)
    assert {path.name for path in folder.iterdir()} == {
        "README.md", "adapter_config.json", "adapter_model.safetensors", "tokenizer.json", "tokenizer_config.json",
    }  # fmt: skip
    card = (folder / "README.md").read_text()
    a = "<|ptune_0|><|ptune_1|>"
    assert f"{a} Review: {{text|strip}}.<|ptune_2|><|ptune_3|><|ptune_4|> It was{a}" in card
    assert "suppress_tokens" in card


def test_what_tokens_cannot_say_is_refused(tiny_gpt2, base_of, make_trained, tmp_path) -> None:
    trained = make_trained(tiny_gpt2, "[P*4] {text} [HEAD:label]", head_name="score")
    with pytest.raises(AdapterError, match=r"a \[HEAD\] target.*\[ANSWER\]"):
        export_vocabulary(trained, tmp_path / "vocabulary.zip")
    taken = tmp_path / "taken"
    AutoModelForCausalLM.from_pretrained(tiny_gpt2).save_pretrained(taken)
    tokenizer = AutoTokenizer.from_pretrained(tiny_gpt2)
    tokenizer.add_tokens(["<|ptune_1|>"])
    tokenizer.save_pretrained(taken)
    with pytest.raises(AdapterError, match="has tokens of PTune already"):
        export_vocabulary(make_trained(taken, TEMPLATES[1]), tmp_path / "vocabulary.zip")
    assert not (tmp_path / "vocabulary.zip").exists()


@pytest.mark.parametrize("base", ["tiny_t5", "tiny_bart"])
def test_encoder_decoders_are_refused(base, make_trained, tmp_path, request) -> None:
    """The card's lines loaded them as decoders, which T5 cannot be and BART is without what it reads."""
    trained = make_trained(request.getfixturevalue(base), TEMPLATES[0], task_type="SEQ_2_SEQ_LM")
    with pytest.raises(AdapterError, match="an encoder-decoder"):
        export_vocabulary(trained, tmp_path / "vocabulary.zip")


@pytest.mark.parametrize("export", [export_prefix, export_vocabulary])
def test_answers_of_the_rows_are_refused(export, tiny_gpt2, make_trained, tmp_path) -> None:
    """They ended in a KeyError, and the card's lines would not compare them."""
    answers = {"0": " {choice1}", "1": " {choice2}"}
    trained = make_trained(tiny_gpt2, "[P*4] {text}[ANSWER:label]", answers=answers)
    with pytest.raises(AdapterError, match="answers from choice1, choice2"):
        export(trained, tmp_path / "converted.zip")


def test_a_tokenizer_that_makes_other_rows_of_the_text_is_refused(base_of) -> None:
    template = parse_template(TEMPLATES[1])
    rows = RowMaker(AutoTokenizer.from_pretrained(base_of("untied")), template, 48)
    with pytest.raises(AdapterError, match="the format peft"):
        find_row_text(rows, word_boundaries("always"), [""] * 3)
