"""Deep prompts in whole trainings: what a step 0 is, what learns, resuming, sweeps, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from ptune_core.data.ingest import ingest_text
from ptune_core.data.table import Table, Tables
from ptune_core.errors import PTuneError, SettingsError
from ptune_core.model.base import load_base_model
from ptune_core.model.prompted import PromptedModel
from ptune_core.prompt.init import Prompt
from ptune_core.prompt.template import TargetKind, parse_template
from ptune_core.prompt.verbalizer import Verbalizer
from ptune_core.training.session import estimate_run
from ptune_core.training.settings import RunSettings
from ptune_core.training.snapshots import Snapshots
from tests.training.recorder import ROWS, Recorder
from tests.training.recorder import settings_for as usual_settings

KINDS = {"tiny_gpt2": "[P*4] {text}[ANSWER:label]", "tiny_bert": "[P*4] {text} [HEAD:label]"}


def settings_for(folder: Path, template: str, **changes: Any) -> RunSettings:
    reads = "mean" if "HEAD" in template else "auto"
    usual = {"template": template, "prompt_depth": "all", "head_input": reads, "head_start": "zero"}
    return usual_settings(folder, **(usual | changes))


@pytest.fixture
def table(tmp_path: Path) -> Table:
    return ingest_text(ROWS, tmp_path / "data")


@pytest.mark.parametrize("base", KINDS)
def test_step_0_is_that_of_the_input_alone_and_layers_learn(base, tmp_path, table, request) -> None:
    folder, template = request.getfixturevalue(base), KINDS[base]
    of_input, deep = Recorder(), Recorder()
    of_input.train(settings_for(folder, template, prompt_depth="input"), table, tmp_path / "input")
    result = deep.train(settings_for(folder, template), table, tmp_path / "deep")
    assert of_input.of("eval")[0]["loss"] == deep.of("eval")[0]["loss"]
    assert of_input.of("step")[0]["loss"] == deep.of("step")[0]["loss"]
    assert of_input.of("eval")[-1]["loss"] != deep.of("eval")[-1]["loss"]
    [trained] = deep.exported
    assert trained.deep is not None and trained.deep.shape == (2, 4, 32)
    learned = Snapshots(tmp_path / "deep").load_deep(6)
    assert learned is not None and (learned.flatten(1).norm(dim=1) > 0).all(), "every layer has learned"
    assert trained.prompt.shape == (12, 32)
    more = deep.of("plan")[0]["parameters"] - of_input.of("plan")[0]["parameters"]
    assert more == 2 * 4 * 32 and deep.of("plan")[0]["prompt_values"] == 3 * 4 * 32
    assert result["trained_values"] == deep.of("plan")[0]["parameters"]


@pytest.mark.parametrize("prompt", [{"template": '[P="Question : is the film"] {text}[ANSWER:label]'}, {
    "template": "[P*5] {text}[ANSWER:label]", "prompt_init": "text", "prompt_init_text": "Question : is the film",
}], ids=["in the template", "as a setting"])  # fmt: skip
def test_step_0_of_a_start_from_a_text_is_that_text(prompt, tmp_path, tiny_gpt2, table) -> None:
    settings = settings_for(tiny_gpt2, **prompt, max_steps=2)
    Recorder().train(settings, table, tmp_path / "run")
    snapshots = Snapshots(tmp_path / "run")
    first, deep = snapshots.load(0), snapshots.load_deep(0)
    assert deep is not None
    step_0 = torch.cat([first, deep.flatten(0, 1)])
    base = load_base_model(str(tiny_gpt2), target=TargetKind.ANSWER, device="cpu", precision="fp32")
    answers = Verbalizer({"good": " good", "bad": " bad"})
    model = PromptedModel(base, settings.parsed_template, answers)
    literal = PromptedModel(base, parse_template("Question : is the film{text}[P][ANSWER:label]"), answers)
    rows = [{"text": " great film 1"}, {"text": " bad food 2"}]
    assert model.num_virtual_tokens == len(base.tokenizer("Question : is the film")["input_ids"]) == 5
    expected = literal.scores(literal.make_rows(rows, prompted=False), None)
    torch.testing.assert_close(model.scores(model.make_rows(rows), step_0), expected, atol=1e-4, rtol=1e-4)


def test_an_estimate_counts_what_layers_learn(tmp_path, tiny_gpt2, table) -> None:
    found = [
        estimate_run(settings_for(tiny_gpt2, KINDS["tiny_gpt2"], prompt_depth=depth), Tables(table), tmp_path / depth)
        for depth in ("input", "all")
    ]
    assert found[1].trained - found[0].trained == 2 * 4 * 32
    assert (found[0].kept_bytes, found[1].kept_bytes) == (4 * 4 * 32, 4 * 3 * 4 * 32)


@pytest.mark.parametrize("base", KINDS)
def test_a_resumed_training_is_the_undisturbed_one(base, tmp_path, table, request) -> None:
    settings = settings_for(request.getfixturevalue(base), KINDS[base])
    whole, parts = Recorder(), Recorder()
    whole.train(settings, table, tmp_path / "whole")
    parts.train(settings, table, tmp_path / "parts", stop_at=4)
    parts.train(settings, table, tmp_path / "parts")
    assert [line["loss"] for line in parts.of("step")] == [line["loss"] for line in whole.of("step")]
    trained = parts.exported[-1]
    assert torch.equal(trained.prompt, whole.exported[-1].prompt)
    state = trained.encoder_state
    prompt = Prompt(trained.prompt_config, state["start"], state["hidden_lengths"])
    prompt.load_state_dict(state)
    with torch.no_grad():
        assert torch.equal(prompt.eval()(), trained.prompt)
    snapshots = Snapshots(tmp_path / "parts")
    assert snapshots.load(0).shape == (4, 32) and snapshots.load_deep(0).abs().max() == 0
    assert snapshots.load_deep(6).abs().max() > 0


def test_a_sweep_ranks_both_depths_and_each_is_as_if_alone(tmp_path, tiny_gpt2, table) -> None:
    template, swept = KINDS["tiny_gpt2"], Recorder()
    sweep = {"prompt_depth": ["input", "all"], "learning_rate": [0.003, 0.01]}
    result = swept.train(settings_for(tiny_gpt2, template, sweep=sweep, halving=False), table, tmp_path / "sweep")
    together = [line["trials"] for line in swept.of("phase") if line["phase"] == "training"]
    assert together == [[0, 1], [2, 3]], "one depth passes through the base model together"
    assert len(result["sweep"]) == 4
    assert {row["settings"]["prompt_depth"] for row in result["sweep"]} == {"input", "all"}
    alone = Recorder()
    alone.train(settings_for(tiny_gpt2, template, learning_rate=0.01), table, tmp_path / "alone")
    of_trial = [line["loss"] for line in swept.of("step") if line["trial"] == 3]
    assert of_trial == pytest.approx([line["loss"] for line in alone.of("step")], rel=1e-4)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"template": "{text} [P*4][ANSWER:label]"}, "in front of everything"),
        ({"template": "[P*2] {text} [P*2][ANSWER:label]"}, "in front of everything"),
        ({"base_weights": "tuned"}, "frozen base model only"),
        ({"sweep": {"template": ["{text} [P*4][ANSWER:label]"]}}, "in front of everything"),
    ],
)
def test_what_cannot_be_deep_is_refused_before_the_start(changes, told) -> None:
    values = {"template": KINDS["tiny_gpt2"], "prompt_depth": "all"}
    with pytest.raises(SettingsError, match=told):
        RunSettings.parse(values | changes)
    RunSettings.parse(values | changes | {"prompt_depth": "input"})


def test_a_sweep_of_front_templates_may_have_another_one_outside() -> None:
    RunSettings.parse({
        "template": "{text} [P*4][ANSWER:label]", "prompt_depth": "all", "sweep": {"template": [KINDS["tiny_gpt2"]]},
    })  # fmt: skip


def test_base_models_without_layers_for_it_are_refused(tmp_path, tiny_t5, table) -> None:
    with pytest.raises(PTuneError, match="encoder-decoder reads with layers of one kind"):
        Recorder().train(settings_for(tiny_t5, "[P*4] {text}[ANSWER:label]"), table, tmp_path / "run")
