"""A prompted module: P-tuning for people who bring their own transformers model and training loop.

B rows, C columns of `input_ids`, T text positions, V virtual tokens, P rows of the prompt embeddings, H hidden size.
What PEFT's `get_peft_model` with a PromptEncoderConfig is, and its adapters load both ways (`adapters.module_files`),
but whatever goes in and comes out belongs to the text: positions, labels and padding are as without a prompt.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ptune_core.errors import DataError, SettingsError
from ptune_core.model.module_adapter import (
    ModuleAdapter,
    check_fits,
    completed,
    head_modules,
    in_place_of,
    position_limit,
    word_embedding_weight,
)
from ptune_core.model.module_call import Call
from ptune_core.model.module_generation import generate_after, generate_from_encoder, visible
from ptune_core.prompt.config import PromptEncoderConfig, TaskType

if TYPE_CHECKING:
    from transformers import PreTrainedModel

DEFAULT_ADAPTER = "default"

_BASE = "base_model"
_ARGUMENTS = (
    "input_ids", "attention_mask", "token_type_ids", "position_ids", "inputs_embeds", "labels", "start_positions",
    "end_positions", "decoder_input_ids", "decoder_attention_mask",
)  # fmt: skip
"""What a data set may bring: transformers' Trainer keeps the columns that it finds among a forward's parameters."""


def _with_named_arguments(forward: Callable[..., Any]) -> Callable[..., Any]:
    """`forward` with a signature that names what base models take: the Trainer drops the columns it does not name."""
    own = inspect.Parameter.POSITIONAL_OR_KEYWORD
    described: Any = forward
    described.__signature__ = inspect.Signature(
        [
            inspect.Parameter("self", own),
            *(inspect.Parameter(each, own, default=None) for each in _ARGUMENTS),
            inspect.Parameter("inputs", inspect.Parameter.VAR_KEYWORD),
        ]
    )
    return forward


class PromptedModule(nn.Module):
    """A frozen transformers model with virtual tokens in its input, to be called as the model itself.

    **Placement.** Rows of token ids get the prompt in front. A row may instead say itself where virtual tokens stand:
    -(i + 1) in `input_ids` is virtual token i, once or as often as it is written. Then whatever has a column for every
    token (`attention_mask`, `token_type_ids`, `position_ids`) has one for them too, and the adapter is saved under a
    name that PEFT refuses, because PEFT would put the prompt in front.

    **Outputs** have the base model's class and belong to the text: `logits`, `start_logits`, `end_logits`,
    `last_hidden_state` and `hidden_states` are `[B, T, ...]`, without virtual tokens. Where the attention mask hides a
    position they mean nothing (start and end logits are the lowest number there). `attentions` cover all positions that
    the base model read. The token that a BERT classifier reads is the first of the row: a virtual token if they stand
    in front, as in PEFT. Write `[CLS]` before the virtual tokens to have that read.

    **Labels** of tokens are `[B, C]` or `[B, T]`; those at virtual and hidden positions count for nothing. Places of an
    answer count the text. Losses are the base model's own. In CAUSAL_LM the last virtual token in front predicts the
    first token, as in PEFT.

    **Padding** may be on either side: a row gives what it gives alone.

    **In transformers' Trainer** nothing special is needed; checkpoints hold the adapters alone, and go on exactly. For
    QUESTION_ANS set `label_names=["start_positions", "end_positions"]`.

    Not safe for several threads at once: an adapter's head takes its place in the base model during a call.

    Args:
        base: Put into eval mode and frozen for good; nothing else of it is ever changed.
        config: What it leaves open is taken from the base model; the object itself is not changed. `task_type` and
            `num_virtual_tokens` are needed.
        start: Prompt embeddings before the first step `[P, H]`; None: random, exactly PEFT's. See `prompt.init`.
        adapter_name: Of the first adapter.

    Raises:
        SettingsError: The config does not fit the base model.
    """

    def __init__(
        self,
        base: PreTrainedModel,
        config: PromptEncoderConfig,
        *,
        start: Tensor | None = None,
        adapter_name: str = DEFAULT_ADAPTER,
    ) -> None:
        super().__init__()
        self.base_model = base.eval().requires_grad_(False)
        self.adapters = nn.ModuleDict()
        parameters = inspect.signature(base.forward).parameters.values()
        self._base_takes = tuple(each.name for each in parameters)
        self._base_takes_more = any(each.kind is each.VAR_KEYWORD for each in parameters)
        self._position_limit = position_limit(base)
        self._enabled, self._recompute = True, False
        self.register_state_dict_post_hook(_drop_base)
        self.register_load_state_dict_post_hook(_expect_no_base)
        self.add_adapter(adapter_name, config, start=start)
        self.set_adapter(adapter_name)
        self.train()

    # What transformers' Trainer asks a model for.

    @property
    def config(self) -> Any:
        """The base model's config."""
        return self.base_model.config

    @property
    def generation_config(self) -> Any:
        """The base model's, None if it does not generate."""
        return getattr(self.base_model, "generation_config", None)

    @property
    def device(self) -> torch.device:
        """Where inputs go."""
        return word_embedding_weight(self.base_model).device

    @property
    def accepts_loss_kwargs(self) -> bool:
        """Whether the base model's loss can be told how many items all the batches of a step have together."""
        return bool(getattr(self.base_model, "accepts_loss_kwargs", self._base_takes_more))

    def _get_name(self) -> str:
        # By this name transformers' Trainer knows whether its label smoothing has to shift labels.
        return type(self.base_model).__name__

    def activation_checkpointing_enable(
        self, activation_checkpointing_kwargs: Mapping[str, Any] | None = None, **options: Any
    ) -> None:
        """Compute every layer's activations again in the backward pass, which saves their memory.

        Raises:
            SettingsError: Anything but `use_reentrant=False`, which is the default, is asked for.
        """
        asked = {**(activation_checkpointing_kwargs or {}), **options}
        usual = {"use_reentrant": False, "every_n_layers": 1, "offload": False}
        if other := {name: value for name, value in asked.items() if usual.get(name) != value}:
            raise SettingsError("Activations cannot be checkpointed in this way", got=str(other), needed=str(usual))
        self._recompute = True

    def activation_checkpointing_disable(self) -> None:
        """Keep activations again."""
        self._recompute = False

    def train(self, mode: bool = True) -> PromptedModule:
        """Train mode for the adapters alone: the base model stays as it is, without dropout."""
        super().train(mode)
        self.base_model.eval()
        return self

    # Adapters.

    @property
    def active_adapter(self) -> str:
        """Name of the adapter in use."""
        return self._active

    @property
    def adapter(self) -> ModuleAdapter:
        """The adapter in use."""
        return self._get(self._active)

    def add_adapter(self, name: str, config: PromptEncoderConfig, *, start: Tensor | None = None) -> ModuleAdapter:
        """Add an adapter, of any size and task that this base model is made for; `set_adapter` puts it to use.

        Args:
            name: Not in use yet, and without a dot.
            config: As for the class. In inference mode the adapter is finished: `start` is its prompt embeddings.
            start: `[P, H]` or None.

        Raises:
            SettingsError: The name cannot be used, or the config does not fit the base model.
        """
        if not name or "." in name or name in self.adapters or hasattr(nn.ModuleDict, name):
            raise SettingsError("The adapter cannot have this name", got=repr(name), needed="a new one without dots")
        config = completed(config, self.base_model)
        check_fits(self.base_model, TaskType(str(config.task_type)), self._base_takes)
        adapter = ModuleAdapter(self.base_model, config, start)
        self.adapters[name] = adapter.train(self.training)
        return adapter

    def set_adapter(self, name: str) -> None:
        """Use this adapter from now on; it alone gets gradients.

        Raises:
            SettingsError: There is no such adapter.
        """
        self._get(name)
        self._active = name
        for other in self.adapters:
            self._get(other).activate(other == name)

    def delete_adapter(self, name: str) -> None:
        """Forget an adapter that is not in use.

        Raises:
            SettingsError: It is in use, or there is none of this name.
        """
        self._get(name)
        if name == self._active:
            raise SettingsError(
                "The adapter is in use", got=name, remedy="Put another one to use with set_adapter first"
            )
        del self.adapters[name]

    @contextmanager
    def disable_adapter(self) -> Iterator[None]:
        """While this lasts, everything is the base model's own: forward, generate, its original head."""
        before, self._enabled = self._enabled, False
        try:
            yield
        finally:
            self._enabled = before

    def prompt_embeddings(self, name: str | None = None) -> Tensor:
        """`[P, H]` of an adapter, as they are saved: without dropout, in train mode too."""
        return self._get(self._active if name is None else name).prompt_embeddings()

    def _get(self, name: str) -> ModuleAdapter:
        if name not in self.adapters:
            raise SettingsError("There is no such adapter", got=repr(name), needed=", ".join(self.adapters))
        adapter = self.adapters[name]
        assert isinstance(adapter, ModuleAdapter)
        return adapter

    # Calls.

    @_with_named_arguments
    def forward(self, input_ids: Tensor | None = None, attention_mask: Tensor | None = None, **inputs: Any) -> Any:
        """What the base model gives for the text behind the prompt.

        Args:
            input_ids: `[B, C]` token ids, and virtual tokens as negative numbers; or `inputs_embeds` `[B, C, H]`.
            attention_mask: `[B, C]`, 0 hides a position; None: everything is visible.
            **inputs: As the base model takes them.

        Returns:
            The base model's output class, see the class; a tuple if `return_dict` is False.

        Raises:
            DataError: Shapes do not fit, a virtual token does not exist, or the rows are longer than the base model's
                positions.
            SettingsError: A classifier that has no padding token in its config is given several rows.
        """
        if "token_type_ids" not in self._base_takes:
            inputs.pop("token_type_ids", None)
        if not self._enabled:
            _refuse_numbers(input_ids)
            return self.base_model(input_ids=input_ids, attention_mask=attention_mask, **inputs)
        as_tuple = inputs.pop("return_dict", None) is False
        kept = inputs.pop("logits_to_keep", 0)
        call = self._call
        placement = call.place(input_ids, inputs.get("inputs_embeds"), attention_mask)
        if self.training and torch.is_grad_enabled() and not placement.is_front:
            self.adapter.in_front.fill_(False)
        recompute = self._recompute and torch.is_grad_enabled() and not inputs.get("use_cache")
        with call.prepared(placement, recompute=recompute):
            output = self.base_model(**call.inputs(placement, inputs), return_dict=True)
        call.align(output, placement)
        if kept:
            output["logits"] = output["logits"][:, -kept:]
        return output.to_tuple() if as_tuple else output

    @torch.no_grad()
    def generate(self, input_ids: Tensor, attention_mask: Tensor | None = None, **options: Any) -> Any:
        """Generate with transformers' own `generate` of the base model, behind the prompt.

        Beams, sampling, static caches, prompt lookup, chunked prefill, processors, streamers: all of it works, and a
        row of a batch gives what it gives alone. What looks at the tokens of a row, such as a repetition penalty, sees
        its text and no virtual token; but prompt lookup and chunks, which need an id for every position, find a padding
        token for each.

        Args:
            input_ids: `[B, C]`, as in `forward`.
            attention_mask: `[B, C]`; padding may be on either side. None: as transformers' `generate` has it, a decoder
                sees everything but padding tokens, an encoder everything.
            **options: As transformers' `generate` takes them. `max_length` counts C, as without a prompt.

        Returns:
            `[B, C + N]` for CAUSAL_LM: the text of each row, padded on the left to C columns, and N new tokens;
            `[B, N]` for SEQ_2_SEQ_LM. With `return_dict_in_generate` transformers' output with these `sequences`.

        Raises:
            SettingsError: The task is another, or an option cannot be used here.
            DataError: As in `forward`, or the rows leave no position for an answer.
        """
        if "token_type_ids" not in self._base_takes:
            options.pop("token_type_ids", None)
        if not self._enabled:
            _refuse_numbers(input_ids)
            return self.base_model.generate(input_ids, attention_mask=attention_mask, **options)
        call = self._call
        if call.task not in (TaskType.CAUSAL_LM, TaskType.SEQ_2_SEQ_LM):
            raise SettingsError("This adapter does not generate", got=call.task, needed="CAUSAL_LM, SEQ_2_SEQ_LM")
        if refused := [name for name in ("inputs_embeds", "past_key_values", "position_ids") if name in options]:
            raise SettingsError("generate makes these itself", got=", ".join(refused), needed="input_ids")
        is_causal = call.task is TaskType.CAUSAL_LM
        if is_causal and attention_mask is None:
            attention_mask = visible(self.base_model, input_ids, options)
        placement = call.place(input_ids, None, attention_mask, at_the_end=is_causal)
        with in_place_of(self.base_model, dict(self.adapter.head.named_parameters())):
            embeddings = call.embed(placement, self.prompt_embeddings())
            if not is_causal:
                return generate_from_encoder(self.base_model, placement, embeddings, options)
            return generate_after(self.base_model, placement, embeddings, self._position_limit, options)

    @property
    def _call(self) -> Call:
        return Call(self.base_model, self.adapter, self._base_takes, self._position_limit)


def saved_modules(module: PromptedModule, name: str | None = None) -> list[str]:
    """Names of the base model's modules that an adapter trains beside the prompt."""
    adapter = module._get(module.active_adapter if name is None else name)
    return head_modules(module.base_model, adapter.config)


def _refuse_numbers(input_ids: Tensor | None) -> None:
    if input_ids is not None and input_ids.numel() and int(input_ids.min()) < 0:
        raise DataError(
            "The base model alone has no virtual tokens",
            got="negative numbers in input_ids",
            remedy="Pass the text alone",
        )


def _drop_base(module: nn.Module, state: dict[str, Any], prefix: str, local_metadata: dict[str, Any]) -> None:
    """Only what is trained is state: the base model is kept elsewhere, and never changes."""
    for name in [name for name in state if name.startswith(f"{prefix}{_BASE}.")]:
        del state[name]


def _expect_no_base(module: nn.Module, incompatible: Any) -> None:
    incompatible.missing_keys[:] = [name for name in incompatible.missing_keys if f"{_BASE}." not in name]
