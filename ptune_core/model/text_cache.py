"""Keys and values of contexts, the texts before the first virtual token, computed once and reused in every epoch.

Under causal attention nothing that is trained can change them. B rows, T positions, W numbers per token: the keys and
values of all layers side by side.

Contexts are computed in fixed groups, the batches in which they first come, so what is stored does not depend on when
it was computed: a resumed run finds the same bits.
"""

from __future__ import annotations

import math
import os
import shutil
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import chain
from pathlib import Path

import psutil
import torch
from torch import Tensor

from ptune_core.model.base import BaseModel
from ptune_core.model.past import LayerStates, Past, go_on

Context = tuple[int, ...]

SHARE_OF_FREE = 0.5
"""How much of the free memory, GPU memory or disk the text cache takes unless told otherwise."""

ROWS_AT_ONCE = 32
_MIB = 2**20


class Place(StrEnum):
    """Where the text cache is."""

    DEVICE = "memory"
    HOST = "main memory"
    DISK = "disk"
    NOWHERE = "computed every time"


@dataclass(frozen=True)
class Budget:
    """What a text cache may take.

    Attributes:
        mib: MiB of memory; 0 turns the cache off, None takes a share of what is free.
        directory: Where a file may be mapped if memory does not suffice; None: no file.
    """

    mib: int | None = None
    directory: Path | None = None


class TextCache:
    """Gives the past of contexts. Until `reserve` has found room for them it computes them anew each time.

    Args:
        base: A causal base model that can be computed in parts.
    """

    def __init__(self, base: BaseModel) -> None:
        self.base = base
        self.place = Place.NOWHERE
        self._layout = _Layout(self._compute_layers([(0,)]))
        self._tokens: Tensor | None = None
        self._groups: list[list[Context]] = []
        self._entries: dict[Context, tuple[int, int]] = {}
        self._ready: set[int] = set()

    @property
    def num_tokens(self) -> int:
        """Tokens there is room for."""
        return 0 if self._tokens is None else len(self._tokens) - 1

    @property
    def mib(self) -> float:
        """Memory or disk taken when all of it is filled."""
        return self.num_tokens * self._layout.bytes_per_token / _MIB

    @property
    def unfilled_mib(self) -> float:
        """What of `mib` nothing has been written to yet: the system gives memory when it is written."""
        missing = [group for number, group in enumerate(self._groups) if number not in self._ready]
        return self.mib * sum(map(len, chain.from_iterable(missing))) / max(1, self.num_tokens)

    def reserve(self, groups: Iterable[Sequence[Context]], budget: Budget) -> None:
        """Make room for the contexts of `groups` in the fastest place that holds all of them; fills nothing yet.

        Args:
            groups: Contexts that come together, such as the batches of an epoch. One that comes again is stored once.
            budget: What may be taken.
        """
        rooms = _rooms(self.base.device, budget)
        most = max((size for _, size in rooms), default=0) // self._layout.bytes_per_token - 1
        kept: list[list[Context]] = []
        entries: dict[Context, tuple[int, int]] = {}
        num_tokens = 1  # token 0 is padding
        for group in groups:
            new = [context for context in dict.fromkeys(group) if context and context not in entries]
            for context in new:
                entries[context] = (len(kept), num_tokens)
                num_tokens += len(context)
            kept.append(new)
            if num_tokens > most:
                return
        if num_tokens == 1:
            return
        size = num_tokens * self._layout.bytes_per_token
        self.place = next(place for place, room in rooms if size <= room)
        self._tokens = self._allocate(num_tokens, budget)
        self._groups, self._entries = kept, entries

    def past(self, contexts: Sequence[Context]) -> Past:
        """The past of B contexts, padded on the left to the longest; at least one is not empty."""
        if self._tokens is None or any(context and context not in self._entries for context in contexts):
            unique = list(dict.fromkeys(context for context in contexts if context))
            tokens = self._compute(unique)
            starts, start = {}, 1
            for context in unique:
                starts[context] = start
                start += len(context)
        else:
            self._fill(contexts)
            tokens = self._tokens
            starts = {context: self._entries[context][1] for context in contexts if context}
        width = max(map(len, contexts))
        places = torch.zeros(len(contexts), width, dtype=torch.long)
        for i, context in enumerate(contexts):
            if context:
                places[i, width - len(context) :] = torch.arange(starts[context], starts[context] + len(context))
        gathered = self._gather(tokens, places.flatten())
        layers = self._layout.split(gathered.view(*places.shape, -1))
        return Past(layers, tuple(map(len, contexts)))

    def _gather(self, tokens: Tensor, places: Tensor) -> Tensor:
        """Some tokens on the base model's device; to a GPU through pinned memory, without waiting for the copy."""
        device = self.base.device
        if tokens.device == device:
            return tokens.index_select(0, places.to(device))
        pinned = torch.empty(len(places), tokens.shape[1], dtype=tokens.dtype, pin_memory=True)
        return torch.index_select(tokens, 0, places, out=pinned).to(device, non_blocking=True)

    def _fill(self, contexts: Sequence[Context]) -> None:
        assert self._tokens is not None
        for group in sorted({self._entries[context][0] for context in contexts if context} - self._ready):
            members = self._groups[group]
            start = self._entries[members[0]][1]
            tokens = self._compute(members)[1:]
            self._tokens[start : start + len(tokens)] = tokens.to(self._tokens.device)
            self._ready.add(group)

    @torch.no_grad()
    def _compute(self, contexts: Sequence[Context]) -> Tensor:
        """`[1 + tokens, W]`: a row of zeros for padding, then every token of every context."""
        parts = [torch.zeros(1, self._layout.width, dtype=self._layout.dtype, device=self.base.device)]
        for start in range(0, len(contexts), ROWS_AT_ONCE):
            some = contexts[start : start + ROWS_AT_ONCE]
            joined = self._layout.join(self._compute_layers(some))
            parts += [row[: len(context)] for row, context in zip(joined, some, strict=True)]
        return torch.cat(parts)

    @torch.no_grad()
    def _compute_layers(self, contexts: Sequence[Context]) -> LayerStates:
        ids = [torch.tensor(context, dtype=torch.long) for context in contexts]
        padded = torch.nn.utils.rnn.pad_sequence(ids, batch_first=True).to(self.base.device)
        return go_on(self.base, None, self.base.word_embeddings(padded)).layers

    def _allocate(self, num_tokens: int, budget: Budget) -> Tensor:
        """Room for the tokens, the first one zero."""
        shape, dtype = (num_tokens, self._layout.width), self._layout.dtype
        if self.place is Place.DISK:
            assert budget.directory is not None
            descriptor, name = tempfile.mkstemp(dir=budget.directory, prefix=".text-cache-")
            count = num_tokens * self._layout.width
            if hasattr(os, "posix_fallocate"):  # a disk that is full only later kills whoever writes to a mapped hole
                os.posix_fallocate(descriptor, 0, count * dtype.itemsize)
            os.close(descriptor)
            tokens = torch.from_file(name, shared=True, size=count, dtype=dtype).view(shape)
            os.unlink(name)  # the mapping stays, and no crash can leave the file behind
            return tokens
        if self.place is Place.DEVICE:
            tokens = torch.empty(shape, dtype=dtype, device=self.base.device)
        else:
            tokens = torch.empty(shape, dtype=dtype)
        tokens[0] = 0
        return tokens


class _Layout:
    """How the keys and values of one token lie side by side."""

    def __init__(self, layers: LayerStates) -> None:
        self.shapes = [(tensor.shape[1], tensor.shape[3]) for pair in layers for tensor in pair]
        self.width = sum(heads * size for heads, size in self.shapes)
        self.dtype = layers[0][0].dtype
        self.bytes_per_token = self.width * self.dtype.itemsize

    def join(self, layers: LayerStates) -> Tensor:
        """`[B, T, W]` of `[B, h, T, d]` pairs."""
        return torch.cat([tensor.transpose(1, 2).flatten(2) for pair in layers for tensor in pair], dim=2)

    def split(self, tokens: Tensor) -> LayerStates:
        """`[B, h, T, d]` pairs of `[B, T, W]`, as views."""
        pieces = tokens.split([heads * size for heads, size in self.shapes], dim=2)
        tensors = [piece.unflatten(2, shape).transpose(1, 2) for piece, shape in zip(pieces, self.shapes, strict=True)]
        return list(zip(tensors[::2], tensors[1::2], strict=True))


def _rooms(device: torch.device, budget: Budget) -> list[tuple[Place, float]]:
    """Places with the bytes that may be taken there, fastest first."""
    if budget.mib == 0:
        return []
    # Processes that train together on this machine each have a text cache of their own.
    share = SHARE_OF_FREE / int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    wanted = math.inf if budget.mib is None else budget.mib * _MIB
    main = share * free_memory() if budget.mib is None else wanted
    rooms: list[tuple[Place, float]] = [(Place.DEVICE, main)]
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        rooms = [(Place.DEVICE, min(wanted, SHARE_OF_FREE * free)), (Place.HOST, main)]
    if budget.directory is not None:
        rooms.append((Place.DISK, share * shutil.disk_usage(budget.directory).free))
    return rooms


def free_memory() -> int:
    """Bytes of main memory this process can still take: what the machine has, or the container it runs in."""
    free: int = psutil.virtual_memory().available
    limit, used = Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current")
    try:
        allowed = limit.read_text().strip()
        if allowed != "max":
            free = min(free, int(allowed) - int(used.read_text()))
    except OSError:
        pass  # not in such a container
    return max(0, free)
