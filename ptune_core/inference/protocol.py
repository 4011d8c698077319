"""What the page and the inference process say to each other: one JSON object a line, over the child's stdin and stdout.

Down go requests, each in an `Envelope` with a number; up come replies with the same number: any number of parts, then
one `done` or one `error`. A `Cancel` with a request's number ends it without a reply. No torch is imported here.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, Self, TypedDict, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from ptune_core import errors
from ptune_core.errors import InferenceError, PTuneError
from ptune_core.model.device import BaseWeights

EXIT_IDLE = 75
"""Exit code of a process that left because nobody asked anything; whoever asked just then may ask again."""

MAX_ROWS = 1_000
"""Rows of one classify request; `batch.py` sends more in several."""

MAX_TURNS = 50
"""Turns of a conversation that are sent along; the oldest text is cut first anyway."""

MAX_VALUE_CHARACTERS = 200_000
MAX_REQUEST_CHARACTERS = 4_000_000

Value = Annotated[str, Field(max_length=MAX_VALUE_CHARACTERS)]
Answer = Annotated[str, Field(max_length=1000)]
Values = Annotated[dict[str, Value], Field(max_length=100)]
ShortText = Annotated[str, Field(max_length=1000)]


def _check_characters(rows: Sequence[Mapping[str, str]]) -> None:
    if sum(len(text) for row in rows for text in row.values()) > MAX_REQUEST_CHARACTERS:
        raise ValueError(f"all rows together may have at most {MAX_REQUEST_CHARACTERS:,} characters")


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Usage(_Strict):
    """How an adapter from elsewhere is used, where its files do not say; what is empty stays as they say.

    `answers`: label -> answer words; for a classification head its labels' names alone, in order, with empty words.
    """

    base_model: Annotated[str, Field(max_length=4096)] = ""
    template: Annotated[str, Field(max_length=20_000)] = ""
    answers: Annotated[dict[ShortText, ShortText], Field(max_length=1000)] = {}


class _AdapterRequest(_Strict):
    adapter: str = Field(min_length=1, max_length=4096, description="Folder or zip of the adapter.")


class Describe(_AdapterRequest):
    """What an adapter is for. Answered without loading the base model."""

    op: Literal["describe"] = "describe"


class Preview(_AdapterRequest):
    """What the model sees for these values."""

    op: Literal["preview"] = "preview"
    values: Values


class Classify(_AdapterRequest):
    """Probabilities of the labels for each row, in parts of some rows."""

    op: Literal["classify"] = "classify"
    rows: Annotated[list[Values], Field(min_length=1, max_length=MAX_ROWS)]
    compare: bool = True

    @model_validator(mode="after")
    def _check_size(self) -> Self:
        _check_characters(self.rows)
        return self


class Turn(_Strict):
    """One turn of a conversation that is over: what was said, and what each model answered."""

    values: Values
    tuned: Value
    base: Value | None = None


class Generate(_AdapterRequest):
    """Text after the template, token by token; the base model's and the tuned model's interleaved."""

    op: Literal["generate"] = "generate"
    values: Values
    history: Annotated[list[Turn], Field(max_length=MAX_TURNS)] = Field(
        [], description="Turns before this one, of a chat template alone; each model sees its own answers."
    )
    max_new_tokens: int = Field(64, ge=1, le=1024)
    temperature: float = Field(0.0, ge=0.0, le=5.0, description="0 takes the likeliest token each time.")
    seed: int = Field(0, ge=0, le=2**31 - 1)
    compare: bool = True


class _TemplateRequest(_Strict):
    """Of a template that is being written: there is no adapter yet, and no weights are loaded."""

    base_model: str = Field(min_length=1, max_length=400)
    revision: str | None = Field(None, max_length=100)
    template: str = Field(min_length=1, max_length=4000)
    labels: Annotated[dict[str, Answer], Field(max_length=MAX_ROWS)] | None = Field(
        None, description="Label -> answer words; none: the target is text."
    )
    max_length: int | None = Field(None, ge=8, le=131_072)
    fetch: bool = Field(False, description="Whether the Hub may be asked for a tokenizer that is not here.")


class Look(_TemplateRequest):
    """What a base model would see of one row, and what its tokenizer makes of the answers."""

    op: Literal["look"] = "look"
    values: Values = Field(description="Column -> text: the template's, those of answers, and the target's.")


class Measure(_TemplateRequest):
    """How long rows become."""

    op: Literal["measure"] = "measure"
    rows: Annotated[list[Values], Field(min_length=1, max_length=MAX_ROWS)]

    @model_validator(mode="after")
    def _check_size(self) -> Self:
        _check_characters(self.rows)
        return self


class Import(_AdapterRequest):
    """Take in an adapter from elsewhere: check it, add what it does not say, write it as one of ours."""

    op: Literal["import"] = "import"
    out: str = Field(min_length=1, max_length=4096, description="Folder for `adapter/` and `adapter.zip`.")
    usage: Usage = Usage()


class Cancel(_Strict):
    """Ends the request that has the envelope's number."""

    op: Literal["cancel"] = "cancel"


Request = Describe | Preview | Classify | Generate | Look | Measure | Import
RequestT = TypeVar("RequestT", bound=_Strict)


class Envelope(_Strict):
    """A request and its number."""

    id: int
    request: Annotated[Request | Cancel, Field(discriminator="op")]

    def to_line(self) -> bytes:
        return self.model_dump_json().encode() + b"\n"

    @classmethod
    def from_line(cls, line: bytes) -> Envelope:
        return cls.model_validate_json(line)


class Classification(TypedDict):
    """Label probabilities, one list a row in the order of `labels`.

    `base` is None where it was not asked for, or where the base model has no answer of its own; `note` then says why.
    """

    labels: list[str]
    tuned: list[list[float]]
    base: list[list[float]] | None
    note: str


def join_parts(parts: Sequence[Classification]) -> Classification:
    """The answer for all rows from the answers, at least one, for some rows each."""
    base = [row for part in parts if part["base"] is not None for row in part["base"]]
    return {
        "labels": parts[0]["labels"],
        "tuned": [row for part in parts for row in part["tuned"]],
        "base": None if parts[0]["base"] is None else base,
        "note": parts[0]["note"],
    }


class Generated(TypedDict):
    """The text so far. `base` is None where it was not asked for."""

    tuned: str
    base: str | None


class Piece(TypedDict):
    """One token as the model sees it.

    `kind` is `text`, `special`, `virtual` (`P1`, `P2`, ...), `target`, or `cut` (left out: the input is too long).
    """

    text: str
    kind: Literal["text", "special", "virtual", "target", "cut"]


class Seen(TypedDict):
    """All that the model sees: `length` tokens, virtual ones included, of at most `max_length`."""

    pieces: list[Piece]
    length: int
    max_length: int
    num_virtual_tokens: int


class AnswerTokens(TypedDict):
    """A label's answer words as tokens. `problem` says why they cannot be told from others; empty if they can."""

    label: str
    ids: list[int]
    tokens: list[str]
    problem: str


class Looked(Seen):
    """What a base model would see of a row.

    `length` counts the answer, of `num_answer` tokens, where it is text that stands in the row. The first `num_reused`
    tokens that are not cut stand before the first virtual token of a causal model: they are computed once. `answers`
    are those of the labels; of this row where they are filled from its columns.
    """

    num_answer: int
    num_reused: int
    num_cut: int
    answers: list[AnswerTokens]


class Measured(TypedDict):
    """Tokens of each row as it is read, and how many were cut of it; -1 of a row that has no room for its answer."""

    lengths: list[int]
    cut: list[int]
    max_length: int


class Description(TypedDict):
    """What an adapter is for.

    `columns` are the template's, to be filled; `data_columns` says which of the run's data columns filled them and
    `target`, the column of the label or answer.
    `base_weights`: whether `base_model` itself is used, or what it became when it was tuned with the prompt.
    """

    task: Literal["classify", "generate"]
    columns: list[str]
    data_columns: dict[str, str]
    target: str
    labels: list[str]
    template: str
    base_model: str
    revision: str | None
    base_weights: BaseWeights
    num_virtual_tokens: int
    is_chat: bool


class Reply(TypedDict):
    """One line of the child. `value` is the part's content, or the error's fields; None in a `done`."""

    id: int
    kind: Literal["part", "done", "error"]
    value: Any


def encode_reply(reply: Reply) -> bytes:
    return json.dumps(reply, allow_nan=False).encode() + b"\n"


def decode_reply(line: bytes) -> Reply:
    return json.loads(line)


def build_request(kind: type[RequestT], fields: Mapping[str, object]) -> RequestT:
    """A checked request.

    Raises:
        InferenceError: With every field that is out of bounds.
    """
    try:
        return kind.model_validate(fields)
    except ValidationError as error:
        problems = [f"{_place(problem['loc'])}: {problem['msg']}" for problem in error.errors(include_input=False)[:10]]
        raise InferenceError("The input cannot be used", got="; ".join(problems)) from None


def _place(location: tuple[int | str, ...]) -> str:
    """``('rows', 3, 'text')`` -> ``row 4, text``: people count from one."""
    if location[:1] == ("rows",) and len(location) > 1:
        return ", ".join([f"row {int(location[1]) + 1}", *map(str, location[2:])])
    return ", ".join(map(str, location)) or "request"


def error_fields(error: PTuneError) -> dict[str, Any]:
    """An error as JSON values; `rebuild_error` makes an equal one of the same type."""
    return {"type": type(error).__name__, **vars(error)}


def rebuild_error(fields: Mapping[str, Any]) -> PTuneError:
    kind: type[PTuneError] = getattr(errors, fields["type"])
    return kind(**{name: value for name, value in fields.items() if name != "type"})
