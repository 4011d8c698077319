"""A front prompt as keys and values: in stock PEFT the same as the P-tuning adapter, or refused with a reason."""

from __future__ import annotations

import json
import re
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel, PrefixTuningConfig
from torch import Tensor
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    DeepseekV3Config,
    DeepseekV3ForCausalLM,
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    MistralConfig,
    MistralForCausalLM,
)

from ptune_core.adapters.format import save_adapter
from ptune_core.adapters.prefix import export_prefix
from ptune_core.adapters.ptune_loader import Adapter
from ptune_core.errors import AdapterError

# PEFT 0.21.2 asks transformers 5 for attributes by their old names.
pytestmark = [
    pytest.mark.filterwarnings("ignore:.*is deprecated and will be removed in v6:FutureWarning"),
    pytest.mark.filterwarnings("ignore:Position ids are not supported:UserWarning"),
]

TEXTS = ("the film was great", "a terrible , boring waste of time ; the food was bad .")
SMALL: dict[str, Any] = {
    "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 64, "initializer_range": 0.4,
}  # fmt: skip


def unzipped(archive: Path, folder: Path) -> Path:
    with zipfile.ZipFile(archive) as opened:
        opened.extractall(folder)
    return folder


def in_peft(base: Path, adapter: Path, auto_class: Any = AutoModelForCausalLM, **options: Any) -> Any:
    model = auto_class.from_pretrained(base, dtype=torch.float32, **options)
    return PeftModel.from_pretrained(model, str(adapter)).eval()


def batch(base: Path) -> dict[str, Tensor]:
    """Two texts, padded on the right."""
    tokenizer = AutoTokenizer.from_pretrained(base)
    return tokenizer(list(TEXTS), return_tensors="pt", padding=True, return_token_type_ids=False)


def card_of(folder: Path) -> str:
    return (folder / "README.md").read_text(encoding="utf-8")


def sliding(family: str, tokenizer: Path, folder: Path) -> Path:
    """A base model whose layers see four positions, or some of them do."""
    AutoTokenizer.from_pretrained(tokenizer).save_pretrained(folder)
    vocabulary = len(AutoTokenizer.from_pretrained(tokenizer))
    torch.manual_seed(5)
    if family == "mistral":
        model: Any = MistralForCausalLM(MistralConfig(vocab_size=vocabulary, sliding_window=4, **SMALL))
    else:
        config = Gemma3TextConfig(
            vocab_size=vocabulary, sliding_window=4, head_dim=8, query_pre_attn_scalar=8,
            layer_types=["sliding_attention", "full_attention"], **SMALL,
        )  # fmt: skip
        model = Gemma3ForCausalLM(config)
    model.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("base", ["tiny_gpt2", "tiny_llama", "mistral", "gemma3"])
def test_the_same_logits_and_texts_as_the_prompt_in_stock_peft(base, make_trained, tmp_path, request) -> None:
    if base.startswith("tiny"):
        folder = request.getfixturevalue(base)
    else:
        folder = sliding(base, request.getfixturevalue("tiny_llama"), tmp_path / "base")
    trained = make_trained(folder, "[P*6] {text}[ANSWER:label]", answers={})
    save_adapter(trained, tmp_path / "prompt")
    export_prefix(trained, tmp_path / "prefix.zip")
    prompt = in_peft(folder, tmp_path / "prompt")
    prefix = in_peft(folder, unzipped(tmp_path / "prefix.zip", tmp_path / "prefix"))
    inputs = batch(folder)
    with torch.no_grad():
        expected, found = prompt(**inputs).logits[:, 6:], prefix(**inputs).logits
    real = inputs["attention_mask"].bool()
    assert expected.std() > 0.1
    torch.testing.assert_close(found[real], expected[real], atol=1e-4, rtol=1e-4)
    for text in TEXTS:
        one = AutoTokenizer.from_pretrained(folder)(text, return_tensors="pt", return_token_type_ids=False)
        texts = [
            model.generate(**one, max_new_tokens=12, do_sample=False, pad_token_id=1) for model in (prompt, prefix)
        ]
        assert texts[0].tolist() == texts[1].tolist()


@pytest.mark.parametrize("base", ["tiny_gpt2", "tiny_llama"])
def test_a_head_comes_along(base, make_trained, tmp_path, request) -> None:
    folder = request.getfixturevalue(base)
    trained = make_trained(folder, "[P*4] {text} [HEAD:label]", head_name="score", answers={"a": "", "b": "", "c": ""})
    save_adapter(trained, tmp_path / "prompt")
    export_prefix(trained, tmp_path / "prefix.zip")
    options = {"auto_class": AutoModelForSequenceClassification, "num_labels": 3}
    prompt = in_peft(folder, tmp_path / "prompt", **options)
    prefix = in_peft(folder, unzipped(tmp_path / "prefix.zip", tmp_path / "prefix"), **options)
    for text in TEXTS:
        one = AutoTokenizer.from_pretrained(folder)(text, return_tensors="pt", return_token_type_ids=False)
        with torch.no_grad():
            torch.testing.assert_close(prefix(**one).logits, prompt(**one).logits, atol=1e-4, rtol=1e-4)


def test_its_config_is_one_of_peft(tiny_llama, make_trained, tmp_path) -> None:
    export_prefix(make_trained(tiny_llama), tmp_path / "prefix.zip")
    folder = unzipped(tmp_path / "prefix.zip", tmp_path / "prefix")
    assert sorted(path.name for path in folder.iterdir()) == [
        "README.md", "adapter_config.json", "adapter_model.safetensors",
    ]  # fmt: skip
    written = json.loads((folder / "adapter_config.json").read_text())
    config = PrefixTuningConfig.from_pretrained(str(folder))
    assert written.keys() == config.to_dict().keys() - {"init_weights"}
    assert (config.num_layers, config.num_attention_heads, config.token_dim) == (2, 2, 16)
    assert config.base_model_name_or_path == str(tiny_llama)


def test_the_card_says_what_it_is_and_its_lines_run(tiny_llama, make_trained, tmp_path, capsys, monkeypatch) -> None:
    trained = make_trained(tiny_llama, "[P*4] Review: {text|strip}[ANSWER:label]")
    save_adapter(trained, tmp_path / "prompt")
    export_prefix(trained, tmp_path / "prefix.zip")
    folder = unzipped(tmp_path / "prefix.zip", tmp_path / "prefix")
    monkeypatch.chdir(folder)
    [lines] = re.findall(r"```python\n(.*?)```", card_of(folder), re.DOTALL)
    capsys.readouterr()
    exec(lines, {})
    printed = json.loads(capsys.readouterr().out.replace("'", '"'))
    expected = Adapter(tmp_path / "prompt").classify({"text": "Write a text here."})
    assert printed == pytest.approx(expected, abs=1e-4)
    assert "PREFIX_TUNING" in card_of(folder) and "Review: {text|strip}" in card_of(folder)
    assert str(tiny_llama) not in card_of(folder)


@pytest.mark.parametrize(
    ("base", "template", "head_name", "told"),
    [
        ("tiny_gpt2", "{text} [P*4][ANSWER:label]", None, "stands before everything else"),
        ("tiny_bert", "[P*4] {text} [HEAD:label]", "classifier", "reads in both directions"),
    ],
)
def test_what_keys_and_values_cannot_say_is_refused(
    base, template, head_name, told, make_trained, tmp_path, request
) -> None:
    trained = make_trained(request.getfixturevalue(base), template, head_name=head_name)
    with pytest.raises(AdapterError, match=told):
        export_prefix(trained, tmp_path / "prefix.zip")
    assert list(tmp_path.iterdir()) == []


def test_layers_that_keep_keys_and_values_of_other_sizes_are_refused(tiny_llama, make_trained, tmp_path) -> None:
    AutoTokenizer.from_pretrained(tiny_llama).save_pretrained(tmp_path / "base")
    vocabulary = len(AutoTokenizer.from_pretrained(tiny_llama))
    config = DeepseekV3Config(
        vocab_size=vocabulary, first_k_dense_replace=2, q_lora_rank=None, kv_lora_rank=8, qk_nope_head_dim=8,
        qk_rope_head_dim=4, v_head_dim=8, **{**SMALL, "num_key_value_heads": 4},
    )  # fmt: skip
    DeepseekV3ForCausalLM(config).save_pretrained(tmp_path / "base")
    with pytest.raises(AdapterError, match="keys and values of one shape"):
        export_prefix(make_trained(tmp_path / "base", answers={}), tmp_path / "prefix.zip")


def test_an_adapter_without_or_with_another_base_model_is_refused(tiny_gpt2, make_trained, tmp_path) -> None:
    with pytest.raises(AdapterError, match="which base model"):
        export_prefix(make_trained(""), tmp_path / "prefix.zip")
    with pytest.raises(AdapterError, match="size 32"):
        export_prefix(make_trained(tiny_gpt2, hidden=16), tmp_path / "prefix.zip")
