"""An adapter comes back as it was written, and what cannot come back is not written."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from ptune_core.adapters import format
from ptune_core.adapters.format import load_adapter, save_adapter
from ptune_core.errors import AdapterError
from ptune_core.model.trained import TrainedPrompt
from ptune_core.prompt.config import PromptEncoderConfig
from ptune_core.prompt.init import Prompt
from ptune_core.prompt.kinds import EncoderKind
from ptune_core.prompt.template import Literal, parse_template

KINDS = list(EncoderKind)
TEMPLATES = (
    "[P*4] {text}[ANSWER:label]",
    "{text~} [P*8][ANSWER:label]",
    '[P*2:task] {a|strip_punct|lower_first}? [SEP] {b~} [P:task] yes {{or}} no: [P*3="a hint"][ANSWER:label]',
)


def assert_same(found: TrainedPrompt, expected: TrainedPrompt) -> None:
    for name in ("head", "encoder_state"):
        assert getattr(found, name).keys() == getattr(expected, name).keys()
        assert all(torch.equal(tensor, getattr(expected, name)[key]) for key, tensor in getattr(found, name).items())
    assert torch.equal(found.prompt_embeddings, expected.prompt_embeddings)
    plain = ["template", "verbalizer", "labels", "columns", "base_model", "revision", "max_length", "metrics"]
    plain += ["settings", "precision"]
    assert {name: getattr(found, name) for name in plain} == {name: getattr(expected, name) for name in plain}


@pytest.mark.parametrize("encoder", KINDS)
@pytest.mark.parametrize("template", TEMPLATES)
def test_everything_comes_back(template, encoder, make_trained, tmp_path) -> None:
    trained = make_trained("some/model", template, encoder=encoder, revision="main", precision="bf16")
    save_adapter(trained, tmp_path)
    loaded = load_adapter(tmp_path)
    assert_same(loaded, trained)
    assert loaded.segments == parse_template(template).segments
    assert loaded.prompt_config.encoder_reparameterization_type == encoder
    assert list(loaded.verbalizer) == list(loaded.labels)


@pytest.mark.parametrize("encoder", KINDS)
def test_training_can_go_on_from_an_adapter(encoder, make_trained, tmp_path) -> None:
    trained = make_trained("some/model", encoder=encoder)
    save_adapter(trained, tmp_path)
    loaded = load_adapter(tmp_path)
    prompt = Prompt(loaded.prompt_config, loaded.encoder_state["start"])
    prompt.load_state_dict(loaded.encoder_state)
    torch.testing.assert_close(prompt(), trained.prompt_embeddings)


def test_an_adapter_that_is_written_again_keeps_its_kind(make_trained, tmp_path) -> None:
    save_adapter(make_trained("some/model", encoder="none", encoder_state={}), tmp_path / "first")
    save_adapter(load_adapter(tmp_path / "first"), tmp_path / "again")
    assert load_adapter(tmp_path / "again").prompt_config.encoder_reparameterization_type == "none"
    assert json.loads((tmp_path / "again" / "ptune.json").read_text())["encoder"] == "none"


def test_an_adapter_without_encoder_state_says_so(make_trained, tmp_path) -> None:
    """Bug: the encoder of the adapter that was there before was taken for the new one's."""
    save_adapter(make_trained("some/model"), tmp_path)
    save_adapter(make_trained("some/model", encoder_state={}), tmp_path)
    loaded = load_adapter(tmp_path)
    assert loaded.encoder_state == {}
    assert loaded.prompt_config.inference_mode


def test_an_encoder_too_large_to_download_is_left_out(make_trained, tmp_path, monkeypatch) -> None:
    monkeypatch.setitem(format.FILE_LIMITS, format.ENCODER_FILE, 2**20 + 100)
    save_adapter(make_trained("some/model"), tmp_path)
    assert load_adapter(tmp_path).encoder_state == {}


def test_free_text_has_no_labels(make_trained, tmp_path) -> None:
    save_adapter(make_trained("some/model", answers={}), tmp_path)
    loaded = load_adapter(tmp_path)
    assert (loaded.verbalizer, loaded.labels) == (None, ())


@pytest.mark.parametrize("template", ["[P*4] {text} [HEAD:label]", "{text} [P*4] [HEAD:label]"])
@pytest.mark.parametrize("layout", ["score", "classifier", "roberta"])
def test_heads_come_back(template, layout, make_trained, tmp_path) -> None:
    trained = make_trained("some/model", template, head_name="classifier" if layout == "roberta" else layout)
    if layout == "roberta":
        head = {
            "classifier.dense.weight": torch.randn(32, 32), "classifier.dense.bias": torch.randn(32),
            "classifier.out_proj.weight": torch.randn(2, 32), "classifier.out_proj.bias": torch.randn(2),
        }  # fmt: skip
        trained = replace(trained, head=head)
    save_adapter(trained, tmp_path)
    assert_same(load_adapter(tmp_path), trained)


def test_low_precision_tensors_are_written_as_fp32(make_trained, tmp_path) -> None:
    trained = make_trained("some/model", "[P*4] {text} [HEAD:label]", head_name="score")
    half = {name: tensor.bfloat16() for name, tensor in trained.head.items()}
    save_adapter(replace(trained, head=half), tmp_path)
    loaded = load_adapter(tmp_path)
    assert loaded.head["score.weight"].dtype == torch.float32
    assert torch.equal(loaded.head["score.weight"], half["score.weight"].float())


def test_a_chat_keeps_what_the_model_saw(make_trained, tmp_path) -> None:
    text = "system: You are brief. [P*4]\nuser: {text}\nassistant: [ANSWER:label]"
    expanded = parse_template(text).expand_chat(
        lambda messages: "".join(f"<|{m['role']}|>\n{m['content']}<|end|>\n" for m in messages)
    )
    trained = make_trained("some/model", text, answers={})
    with pytest.raises(AdapterError, match="where everything stands"):
        save_adapter(trained, tmp_path)
    save_adapter(replace(trained, segments=expanded.segments), tmp_path)
    loaded = load_adapter(tmp_path)
    assert loaded.segments == expanded.segments
    assert Literal("<|system|>\nYou are brief.") in loaded.segments
    assert json.loads((tmp_path / "ptune.json").read_text())["special_tokens"] is False


def test_an_initial_text_keeps_its_count(make_trained, tmp_path) -> None:
    text = '[P="Answer yes or no:"] {text} [P*2][ANSWER:label]'
    resolved = parse_template(text).resolve(lambda words: len(words.split()))
    trained = replace(make_trained("some/model", resolved.text), template=text)
    with pytest.raises(AdapterError, match="where everything stands"):
        save_adapter(trained, tmp_path)
    save_adapter(replace(trained, segments=resolved.segments), tmp_path)
    assert [group.count for group in load_adapter(tmp_path).segments if hasattr(group, "group")] == [4, 2]


def test_numbers_that_are_not_finite_do_not_cost_the_adapter(make_trained, tmp_path) -> None:
    metrics = {"value": float("nan"), "interval": (0.5, float("inf")), "labels": ["a"]}
    save_adapter(make_trained("some/model", metrics=metrics), tmp_path)
    assert load_adapter(tmp_path).metrics == {"value": None, "interval": [0.5, None], "labels": ["a"]}


def test_a_thousand_labels_fit(make_trained, tmp_path) -> None:
    """Their confusion matrix makes the sidecar large."""
    answers = {f"label {number}": f" {number}" for number in range(1000)}
    metrics = {"confusion": [[0] * 1000] * 1000}
    save_adapter(make_trained("some/model", answers=answers, metrics=metrics), tmp_path)
    assert load_adapter(tmp_path).labels == tuple(answers)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"prompt_embeddings": torch.full((4, 32), float("nan"))}, "not finite"),
        ({"prompt_embeddings": torch.zeros(5, 32)}, "does not fit the template"),
        ({"labels": ("negative", "other")}, "other labels"),
        ({"labels": ("negative", "negative")}, "twice"),
        ({"head": {"lm_head.weight": torch.zeros(2, 32)}}, "score"),
        ({"head": {"score.weight": torch.zeros(2, 32)}}, "does not belong here"),
        ({"template": "[P*4] {text} [HEAD:label]", "verbalizer": None}, "classification head"),
        ({"columns": {"txet": "text"}}, "columns"),
        ({"max_length": 0}, "max_length"),
        ({"prompt_embeddings": torch.zeros(2000, 32)}, "num_virtual_tokens"),
        ({"prompt_config": PromptEncoderConfig(token_dim=32, encoder_hidden_size=8)}, "encoder.mlp_head.0.weight"),
    ],
)
def test_what_would_not_load_is_an_error_when_it_is_written(change, problem, make_trained, tmp_path) -> None:
    with pytest.raises(AdapterError, match=problem):
        save_adapter(replace(make_trained("some/model"), **change), tmp_path)


def test_a_folder_that_cannot_be_written_is_an_adapter_error(make_trained, tmp_path: Path) -> None:
    occupied = tmp_path / "file"
    occupied.write_text("")
    with pytest.raises(AdapterError, match="cannot be written"):
        save_adapter(make_trained("some/model"), occupied)
