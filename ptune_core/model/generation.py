"""Text from a prompted model: our own loop, a token at a time, and transformers' `generate` with all that it can do.

T positions of a row, P virtual tokens, H hidden size, V vocabulary, N new tokens. Both begin from the stored prefix of
the prompt where there is one, so that a prompt in front costs nothing per request. A masked model fills its mask
tokens, all at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers.modeling_outputs import BaseModelOutput

from ptune_core.data.batching import Row
from ptune_core.errors import SettingsError
from ptune_core.model.base import BaseModel
from ptune_core.model.base_kind import BaseKind
from ptune_core.model.past import Past, Prefix, filled_cache, go_on, inputs_after
from ptune_core.model.prompted import PromptedModel
from ptune_core.model.targets import last_layer_at, only_rows
from ptune_core.model.virtual import adding

_OWN_CACHES = (None, "dynamic", "static")
"""Kinds of cache that can be filled beforehand; with the others the whole row is computed."""


@dataclass(frozen=True)
class Sampling:
    """How text is generated.

    Attributes:
        max_new_tokens: Longest text in tokens.
        temperature: 0 takes the likeliest token; higher is more varied.
        top_p: Only the likeliest tokens that together have this probability are drawn from.
        seed: The same seed gives the same text.
    """

    max_new_tokens: int = 64
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0


@torch.no_grad()
def stream(
    model: PromptedModel, row: Row, prompt_embeddings: Tensor | None, sampling: Sampling, prefix: Prefix | None = None
) -> Iterator[str]:
    """Generate an answer; yields the whole text so far each time it grows. Streams may take turns.

    Args:
        model: Without a verbalizer.
        row: From `make_rows`, with or without virtual tokens as `prompt_embeddings` is given or None.
        prompt_embeddings: `[P, H]` or None.
        sampling: Length, temperature, seed.
        prefix: From `model.prefix` for these prompt embeddings; None computes the whole row.
    """
    base = model.base
    if base.kind is BaseKind.ENCODER:
        yield _filled(model, row, prompt_embeddings)
        return
    limit = _room(base, row, sampling.max_new_tokens)
    generator = torch.Generator(device=base.device).manual_seed(sampling.seed)
    end_ids = _end_ids(base)
    if base.is_causal:
        output, step = _begin(model, row, prompt_embeddings, prefix)
    else:
        output, step = _begin_writing(model, row, prompt_embeddings)
    token_ids: list[int] = []
    shown = text = ""
    while len(token_ids) < limit:
        token_id = draw_token(output.logits[0, -1].float(), sampling, generator)
        if token_id in end_ids:
            break
        token_ids.append(token_id)
        text = str(base.tokenizer.decode(token_ids, skip_special_tokens=True))
        # A trailing replacement character is a word whose remaining bytes are still to come.
        if text != shown and not text.endswith("\ufffd"):
            shown = text
            yield text
        if len(token_ids) < limit:
            output = step(torch.tensor([[token_id]], device=base.device), output.past_key_values)
    if text != shown:
        yield text


Step = Callable[[Tensor, Any], Any]
"""The base model's output for one more token `[1, 1]`, after what its cache holds."""


def _begin(model: PromptedModel, row: Row, prompt_embeddings: Tensor | None, prefix: Prefix | None) -> tuple[Any, Step]:
    """A decoder's output at the end of a row, and how it goes on."""
    base = model.base
    num_done = 0 if prefix is None else prefix.covers([row])
    past = prefix.past.first(num_done) if prefix is not None and num_done else None
    numbers = row.ids[num_done:]
    rest, added = model.embed(numbers, prompt_embeddings), model.added(numbers, prompt_embeddings)
    last = torch.tensor([rest.shape[1] - 1], device=base.device)
    inputs = inputs_after(base, past, rest) | {"use_cache": True}
    head = base.model.get_output_embeddings()
    with only_rows(head, last), last_layer_at(base.row_wise, last), adding(base, added):
        output = base.model(**inputs)
    return output, lambda ids, cache: base.model(input_ids=ids, past_key_values=cache, use_cache=True)


def _begin_writing(model: PromptedModel, row: Row, prompt_embeddings: Tensor | None) -> tuple[Any, Step]:
    """An encoder-decoder's first output after it has read a row, and how it goes on."""
    base = model.base
    inputs = {"attention_mask": torch.ones(1, len(row.ids), dtype=torch.long, device=base.device), "use_cache": True}
    embeddings = model.embed(row.ids, prompt_embeddings)
    start = _tokens(base.decoder_start_ids, base)
    output = base.model(inputs_embeds=embeddings, decoder_input_ids=start, **inputs)
    inputs["encoder_outputs"] = BaseModelOutput(last_hidden_state=output.encoder_last_hidden_state)
    return output, lambda ids, cache: base.model(decoder_input_ids=ids, past_key_values=cache, **inputs)


def _filled(model: PromptedModel, row: Row, prompt_embeddings: Tensor | None) -> str:
    """The likeliest word at each mask token of a row."""
    ids = model.fill([row], prompt_embeddings)[0]
    return str(model.base.tokenizer.decode(ids, skip_special_tokens=True))


def complete(model: PromptedModel, row: Row, prompt_embeddings: Tensor | None, sampling: Sampling) -> str:
    """The whole text that `stream` ends with."""
    texts = ["", *stream(model, row, prompt_embeddings, sampling)]
    return texts[-1]


def draw_token(logits: Tensor, sampling: Sampling, generator: torch.Generator) -> int:
    """One token id from `[V]` logits: the likeliest, or drawn at a temperature from the top of the distribution."""
    if sampling.temperature <= 0:
        return int(logits.argmax())
    probabilities = torch.softmax(logits / sampling.temperature, dim=-1)
    ordered, order = probabilities.sort(descending=True)
    # The first token always stays, so that top_p = 0 is the likeliest token and not an empty distribution.
    outside = ordered.cumsum(dim=-1) - ordered > sampling.top_p
    ordered = ordered.masked_fill(outside, 0.0)
    return int(order[torch.multinomial(ordered, 1, generator=generator)])


@torch.no_grad()
def generate(
    model: PromptedModel,
    row: Row,
    prompt_embeddings: Tensor | None,
    *,
    prefix: Prefix | None = None,
    max_new_tokens: int = 64,
    **options: Any,
) -> Any:
    """Generate with transformers' own `generate` of the base model, which finds the prefix in its cache already.

    All of its options work: greedy, beams, sampling (torch's global seed counts), several sequences, static caches,
    prompt lookup and other assisted decoding, chunked prefill, processors, a streamer. Those that look at the row's
    tokens, such as a repetition penalty, see its text and no virtual token; in assisted decoding alone, which must have
    an id for every position, a padding token stands for each virtual token.

    Args:
        model: Without a verbalizer.
        row: From `make_rows`, with or without virtual tokens as `prompt_embeddings` is given or None.
        prompt_embeddings: `[P, H]` or None.
        prefix: From `model.prefix` for these prompt embeddings; None computes the whole row.
        max_new_tokens: Most new tokens; fewer where the base model's positions end.
        **options: As transformers' `generate` takes them, but for inputs, masks and `past_key_values`.

    Returns:
        New token ids `[sequences, N]`; with `return_dict_in_generate` what transformers returns, its `sequences` these.

    Raises:
        SettingsError: The row fills the base model's positions, or the option `assistant_early_exit` is asked for.
    """
    base = model.base
    run: Any = base.model.generate
    if base.kind is BaseKind.ENCODER:
        raise SettingsError("A masked model fills masks and generates no text", got=base.id, remedy="Use stream")
    room = _room(base, row, max_new_tokens)
    if room < 1:
        raise SettingsError(
            "The row leaves no position for an answer",
            got=f"{len(row.ids)} tokens",
            needed=f"fewer than {base.max_positions}, the base model's positions",
        )
    embeddings = model.embed(row.ids, prompt_embeddings)
    mask = torch.ones(1, len(row.ids), dtype=torch.long, device=base.device)
    options |= {"attention_mask": mask, "max_new_tokens": room}
    if base.kind is BaseKind.ENCODER_DECODER:
        # What its answers begin with comes out of `generate` too, which counts all but the first of it as new.
        given = len(base.decoder_start_ids)
        return _only_new(run(inputs_embeds=embeddings, **(options | {"max_new_tokens": room + given - 1})), given)
    option = _Options(base, options)
    num_done = prefix.covers([row]) if prefix is not None and option.cache in _OWN_CACHES else 0
    past = prefix.past.first(num_done) if prefix is not None and num_done else None
    if option.chunk is not None and model.texts is not None:
        past = _in_chunks(model, past, row, prompt_embeddings, option.chunk)
        options |= {"prefill_chunk_size": None}
    if past is not None or option.cache == "static":
        options |= {"cache_implementation": None, "past_key_values": option.filled_cache(past, len(row.ids) + room)}
    added = model.added(row.ids[0 if past is None else past.width :], prompt_embeddings)
    with _in_one_piece(base.model.get_output_embeddings()), adding(base, added, once=True):
        if option.is_assisted:
            start = 0 if past is None else past.width
            ids = _tokens([_placeholder(base) if number < 0 else number for number in row.ids[start:]], base)
            with _virtual_tokens_at_first(base.word_embeddings, embeddings[:, start:]):
                return _only_new(run(ids, **options), ids.shape[1])
        ids = _tokens([number for number in row.ids if number >= 0], base)
        return _only_new(run(ids, inputs_embeds=embeddings, **options), ids.shape[1])


class _Options:
    """What of `generate`'s options decides how the row gets in, wherever it was set."""

    def __init__(self, base: BaseModel, options: Mapping[str, Any]) -> None:
        def value(name: str) -> Any:
            configs = [options.get("generation_config"), base.model.generation_config]
            values = [options.get(name), *(getattr(config, name, None) for config in configs)]
            return next((value for value in values if value is not None), None)

        self.base = base
        self.cache = None if (cache := value("cache_implementation")) == "hybrid" else cache
        self.chunk: int | None = value("prefill_chunk_size")
        self.sequences = max(value("num_beams") or 1, value("num_return_sequences") or 1)
        self.is_assisted = value("assistant_model") is not None or bool(value("prompt_lookup_num_tokens"))
        if value("assistant_early_exit"):
            raise SettingsError(
                "The base model cannot be its own assistant here",
                got="assistant_early_exit",
                remedy="Pass an assistant_model, or prompt_lookup_num_tokens",
            )

    def filled_cache(self, past: Past | None, length: int) -> Any:
        """A cache of the kind asked for with `past` in it, once for each sequence: `generate` expands only inputs."""
        past = past.each(self.sequences) if past is not None else None
        return filled_cache(self.base, past, length if self.cache == "static" else None)


def _in_chunks(
    model: PromptedModel, past: Past | None, row: Row, prompt_embeddings: Tensor | None, size: int
) -> Past | None:
    """The past of a row up to its last position, `size` positions at a time.

    transformers' own chunks are made of token ids, which virtual tokens do not have.
    """
    start = 0 if past is None else past.width
    for begin in range(start, len(row.ids) - 1, size):
        numbers = row.ids[begin : min(begin + size, len(row.ids) - 1)]
        embeddings, added = model.embed(numbers, prompt_embeddings), model.added(numbers, prompt_embeddings)
        past = go_on(model.base, past, embeddings, added)
    return past


@contextmanager
def _virtual_tokens_at_first(word_embeddings: nn.Module, embeddings: Tensor) -> Iterator[None]:
    """The first sequence that is looked up begins with `embeddings` `[1, T, H]`, whatever its ids are.

    Assisted decoding computes drafts together with the row, from ids alone.
    """

    def put(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        handle.remove()
        return torch.cat([embeddings, output[:, embeddings.shape[1] :]], dim=1)

    handle = word_embeddings.register_forward_hook(put)
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def _in_one_piece(head: nn.Module) -> Iterator[None]:
    """While this lasts, the vocabulary head is given what lies in one piece.

    transformers gives it the last position as a slice. In bf16 on a CPU torch then transposes a copy of the whole head,
    which takes longer than all else of the first token (torch 2.13).
    """
    handle = head.register_forward_pre_hook(lambda _, inputs: inputs[0].clone(memory_format=torch.contiguous_format))
    try:
        yield
    finally:
        handle.remove()


def _only_new(output: Any, given: int) -> Any:
    """What `generate` returned without the tokens it was given."""
    if isinstance(output, Tensor):
        return output[:, given:]
    output.sequences = output.sequences[:, given:]
    return output


def _room(base: BaseModel, row: Row, wanted: int) -> int:
    """How many tokens there may be after a row."""
    used = len(row.ids) if base.is_causal else len(base.decoder_start_ids)
    return wanted if base.max_positions is None else min(wanted, base.max_positions - used)


def _tokens(numbers: list[int], base: BaseModel) -> Tensor:
    """`[1, T]` token ids."""
    return torch.tensor([numbers], dtype=torch.long, device=base.device)


def _placeholder(base: BaseModel) -> int:
    """A token that text does not hold, to stand where a virtual token is."""
    candidates = (base.tokenizer.pad_token_id, *_end_ids(base), 0)
    return next(token_id for token_id in candidates if token_id is not None)


def _end_ids(base: BaseModel) -> frozenset[int]:
    """Tokens that end a text."""
    configured = getattr(base.model.generation_config, "eos_token_id", None)
    ids = configured if isinstance(configured, list) else [configured]
    return frozenset(id for id in [*ids, base.tokenizer.eos_token_id] if id is not None)
