"""The page's sentences, so that the same thing is said the same way everywhere. Plain Python."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from typing import Any

from ptune_core.app.texts import outcome
from ptune_core.runs.live import duration
from ptune_core.runs.states import RunState

TAGLINE = "Teach a frozen language model a task with a few trainable virtual tokens."
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
REPLACED = "Your own template was replaced. It was: {}"
READING_EXAMPLE = "Reading the example…"
NO_ROWS = {
    "Upload": "No file yet.",
    "Paste": "No rows yet.",
    "Hub": "No data set yet.",
}
NOT_READ = {
    "Paste": "These rows were not read yet: press Use these rows, or leave the box.",
    "Hub": "This data set was not fetched yet: press Fetch.",
}
"""What stands where the report of the rows would be, by where they come from."""
ABOUT_PASTED = "With a header line as in CSV, or one text, a tab and its label a line."
ABOUT_VIRTUAL_TOKENS = (
    "More: more capacity, slower, and they need more data. With fewer than 100 rows stay at 8 or below."
)
SURE_TO_DELETE = "Delete this run and its adapter?"
# Data and template
ABOUT_HUB_DATA = "OWNER/NAME, of which you choose configuration and split, or one file: hf://datasets/OWNER/NAME/FILE."
STARTED = "Started. You can close this page; the run goes on, and the address of this page leads back to it."
OUTDATED = (
    "This run was made by another version of PTune: its result and its files are here, but this version does not "
    "accept its settings, so that it can be neither resumed nor repeated."
)
RESUME = "Nothing was saved yet: Resume begins anew. To change a setting first, press Copy settings."
STOPPING = "Stopping at the next step. The best result so far is kept."
NO_ADAPTER = "Choose an adapter above. If there is none yet, train the example: it takes about a minute."
WORKING = (
    '<p class="working" role="status">Working… The first answer loads the model and takes some seconds longer.</p>'
)
CHOOSE_RUN = "Choose a run from the list, or start one on the Train tab."

WHAT_HAPPENS = (
    "The prompt encoder learns. A frozen base model stays as it is; a tuned one learns too. The run belongs to this "
    "computer, not to the page: close it, come back, or stop from any browser. The best step by validation becomes the "
    "adapter."
)

# The plots and the list of runs.
ROWS_FINGERPRINT = "Rows (fingerprint of the data)"

LABELS = {
    "base_model": "Base model",
    "base_weights": "What learns",
    "base_learning_rate": "Learning rate of the base model",
    "encoder_reparameterization_type": "Prompt encoder",
    "encoder_hidden_size": "Hidden size",
    "encoder_num_layers": "LSTM layers",
    "encoder_dropout": "Dropout",
    "head_input": "What the head reads",
    "head_start": "Where the head starts",
    "head_learning_rate": "Learning rate of the head",
    "prompt_depth": "Where virtual tokens learn",
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
    "examples_per_label": "Rows per label",
    "max_new_tokens": "New tokens at most",
    "text_cache_mib": "Text cache (MiB)",
    "halving": "End the worse half early",
    "virtual_tokens": "Virtual tokens",
}
"""Short labels for settings whose names are long or technical; the others are their names in plain words."""


# Strip, errors and the API. Of several lines the browser takes the first one that fits.

IDLE_CPU = (
    "Ready · CPU only: the demo model trains in about a minute, larger models are slow",
    "Ready · CPU only: larger models are slow",
    "Ready · CPU only",
)
STRIP: dict[str, Any] = {
    "title": "PTune",
    "done": "Done",
    "connecting": "Connecting…",
    "lost": [
        "Connection lost; training goes on. Reconnecting…",
        "Connection lost. Reconnecting…",
        "Reconnecting…",
    ],
    "open": "Open",
    "stop": "Stop",
    "waiting": "+{} waiting",
    "queue": "Waiting runs",
    "earlier": "Earlier",
    "remove": "Remove",
    "notify": "Notify me when it is done",
    "notifying": "You will be notified",
}
"""What the strip's script says by itself."""

COPY_LINK, LINK_COPIED = "Copy link", "Link copied"
DID_NOT_WORK = "This did not work"
UNEXPECTED = (
    "Something went wrong inside PTune; your data and runs are untouched. Try again, or reload the page. "
    "The details are in the app's log."
)
NO_SUCH_RUN = "The run in this address is not there. It may have been deleted, or it belongs to somebody else."
LOG_IN = "Please log in first: open the page, or send name and password with the request."


def and_more(count: int) -> str:
    """The end of a list that is not shown whole."""
    return f"… and {count} more."


def idle_gpu(device: str) -> tuple[str, ...]:
    """`device` is name and memory, as `NVIDIA H200, 143771 MiB`."""
    name, _, memory = device.partition(", ")
    gib = re.sub(r"^(\d+) MiB$", lambda match: f"{int(match[1]) / 1024:.0f} GiB", memory)
    return f"Ready · GPU: {name}, {gib}" if gib else f"Ready · GPU: {name}", f"Ready · {name}", "Ready · GPU"


def training(
    names: Sequence[str], doing: str, progress: str, left: str, result: tuple[str | None, float | None]
) -> list[str]:
    """What runs, in less and less room.

    Args:
        names: The run's name, then shorter ones.
        doing: What it does, where that is not simply training.
        progress: Step and steps, as `340/600`.
        left: Time left.
        result: Name and value of the best result so far.
    """
    metric, value = result
    best = number(value)
    full = [doing, progress and f"step {progress}", left and f"{left} left", best and f"{metric or 'best'} {best}"]
    short = [doing or progress, left, best]
    lines = [_joined(f"Training {name}", *full) for name in names]
    lines += [_joined(names[-1], *short), _joined(*short), _joined(doing or progress, left), doing or progress]
    return [line for line in lines if line]


def ended(names: Sequence[str], said: str) -> list[str]:
    """How the newest run ended, in less and less room."""
    short = re.sub(r" \(.*?\)", "", said)
    first, _, result = short.partition(". ")
    lines = [*(f"Ready · {name} · {said}" for name in names), f"{names[-1]} · {short}", short]
    return [*lines, result.partition(". ")[0].rstrip(".") or first]


def in_queue(place: int, name: str) -> str:
    """One line of the list of waiting runs."""
    return f"{place}. {name}"


def _joined(*parts: str) -> str:
    return " · ".join(part for part in parts if part)


def label(setting: str) -> str:
    """What the form calls a setting."""
    return LABELS.get(setting, setting.replace("_", " ").capitalize())


_CHOICES = {
    "encoder_reparameterization_type": {
        "none": "None", "paper-lama": "The paper's LSTM for facts", "paper-few-shot": "The paper's LSTM for few rows",
    },
    "base_weights": {"frozen": "Virtual tokens only", "tuned": "The base model too"},
    "prompt_depth": {"input": "In the input", "all": "In every layer"},
    "prompt_init": {
        "auto": "What suits", "separator": "Separators", "random": "Random", "normal": "Noise",
        "vocabulary": "Random words", "labels": "Answer words",
        "text": "A text", "adapter": "An adapter",
    },
    "head_input": {
        "auto": "What suits", "model": "As in PEFT", "mean": "The mean of the text", "last": "Its last position",
        "first": "Its first position",
    },
    "head_start": {"auto": "What suits", "probe": "A probe", "zero": "Nothing"},
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
ABOUT_MEASURE = (
    "Time and memory are measured on 3 real steps, if you ask, and how well words and a head tell the labels apart."
)
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


def plain_headline(state: RunState, result: Mapping[str, Any]) -> str:
    """`headline` without its Markdown."""
    return headline(state, result).replace("**", "")


def headline(state: RunState, result: Mapping[str, Any]) -> str:
    """A run's state or result in one sentence."""
    if state is RunState.RUNNING:
        return "Training"
    if result.get("value") is None:
        return _ENDED[state]
    before = outcome.beside(result)
    compared = f" (before: {', '.join(before)})" if before else ""
    value = f"{str(result['metric']).capitalize()} **{number(result['value'])}**{compared}"
    base = f" Base model {result['base_weights']}." if result.get("base_weights") else ""
    return (
        f"{_ENDED[state]} after {duration(result.get('seconds') or 0)}. {value}.{base}{outcome.nothing_added(result)}"
    )


# Results: the Runs tab of one run, alarms and the badge

NO_SAMPLES = "First samples arrive after the first evaluation. The full list is here when the run has ended."
NO_PREDICTIONS = (
    "There are no predictions for this run: it ended before its first evaluation, or an older PTune made it."
)
ENDED_SILENTLY = "The run ended without saying why."
NO_SUCH_PART = "There is no such part of the results."
KNOWN_AT_THE_END = "Known when the run has ended."
NO_SWEEP = "This run is no sweep."
NO_TOKENIZER_YET = "Tokens are counted once the base model's tokenizer is on this machine."
MEASURED_TOO_LONG = "It took more than {:.0f} minutes and was ended."
RUN_BEGAN = "A run began to train, and beside it the times would be wrong. Measure when it has ended."
MEASURED_NOTHING = "It ended without a result."
MEASURE_KILLED = "It was killed by signal {}, often because memory ran out. Try smaller batches or a smaller model."
NO_SUCH_FOLDER = "There is no base model in such a folder on this machine."
SAME_TOKENS = "This base model cannot tell some answers apart: {}. Choose other words."
NO_LABELS = "This run has no labels to compare: it writes words of its own."
NO_LOG = "The log is empty so far."
ONE_CLASS = 'Every validation row is predicted "{label}": the model has not learnt more than the majority{majority}.'
FLAT_LOSS = "The validation loss has hardly moved in {steps:,} steps ({first} to {best})."
USUAL_CAUSES = "Usual causes: a learning rate that is too low, or too few steps."
LOW_RATE = "The learning rate {rate} is below what virtual tokens usually need (0.001 to 0.03): they may hardly move."
HIGH_RATE = "The learning rate {rate} is above what virtual tokens usually bear (0.001 to 0.03): the loss may jump."
RESUME_HERE = "Resume goes on from there; nothing before it is lost."
SAME_BATCH = "Nothing else was lost. A smaller batch with more accumulation is the same effective batch."
SWEEP_RATES = "Try a 3-value learning-rate sweep"
RETRIED = "Started on the same rows. It is in the list of runs, and begins as soon as the machine is free."
USED = "Trial {number} is now what Try, Export and Download take."


def retry_with(what: str) -> str:
    """What a button says that starts the run again with one thing changed."""
    return f"Retry with {what}"


def short_number(value: float) -> str:
    """A learning rate or a loss as people write it."""
    return f"{value:.3g}" if value >= 1e-4 or value == 0 else f"{value:.2g}".replace("e-0", "e-")


def changed(count: int, of: int) -> str:
    """The proof that an adapter does something."""
    share = "less than 1%" if 0 < count < of / 100 else f"{round(100 * count / of)}%"
    return f"The adapter changes the answer on {share} of {of:,} validation rows."


def calibration(error: float, said: float, right: float, rows: int) -> str:
    """Expected calibration error in words; `said` and `right` are means over all rows."""
    points = round(100 * error)
    if points <= 2:
        verdict = "The probabilities can be taken as they are"
    else:
        verdict = f"The model is {'more sure than it is right' if said > right else 'less sure than it could be'}"
    gap = f"{points} point{'' if points == 1 else 's'}"
    return (
        f"{verdict}: over {rows:,} validation rows, probability and share of right answers differ by {gap} on average "
        "(expected calibration error)."
    )
