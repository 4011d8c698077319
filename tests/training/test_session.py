"""A whole training on a tiny model: what is reported, kept and handed over."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from ptune_core.data.examples import SplitOptions, build_examples
from ptune_core.data.ingest import ingest_text
from ptune_core.data.table import Table
from ptune_core.errors import CheckpointError, DataError, SettingsError, TrainingDiverged
from ptune_core.model.base import load_base_model
from ptune_core.model.device import Device, Precision
from ptune_core.model.prompted import PromptedModel
from ptune_core.prompt.init import Prompt
from ptune_core.prompt.template import TargetKind, parse_template
from ptune_core.training.settings import RunSettings
from ptune_core.training.snapshots import Snapshots
from ptune_core.training.tasks import Batching, LabelTask
from tests.training.recorder import Recorder
from tests.training.recorder import settings_for as usual_settings

LABELLED = "text,label\n" + "".join(
    f"{text} {i},{label}\n"
    for i in range(12)
    for text, label in (("great film", "good"), ("bad food", "bad"), ("I loved it", "good"))
)
TO_GENERATE = "text,answer\n" + "".join(f"dog {i},the dog is number {i}\n" for i in range(30))


def settings_for(folder: Path, **changes: Any) -> RunSettings:
    usual = {"max_steps": 8, "eval_every": 4, "checkpoint_every": 3, "learning_rate": 0.01, "halving": False}
    return usual_settings(folder, **(usual | changes))


@pytest.fixture
def table(tmp_path: Path) -> Table:
    return ingest_text(LABELLED, tmp_path / "data")


@pytest.mark.parametrize(
    ("base", "template"),
    [("tiny_gpt2", "[P*4] {text} [ANSWER:label]"), ("tiny_llama", "It was {text} [P*2] and [P*2:x][ANSWER:label]"),
     ("tiny_gpt2", "{text} [P*4] [HEAD:label]"), ("tiny_bert", "[P*4] {text} [HEAD:label]")],
)  # fmt: skip
def test_a_classification_run(
    request: pytest.FixtureRequest, tmp_path: Path, table: Table, base: str, template: str
) -> None:
    recorder = Recorder()
    settings = settings_for(request.getfixturevalue(base), template=template)
    result = recorder.train(settings, table, tmp_path / "run")
    assert recorder.steps() == list(range(1, 9))
    assert [line["step"] for line in recorder.of("eval")] == [0, 4, 8]
    assert [line["phase"] for line in recorder.of("phase")] == [
        "loading data", "loading base model", "preparing", "training", "exporting",
    ]  # fmt: skip
    [baseline], [plan], [trained] = recorder.of("baseline"), recorder.of("plan"), recorder.exported
    assert plan["metric"] == "accuracy" and plan["data"] == "Using all 36 rows"
    ways = recorder.of("tokens")
    assert [line["step"] for line in ways] == [0, 4, 8] and ways[0]["numbers"] == (1, 2, 3, 4)
    assert max(ways[0]["moved"]) < 1e-4 < min(ways[-1]["moved"]), "they are measured from before the first step"
    best = max(recorder.of("eval"), key=lambda line: (line["value"], -line["loss"]))
    assert (result["value"], result["best_step"]) == (best["value"], best["step"])
    assert result["baseline_majority"] == baseline["majority"] == pytest.approx(2 / 3, abs=0.1)
    assert result["reason"] == "all steps done"
    assert trained.labels == ("bad", "good")
    assert trained.prompt_embeddings.shape == (4, 32) and trained.prompt_embeddings.dtype == torch.float32
    assert (trained.verbalizer is None) == bool(trained.head) == ("HEAD" in template)


def test_a_generation_run(tmp_path: Path, tiny_gpt2: Path) -> None:
    recorder = Recorder()
    settings = settings_for(tiny_gpt2, template="{text} [P*4] so[ANSWER:answer]", max_steps=16, eval_every=8)
    result = recorder.train(settings, ingest_text(TO_GENERATE, tmp_path / "data"), tmp_path / "run")
    assert result["metric"] == "loss" and result["value"] < recorder.of("baseline")[0]["zero_shot"]
    assert recorder.exported[0].verbalizer is None and recorder.exported[0].labels == ()
    assert recorder.of("sample")[-1]["rows"][0]["label"].startswith("the dog is number")


def test_step_zero_equals_the_text_the_prompt_starts_from(tmp_path: Path, tiny_gpt2: Path, table: Table) -> None:
    recorder = Recorder()
    settings = settings_for(tiny_gpt2, template='{text} [P=" Answer : great"][ANSWER:label]', max_steps=1)
    recorder.train(settings, table, tmp_path / "run")
    base = load_base_model(str(tiny_gpt2), target=TargetKind.ANSWER, device="cpu", precision="fp32")
    template = parse_template("{text} Answer : great [P][ANSWER:label]")
    examples = build_examples(
        table, template, columns={}, labels=None, split=SplitOptions(0.15, settings.max_validation_rows, settings.seed)
    )
    assert examples.verbalizer is not None
    words = PromptedModel(base, template, examples.verbalizer)
    same = LabelTask(words, examples.train, examples.validation, Batching(4, 4, 0), tmp_path)
    zero_shot = same.zero_shot
    assert zero_shot is not None
    assert recorder.of("eval")[0]["loss"] == pytest.approx(zero_shot.loss, abs=1e-4)


def test_stopped_and_resumed_equals_undisturbed(tmp_path: Path, tiny_gpt2: Path, table: Table) -> None:
    settings = settings_for(tiny_gpt2, encoder_reparameterization_type="LSTM", encoder_dropout=0.2)
    whole = Recorder()
    expected = whole.train(settings, table, tmp_path / "whole")
    parts = Recorder()
    stopped = parts.train(settings, table, tmp_path / "parts", stop_at=5)
    assert stopped["stopped"] and stopped["steps"] == 5 and len(parts.exported) == 1
    tokenised = list((tmp_path / "parts" / "tokens").glob("*.arrow"))
    result = parts.train(settings, table, tmp_path / "parts")
    assert parts.of("resume") == [{"kind": "resume", "step": 5}]
    assert torch.equal(parts.exported[-1].prompt_embeddings, whole.exported[-1].prompt_embeddings)
    assert [line["loss"] for line in parts.of("step")] == [line["loss"] for line in whole.of("step")]
    times = {"seconds": 0, "evaluation_share": 0}
    assert {**result, **times} == {**expected, **times}
    assert tokenised and not (tmp_path / "parts" / "tokens").exists(), "kept for a resume, not for ever"
    seen, resumed = (Snapshots(tmp_path / name).load_all() for name in ("whole", "parts"))
    assert list(seen) == list(resumed) == [0, 4, 8]
    assert all(torch.equal(seen[step], resumed[step]) for step in seen)


def test_a_checkpoint_of_other_data_is_refused(tmp_path: Path, tiny_gpt2: Path, table: Table) -> None:
    recorder = Recorder()
    recorder.train(settings_for(tiny_gpt2), table, tmp_path / "run", stop_at=2)
    other = ingest_text(LABELLED + "another film,good\n", tmp_path / "other")
    with pytest.raises(CheckpointError, match="other data"):
        recorder.train(settings_for(tiny_gpt2), other, tmp_path / "run")
    with pytest.raises(CheckpointError, match="other settings"):
        recorder.train(settings_for(tiny_gpt2, learning_rate=0.02), table, tmp_path / "run")


def test_a_run_that_diverges_keeps_its_best(
    tmp_path: Path, tiny_gpt2: Path, table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        Prompt, "forward", _diverging(Prompt.forward, after=6)
    )  # fmt: skip
    recorder = Recorder()
    with pytest.raises(TrainingDiverged, match="step"):
        recorder.train(settings_for(tiny_gpt2), table, tmp_path / "run")
    [trained] = recorder.exported
    assert torch.isfinite(trained.prompt_embeddings).all()


def _diverging(forward: Any, after: int) -> Any:
    calls = []

    def diverging(self: Prompt) -> torch.Tensor:
        calls.append(1)
        values: torch.Tensor = forward(self)
        return values * float("nan") if len(calls) == after and self.training else values

    return diverging


def test_one_class_is_refused_before_a_model_is_loaded(tmp_path: Path, tiny_gpt2: Path) -> None:
    recorder = Recorder()
    one = ingest_text("text,label\n" + "great film,good\nfine,good\n" * 5, tmp_path / "data")
    with pytest.raises(DataError):
        recorder.train(settings_for(tiny_gpt2, template="{text} [P*4] [HEAD:label]"), one, tmp_path / "run")
    assert [line["phase"] for line in recorder.of("phase")] == ["loading data"]


def test_a_sweep_trains_every_combination_and_ranks_them(tmp_path: Path, tiny_llama: Path, table: Table) -> None:
    recorder = Recorder()
    sweep = {"template": ["{text} [P*4][ANSWER:label]", "{text} [P*2][ANSWER:label]"], "learning_rate": [1e-6, 0.05]}
    result = recorder.train(settings_for(tiny_llama, sweep=sweep), table, tmp_path / "run")
    ranking = result["sweep"]
    assert sorted(row["trial"] for row in ranking) == [0, 1, 2, 3]
    assert [row["value"] for row in ranking] == sorted((row["value"] for row in ranking), reverse=True)
    assert ranking[0]["settings"]["learning_rate"] == 0.05, "next to no learning cannot be best"
    assert (result["value"], result["trial"]) == (ranking[0]["value"], ranking[0]["trial"])
    numbered = [tmp_path / "run" / "sweep" / f"{i:02d}" for i in (1, 2, 3, 4)]
    assert recorder.places == [*numbered, tmp_path / "run"], "all adapters are kept, and the best is the run's"
    best = recorder.exported[result["trial"]]
    assert torch.equal(recorder.exported[-1].prompt_embeddings, best.prompt_embeddings)
    [plan] = recorder.of("plan")
    assert plan["trials"] == 4


def test_a_trial_of_a_sweep_is_the_run_with_its_settings(tmp_path: Path, tiny_llama: Path, table: Table) -> None:
    together, alone = Recorder(), Recorder()
    together.train(settings_for(tiny_llama, sweep={"learning_rate": [0.01, 0.05]}), table, tmp_path / "sweep")
    alone.train(settings_for(tiny_llama, learning_rate=0.05), table, tmp_path / "run")
    losses = [line["loss"] for line in together.of("step") if line["trial"] == 1]
    assert losses == pytest.approx([line["loss"] for line in alone.of("step")], rel=1e-4)


def test_a_classification_head_starts_anew_in_every_trial(tmp_path: Path, tiny_gpt2: Path, table: Table) -> None:
    recorder = Recorder()
    settings = settings_for(tiny_gpt2, template="[P*4] {text} [HEAD:label]", sweep={"learning_rate": [0.05, 0.05]})
    recorder.train(settings, table, tmp_path / "run")
    first, second = ([line["loss"] for line in recorder.of("step") if line["trial"] == i] for i in (0, 1))
    assert first == second


def test_a_centered_head_resumes_exactly_and_is_exported_plain(tmp_path: Path, tiny_bert: Path, table: Table) -> None:
    """A head reads its inputs standardised (model/head.py); the adapter's weight and bias make up for it.

    Bug of this test: it held them to a fixed difference. What this base model's pooler tells apart is small, so plain
    weights and a bias of up to 10,000 nearly cancel; by how much depends on how the processor's sums round.
    """
    head = {"template": "[P*4] {text} [HEAD:label]", "head_input": "model"}
    settings = settings_for(tiny_bert, **head, learning_rate=0.1)
    whole, parts = Recorder(), Recorder()
    expected = whole.train(settings, table, tmp_path / "whole")
    parts.train(settings, table, tmp_path / "parts", stop_at=5)
    parts.train(settings, table, tmp_path / "parts")
    (trained,), resumed = whole.exported, parts.exported[-1]
    assert list(trained.head) == ["classifier.weight", "classifier.bias"]
    assert all(torch.equal(trained.head[name], resumed.head[name]) for name in trained.head)

    base = load_base_model(tiny_bert, target=TargetKind.HEAD, num_labels=2, device=Device.CPU, precision=Precision.FP32)
    base.model.load_state_dict(trained.head, strict=False)
    split = SplitOptions(settings.validation_fraction, settings.max_validation_rows, settings.seed)
    examples = build_examples(table, settings.parsed_template, columns={}, labels=None, split=split)
    model = PromptedModel(base, settings.parsed_template, examples.verbalizer)
    task = LabelTask(model, examples.train, examples.validation, Batching(4, 64, 0), tmp_path / "tokens")
    # A row's loss moves by at most twice what its scores are rounded by; what the head reads is between -1 and 1.
    scale = trained.head["classifier.weight"].abs().sum(dim=1) + trained.head["classifier.bias"].abs()
    rounding = 2 * float(scale.max()) * torch.finfo(torch.float32).eps
    assert task.evaluate(trained.prompt_embeddings).loss == pytest.approx(expected["loss"], abs=rounding)


def test_the_best_trial_is_exported_with_its_own_head(tmp_path: Path, tiny_gpt2: Path, table: Table) -> None:
    """Bug: all trials held the base model's head, which the last one had trained, and the best got that one."""
    recorder = Recorder()
    sweep = {"learning_rate": [0.05, 1e-5]}
    settings = settings_for(tiny_gpt2, template="[P*4] {text} [HEAD:label]", head_start="zero", sweep=sweep)
    result = recorder.train(settings, table, tmp_path / "run")
    first, second, best = (trained.head["score.weight"] for trained in recorder.exported)
    assert result["trial"] == 0 and not torch.equal(first, second)
    assert torch.equal(best, first)


def test_many_trials_pass_together_in_groups(
    tmp_path: Path, tiny_llama: Path, table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Memory for activations grows with the trials that share a batch."""
    monkeypatch.setattr("ptune_core.training.session.TOGETHER_AT_MOST", 2)
    recorder = Recorder()
    settings = settings_for(tiny_llama, sweep={"learning_rate": [0.01, 0.02, 0.03]}, max_steps=2, eval_every=2)
    result = recorder.train(settings, table, tmp_path / "run")
    training = [line["trials"] for line in recorder.of("phase") if line["phase"] == "training"]
    assert training == [[0, 1], [2]]
    assert sorted(row["trial"] for row in result["sweep"]) == [0, 1, 2]


def test_templates_that_use_different_rows_are_not_compared(tmp_path: Path, tiny_llama: Path) -> None:
    rows = "text,title,label\n" + "".join(
        f"film {i},{f'great {i}' if i % 3 else ''},{('good', 'bad')[i % 2]}\n" for i in range(30)
    )
    sweep = {"template": ["{text} [P*4][ANSWER:label]", "{title} [P*4][ANSWER:label]"]}
    recorder = Recorder()
    with pytest.raises(SettingsError, match="30 rows.*Using 20 of 30 rows"):
        recorder.train(settings_for(tiny_llama, sweep=sweep), ingest_text(rows, tmp_path / "data"), tmp_path / "run")
    assert [line["phase"] for line in recorder.of("phase")] == ["loading data"]


def test_a_stopped_sweep_goes_on(tmp_path: Path, tiny_llama: Path, table: Table) -> None:
    recorder = Recorder()
    settings = settings_for(tiny_llama, sweep={"learning_rate": [0.01, 0.05]})
    assert recorder.train(settings, table, tmp_path / "run", stop_at=5)["stopped"]
    result = recorder.train(settings, table, tmp_path / "run")
    assert not result["stopped"] and [row["steps"] for row in result["sweep"]] == [8, 8]
    assert [line["step"] for line in recorder.of("resume")] == [5, 5]


def test_one_trial_that_diverges_leaves_the_others_alone(
    tmp_path: Path, tiny_llama: Path, table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    losses = LabelTask.losses

    def second_is_nan(task: LabelTask, position: int, prompts: list[torch.Tensor]) -> list[tuple[torch.Tensor, int]]:
        scale = torch.tensor([1.0, float("nan")] if position > 1 and len(prompts) == 2 else [1.0] * len(prompts))
        return [(found * scale, targets) for found, targets in losses(task, position, prompts)]

    monkeypatch.setattr(LabelTask, "losses", second_is_nan)
    settings = settings_for(tiny_llama, sweep={"learning_rate": [0.01, 0.05]})
    result = Recorder().train(settings, table, tmp_path / "run")
    assert [row["error"] is None for row in sorted(result["sweep"], key=lambda row: row["trial"])] == [True, False]
    assert [row["steps"] for row in sorted(result["sweep"], key=lambda row: row["trial"])] == [8, 2]


@pytest.mark.parametrize(
    ("base", "template", "task_type"),
    [
        ("tiny_bert_lm", "{text~} [P*2] It was [MASK:label] [P*2] .", None),
        ("tiny_t5", "[P*4] {text~} [ANSWER:label]", "SEQ_2_SEQ_LM"),
        ("tiny_bart", "{text~} [P*4][ANSWER:label]", "SEQ_2_SEQ_LM"),
    ],
)
def test_masks_and_encoder_decoders_learn_and_resume_exactly(
    base: str, template: str, task_type: str | None, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    folder = request.getfixturevalue(base)
    table = ingest_text(LABELLED, tmp_path / "data")
    labels = {"good": "great", "bad": "bad"}
    settings = settings_for(folder, template=template, labels=labels, max_steps=12, patience=0)
    whole, broken = Recorder(), Recorder()
    result = whole.train(settings, table, tmp_path / "whole")
    losses = [line["loss"] for line in whole.of("eval")]
    assert result["metric"] == "accuracy" and min(losses) < losses[0]
    broken.train(settings, table, tmp_path / "broken", stop_at=7)
    broken.train(settings, table, tmp_path / "broken")
    assert torch.equal(broken.exported[-1].prompt_embeddings, whole.exported[-1].prompt_embeddings)
    assert whole.exported[-1].prompt_config.task_type == task_type


def test_words_for_masks_are_learned_and_those_that_do_not_fit_are_told(tiny_bert_lm: Path, tmp_path: Path) -> None:
    words = ["great", "film", "food", "bad", "time", "dog"]
    answers = ["great", *(f"{a} {b}" for a in words for b in words)]
    rows = "text,answer\n" + "".join(f"the film {i},{answer}\n" for i, answer in enumerate(answers))
    table = ingest_text(rows, tmp_path / "data")
    recorder = Recorder()
    settings = settings_for(tiny_bert_lm, template="{text~} [P*3] [MASK*2:answer]", max_steps=20, learning_rate=0.03)
    result = recorder.train(settings, table, tmp_path / "run")
    assert result["metric"] == "loss" and result["value"] < recorder.of("eval")[0]["loss"]
    (plan,) = recorder.of("plan")
    assert any("an answer that does not fill 2 mask tokens (rows 2)" in warning for warning in plan["warnings"])
    assert all(len(row["predicted"].split()) >= 1 for row in recorder.of("sample")[-1]["rows"])


def test_the_adapter_knows_the_columns_that_were_guessed(tiny_gpt2: Path, tmp_path: Path) -> None:
    # `classify` refused a file with the very columns that training had found by itself.
    rows = LABELLED.replace("text,label", "What they wrote,Verdict")
    recorder = Recorder()
    recorder.train(settings_for(tiny_gpt2, max_steps=1), ingest_text(rows, tmp_path / "data"), tmp_path / "run")
    assert recorder.exported[-1].columns == {"text": "What they wrote", "label": "Verdict"}
