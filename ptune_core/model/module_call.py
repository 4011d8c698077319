"""One call of the base model for an adapter: what goes in for a text, and what comes out for it.

B rows, C columns of `input_ids`, T text positions, W positions that the base model reads, H hidden size.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ptune_core.errors import DataError, SettingsError
from ptune_core.model.module_adapter import (
    ModuleAdapter,
    in_place_of,
    pooled_at,
    recomputed_layers,
    word_embedding_weight,
)
from ptune_core.model.placement import Placement, place
from ptune_core.model.virtual import combine
from ptune_core.prompt.config import TaskType

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_POOLS_LAST = "score"
"""The head of decoders, which reads the last position; encoders have a `classifier`."""


@dataclass(frozen=True)
class Call:
    """A base model as an adapter uses it.

    Attributes:
        base: The base model.
        adapter: Whose prompt and head are used.
        takes: What the base model's forward takes.
        limit: Positions of the base model, if it has a limit.
    """

    base: PreTrainedModel
    adapter: ModuleAdapter
    takes: tuple[str, ...]
    limit: int | None

    @property
    def task(self) -> TaskType:
        """What the adapter does."""
        return TaskType(str(self.adapter.config.task_type))

    @property
    def num_virtual_tokens(self) -> int:
        """V."""
        count = self.adapter.config.num_virtual_tokens
        assert count is not None, "the config is complete"
        return count

    @property
    def _device(self) -> torch.device:
        return word_embedding_weight(self.base).device

    @property
    def _reads_in_encoder(self) -> bool:
        """Whether the prompt goes into an encoder, and outputs belong to a decoder's own text."""
        return "decoder_input_ids" in self.takes

    def place(
        self,
        input_ids: Tensor | None,
        inputs_embeds: Tensor | None,
        attention_mask: Tensor | None,
        *,
        at_the_end: bool = False,
    ) -> Placement:
        """Where everything stands.

        Raises:
            DataError: See `PromptedModule.forward`.
        """
        if (input_ids is None) == (inputs_embeds is None):
            raise DataError("There must be a text", got="input_ids and inputs_embeds, or neither", needed="one of them")
        if input_ids is None:
            assert inputs_embeds is not None
            input_ids = torch.zeros(inputs_embeds.shape[:2], dtype=torch.long)
        count = self.num_virtual_tokens
        placement = place(input_ids.to(self._device), attention_mask, count, at_the_end=at_the_end)
        if self.limit is not None and placement.width > self.limit:
            raise DataError(
                "A row is longer than the base model's positions, together with its virtual tokens",
                got=f"{placement.width} tokens, {count} virtual tokens in the prompt",
                needed=f"at most {self.limit}",
                remedy="Shorten the text, or use fewer virtual tokens",
            )
        return placement

    def embed(self, placement: Placement, prompt: Tensor, inputs_embeds: Tensor | None = None) -> Tensor:
        """`[B, W, H]`: word embeddings, or those given `[B, C, H]`, with those of `prompt` `[P, H]` in their places."""
        if inputs_embeds is None:
            text = self.base.get_input_embeddings()(placement.token_ids)
        else:
            text = placement.spread_embeddings(inputs_embeds)
        # An encoder-decoder model has rows for its decoder too, which PEFT does not use; they shape these in the LSTM.
        return combine(text, placement.virtual_index, prompt[: self.num_virtual_tokens].to(text.device))

    def inputs(self, placement: Placement, given: dict[str, Any]) -> dict[str, Any]:
        """What the base model is called with.

        Args:
            placement: Of the text.
            given: What the module is called with beside token ids and attention mask.

        Raises:
            DataError: A shape does not fit the text, or the text was begun elsewhere.
        """
        past = given.get("past_key_values")
        if given.get("encoder_outputs") is not None or (past is not None and past.get_seq_length()):
            raise DataError(
                "A text that was begun elsewhere has no place for the prompt",
                got="past_key_values or encoder_outputs",
                remedy="Pass the whole text, or use generate",
            )
        called = {name: value for name, value in given.items() if value is not None}
        called["inputs_embeds"] = self.embed(placement, self.adapter.prompt(), called.get("inputs_embeds"))
        called["attention_mask"] = placement.attention_mask
        if "use_cache" in self.takes:
            called.setdefault("use_cache", False)
        if "token_type_ids" in called:
            called["token_type_ids"] = placement.spread(called["token_type_ids"], 0, "token_type_ids")
        if "position_ids" in called:
            called["position_ids"] = placement.spread_positions(called["position_ids"])
        if self.task in (TaskType.CAUSAL_LM, TaskType.TOKEN_CLS) and "labels" in called:
            called["labels"] = placement.spread_labels(called["labels"])
        for name in ("start_positions", "end_positions"):
            if name in called and not self._reads_in_encoder:
                called[name] = placement.to_positions(called[name].to(self._device))
        return called

    @contextmanager
    def prepared(self, placement: Placement, *, recompute: bool) -> Iterator[None]:
        """While this lasts, the base model has the adapter's head, and a decoder pools each row's last token.

        Args:
            placement: Of the text.
            recompute: Whether layers compute their activations again in the backward pass.

        Raises:
            SettingsError: A classifier that has no padding token in its config is given several rows.
        """
        with ExitStack() as stack:
            parameters = dict(self.adapter.head.named_parameters())
            stack.enter_context(in_place_of(self.base, parameters))
            if recompute:
                stack.enter_context(recomputed_layers(self.base, parameters))
            if self.task is TaskType.SEQ_CLS and isinstance(getattr(self.base, _POOLS_LAST, None), nn.Module):
                self._check_padding(len(placement.mask))
                stack.enter_context(pooled_at(self.base.get_submodule(_POOLS_LAST), placement.last))
            yield

    def align(self, output: Any, placement: Placement) -> None:
        """Take virtual tokens out of what the base model gave."""
        hidden = "encoder_hidden_states" if self._reads_in_encoder else "hidden_states"
        last = "encoder_last_hidden_state" if self._reads_in_encoder else "last_hidden_state"
        if output.get(last) is not None:
            output[last] = placement.to_text(output[last])
        if output.get(hidden) is not None:
            output[hidden] = tuple(placement.to_text(each) for each in output[hidden])
        if self._reads_in_encoder:
            return
        if self.task in (TaskType.CAUSAL_LM, TaskType.TOKEN_CLS):
            output["logits"] = placement.to_text(output["logits"])
        for name in ("start_logits", "end_logits"):
            if output.get(name) is not None:
                # The lowest number, so that no answer is found in padding.
                output[name] = placement.to_text(output[name], torch.finfo(output[name].dtype).min)

    def _check_padding(self, rows: int) -> None:
        if rows > 1 and self.base.config.get_text_config().pad_token_id is None:
            raise SettingsError(
                "transformers' classifier takes one row at a time as long as its config names no padding token",
                got=f"{rows} rows",
                remedy="Set model.config.pad_token_id; any token will do, as the attention mask says what is padding",
            )
