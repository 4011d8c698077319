"""Accuracy over time on the demo model: how soon PTune is where PEFT's P-tuning ends up, and LoRA beside it.

Rows are split once and all sides train and validate on the same ones. PEFT's P-tuning runs with each of three learning
rates, with the Trainer's warm-up-free linear decay, and its best validation accuracy over all of them counts; its time
is that of the run that reached it. PTune runs with its defaults; its time is when an evaluation first reaches that
accuracy. LoRA (r = 8) runs with three learning rates as well; its best is told with its time.

Time begins when the base model is loaded: tokenising, the text cache, all steps and all evaluations are in it. The
demo model's files are bf16, which is therefore every side's precision.
"""

from __future__ import annotations

import csv
import math
import random
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import peft
import torch
from torch import Tensor
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    DataCollatorForSeq2Seq,
    EvalPrediction,
    PrinterCallback,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)

from benchmarks.rounds import CLOCKS
from benchmarks.workloads import read_rows
from ptune_core.demo import DEMO_DATA, DEMO_LABELS, DEMO_MODEL
from ptune_core.runs.worker import train_here
from ptune_core.training.settings import RunSettings

VIRTUAL_TOKENS = 8
BATCH_SIZE = 16
EVAL_BATCH_SIZE = 64
RATES = {"PEFT P-tuning": (1e-3, 1e-2, 3e-2), "PEFT LoRA": (3e-4, 1e-3, 3e-3)}
"""Learning rates each of PEFT's methods is tried with."""

MAX_TEXT_TOKENS = 256 - VIRTUAL_TOKENS - 1
TEMPLATES = {"PTune, in front": "[P*8] {text~} [ANSWER:label]", "PTune, after the text": "{text~} [P*8] [ANSWER:label]"}

# Words that are one token of the demo model's tokenizer, on both sides.
AG_NEWS_WORDS = {"World": " world", "Sports": " game", "Business": " money", "Sci/Tech": " power"}

Point = tuple[float, int, float]
"""Seconds, step, accuracy."""


@dataclass(frozen=True)
class Problem:
    """Rows of text and label, and the label's words."""

    name: str
    train: list[tuple[str, str]]
    validation: list[tuple[str, str]]
    words: dict[str, str]


@dataclass(frozen=True)
class Plan:
    """Optimizer steps and evaluations of every training, one of each kind per seed, and a clock of `rounds.CLOCKS`."""

    steps: int
    seeds: Sequence[int]
    clock: str
    evaluations: int = 20

    @property
    def eval_every(self) -> int:
        """Steps between two evaluations, on all sides."""
        return max(5, self.steps // self.evaluations)


@dataclass(frozen=True)
class Curve:
    """One training: what it was, and accuracy over time."""

    side: str
    learning_rate: float
    points: list[Point]

    @property
    def best(self) -> Point:
        """The first evaluation with the highest accuracy."""
        return max(self.points, key=lambda point: (point[2], -point[0]))

    def reached(self, accuracy: float) -> Point | None:
        """The first evaluation that is at least this good."""
        return next((point for point in self.points if point[2] >= accuracy), None)


def problems(directory: Path | None) -> Iterator[Problem]:
    """The demo's data, and AG News if there is a folder of it."""
    rows = read_rows(DEMO_DATA)
    random.Random(0).shuffle(rows)
    held_out = round(0.15 * len(rows))
    yield Problem("demo", rows[held_out:], rows[:held_out], DEMO_LABELS)
    if directory is not None:
        test = read_rows(directory / "test.csv")
        random.Random(0).shuffle(test)
        yield Problem("AG News", read_rows(directory / "train.csv"), test[:400], AG_NEWS_WORDS)


def accuracy(problem: Problem, plan: Plan) -> dict[str, Any]:
    """All curves of one problem."""
    curves: dict[int, list[Curve]] = {seed: [] for seed in plan.seeds}
    for seed, found in curves.items():
        for side, template in TEMPLATES.items():
            found.append(tell(problem, seed, ours(problem, side, template, plan, seed)))
        for side, rates in RATES.items():
            found += [tell(problem, seed, theirs(problem, side, rate, plan, seed)) for rate in rates]
    return {
        "name": problem.name,
        "steps": plan.steps,
        "clock": plan.clock,
        "validation": len(problem.validation),
        "curves": [{"seed": seed, **vars(curve)} for seed, found in curves.items() for curve in found],
        "seeds": [compare(seed, found) for seed, found in curves.items()],
    }


def tell(problem: Problem, seed: int, curve: Curve) -> Curve:
    """Say how a training ended."""
    seconds, step, value = curve.best
    what = f"{problem.name}, seed {seed}, {curve.side}, learning rate {curve.learning_rate:g}"
    print(f"{what}: best {value:.3f} at step {step} after {seconds:.1f} s of {curve.points[-1][0]:.1f}", flush=True)
    return curve


def compare(seed: int, curves: Sequence[Curve]) -> dict[str, Any]:
    """PEFT's best, LoRA's best, and when each of PTune's sides reached PEFT's best; seconds, step, accuracy."""

    def best(side: str) -> Curve:
        return max((each for each in curves if each.side == side), key=lambda each: (each.best[2], -each.best[0]))

    goal = best("PEFT P-tuning")
    found: dict[str, Any] = {"seed": seed, "PEFT P-tuning": goal.best, "learning rate": goal.learning_rate}
    found["PEFT LoRA"] = best("PEFT LoRA").best
    for side in TEMPLATES:
        curve = best(side)
        reached = curve.reached(goal.best[2])
        found[side] = {"reached": reached, "best": curve.best, "ratio": goal.best[0] / reached[0] if reached else None}
    return found


def ours(problem: Problem, side: str, template: str, plan: Plan, seed: int, *, patience: int | None = None) -> Curve:
    """PTune with its defaults, through the function behind the command line."""
    with tempfile.TemporaryDirectory() as folder:
        for name, rows in (("train", problem.train), ("validation", problem.validation)):
            write_rows(Path(folder) / f"{name}.csv", rows)
        settings = RunSettings.parse(
            {
                "data": f"{folder}/train.csv",
                "validation_data": f"{folder}/validation.csv",
                "template": template,
                "labels": problem.words,
                "batch_size": BATCH_SIZE,
                "eval_batch_size": EVAL_BATCH_SIZE,
                "max_steps": plan.steps,
                "eval_every": plan.eval_every,
                "device": "cpu",
                "seed": seed,
            }
            | ({} if patience is None else {"patience": patience})
        )
        now, begun, points = CLOCKS[plan.clock], math.inf, []

        def report(line: dict[str, Any]) -> None:
            nonlocal begun
            if line["kind"] == "phase" and line["phase"] == "preparing":
                begun = now()
            elif line["kind"] == "eval":
                points.append((now() - begun, line["step"], line["value"]))

        result = train_here(settings, Path(folder) / "run", report=report)
    if result["error"]:
        raise SystemExit(result["error"]["text"])
    return Curve(side, settings.learning_rate, points)


def write_rows(path: Path, rows: Sequence[tuple[str, str]]) -> None:
    """A CSV file with the columns text and label."""
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("text", "label"), *rows])


class Scores(TrainerCallback):
    """Notes when each evaluation was done and what it found."""

    def __init__(self, begun: float, now: Callable[[], float]) -> None:
        self.begun, self.now = begun, now
        self.points: list[Point] = []

    def on_evaluate(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """See `TrainerCallback`."""
        accuracy = kwargs["metrics"]["eval_accuracy"]
        self.points.append((self.now() - self.begun, state.global_step, accuracy))


def theirs(problem: Problem, side: str, rate: float, plan: Plan, seed: int) -> Curve:
    """PEFT's P-tuning or LoRA under the Trainer; an evaluation keeps the label words' logits alone, not all of them."""
    torch.manual_seed(seed)
    tokenizer = AutoTokenizer.from_pretrained(DEMO_MODEL)
    base = AutoModelForCausalLM.from_pretrained(DEMO_MODEL)
    now = CLOCKS[plan.clock]
    begun = now()
    words = torch.tensor([tokenizer(word)["input_ids"][0] for word in problem.words.values()])
    is_lora = side == "PEFT LoRA"
    config = (
        peft.LoraConfig(task_type="CAUSAL_LM", r=8)
        if is_lora
        else peft.PromptEncoderConfig(task_type="CAUSAL_LM", num_virtual_tokens=VIRTUAL_TOKENS)
    )

    def encode(rows: Sequence[tuple[str, str]]) -> list[dict[str, list[int]]]:
        texts = tokenizer([text for text, _ in rows], truncation=True, max_length=MAX_TEXT_TOKENS)["input_ids"]
        answers = [tokenizer(problem.words[label])["input_ids"][:1] for _, label in rows]
        return [
            {"input_ids": ids + word, "attention_mask": [1] * (len(ids) + 1), "labels": [-100] * len(ids) + word}
            for ids, word in zip(texts, answers, strict=True)
        ]

    def at_answers(logits: Tensor, labels: Tensor) -> Tensor:
        places = (labels != -100).int().argmax(dim=1) - 1 + logits.shape[1] - labels.shape[1]
        return words[logits[torch.arange(len(labels)), places][:, words].argmax(dim=1)]

    def measure(output: EvalPrediction) -> dict[str, float]:
        gold = np.asarray(output.label_ids).max(axis=1)
        return {"accuracy": float((np.asarray(output.predictions) == gold).mean())}

    scores = Scores(begun, now)
    with tempfile.TemporaryDirectory() as out:
        trainer = Trainer(
            model=peft.get_peft_model(base, config),
            args=TrainingArguments(
                out, per_device_train_batch_size=BATCH_SIZE, per_device_eval_batch_size=EVAL_BATCH_SIZE,
                max_steps=plan.steps, learning_rate=rate, eval_strategy="steps", eval_steps=plan.eval_every, seed=seed,
                save_strategy="no", report_to=[], use_cpu=True, dataloader_pin_memory=False, disable_tqdm=True,
            ),
            train_dataset=encode(problem.train),
            eval_dataset=encode(problem.validation),
            data_collator=DataCollatorForSeq2Seq(tokenizer),
            compute_metrics=measure,
            preprocess_logits_for_metrics=at_answers,
            callbacks=[scores],
        )  # fmt: skip
        trainer.remove_callback(PrinterCallback)
        trainer.train()
    return Curve(side, rate, scores.points)


def table(found: dict[str, Any]) -> Iterator[str]:
    """What `accuracy` found, as Markdown."""
    yield f"\n### {found['name']} on the demo model: {found['steps']} steps, {found['validation']} validation rows\n"
    yield "| seed | PEFT's best (learning rate) | PTune in front reaches it | after the text | PEFT LoRA's best |"
    yield "|---|---|---|---|---|"
    for each in found["seeds"]:
        seconds, _, value = each["PEFT P-tuning"]
        cells = [f"{value:.3f} after {seconds:.1f} s ({each['learning rate']:g})"]
        for side in TEMPLATES:
            reached = each[side]["reached"]
            text = f"{reached[0]:.1f} s, {each[side]['ratio']:.1f} times as soon" if reached else "never"
            cells.append(f"{text}; best {each[side]['best'][2]:.3f} after {each[side]['best'][0]:.1f} s")
        cells.append(f"{each['PEFT LoRA'][2]:.3f} after {each['PEFT LoRA'][0]:.1f} s")
        yield f"| {each['seed']} | {' | '.join(cells)} |"
