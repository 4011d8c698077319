"""Adapters with a front prompt in stock PEFT, PEFT's adapters here, and what PEFT must refuse."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel, PromptEncoderConfig, get_peft_model
from safetensors.torch import load_file
from torch import Tensor
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
)

from ptune_core.adapters.format import load_adapter, save_adapter
from ptune_core.model.base import load_base_model
from ptune_core.model.prompted import PromptedModel
from ptune_core.model.trained import TrainedPrompt
from ptune_core.prompt.template import TargetKind, parse_template
from ptune_core.prompt.verbalizer import Verbalizer

# PEFT 0.21.2 asks transformers 5 for attributes by their old names.
pytestmark = pytest.mark.filterwarnings("ignore:.*is deprecated and will be removed in v6:FutureWarning")

ENCODERS = ("MLP", "LSTM")
OWN = ("none", "paper-lama", "paper-few-shot")
"""Kinds of prompt encoder that PEFT does not have."""

DECODERS = ("tiny_gpt2", "tiny_llama")
HEADS = (("tiny_gpt2", "score"), ("tiny_llama", "score"), ("tiny_bert", "classifier"))
TEXTS = ("the film was great", "a terrible , boring waste of time ; the food was bad .")
PEFT_KEYS = {
    "auto_mapping", "base_model_name_or_path", "encoder_dropout", "encoder_hidden_size", "encoder_num_layers",
    "encoder_reparameterization_type", "inference_mode", "modules_to_save", "num_attention_heads", "num_layers",
    "num_transformer_submodules", "num_virtual_tokens", "peft_type", "peft_version", "revision", "task_type",
    "token_dim",
}  # fmt: skip


def causal(folder: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


def classifier(folder: Path, num_labels: int = 2) -> Any:
    return AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32, num_labels=num_labels).eval()


@torch.no_grad()
def by_hand(model: Any, ids: list[int], prompt_embeddings: Tensor) -> Tensor:
    """Logits of the base model with the prompt embeddings put in front, without PEFT or PTune."""
    text = model.get_input_embeddings()(torch.tensor([ids]))
    return model(inputs_embeds=torch.cat([prompt_embeddings[None], text], dim=1)).logits


@torch.no_grad()
def by_peft(model: Any, ids: list[int]) -> Tensor:
    return model(input_ids=torch.tensor([ids]), attention_mask=torch.ones(1, len(ids), dtype=torch.long)).logits


@torch.no_grad()
def by_ptune(folder: Path, trained: TrainedPrompt, text: str) -> Tensor:
    """`[C]` logits of PTune itself for a loaded adapter."""
    template = parse_template(trained.template)
    kind = template.target.kind
    base = load_base_model(str(folder), target=kind, num_labels=len(trained.labels), device="cpu", precision="fp32")
    if kind is TargetKind.HEAD:
        base.model.load_state_dict(trained.head, strict=False)
    verbalizer = Verbalizer(trained.verbalizer or {label: label for label in trained.labels})
    prompted = PromptedModel(base, template, verbalizer, max_length=trained.max_length)
    rows = prompted.make_rows([{"text": text}])
    return prompted.label_logits(prompted.label_batch(rows), trained.prompt_embeddings)[0]


@pytest.mark.parametrize("encoder", [*ENCODERS, *OWN])
@pytest.mark.parametrize("base", DECODERS)
def test_a_front_prompt_gives_the_same_logits_in_peft(base, encoder, make_trained, tmp_path, request) -> None:
    folder = request.getfixturevalue(base)
    trained = make_trained(folder, encoder=encoder)
    save_adapter(trained, tmp_path)
    peft_model = PeftModel.from_pretrained(causal(folder), str(tmp_path)).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    answer_ids = [tokenizer(answer)["input_ids"][0] for answer in trained.verbalizer.values()]
    for text in TEXTS:
        ids = tokenizer(text)["input_ids"]
        expected = by_hand(causal(folder), ids, trained.prompt_embeddings)
        found = by_peft(peft_model, ids)
        assert found.std() > 0.1
        torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
        ours = by_ptune(folder, load_adapter(tmp_path), text)
        torch.testing.assert_close(ours, found[0, -1, answer_ids], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("encoder", [*ENCODERS, *OWN])
@pytest.mark.parametrize(("base", "head_name"), HEADS)
def test_a_head_gives_the_same_logits_in_peft(base, head_name, encoder, make_trained, tmp_path, request) -> None:
    folder = request.getfixturevalue(base)
    answers = {"a": "", "b": "", "c": ""}
    trained = make_trained(folder, "[P*4] {text} [HEAD:label]", encoder=encoder, head_name=head_name, answers=answers)
    save_adapter(trained, tmp_path)
    peft_model = PeftModel.from_pretrained(classifier(folder, 3), str(tmp_path)).eval()
    own = classifier(folder, 3)
    own.load_state_dict(trained.head, strict=False)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    for text in TEXTS:
        ids = tokenizer(text)["input_ids"]
        found = by_peft(peft_model, ids)
        torch.testing.assert_close(found, by_hand(own, ids, trained.prompt_embeddings), atol=1e-4, rtol=1e-4)
        # Random heads give logits of tens, whose last digit depends on where torch's memory happens to begin.
        tolerance = 1e-5 * max(1.0, float(found.abs().max()))
        torch.testing.assert_close(by_ptune(folder, load_adapter(tmp_path), text), found[0], atol=tolerance, rtol=0)


@pytest.mark.parametrize("encoder", ENCODERS)
@pytest.mark.parametrize("base", ["tiny_t5", "tiny_bart"])
def test_encoder_decoders_agree_with_peft_both_ways(base, encoder, make_trained, tmp_path, request) -> None:
    folder = request.getfixturevalue(base)

    def plain() -> Any:
        return AutoModelForSeq2SeqLM.from_pretrained(folder, dtype=torch.float32).eval()

    trained = make_trained(folder, encoder=encoder, task_type="SEQ_2_SEQ_LM")
    save_adapter(trained, tmp_path / "ours")
    # PEFT keeps as many rows again for the decoder, and uses the encoder's alone.
    config = PromptEncoderConfig(
        task_type="SEQ_2_SEQ_LM", num_virtual_tokens=4, encoder_hidden_size=24, encoder_reparameterization_type=encoder
    )
    torch.manual_seed(3)
    get_peft_model(plain(), config).eval().save_pretrained(tmp_path / "theirs")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    for name in ("ours", "theirs"):
        peft_model = PeftModel.from_pretrained(plain(), str(tmp_path / name)).eval()
        loaded = load_adapter(tmp_path / name)
        assert loaded.prompt_embeddings.shape == (4, 32) and loaded.prompt_config.task_type == "SEQ_2_SEQ_LM"
        if not loaded.labels:
            loaded = replace(loaded, labels=trained.labels, verbalizer=trained.verbalizer, template=trained.template)
        model = PromptedModel(
            load_base_model(str(folder), target=TargetKind.ANSWER, device="cpu", precision="fp32"),
            parse_template(loaded.template), Verbalizer(loaded.verbalizer or {}),
        )  # fmt: skip
        for text in TEXTS:
            inputs = tokenizer(text, return_tensors="pt")
            start = torch.tensor([model.base.decoder_start_ids])
            with torch.no_grad():
                found = peft_model(
                    input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"], decoder_input_ids=start
                ).logits[0, -1, model.answer_ids]
                rows = model.make_rows([{"text": text}])
                ours = model.label_logits(model.label_batch(rows), loaded.prompt_embeddings)[0]
            torch.testing.assert_close(ours, found, atol=1e-4, rtol=1e-4)


def test_the_files_are_those_that_peft_writes(tiny_gpt2, make_trained, tmp_path) -> None:
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    save_adapter(make_trained(tiny_gpt2, "[P*4] {text} [HEAD:label]", head_name="score"), ours)
    config = PromptEncoderConfig(task_type="SEQ_CLS", num_virtual_tokens=4, encoder_hidden_size=16)
    get_peft_model(classifier(tiny_gpt2), config).save_pretrained(theirs)
    written = [json.loads((folder / "adapter_config.json").read_text()) for folder in (ours, theirs)]
    assert set(written[0]) == set(written[1]) == PEFT_KEYS
    same = PEFT_KEYS - {"modules_to_save", "num_attention_heads", "num_layers"}
    assert {key: written[0][key] for key in same} == {key: written[1][key] for key in same}
    tensors = [load_file(folder / "adapter_model.safetensors") for folder in (ours, theirs)]
    assert [sorted((k, t.shape, t.dtype) for k, t in found.items()) for found in tensors[:1]] == [
        sorted((k, t.shape, t.dtype) for k, t in found.items()) for found in tensors[1:]
    ]


@pytest.mark.parametrize(("encoder", "pefts"), [("none", "MLP"), ("paper-lama", "LSTM"), ("paper-few-shot", "LSTM")])
def test_the_config_names_an_encoder_that_peft_has(encoder, pefts, tiny_gpt2, make_trained, tmp_path) -> None:
    """PEFT builds nothing by the name, which is a known one for whatever else reads the file."""
    save_adapter(make_trained(tiny_gpt2, encoder=encoder), tmp_path)
    config = PromptEncoderConfig.from_pretrained(str(tmp_path))
    assert config.encoder_reparameterization_type == pefts
    assert set(json.loads((tmp_path / "adapter_config.json").read_text())) == PEFT_KEYS


@pytest.mark.parametrize("encoder", ENCODERS)
@pytest.mark.parametrize("base", DECODERS)
def test_pefts_causal_adapters_load_here(base, encoder, tmp_path, request) -> None:
    folder = request.getfixturevalue(base)
    config = PromptEncoderConfig(
        task_type="CAUSAL_LM", num_virtual_tokens=5, encoder_hidden_size=24, encoder_reparameterization_type=encoder
    )
    peft_model = get_peft_model(causal(folder), config).eval()
    peft_model.save_pretrained(tmp_path)
    loaded = load_adapter(tmp_path)
    assert (loaded.template, loaded.labels, loaded.base_model) == ("[P*5] {text}[ANSWER:answer]", (), str(folder))
    assert loaded.prompt_config.encoder_reparameterization_type == encoder
    assert loaded.encoder_state == {}
    ids = AutoTokenizer.from_pretrained(folder)(TEXTS[1])["input_ids"]
    found = by_hand(causal(folder), ids, loaded.prompt_embeddings)
    torch.testing.assert_close(found, by_peft(peft_model, ids), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("encoder", ENCODERS)
@pytest.mark.parametrize(("base", "head_name"), HEADS)
def test_pefts_classifiers_load_here(base, head_name, encoder, tmp_path, request) -> None:
    folder = request.getfixturevalue(base)
    config = PromptEncoderConfig(
        task_type="SEQ_CLS", num_virtual_tokens=5, encoder_hidden_size=24, encoder_reparameterization_type=encoder
    )
    torch.manual_seed(3)
    peft_model = get_peft_model(classifier(folder, 3), config).eval()
    peft_model.save_pretrained(tmp_path)
    loaded = load_adapter(tmp_path)
    assert loaded.labels == ("0", "1", "2")
    assert {name.split(".")[0] for name in loaded.head} == {head_name}
    ids = AutoTokenizer.from_pretrained(folder)(TEXTS[1])["input_ids"]
    found = by_ptune(folder, loaded, TEXTS[1])
    torch.testing.assert_close(found, by_peft(peft_model, ids)[0], atol=1e-4, rtol=1e-4)


def test_pefts_adapter_goes_through_here_unchanged(tiny_bert, tmp_path) -> None:
    config = PromptEncoderConfig(task_type="SEQ_CLS", num_virtual_tokens=5, encoder_hidden_size=24)
    theirs = get_peft_model(classifier(tiny_bert, 3), config).eval()
    theirs.save_pretrained(tmp_path / "theirs")
    save_adapter(load_adapter(tmp_path / "theirs"), tmp_path / "ours")
    again = PeftModel.from_pretrained(classifier(tiny_bert, 3), str(tmp_path / "ours")).eval()
    ids = AutoTokenizer.from_pretrained(tiny_bert)(TEXTS[0])["input_ids"]
    torch.testing.assert_close(by_peft(again, ids), by_peft(theirs, ids), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("template", ["{text} [P*4][ANSWER:label]", "[P*2] {text} [P*2][ANSWER:label]"])
def test_peft_refuses_a_prompt_that_is_not_in_front(template, tiny_gpt2, make_trained, tmp_path) -> None:
    save_adapter(make_trained(tiny_gpt2, template), tmp_path)
    with pytest.raises(KeyError, match="PTUNE_TEMPLATE"):
        PeftModel.from_pretrained(causal(tiny_gpt2), str(tmp_path))


def test_peft_refuses_it_even_under_the_name_of_a_front_prompt(tiny_gpt2, make_trained, tmp_path) -> None:
    save_adapter(make_trained(tiny_gpt2, "{text} [P*4][ANSWER:label]"), tmp_path)
    config_file = tmp_path / "adapter_config.json"
    config_file.write_text(config_file.read_text().replace("PTUNE_TEMPLATE", "P_TUNING"))
    with pytest.raises(KeyError, match="prompt_embeddings"):
        PeftModel.from_pretrained(causal(tiny_gpt2), str(tmp_path))
