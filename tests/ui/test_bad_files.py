"""Files that break readers, through the handlers of the data card: rows or a sentence, never anything else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import ptune_core
from ptune_core.data import ingest, ingest_child
from ptune_core.errors import DataError
from ptune_core.ui.train.handlers import TrainHandlers

DIRTY = Path(ptune_core.__file__).parent.parent.parent / "shared" / "data" / "dirty_csv"
"""A collection of real ones, where it is beside the project."""

BAD = {
    "empty.csv": b"",
    "header.csv": b"text,label\n",
    "blank.csv": b"\n\n \n",
    "bom.csv": b"\xef\xbb\xbftext,label\ngood,1\nbad,0\nfine,1\npoor,0\n",
    "utf16.csv": "text,label\ngood,1\nbad,0\nfine,1\npoor,0\n".encode("utf-16"),
    "cp1252.csv": "text,label\ncaf\xe9 \x93quoted\x94,1\nbad,0\nna\xefve,1\npoor,0\n".encode("latin-1"),
    "ragged.csv": b"text,label\ngood,1\nbad\nfine,1,2,3\npoor,0\nmore,1\n",
    "quotes.csv": b'text,label\n"never closed,1\nbad,0\n',
    "nul.csv": b"text,label\ngo\x00od,1\nbad,0\nfine,1\npoor,0\n",
    "cr.csv": b"text,label\rgood,1\rbad,0\rfine,1\rpoor,0\r",
    "same.csv": b"text,text\na,b\nc,d\n",
    "one_class.csv": b"text,label\ngood,1\nfine,1\ngreat,1\n",
    "semicolons.csv": b"text;label\ngood;1\nbad;0\nfine;1\npoor;0\n",
    "web.csv": b"<!DOCTYPE html><html><body>404</body></html>",
    "noise.csv": bytes(range(256)) * 20,
    "markup.csv": b"<script>,{{value}}\n${1},<b>x</b>\n<img src=x>,y\n",
    "array.json": b"[1, 2, 3]",
    "deep.json": b"[" * 5000 + b"]" * 5000,
    "torn.jsonl": b'{"text": "a", "label": "x"}\n{"text": "b", "la\n{"text": "c", "label": "y"}\n',
    "zip.xlsx": b"PK\x03\x04nothing",
    "old.xls": b"\xd0\xcf\x11\xe0" + bytes(600),
    "cut.parquet": b"PAR1" + bytes(50),
    "program.exe": b"MZ" + bytes(100),
    "unnamed": b"text,label\na,1\n",
}


def in_this_process(task: ingest_child.Task) -> None:
    """As the reading process does, which takes most of a second for each file."""
    try:
        ingest_child.run(task)
    except RecursionError as error:
        raise DataError(f"{task.name} is nested too deeply") from error


def handle(handlers: TrainHandlers, path: Path) -> str:
    """What the card says of a file: its report, or why there is none."""
    token, said = handlers.read_file(str(path))
    if not token:
        assert 'class="problem"' in said, path.name
        return str(said)
    roles, report, answers, preview = handlers.show_data(
        token, "{text~} [P*8][ANSWER:label]", [], None, 0, "demo", "", ""
    )
    assert roles["token"] == token and isinstance(answers["pairs"], list) and preview["question"]["token"] == token
    assert "<script" not in report and "<img" not in report
    assert "Using" in report or 'class="problem"' in report, path.name
    return str(report)


@pytest.mark.parametrize("name", BAD)
def test_a_bad_file_gives_rows_or_a_sentence(
    service: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(ingest, "_run_child", in_this_process)
    (tmp_path / name).write_bytes(BAD[name])
    handle(TrainHandlers(service), tmp_path / name)


@pytest.mark.skipif(not DIRTY.is_dir(), reason="the collection is not here")
def test_the_collection_of_bad_files(service: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ingest, "_run_child", in_this_process)
    handlers = TrainHandlers(service)
    files = [path for path in sorted(DIRTY.rglob("*")) if path.is_file()]
    said = [handle(handlers, path) for path in files]
    assert len(said) > 100
