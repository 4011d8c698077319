"""The prompted model: a frozen base model with virtual tokens in its input.

B rows, T positions, P virtual tokens, N answer tokens, M mask tokens, C labels, H hidden size, V vocabulary. Prompt
embeddings are an argument everywhere, so one base model serves training, the baseline without them, and any number of
adapters. S prompts pass through it together as S copies of a batch. Wherever `[P, H]` is asked for, it may be a deep
prompt's `[(1 + L) * P, H]`, see `virtual`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property
from itertools import takewhile
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from ptune_core.data.affixes import separates_texts, special_affixes
from ptune_core.data.batching import Row, RowMaker, all_rows
from ptune_core.data.layout import Arrangement, Batch, make_batch
from ptune_core.model.base import BaseModel
from ptune_core.model.head import ENCODER_HEAD
from ptune_core.model.past import Past, Prefix, attention_for, go_on, inputs_after, why_not_in_parts
from ptune_core.model.reading import check_sees_prompt, read_at, reads_text
from ptune_core.model.suiting import longest_row, resolve_template, row_options
from ptune_core.model.targets import last_layer_at, only_rows
from ptune_core.model.text_cache import TextCache
from ptune_core.model.virtual import Added, Call, adding, combine, parts_of
from ptune_core.prompt.template import TargetKind, Template
from ptune_core.prompt.verbalizer import Verbalizer


class PromptedModel:
    """Base model + template + verbalizer; the prompt embeddings come with each call.

    Args:
        base: The frozen base model.
        template: As parsed; text initialisers and chat messages are resolved here with the model's tokenizer.
        verbalizer: Label -> answer words; None for a free text answer. With a HEAD target only its labels are used.
        max_length: Longest row in tokens, virtual tokens included; None: what the model has, at most 512.
        texts: Of another prompted model with the same base model, to share.

    Attributes:
        texts: Gives keys and values of contexts; None if the base model cannot be computed in parts.
        why_not_in_parts: The reason for that.
        is_chat: Whether the template is a chat.

    Raises:
        SettingsError: The template, verbalizer or `max_length` does not fit this base model.
        BaseModelError: Its tokenizer cannot be used.
    """

    def __init__(
        self,
        base: BaseModel,
        template: Template,
        verbalizer: Verbalizer | None,
        *,
        max_length: int | None = None,
        texts: TextCache | None = None,
    ) -> None:
        self.base, self.verbalizer = base, verbalizer
        self.template = resolve_template(template, base)
        self.max_length = longest_row(max_length, base.max_positions)
        options = row_options(template, base.kind, verbalizer)
        self.rows = RowMaker(base.tokenizer, self.template, self.max_length, **options)
        self.is_chat = bool(template.messages)
        without = replace(self.template, segments=self.template.without_virtual_tokens())
        self.base_rows = RowMaker(base.tokenizer, without, self.max_length, **options)
        self.why_not_in_parts = None if texts is not None else why_not_in_parts(base)
        self.texts = None if self.why_not_in_parts is not None else texts or TextCache(base)
        self.reads_text = base.head is not None and reads_text(base.head_input)
        if base.head is not None:
            check_sees_prompt(base.head_input, self.template, is_causal=base.is_causal)
        self._arrangement = Arrangement(
            # Of a context only keys and values are kept: a head that reads text needs it in the rows.
            in_parts=self.texts is not None and (self.template.is_front or not self.reads_text),
            share_text=not self.reads_text,
            # Layers that go on from keys and values cannot be computed a second time for the gradient.
            share=not base.gradient_checkpointing,
            mask_id=self.rows.mask_id,
            decoder_start=tuple(base.decoder_start_ids),
        )
        self.answer_ids = None if verbalizer is None else self._answer_ids(verbalizer)

    @property
    def num_virtual_tokens(self) -> int:
        """P."""
        return self.template.num_virtual_tokens

    @property
    def classifies(self) -> bool:
        """Whether the target is one of C labels, not free text."""
        return self.verbalizer is not None

    def make_rows(self, examples: Sequence[Mapping[str, str]], *, prompted: bool = True) -> list[Row]:
        """Tokenise examples for classification or as the start of a text to generate.

        Args:
            examples: Template column -> text, without the target column.
            prompted: False leaves the virtual tokens out: the base model alone, with the same template.
        """
        maker = self.rows if prompted else self.base_rows
        return all_rows(maker.rows(examples))

    def base_rows_after(self, num_tokens: int) -> RowMaker:
        """Makes rows of the base model alone that go on after other text, with so many tokens less.

        Raises:
            SettingsError: Nothing is left for the columns.
        """
        return RowMaker(
            self.base.tokenizer,
            self.base_rows.template,
            self.max_length - num_tokens,
            special_tokens=False,
            verbalizer=self.verbalizer,
        )

    @property
    def base_prefix(self) -> tuple[int, ...]:
        """Special tokens that a row of the base model alone begins with, beside those of the template."""
        return () if self.is_chat else special_affixes(self.base.tokenizer, self.base_rows.template)[0]

    def label_batch(self, rows: Sequence[Row], labels: Sequence[int] | None = None, *, copies: int = 1) -> Batch:
        """A batch for `label_logits`; `labels` are class indices, one per row; `copies` is S."""
        batch = make_batch(rows, self._arrangement, labels=labels)
        return batch.copies(copies, self.num_virtual_tokens).to(self.base.device)

    def text_batch(self, rows: Sequence[Row], answers: Sequence[Sequence[int]], *, copies: int = 1) -> Batch:
        """A batch for `text_losses`; `answers` are token ids, one list per row (M each for masks); `copies` is S."""
        batch = make_batch(rows, self._arrangement, answers=answers)
        return batch.copies(copies, self.num_virtual_tokens).to(self.base.device)

    def label_logits(self, batch: Batch, prompt_embeddings: Tensor | None) -> Tensor:
        """Score every label, `[S * B, C]` fp32: logits of the answers' first tokens, or of the classification head.

        An answer of several mask tokens has the sum of their logits: a softmax over the labels makes the same of it as
        of their log-probabilities, since all labels stand at the same places.

        Rows that bring their own answers are scored by the mean log-probability of all tokens of each answer.

        Args:
            batch: From `label_batch`.
            prompt_embeddings: `[S * P, H]`; None if the rows have no virtual tokens.
        """
        return self._scores(self._call(batch, prompt_embeddings), batch)

    def text_losses(self, batch: Batch, prompt_embeddings: Tensor | None) -> Tensor:
        """Cross entropy of every answer token, `[S * N]` fp32.

        Args:
            batch: From `text_batch`.
            prompt_embeddings: `[S * P, H]`; None if the rows have no virtual tokens.
        """
        assert batch.labels is not None, "a text batch has labels"
        return functional.cross_entropy(self.token_logits(batch, prompt_embeddings), batch.labels, reduction="none")

    def token_logits(self, batch: Batch, prompt_embeddings: Tensor | None) -> Tensor:
        """Logits of the whole vocabulary for every answer token, `[S * N, V]` fp32; arguments as `text_losses`."""
        return self._logits_at(self._call(batch, prompt_embeddings), batch.targets)

    @torch.no_grad()
    def prefix(self, prompt_embeddings: Tensor) -> Prefix | None:
        """Compute what every row begins with; None if no virtual token is in it or it cannot be computed apart.

        Args:
            prompt_embeddings: `[P, H]`.
        """
        numbers = self.fixed_prefix
        if not numbers:
            return None
        embeddings, added = self.embed(numbers, prompt_embeddings), self.added(numbers, prompt_embeddings)
        return Prefix(numbers, go_on(self.base, None, embeddings, added))

    @cached_property
    def fixed_prefix(self) -> tuple[int, ...]:
        """Numbers that every row begins with and that can be computed apart; empty if no virtual token is there."""
        numbers = self.rows.fixed_prefix
        if self.reads_text:
            numbers = tuple(takewhile(lambda number: number < 0, numbers))
        return () if self.texts is None or min(numbers, default=0) >= 0 else numbers

    @torch.no_grad()
    def scores(self, rows: Sequence[Row], prompt_embeddings: Tensor | None, prefix: Prefix | None = None) -> Tensor:
        """Score every label of B rows, `[B, C]` as `label_logits`, in one pass and without the text cache.

        Args:
            rows: From `make_rows`.
            prompt_embeddings: `[P, H]`; None if the rows have no virtual tokens.
            prefix: From `prefix` for these prompt embeddings; None computes whole rows.
        """
        num_done = 0 if prefix is None else prefix.covers(rows)
        whole = replace(self._arrangement, in_parts=False)
        batch = make_batch([replace(row, ids=row.ids[num_done:]) for row in rows], whole).to(self.base.device)
        if prefix is None or not num_done:
            call = self._call(batch, prompt_embeddings)
        else:
            first, layers = self._parts(prompt_embeddings)
            rest = combine(self.base.word_embeddings(batch.token_ids), batch.virtual_index, first)
            inputs = inputs_after(self.base, prefix.past.first(num_done).each(len(rest)), rest, is_last=True)
            call = Call(inputs, self._added(batch.virtual_index, layers))
        return self._scores(call, batch)

    def whole_batch(self, rows: Sequence[Row], prompt_embeddings: Tensor | None) -> tuple[Batch, Call]:
        """Rows in one part, and what the base model is called with for them.

        Args:
            rows: From `make_rows`.
            prompt_embeddings: `[P, H]`; None if the rows have no virtual tokens.
        """
        batch = make_batch(rows, replace(self._arrangement, in_parts=False)).to(self.base.device)
        return batch, self._call(batch, prompt_embeddings)

    @torch.no_grad()
    def fill(self, rows: Sequence[Row], prompt_embeddings: Tensor | None) -> list[list[int]]:
        """The likeliest token at each of the M mask tokens of B rows, `[B][M]`.

        Args:
            rows: From `make_rows`, of a template with a mask.
            prompt_embeddings: `[P, H]`; None if the rows have no virtual tokens.
        """
        batch = make_batch(rows, self._arrangement).to(self.base.device)
        call = self._call(batch, prompt_embeddings)
        with only_rows(self.base.model.get_output_embeddings(), batch.targets), self._only(call, batch.targets):
            likeliest = self.base.model(**call.inputs).logits[0].argmax(dim=-1)
        found: list[list[int]] = likeliest.view(len(rows), -1).tolist()
        return found

    def embed(self, numbers: Sequence[int], prompt_embeddings: Tensor | None) -> Tensor:
        """Input embeddings `[1, T, H]` of T numbers, see `Row`."""
        ids = torch.tensor([numbers], dtype=torch.long, device=self.base.device)
        return combine(self.base.word_embeddings(ids.clamp(min=0)), -ids - 1, self._parts(prompt_embeddings)[0])

    def added(self, numbers: Sequence[int], prompt_embeddings: Tensor | None) -> Added | None:
        """What a deep prompt adds before the layers where these numbers stand; None: nothing."""
        in_front = list(takewhile(lambda number: number < 0, numbers))
        _, layers = self._parts(prompt_embeddings)
        if not in_front or not layers:
            return None
        return self._added(-torch.tensor([in_front], device=self.base.device) - 1, layers)

    def _parts(self, prompt_embeddings: Tensor | None, prompts: int = 1) -> tuple[Tensor | None, tuple[Tensor, ...]]:
        """The prompt embeddings of S prompts, and what deep ones add before each layer, see `parts_of`."""
        if prompt_embeddings is None:
            return None, ()
        return parts_of(prompt_embeddings, self.num_virtual_tokens, prompts)

    def _added(self, index: Tensor, layers: tuple[Tensor, ...]) -> Added | None:
        """What is added before the layers of rows with virtual tokens at `index` `[B, T]`, all of them in front."""
        return Added(layers, index[:, : self.num_virtual_tokens]) if layers else None

    def _scores(self, call: Call, batch: Batch) -> Tensor:
        """`label_logits` of what the base model is called with."""
        if batch.choices is None:
            return self._scores_at(call, batch)
        choices = batch.choices
        logits = self._logits_at(call, batch.targets)
        losses = functional.cross_entropy(logits, choices.token_ids, reduction="none")
        sums = losses.new_zeros(choices.count).index_add(0, choices.answers, losses)
        lengths = torch.bincount(choices.answers, minlength=choices.count)
        return -(sums / lengths).view(-1, choices.per_row)

    def _logits_at(self, call: Call, targets: Tensor) -> Tensor:
        """Logits of the whole vocabulary at `[N]` targets of what the base model is called with, `[N, V]` fp32."""
        with only_rows(self.base.model.get_output_embeddings(), targets), self._only(call, targets):
            logits: Tensor = self.base.model(**call.inputs).logits[0].float()
        return logits

    def _scores_at(self, call: Call, batch: Batch) -> Tensor:
        """`label_logits` of what the base model is called with, by answers or by the head."""
        base = self.base
        if base.head is None:
            return self._answer_scores(call, batch.targets)
        if base.head_input.is_models and base.head_name == ENCODER_HEAD:
            rows, width = call.inputs["inputs_embeds"].shape[:2]
            with self._only(call, torch.arange(0, rows * width, width, device=base.device)):
                return base.model(**call.inputs).logits.float()
        scores: Tensor = base.head(self._read(call, batch))
        return scores.float()

    def read(self, batch: Batch, embeddings: Tensor, past: Past | None, added: Added | None) -> Tensor:
        """What a head of one layer reads of rows, `[B, W]` fp32.

        Args:
            batch: Rows in one part, after `past`.
            embeddings: Theirs, virtual tokens included, `[B, T, H]`.
            past: What is behind them; None: nothing.
            added: What is added before the layers meanwhile.
        """
        if self.base.is_causal:
            return self._read(Call(inputs_after(self.base, past, embeddings, is_last=True), added), batch)
        mask = {"inputs_embeds": embeddings, "attention_mask": batch.attention_mask}
        return self._read(Call(mask | self._besides(batch), added), batch)

    def _read(self, call: Call, batch: Batch) -> Tensor:
        """What a head of one layer reads, `[B, W]` fp32."""
        base, way = self.base, self.base.head_input
        if base.is_causal and not self.reads_text:
            # transformers pools a decoder's last position whatever stands there.
            with self._only(call, batch.targets):
                hidden = base.body(**call.inputs).last_hidden_state.flatten(0, 1)
            return hidden.index_select(0, batch.targets).float()
        read = read_at(way, batch, self.beginnings)
        with self._only(call, read.places):
            return read.mean(base.body(**call.inputs).last_hidden_state)

    @cached_property
    def beginnings(self) -> frozenset[int]:
        """Ids of the tokens that a text begins with, which are no part of a mean."""
        tokenizer = self.base.tokenizer
        return frozenset(id for id in (tokenizer.cls_token_id, tokenizer.bos_token_id) if id is not None)

    def _answer_scores(self, call: Call, targets: Tensor) -> Tensor:
        """`label_logits` by answers, `[B, C]`, at one target a row or M mask tokens."""
        head = self.base.model.get_output_embeddings()
        ids, places = self._scored_ids
        vocabulary = None if self.base.adds_to_logits else ids
        with only_rows(head, targets, vocabulary), self._only(call, targets):
            logits: Tensor = self.base.model(**call.inputs).logits[0].float()
        if vocabulary is None:
            logits = logits.index_select(-1, ids)
        if places is None:
            return logits
        at_masks = logits.unflatten(0, (-1, places.shape[1]))
        return torch.stack([at_masks[:, i, places[:, i]] for i in range(places.shape[1])]).sum(dim=0)

    @cached_property
    def _scored_ids(self) -> tuple[Tensor, Tensor | None]:
        """Token ids `[U]` that score the answers, and where in them those of each are, `[C, M]`; None: one each."""
        assert self.answer_ids is not None, "labels are scored through a verbalizer"
        if self.answer_ids.ndim == 1:
            return self.answer_ids, None
        ids, places = self.answer_ids.unique(return_inverse=True)
        return ids, places

    def _answer_ids(self, verbalizer: Verbalizer) -> Tensor | None:
        """The tokens that tell the answers apart: `[C]`, or `[C, M]` for masks; None where none do."""
        target = self.template.target
        if target.kind is TargetKind.HEAD or verbalizer.columns:
            return None
        if target.kind is TargetKind.ANSWER:
            return torch.tensor(verbalizer.first_ids(self.rows.encode_answer), device=self.base.device)
        return torch.tensor(verbalizer.mask_ids(self.rows.encode_answer, target.count), device=self.base.device)

    @contextmanager
    def _only(self, call: Call, targets: Tensor) -> Iterator[None]:
        """While this lasts, `call` costs no more than `[N]` targets need, and its layers are added to."""
        base = self.base
        with attention_for(base, call.inputs), last_layer_at(base.row_wise, targets), adding(base, call.added):
            yield

    def _besides(self, batch: Batch) -> dict[str, Any]:
        """What an encoder or encoder-decoder is called with beside embeddings and mask."""
        if batch.decoder_ids is not None:
            return {"decoder_input_ids": batch.decoder_ids, "use_cache": False}
        separator = self.base.tokenizer.sep_token_id
        if separator is None or not self.base.has_token_types or not separates_texts(self.template):
            return {}
        is_separator = ((batch.token_ids == separator) & (batch.virtual_index < 0)).long()
        # As a tokenizer marks a pair of texts: what stands after the first separator is the second one.
        return {"token_type_ids": (is_separator.cumsum(dim=1) - is_separator).clamp(max=1)}

    def _call(self, batch: Batch, prompt_embeddings: Tensor | None) -> Call:
        """The base model's call for the rest of the batch, after its contexts and what its rows share."""
        copies = len(batch.shared)
        first, layers = self._parts(prompt_embeddings, copies)
        rest = combine(self.base.word_embeddings(batch.token_ids), batch.virtual_index, first)
        added = self._added(batch.virtual_index, layers)
        if not self.base.is_causal:
            inputs = {"inputs_embeds": rest, "attention_mask": batch.attention_mask}
            return Call(inputs | self._besides(batch), added)
        past = None
        if batch.contexts:
            assert self.texts is not None, "only a base model that can be computed in parts has contexts"
            past = self.texts.past(batch.contexts[:1] if len(set(batch.contexts)) == 1 else batch.contexts)
        if past is not None and copies > 1:
            past = past.tile(copies)
        if num_shared := batch.shared.shape[1]:
            index, embeddings = -batch.shared - 1, self.base.word_embeddings(batch.shared.clamp(min=0))
            past = go_on(self.base, past, combine(embeddings, index, first), self._added(index, layers))
            # All virtual tokens of a deep prompt are in front: none is left.
            added = None if num_shared >= self.num_virtual_tokens else added
        if past is not None and len(past.lengths) < len(rest):
            past = past.each(len(rest) // len(past.lengths))
        return Call(inputs_after(self.base, past, rest, is_last=True), added)
