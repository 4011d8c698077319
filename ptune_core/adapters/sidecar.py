"""The two JSON files of an adapter: PEFT's `adapter_config.json` and the sidecar `ptune.json`.

Both may come from strangers, so each is checked against a declaration, every problem is collected, and only then is
anything built from it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Self
from typing import Literal as OneOf

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from ptune_core.prompt.template import Column, Literal, Segment, Special, Target, TargetKind, VirtualTokens

FORMAT_VERSION = 1
FRONT = "P_TUNING"
"""`peft_type` of a prompt that stands before everything else: a standard PEFT adapter."""

PROMPT_TUNING = "PROMPT_TUNING"
"""`peft_type` of vectors that PEFT trained without an encoder: read as a front prompt, never written."""

TEMPLATE = "PTUNE_TEMPLATE"
"""`peft_type` of any other placement: a name PEFT does not know, so that it refuses the adapter."""

BASE_FOLDER = "base_model"
"""Folder of an adapter with the base model that was tuned together with its prompt."""

BASE_PLACE = f"./{BASE_FOLDER}"
"""That folder as `base_model_name_or_path`: seen from the adapter's own."""

MASKED = "MASKED_LM"
"""`task_type` of an adapter that fills masks, for which PEFT has none."""

TASK_TYPES = {
    TargetKind.ANSWER: ("CAUSAL_LM", "SEQ_2_SEQ_LM"),
    TargetKind.HEAD: ("SEQ_CLS",),
    TargetKind.MASK: (MASKED,),
}
"""What `task_type` may be for each target."""

MAX_VIRTUAL_TOKENS = 1024
MAX_TOKEN_DIM = 65_536
MAX_LABELS = 1000

Text = Annotated[str, Field(max_length=100_000)]
Count = Annotated[int, Field(ge=1, le=MAX_VIRTUAL_TOKENS)]
Size = Annotated[int, Field(ge=1, le=MAX_TOKEN_DIM)]
BaseModelId = Annotated[str, Field(max_length=4096, pattern=r"^[^\x00-\x1f\x7f]*$")]
"""A Hub id, or a path of any length that Linux allows."""

Revision = Annotated[str, Field(max_length=100, pattern=r"^\w[\w-]*(?:[./][\w-]+)*$")]


class AnyPeftConfig(BaseModel):
    """The fields of PEFT's `adapter_config.json` that mean the same for all tasks. Others are ignored."""

    model_config = ConfigDict(extra="ignore", strict=True, allow_inf_nan=False)

    base_model_name_or_path: BaseModelId | None = None
    encoder_dropout: Annotated[float, Field(ge=0.0, le=1.0)] = 0.0
    encoder_hidden_size: Size | None = None
    encoder_num_layers: Annotated[int, Field(ge=1, le=64)] = 2
    encoder_reparameterization_type: OneOf["MLP", "LSTM"] = "MLP"
    inference_mode: bool = True
    num_attention_heads: Size | None = None
    num_layers: Size | None = None
    num_transformer_submodules: OneOf[1, 2] | None = None
    num_virtual_tokens: Size
    peft_type: OneOf["P_TUNING", "PTUNE_TEMPLATE"]
    peft_version: Annotated[str, Field(max_length=100)] | None = None
    revision: Revision | None = None
    task_type: str
    token_dim: Size | None = None

    @field_validator("peft_type", mode="before")
    @classmethod
    def _prompt_tuning_is_a_front_prompt(cls, value: object) -> object:
        """PEFT's prompt tuning saves the same tensor and uses it in the same place; only its training differs."""
        return FRONT if value == PROMPT_TUNING else value

    @model_validator(mode="after")
    def _only_encoder_decoders_have_two_submodules(self) -> Self:
        if self.num_transformer_submodules == 2 and self.task_type != "SEQ_2_SEQ_LM":
            raise ValueError(f"num_transformer_submodules is 2, which {self.task_type} has not")
        return self

    @property
    def num_rows(self) -> int:
        """Rows of the prompt embeddings in the file: PEFT keeps as many again for the decoder of an encoder-decoder."""
        submodules = self.num_transformer_submodules
        if submodules is None:
            submodules = 2 if self.task_type == "SEQ_2_SEQ_LM" else 1
        return self.num_virtual_tokens * submodules


class PeftConfig(AnyPeftConfig):
    """`adapter_config.json` of an adapter that the app runs: PEFT's 17 fields."""

    auto_mapping: None = None
    modules_to_save: Annotated[list[OneOf["score", "classifier"]], Field(max_length=100)] | None = None
    num_virtual_tokens: Count
    task_type: OneOf["CAUSAL_LM", "SEQ_2_SEQ_LM", "SEQ_CLS", "MASKED_LM"]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class LiteralPart(_Part):
    """Text that stands as it is."""

    kind: OneOf["literal"] = "literal"
    text: Text


class ColumnPart(_Part):
    """A data column."""

    kind: OneOf["column"] = "column"
    name: Text
    shorten_first: bool = False
    filters: list[Text] = []


class VirtualTokensPart(_Part):
    """One occurrence of a vector group; `first_row` is where the group starts in the prompt embeddings."""

    kind: OneOf["virtual_tokens"] = "virtual_tokens"
    group: Annotated[int, Field(ge=0, le=MAX_VIRTUAL_TOKENS)]
    count: Count
    first_row: Annotated[int, Field(ge=0, le=MAX_VIRTUAL_TOKENS)]
    name: Text | None = None
    init_text: Text | None = None


class SpecialPart(_Part):
    """A special token of the tokenizer."""

    kind: OneOf["special"] = "special"
    token: OneOf["SEP", "CLS", "BOS", "EOS"]


class TargetPart(_Part):
    """Where the result stands."""

    kind: OneOf["target"] = "target"
    target: OneOf["ANSWER", "HEAD", "MASK"]
    column: Text
    count: Count = 1


Part = Annotated[LiteralPart | ColumnPart | VirtualTokensPart | SpecialPart | TargetPart, Field(discriminator="kind")]


class TunedFrom(_Part):
    """The base model that `base_model/` was before it was tuned."""

    base_model: BaseModelId
    revision: Revision | None


class Sidecar(BaseModel):
    """`ptune.json`: what PEFT's config has no place for."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)

    format_version: OneOf[1]
    ptune_version: Annotated[str, Field(max_length=100)]
    base_model: BaseModelId
    revision: Revision | None
    template: Text
    segments: list[Part]
    special_tokens: bool
    labels: Annotated[list[Text], Field(max_length=MAX_LABELS)]
    verbalizer: dict[Text, Text] | None
    columns: dict[Text, Text]
    max_length: Annotated[int, Field(ge=1, le=10_000_000)] | None
    precision: OneOf["fp32", "bf16", "int8", "int4"]
    encoder: OneOf["none", "paper-lama", "paper-few-shot"] | None = None
    """The kind of prompt encoder if PEFT has no such; its config then names the nearest it has."""
    metrics: dict[str, Any]
    settings: dict[str, Any]
    tuned_from: TunedFrom | None = None
    head_input: OneOf["model", "mean", "last", "first"] = "model"
    """What the classification head reads; other versions know only `model`, which is not written."""
    prompt_depth: OneOf["input", "all"] = "input"
    """Whether something is added before each layer too; `input` is not written, so that other versions read it."""


def problems_of(error: ValidationError, name: str) -> list[str]:
    """One line per wrong field of the file `name`."""
    lines = []
    for problem in error.errors(include_url=False):
        place = ".".join(str(part) for part in problem["loc"]) or "the file"
        found = repr(problem["input"])
        lines.append(f"{name}: {place}: {problem['msg']} (got {found if len(found) <= 60 else found[:57] + '...'})")
    return lines


def parts_from(segments: Sequence[Segment]) -> list[dict[str, Any]]:
    """Segments of a resolved, expanded template with a target of `TASK_TYPES` -> their JSON form, with first rows."""
    first_rows: dict[int, int] = {}
    total = 0
    parts: list[_Part] = []
    for segment in segments:
        match segment:
            case Literal(text=text):
                parts.append(LiteralPart(text=text))
            case Column(name=name, shorten_first=shorten_first, filters=filters):
                parts.append(ColumnPart(name=name, shorten_first=shorten_first, filters=list(filters)))
            case VirtualTokens(group=group, count=count, name=label, init_text=text):
                assert count is not None, "the template is resolved"
                if group not in first_rows:
                    first_rows[group], total = total, total + count
                row = first_rows[group]
                parts.append(VirtualTokensPart(group=group, count=count, first_row=row, name=label, init_text=text))
            case Special(kind=kind):
                parts.append(SpecialPart(token=kind))
            case Target(kind=target, column=column, count=count):
                parts.append(TargetPart(target=target.value, column=column, count=count))
    return [part.model_dump(exclude_none=True) for part in parts]


def segments_from(parts: Sequence[Part]) -> tuple[Segment, ...]:
    """The inverse of `parts_from`."""
    return tuple(_segment(part) for part in parts)


def _segment(part: Part) -> Segment:
    match part:
        case LiteralPart():
            return Literal(part.text)
        case ColumnPart():
            return Column(part.name, part.shorten_first, tuple(part.filters))
        case VirtualTokensPart():
            return VirtualTokens(part.group, part.count, part.name, part.init_text)
        case SpecialPart():
            return Special(part.token)
        case TargetPart():
            return Target(TargetKind(part.target), part.column, part.count)


def dump_json(value: Mapping[str, Any], *, sort_keys: bool) -> bytes:
    """Indented UTF-8 JSON with a final new line; `sort_keys` as PEFT writes its config."""
    return (json.dumps(value, indent=2, sort_keys=sort_keys, ensure_ascii=False, allow_nan=False) + "\n").encode()
