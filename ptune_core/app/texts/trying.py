"""Sentences of Try and Export."""

from __future__ import annotations

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
HOW_TO_SEND = "Shift+Enter sends it."
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
    "sentence-transformers": "Sentence-transformers: a model its package loads, with the base model's weights in it. "
    "Only for a classification head on an encoder, with a prompt in front.",
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


def labelling(done: int, rows: int) -> str:
    """How far a file is labelled."""
    return f"{done:,} of {rows:,} rows"


ABOUT_BASE = "A Hub id or a folder."
ABOUT_REPOSITORY = "NAME, or OWNER/NAME. The model card goes with it."
ABOUT_NEW_TOKENS = "More: longer answers, which take longer."
ABOUT_TEMPERATURE = "0 always takes the likeliest token; higher is more varied."
ABOUT_SEED = "The same for both: another, other texts."
BLANK_ROWS = "{:,} rows without text got no label."


def accuracy(percent: float, right: int, known: int) -> str:
    """Of a file that was labelled and brought labels."""
    return f"Accuracy {percent:.1f}%: {right:,} of {known:,} rows that bring a label."
