"""transformers' `generate` for a batch of rows with virtual tokens.

B rows, C columns of the input, T text positions, W positions that the base model reads, H hidden size, N new tokens.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ptune_core.errors import DataError, SettingsError
from ptune_core.model.placement import Placement

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_DEFAULT_NEW_TOKENS = 20
"""transformers' own."""


def visible(base: PreTrainedModel, input_ids: Tensor, options: dict[str, Any]) -> Tensor | None:
    """The attention mask that transformers' `generate` takes for decoders where none is given: it hides padding tokens.

    Returns:
        `[B, C]`; None, everything is visible, if there is no padding token, or one that also ends texts.
    """
    option = _Options(base, options)
    if option.own_padding is None or option.own_padding in option.ends:
        return None
    return input_ids != option.own_padding


def generate_from_encoder(
    base: PreTrainedModel, placement: Placement, embeddings: Tensor, options: dict[str, Any]
) -> Any:
    """Generate with an encoder-decoder model whose encoder reads `embeddings` `[B, W, H]`."""
    run: Any = base.generate
    return run(inputs_embeds=embeddings, attention_mask=placement.mask.long(), **options)


def generate_after(
    base: PreTrainedModel, placement: Placement, embeddings: Tensor, limit: int | None, options: dict[str, Any]
) -> Any:
    """Generate with a decoder that reads `embeddings` `[B, W, H]` first.

    Args:
        base: The base model.
        placement: Made to generate: every row ends at the last position.
        embeddings: Of `placement`.
        limit: Positions of the base model, if it has a limit.
        options: As transformers' `generate` takes them.

    Returns:
        See `PromptedModule.generate`.
    """
    option = _Options(base, options)
    text = _text_ids(placement, option.padding)
    options = options | {"attention_mask": placement.mask.long()}
    options["max_new_tokens"] = option.max_new_tokens(placement, limit)
    options.pop("max_length", None)
    if options.get("token_type_ids") is not None:
        options["token_type_ids"] = placement.spread(options["token_type_ids"], 0, "token_type_ids")
    run: Any = base.generate
    if option.needs_ids:
        ids = torch.where(placement.numbers < 0, option.padding, placement.numbers)
        with _looked_up_first(base.get_input_embeddings(), embeddings):
            output = run(ids, **options)
        num_given = ids.shape[1]
    else:
        output = run(text, inputs_embeds=embeddings, **options)
        num_given = text.shape[1]
    return _behind(output, num_given, text, placement.columns, option.padding)


class _Options:
    """What of `generate`'s options decides how rows get in, wherever it was set."""

    def __init__(self, base: PreTrainedModel, options: dict[str, Any]) -> None:
        def value(name: str) -> Any:
            configs = [options.get("generation_config"), base.generation_config]
            values = [options.get(name), *(getattr(config, name, None) for config in configs)]
            return next((value for value in values if value is not None), None)

        if value("assistant_early_exit"):
            raise SettingsError(
                "The base model cannot be its own assistant here",
                got="assistant_early_exit",
                remedy="Pass an assistant_model, or prompt_lookup_num_tokens",
            )
        is_assisted = options.get("assistant_model") is not None or bool(value("prompt_lookup_num_tokens"))
        self.needs_ids = is_assisted or bool(value("prefill_chunk_size"))
        end = value("eos_token_id")
        self.ends = list(end) if isinstance(end, list | tuple) else [end]
        self.own_padding = value("pad_token_id")
        self.padding = int(next(each for each in (self.own_padding, *self.ends, 0) if each is not None))
        self._new, self._whole = value("max_new_tokens"), value("max_length")

    def max_new_tokens(self, placement: Placement, limit: int | None) -> int:
        """N at most; fewer where the base model's positions end.

        Raises:
            DataError: There is none left.
        """
        wanted = self._new
        if wanted is None:
            wanted = _DEFAULT_NEW_TOKENS if self._whole is None else self._whole - placement.columns
        room = wanted if limit is None else min(wanted, limit - placement.width)
        if room < 1:
            raise DataError(
                "The rows leave no position for an answer",
                got=f"{placement.width} tokens with virtual tokens, {placement.columns} without",
                needed=f"fewer than {self._whole if limit is None else limit}",
            )
        return int(room)


def _text_ids(placement: Placement, padding: int) -> Tensor:
    """`[B, T]` ids of the visible text, padded on the left."""
    is_text = placement.mask & (placement.numbers >= 0)
    width = int(is_text.sum(dim=1).max())
    order = torch.argsort(is_text.to(torch.uint8), dim=1, stable=True)[:, placement.width - width :]
    return placement.numbers.gather(1, order).masked_fill(~is_text.gather(1, order), padding)


@contextmanager
def _looked_up_first(word_embeddings: nn.Module, embeddings: Tensor) -> Iterator[None]:
    """The first W positions that are looked up are `embeddings` `[B, W, H]`, whatever their ids are.

    Assisted decoding and chunks of the prefill pass on ids alone.
    """
    done = 0

    def put(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor | None:
        nonlocal done
        if done == embeddings.shape[1]:
            return None
        new = embeddings[:, done : done + output.shape[1]]
        done += new.shape[1]
        # Beams and several sequences are copies of each row, one after the other.
        new = new.repeat_interleave(len(output) // len(new), dim=0)
        return torch.cat([new, output[:, new.shape[1] :]], dim=1)

    handle = word_embeddings.register_forward_hook(put)
    try:
        yield
    finally:
        handle.remove()


def _behind(output: Any, num_given: int, text: Tensor, columns: int, padding: int) -> Any:
    """Put new tokens behind the text, which is padded on the left to the width of the input."""
    sequences = output if isinstance(output, Tensor) else output.sequences
    given = text.repeat_interleave(len(sequences) // len(text), dim=0)
    fill = given.new_full((len(given), max(0, columns - given.shape[1])), padding)
    sequences = torch.cat([fill, given, sequences[:, num_given:]], dim=1)
    if isinstance(output, Tensor):
        return sequences
    output.sequences = sequences
    return output
