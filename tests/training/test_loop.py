"""The loop: only the prompt and the head change, accumulation is a bigger batch, a resumed run is the same run."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from accelerate import Accelerator
from torch import Tensor

from ptune_core.data.examples import ExampleSet
from ptune_core.data.table import ROW, Table
from ptune_core.errors import CheckpointError
from ptune_core.model.base import BaseModel, load_base_model
from ptune_core.model.prompted import PromptedModel
from ptune_core.model.text_cache import Budget
from ptune_core.prompt.config import PromptEncoderConfig
from ptune_core.prompt.init import Prompt
from ptune_core.prompt.template import parse_template
from ptune_core.prompt.verbalizer import Verbalizer
from ptune_core.training.loop import (
    CheckpointDue,
    Ended,
    EndReason,
    Evaluated,
    Event,
    Schedule,
    Stepped,
    Trainer,
    train,
)
from ptune_core.training.metrics import Evaluation, Metric
from ptune_core.training.tasks import Batching, LabelTask

ROWS = [("great film", "good"), ("bad food", "bad"), ("I loved it", "good")] * 4


def examples_in(directory: Path) -> ExampleSet:
    table = Table(directory / "table.parquet", ("text", "label"), len(ROWS), [])
    numbers = np.arange(len(ROWS))
    texts, labels = zip(*ROWS, strict=True)
    pq.write_table(pa.table({ROW: numbers, "text": texts, "label": labels}), table.path)
    indices = np.array([("bad", "good").index(label) for label in labels])
    return ExampleSet(table, {"text": "text", "label": "label"}, "label", numbers, numbers, indices)


def schedule(**changes: object) -> Schedule:
    values: dict[str, object] = {
        "steps": 12, "eval_every": 4, "checkpoint_every": 5, "batches_per_step": 1, "batches_per_epoch": 3,
        "learning_rate": 0.01, "warmup_steps": 2, "weight_decay": 0.0, "max_grad_norm": 1.0, "patience": 0, "seed": 3,
        "head_learning_rate": 0.03,
    }  # fmt: skip
    return Schedule(**{**values, **changes})  # type: ignore[arg-type]


def trainer_for(
    folder: Path,
    plan: Schedule,
    *,
    template: str = "[P*3] {text} [ANSWER:label]",
    encoder: str = "MLP",
    batch_size: int = 4,
) -> tuple[Trainer, LabelTask, BaseModel]:
    torch.manual_seed(0)
    kind = parse_template(template).target.kind
    base = load_base_model(str(folder), target=kind, num_labels=2, device="cpu", precision="fp32")
    model = PromptedModel(base, parse_template(template), Verbalizer.from_labels(["bad", "good"], None))
    directory = Path(tempfile.mkdtemp(dir=os.environ["PTUNE_DATA_DIR"]))
    examples = examples_in(directory)
    first = examples.select(np.arange(5))
    task = LabelTask(model, examples, first, Batching(batch_size, 2, plan.seed), directory)
    config = PromptEncoderConfig(
        task_type="CAUSAL_LM", num_virtual_tokens=3, token_dim=32, num_transformer_submodules=1,
        encoder_hidden_size=16, encoder_reparameterization_type=encoder, encoder_dropout=0.3 * (encoder == "LSTM"),
    )  # fmt: skip
    if model.texts is not None:
        model.texts.reserve(task.contexts(plan.steps * plan.batches_per_step), Budget())
    return Trainer(Prompt(config), base.head, plan, Accelerator(cpu=True)), task, base


def run(trainer: Trainer, task: LabelTask, stop_at: int | None = None) -> list[Event]:
    return [event for _, event in train([trainer], task, Metric.ACCURACY, lambda: trainer.progress.step == stop_at)]


def test_a_batch_in_several_passes_is_the_same_step(tiny_bert: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that a batch of long texts needs no more memory than one of short ones."""
    found = []
    for tokens in (100_000, 30):
        monkeypatch.setattr("ptune_core.training.tasks.TOKENS_AT_ONCE", tokens)
        trainer, task, _ = trainer_for(tiny_bert, schedule(steps=3), template="[P*3] {text} [HEAD:label]")
        counts = [count for _, count in task.losses(0, [trainer.prompt()])]
        assert sum(counts) == 4 and (len(counts) > 1) == (tokens == 30)
        found.append([(e.loss, e.grad_norm) for e in run(trainer, task) if isinstance(e, Stepped)])
    assert found[0] == [pytest.approx(step, rel=1e-4) for step in found[1]]


@pytest.mark.parametrize(("base", "target"), [("tiny_gpt2", "ANSWER"), ("tiny_gpt2", "HEAD"), ("tiny_bert", "HEAD")])
def test_after_one_step_only_encoder_and_head_tensors_have_changed(
    request: pytest.FixtureRequest, base: str, target: str
) -> None:
    trainer, task, loaded = trainer_for(
        request.getfixturevalue(base), schedule(steps=1), template=f"[P*3] {{text}} [{target}:label]"
    )
    head = set() if loaded.head_name is None else {
        f"{loaded.head_name}.{name}" for name, _ in loaded.head.named_parameters()  # type: ignore[union-attr]
    }  # fmt: skip
    before = {name: tensor.clone() for name, tensor in loaded.model.state_dict().items()}
    encoder_before = {name: tensor.clone() for name, tensor in trainer.prompt.state_dict().items()}
    run(trainer, task)
    changed = {name for name, tensor in loaded.model.state_dict().items() if not torch.equal(tensor, before[name])}
    assert changed == head
    unchanged = [
        n for n, t in trainer.prompt.encoder.state_dict().items() if torch.equal(t, encoder_before[f"encoder.{n}"])
    ]
    assert unchanged == []


def test_events_come_in_the_order_of_the_loop(tiny_gpt2: Path) -> None:
    trainer, task, _ = trainer_for(tiny_gpt2, schedule())
    events = run(trainer, task)
    assert [event.step for event in events if isinstance(event, Evaluated)] == [0, 4, 8, 12]
    assert [event.step for event in events if isinstance(event, Stepped)] == list(range(1, 13))
    assert [event.step for event in events if isinstance(event, CheckpointDue)] == [5, 10, 12]
    assert events[-1] == Ended(EndReason.STEPS_DONE)


def test_learning_rate_warms_up_and_decays_to_nothing() -> None:
    plan = schedule(steps=10, warmup_steps=4, learning_rate=1.0)
    rates = [plan.learning_rate_at(step) for step in range(10)]
    assert rates[:4] == [0.25, 0.5, 0.75, 1.0]
    assert rates[4:] == pytest.approx([1.0, 5 / 6, 4 / 6, 3 / 6, 2 / 6, 1 / 6])


def test_a_head_has_a_learning_rate_of_its_own(tiny_bert: Path) -> None:
    plan = schedule(steps=1, warmup_steps=0, learning_rate=1e-3, head_learning_rate=5e-3)
    trainer, task, _ = trainer_for(tiny_bert, plan, template="[P*3] {text} [HEAD:label]")
    before = {name: tensor.clone() for name, tensor in trainer.trained.state_dict().items()}
    run(trainer, task)
    moved = {"prompt": 0.0, "head": 0.0}
    for name, tensor in trainer.trained.state_dict().items():
        part = name.split(".")[0]
        moved[part] = max(moved[part], float((tensor - before[name]).abs().max()))
    # AdamW's first step moves a weight by the learning rate.
    assert moved == pytest.approx({"prompt": 1e-3, "head": 5e-3}, rel=0.01)


def test_accumulated_batches_are_one_bigger_batch(tiny_gpt2: Path) -> None:
    small, task, _ = trainer_for(tiny_gpt2, schedule(steps=3, batches_per_step=3), batch_size=4)
    big, big_task, _ = trainer_for(tiny_gpt2, schedule(steps=3), batch_size=12)
    run(small, task), run(big, big_task)
    for a, b in zip(small.parameters, big.parameters, strict=True):
        torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-4)


def test_training_learns_what_can_be_learnt(tiny_gpt2: Path) -> None:
    trainer, task, _ = trainer_for(tiny_gpt2, schedule(steps=60, eval_every=60))
    evaluations = [event.evaluation for event in run(trainer, task) if isinstance(event, Evaluated)]
    assert evaluations[-1].loss < 0.5 * evaluations[0].loss
    assert evaluations[-1].value == 1.0


@pytest.mark.parametrize("encoder", ["MLP", "LSTM"])
@pytest.mark.parametrize("stop_at", [1, 4, 7, 11])
@pytest.mark.parametrize("template", ["[P*3] {text} [ANSWER:label]", "{text} is [P*3][ANSWER:label]"])
def test_a_resumed_run_is_bit_identical_to_an_undisturbed_one(
    tiny_gpt2: Path, encoder: str, stop_at: int, template: str
) -> None:
    whole, task, _ = trainer_for(tiny_gpt2, schedule(), encoder=encoder, template=template)
    expected = run(whole, task)
    first, task, _ = trainer_for(tiny_gpt2, schedule(), encoder=encoder, template=template)
    begun = run(first, task, stop_at=stop_at)
    assert begun[-1] == Ended(EndReason.STOPPED)
    tensors = {name: tensor.clone() for name, tensor in first.tensors().items()}
    second, task, _ = trainer_for(tiny_gpt2, schedule(), encoder=encoder, template=template)
    torch.manual_seed(12345)
    second.restore(tensors, first.state())
    resumed = run(second, task)
    assert {n: t.tolist() for n, t in whole.tensors().items()} == {n: t.tolist() for n, t in second.tensors().items()}
    assert second.progress == whole.progress

    def facts(events: list[Event]) -> list[tuple[object, ...]]:
        stepped = [("step", e.step, e.loss, e.grad_norm) for e in events if isinstance(e, Stepped)]
        return stepped + [("eval", e.step, e.evaluation, e.best) for e in events if isinstance(e, Evaluated)]

    assert sorted(facts(begun) + facts(resumed), key=str) == sorted(facts(expected), key=str)


def test_a_checkpoint_of_other_settings_is_refused(tiny_gpt2: Path) -> None:
    mlp, _, _ = trainer_for(tiny_gpt2, schedule())
    lstm, _, _ = trainer_for(tiny_gpt2, schedule(), encoder="LSTM")
    with pytest.raises(CheckpointError, match="other settings"):
        lstm.restore(mlp.tensors(), mlp.state())


class Scripted:
    """A task whose losses and evaluations are given."""

    def __init__(self, values: list[float], loss: float = 1.0, validation: Sequence[float] = ()) -> None:
        self.values, self.given_loss, self.validation = values, loss, list(validation)

    def losses(self, position: int, prompts: Sequence[Tensor]) -> list[tuple[Tensor, int]]:
        return [(torch.stack([prompt.sum() * 0 + self.given_loss for prompt in prompts]), 1)]

    def evaluate(self, prompt_embeddings: Tensor, chosen: np.ndarray | None = None) -> Evaluation:
        return Evaluation(loss=self.validation.pop(0) if self.validation else 1.0, value=self.values.pop(0))


def test_training_stops_early_when_nothing_gets_better(tiny_gpt2: Path) -> None:
    trainer, _, _ = trainer_for(tiny_gpt2, schedule(steps=100, eval_every=1, patience=2))
    events = [e for _, e in train([trainer], Scripted([0.5, 0.6, 0.6, 0.55, 0.9]), Metric.ACCURACY, lambda: False)]
    assert events[-1] == Ended(EndReason.NO_BETTER)
    assert trainer.progress.step == 3
    assert (trainer.progress.best_step, trainer.progress.best_value) == (1, 0.6)


def test_a_falling_validation_loss_is_progress_though_accuracy_is_not_at_its_best(tiny_gpt2: Path) -> None:
    """The bug this pins: a run was ended by patience while its loss still fell, before its accuracy could move."""
    trainer, _, _ = trainer_for(tiny_gpt2, schedule(steps=100, eval_every=1, patience=2))
    losses = [1.0, 0.9, 0.8, 0.7, 0.6995, 0.699]
    scripted = Scripted([0.6] + [0.5] * 8, validation=losses)
    events = [event for _, event in train([trainer], scripted, Metric.ACCURACY, lambda: False)]
    assert events[-1] == Ended(EndReason.NO_BETTER)
    assert trainer.progress.step == 5, "0.7 was progress; two evaluations with next to none after it end the run"


@pytest.mark.parametrize("loss", [float("nan"), float("inf")])
def test_a_loss_that_is_not_a_number_ends_training_with_advice(tiny_gpt2: Path, loss: float) -> None:
    trainer, _, _ = trainer_for(tiny_gpt2, schedule())
    before = [parameter.clone() for parameter in trainer.parameters]
    *_, (_, last) = train([trainer], Scripted([0.5], loss), Metric.ACCURACY, lambda: False)
    assert isinstance(last, Ended) and last.reason is EndReason.DIVERGED
    assert re.search(r"at step 1.*learning rate of 0\.003", str(last.error))
    assert all(torch.equal(a, b) for a, b in zip(before, trainer.parameters, strict=True))


def test_virtual_tokens_that_grow_beyond_all_bounds_end_training_before_they_are_called_best(tiny_gpt2: Path) -> None:
    """The bug this pins: at a learning rate of 1 the loss stayed finite and the adapter could not be exported."""
    trainer, _, _ = trainer_for(tiny_gpt2, schedule(eval_every=1))
    events = []
    for _, event in train([trainer], Scripted([0.5, 0.9, 0.9]), Metric.ACCURACY, lambda: False):
        events.append(event)
        if isinstance(event, Stepped):
            with torch.no_grad():
                trainer.parameters[-1].fill_(1e9)
    assert [event.step for event in events if isinstance(event, Evaluated)] == [0]
    assert isinstance(events[-1], Ended) and events[-1].reason is EndReason.DIVERGED
    assert "learning rate of 0.003" in str(events[-1].error)
