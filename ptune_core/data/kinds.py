"""Which kind of file this is: decided by its name, and held against its first bytes."""

from __future__ import annotations

from enum import StrEnum
from pathlib import PurePath

from ptune_core.errors import DataError


class Kind(StrEnum):
    """The kinds of files that are read."""

    CSV = "CSV"
    TSV = "TSV"
    JSON = "JSON"
    JSONL = "JSONL"
    PARQUET = "Parquet"
    XLSX = "XLSX"
    TXT = "TXT"


_BY_EXTENSION = {
    ".csv": Kind.CSV,
    ".tsv": Kind.TSV,
    ".tab": Kind.TSV,
    ".json": Kind.JSON,
    ".jsonl": Kind.JSONL,
    ".ndjson": Kind.JSONL,
    ".parquet": Kind.PARQUET,
    ".xlsx": Kind.XLSX,
    ".txt": Kind.TXT,
}

ACCEPTED = tuple(_BY_EXTENSION)
"""Extensions of the files that are read, for file pickers."""

_NEEDED = f"one of {', '.join(ACCEPTED)}, not compressed"
_ADVICE = {
    ".xls": "Save it as .xlsx or .csv",
    ".ods": "Save it as .xlsx or .csv",
    ".zip": "Unpack it and choose the file inside",
    ".gz": "Unpack it and choose the file inside",
    ".bz2": "Unpack it and choose the file inside",
    ".xz": "Unpack it and choose the file inside",
    ".zst": "Unpack it and choose the file inside",
}

_MAGIC = {
    b"PK\x03\x04": "a ZIP archive (as .xlsx and .zip are)",
    b"PK\x05\x06": "an empty ZIP archive",
    b"PAR1": "a Parquet file",
    b"\xd0\xcf\x11\xe0": "an old Office file (as .xls is)",
    b"\x1f\x8b": "compressed with gzip",
    b"BZh": "compressed with bzip2",
    b"\xfd7zXZ\x00": "compressed with xz",
    b"\x28\xb5\x2f\xfd": "compressed with zstd",
    b"7z\xbc\xaf": "a 7z archive",
    b"%PDF": "a PDF",
    b"\x89PNG": "a PNG picture",
    b"\xff\xd8\xff": "a JPEG picture",
    b"SQLite format 3": "an SQLite database",
    b"ARROW1": "an Arrow file",
    b"version https://git-lfs": "only a Git LFS pointer to the real file",
}
_EXPECTED = {Kind.PARQUET: b"PAR1", Kind.XLSX: b"PK\x03\x04"}
HEAD_BYTES = 512


def kind_of_name(name: str) -> Kind:
    """The kind that the extension of `name` promises.

    Raises:
        DataError: An extension that is not read here.
    """
    extension = PurePath(name).suffix.lower()
    if extension in _BY_EXTENSION:
        return _BY_EXTENSION[extension]
    raise DataError(
        "This kind of file cannot be read",
        got=name if extension else f"{name}, a name without an extension",
        needed=_NEEDED,
        remedy=_ADVICE.get(extension, "Save the rows as .csv"),
    )


def check_first_bytes(kind: Kind, name: str, head: bytes) -> None:
    """Hold the first `HEAD_BYTES` bytes of a file against its kind.

    Raises:
        DataError: They belong to another kind of file.
    """
    found = next((what for magic, what in _MAGIC.items() if head.startswith(magic)), None)
    if kind in _EXPECTED:
        if head.startswith(_EXPECTED[kind]):
            return
        found = found or "other first bytes"
    elif found is None and head.lstrip().lower().startswith((b"<!doctype html", b"<html")):
        found = "a web page (HTML)"
    if found:
        raise DataError(
            f"{name} is not what its name says, {kind}",
            got=found,
            needed=_NEEDED,
            remedy="Give it the extension of what it is, or choose another file",
        )
