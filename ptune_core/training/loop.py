"""The training loop: `train`, read downward. It reports events and does no I/O.

What is trained is small (a prompt encoder, perhaps a head), so one step's state fits in a checkpoint every few seconds;
that of a tuned base model is three times the base model.
Everything random is a function of the seed and the step, so a resumed run repeats the undisturbed one bit for bit on a
CPU, and to rounding on a GPU.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any, Protocol

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list
from torch import Tensor, nn

from ptune_core.errors import CheckpointError, TrainingDiverged
from ptune_core.model.trained import MAX_ABSOLUTE_VALUE
from ptune_core.prompt.init import Prompt
from ptune_core.training.metrics import Evaluation, Metric
from ptune_core.training.optimizer import base_parameter_groups, parameter_groups
from ptune_core.training.processes import sum_over_processes
from ptune_core.training.progress import Progress


class Task(Protocol):
    """What the loop needs to know about data and base model."""

    def losses(self, position: int, prompts: Sequence[Tensor]) -> Iterable[tuple[Tensor, int]]:
        """Of batch number `position` over all epochs, by passes: each prompt's summed loss `[S]`, and their targets."""

    def evaluate(self, prompt_embeddings: Tensor, chosen: np.ndarray | None = None) -> Evaluation:
        """Evaluate some rows of the validation split, by ascending index, or all."""


class EndReason(StrEnum):
    """Why training ended."""

    STEPS_DONE = "all steps done"
    NO_BETTER = "no better result for a while"
    OUTDONE = "ended early, since others did better"
    STOPPED = "stopped"
    DIVERGED = "it diverged"


@dataclass(frozen=True)
class Schedule:
    """How long and how strongly to train; steps are optimizer steps, those of `rungs` are where trials are compared."""

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
    base_learning_rate: float = 0.0
    head_learning_rate: float = 0.0
    rungs: tuple[int, ...] = ()

    def learning_rate_at(self, step: int, peak: float | None = None) -> float:
        """Linear warm-up to the peak, the prompt encoder's unless given, then decay to 0; `step` counts from 0."""
        peak = self.learning_rate if peak is None else peak
        if step < self.warmup_steps:
            return peak * (step + 1) / self.warmup_steps
        return peak * (self.steps - step) / max(1, self.steps - self.warmup_steps)


@dataclass(frozen=True)
class Stepped:
    """One optimizer step was made; `step` counts from 1, `loss` is the mean over its targets, before the step."""

    step: int
    epoch: float
    loss: float
    learning_rate: float
    grad_norm: float


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
    """Training is over; if it diverged, `error` says what to do."""

    reason: EndReason
    error: TrainingDiverged | None = None


Event = Stepped | Evaluated | CheckpointDue | Ended


class Trainer:
    """What is trained, its optimizer, and where it stands.

    Args:
        prompt: The prompt encoder with its start.
        head: The base model's trainable classification head, or None.
        schedule: How long and how strongly.
        accelerator: Decides device and gradient scaling.
        base: The base model with its head, if its own weights learn too: with the dropout that its config names, as
            in the paper's code, for all of a base model soon knows few examples by heart.
        evaluated: `[K]` validation rows that are evaluated between steps, by ascending index; None: all.
            `evaluation_seconds` is what that has taken so far.
    """

    def __init__(
        self,
        prompt: Prompt,
        head: nn.Module | None,
        schedule: Schedule,
        accelerator: Accelerator,
        base: nn.Module | None = None,
        evaluated: np.ndarray | None = None,
    ) -> None:
        self.schedule, self.accelerator, self.base = schedule, accelerator, base
        self.evaluated, self.evaluation_seconds = evaluated, 0.0
        self.trained = nn.ModuleDict({"prompt": prompt} if head is None else {"prompt": prompt, "head": head})
        self.trained.to(accelerator.device)
        self.prompt = prompt
        self.head_parameters = [] if head is None else list(head.parameters())
        own = [parameter for parameter in prompt.parameters() if parameter.requires_grad]
        known = {id(parameter) for parameter in (*own, *self.head_parameters)}
        all_of_base = {} if base is None else dict(base.named_parameters())
        self.base_parameters = {name: p for name, p in all_of_base.items() if id(p) not in known}
        self.parameters = [*own, *self.head_parameters, *self.base_parameters.values()]
        groups = [
            *parameter_groups(own, schedule.learning_rate, schedule.weight_decay),
            *parameter_groups(self.head_parameters, schedule.head_learning_rate, schedule.weight_decay),
            *base_parameter_groups(self.base_parameters.values(), schedule.base_learning_rate),
        ]
        self.optimizer = accelerator.prepare(torch.optim.AdamW(groups, fused=True))
        self.progress = Progress()
        self.started_at = 0

    def measure(self, task: Task, metric: Metric) -> Iterator[Event]:
        """The evaluation, if one is due between two steps."""
        schedule, progress = self.schedule, self.progress
        due = progress.step % schedule.eval_every == 0 or progress.step >= schedule.steps
        if progress.evaluated_step == progress.step or not due:
            return
        if not self._is_usable():
            yield self._diverged("The virtual tokens grew beyond all bounds")
            return
        evaluation = self.evaluate(task)
        yield Evaluated(progress.step, evaluation, best=progress.record(evaluation, metric, schedule.rungs))

    def review(self, *, outdone: bool, stop: bool) -> Iterator[Event]:
        """What else is due between two steps: a checkpoint, the end."""
        schedule, progress = self.schedule, self.progress
        reason = None
        if progress.step >= schedule.steps:
            reason = EndReason.STEPS_DONE
        elif 0 < schedule.patience <= progress.evaluations_without_progress:
            reason = EndReason.NO_BETTER
        elif outdone:
            reason = EndReason.OUTDONE
        elif stop:
            reason = EndReason.STOPPED
        if reason or (progress.step % schedule.checkpoint_every == 0 and progress.step > self.started_at):
            yield CheckpointDue(progress.step)
        if reason:
            yield Ended(reason)

    def begin_step(self) -> Tensor:
        """The prompt embeddings `[P, H]` for one optimizer step, as a leaf in which the batches' gradients add up.

        The encoder runs once a step, however many batches there are: only the sum goes back through it.
        """
        # Dropout draws from the global state: seeding by the step is what lets a resumed run repeat it.
        self._seed(self.schedule.seed * 1_000_003 + self.progress.step)
        self._learns(True)
        self._prompt_embeddings = self.prompt()
        return self._prompt_embeddings.detach().requires_grad_(True)

    def begin_batch(self, position: int) -> None:
        """Seed the dropout of a tuned base model: by the batch, so that it is the same whichever process has it."""
        if self.base is not None:
            self._seed((self.schedule.seed + 2**31) * 1_000_003 + position)

    def _learns(self, training: bool) -> None:
        self.trained.train(training)
        if self.base is not None:
            self.base.train(training)

    def _seed(self, seed: int) -> None:
        if self.accelerator.device.type == "cpu":
            # torch.manual_seed writes down the stack for GPUs that are not there, half a millisecond each time.
            torch.default_generator.manual_seed(seed)
        else:
            torch.manual_seed(seed)

    def end_step(self, leaf: Tensor, loss: float, targets: int) -> Stepped | Ended:
        """Turn the gradient of `leaf` into an optimizer step.

        Args:
            leaf: From `begin_step`, with its gradient.
            loss: Summed over the targets.
            targets: How many there were.
        """
        schedule, step = self.schedule, self.progress.step
        mean_loss = loss / targets
        if not math.isfinite(mean_loss):
            return self._diverged(f"The loss became {mean_loss}")
        self._prompt_embeddings.backward(leaf.grad)
        for parameter in self.parameters:
            if parameter.grad is not None:
                parameter.grad /= targets
        grad_norm = float(self.accelerator.clip_grad_norm_(self.parameters, schedule.max_grad_norm))
        for group in self.optimizer.param_groups:
            group["lr"] = schedule.learning_rate_at(step, group["peak"])
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.progress.step += 1
        epoch = self.progress.step * schedule.batches_per_step / schedule.batches_per_epoch
        return Stepped(self.progress.step, epoch, mean_loss, schedule.learning_rate_at(step), grad_norm)

    def _diverged(self, what: str) -> Ended:
        kept = f"The best result so far (step {self.progress.best_step}) is kept. "
        advice = f"Try again with a learning rate of {self.schedule.learning_rate / 3:.1g}"
        if self.base is not None:
            advice += f" and a base learning rate of {self.schedule.base_learning_rate / 3:.1g}"
        error = TrainingDiverged(f"{what} at step {self.progress.step + 1}", remedy=kept + advice)
        return Ended(EndReason.DIVERGED, error)

    @torch.no_grad()
    def _is_usable(self) -> bool:
        self._learns(False)
        weights = (self.prompt(), *self.trained.parameters(), *self.base_parameters.values())
        largest = max(float(values.abs().max()) for values in weights)
        return largest <= MAX_ABSOLUTE_VALUE  # not so for NaN either

    @torch.no_grad()
    def evaluate(self, task: Task) -> Evaluation:
        """The validation rows of an evaluation between steps, with the prompt as it is."""
        # One process measures and all hear of it: a last digit that differs must not part them.
        found = [self.evaluate_here(task, self.evaluated) if self.accelerator.is_main_process else None]
        if self.accelerator.num_processes > 1:
            broadcast_object_list(found)
        evaluation = found[0]
        assert evaluation is not None
        return evaluation

    @torch.no_grad()
    def evaluate_here(self, task: Task, chosen: np.ndarray | None) -> Evaluation:
        """Some validation rows, or all, in this process alone."""
        begun = time.monotonic()
        self._learns(False)
        evaluation = task.evaluate(self.prompt(), chosen)
        self.evaluation_seconds += time.monotonic() - begun
        return evaluation

    def weights(self) -> dict[str, Tensor]:
        """Everything trained; weights of the base model that are tied once."""
        weights = {f"trained.{name}": tensor.detach() for name, tensor in self.trained.state_dict().items()}
        return weights | {f"base.{name}": parameter.detach() for name, parameter in self.base_parameters.items()}

    def put_back(self, tensors: dict[str, Tensor]) -> None:
        """Make everything trained what `weights` was, ready to be evaluated.

        Raises:
            CheckpointError: The tensors are not those of this prompt encoder, head and base model.
        """
        trained = {name.removeprefix("trained."): t for name, t in tensors.items() if name.startswith("trained.")}
        try:
            self.trained.load_state_dict(trained)
            with torch.no_grad():
                for name, parameter in self.base_parameters.items():
                    parameter.copy_(tensors[f"base.{name}"])
        except (RuntimeError, KeyError) as error:
            raise CheckpointError("The checkpoint was made with other settings", got=str(error)[:300]) from error
        self._learns(False)

    def tensors(self) -> dict[str, Tensor]:
        """Everything trained and the optimizer's state, for a checkpoint."""
        tensors = self.weights()
        for index, state in self.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{index}.{name}": tensor for name, tensor in state.items()}
        return tensors

    def state(self) -> dict[str, Any]:
        """Everything else, for a checkpoint; JSON values."""
        state = asdict(self.progress)
        # JSON has no infinity.
        return {name: None if value == math.inf else value for name, value in state.items()}

    def restore(self, tensors: dict[str, Tensor], state: dict[str, Any]) -> None:
        """Continue from a checkpoint.

        Raises:
            CheckpointError: As `put_back`.
        """
        self.put_back(tensors)
        moments: dict[int, dict[str, Tensor]] = {}
        for name, tensor in tensors.items():
            if name.startswith("optimizer."):
                _, index, key = name.split(".")
                moments.setdefault(int(index), {})[key] = tensor
        self.optimizer.load_state_dict(self.optimizer.state_dict() | {"state": moments})
        known = {name: state[name] for name in asdict(self.progress)}
        for name in ("best_loss", "lowest_loss"):
            known[name] = math.inf if known[name] is None else known[name]
        self.progress = Progress(**known)
        self.started_at = self.progress.step


def train(
    trainers: Sequence[Trainer],
    task: Task,
    metric: Metric,
    should_stop: Callable[[], bool],
    outdone: Callable[[], Collection[Trainer]] = tuple,
) -> Iterator[tuple[Trainer, Event]]:
    """Train until the steps are done, nothing gets better, training diverges, others did better, or `should_stop()`.

    A checkpoint taken at any `CheckpointDue` (with `tensors()` and `state()`) and restored with `restore` continues
    exactly as if there had been no interruption.

    Args:
        trainers: Prompts of one shape that learn from the same batches, which pass through the base model together.
        task: Data and base model.
        metric: What decides which evaluation is best.
        should_stop: Asked once before every step.
        outdone: Asked after it, when all evaluations are made: the trainers that have to end.

    Yields:
        What happens to which trainer; `Ended` is a trainer's last event.
    """
    running = list(trainers)
    while running:
        stop = should_stop()
        for trainer in list(running):
            for event in trainer.measure(task, metric):
                yield trainer, event
                if isinstance(event, Ended):
                    running.remove(trainer)
        ending = outdone()
        for trainer in list(running):
            for event in trainer.review(outdone=trainer in ending, stop=stop):
                yield trainer, event
                if isinstance(event, Ended):
                    running.remove(trainer)
        # After a kill between two checkpoints some have further to go than others.
        step = min((trainer.progress.step for trainer in running), default=0)
        together = [trainer for trainer in running if trainer.progress.step == step]
        for trainer, event in zip(together, take_step(together, task), strict=True):
            yield trainer, event
            if isinstance(event, Ended):
                running.remove(trainer)


def take_step(trainers: Sequence[Trainer], task: Task) -> list[Stepped | Ended]:
    """One optimizer step of trainers that stand at the same step; nothing for none."""
    if not trainers:
        return []
    leaves = [trainer.begin_step() for trainer in trainers]
    first = trainers[0]
    losses, targets = torch.zeros(len(trainers), device=first.accelerator.device), 0
    for i in range(first.schedule.batches_per_step):
        batch = first.progress.step * first.schedule.batches_per_step + i
        # Each process takes every so-manieth batch, as if its batches were accumulated one after the other.
        position = batch * first.accelerator.num_processes + first.accelerator.process_index
        first.begin_batch(position)
        for loss, count in task.losses(position, leaves):
            first.accelerator.backward(loss.sum())
            losses, targets = losses + loss.detach(), targets + count
    if first.accelerator.num_processes > 1:
        small = [*leaves, *(p for trainer in trainers for p in trainer.head_parameters)]
        of_base = [p for trainer in trainers for p in trainer.base_parameters.values()]
        losses, targets = sum_over_processes(first.accelerator, small, of_base, losses, targets)
    return [
        trainer.end_step(leaf, loss, targets)
        for trainer, leaf, loss in zip(trainers, leaves, losses.tolist(), strict=True)
    ]
