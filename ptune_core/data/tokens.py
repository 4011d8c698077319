"""Tokenised rows on disk: made when they are first needed, once, and mapped into memory for reading.

The N rows of a split are cut into stretches in the order in which training comes to them, each an Arrow file, so that a
short run over a million rows begins at once. The first stretches are short for the same reason, and each doubles what
there is, up to a length at which another pass through the table costs little beside tokenising.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain, islice
from pathlib import Path

import numpy as np
import pyarrow as pa

from ptune_core import __version__
from ptune_core.data.batching import Row, RowMaker, all_rows
from ptune_core.data.choices import pack, unpack
from ptune_core.data.example_set import Example, ExampleSet
from ptune_core.files import sync

FIRST_STRETCH = 4096
LONGEST_STRETCH = 1 << 16

_ROWS_AT_ONCE = 1024
_SCHEMA = pa.schema([("num_cut", pa.int32()), ("ids", pa.list_(pa.int32())), ("answer", pa.list_(pa.int32()))])


@dataclass(frozen=True)
class _Chunk:
    """`_ROWS_AT_ONCE` rows of a file, or its last ones, as views of the mapped file; lists as values and bounds."""

    num_cut: np.ndarray
    ids: np.ndarray
    id_bounds: np.ndarray
    answers: np.ndarray
    answer_bounds: np.ndarray

    @classmethod
    def of(cls, batch: pa.RecordBatch) -> _Chunk:
        ids, answers = batch.column("ids"), batch.column("answer")
        lists = (array.to_numpy() for column in (ids, answers) for array in (column.values, column.offsets))
        return cls(batch.column("num_cut").to_numpy(), *lists)

    def answer(self, i: int) -> np.ndarray:
        """The answer of row `i`, or its choices as they are stored."""
        return self.answers[self.answer_bounds[i] : self.answer_bounds[i + 1]]

    @property
    def lengths(self) -> np.ndarray:
        return np.diff(self.id_bounds) + np.diff(self.answer_bounds)


class TokenRows:
    """The rows of one split, by index; tokenised and written when first asked for.

    A file is named after everything that decides what is in it, so one that is there already, from before an
    interruption, is used, and one of other data or settings never is.

    Args:
        examples: The N examples.
        maker: Makes the rows. Free text is stored as an answer beside its row, with room kept for it; so are choices.
        directory: Where the files are; made if it is not there.
        order: In which order they will be needed, `[N]` indices; None: as they come.

    Attributes:
        batch_divisor: How many times smaller than usual a batch for an evaluation is.
    """

    batch_divisor = 1

    def __init__(self, examples: ExampleSet, maker: RowMaker, directory: Path, order: np.ndarray | None = None) -> None:
        self.examples, self.maker, self.directory = examples, maker, directory
        order = np.arange(len(examples)) if order is None else order
        self._bounds = stretch_bounds(len(examples))
        self._stretch_of = np.empty(len(order), dtype=np.int32)
        self._place_of = np.empty(len(order), dtype=np.int32)
        self._members: list[np.ndarray] = []
        for number, (start, end) in enumerate(zip(self._bounds, self._bounds[1:], strict=False)):
            members = np.sort(order[start:end])  # as they lie in the table
            self._stretch_of[members] = number
            self._place_of[members] = np.arange(len(members))
            self._members.append(members)
        self._chunks: dict[int, list[_Chunk]] = {}
        self._lengths = np.zeros(len(order), dtype=np.int32)

    def __len__(self) -> int:
        return len(self.examples)

    def rows(self, indices: Sequence[int] | np.ndarray) -> list[Row]:
        """Some rows, without their answers."""
        found = []
        for chunk, i in map(self._find, indices):
            ids = chunk.ids[chunk.id_bounds[i] : chunk.id_bounds[i + 1]]
            choices = () if self.maker.choices is None else unpack(chunk.answer(i))
            found.append(Row(tuple(ids.tolist()), int(chunk.num_cut[i]), choices))
        return found

    def answers(self, indices: Sequence[int] | np.ndarray) -> list[list[int]]:
        """The answers of some rows as token ids; of rows with labels they are empty."""
        return [chunk.answer(i).tolist() for chunk, i in map(self._find, indices)]

    def lengths_of(self, indices: np.ndarray) -> np.ndarray:
        """Tokens of some rows with their answers, int32."""
        for stretch in np.unique(self._stretch_of[indices]):
            self._open(int(stretch))
        return self._lengths[indices]

    def num_cut_of_first(self) -> tuple[int, int]:
        """In how many of the first rows text was cut, and how many these first rows are."""
        chunks = self._open(0)
        return sum(int((chunk.num_cut > 0).sum()) for chunk in chunks), len(self._members[0])

    def _find(self, index: int) -> tuple[_Chunk, int]:
        chunks = self._open(int(self._stretch_of[index]))
        chunk, place = divmod(int(self._place_of[index]), _ROWS_AT_ONCE)
        return chunks[chunk], place

    def _open(self, stretch: int) -> list[_Chunk]:
        """The rows of a stretch; tokenised now if no file has them."""
        if stretch not in self._chunks:
            path = self.directory / f"{self._name}-{stretch:04}.arrow"
            if not path.exists():
                self._write(path, self._members[stretch])
            with pa.memory_map(str(path)) as mapped:
                reader = pa.ipc.open_file(mapped)
                chunks = [_Chunk.of(reader.get_batch(i)) for i in range(reader.num_record_batches)]
            self._chunks[stretch] = chunks
            self._lengths[self._members[stretch]] = np.concatenate([chunk.lengths for chunk in chunks])
        return self._chunks[stretch]

    @cached_property
    def _name(self) -> str:
        """Of the files; changes when anything does that decides what is in them."""
        examples = self.examples
        digest = hashlib.sha256(self.maker.fingerprint.encode())
        digest.update(repr((__version__, examples.table.digest, dict(examples.columns), examples.target)).encode())
        for members in self._members:
            digest.update(examples.places[members].tobytes())
        return digest.hexdigest()[:16]

    def _write(self, path: Path, members: np.ndarray) -> None:
        """Tokenise some rows into a file that is there whole or not at all."""
        self.directory.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".tmp-{os.getpid()}-{path.name}")
        try:
            with temporary.open("wb") as file:
                with pa.ipc.new_file(file, _SCHEMA) as writer:
                    for examples in _groups(self.examples.stream(members)):
                        writer.write_batch(self._tokenise(examples))
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)  # there only if it did not take its place
        sync(self.directory)

    def _tokenise(self, examples: Sequence[Example]) -> pa.RecordBatch:
        values = [example.values for example in examples]
        if self.examples.labels is None:
            answers = self.maker.answers([each[self.examples.target] for each in values])
            rows = all_rows(self.maker.rows(values, list(map(len, answers))))
        else:
            rows = all_rows(self.maker.rows(values))
            answers = [pack(row.choices) for row in rows]
        arrays = [[row.num_cut for row in rows], _lists([row.ids for row in rows]), _lists(answers)]
        return pa.record_batch(arrays, schema=_SCHEMA)


def stretch_bounds(count: int) -> list[int]:
    """Where the stretches of `count` rows begin, and where the last one ends."""
    bounds = [0]
    while bounds[-1] < count:
        bounds.append(min(count, bounds[-1] + min(max(bounds[-1], FIRST_STRETCH), LONGEST_STRETCH)))
    return bounds


def which_fit(examples: ExampleSet, maker: RowMaker) -> np.ndarray:
    """Which examples' answers fit the template, `[N]` bool; short answers are not tokenised for it."""
    fits = np.ones(len(examples), dtype=bool)
    indices = iter(range(len(examples)))
    for group in _groups(iter(examples)):
        doubtful = [
            (index, example.values)
            # The group first: the other way around, each group's end would swallow an index.
            for example, index in zip(group, indices, strict=False)
            if not _is_surely_short(example.values[examples.target], maker)
        ]
        answers = maker.answers([values[examples.target] for _, values in doubtful])
        found = [(*doubtful[i], len(answer), maker.fits(len(answer))) for i, answer in enumerate(answers)]
        for index, _, _, known in found:
            fits[index] = known is not False
        long = [(index, values, length) for index, values, length, known in found if known is None]
        rows = maker.rows([values for _, values, _ in long], [length for _, _, length in long])
        for (index, _, _), row in zip(long, rows, strict=True):
            fits[index] = isinstance(row, Row)
    return fits


def _is_surely_short(answer: str, maker: RowMaker) -> bool:
    # A character of ASCII is one token at most; a space in front and the end of the text are two more.
    return answer.isascii() and maker.mask_id is None and maker.fits(len(answer) + 2) is True


def _groups(examples: Iterator[Example]) -> Iterator[list[Example]]:
    while group := list(islice(examples, _ROWS_AT_ONCE)):
        yield group


def _lists(lists: Sequence[Sequence[int]]) -> pa.ListArray:
    bounds = np.zeros(len(lists) + 1, dtype=np.int32)
    np.cumsum(np.fromiter(map(len, lists), np.int32), out=bounds[1:])
    return pa.ListArray.from_arrays(bounds, np.fromiter(chain.from_iterable(lists), np.int32))
