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
COMPLETION = "The model continues the text. The left pane is the base model without virtual tokens."
WORKING = (
    '<p class="working" role="status">Working… The first answer loads the model and takes some seconds longer.</p>'
)
NO_BASE = "The base model has no answer of its own here: its classification head is part of the adapter."
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

COMPLETION_TUNED = (
    "The model continues the text. The base model was tuned too: the left pane is the tuned base model without virtual "
    "tokens, not the base model before training."
)

LABELS = {
    "base_model": "Base model",
    "base_weights": "What learns",
    "base_learning_rate": "Learning rate of the base model",
    "encoder_reparameterization_type": "Prompt encoder",
    "encoder_hidden_size": "Hidden size",
    "encoder_num_layers": "LSTM layers",
    "encoder_dropout": "Dropout",
    "prompt_init": "Start from",
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
    "halving": "End the worse half early",
    "virtual_tokens": "Virtual tokens",
}
"""Short labels for settings whose names are long or technical; the others are their names in plain words."""


def label(setting: str) -> str:
    """What the form calls a setting."""
    return LABELS.get(setting, setting.replace("_", " ").capitalize())


_CHOICES = {
    "encoder_reparameterization_type": {
        "none": "None", "paper-lama": "The paper's LSTM for facts", "paper-few-shot": "The paper's LSTM for few rows",
    },
    "base_weights": {"frozen": "Virtual tokens only", "tuned": "The base model too"},
    "prompt_init": {
        "random": "Random", "normal": "Noise", "vocabulary": "Random words", "labels": "Answer words",
        "text": "A text", "adapter": "An adapter",
    },
    "precision": {"auto": "Auto", "fp32": "32 bits", "bf16": "16 bits", "int8": "8 bits", "int4": "4 bits"},
    "device": {"auto": "Auto", "cpu": "CPU", "cuda": "GPU"},
}  # fmt: skip


def choice(setting: str, value: str) -> str:
    """What the form calls one of a setting's choices."""
    return _CHOICES.get(setting, {}).get(value, value)


# Tuning and Run card
CUSTOM = "Custom"
ABOUT_PRESETS = "How many steps, and how long without a better result. Quick shows whether it works at all."
ABOUT_SWEEP = "Choose several values; every combination is trained in one run, and the best is kept."
ABOUT_MEASURE = "Time and memory are measured on 3 real steps, if you ask."
MEASURE, MEASURE_AGAIN = "Measure time and memory", "Measure again"
START = "Start training"
UPLOADED = "uploaded rows"
CANNOT_START = "{} things above must be changed first."
SWEPT_ELSEWHERE = "The sweep over {} is not on this page and was left out."
NOT_HERE = "{} is not on this page and was left out."
TEXT_WHATEVER = "That the target is text, whatever its values, is not on this page and was left out."
LOADED = "These settings are in the form now. They were for the rows of “{}”: bring those in card 2."
LOADED_DEMO = "These settings are in the form now, with the example's rows."


def advanced(changed: int) -> str:
    """The label of what is folded, with how many settings differ from the defaults."""
    return f"Advanced · {changed} changed" if changed else "Advanced"


def group(heading: str, changed: int) -> str:
    """The label of a group under Advanced."""
    return f"{heading} · {changed} changed" if changed else heading


def start(active: int) -> str:
    """What the button says, by how many runs come first."""
    return f"Add to queue (starts after {active} run{'' if active == 1 else 's'})" if active else START


def trials(count: int) -> str:
    """What a sweep comes to."""
    return f"**{count} training{'' if count == 1 else 's'} in one run.**"


def many(number: int) -> str:
    """``1234567`` -> ``1.2 M``."""
    for size, letter in ((1_000_000_000, "B"), (1_000_000, "M"), (1000, "k")):
        if number >= size:
            return f"{number / size:.1f} {letter}" if number < 100 * size else f"{number / size:.0f} {letter}"
    return str(number)


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
