"""Stock PEFT and transformers' Trainer, as their documentation puts them together."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import peft
import torch
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    DataCollatorForSeq2Seq,
    DataCollatorWithPadding,
    PrinterCallback,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)

from benchmarks.rounds import CLOCKS, Round
from benchmarks.workloads import ANSWERS, QUESTION, Data, Workload

_NO_DROPOUT = {
    False: {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0},
    True: {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0},
}


@dataclass(frozen=True)
class Setup:
    """How PEFT's side is set up.

    Attributes:
        precision: Of the base model: `fp32` (what `from_pretrained` gives) or `bf16` (`dtype=torch.bfloat16`).
        tuned: Batches by length and a base model without dropout: what a user of PEFT can do without writing code.
    """

    precision: str
    tuned: bool = False


SETUPS = {"PEFT fp32": Setup("fp32"), "PEFT bf16": Setup("bf16"), "PEFT tuned": Setup("bf16", tuned=True)}
"""As installed; in bf16; and as its users can tune it."""


class Clock(TrainerCallback):
    """Takes the time at the end of every optimizer step, by `now`."""

    def __init__(self, now: Callable[[], float]) -> None:
        self.now = now
        self.moments: list[float] = []

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> None:
        """See `TrainerCallback`."""
        self.moments.append(self.now())


class PeftSide:
    """Trains a prompt in front with PEFT's defaults.

    Args:
        workload: What is trained.
        data: On what.
        setup: How.
    """

    def __init__(self, workload: Workload, data: Data, setup: Setup) -> None:
        self.workload, self.data, self.setup = workload, data, setup
        self.tokenizer = AutoTokenizer.from_pretrained(data.folder)
        self.rounds = 0
        self.rows = [self.encode(text, label) for text, label in zip(data.texts, data.labels, strict=True)]
        self.base = load(workload, data, setup)
        self.model: Any = None

    def attach(self) -> None:
        """Put the prompt on the base model."""
        if self.model is not None:
            return
        torch.manual_seed(0)
        kind = "SEQ_CLS" if self.workload.encoder else "CAUSAL_LM"
        config = peft.PromptEncoderConfig(task_type=kind, num_virtual_tokens=self.workload.virtual_tokens)
        self.model = peft.get_peft_model(self.base, config)

    def encode(self, text: str, label: str) -> dict[str, Any]:
        """One example as the model takes it."""
        if self.workload.encoder:
            return {**self.tokenizer(text), "labels": list(ANSWERS).index(label)}
        question = self.tokenizer(text + QUESTION)["input_ids"]
        answer = self.tokenizer(ANSWERS[label])["input_ids"]
        ids = [*question, *answer]
        return {"input_ids": ids, "attention_mask": [1] * len(ids), "labels": [-100] * len(question) + answer}

    @property
    def collator(self) -> Any:
        """Pads a batch to its longest row."""
        return (
            DataCollatorWithPadding(self.tokenizer) if self.workload.encoder else DataCollatorForSeq2Seq(self.tokenizer)
        )

    def round(self) -> Round:
        """The steps of a round, timed, after one that is not; every round draws its batches anew."""
        self.attach()
        self.rounds += 1
        clock = Clock(CLOCKS[self.workload.clock])
        with tempfile.TemporaryDirectory() as out:
            trainer = Trainer(
                model=self.model,
                args=self.arguments(out),
                train_dataset=self.rows,
                data_collator=self.collator,
                callbacks=[clock],
            )
            trainer.remove_callback(PrinterCallback)
            trainer.train()
        seconds = [end - begin for begin, end in pairwise(clock.moments)]
        return Round(seconds, self.workload.batch_size)

    def arguments(self, out: str) -> TrainingArguments:
        """The Trainer's defaults but for the batch size and the steps; it writes and reports nothing."""
        sampling: dict[str, Any] = {"train_sampling_strategy": "group_by_length"} if self.setup.tuned else {}
        return TrainingArguments(
            out,
            per_device_train_batch_size=self.workload.batch_size,
            max_steps=self.workload.peft_steps + 1,
            learning_rate=1e-3,
            seed=self.rounds,
            use_cpu=self.workload.device == "cpu",
            dataloader_pin_memory=False,
            save_strategy="no",
            report_to=[],
            disable_tqdm=True,
            **sampling,
        )


def load(workload: Workload, data: Data, setup: Setup) -> Any:
    """The base model, as a user of PEFT loads it."""
    torch.manual_seed(0)
    options: dict[str, Any] = {"dtype": torch.bfloat16} if setup.precision == "bf16" else {}
    if setup.tuned:
        options |= _NO_DROPOUT[workload.encoder]
    if workload.encoder:
        return AutoModelForSequenceClassification.from_pretrained(data.folder, num_labels=len(ANSWERS), **options)
    return AutoModelForCausalLM.from_pretrained(data.folder, **options)
