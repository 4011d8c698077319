"""What a classification head reads of a base model, and where it starts: what a person can choose. Imports no torch."""

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


class HeadStart(StrEnum):
    """Where a classification head starts."""

    AUTO = "auto"
    PROBE = "probe"
    ZERO = "zero"


MEASURED = (HeadInput.MODEL, HeadInput.MEAN, HeadInput.LAST, HeadInput.FIRST)
"""The ways among which `auto` chooses."""
