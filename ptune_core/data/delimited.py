"""CSV, TSV and plain text: records with the number of the line they start in.

Python's `csv` in strict mode, not pandas: pandas drops or joins what it cannot split and cannot name the line.
"""

from __future__ import annotations

import csv
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import chain, takewhile

from ptune_core.data.header import NO_HEADER, TEXT_NAMES, header_names, name_columns
from ptune_core.data.rows import BadRow, Row, Source, excerpt, wrong_width
from ptune_core.errors import DataError

_SAMPLE_LINES = 200
_SAMPLE_CHARS = 65_536
_MAX_BROKEN_QUOTES = 1000
"""Each broken quotation is looked for up to the longest cell, so their number has to be bounded."""
_NO_DELIMITER = "\x1f"
_NAMES = {",": "commas", "\t": "tabs", ";": "semicolons", "|": "bars"}
ALL_DELIMITERS = ",\t;|"


@dataclass(frozen=True)
class Dialect:
    """How records are split into cells."""

    delimiter: str
    quoting: bool = True
    escape: bool = False
    skip_space: bool = False

    def reader(self, lines: Iterable[str]) -> Iterator[list[str]]:
        """Cells of each record; `csv.Error` for quotation marks that do not fit."""
        return csv.reader(
            lines,
            delimiter=self.delimiter,
            quoting=csv.QUOTE_MINIMAL if self.quoting else csv.QUOTE_NONE,
            escapechar="\\" if self.escape else None,
            doublequote=not self.escape,
            skipinitialspace=self.skip_space,
            strict=True,
        )


@dataclass(frozen=True)
class Record:
    """One record: the line it starts in, and its cells, or what is wrong with it."""

    line: int
    cells: list[str]
    error: str = ""


def records(lines: Iterable[str], dialect: Dialect, max_cell_chars: int) -> Iterator[Record]:
    """Split lines into records, those with nothing in any cell left out.

    A record whose quotation marks do not fit costs its first line only: the lines that were read in search of the
    closing mark are read again as records of their own.
    """
    csv.field_size_limit(max_cell_chars + 1)
    feed = _Feed(iter(lines))
    reader = dialect.reader(feed)
    broken = 0
    while True:
        feed.start_record()
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            broken += 1
            if broken > _MAX_BROKEN_QUOTES:
                raise DataError(
                    f"More than {_MAX_BROKEN_QUOTES} lines have quotation marks that do not fit",
                    got=f"line {feed.line}: {excerpt(feed.first)}",
                    needed='cells with quotation marks in them written as "a ""word"" in quotes"',
                    remedy="Save the table again from a spreadsheet, or as JSONL",
                ) from error
            yield Record(feed.line, [feed.first], _quote_trouble(str(error)))
            feed.give_back_all_but_first()
            reader = dialect.reader(feed)
            continue
        if any(map(str.strip, cells)):
            yield Record(feed.line, cells)


def _quote_trouble(error: str) -> str:
    if "field larger" in error:
        return "a cell is too long, or its quotation mark is never closed"
    if "unexpected end" in error:
        return "a quotation mark is never closed"
    return "a quotation mark stands inside a cell"


class _Feed:
    """Lines for `csv.reader` that can be given back, with the number of the line a record starts in."""

    def __init__(self, lines: Iterator[str]) -> None:
        self._lines = lines
        self._returned: deque[str] = deque()
        self._taken: list[str] = []
        self._next_line = 1
        self.line = 1

    @property
    def first(self) -> str:
        """First line of the record being read."""
        return self._taken[0]

    def start_record(self) -> None:
        self._taken.clear()
        self.line = self._next_line

    def give_back_all_but_first(self) -> None:
        self._returned.extendleft(reversed(self._taken[1:]))
        self._next_line = self.line + 1

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = self._returned.popleft() if self._returned else next(self._lines)
        self._taken.append(line)
        self._next_line += 1
        return line


@dataclass(frozen=True)
class _Start:
    """The first lines of a file, and the lines after them."""

    sample: list[str]
    is_whole: bool
    rest: Iterator[str]

    @classmethod
    def of(cls, lines: Iterator[str]) -> _Start:
        sample: list[str] = []
        chars = 0
        for line in lines:
            sample.append(line)
            chars += len(line)
            if len(sample) >= _SAMPLE_LINES or chars >= _SAMPLE_CHARS:
                return cls(sample, False, lines)
        return cls(sample, True, lines)

    def all_lines(self) -> Iterator[str]:
        """Every line, once."""
        return chain(self.sample, self.rest)


@dataclass(frozen=True)
class _Trial:
    """How well a dialect fits the sample: the records it gave, and a score, higher is better."""

    dialect: Dialect
    cells: list[list[str]]
    score: tuple[float, ...]


def _try_dialect(dialect: Dialect, start: _Start, max_cell_chars: int) -> _Trial:
    found = list(records(start.sample, dialect, max_cell_chars))
    # A sample may end within quotation marks; that is no fault of the dialect.
    if not start.is_whole:
        found = list(takewhile(lambda record: "never closed" not in record.error, found))
    cells = [record.cells for record in found if not record.error]
    width, same = Counter(map(len, cells)).most_common(1)[0] if cells else (0, 0)
    fits = same / len(found) if width > 1 else 0.0
    preference = (dialect.quoting, not dialect.escape, -"\t,;|".find(dialect.delimiter))
    return _Trial(dialect, cells, (round(fits, 1), *map(float, preference)))


def sniff(start: _Start, delimiters: str, max_cell_chars: int) -> _Trial:
    """The dialect under which most records of the sample have the same number of cells, more than one.

    Where they fit equally well, standard quotation is preferred to backslash escapes, and these to none (which only
    tab-separated files may have). If no delimiter splits the lines evenly, every line is one cell.
    """
    # Without doubled quotation marks `csv` takes almost anything, so this is only tried where it shows.
    escapes = (False, True) if any('\\"' in line for line in start.sample) else (False,)
    dialects = [Dialect(delimiter, escape=escape) for delimiter in delimiters for escape in escapes]
    dialects += [Dialect("\t", quoting=False)] * ("\t" in delimiters)
    best = max((_try_dialect(d, start, max_cell_chars) for d in dialects), key=lambda trial: trial.score)
    header = best.cells[0] if best.cells else []
    if best.score[0] == 0.0 or (len(header) == 1 and (best.score[0] < 0.7 or header[0].strip().lower() in TEXT_NAMES)):
        return _try_dialect(Dialect(_NO_DELIMITER), start, max_cell_chars)
    if any(cell.startswith(' "') for cells in best.cells for cell in cells):
        return _try_dialect(replace(best.dialect, skip_space=True), start, max_cell_chars)
    return best


def read_delimited(lines: Iterator[str], delimiters: str, max_cell_chars: int) -> Source:
    """Read a CSV or TSV file from its lines; the first of `delimiters` is the one that needs no mention.

    Raises:
        DataError: No records, or a first record that does not fit most of the others.
    """
    start = _Start.of(lines)
    return _read_table(start, sniff(start, delimiters, max_cell_chars), delimiters[0], max_cell_chars)


def read_text(lines: Iterator[str], max_cell_chars: int) -> Source:
    """Read a TXT file or pasted rows: a table if its columns are named or all lines split alike, else a text a line."""
    start = _Start.of(lines)
    trial = sniff(start, ALL_DELIMITERS, max_cell_chars)
    widths = {len(cells) for cells in trial.cells}
    is_named = any(cell.strip().lower() in TEXT_NAMES for cells in trial.cells[:1] for cell in cells)
    # In "Good, really." the comma is punctuation; what separates columns is rarely followed by a space.
    is_prose = any(cell.startswith(" ") for cells in trial.cells for cell in cells[1:])
    if is_named or (len(trial.cells) > 1 and len(widths) == 1 and widths != {1} and not is_prose):
        return _read_table(start, trial, "", max_cell_chars)
    numbered = enumerate(start.all_lines(), start=1)
    rows = (Row(number, [line.strip("\r\n")]) for number, line in numbered if line.strip())
    return Source(("text",), rows, ["Every line is one text."], unit="Line")


def _read_table(start: _Start, trial: _Trial, usual: str, max_cell_chars: int) -> Source:
    if not trial.cells:
        raise DataError("The file has no rows", got="only blank or broken lines", needed="column names, and rows")
    notes: list[str] = []
    delimiter = trial.dialect.delimiter
    if delimiter != usual:
        separator = _NAMES.get(delimiter)
        notes.append(f"Columns are separated by {separator}." if separator else "Every line is one text.")
    width = len(trial.cells[0])
    while width > 1 and not any("".join(cells[width - 1 :]).strip() for cells in trial.cells):
        width -= 1
    names = header_names([cells[:width] for cells in trial.cells])
    found = records(start.all_lines(), trial.dialect, max_cell_chars)
    columns = name_columns(trial.cells[0][:width] if names is None else names, notes)
    if names is not None:
        notes.append(NO_HEADER)
    return Source(columns, _fit(found, width, skip_first=names is None), notes, unit="Line")


def _fit(found: Iterable[Record], width: int, skip_first: bool) -> Iterator[Row | BadRow]:
    """Rows of exactly `width` cells; empty cells too many at the end are left out, as spreadsheets write them."""
    for record in found:
        if record.error:
            yield BadRow(record.line, "broken quotation marks", f"{record.error} ({excerpt(record.cells[0])})")
            continue
        if skip_first:
            skip_first = False
            continue
        cells = record.cells
        if not any(cells[width:]):
            cells = cells[:width]
        if len(cells) == width:
            yield Row(record.line, cells)
        else:
            yield BadRow(record.line, *wrong_width(cells, width))
