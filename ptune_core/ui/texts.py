"""The page's sentences, so that the same thing is said the same way everywhere. Plain Python."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from typing import Any

from ptune_core.runs.live import duration
from ptune_core.runs.states import RunState

TAGLINE = "Teach a frozen language model a task with a few trainable virtual tokens."
IDLE_CPU = "Ready · CPU only: the demo model trains in about a minute, larger models are slow"
ABOUT_BASE_MODEL = "One from the list, any Hub id such as openai-community/gpt2, or a local folder."
ABOUT_TEMPLATE = (
    "{column} is filled from the data, [P*8] are eight virtual tokens, [ANSWER:column] or [HEAD:column] is the target. "
    "~ marks the text that may be cut when an example is too long, as in {text~}."
)
EPHEMERAL = (
    "**This Space forgets runs when it restarts.** Download the adapter of every run you want to keep, "
    "or mount a storage bucket at `/data`."
)
READING = "Reading…"
STARTED = "Started. You can close this page; the run goes on, and the address of this page leads back to it."
RESUME = "Resume goes on from the last checkpoint."
STOPPING = "Stopping at the next step. The best result so far is kept."
NO_ADAPTER = "Choose an adapter above. If there is none yet, train the example: it takes about a minute."
WORKING = (
    '<p class="working" role="status">Working… The first answer loads the model and takes some seconds longer.</p>'
)
NO_BETTER = (
    "This adapter is no better {}. Try more steps, a learning rate three times higher or lower, "
    "more rows, or answer words that fit the labels better."
)
CHOOSE_RUN = "Choose a run from the list, or start one on the Train tab."

WHAT_HAPPENS = (
    "The prompt encoder learns. A frozen base model stays as it is; a tuned one learns too. The run belongs to this "
    "computer, not to the page: close it, come back, or stop from any browser. The best step by validation becomes the "
    "adapter."
)

LABELS = {
    "base_model": "Base model",
    "base_weights": "The base model's own weights",
    "base_learning_rate": "Learning rate of a tuned base model",
    "encoder_reparameterization_type": "Prompt encoder",
    "encoder_hidden_size": "Hidden size",
    "encoder_num_layers": "LSTM layers",
    "encoder_dropout": "Dropout",
    "prompt_init": "Start of the virtual tokens",
    "prompt_init_text": "Initial text",
    "prompt_init_adapter": "Initial adapter",
    "max_steps": "Steps",
    "max_grad_norm": "Gradient clipping",
    "warmup_ratio": "Warm-up",
    "gradient_accumulation_steps": "Accumulation",
    "eval_every": "Evaluate every",
    "eval_batch_size": "Evaluation batch size",
    "checkpoint_every": "Checkpoint every",
    "validation_fraction": "Validation share",
    "max_validation_rows": "Validation rows at most",
    "max_length": "Tokens per example",
    "max_new_tokens": "New tokens at most",
    "text_cache_mib": "Text cache (MiB)",
}
"""Short labels for settings whose names are long or technical; the others are their names in plain words."""


def label(setting: str) -> str:
    """What the form calls a setting."""
    return LABELS.get(setting, setting.replace("_", " ").capitalize())


def number(value: float | None) -> str:
    """A result as people read it: three places, or a dash where there is none."""
    return "" if value is None else f"{value:.3f}"


def size(num_bytes: int) -> str:
    """``61234`` -> ``61 kB``."""
    if num_bytes < 1000:
        return f"{num_bytes} B"
    return f"{num_bytes / 1000:.0f} kB" if num_bytes < 1_000_000 else f"{num_bytes / 1_000_000:.1f} MB"


def plain(text: str) -> str:
    """Text that came from people, safe to put into Markdown."""
    return re.sub(r"([\\`*_{}\[\]<>()#+!|~$&-])", r"\\\1", text)


def download(is_tuned: bool, num_bytes: int) -> str:
    """What the button says that fetches an adapter's zip, with what is in it and how much."""
    what = "tuned model and adapter" if is_tuned else "adapter"
    return f"Download {what} (.zip, {size(num_bytes)})"


def file_name(name: str) -> str:
    """A run's name as the start of a file name."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-.")[:60] or "ptune"


def queued(name: str, position: int) -> str:
    """Where a run stands in the queue; position 1 is next."""
    place = "next in the queue" if position <= 1 else f"number {position} in the queue"
    return f"{name} waits: {place}"


_ENDED = {
    RunState.FINISHED: "Done",
    RunState.STOPPED: "Stopped",
    RunState.FAILED: "Failed",
    RunState.INTERRUPTED: "Interrupted",
}


def adapter(name: str, value: float | None, created: float) -> str:
    """What a list of adapters calls one; runs of the same model and data have the same name."""
    return " · ".join(filter(None, [name, number(value), time.strftime("%d %b %H:%M", time.localtime(created))]))


def no_better(result: Mapping[str, Any]) -> str:
    """That a run was in vain, and what to try, if its best result is no better than a baseline; else empty."""
    value, zero_shot, majority = (result.get(key) for key in ("value", "baseline_zero_shot", "baseline_majority"))
    if value is None:
        return ""
    lower_is_better = result.get("metric") == "loss"
    if majority is not None and value <= majority:
        return NO_BETTER.format(f"than always answering the most frequent label ({number(majority)})")
    if zero_shot is not None and (value >= zero_shot if lower_is_better else value <= zero_shot):
        return NO_BETTER.format(f"than the base model without it (zero-shot {number(zero_shot)})")
    return ""


def plain_headline(state: RunState, result: Mapping[str, Any]) -> str:
    """`headline` without its Markdown."""
    return headline(state, result).replace("**", "")


def headline(state: RunState, result: Mapping[str, Any]) -> str:
    """A run's state or result in one sentence."""
    if state is RunState.RUNNING:
        return "Training"
    if result.get("value") is None:
        return _ENDED[state]
    before = [
        f"{name} {number(result[key])}"
        for name, key in (("zero-shot", "baseline_zero_shot"), ("majority", "baseline_majority"))
        if result.get(key) is not None
    ]
    compared = f" (before: {', '.join(before)})" if before else ""
    value = f"{str(result['metric']).capitalize()} **{number(result['value'])}**{compared}"
    base = f" Base model {result['base_weights']}." if result.get("base_weights") else ""
    return f"{_ENDED[state]} after {duration(result.get('seconds') or 0)}. {value}.{base}"


# Try and Export

BRING = "Bring an adapter…"
ABOUT_BRINGING = "A zip from PTune or PEFT, or its two files. Nothing in it is run."
USAGE = "How this adapter is used"
ABOUT_USAGE = (
    "An adapter of PEFT does not say which text it was trained with. Write here what its files do not say; "
    "what stays empty is taken from them."
)
ABOUT_USAGE_TEMPLATE = "As it was in training: [P*20] {text} [ANSWER:label], say. The number of virtual tokens stays."
ABOUT_USAGE_ANSWERS = (
    "One a line: positive = great. The words are what the model goes on with. For a classification head the names "
    "alone, in order."
)
COMPLETION_MODEL = "This is a completion model; write the start of the text."
TUNED_BESIDE = (
    "The base model was tuned too: the left pane is the tuned base model without virtual tokens, not the base model "
    "before training."
)
CHAT = "Both models see the whole conversation, each with its own answers."
NOT_HERE_YET = "This is the present state of a run that trains. It can be exported when the run has ended."
WAITING_FOR_DEVICE = (
    '<p class="working" role="status">Waiting: the run that trains needs the GPU. The answer comes when it has ended, '
    "or stop the run.</p>"
)
TRY_IT, TRY_NEWEST = "Try it", "Try newest"
NOTHING_SEEN = "Press Classify or Generate, and what the tuned model read stands here."
BATCH_LIMITS = (
    "CSV, TSV, JSON, JSONL, Parquet, XLSX or TXT, up to 100 MB and a million rows. The result is your file with "
    "a label and a probability for each label in every row. If it has a column of labels, accuracy is said too."
)
CANCELLED = "Cancelled. Nothing was written."
DOWNLOADS = {
    "settings.yaml": "Settings (YAML)",
    "metrics.csv": "Curve (CSV)",
    "predictions.jsonl": "Predictions on validation rows (JSONL)",
}
HUB_TOKEN = "With write access, from huggingface.co/settings/tokens. It is used once and not kept."
HUB_TOKEN_HERE = f"{HUB_TOKEN} Empty: the account this machine is signed in with."
READING_ADAPTER = '<p class="working" role="status">Reading…</p>'
PUSHING = '<p class="working" role="status">Pushing…</p>'
CONVERTING = '<p class="working" role="status">Loading the base model and converting…</p>'
FORMS = {
    "prefix": "Prefix: the virtual tokens as keys and values, for PEFT's prefix tuning. Only for a prompt in front.",
    "vocabulary": "Vocabulary: the virtual tokens as added tokens, for programs that know no adapters.",
}


def newest(name: str) -> str:
    """What a list of adapters calls the present state of a run."""
    return f"{name} · as it is now, still training"


def brought(name: str) -> str:
    """What a list of adapters calls one that somebody brought."""
    return f"{name} · brought here"


def about_adapter(labels: tuple[str, ...], is_chat: bool, base_model: str, count: int, step: int | None) -> str:
    """One line on what an adapter is; `step` of a run that goes on."""
    task = f"Chooses between {len(labels)} labels" if labels else "Answers in a chat" if is_chat else "Completes text"
    at = [] if step is None else [f"step {step}, training goes on"]
    return " · ".join([task, base_model.rstrip("/").rsplit("/", 1)[-1], f"{count} virtual tokens", *at])


def proof(changed: object, kept: object) -> str:
    """How many answers the adapter changes, of those that were compared; empty if none were."""
    if not isinstance(changed, int) or not isinstance(kept, int) or kept < 1:
        return ""
    return f"Changes the answer on {100 * changed / kept:.0f}% of {kept} validation rows"


def labelling(done: int, rows: int) -> str:
    """How far a file is labelled."""
    return f"{done:,} of {rows:,} rows"
