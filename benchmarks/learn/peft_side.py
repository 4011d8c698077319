"""PEFT's sides under transformers' Trainer: P-tuning and LoRA with the stock head, and LoRA with a head as PTune's.

Nothing of PTune is imported: it would be on these sides' time. The base model is in fp32: a stock head in the bf16 of
the demo model's file would lose its small steps to rounding.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from typing import Any

import peft
import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import (
    AutoModel,
    AutoModelForSequenceClassification,
    PrinterCallback,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)

from benchmarks.learn.job import Job, Meter
from benchmarks.learn.names import LORA_OUR_HEAD, P_TUNING
from benchmarks.learn.texts import Texts, mean_state, mean_states

LORA_OPTIONS: dict[str, Any] = {"r": 8, "lora_alpha": 16, "lora_dropout": 0.0}
"""Its target modules are PEFT's default for the base model's architecture."""

STANDARDISED_OVER = 512
"""Training rows that decide mean and scale of what our head reads."""

SMALLEST_SCALE = 1e-6
"""A dimension that never changes is not divided by nothing."""


class MeanHead(nn.Module):
    """A body with a linear head on its mean hidden states, standardised.

    Args:
        body: A model without a head, with its LoRA.
        mean: `[H]`, of what the head reads of training rows.
        scale: `[H]`, their standard deviation.
        num_labels: C.
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, body: Any, mean: Tensor, scale: Tensor, num_labels: int) -> None:
        super().__init__()
        self.body, self.head = body, nn.Linear(len(mean), num_labels)
        nn.init.normal_(self.head.weight, std=0.02)  # as transformers starts its heads
        nn.init.zeros_(self.head.bias)
        self.register_buffer("mean", mean)
        self.register_buffer("scale", scale)

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        special_tokens_mask: Tensor,
        token_type_ids: Tensor | None = None,
        labels: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """Logits `[B, C]` of token ids and masks `[B, T]`, and the loss if there are class indices `[B]`."""
        inputs = {"input_ids": input_ids, "attention_mask": attention_mask}
        if token_type_ids is not None:
            inputs["token_type_ids"] = token_type_ids
        logits = self.head((mean_state(self.body, inputs, special_tokens_mask) - self.mean) / self.scale)
        return {"logits": logits} | ({} if labels is None else {"loss": functional.cross_entropy(logits, labels)})


class Points(TrainerCallback):
    """Measures before the first step, after every so many, and after the last."""

    def __init__(self, meter: Meter, model: Any, texts: Texts, labels: Sequence[str]) -> None:
        self.meter, self.model, self.texts, self.labels = meter, model, texts, labels
        self.last = 0.0

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> None:
        """See `TrainerCallback`."""
        self.note(0)

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> None:
        """See `TrainerCallback`."""
        if state.global_step % int(args.eval_steps or 1) == 0 or state.global_step == state.max_steps:
            self.note(state.global_step)

    def note(self, step: int) -> None:
        """Measure; the Trainer's next step turns dropout on again."""
        self.last = self.meter.note(step, self.predict)

    @torch.no_grad()
    def predict(self, texts: Sequence[str]) -> list[str]:
        """Labels of texts."""
        self.model.eval()
        found = [""] * len(texts)
        for places, batch in self.texts.batches(texts):
            for place, label in zip(places, self.model(**batch)["logits"].argmax(dim=1).tolist(), strict=True):
                found[place] = self.labels[label]
        return found


def learn(job: Job, meter: Meter) -> None:
    """Train as PEFT's documentation puts it together, measured every so many steps; it ends with its last step."""
    torch.manual_seed(job.seed)
    rows = job.rows("train")
    labels = sorted({label for _, label in rows})
    has_our_head = job.side == LORA_OUR_HEAD
    texts = Texts(
        job.base_model,
        virtual_tokens=job.virtual_tokens if job.side == P_TUNING else 0,
        special=has_our_head,
    )
    model = with_our_head(job, texts, rows, len(labels)) if has_our_head else with_stock_head(job, len(labels))
    points = Points(meter, model, texts, labels)
    with tempfile.TemporaryDirectory() as out:
        trainer = Trainer(
            model=model,
            args=arguments(job, out),
            train_dataset=texts.encode([text for text, _ in rows], [labels.index(label) for _, label in rows]),
            data_collator=texts.collate,
            callbacks=[points],
        )
        trainer.remove_callback(PrinterCallback)
        trainer.train()
    meter.end(points.last)


def arguments(job: Job, out: str) -> TrainingArguments:
    """The Trainer's defaults but for PTune's batch size, the steps and the rate; it writes and reports nothing."""
    assert job.rate is not None, "PEFT's sides are given their learning rate"
    return TrainingArguments(
        out,
        per_device_train_batch_size=job.batch_size,
        max_steps=job.steps,
        learning_rate=job.rate,
        eval_steps=job.every,
        seed=job.seed,
        save_strategy="no",
        report_to=[],
        dataloader_pin_memory=torch.cuda.is_available(),
        disable_tqdm=True,
    )


def with_stock_head(job: Job, num_labels: int) -> Any:
    """P-tuning or LoRA on the base model with the head that transformers puts on it."""
    base = AutoModelForSequenceClassification.from_pretrained(
        job.base_model, num_labels=num_labels, dtype=torch.float32
    )
    config: peft.PeftConfig
    if job.side == P_TUNING:
        config = peft.PromptEncoderConfig(task_type="SEQ_CLS", num_virtual_tokens=job.virtual_tokens)
    else:
        config = peft.LoraConfig(task_type="SEQ_CLS", **LORA_OPTIONS)
    return peft.get_peft_model(base, config)


def with_our_head(job: Job, texts: Texts, rows: Sequence[tuple[str, str]], num_labels: int) -> MeanHead:
    """LoRA on the base model without a head, and ours, standardised over the first of shuffled training rows."""
    base = AutoModel.from_pretrained(job.base_model, dtype=torch.float32)
    drawn = torch.randperm(len(rows))[:STANDARDISED_OVER].tolist()
    states = mean_states(base, texts, [rows[i][0] for i in drawn])
    body = peft.get_peft_model(base, peft.LoraConfig(task_type="FEATURE_EXTRACTION", **LORA_OPTIONS))
    return MeanHead(body, states.mean(dim=0), states.std(dim=0).clamp(min=SMALLEST_SCALE), num_labels)
