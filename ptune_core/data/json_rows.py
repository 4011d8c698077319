"""JSON and JSONL, numbers exactly as written; only a file that is one JSON object becomes one Python object."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from ptune_core.data.header import name_columns
from ptune_core.data.rows import BadRow, Row, Source, excerpt, to_text
from ptune_core.errors import DataError

_NEEDED = 'an array of objects such as [{"text": "…", "label": "…"}], or one such object per line'

_BLANKS = re.compile(r"[ \t\r\n]*")

Item = tuple[int, dict[str, Any]] | BadRow


class _DuplicateKey(ValueError):
    pass


class _Number(str):
    """A number as it is written: 1 and 1.0 differ, and one of 200,000 digits costs nothing."""


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise _DuplicateKey(f"the key {excerpt(twice)} stands there twice")
    return values


_DECODER = json.JSONDecoder(
    object_pairs_hook=_object,
    parse_int=_Number,
    parse_float=_Number,
    # NaN is not JSON, but Python and pandas write it for a missing value.
    parse_constant=lambda _: None,
)


def read_jsonl(path: Path, codec: str) -> Source:
    """Read one JSON object per line; lines that are none are bad rows."""
    return _source(lambda: _objects_by_line(path, codec), "Line")


def read_json(path: Path, codec: str) -> Source:
    """Read an array of objects, an object that holds such an array or one array per column, or one object per line.

    Raises:
        DataError: The file is not JSON, or JSON of another shape.
    """
    text = path.read_text(encoding=codec)
    start = len(text) - len(text.lstrip())
    if text.startswith("[", start):
        return _source(lambda: _objects_of_array(text, start), "Row")
    try:
        value, end = _DECODER.raw_decode(text, start)
    except (ValueError, RecursionError) as error:
        raise _not_json(text, error) from error
    if text[end:].strip():
        return read_jsonl(path, codec)
    rows, notes = _rows_of_object(value)
    source = _source(lambda: _objects_of_list(rows), "Row")
    source.notes[:0] = notes
    return source


def _source(read: Callable[[], Iterator[Item]], unit: str) -> Source:
    """Read twice: for the columns, since every object may bring new ones, and for the rows."""
    keys: dict[str, None] = {}
    nested: dict[str, None] = {}
    for item in read():
        if not isinstance(item, BadRow):
            keys.update(dict.fromkeys(item[1]))
            nested.update(dict.fromkeys(key for key, value in item[1].items() if isinstance(value, dict | list)))
    notes = [f"Column {key!r} holds nested values; they are read as JSON text." for key in nested]
    columns = name_columns(list(keys), notes)
    return Source(columns, (_row(item, list(keys)) for item in read()), notes, unit, _NEEDED)


def _row(item: Item, keys: list[str]) -> Row | BadRow:
    if isinstance(item, BadRow):
        return item
    number, values = item
    try:
        return Row(number, [_cell(values.get(key)) for key in keys])
    except RecursionError:
        return BadRow(number, "nested too deeply", "a value is nested too deeply")


def _cell(value: object) -> str:
    return _json_text(value) if isinstance(value, dict | list) else to_text(value)


def _json_text(value: object) -> str:
    """JSON of a nested value, its numbers as they were written."""
    if isinstance(value, _Number):
        return value
    if isinstance(value, list):
        return f"[{', '.join(map(_json_text, value))}]"
    if isinstance(value, dict):
        pairs = (f"{json.dumps(key, ensure_ascii=False)}: {_json_text(item)}" for key, item in value.items())
        return f"{{{', '.join(pairs)}}}"
    return json.dumps(value, ensure_ascii=False)


def _objects_by_line(path: Path, codec: str) -> Iterator[Item]:
    with path.open(encoding=codec, newline="\n") as file:
        for number, line in enumerate(file, start=1):
            if line.strip():
                yield _parsed(number, line)


def _parsed(number: int, line: str) -> Item:
    try:
        value = _DECODER.decode(line)
    except (ValueError, RecursionError) as error:
        return BadRow(number, "not valid JSON", _trouble(error))
    return _checked(number, value)


def _checked(number: int, value: object) -> Item:
    if isinstance(value, dict):
        return number, value
    return BadRow(number, "not a JSON object", f"{excerpt(_json_text(value))} is no object with column names as keys")


def _objects_of_array(text: str, start: int) -> Iterator[Item]:
    """Objects of a top-level array one by one, so that a large file does not become Python objects all at once."""
    position, number = _after_blanks(text, start + 1), 0
    while not text.startswith("]", position):
        number += 1
        try:
            value, position = _DECODER.raw_decode(text, position)
        except (ValueError, RecursionError) as error:
            raise _not_json(text, error, f"row {number}: ") from error
        yield _checked(number, value)
        position = _after_blanks(text, position)
        if text.startswith(",", position):
            position = _after_blanks(text, position + 1)
        elif not text.startswith("]", position):
            raise _not_json(text, json.JSONDecodeError("Expecting ',' or ']'", text, position), f"row {number}: ")
    if text[position + 1 :].strip():
        raise _not_json(text, json.JSONDecodeError("Extra data", text, position + 1))


def _after_blanks(text: str, position: int) -> int:
    match = _BLANKS.match(text, position)
    return match.end() if match else position


def _objects_of_list(rows: list[Any]) -> Iterator[Item]:
    return (_checked(number, value) for number, value in enumerate(rows, start=1))


def _rows_of_object(value: object) -> tuple[list[Any], list[str]]:
    """The rows inside a top-level object.

    Either its only array of objects, such as {"data": [...]}, or one array or {row: value} object per column, as
    `DataFrame.to_json` writes it. An object of single values is one row.
    """
    if not isinstance(value, dict):
        raise DataError("The JSON file holds no rows", got=f"only {excerpt(_json_text(value))}", needed=_NEEDED)
    lists = {key: items for key, items in value.items() if isinstance(items, list)}
    tables = [key for key, items in lists.items() if items and all(isinstance(item, dict) for item in items)]
    if len(tables) == 1:
        return lists[tables[0]], [f"Rows are taken from {tables[0]!r}."]
    columns = {key: list(items.values()) if isinstance(items, dict) else items for key, items in value.items()}
    if value and all(isinstance(items, list) for items in columns.values()):
        lengths = {len(items) for items in columns.values()}
        if len(lengths) == 1:
            return [dict(zip(columns, cells, strict=True)) for cells in zip(*columns.values(), strict=True)], []
        shown = ", ".join(f"{key!r} {len(items)}" for key, items in list(columns.items())[:5])
        raise DataError("The columns of the JSON file have different lengths", got=shown, needed=_NEEDED)
    if any(isinstance(items, dict | list) for items in value.values()):
        got = f"an object with the keys {', '.join(map(repr, list(value)[:5]))}"
        raise DataError("The JSON file holds no table", got=got, needed=_NEEDED)
    return [value], []


def _trouble(error: Exception) -> str:
    if isinstance(error, RecursionError):
        return "nested too deeply"
    if isinstance(error, json.JSONDecodeError):
        return f"{error.msg} at character {error.colno}"
    return str(error)


def _not_json(text: str, error: Exception, where: str = "") -> DataError:
    trouble = _trouble(error)
    if isinstance(error, json.JSONDecodeError):
        trouble = f"{error.msg} in line {error.lineno}, character {error.colno}"
    return DataError(
        "The file is not valid JSON" if text.strip() else "The file has no rows",
        got=where + trouble,
        needed=_NEEDED,
    )
