"""RunSettings: the only declaration of every option of a run.

The form takes its labels, bounds and help from here, the command line its flags, `init-settings` its comments and the
worker its values. No torch is imported.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from typing import Annotated, Any, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from ptune_core.data.columns import inputs_of
from ptune_core.data.split import SplitOptions
from ptune_core.demo import DEMO, DEMO_TEMPLATE
from ptune_core.errors import PTuneError, SettingsError
from ptune_core.model.device import BaseWeights, Device, Precision
from ptune_core.model.head_input import HeadInput, HeadStart
from ptune_core.prompt.kinds import EncoderKind, PromptDepth, PromptInit
from ptune_core.prompt.template import Target, TargetKind, Template, parse_template
from ptune_core.prompt.verbalizer import answer_columns
from ptune_core.training import refusals
from ptune_core.training.option_text import bounds_text, describe
from ptune_core.training.plain_yaml import load_mapping

MAX_VIRTUAL_TOKENS = 512
MAX_TRIALS = 64

SWEPT = (
    "template", "encoder_reparameterization_type", "encoder_hidden_size", "encoder_num_layers", "encoder_dropout",
    "prompt_depth", "prompt_init", "prompt_init_text", "prompt_init_adapter", "head_input", "head_start",
    "learning_rate", "head_learning_rate", "weight_decay", "base_learning_rate", "warmup_ratio", "max_grad_norm",
    "seed",
)  # fmt: skip
"""Options a sweep may vary. The seed decides the start of each trial; split and order are those of the run's seed."""


Text = Annotated[str, Field(max_length=4000)]


RETIRED: Mapping[str, Any] = {"compile": False}
"""Options of earlier versions, with the value that means what goes without saying now: settings of then stay valid."""


class RunSettings(BaseModel):
    """Everything a person can choose about one run. Immutable; unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, str_max_length=20_000)

    name: str = Field(
        "", max_length=80, description="Name of the run, shown in lists. Empty: made from model and data."
    )
    base_model: str = Field(
        DEMO,
        min_length=1,
        max_length=400,
        description="'demo', a Hub id such as openai-community/gpt2, or a local folder.",
    )
    revision: str | None = Field(None, max_length=100, description="Branch, tag or commit of a Hub base model.")
    data: str = Field(
        DEMO,
        min_length=1,
        max_length=1000,
        description="'demo', a file (CSV, TSV, JSON, JSONL, Parquet, XLSX, TXT), hf://datasets/OWNER/NAME/FILE, or "
        "hf://datasets/OWNER/NAME?config=CONFIG&split=SPLIT.",
    )
    validation_data: str | None = Field(
        None, max_length=1000, description="A second file to validate on. Empty: a share of `data` is set aside."
    )
    columns: dict[str, str] = Field(
        default_factory=dict,
        description="Template column -> data column, where their names differ, such as {text: headline}.",
    )
    template: Text = Field(
        DEMO_TEMPLATE,
        min_length=1,
        description="Where text, virtual tokens [P*8] and the target stand: [ANSWER:column] for words, [MASK:column] "
        "for words of a masked model such as BERT, [HEAD:column] for a classification head.",
    )
    labels: dict[str, str] | None = Field(
        None,
        description="Verbalizer: label -> answer words, such as {0: ' No', 1: ' Yes'}; {0: ' {choice1}', 1: "
        "' {choice2}'} takes each row's answers from its columns. Empty: the label itself is the answer if the column "
        "has few different values, else the column is text to generate; {}: text, whatever its values.",
    )
    candidates: list[str] = Field(
        default_factory=list,
        max_length=100_000,
        description="Words to choose the answer from, each one token, such as a restricted vocabulary; training is "
        "over the whole vocabulary. Empty: no such list.",
    )
    encoder_reparameterization_type: EncoderKind = Field(
        EncoderKind.MLP,
        description="Prompt encoder. MLP is smaller and faster; LSTM ties neighbouring virtual tokens; none trains the "
        "virtual tokens themselves; paper-lama and paper-few-shot are the LSTMs of the paper's own code.",
    )
    encoder_hidden_size: int | None = Field(
        None,
        ge=1,
        le=8192,
        description="Width of the prompt encoder; more is slower. Empty: the base model's, at most 768; of the paper's "
        "own LSTMs half the base model's (paper-lama) or all of it (paper-few-shot).",
    )
    encoder_num_layers: int = Field(
        2, ge=1, le=8, description="Layers of an LSTM; the MLP always has its three linear layers."
    )
    encoder_dropout: float = Field(
        0.0, ge=0.0, lt=1.0, description="Dropout between LSTM layers; more regularises more."
    )
    prompt_depth: PromptDepth = Field(
        PromptDepth.INPUT,
        description="input is P-tuning; all also trains what is added to the virtual tokens' hidden states before each "
        "layer. For virtual tokens in front and a frozen base model. Stock PEFT runs a decoder's after export --format "
        "prefix; the others come with a loader of their own.",
    )
    prompt_init: PromptInit = Field(
        PromptInit.AUTO,
        description="Start of the virtual tokens: random is PEFT's, a random prompt encoder; normal is noise as large "
        "as words; vocabulary draws words; separator repeats the token that ends a text, which changes least of what "
        "a head reads; labels takes the answer words, then draws; text and adapter need the options below. auto is "
        'separator for a classification head, else vocabulary. A group with its own text, as in [P="..."], starts '
        "from that.",
    )
    prompt_init_text: str | None = Field(
        None, max_length=4000, description="With prompt_init text: its tokens, repeated or cut to the virtual tokens."
    )
    prompt_init_adapter: str | None = Field(
        None,
        max_length=1000,
        description="With prompt_init adapter: folder or zip of an adapter, or a run directory. Its base model needs "
        "the same hidden size; its virtual tokens are repeated or cut.",
    )
    head_input: HeadInput = Field(
        HeadInput.AUTO,
        description="What a classification head reads: model is what the base model's own class reads, as in PEFT; "
        "mean the mean of the text's last hidden states, last and first one of them. auto takes what the base model "
        "was trained with, else what tells the labels apart best, measured on up to 2,000 rows. Stock PEFT loads model "
        "alone; the others come with a loader of their own.",
    )
    head_start: HeadStart = Field(
        HeadStart.AUTO,
        description="Where a classification head starts: probe is a regularised regression on what it reads, so that "
        "the first step is nearly as good as that; zero learns from nothing. auto is probe.",
    )
    learning_rate: float = Field(
        3e-3, gt=0.0, le=1.0, description="Peak step size. Raising it learns faster, until the loss jumps."
    )
    head_learning_rate: float | None = Field(
        None, gt=0.0, le=1.0, description="Peak step size of a classification head. Empty: what suits its start."
    )
    base_weights: BaseWeights = Field(
        BaseWeights.FROZEN,
        description="frozen is P-tuning's default: only the virtual tokens learn, the adapter stays small, and one "
        "base model serves many. tuned trains the base model too, as the paper does on SuperGLUE: four times its size "
        "in memory, ten times on disk, and the download holds the whole tuned model.",
    )
    base_learning_rate: float = Field(
        1e-5,
        gt=0.0,
        le=1.0,
        description="Peak step size of a tuned base model's own weights (the paper's 1e-5); their weight decay is 0.1. "
        "Without effect on a frozen one.",
    )
    weight_decay: float = Field(0.0, ge=0.0, le=1.0, description="AdamW weight decay; more pulls the weights to zero.")
    warmup_ratio: float = Field(0.06, ge=0.0, le=0.9, description="Share of the steps over which the step size grows.")
    max_grad_norm: float = Field(1.0, gt=0.0, le=1000.0, description="Gradients longer than this are cut to it.")
    batch_size: int | None = Field(
        None,
        ge=1,
        le=4096,
        description="Examples per forward pass; more needs more memory. Empty: 32 for a classification head, else 16.",
    )
    gradient_accumulation_steps: int = Field(
        1, ge=1, le=1024, description="Batches per optimizer step; raises the effective batch without more memory."
    )
    max_steps: int = Field(200, ge=1, le=1_000_000, description="Optimizer steps, unless `epochs` is given.")
    epochs: float | None = Field(None, gt=0.0, le=1000.0, description="Passes over the data; replaces `max_steps`.")
    eval_every: int | None = Field(
        None, ge=1, le=1_000_000, description="Steps between evaluations. Empty: about 10 a run, 5 steps apart or more."
    )
    eval_batch_size: int = Field(64, ge=1, le=4096, description="Examples per forward pass of an evaluation.")
    patience: int = Field(
        6, ge=0, le=1000, description="Evaluations without a better result before stopping early; 0 never stops early."
    )
    checkpoint_every: int = Field(25, ge=1, le=1_000_000, description="Steps between resumable checkpoints.")
    validation_fraction: float = Field(0.15, gt=0.0, le=0.9, description="Share of the rows set aside for validation.")
    max_validation_rows: int = Field(1000, ge=1, le=1_000_000, description="At most this many rows are set aside.")
    examples_per_label: int = Field(
        0,
        ge=0,
        le=100_000,
        description="Few-shot: so many training rows for each label, drawn by the seed; validation rows stay the same. "
        "0 uses all rows.",
    )
    max_length: int | None = Field(
        None,
        ge=8,
        le=131_072,
        description="Tokens per example, virtual tokens included. Empty: what fits, at most 512.",
    )
    max_new_tokens: int = Field(64, ge=1, le=1024, description="Longest text generated for a reply, in tokens.")
    text_cache_mib: int | None = Field(
        None,
        ge=0,
        le=100_000_000,
        description="Memory for keys and values of text before the first virtual token, computed once. Empty: up to "
        "half of what is free. What does not fit is kept on disk; 0 computes them every time.",
    )
    precision: Precision = Field(
        Precision.AUTO,
        description="Base model numbers: auto is bf16 where the device has it; int8 and int4 save memory and need "
        "bitsandbytes. A tuned base model learns in fp32.",
    )
    gradient_checkpointing: bool = Field(
        False, description="Compute activations again for the gradient: less memory for long texts, a third slower."
    )
    device: Device = Field(Device.AUTO, description="auto takes a GPU if there is one.")
    seed: int = Field(
        0, ge=0, le=2**31 - 1, description="Decides the split, the order and the start; same seed, same run."
    )

    sweep: dict[str, list[Any]] = Field(
        default_factory=dict,
        description="Options with several values; every combination is trained and ranked, such as "
        "{learning_rate: [0.003, 0.01]}.",
    )
    halving: bool = Field(
        True,
        description="In a sweep, end the worse half of its settings early, after a tenth, a fifth and two fifths of "
        "the steps: eight of them take about twice the time of one. Trials that differ in the seed alone all go on.",
    )

    @field_validator("labels", "columns", mode="before")
    @classmethod
    def _names_are_text(cls, value: object) -> object:
        """YAML reads the label 0 as a number; labels and columns are always text here."""
        return {str(key): answer for key, answer in value.items()} if isinstance(value, dict) else value

    @model_validator(mode="after")
    def _check_together(self) -> Self:
        template = self.parsed_template
        if template.num_virtual_tokens > MAX_VIRTUAL_TOKENS:
            raise SettingsError(
                "The template has too many virtual tokens",
                got=str(template.num_virtual_tokens),
                needed=f"at most {MAX_VIRTUAL_TOKENS}",
            )
        # By the look of it alone: stored settings are read again in other folders.
        if self.revision is not None and (self.base_model == DEMO or self.base_model.startswith(("/", ".", "~"))):
            raise refusals.revision_of_a_folder(self.base_model, self.revision)
        target = template.target
        if self.candidates and (self.labels or target.kind is TargetKind.HEAD or target.count > 1):
            raise refusals.no_word_to_find("labels" if self.labels else f"[{target.kind}:{target.column}]")
        if self.labels == {} and target.kind is TargetKind.HEAD:
            raise refusals.head_without_labels(target.column)
        if self.base_weights is BaseWeights.TUNED and self.precision not in (Precision.AUTO, Precision.FP32):
            raise refusals.too_coarse_to_learn(self.precision)
        if self.base_weights is BaseWeights.TUNED and self.head_input not in (HeadInput.AUTO, HeadInput.MODEL):
            raise refusals.read_by_its_own_head(self.head_input)
        if not self.sweep:  # else each trial is checked
            self._check_start()
            if self.prompt_depth is PromptDepth.ALL and not template.is_front:
                raise refusals.not_deep(self.template)
        if self.prompt_depth is PromptDepth.ALL and self.base_weights is BaseWeights.TUNED:
            raise refusals.deep_and_tuned()
        self._check_sweep(template.target)
        return self

    def _check_start(self) -> None:
        needed = {PromptInit.TEXT: "prompt_init_text", PromptInit.ADAPTER: "prompt_init_adapter"}.get(self.prompt_init)
        if needed is not None and not (getattr(self, needed) or "").strip():
            raise refusals.start_from_nothing(self.prompt_init, needed, getattr(self, needed))

    def _check_sweep(self, target: Target) -> None:
        if wrong := [option for option in self.sweep if option not in SWEPT]:
            raise SettingsError("The sweep varies what it cannot", got=", ".join(wrong), needed=", ".join(SWEPT))
        if empty := [option for option, values in self.sweep.items() if not values]:
            raise SettingsError("The sweep has options without values", got=", ".join(empty))
        count = math.prod(map(len, self.sweep.values()))
        if count > MAX_TRIALS:
            raise SettingsError("The sweep has too many trials", got=str(count), needed=f"at most {MAX_TRIALS}")
        for trial in self.trials if self.sweep else ():
            if (found := trial.parsed_template.target) != target:
                raise refusals.other_target(f"[{found.kind}:{found.column}]", f"[{target.kind}:{target.column}]")

    @property
    def trials(self) -> list[RunSettings]:
        """The settings of every combination the sweep asks for; without a sweep these settings alone.

        Raises:
            SettingsError: A value is wrong.
        """
        if not self.sweep:
            return [self]
        values = self.model_dump(exclude={"sweep"})
        return [
            RunSettings.parse(values | dict(zip(self.sweep, chosen, strict=True)))
            for chosen in itertools.product(*self.sweep.values())
        ]

    @property
    def parsed_template(self) -> Template:
        """The template as segments.

        Raises:
            TemplateError: The text breaks the grammar.
        """
        return parse_template(self.template)

    @property
    def examples_per_batch(self) -> int:
        """`batch_size`, or what suits the target where it is empty.

        A head gained a point from 32 instead of 16 after as many steps (benchmarks/RESULTS.md); where words are scored
        a step of 32 took a small decoder too long for that.
        """
        if self.batch_size is not None:
            return self.batch_size
        return 32 if self.parsed_template.target.kind is TargetKind.HEAD else 16

    @property
    def split(self) -> SplitOptions:
        """How the rows are split, and how many of them are learned from."""
        return SplitOptions(self.validation_fraction, self.max_validation_rows, self.seed, self.examples_per_label)

    @property
    def input_columns(self) -> tuple[str, ...]:
        """Every column that an example is made from, but the target's: the template's, and those of answers."""
        return inputs_of(self.parsed_template, answer_columns(self.labels or {}))

    def steps_for(self, num_examples: int, processes: int = 1) -> int:
        """Optimizer steps of a run over `num_examples` training examples, in so many processes."""
        if self.epochs is None:
            return self.max_steps
        per_epoch = num_examples / (self.examples_per_batch * self.gradient_accumulation_steps * processes)
        return max(1, math.ceil(self.epochs * per_epoch))

    def eval_every_for(self, steps: int) -> int:
        """Steps between evaluations in a run of `steps` steps."""
        # Closer together, the patience of a short run would be over before its warm-up is.
        return self.eval_every or max(5, round(steps / 10))

    @classmethod
    def parse(cls, values: Mapping[str, Any]) -> RunSettings:
        """Check `values` and build the settings.

        Raises:
            SettingsError: With every problem of every field, one line each. A template that breaks the grammar is one.
        """
        try:
            return cls.model_validate({name: value for name, value in values.items() if not _is_retired(name, value)})
        except ValidationError as error:
            raise SettingsError(describe(error)) from None
        except PTuneError as error:
            raise SettingsError(str(error)) from error

    @classmethod
    def from_yaml(cls, text: str) -> RunSettings:
        """Read settings from YAML text (`init-settings` writes such a file).

        Raises:
            SettingsError: The text is not YAML, not a mapping, or holds wrong values.
        """
        return cls.parse(load_mapping(text))

    def to_yaml(self) -> str:
        """Every option with its help as a comment; `from_yaml` reads it back unchanged."""
        values = self.model_dump(mode="json")
        lines = ["# Settings of a PTune run. Train with: python -m ptune_core train SETTINGS.yaml --out DIR"]
        for field_name, field in type(self).model_fields.items():
            lines += ["", f"# {field.description}"]
            if bounds := bounds_text(field):
                lines.append(f"# {bounds}")
            lines.append(yaml.safe_dump({field_name: values[field_name]}, allow_unicode=True, width=10_000).rstrip())
        return "\n".join(lines) + "\n"


def _is_retired(name: str, value: object) -> bool:
    return name in RETIRED and value == RETIRED[name]
