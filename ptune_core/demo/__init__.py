"""The embedded demo: a small base model and a data set that work on a fresh, offline machine.

Only paths and metadata live here, so importing this package costs nothing (no torch). `README.md` in this folder is
the card of the model: where its text came from, what it was measured to do, and what it cannot do.
"""

from pathlib import Path

_HERE = Path(__file__).resolve().parent

DEMO: str = "demo"
"""What `base_model` and `data` say when they mean the embedded ones."""

DEMO_MODEL: Path = _HERE / "model"
"""Folder of the base model and its tokenizer, in the Hugging Face layout (`from_pretrained` takes it as it is)."""

DEMO_DATA: Path = _HERE / "reviews.csv"
"""About 600 short reviews with the columns `text` and `label` (`positive` or `negative`)."""

HANDWRITTEN: Path = _HERE / "handwritten.csv"
"""100 ordinary sentences, same columns, written by hand apart from everything the model was trained on."""

DEMO_TEMPLATE: str = "[P*8] {text~} [ANSWER:label]"
"""Eight virtual tokens in front, the text, then the answer word: an adapter that stock PEFT loads."""

DEMO_LABELS: dict[str, str] = {"positive": " great", "negative": " terrible"}
"""Label -> answer word. The leading space belongs to the word: both are single tokens of the demo tokenizer."""

__all__ = ["DEMO", "DEMO_DATA", "DEMO_LABELS", "DEMO_MODEL", "DEMO_TEMPLATE", "HANDWRITTEN"]
