"""The training loop: one function read downward. It reports events and does no I/O.

What is trained is small (a prompt encoder, perhaps a head), so one step's state fits in a checkpoint every few seconds.
Everything random is a function of the seed and the step, so a resumed run repeats the undisturbed one bit for bit on a
CPU, and to rounding on a GPU.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any, Protocol

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from ptune_core.errors import CheckpointError, LossNotFinite
from ptune_core.prompt.init import Prompt
from ptune_core.training.metrics import Evaluation, Metric


class Task(Protocol):
    """What the loop needs to know about data and base model."""

    def loss(self, position: int, prompt_embeddings: Tensor) -> tuple[Tensor, int]:
        """Summed loss and number of targets of batch number `position`, counted over all epochs."""

    def evaluate(self, prompt_embeddings: Tensor) -> Evaluation:
        """Evaluate the validation split."""


class EndReason(StrEnum):
    """Why training ended."""

    STEPS_DONE = "all steps done"
    NO_BETTER = "no better result for a while"
    STOPPED = "stopped"


@dataclass(frozen=True)
class Schedule:
    """How long and how strongly to train; steps are optimizer steps."""

    steps: int
    eval_every: int
    checkpoint_every: int
    batches_per_step: int
    batches_per_epoch: int
    learning_rate: float
    warmup_steps: int
    weight_decay: float
    max_grad_norm: float
    patience: int
    seed: int

    def learning_rate_at(self, step: int) -> float:
        """Linear warm-up to the peak, then linear decay to 0; `step` counts from 0."""
        if step < self.warmup_steps:
            return self.learning_rate * (step + 1) / self.warmup_steps
        return self.learning_rate * (self.steps - step) / max(1, self.steps - self.warmup_steps)


@dataclass
class Progress:
    """Where training stands; all of it is in a checkpoint.

    Attributes:
        step: Optimizer steps done.
        evaluated_step: The last step that was evaluated, -1 before the first evaluation.
        best_value: The metric at `best_step`.
        best_loss: Validation loss at `best_step`; decides between equal values.
        best_step: Step of the best evaluation.
        evaluations_since_best: For early stopping.
    """

    step: int = 0
    evaluated_step: int = -1
    best_value: float | None = None
    best_loss: float = math.inf
    best_step: int = 0
    evaluations_since_best: int = 0

    def record(self, evaluation: Evaluation, metric: Metric) -> bool:
        """Take an evaluation into account; returns whether it is the best so far."""
        self.evaluated_step = self.step
        better = self.best_value is None or metric.better(evaluation.value, self.best_value)
        better = better or (evaluation.value == self.best_value and evaluation.loss < self.best_loss)
        if better:
            self.best_value, self.best_loss, self.best_step = evaluation.value, evaluation.loss, self.step
            self.evaluations_since_best = 0
        else:
            self.evaluations_since_best += 1
        return better


@dataclass(frozen=True)
class Stepped:
    """One optimizer step was made; `step` counts from 1, `loss` is the mean over its targets, before the step."""

    step: int
    epoch: float
    loss: float
    learning_rate: float
    grad_norm: float
    seconds: float


@dataclass(frozen=True)
class Evaluated:
    """The validation split was evaluated at `step`."""

    step: int
    evaluation: Evaluation
    best: bool


@dataclass(frozen=True)
class CheckpointDue:
    """Now is a moment at which the state is whole; whoever consumes the events may save it."""

    step: int


@dataclass(frozen=True)
class Ended:
    """Training is over."""

    reason: EndReason


Event = Stepped | Evaluated | CheckpointDue | Ended


class Trainer:
    """What is trained, its optimizer, and where it stands.

    Args:
        prompt: The prompt encoder with its start.
        head: The base model's trainable classification head, or None.
        schedule: How long and how strongly.
        accelerator: Decides device and gradient scaling.
    """

    def __init__(self, prompt: Prompt, head: nn.Module | None, schedule: Schedule, accelerator: Accelerator) -> None:
        self.schedule, self.accelerator, self.head = schedule, accelerator, head
        self.trained = nn.ModuleDict({"prompt": prompt} if head is None else {"prompt": prompt, "head": head})
        self.trained.to(accelerator.device)
        self.prompt = prompt
        self.parameters = [parameter for parameter in self.trained.parameters() if parameter.requires_grad]
        optimizer = torch.optim.AdamW(self.parameters, lr=schedule.learning_rate, weight_decay=schedule.weight_decay)
        self.optimizer = accelerator.prepare(optimizer)
        self.progress = Progress()

    def train(self, task: Task, metric: Metric, should_stop: Callable[[], bool]) -> Iterator[Event]:
        """Train until the steps are done, nothing gets better, or `should_stop()`; yields what happens.

        A checkpoint taken at any `CheckpointDue` (with `tensors()` and `state()`) and restored with `restore` continues
        exactly as if there had been no interruption.

        Raises:
            LossNotFinite: The loss became NaN or infinite; the best evaluation so far stays valid.
        """
        schedule, progress = self.schedule, self.progress
        started_at = progress.step
        while True:
            finished = progress.step >= schedule.steps
            if progress.evaluated_step != progress.step and (progress.step % schedule.eval_every == 0 or finished):
                evaluation = self._evaluate(task)
                yield Evaluated(progress.step, evaluation, best=progress.record(evaluation, metric))

            patience_over = 0 < schedule.patience <= progress.evaluations_since_best
            stopping = finished or patience_over or should_stop()
            if stopping or (progress.step % schedule.checkpoint_every == 0 and progress.step > started_at):
                yield CheckpointDue(progress.step)
            if stopping:
                done = EndReason.STEPS_DONE if finished else EndReason.NO_BETTER if patience_over else None
                yield Ended(done or EndReason.STOPPED)
                return

            begun = time.perf_counter()
            loss, learning_rate, grad_norm = self._step(task)
            progress.step += 1
            epoch = progress.step * schedule.batches_per_step / schedule.batches_per_epoch
            yield Stepped(progress.step, epoch, loss, learning_rate, grad_norm, time.perf_counter() - begun)

    def _step(self, task: Task) -> tuple[float, float, float]:
        """One optimizer step; returns mean loss, learning rate and the gradient's norm before clipping."""
        schedule, step = self.schedule, self.progress.step
        # Dropout draws from the global state: seeding by the step is what lets a resumed run repeat it.
        torch.manual_seed(schedule.seed * 1_000_003 + step)
        self.trained.train()
        prompt_embeddings = self.prompt()
        # The encoder runs once a step: batches add up gradients of its output, and only that goes back through it.
        leaf = prompt_embeddings.detach().requires_grad_(True)
        total_loss, total_targets = 0.0, 0
        for i in range(schedule.batches_per_step):
            loss, targets = task.loss(step * schedule.batches_per_step + i, leaf)
            self.accelerator.backward(loss)
            total_loss, total_targets = total_loss + float(loss.detach()), total_targets + targets
        mean_loss = total_loss / total_targets
        if not math.isfinite(mean_loss):
            raise LossNotFinite(
                f"The loss became {mean_loss} at step {step + 1}",
                remedy=f"The best result so far (step {self.progress.best_step}) is kept. Try again with a learning "
                f"rate of {schedule.learning_rate / 3:.1g}",
            )
        prompt_embeddings.backward(leaf.grad)
        for parameter in self.parameters:
            if parameter.grad is not None:
                parameter.grad /= total_targets
        grad_norm = float(self.accelerator.clip_grad_norm_(self.parameters, schedule.max_grad_norm))
        learning_rate = schedule.learning_rate_at(step)
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate
        self.optimizer.step()
        self.optimizer.zero_grad()
        return mean_loss, learning_rate, grad_norm

    @torch.no_grad()
    def _evaluate(self, task: Task) -> Evaluation:
        self.trained.eval()
        return task.evaluate(self.prompt())

    def tensors(self) -> dict[str, Tensor]:
        """Everything trained and the optimizer's state, for a checkpoint."""
        tensors = {f"trained.{name}": tensor.detach() for name, tensor in self.trained.state_dict().items()}
        for index, state in self.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{index}.{name}": tensor for name, tensor in state.items()}
        return tensors

    def state(self) -> dict[str, Any]:
        """Everything else, for a checkpoint; JSON values."""
        state = asdict(self.progress)
        # JSON has no infinity.
        return state | {"best_loss": None if math.isinf(self.progress.best_loss) else self.progress.best_loss}

    def restore(self, tensors: dict[str, Tensor], state: dict[str, Any]) -> None:
        """Continue from a checkpoint.

        Raises:
            CheckpointError: Its tensors are not those of this prompt encoder and head.
        """
        trained = {name.removeprefix("trained."): t for name, t in tensors.items() if name.startswith("trained.")}
        try:
            self.trained.load_state_dict(trained)
        except RuntimeError as error:
            raise CheckpointError("The checkpoint was made with other settings", got=str(error)[:300]) from error
        moments: dict[int, dict[str, Tensor]] = {}
        for name, tensor in tensors.items():
            if name.startswith("optimizer."):
                _, index, key = name.split(".")
                moments.setdefault(int(index), {})[key] = tensor
        self.optimizer.load_state_dict(self.optimizer.state_dict() | {"state": moments})
        known = {name: state[name] for name in asdict(self.progress)}
        known["best_loss"] = math.inf if known["best_loss"] is None else known["best_loss"]
        self.progress = Progress(**known)
