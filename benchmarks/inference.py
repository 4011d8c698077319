"""Answering with adapters: PTune beside stock PEFT and the bare base model.

    python -m benchmarks.inference [--precision fp32 bf16] [--data DIR] [--rounds 5] [--adapters 10000] [--threads N]
                                   [--clock wall|cpu] [--json FILE]

GPT-2 of 124 M parameters with random weights, 20 virtual tokens in front, one prompt for both sides, texts as long as
AG News texts. PEFT has the prompt alone, as it is loaded for inference. Every round is a turn of every side; told are
the median of the rounds and, in brackets, the smallest and the largest; ratios are taken round by round.

- *first token*: from the text to the first new token: PTune's stream (what the app shows), PTune's `generate` (which is
  transformers' on the filled cache) and PEFT's `generate`. The prompt's keys and values are stored before.
- *tokens per second*: 64 new tokens after one text, the text itself included, beside the base model without virtual
  tokens and PEFT.
- *rows per second*: labels of 16 texts at once, beside PEFT's forward of the same padded batch.
- *adapters*: one batch of rows of one adapter, and of as many random ones of the pool as it has rows; with nothing
  stored but the adapters' own tensors, and with the keys and values of the prompts stored as well (then as many
  adapters are drawn from as `--stored-mib` holds). Before the first round each side had a turn that does not count.

That both sides score the same from the same prompt is checked first.
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import peft
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging

from benchmarks import machine
from benchmarks.rounds import CLOCKS, Spread, interleave
from benchmarks.training import machine_line
from benchmarks.workloads import ANSWERS, QUESTION, WORKLOADS, Data, Workload, make_data
from ptune_core.inference.pool import AdapterPool
from ptune_core.model.base import load_base_model
from ptune_core.model.generation import Sampling, generate, stream
from ptune_core.model.prompted import PromptedModel
from ptune_core.model.trained import TrainedPrompt
from ptune_core.prompt.config import PromptEncoderConfig
from ptune_core.prompt.template import TargetKind, parse_template
from ptune_core.prompt.verbalizer import Verbalizer

WORKLOAD = next(workload for workload in WORKLOADS if workload.name == "gpt2-front-20")
NEW_TOKENS = 64
TEXTS_PER_ROUND = 8
ROWS_PER_BATCH = 16
POOL_ROWS = 32
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}

Turn = Callable[[], float]
"""What a side does in one round, and how much of it per second (or, for the first token, seconds per text)."""


class Both:
    """Both sides with one prompt on the same base model, ready.

    Args:
        workload: Which.
        data: From `make_data`.
        precision: Of the base model.
    """

    def __init__(self, workload: Workload, data: Data, precision: str) -> None:
        self.now, self.precision, self.texts = CLOCKS[workload.clock], precision, data.texts
        self.tokenizer = AutoTokenizer.from_pretrained(data.folder)
        self.base = load_base_model(data.folder, target=TargetKind.ANSWER, device="cpu", precision=precision)
        template = parse_template(workload.template)
        self.model = PromptedModel(self.base, template, Verbalizer.from_labels(list(ANSWERS), ANSWERS))
        torch.manual_seed(1)
        self.prompt = torch.randn(workload.virtual_tokens, self.base.hidden_size) * 0.02
        self.prefix = self.model.prefix(self.prompt)
        stock = AutoModelForCausalLM.from_pretrained(data.folder, dtype=DTYPES[precision])
        self.bare = AutoModelForCausalLM.from_pretrained(data.folder, dtype=DTYPES[precision]).eval()
        config = peft.PromptEncoderConfig(
            task_type="CAUSAL_LM", num_virtual_tokens=workload.virtual_tokens, inference_mode=True
        )
        adapted: Any = peft.get_peft_model(stock, config)
        self.peft = adapted.eval()
        self.peft.prompt_encoder["default"].embedding.weight.data.copy_(self.prompt)
        for model in (self.base.model, stock, self.bare):  # random weights may end a text at any token
            model.generation_config.eos_token_id = None
        self.base.tokenizer.eos_token = None

    def encode(self, texts: Sequence[str]) -> dict[str, Tensor]:
        """Texts as PEFT and the bare base model take them."""
        return dict(self.tokenizer([text + QUESTION for text in texts], padding=True, return_tensors="pt"))

    def rows(self, texts: Sequence[str]) -> list[Any]:
        """Texts as PTune takes them."""
        return self.model.make_rows([{"text": text} for text in texts])

    @torch.no_grad()
    def peft_scores(self, texts: Sequence[str]) -> Tensor:
        """PEFT's logits of the answers, `[B, C]`."""
        inputs = self.encode(texts)
        logits = self.peft(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"]).logits
        last = inputs["attention_mask"].sum(dim=1) - 1 + len(self.prompt)
        assert self.model.answer_ids is not None
        return logits[torch.arange(len(texts)), last][:, self.model.answer_ids].float()

    def difference(self) -> float:
        """How far the two sides' scores are apart, relative to the largest."""
        texts = self.texts[:ROWS_PER_BATCH]
        ours, theirs = self.model.scores(self.rows(texts), self.prompt, self.prefix), self.peft_scores(texts)
        return float((ours - theirs).abs().max() / theirs.abs().max())

    def chosen(self, turn: int, count: int) -> list[str]:
        """The texts of a turn, the same for all sides."""
        return random.Random(turn).sample(self.texts, count)


def first_token(both: Both) -> dict[str, Turn]:
    """Seconds from a text to its first new token."""

    def streamed(text: str) -> None:
        next(stream(both.model, both.rows([text])[0], both.prompt, Sampling(1), both.prefix), None)

    def generated(text: str) -> None:
        row = both.rows([text])[0]
        generate(both.model, row, both.prompt, prefix=both.prefix, max_new_tokens=1, do_sample=False)

    def whole(text: str) -> None:
        next(stream(both.model, both.rows([text])[0], both.prompt, Sampling(1)), None)

    def pefts(text: str) -> None:
        both.peft.generate(**_for_generate(both, text), max_new_tokens=1, do_sample=False)

    sides = {"PTune stream": streamed, "PTune generate": generated, "PTune, nothing stored": whole, "PEFT": pefts}
    return {name: _per_text(both, side) for name, side in sides.items()}


def _per_text(both: Both, answer: Callable[[str], None]) -> Turn:
    turns = iter(range(1_000_000))

    def turn() -> float:
        texts = both.chosen(next(turns), TEXTS_PER_ROUND)
        begun = both.now()
        for text in texts:
            answer(text)
        return (both.now() - begun) / len(texts)

    return turn


def tokens_per_second(both: Both) -> dict[str, Turn]:
    """New tokens per second, one text at a time."""

    def streamed(text: str) -> None:
        *_, _last = stream(both.model, both.rows([text])[0], both.prompt, Sampling(NEW_TOKENS), both.prefix)

    def generated(text: str) -> None:
        row = both.rows([text])[0]
        found = generate(both.model, row, both.prompt, prefix=both.prefix, max_new_tokens=NEW_TOKENS, do_sample=False)
        assert found.shape[1] == NEW_TOKENS

    def bare(text: str) -> None:
        inputs = _for_generate(both, text)
        found = both.bare.generate(**inputs, max_new_tokens=NEW_TOKENS, do_sample=False)
        assert found.shape[1] == inputs["input_ids"].shape[1] + NEW_TOKENS

    def pefts(text: str) -> None:
        both.peft.generate(**_for_generate(both, text), max_new_tokens=NEW_TOKENS, do_sample=False)

    sides = {"PTune stream": streamed, "PTune generate": generated, "base model alone": bare, "PEFT": pefts}
    return {name: _rate(both, side) for name, side in sides.items()}


def _rate(both: Both, answer: Callable[[str], None]) -> Turn:
    turns = iter(range(1_000_000))

    def turn() -> float:
        [text] = both.chosen(next(turns), 1)
        begun = both.now()
        answer(text)
        return NEW_TOKENS / (both.now() - begun)

    return turn


def _for_generate(both: Both, text: str) -> dict[str, Tensor]:
    inputs = both.encode([text])
    return {name: inputs[name] for name in ("input_ids", "attention_mask")}


def rows_per_second(both: Both) -> dict[str, Turn]:
    """Rows labelled per second, `ROWS_PER_BATCH` at once."""

    def side(score: Callable[[list[str]], object]) -> Turn:
        turns = iter(range(1_000_000))

        def turn() -> float:
            texts = both.chosen(next(turns), ROWS_PER_BATCH)
            begun = both.now()
            score(texts)
            return len(texts) / (both.now() - begun)

        return turn

    return {
        "PTune": side(lambda texts: both.model.scores(both.rows(texts), both.prompt, both.prefix)),
        "PTune, nothing stored": side(lambda texts: both.model.scores(both.rows(texts), both.prompt)),
        "PEFT": side(both.peft_scores),
    }


class Pools:
    """Pools of one and of many adapters with random prompts.

    Args:
        both: For its base model and texts.
        workload: For the template.
        num_adapters: Of the large pool.
        stored_mib: MiB for stored keys and values.
    """

    def __init__(self, both: Both, workload: Workload, num_adapters: int, stored_mib: float) -> None:
        self.both, self.workload = both, workload
        before = machine.resident_mib()
        self.many = self.pool(num_adapters, 0)
        self.memory = {
            "adapters": num_adapters,
            "MiB of their tensors": self.many.mib,
            "MiB of memory": machine.resident_mib() - before,
        }
        self.one, self.one_stored = self.pool(1, 0), self.pool(1, stored_mib)
        stored = self.pool(1, stored_mib)
        stored.classify([("0", {"text": "a"})])
        self.num_stored = min(num_adapters, int(stored_mib / stored.prefix_mib))
        self.many_stored = self.pool(self.num_stored, stored_mib)
        self.many_stored.classify([(str(i), {"text": "a"}) for i in range(self.num_stored)])
        self.memory |= {"adapters stored": self.num_stored, "MiB stored": self.many_stored.prefix_mib}

    def pool(self, num_adapters: int, stored_mib: float) -> AdapterPool:
        """A pool of adapters named 0, 1, ..."""
        base, workload = self.both.base, self.workload
        pool = AdapterPool(base, batch_size=POOL_ROWS, prefix_mib=stored_mib)
        config = PromptEncoderConfig(task_type="CAUSAL_LM", num_virtual_tokens=workload.virtual_tokens)
        trained = TrainedPrompt(
            self.both.prompt, workload.template, ANSWERS, tuple(ANSWERS), {}, base.id, None, {}, {}, config, None
        )
        generator = torch.Generator().manual_seed(0)
        for i in range(num_adapters):
            prompt = torch.randn(self.both.prompt.shape, generator=generator) * 0.02
            pool.add(str(i), replace(trained, prompt_embeddings=prompt))
        return pool

    def turns(self) -> dict[str, Turn]:
        """Rows per second of each pool."""
        return {
            "one adapter": self.side(self.one, 1),
            "mixed": self.side(self.many, len(self.many)),
            "one adapter, stored": self.side(self.one_stored, 1),
            "mixed, stored": self.side(self.many_stored, self.num_stored),
        }

    def side(self, pool: AdapterPool, num_adapters: int) -> Turn:
        """Rows of random adapters of a pool, another draw every turn."""
        turns = iter(range(1_000_000))

        def turn() -> float:
            number = next(turns)
            names = random.Random(number).choices(range(num_adapters), k=POOL_ROWS)
            texts = self.both.chosen(number, POOL_ROWS)
            requests = [(str(name), {"text": text}) for name, text in zip(names, texts, strict=True)]
            begun = self.both.now()
            pool.classify(requests)
            return len(requests) / (self.both.now() - begun)

        return turn


def measure(workload: Workload, data: Data, precision: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """All parts in one precision."""
    both = Both(workload, data, precision)
    found: dict[str, Any] = {"precision": precision, "scores_differ_by": both.difference()}
    pools = Pools(both, workload, arguments.adapters, arguments.stored_mib)
    found["memory"] = {name: round(value, 1) for name, value in pools.memory.items()}
    parts = {
        "seconds to the first token": first_token(both),
        "tokens per second": tokens_per_second(both),
        "rows per second": rows_per_second(both),
        "rows per second of a pool": pools.turns(),
    }
    for name, sides in parts.items():
        interleave(sides, 1)
        load = machine.describe()["load"][0]
        measured = interleave(sides, arguments.rounds)
        found[name] = {"load": load, "sides": {side: asdict(Spread.of(values)) for side, values in measured.items()}}
        found[name]["ratios"] = {what: asdict(Spread.of(values)) for what, values in ratios(name, measured)}
    return found


def ratios(part: str, measured: Mapping[str, list[float]]) -> Iterator[tuple[str, list[float]]]:
    """What was asked for, round by round."""

    def over(one: str, other: str) -> list[float]:
        return [a / b for a, b in zip(measured[one], measured[other], strict=True)]

    if part == "seconds to the first token":
        yield "PEFT / PTune stream (asked: 1.2)", over("PEFT", "PTune stream")
        yield "PEFT / PTune generate (asked: 1.2)", over("PEFT", "PTune generate")
    elif part == "tokens per second":
        yield "PTune stream / base model alone (asked: 0.98)", over("PTune stream", "base model alone")
        yield "PTune generate / base model alone (asked: 0.98)", over("PTune generate", "base model alone")
        yield "PEFT / base model alone", over("PEFT", "base model alone")
    elif part == "rows per second":
        yield "PTune / PEFT", over("PTune", "PEFT")
    else:
        yield "mixed / one adapter, nothing stored (asked: 0.9)", over("mixed", "one adapter")
        yield "mixed, nothing stored / one adapter, stored", over("mixed", "one adapter, stored")
        yield "mixed / one adapter, both stored", over("mixed, stored", "one adapter, stored")


def table(found: Mapping[str, Any]) -> Iterator[str]:
    """What `measure` found, as Markdown."""
    yield f"\n### {found['precision']}"
    yield f"Scores of the two sides differ by {found['scores_differ_by']:.0e}. Pool: {found['memory']}.\n"
    yield "| | side | median (smallest to largest) |\n|---|---|---|"
    for name, part in found.items():
        if isinstance(part, dict) and "sides" in part:
            for side, spread in part["sides"].items():
                scale = 1000 if name.startswith("seconds") else 1
                shown = Spread(*(value * scale for value in spread.values()))
                yield f"| {name.replace('seconds', 'ms') if scale == 1000 else name} | {side} | {shown} |"
            for what, spread in part["ratios"].items():
                yield f"| ratio, load {part['load']} | {what} | **{Spread(**spread)}** |"


def main() -> None:
    """Measure, print, write down."""
    arguments = parse_arguments()
    torch.set_num_threads(arguments.threads)
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    workload = replace(WORKLOAD.small if arguments.tiny else WORKLOAD, clock=arguments.clock, batches=16)
    found: dict[str, Any] = {
        "arguments": vars(arguments) | {"json": None, "data": str(arguments.data)},
        "machine": machine.describe(),
        "precisions": [],
    }
    print(machine_line(found["machine"]), flush=True)
    with tempfile.TemporaryDirectory() as folder:
        data = make_data(workload, arguments.data, Path(folder))
        for precision in arguments.precision:
            found["precisions"].append(measure(workload, data, precision, arguments))
            print("\n".join(table(found["precisions"][-1])), flush=True)
    found["load_after"] = machine.describe()["load"]
    print(f"\nLoad average afterwards: {found['load_after']}")
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=1))


def parse_arguments(given: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line of this benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--precision", nargs="+", choices=list(DTYPES), default=list(DTYPES))
    parser.add_argument("--data", type=Path, help="holds train.csv with the columns text and label")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--adapters", type=int, default=10_000)
    parser.add_argument("--stored-mib", type=float, default=512)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument(
        "--clock", choices=list(CLOCKS), default="wall", help="cpu only means something with --threads 1"
    )
    parser.add_argument("--tiny", action="store_true", help="two narrow layers, to try the benchmark itself")
    parser.add_argument("--json", type=Path)
    return parser.parse_args(given)


if __name__ == "__main__":
    main()
