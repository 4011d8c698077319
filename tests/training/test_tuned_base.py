"""Training that tunes the base model too: two peak step sizes, exact resume, sweeps from untrained weights, disk."""

from __future__ import annotations

import shutil
from collections import namedtuple
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoModelForCausalLM

from ptune_core.data.ingest import ingest_text
from ptune_core.data.table import Table, Tables
from ptune_core.errors import DiskFull, SettingsError
from ptune_core.model.trained import TrainedPrompt
from ptune_core.model.tuned import WEIGHTS_FILE
from ptune_core.training.loop import Trainer
from ptune_core.training.session import estimate_run, run_training
from ptune_core.training.settings import RunSettings
from ptune_core.training.trial import TUNED
from tests.training.recorder import Recorder

ROWS = "text,label\n" + "".join(f"{'word ' * (i % 9)} {i},{'good' if i % 2 else 'bad'}\n" for i in range(60))
TEMPLATES = ["{text} [P*4][ANSWER:label]", "[P*4] {text} [HEAD:label]"]


def settings_for(folder: Path, **changes: Any) -> RunSettings:
    values = {
        "base_model": str(folder), "data": "pasted", "template": TEMPLATES[0], "max_steps": 8, "eval_every": 4,
        "checkpoint_every": 3, "batch_size": 4, "encoder_hidden_size": 16, "device": "cpu", "learning_rate": 0.01,
        "base_weights": "tuned", "base_learning_rate": 1e-3, "patience": 0, "halving": False,
    }  # fmt: skip
    return RunSettings.parse(values | changes)


@pytest.fixture
def table(tmp_path: Path) -> Table:
    return ingest_text(ROWS, tmp_path / "data")


class TunedRecorder(Recorder):
    """Keeps the tuned weights of what is exported too."""

    def __init__(self) -> None:
        super().__init__()
        self.weights: list[dict[str, Tensor]] = []

    def losses(self, trial: int | None = None) -> list[float]:
        return [line["loss"] for line in self.of("step") if line.get("trial") == trial]

    def keep(self, trained: TrainedPrompt, directory: Path) -> None:
        super().keep(trained, directory)
        if trained.tuned_base is not None:
            # Cloned: the file is the adapter's, which a later step may replace.
            found = load_file(trained.tuned_base / WEIGHTS_FILE)
            self.weights.append({name: tensor.clone() for name, tensor in found.items()})


def equal(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("template", TEMPLATES)
def test_stopped_and_resumed_equals_undisturbed_bit_for_bit(
    tmp_path: Path, tiny_gpt2: Path, table: Table, template: str
) -> None:
    """With the dropout of GPT-2's config, whose draws have to come again too."""
    changes = {"encoder_reparameterization_type": "LSTM", "encoder_dropout": 0.2, "gradient_accumulation_steps": 2}
    settings = settings_for(tiny_gpt2, template=template, **changes)
    whole, parts = TunedRecorder(), TunedRecorder()
    expected = whole.train(settings, table, tmp_path / "whole")
    assert parts.train(settings, table, tmp_path / "parts", stop_at=5)["stopped"]
    result = parts.train(settings, table, tmp_path / "parts")
    assert parts.of("resume") == [{"kind": "resume", "step": 5}]
    assert parts.losses() == whole.losses()
    assert equal(parts.weights[-1], whole.weights[-1])
    assert torch.equal(parts.exported[-1].prompt_embeddings, whole.exported[-1].prompt_embeddings)
    times = {"seconds": 0, "evaluation_share": 0}
    assert {**result, **times} == {**expected, **times}
    assert not (tmp_path / "parts" / TUNED).exists(), "it is in the adapter"


def test_it_trains_with_the_dropout_of_the_base_model_and_measures_without(
    tmp_path: Path, tiny_gpt2: Path, table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    rates: list[tuple[bool, float]] = []
    dropout = torch.nn.functional.dropout

    def watched(input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
        rates.append((torch.is_grad_enabled(), p if training else 0.0))
        return dropout(input, p, training, inplace)

    monkeypatch.setattr(torch.nn.functional, "dropout", watched)
    TunedRecorder().train(settings_for(tiny_gpt2, max_steps=2), table, tmp_path / "run")
    assert {rate for is_step, rate in rates if is_step} == {0.1}
    assert {rate for is_step, rate in rates if not is_step} == {0.0}


def test_all_of_the_base_model_has_learnt_and_the_result_says_so(
    tmp_path: Path, tiny_llama: Path, table: Table
) -> None:
    recorder = TunedRecorder()
    result = recorder.train(settings_for(tiny_llama, max_steps=16), table, tmp_path / "run")
    assert result["best_step"] > 0
    before = AutoModelForCausalLM.from_pretrained(tiny_llama).state_dict()
    (weights,), (trained,), (plan,) = recorder.weights, recorder.exported, recorder.of("plan")
    assert [name for name, tensor in weights.items() if torch.equal(tensor, before[name])] == []
    assert result["base_weights"] == "tuned" and trained.precision == "fp32" and trained.base_model == str(tiny_llama)
    assert plan["base"]["parameters"] == sum(tensor.numel() for tensor in weights.values())
    assert "being trained" in plan["text_cache"]["place"]


def test_the_base_model_alone_is_measured_before_it_is_trained(tmp_path: Path, tiny_gpt2: Path, table: Table) -> None:
    baselines = []
    for weights in ("frozen", "tuned"):
        recorder = TunedRecorder()
        recorder.train(settings_for(tiny_gpt2, base_weights=weights, precision="fp32"), table, tmp_path / weights)
        baselines += recorder.of("baseline")
    assert baselines[0] == baselines[1]


def test_two_peaks_and_no_decay_of_biases_and_norms(
    tmp_path: Path, tiny_gpt2: Path, table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[list[tuple[float, float, int]]] = []
    end_step = Trainer.end_step

    def watched(trainer: Trainer, *arguments: Any) -> Any:
        ended = end_step(trainer, *arguments)
        groups = trainer.optimizer.param_groups
        seen.append([(group["lr"], group["weight_decay"], min(p.ndim for p in group["params"])) for group in groups])
        return ended

    monkeypatch.setattr(Trainer, "end_step", watched)
    settings = settings_for(tiny_gpt2, max_steps=4, warmup_ratio=0.5, weight_decay=0.01)
    TunedRecorder().train(settings, table, tmp_path / "run")
    for share, groups in zip((0.5, 1.0, 1.0, 0.5), seen, strict=True):
        (prompt, decay, _), (matrices, base_decay, ndim), (others, no_decay, _) = groups
        assert (prompt, matrices, others) == pytest.approx((share * 0.01, share * 1e-3, share * 1e-3))
        assert (decay, base_decay, no_decay, ndim) == (0.01, 0.1, 0.0, 2)


@pytest.mark.parametrize("template", TEMPLATES)
def test_every_trial_of_a_sweep_starts_from_the_untrained_base_model(
    tmp_path: Path, tiny_gpt2: Path, table: Table, template: str
) -> None:
    recorder, alone = TunedRecorder(), TunedRecorder()
    sweep = {"base_learning_rate": [1e-2, 1e-3, 1e-2]}
    settings = settings_for(tiny_gpt2, template=template, sweep=sweep)
    result = recorder.train(settings, table, tmp_path / "run")
    alone.train(settings_for(tiny_gpt2, template=template), table, tmp_path / "alone")
    assert recorder.losses(0) == recorder.losses(2) != recorder.losses(1)
    assert recorder.losses(1) == alone.losses()
    weights = dict(zip([0, 2, 1], recorder.weights, strict=False))  # trials that are alike train one after the other
    assert equal(weights[0], weights[2]) and not equal(weights[0], weights[1])
    assert equal(recorder.weights[-1], weights[result["trial"]]), "the best comes with its own base model"
    left = [path.name for path in (tmp_path / "run").rglob("*") if TUNED in path.name or "untrained" in path.name]
    assert left == []


def test_a_stopped_sweep_goes_on_from_the_untrained_base_model(tmp_path: Path, tiny_gpt2: Path, table: Table) -> None:
    settings = settings_for(tiny_gpt2, sweep={"base_learning_rate": [1e-2, 1e-3]})
    whole, parts = TunedRecorder(), TunedRecorder()
    whole.train(settings, table, tmp_path / "whole")
    assert parts.train(settings, table, tmp_path / "parts", stop_at=5)["stopped"]
    parts.train(settings, table, tmp_path / "parts")
    assert parts.losses(0) == whole.losses(0) and parts.losses(1) == whole.losses(1)
    assert equal(parts.weights[-1], whole.weights[-1])


@pytest.mark.parametrize(("precision", "reason"), [("bf16", "lost when it is rounded"), ("int8", "no gradient")])
def test_weights_that_cannot_learn_are_refused(tiny_gpt2: Path, precision: str, reason: str) -> None:
    with pytest.raises(SettingsError, match=f"tuned in {precision}.*{reason}"):
        settings_for(tiny_gpt2, precision=precision)


def test_the_disk_that_is_told_before_is_enough_and_not_far_too_much(
    tmp_path: Path, tiny_gpt2: Path, table: Table
) -> None:
    most = 0

    def watch(line: dict[str, Any]) -> None:
        nonlocal most
        recorder.lines.append(line)
        found = [path for path in (tmp_path / "run").rglob("*") if path.is_file() and path.suffix == ".safetensors"]
        most = max(most, sum(path.stat().st_size for path in found))

    recorder = TunedRecorder()
    settings = settings_for(tiny_gpt2, max_steps=6, eval_every=1, checkpoint_every=1)
    run_training(
        settings, Tables(table), tmp_path / "run", should_stop=lambda: False, report=watch, export=recorder.keep
    )
    [plan] = recorder.of("plan")
    told = plan["base"]["disk_mib"] * 2**20
    assert 0.5 * told < most < 1.2 * told, "prompt encoder and headers come on top, small beside a real base model"


def test_too_little_disk_is_told_before_the_first_step(
    tmp_path: Path, tiny_gpt2: Path, table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorder = TunedRecorder()
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(2**30, 2**30, 2**16))
    with pytest.raises(DiskFull, match="tuned base model.*0 MiB free"):
        recorder.train(settings_for(tiny_gpt2), table, tmp_path / "run")
    assert recorder.losses() == []


def test_an_estimate_counts_the_disk_and_trains_the_base_model(tmp_path: Path, tiny_gpt2: Path, table: Table) -> None:
    settings = settings_for(tiny_gpt2)
    found = estimate_run(settings, Tables(table), tmp_path / "estimate")
    assert found.disk_mib > 0 and not found.share_batches and "MiB on disk for checkpoints" in str(found)
    frozen = estimate_run(settings_for(tiny_gpt2, base_weights="frozen"), Tables(table), tmp_path / "frozen")
    assert frozen.disk_mib == 0 and "on disk for checkpoints" not in str(frozen)
