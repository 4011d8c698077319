"""Kinds of prompt encoder and starts in whole trainings: step 0, what is exported, and what is refused or told."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ptune_core.data.ingest import ingest_text
from ptune_core.data.table import Table, Tables
from ptune_core.errors import SettingsError
from ptune_core.model.base import BaseModel, load_base_model
from ptune_core.prompt.init import Prompt
from ptune_core.prompt.kinds import EncoderKind
from ptune_core.prompt.template import TargetKind, parse_template
from ptune_core.prompt.verbalizer import Verbalizer
from ptune_core.training.preparation import (
    check_encoder_room,
    initial_prompt_embeddings,
    prompt_config,
    settings_warnings,
)
from ptune_core.training.session import estimate_run
from ptune_core.training.settings import RunSettings
from tests.training.recorder import ROWS, Recorder, settings_for

KINDS = list(EncoderKind)
ANSWERS = Verbalizer({"good": " great", "bad": " terrible boring"})
ADAPTER = {"mine": np.arange(96, dtype=np.float32).reshape(3, 32)}
TEMPLATE = "[P*2] {text} [P*5][ANSWER:label]"


@pytest.fixture
def table(tmp_path: Path) -> Table:
    return ingest_text(ROWS, tmp_path / "data")


@pytest.fixture
def base(tiny_gpt2: Path) -> BaseModel:
    return load_base_model(str(tiny_gpt2), target=TargetKind.ANSWER, device="cpu", precision="fp32")


def start_of(
    base: BaseModel, init: str, *, template: str = TEMPLATE, starts: Mapping[str, Any] = ADAPTER, **values: Any
) -> torch.Tensor | None:
    values = {"prompt_init_text": " great film", "prompt_init_adapter": "mine"} | values
    settings = settings_for(Path(base.id), prompt_init=init, template=template, **values)
    return initial_prompt_embeddings(settings, base, parse_template(template), verbalizer=ANSWERS, starts=starts)


def words(base: BaseModel, text: str) -> torch.Tensor:
    return base.embedding_weight[base.tokenizer(text)["input_ids"]]


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_trains_resumes_and_hands_over_what_its_state_gives(
    kind: str, tmp_path: Path, tiny_gpt2: Path, table: Table
) -> None:
    settings = settings_for(tiny_gpt2, encoder_reparameterization_type=kind, prompt_init="labels")
    whole, parts = Recorder(), Recorder()
    whole.train(settings, Tables(table), tmp_path / "whole")
    parts.train(settings, Tables(table), tmp_path / "parts", stop_at=4)
    parts.train(settings, Tables(table), tmp_path / "parts")
    assert [line["loss"] for line in parts.of("step")] == [line["loss"] for line in whole.of("step")]
    trained = parts.exported[-1]
    assert torch.equal(trained.prompt_embeddings, whole.exported[-1].prompt_embeddings)
    prompt = Prompt(trained.prompt_config, trained.encoder_state["start"])
    prompt.load_state_dict(trained.encoder_state)
    with torch.no_grad():  # an LSTM rounds in another way where it keeps gradients
        assert torch.equal(prompt.eval()(), trained.prompt_embeddings)


@pytest.mark.parametrize("kind", ["LSTM", "paper-lama", "paper-few-shot"])
@pytest.mark.parametrize("stop_at", [None, 4])
def test_dropout_is_off_in_what_is_saved(
    kind: str, stop_at: int | None, tmp_path: Path, tiny_gpt2: Path, table: Table
) -> None:
    """PEFT saves in whatever mode the model is, so that two saves of one state differ. Stopped at step 4, between two
    evaluations, the encoder is in train mode when the prompt is asked for."""
    recorder = Recorder()
    settings = settings_for(
        tiny_gpt2, encoder_reparameterization_type=kind, encoder_dropout=0.5, learning_rate=0.05, prompt_init="normal"
    )
    recorder.train(settings, Tables(table), tmp_path / "run", stop_at=stop_at)
    [trained] = recorder.exported
    prompt = Prompt(trained.prompt_config, trained.encoder_state["start"])
    prompt.load_state_dict(trained.encoder_state)
    with torch.no_grad():
        assert torch.equal(prompt.eval()(), trained.prompt_embeddings)
        for parameter in prompt.parameters():
            parameter.mul_(3)  # a few steps from zero the noise is small
        noise = (prompt.train()() - prompt.eval()()).abs().max()
    assert noise > 1e-4, "with dropout on it would have been another prompt"


def test_a_sweep_over_kinds_and_starts_shares_its_batches(tmp_path: Path, tiny_gpt2: Path, table: Table) -> None:
    recorder = Recorder()
    sweep = {"encoder_reparameterization_type": ["MLP", "LSTM", "none"], "prompt_init": ["labels", "adapter"]}
    settings = settings_for(tiny_gpt2, sweep=sweep, prompt_init_adapter="mine", halving=False)
    result = recorder.train(settings, Tables(table, starts=ADAPTER), tmp_path / "run")
    [training] = [line["trials"] for line in recorder.of("phase") if line["phase"] == "training"]
    assert training == [0, 1, 2, 3, 4, 5], "all pass through the base model together"
    assert len(result["sweep"]) == 6
    at_step_0 = {line["trial"]: line["loss"] for line in recorder.of("eval") if line["step"] == 0}
    assert at_step_0[0] == at_step_0[2] == at_step_0[4] and at_step_0[1] == at_step_0[3] == at_step_0[5]
    assert at_step_0[0] != at_step_0[1]
    after = {line["trial"]: line["loss"] for line in recorder.of("eval") if line["step"] == 6}
    assert len(set(after.values())) == 6


def test_labels_start_from_the_words_of_the_answers(base: BaseModel) -> None:
    start = start_of(base, "labels")
    assert start is not None and start.shape == (7, 32)
    torch.testing.assert_close(
        start[:2], torch.stack([words(base, answer).mean(0) for answer in ANSWERS.answers.values()])
    )
    drawn = (start[2:, None] == base.embedding_weight).all(-1).any(-1)
    assert drawn.all(), "the others are words of the vocabulary"


def test_a_text_runs_on_over_the_groups_and_a_groups_own_text_wins(base: BaseModel) -> None:
    template = '[P*2] {text} [P=" bad food"] so [P*5][ANSWER:label]'
    resolved = parse_template(template).resolve(lambda text: len(base.tokenizer(text)["input_ids"]))
    settings = settings_for(Path(base.id), prompt_init="text", prompt_init_text=" great film", template=template)
    start = initial_prompt_embeddings(settings, base, resolved)
    text, own = words(base, " great film"), words(base, " bad food")
    turns = [i % len(text) for i in range(7)]
    assert start is not None
    torch.testing.assert_close(start, torch.cat([text[turns[:2]], own, text[turns[2:]]]))


def test_an_adapter_is_repeated(base: BaseModel) -> None:
    start = start_of(base, "adapter")
    assert start is not None
    assert torch.equal(start, torch.from_numpy(ADAPTER["mine"])[[0, 1, 2, 0, 1, 2, 0]])


def test_noise_is_as_large_as_words_and_pefts_start_is_the_encoders(base: BaseModel) -> None:
    noise = start_of(base, "normal", template="[P*500] {text} [ANSWER:label]")
    assert noise is not None
    assert noise.std().item() == pytest.approx(base.embedding_weight.std().item(), rel=0.05)
    assert start_of(base, "random") is None


@pytest.mark.parametrize(
    ("values", "missing"),
    [
        ({"prompt_init": "text"}, "prompt_init_text"),
        ({"prompt_init": "text", "prompt_init_text": "  "}, "prompt_init_text"),
        ({"prompt_init": "adapter", "prompt_init_text": "x"}, "prompt_init_adapter"),
        ({"sweep": {"prompt_init": ["vocabulary", "adapter"]}}, "prompt_init_adapter"),
    ],
)
def test_a_start_that_is_not_said_is_refused_with_the_settings(values: dict[str, Any], missing: str) -> None:
    with pytest.raises(SettingsError, match=f"{missing} does not say which.*Give {missing}"):
        RunSettings.parse(values)


def test_a_sweep_may_bring_the_texts_itself() -> None:
    settings = RunSettings.parse({"prompt_init": "text", "sweep": {"prompt_init_text": ["a", "b"]}})
    assert [trial.prompt_init_text for trial in settings.trials] == ["a", "b"]


def test_a_text_without_tokens_is_refused(base: BaseModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """As tokenizers that drop what they do not know do with a text of such signs alone."""
    monkeypatch.setattr(type(base.tokenizer), "__call__", lambda *_, **__: {"input_ids": []})
    with pytest.raises(SettingsError, match="has no tokens.*another text"):
        start_of(base, "text")


def test_an_adapter_of_another_size_is_refused(base: BaseModel) -> None:
    with pytest.raises(SettingsError, match=r"size 48 in mine. Needed: size 32.*another prompt_init"):
        start_of(base, "adapter", starts={"mine": np.zeros((3, 48), np.float32)})


def test_free_text_has_no_labels_to_start_from(tmp_path: Path, tiny_gpt2: Path) -> None:
    rows = "text,answer\n" + "".join(f"dog {i},the dog is number {i}\n" for i in range(70))
    settings = settings_for(tiny_gpt2, template="{text} [P*4] so[ANSWER:answer]", prompt_init="labels")
    with pytest.raises(SettingsError, match="no labels.*'answer'.*such as vocabulary or text"):
        Recorder().train(settings, Tables(ingest_text(rows, tmp_path / "data")), tmp_path / "run")


def test_a_head_starts_from_the_names_of_its_labels(tmp_path: Path, tiny_bert: Path, table: Table) -> None:
    recorder = Recorder()
    settings = settings_for(tiny_bert, template="[P*4] {text} [HEAD:label]", prompt_init="labels", max_steps=1)
    recorder.train(settings, Tables(table), tmp_path / "run")
    base = load_base_model(str(tiny_bert), target=TargetKind.HEAD, num_labels=2, device="cpu", precision="fp32")
    ids = [base.tokenizer(name, add_special_tokens=False)["input_ids"] for name in ("bad", "good")]
    expected = torch.stack([base.embedding_weight[i].mean(0) for i in ids])
    torch.testing.assert_close(recorder.exported[0].encoder_state["start"][:2], expected)


def test_a_large_encoder_is_told_in_the_plan_and_by_an_estimate(
    tmp_path: Path, tiny_gpt2: Path, table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ptune_core.prompt.kinds.SMALL", 100_000)
    recorder = Recorder()
    sweep = {"encoder_reparameterization_type": ["none", "LSTM"]}
    settings = settings_for(tiny_gpt2, sweep=sweep, encoder_hidden_size=160, max_steps=1)
    recorder.train(settings, Tables(table), tmp_path / "run")
    [plan] = recorder.of("plan")
    [told] = [warning for warning in plan["warnings"] if "prompt encoder" in warning]
    assert "LSTM of width 160" in told and "Set encoder_hidden_size to " in told
    assert told in estimate_run(settings, Tables(table), tmp_path / "estimate").warnings


def test_what_is_given_and_not_used_is_told(base: BaseModel) -> None:
    settings = settings_for(Path(base.id), prompt_init_text="a text", prompt_init_adapter="mine", prompt_init="adapter")
    template = parse_template(settings.template)
    assert settings_warnings([settings], base, template) == [
        "prompt_init_text is given but not used: prompt_init is adapter, not text"
    ]


def test_an_encoder_that_does_not_fit_is_refused_before_it_is_made(
    base: BaseModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = settings_for(Path(base.id), encoder_reparameterization_type="LSTM", encoder_hidden_size=8192)
    config = prompt_config(settings, base, parse_template(settings.template))
    monkeypatch.setattr("ptune_core.training.preparation.free_memory", lambda: 2**30)
    with pytest.raises(
        SettingsError, match=r"LSTM of width 8192.*at most 1.0 GiB.*Set encoder_hidden_size to \d+, which"
    ):
        check_encoder_room(config, base)
