"""What a classification head reads of a base model, and where it starts: what a person can choose. Imports no torch."""

from collections.abc import Mapping
from enum import StrEnum


class HeadInput(StrEnum):
    """What a classification head reads of a row.

    Virtual tokens are never part of a mean: it is over the text. `[CLS]` and the token a text begins with are not
    either, as in sentence-transformers' pooling without the prompt.
    """

    AUTO = "auto"
    MODEL = "model"  # what the base model's own class reads, as in PEFT: BERT's pooler, a decoder's last position
    MEAN = "mean"  # the mean of the text's last hidden states
    LAST = "last"  # the row's last position; an encoder's last of the text
    FIRST = "first"  # the text's first position, an encoder's [CLS]

    @property
    def is_models(self) -> bool:
        """Whether the base model's own class reads it, so that stock PEFT gives the same scores."""
        return self is HeadInput.MODEL


class Why(StrEnum):
    """Why a classification head reads what it does."""

    SET = "set"  # by a person
    TRAINED = "trained"  # as the base model was
    MEASURED = "measured"
    TUNED = "tuned"  # with a tuned base model


class HeadStart(StrEnum):
    """Where a classification head starts."""

    AUTO = "auto"
    PROBE = "probe"
    ZERO = "zero"


MEASURED = (HeadInput.MODEL, HeadInput.MEAN, HeadInput.LAST, HeadInput.FIRST)
"""The ways among which `auto` chooses."""

READS = {
    HeadInput.MODEL: "what the base model's own class reads",
    HeadInput.MEAN: "the mean of the text's last hidden states",
    HeadInput.LAST: "the last hidden state of the row's last position",
    HeadInput.FIRST: "the last hidden state of the text's first position",
}
"""What a classification head reads, in words."""

_WHY: Mapping[str, str] = {
    Why.SET: "as the settings say",
    Why.TRAINED: "as this base model was trained",
    Why.TUNED: "as it does in PEFT, since the base model is tuned with it",
}


def reading(head: object) -> str:
    """``The head reads the mean of the text's last hidden states, as this base model was trained.``

    Args:
        head: What `plan` and `result.json` say of it: `head_input`, `why`, and `accuracies` and `rows` where it was
            measured. It may come from a stranger's file: what cannot be understood gives an empty text.
    """
    if not isinstance(head, Mapping) or (reads := READS.get(_way(head))) is None:
        return ""
    measured, rows = head.get("accuracies"), head.get("rows")
    if head.get("why") != Why.MEASURED or not isinstance(measured, Mapping) or not isinstance(rows, int):
        why = _WHY.get(str(head.get("why")))
        return f"The head reads {reads}{f', {why}' if why else ''}."
    ways = [(name, value) for name, value in measured.items() if name in MEASURED and isinstance(value, float | int)]
    best_first = ", ".join(f"{name} {value:.2f}" for name, value in sorted(ways, key=lambda way: -way[1]))
    return f"The head reads {reads}, measured on {rows:,} rows: {best_first}."


def reading_in_peft(head: object) -> str:
    """What it means for PEFT that a head reads what it does; empty where stock PEFT reads the same."""
    if not isinstance(head, Mapping) or _way(head) in (HeadInput.AUTO, HeadInput.MODEL):
        return ""
    return (
        "Stock PEFT cannot load it: the download brings its own loader. With head_input: model and the virtual tokens "
        "in front, PEFT can."
    )


def _way(head: Mapping[object, object]) -> HeadInput:
    """AUTO where it is not known."""
    name = head.get("head_input")
    return next((way for way in HeadInput if way == name), HeadInput.AUTO)
