"""JSON that somebody else wrote: an object whose keys stand there once, whose numbers are numbers. And the JSON that a
safetensors file begins with, the only part of one that is read here.
"""

from __future__ import annotations

import json
import struct
from typing import IO, Any, NoReturn


def parse_json(content: bytes, name: str) -> dict[str, Any]:
    """The JSON object in `content`.

    Args:
        content: UTF-8.
        name: Of the file, for messages.

    Raises:
        ValueError: It is not UTF-8 JSON, not an object, nested too deep, or has a key twice, NaN or Infinity.
    """
    try:
        value = json.loads(content.decode(), object_pairs_hook=_unique, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{name} is damaged: {error}") from None
    if not isinstance(value, dict):
        raise ValueError(f"{name} holds a {type(value).__name__} where an object is needed")
    return value


def tensor_header(file: IO[bytes], size: int, name: str, *, most_bytes: int, most_tensors: int) -> dict[str, Any]:
    """Tensor name -> its entry, of a safetensors file. The library keeps the last of two tensors with one name.

    Args:
        file: Open, at its beginning.
        size: Of the file, in bytes.
        name: Of the file, for messages.
        most_bytes: How long the header may be.
        most_tensors: How many tensors there may be.

    Raises:
        ValueError: It has no valid header, or one that is too long.
    """
    start = file.read(8)
    length = struct.unpack("<Q", start)[0] if len(start) == 8 else -1
    if not 0 < length <= min(most_bytes, size - 8):
        raise ValueError(f"{name} is not a complete safetensors file")
    header = parse_json(file.read(length).rstrip(b" "), name)
    header.pop("__metadata__", None)
    if len(header) > most_tensors:
        raise ValueError(f"{name} holds {len(header)} tensors, more than the {most_tensors} there may be")
    return header


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    keys = [key for key, _ in pairs]
    if len(set(keys)) < len(keys):
        raise ValueError(f"the key {next(key for key in keys if keys.count(key) > 1)!r} stands there twice")
    return dict(pairs)


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a number JSON knows")
