"""Which encoding a text file is in. Never guessed silently: what is not UTF-8 is told, what fits nothing is refused."""

from __future__ import annotations

import codecs
from dataclasses import dataclass
from pathlib import Path

from ptune_core.errors import DataError

_BOMS = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_CHUNK = 1 << 20
_MAX_WESTERN_SHARE = 0.3
"""Accented letters among all letters in Western European text; Cyrillic or Chinese bytes are far above it."""

_ASCII = bytes(range(0x80))
_NO_ASCII_LETTERS = bytes(byte for byte in range(0x100) if not chr(byte).isascii() or not chr(byte).isalpha())
_REMEDY = "Save the file as UTF-8 (in Excel: 'CSV UTF-8') and choose it again"


@dataclass(frozen=True)
class Encoding:
    """A codec name that decodes the whole file, and what to tell people about it (empty for UTF-8)."""

    codec: str
    note: str = ""


def detect_encoding(path: Path, name: str) -> Encoding:
    """Find the encoding of a text file by reading all of it, `_CHUNK` bytes at a time.

    Order: byte order mark, UTF-16 without one, UTF-8, Windows-1252.

    Raises:
        DataError: None of them decodes the file, or the file has NUL characters.
    """
    with path.open("rb") as file:
        head = file.read(4096)
    codec = next((codec for bom, codec in _BOMS if head.startswith(bom)), None) or _utf16_without_bom(head)
    if codec:
        _check_decodes(path, name, codec)
        return Encoding(codec, "" if codec == "utf-8-sig" else f"The file is {codec.upper()}, not UTF-8.")
    survey = _survey_utf8(path, name)
    if survey.bad_bytes == 0:
        return Encoding("utf-8")
    where = f"byte 0x{survey.bad_byte:02X} at position {survey.position}, line {survey.line}"
    if survey.good_chars > survey.bad_bytes:
        raise DataError(f"{name} is UTF-8 with damaged places", got=where, needed="UTF-8 text", remedy=_REMEDY)
    if survey.high_bytes > _MAX_WESTERN_SHARE * max(survey.letters, 4):
        raise DataError(f"{name} is not UTF-8", got=f"{where}, in an unknown encoding", remedy=_REMEDY)
    _check_decodes(path, name, "cp1252")
    return Encoding("cp1252", f"The file is not UTF-8 ({where}); read as Windows-1252. Check the preview.")


@dataclass
class _Survey:
    position: int = -1
    line: int = 0
    bad_byte: int = 0
    bad_bytes: int = 0
    good_chars: int = 0
    high_bytes: int = 0
    letters: int = 0


def _utf16_without_bom(head: bytes) -> str | None:
    """UTF-16 of mostly Latin text has a zero in every second byte; other text files have none."""
    even, odd = head[0::2].count(0), head[1::2].count(0)
    if odd > 0.4 * (len(head) // 2) and even == 0:
        return "utf-16-le"
    if even > 0.4 * (len(head) // 2) and odd == 0:
        return "utf-16-be"
    return None


def _survey_utf8(path: Path, name: str) -> _Survey:
    """Count what is and what is not UTF-8, and find the first byte that is not."""
    survey, offset, lines, rest = _Survey(), 0, 1, b""
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            if b"\0" in chunk:
                _refuse_nul(name, lines + chunk[: chunk.index(b"\0")].count(b"\n"))
            data, rest = _split_at_char(rest + chunk)
            _survey_chunk(survey, data, offset, lines)
            offset += len(data)
            lines += data.count(b"\n")
    if rest:
        _survey_chunk(survey, rest, offset, lines)
    return survey


def _survey_chunk(survey: _Survey, data: bytes, offset: int, lines: int) -> None:
    high_bytes = len(data.translate(None, _ASCII))
    survey.high_bytes += high_bytes
    survey.letters += high_bytes + len(data.translate(None, _NO_ASCII_LETTERS))
    try:
        survey.good_chars += len(data) - len(data.decode("utf-8"))
        return
    except UnicodeDecodeError as error:
        if survey.bad_bytes == 0:
            survey.position, survey.bad_byte = offset + error.start, data[error.start]
            survey.line = lines + data.count(b"\n", 0, error.start)
    text = data.decode("utf-8", "replace")
    bad = text.count("\ufffd")
    survey.bad_bytes += bad
    survey.good_chars += len(text) - bad - len(text.encode("ascii", "ignore"))


def _split_at_char(data: bytes) -> tuple[bytes, bytes]:
    """Cut off the last bytes where they may be the start of a character that goes on in the next chunk."""
    for back in range(1, min(4, len(data)) + 1):
        byte = data[-back]
        if byte >= 0xC0:
            return data[:-back], data[-back:]
        if byte < 0x80:
            break
    return data, b""


def _check_decodes(path: Path, name: str, codec: str) -> None:
    decoder = codecs.getincrementaldecoder(codec)()
    lines = 1
    with path.open("rb") as file:
        while True:
            chunk = file.read(_CHUNK)
            try:
                text = decoder.decode(chunk, final=not chunk)
            except UnicodeDecodeError as error:
                line = lines + error.object[: error.start].decode(codec, "replace").count("\n")
                raise DataError(
                    f"{name} is not {codec.upper()} from start to end",
                    got=f"{error.reason} near line {line}",
                    remedy=_REMEDY,
                ) from error
            if "\0" in text:
                _refuse_nul(name, lines + text[: text.index("\0")].count("\n"))
            lines += text.count("\n")
            if not chunk:
                return


def _refuse_nul(name: str, line: int) -> None:
    raise DataError(
        f"{name} has a NUL character", got=f"NUL in line {line}", needed="text without NUL characters", remedy=_REMEDY
    )
