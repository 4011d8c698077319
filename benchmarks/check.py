"""Before anything is timed: both sides compute the same loss, so that their times are times of the same thing."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor
from torch.nn import functional

from benchmarks.peft_side import PeftSide
from benchmarks.ptune_side import PTuneSide
from benchmarks.workloads import ANSWERS, QUESTION, Workload
from ptune_core.model.base import BaseModel

TOLERANCE = 1e-4
"""Largest difference of two losses, relative."""


def in_front(workload: Workload) -> Workload:
    """The workload with its prompt where PEFT puts it."""
    if workload.encoder:
        return workload
    return replace(workload, template=f"[P*{workload.virtual_tokens}] {{text}}{QUESTION}[ANSWER:label]")


@torch.no_grad()
def same_losses(workload: Workload, theirs: PeftSide, base: BaseModel) -> dict[str, float]:
    """What of the losses of one batch differs, relative; both sides in fp32, with PEFT's prompt in front.

    Args:
        workload: Whose first batch is taken.
        theirs: PEFT's side in fp32.
        base: PTune's base model in fp32.

    Raises:
        SystemExit: More than `TOLERANCE`.
    """
    theirs.attach()
    ours = PTuneSide(base, in_front(workload), theirs.data)
    theirs.model.eval()
    chosen = range(workload.batch_size)
    batch = theirs.collator([dict(theirs.rows[i]) for i in chosen])
    output = theirs.model(**batch)
    prompt = theirs.model.get_prompt(batch_size=1)[0]
    labels = torch.tensor([list(ANSWERS).index(theirs.data.labels[i]) for i in chosen])
    if base.head is not None:
        base.head.load_state_dict(theirs.model.base_model.classifier.modules_to_save["default"].state_dict())
    rows = [ours.rows[i] for i in chosen]
    logits = ours.model.label_logits(ours.model.label_batch(rows), prompt)
    found = {
        "labels": difference(functional.cross_entropy(logits, labels), label_loss(theirs, batch, output.logits, labels))
    }
    if not workload.encoder:
        answers = [ours.model.rows.encode_answer(list(ANSWERS.values())[i]) for i in labels]
        losses = ours.model.text_losses(ours.model.text_batch(rows, answers), prompt)
        found["vocabulary"] = difference(losses.mean(), output.loss)
    if not max(found.values()) <= TOLERANCE:
        raise SystemExit(f"{workload.name}: the two sides' losses differ, relative {found}; nothing was measured")
    return found


def label_loss(theirs: PeftSide, batch: dict[str, Tensor], logits: Tensor, labels: Tensor) -> Tensor:
    """Cross entropy over the labels' words from PEFT's logits `[B, P + T, V]`, or over a head's `[B, C]`."""
    if logits.dim() == 3:
        # PEFT's own loss shifts by one: the logits before the answer token are the answer's.
        answers = (batch["labels"] != -100).int().argmax(dim=1) + theirs.workload.virtual_tokens - 1
        words = [theirs.tokenizer(answer)["input_ids"][0] for answer in ANSWERS.values()]
        logits = logits[torch.arange(len(labels)), answers][:, words]
    return functional.cross_entropy(logits.float(), labels)


def difference(one: Tensor, other: Tensor) -> float:
    """How far `one` is from `other`, relative to it."""
    return float((one - other).abs() / other.abs())
