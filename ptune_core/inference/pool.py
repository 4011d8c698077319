"""Very many adapters over one base model, mixed in every batch.

An adapter is its prompt embeddings and what its labels are scored with: some tens of kilobytes. Rows of one batch point
into the prompts of their own adapters. B rows, P virtual tokens, T positions, H hidden size, C labels.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.rnn import pad_sequence

from ptune_core.adapters.format import template_of
from ptune_core.data.batching import Row, all_rows
from ptune_core.data.layout import Batch, make_batch
from ptune_core.errors import AdapterError
from ptune_core.inference.loaded import check_fit
from ptune_core.inference.probabilities import probabilities
from ptune_core.model.base import BaseModel
from ptune_core.model.head import ENCODER_HEAD
from ptune_core.model.past import Past, go_on, inputs_after
from ptune_core.model.prompted import PromptedModel
from ptune_core.model.targets import last_layer_at, only_rows
from ptune_core.model.trained import TrainedPrompt
from ptune_core.model.virtual import Added, adding, combine, parts_of
from ptune_core.prompt.template import Template
from ptune_core.prompt.verbalizer import Verbalizer, answer_columns

_MIB = 2**20


@dataclass(frozen=True, slots=True)
class _Member:
    """An adapter in the pool.

    Attributes:
        prompt: `[P, H]` in the base model's precision; a deep one `[(1 + L) * P, H]`.
        num_labels: C.
        model: Shared by all adapters of one template.
        answer_ids: `[C]`, the token that tells each label's answer; None with a head.
        head: Weight `[C, W]` and bias `[C]` in one, `[C, W + 1]` fp32; None with answers.
    """

    prompt: Tensor
    num_labels: int
    model: PromptedModel
    answer_ids: Tensor | None
    head: Tensor | None

    @property
    def parts(self) -> tuple[Tensor, tuple[Tensor, ...]]:
        """The prompt embeddings `[P, H]`, and what a deep prompt adds before each layer."""
        return parts_of(self.prompt, self.model.num_virtual_tokens)

    @property
    def prefix_length(self) -> int:
        """Numbers that its rows begin with and whose keys and values may be stored; 0 if no virtual token is there."""
        return len(self.model.fixed_prefix)


@dataclass(frozen=True, slots=True)
class _Request:
    """A row to be scored: its place in the answer, whose it is, and how many of its first numbers are stored."""

    place: int
    name: str
    row: Row
    stored: int


class AdapterPool:
    """Classifies rows of any of its adapters together.

    Args:
        base: A frozen base model. With a classification head, one that is a single layer: every adapter brings its own.
        batch_size: Most rows that pass through the base model together.
        prefix_mib: MiB for the keys and values of prompts that stand in front, of the adapters that are asked first:
            they spare P positions of each row. 0: an adapter takes the room of its own tensors and no more.

    Raises:
        AdapterError: Heads of this base model cannot be mixed.
    """

    def __init__(self, base: BaseModel, *, batch_size: int = 32, prefix_mib: float = 0) -> None:
        own_encoder_head = base.head_name == ENCODER_HEAD and base.head_input.is_models
        if base.head is not None and (own_encoder_head or type(base.head) is not nn.Linear):
            raise AdapterError(
                "Adapters of this base model cannot share a batch: their classification heads are more than a matrix",
                got=base.id,
                needed="a template with [ANSWER], a decoder such as GPT-2 or Qwen, or another head_input than model",
            )
        if base.head is None and not base.is_causal:
            raise AdapterError(
                "Adapters of this base model cannot share a batch: it does not answer after the text",
                got=f"{base.id}, an {base.kind}",
                needed="a decoder such as GPT-2, Llama or Qwen",
            )
        self.base, self.batch_size = base, batch_size
        self._members: dict[str, _Member] = {}
        self._models: dict[tuple[Template, int | None], PromptedModel] = {}
        self._prefixes = _Prefixes(base, int(prefix_mib * _MIB))

    def __len__(self) -> int:
        return len(self._members)

    def __contains__(self, name: object) -> bool:
        return name in self._members

    @property
    def mib(self) -> float:
        """What the adapters' own tensors take."""
        tensors = [t for m in self._members.values() for t in (m.prompt, m.answer_ids, m.head)]
        return sum(tensor.nbytes for tensor in tensors if tensor is not None) / _MIB

    @property
    def prefix_mib(self) -> float:
        """What stored keys and values take."""
        return self._prefixes.num_bytes / _MIB

    def add(self, name: str, trained: TrainedPrompt) -> None:
        """Take in an adapter under a name, in place of one that has it.

        Raises:
            AdapterError: It writes text, is of another base model, or does not fit this one.
            SettingsError: Its template or verbalizer does not fit.
        """
        if not trained.labels:
            raise AdapterError("This adapter writes text, it has no labels to choose from", got=name)
        if answer_columns(trained.verbalizer or {}):
            raise AdapterError(
                "The rows of this adapter bring their own answers", got=name, remedy="Classify with it alone"
            )
        own = trained.base_model if trained.tuned_base is None else str(trained.tuned_base)
        if own != self.base.id:
            raise AdapterError(f"The adapter {name} is of another base model", got=own, needed=self.base.id)
        model = self._model(template_of(trained), trained.max_length)
        check_fit(trained, model)
        answer_ids = head = None
        if self.base.head is None:
            verbalizer = Verbalizer.from_labels(trained.labels, trained.verbalizer)
            answer_ids = torch.tensor(verbalizer.first_ids(model.rows.encode_answer), device=self.base.device)
        else:
            head = self._head(trained)
        prompt = trained.prompt.to(self.base.device, self.base.embedding_weight.dtype, copy=True)
        self._prefixes.forget(name)
        self._members[name] = _Member(prompt, len(trained.labels), model, answer_ids, head)

    def remove(self, name: str) -> None:
        """Forget an adapter.

        Raises:
            AdapterError: There is none of this name.
        """
        self._member(name)
        del self._members[name]
        self._prefixes.forget(name)

    @torch.no_grad()
    def classify(self, requests: Sequence[tuple[str, Mapping[str, str]]]) -> list[list[float]]:
        """Label probabilities of each request, in the order of its adapter's labels.

        Args:
            requests: Name of an adapter, and template column -> text.

        Raises:
            AdapterError: There is no adapter of a name.
            DataError: A row is empty or too long.
            InferenceError: The numbers computed are unusable.
        """
        self._store_prefixes(list(dict.fromkeys(name for name, _ in requests)))
        waiting = self._requests(requests)
        answers: list[list[float]] = [[] for _ in requests]
        for batch in self._batches(waiting):
            found = probabilities(self._scores(batch)).tolist()
            for request, row in zip(batch, found, strict=True):
                answers[request.place] = row[: self._members[request.name].num_labels]
        return answers

    def _requests(self, requests: Sequence[tuple[str, Mapping[str, str]]]) -> list[_Request]:
        """Tokenised, all rows of one template together."""
        by_model: dict[int, list[int]] = {}
        for i, (name, _) in enumerate(requests):
            by_model.setdefault(id(self._member(name).model), []).append(i)
        found = []
        for places in by_model.values():
            model = self._members[requests[places[0]][0]].model
            rows = all_rows(model.rows.rows([requests[i][1] for i in places]))
            for place, row in zip(places, rows, strict=True):
                name = requests[place][0]
                stored = self._members[name].prefix_length if name in self._prefixes else 0
                # At least one position of every row is left to compute.
                found.append(_Request(place, name, row, stored if stored < len(row.ids) else 0))
        return found

    def _batches(self, waiting: Sequence[_Request]) -> Iterator[list[_Request]]:
        """Rows of like length with equally long stored prefixes."""
        in_order = sorted(waiting, key=lambda request: (request.stored, len(request.row.ids)))
        for _, group in groupby(in_order, key=lambda request: request.stored):
            alike = list(group)
            for start in range(0, len(alike), self.batch_size):
                yield alike[start : start + self.batch_size]

    def _scores(self, requests: Sequence[_Request]) -> Tensor:
        """`[B, C]` fp32, C of the adapter with the most labels; -inf beyond an adapter's own."""
        members = [self._members[request.name] for request in requests]
        stored = requests[0].stored
        first, table, layers = self._table(requests)
        rows = [_shifted(request.row.ids[stored:], first[request.name]) for request in requests]
        batch = make_batch(rows).to(self.base.device)
        embeddings = combine(self.base.word_embeddings(batch.token_ids), batch.virtual_index, table)
        added = Added(layers, batch.virtual_index) if layers and not stored else None
        past = self._prefixes.past([request.name for request in requests], stored) if stored else None
        if self.base.head is None:
            inputs = inputs_after(self.base, past, embeddings)
            with last_layer_at(self.base.row_wise, batch.targets), adding(self.base, added):
                return self._answer_scores(inputs, batch, [m.answer_ids for m in members if m.answer_ids is not None])
        read = members[0].model.read(batch, embeddings, past, added)
        heads = [member.head for member in members if member.head is not None]
        every = pad_sequence(heads, batch_first=True)
        scores = torch.einsum("bch,bh->bc", every[:, :, :-1], read) + every[:, :, -1]
        return _only_own(scores, [len(head) for head in heads])

    def _answer_scores(self, inputs: dict[str, object], batch: Batch, answer_ids: Sequence[Tensor]) -> Tensor:
        """Scores of each row's own answers: the vocabulary head gives those of any row's, each reads its own."""
        padded = pad_sequence(list(answer_ids), batch_first=True)
        union, places = padded.unique(return_inverse=True)
        with only_rows(self.base.model.get_output_embeddings(), batch.targets, union):
            logits = self.base.model(**inputs).logits[0].float()
        return _only_own(logits.gather(1, places), [len(ids) for ids in answer_ids])

    def _table(self, requests: Sequence[_Request]) -> tuple[dict[str, int], Tensor, tuple[Tensor, ...]]:
        """The prompts of all adapters of a batch, one below the other.

        Returns:
            Each adapter's first row; prompt embeddings `[sum P, H]`; and, if one of the adapters is deep, what is added
            before each layer, likewise.
        """
        first: dict[str, int] = {}
        prompts: list[Tensor] = []
        added: list[tuple[Tensor, ...]] = []
        num_rows = 0
        for name in dict.fromkeys(request.name for request in requests):
            first[name] = num_rows
            prompt_embeddings, layers = self._members[name].parts
            prompts.append(prompt_embeddings)
            added.append(layers)
            num_rows += len(prompt_embeddings)
        num_layers = max(map(len, added))
        of_all = [
            layers or (torch.zeros_like(prompt),) * num_layers for prompt, layers in zip(prompts, added, strict=True)
        ]
        return first, torch.cat(prompts), tuple(map(torch.cat, zip(*of_all, strict=True)))

    def _store_prefixes(self, names: Sequence[str]) -> None:
        """Compute the prefixes of adapters as long as there is room for them."""
        new = [name for name in names if self._member(name).prefix_length and name not in self._prefixes]
        new.sort(key=lambda name: self._members[name].prefix_length)
        for _, group in groupby(new, key=lambda name: self._members[name].prefix_length):
            alike = list(group)
            for start in range(0, len(alike), self.batch_size):
                if self._prefixes.is_full:
                    return
                self._prefixes.store({name: self._members[name] for name in alike[start : start + self.batch_size]})

    def _member(self, name: str) -> _Member:
        if name not in self._members:
            raise AdapterError(f"There is no adapter {name!r} in the pool", needed=f"one of its {len(self)} adapters")
        return self._members[name]

    def _model(self, template: Template, max_length: int | None) -> PromptedModel:
        key = template, max_length
        if key not in self._models:
            texts = next((model.texts for model in self._models.values()), None)
            self._models[key] = PromptedModel(self.base, template, None, max_length=max_length, texts=texts)
        return self._models[key]

    def _head(self, trained: TrainedPrompt) -> Tensor:
        """An adapter's head, `[C, W + 1]`, its bias in the last column; zeros where it has none."""
        assert isinstance(self.base.head, nn.Linear), "the pool's heads are single layers"
        name, of_bias = f"{self.base.head_name}.weight", f"{self.base.head_name}.bias"
        width, count = self.base.head.in_features, len(trained.labels)
        names = [name] if self.base.head.bias is None else [name, of_bias]
        if trained.head_input is not self.base.head_input:
            raise AdapterError(
                "The adapter's classification head reads something else of the base model",
                got=f"head_input: {trained.head_input}",
                needed=f"{self.base.head_input}, which the base model was loaded with",
            )
        if sorted(trained.head) != sorted(names) or trained.head[name].shape != (count, width):
            raise AdapterError(
                f"The adapter's classification head does not fit the base model {self.base.id}",
                got=", ".join(f"{name} {tuple(tensor.shape)}" for name, tensor in trained.head.items()),
                needed=f"{name} {(count, width)}",
            )
        bias = trained.head.get(of_bias, torch.zeros(count))
        return torch.cat([trained.head[name].float(), bias.float()[:, None]], dim=1).to(self.base.device)


class _Prefixes:
    """Keys and values of what adapters' rows begin with, each as one row of numbers.

    Args:
        base: Whose keys and values they are.
        room: Bytes they may take.
    """

    def __init__(self, base: BaseModel, room: int) -> None:
        self.base, self._room = base, room
        self.num_bytes, self.is_full = 0, room == 0
        self._states: dict[str, Tensor] = {}
        self._shapes: list[tuple[int, int]] = []

    def __contains__(self, name: object) -> bool:
        return name in self._states

    def store(self, members: Mapping[str, _Member]) -> None:
        """Compute those of adapters whose prefixes are equally long, and keep as many as there is room for."""
        rows = [member.model.embed(member.model.fixed_prefix, member.prompt) for member in members.values()]
        added = _together([member.model.added(member.model.fixed_prefix, member.prompt) for member in members.values()])
        tensors = [tensor for pair in go_on(self.base, None, torch.cat(rows), added).layers for tensor in pair]
        self._shapes = [(tensor.shape[1], tensor.shape[3]) for tensor in tensors]
        for name, row in zip(members, torch.cat([tensor.flatten(1) for tensor in tensors], dim=1), strict=True):
            if self.num_bytes + row.nbytes > self._room:
                self.is_full = True
                return
            self._states[name] = row.clone()
            self.num_bytes += row.nbytes

    def past(self, names: Sequence[str], length: int) -> Past:
        """What rows of these adapters have behind them."""
        joined = torch.stack([self._states[name] for name in names])
        pieces = joined.split([heads * length * size for heads, size in self._shapes], dim=1)
        shaped = [piece.unflatten(1, (h, length, d)) for piece, (h, d) in zip(pieces, self._shapes, strict=True)]
        return Past(list(zip(shaped[::2], shaped[1::2], strict=True)), (length,) * len(names))

    def forget(self, name: str) -> None:
        """Free what is stored for an adapter, if anything is."""
        if name in self._states:
            self.num_bytes -= self._states.pop(name).nbytes
            self.is_full = False


def _together(added: Sequence[Added | None]) -> Added | None:
    """What is added for several rows of equal length, one row each; some may have nothing."""
    some = [each for each in added if each is not None]
    if not some:
        return None
    width = max(each.index.shape[1] for each in some)
    nothing = some[0].index.new_full((1, width), -1)
    indices, first = [], 0
    for each in added:
        if each is None:
            indices.append(nothing)
            continue
        shifted = torch.where(each.index < 0, -1, each.index + first)
        indices.append(functional.pad(shifted, (0, width - shifted.shape[1]), value=-1))
        first += len(each.layers[0])
    layers = tuple(torch.cat(of_layer) for of_layer in zip(*(each.layers for each in some), strict=True))
    return Added(layers, torch.cat(indices))


def _shifted(numbers: Sequence[int], first: int) -> Row:
    """A row whose virtual tokens point into a table in which its adapter's begin at row `first`."""
    return Row(tuple(number if number >= 0 else number - first for number in numbers))


def _only_own(scores: Tensor, counts: Sequence[int]) -> Tensor:
    """-inf for `[B, C]` scores beyond each row's number of labels."""
    places = torch.arange(scores.shape[1], device=scores.device)
    return scores.masked_fill(places >= torch.tensor(counts, device=scores.device)[:, None], -torch.inf)
