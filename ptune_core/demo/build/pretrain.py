"""Pretrain the demo model: `python -m ptune_core.demo.build.pretrain --text DIR --minutes 70 --out DIR --seed 0`.

`DIR` of `--text` holds `tinystories*.txt` and `books/*.md`. The learning rate follows the clock, not a step count, so
that it always decays fully in the minutes given, however busy the machine is. Weights are written every few minutes.
"""

import argparse
import csv
import json
import math
import random
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from ptune_core.demo import DEMO_DATA
from ptune_core.demo.build import corpus

VOCABULARY = 4096
LossFunction = Callable[[torch.Tensor, torch.Tensor], tuple[torch.Tensor, torch.Tensor]]
LENGTH = 256
BATCH = 16
SHARES = {"reviews": 0.62, "stories": 0.22, "books": 0.16}


def train_tokenizer(texts: list[str]) -> Tokenizer:
    """A byte-level BPE whose end token is also the padding token."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=[corpus.END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def make_tokenizer(text: Path, seed: int) -> Tokenizer:
    """Train the tokenizer on stories, books and reviews."""
    stories, books = corpus.read_stories(text), corpus.read_books(text)
    sample = random.Random(seed).sample(books, min(len(books), 600))
    documents = corpus.Documents(seed + 7, {True: [], False: []}, set())
    return train_tokenizer([*stories[:6000], *sample, *(documents.draw().text for _ in range(60000))])


def save_tokenizer(tokenizer: Tokenizer, out: Path) -> None:
    """Write tokenizer.json and tokenizer_config.json."""
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=corpus.END,
        bos_token=corpus.END,
        pad_token=corpus.END,
        model_max_length=LENGTH,
        clean_up_tokenization_spaces=False,
    )
    fast.save_pretrained(out)
    path = out / "tokenizer_config.json"
    about = json.loads(path.read_text(encoding="utf-8")) | {"tokenizer_class": "PreTrainedTokenizerFast"}
    about.pop("backend", None)  # so that transformers 4 reads it too
    path.write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")


def build_model(end: int, seed: int) -> LlamaForCausalLM:
    """A Llama of 4.3 million parameters with tied embeddings."""
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=256,
        intermediate_size=704,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=LENGTH,
        tie_word_embeddings=True,
        bos_token_id=end,
        eos_token_id=end,
        pad_token_id=end,
        attention_bias=False,
        use_cache=False,
    )
    return LlamaForCausalLM(config)


def batches(text: Path, tokenizer: Tokenizer, seed: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Token and weight batches `[B, L]` in the shares above."""
    stories, books = corpus.read_stories(text), corpus.read_books(text)
    toned = corpus.toned_sentences([*stories, *books])
    print(f"stories {len(stories)} books {len(books)} toned +{len(toned[True])} -{len(toned[False])}", flush=True)
    avoid: set[str] = set()
    if DEMO_DATA.exists():
        with DEMO_DATA.open(encoding="utf-8", newline="") as file:
            avoid = {row["text"] for row in csv.DictReader(file)}
    documents = corpus.Documents(seed, toned, avoid)
    sources = {
        "reviews": corpus.single_rows(corpus.review_rows(documents, tokenizer, LENGTH), seed),
        "stories": corpus.single_rows(corpus.text_rows(stories, tokenizer, LENGTH, seed), seed),
        "books": corpus.single_rows(corpus.text_rows(books, tokenizer, LENGTH, seed), seed),
    }
    rng = np.random.default_rng(seed)
    while True:
        kinds = rng.choice(list(SHARES), size=BATCH, p=list(SHARES.values()))
        rows = [next(sources[kind]) for kind in kinds]
        yield (
            torch.from_numpy(np.stack([row[0] for row in rows])).long(),
            torch.from_numpy(np.stack([row[1] for row in rows])),
        )


def learning_rate(share: float, step: int) -> float:
    """Factor of the peak rate: a short warm-up, flat for a fifth of the time, then down a cosine to two percent."""
    warm = min(1.0, (step + 1) / 60)
    if share < 0.2:
        return warm
    return warm * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * min(1.0, (share - 0.2) / 0.8))))


def build_optimizers(model: LlamaForCausalLM, peak: float) -> list[torch.optim.Optimizer]:
    """Muon for the matrices of the layers, AdamW for embeddings and norms."""
    matrices = [p for name, p in model.named_parameters() if p.ndim == 2 and "embed" not in name]
    embeddings = [p for name, p in model.named_parameters() if "embed" in name]
    norms = [p for p in model.parameters() if p.ndim == 1]
    groups = [{"params": embeddings, "weight_decay": 0.1}, {"params": norms, "weight_decay": 0.0}]
    optimizers: list[torch.optim.Optimizer] = [
        torch.optim.Muon(matrices, lr=2 * peak, weight_decay=0.1, momentum=0.95, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(groups, lr=peak, betas=(0.9, 0.95)),
    ]
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["peak"] = group["lr"]
    return optimizers


def loss_function(model: LlamaForCausalLM, compiled: bool) -> LossFunction:
    """Tokens and weights `[B, L]` -> weighted next-token loss and its plain mean; compiled, a step takes 40% less."""

    def loss(tokens: torch.Tensor, weights: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            logits = model(input_ids=tokens, use_cache=False).logits
        target, weight = tokens[:, 1:].reshape(-1), weights[:, 1:].reshape(-1)
        flat = logits[:, :-1].reshape(-1, logits.shape[-1]).float()
        each = torch.nn.functional.cross_entropy(flat, target, reduction="none")
        return (each * weight).sum() / weight.sum(), each.mean()

    return torch.compile(loss) if compiled else loss


def save(model: LlamaForCausalLM, out: Path, numbers: dict[str, float]) -> None:
    """Write bf16 weights, config and numbers; the old weights stay until the new ones are complete."""
    fresh = out / "fresh"
    copy = LlamaForCausalLM(model.config)
    copy.load_state_dict(model.state_dict())
    copy.config.use_cache = True
    copy.bfloat16().save_pretrained(fresh)
    for path in fresh.iterdir():
        path.replace(out / path.name)
    fresh.rmdir()
    model.config.use_cache = False
    (out / "pretraining.json").write_text(json.dumps(numbers, indent=1) + "\n", encoding="utf-8")


def train(args: argparse.Namespace, tokenizer: Tokenizer) -> None:
    """Train until the minutes are over."""
    model = build_model(corpus.end_id(tokenizer), args.seed)
    step = tokens = 0
    if args.resume:
        model.load_state_dict(LlamaForCausalLM.from_pretrained(args.resume, dtype=torch.float32).state_dict())
        before = json.loads((args.resume / "pretraining.json").read_text(encoding="utf-8"))
        step, tokens = before["steps"], before["tokens"]
    loss_of = loss_function(model, args.compile)
    optimizers = build_optimizers(model, args.peak)
    source = batches(args.text, tokenizer, args.seed)
    first = next(source)
    start = saved = time.monotonic()
    mean, first_step, first_tokens = 0.0, step, tokens
    while (share := (time.monotonic() - start) / (args.minutes * 60)) < 1.0:
        batch, weights = first if step == first_step else next(source)
        loss, plain = loss_of(batch, weights)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                group["lr"] = group["peak"] * learning_rate(share, step - first_step)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        step, tokens = step + 1, tokens + batch.numel()
        mean = float(plain.detach()) if step == first_step + 1 else 0.98 * mean + 0.02 * float(plain.detach())
        if step % 25 == 0:
            rate = (tokens - first_tokens) / (time.monotonic() - start)
            print(f"step {step} share {share:.3f} loss {mean:.3f} tokens {tokens} per s {rate:.0f}", flush=True)
        if time.monotonic() - saved > args.save_every:
            saved = time.monotonic()
            save(model, args.out, {"steps": step, "tokens": tokens, "loss": round(mean, 4), "share": round(share, 4)})
    minutes = round((time.monotonic() - start) / 60, 1)
    save(model, args.out, {"steps": step, "tokens": tokens, "loss": round(mean, 4), "share": 1.0, "minutes": minutes})


def main(argv: list[str]) -> int:
    """Parse the command line, train the tokenizer and the model."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--text", type=Path, required=True, help="folder with tinystories*.txt and books/*.md")
    parser.add_argument("--minutes", type=float, default=70.0)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--peak", type=float, default=3e-3, help="peak learning rate")
    parser.add_argument("--resume", type=Path, help="folder with a tokenizer and weights to go on from")
    parser.add_argument("--compile", action="store_true", help="compile the model first: minutes, but faster steps")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--save-every", type=float, default=180.0, help="seconds between weights")
    args = parser.parse_args(argv)
    torch.set_num_threads(args.threads)
    args.out.mkdir(parents=True, exist_ok=True)
    if args.resume:
        tokenizer = Tokenizer.from_file(str(args.resume / "tokenizer.json"))
    else:
        tokenizer = make_tokenizer(args.text, args.seed)
    save_tokenizer(tokenizer, args.out)
    print(f"tokenizer of {tokenizer.get_vocab_size()}", flush=True)
    train(args, tokenizer)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
