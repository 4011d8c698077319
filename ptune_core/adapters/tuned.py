"""The base model in the adapter of a run that tuned it: `base_model/`, which may come from strangers like the rest.

transformers decides by what lies in a folder and by what its JSON files say whether it runs code, fetches something or
looks elsewhere for weights. So only files of `BASE_FILES` may be there, and no key that says anything of that kind.
"""

from __future__ import annotations

import json
import shutil
import stat
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from ptune_core.adapters.archive import write_error
from ptune_core.adapters.sidecar import BASE_FOLDER
from ptune_core.errors import AdapterError
from ptune_core.files import sync
from ptune_core.model.trained import TrainedPrompt
from ptune_core.model.tuned import BASE_FILES, WEIGHTS_FILE, copy_base_model
from ptune_core.plain_json import parse_json, tensor_header

NEEDED = ("config.json", WEIGHTS_FILE, "tokenizer_config.json")

REFUSED_KEYS = frozenset(
    {
        "auto_map", "custom_pipelines", "trust_remote_code",  # code from a repository
        "attn_implementation", "_attn_implementation", "_attn_implementation_internal",  # may name a kernel of the Hub
        "experts_implementation", "_experts_implementation", "_experts_implementation_internal", "use_kernels",
        "quantization_config", "compression_config",  # other code reads the weights
    }
)  # fmt: skip
"""Keys of the JSON files that make transformers do more than build the model and read its weights."""

_CHECKED_JSON = ("config.json", "generation_config.json", "tokenizer_config.json", "special_tokens_map.json")
_MAX_HEADER_BYTES = 2**24
_MAX_TENSORS = 50_000


@dataclass(frozen=True)
class _File:
    """A file in `base_model/`: its size, and a way to read it. `problem` says why it must not be read at all."""

    size: int
    open: Callable[[], IO[bytes]]
    problem: str = ""


def check_base(path: Path) -> list[str]:
    """What is wrong with the base model in an adapter, one line each.

    Args:
        path: The adapter's folder, or its zip, which has been read before.
    """
    with _files(path) as files:
        return _problems(files)


def write_base(source: Path, directory: Path) -> None:
    """Put a tuned base model, from its folder or from the zip of an adapter, into an adapter's `base_model/`.

    Raises:
        AdapterError: It is not to be trusted, or the folder cannot be written.
        DiskFull: There is no room.
    """
    if source.is_file():
        unpack_base(source, directory)
        return
    try:
        copy_base_model(source, directory)
    except OSError as error:
        raise write_error(directory, error) from error


@contextmanager
def base_place(trained: TrainedPrompt) -> Iterator[tuple[str, str | None]]:
    """Where an adapter's base model can be loaded from, and at which revision; one in a zip is unpacked meanwhile.

    Raises:
        AdapterError: The base model in the zip is not to be trusted.
        DiskFull: There is no room for it.
    """
    own = trained.tuned_base
    if own is None:
        yield trained.base_model, trained.revision
    elif own.is_dir():
        yield str(own), None
    else:
        with tempfile.TemporaryDirectory(prefix="ptune-") as folder:
            unpack_base(own, Path(folder) / BASE_FOLDER)
            yield str(Path(folder) / BASE_FOLDER), None


def unpack_base(zip_path: Path, directory: Path) -> None:
    """Write the base model of an adapter's zip into `directory`, which is made.

    Raises:
        AdapterError: It is not to be trusted, or the folder cannot be written.
        DiskFull: There is no room.
    """
    with _files(zip_path) as files:
        if problems := _problems(files):
            raise AdapterError(f"The base model in {zip_path.name} cannot be used", got="; ".join(problems))
        try:
            directory.mkdir(parents=True)
            for name, file in files.items():
                with file.open() as source, (directory / name).open("wb") as target:
                    shutil.copyfileobj(source, target, 2**20)
                sync(directory / name)
        except OSError as error:
            raise write_error(directory, error) from error


@contextmanager
def _files(path: Path) -> Iterator[dict[str, _File]]:
    """Everything in `base_model/` by name; what lies in a folder below it has a name that is not expected."""
    if path.is_dir():
        yield {entry.name: _of_folder(entry) for entry in _entries(path / BASE_FOLDER)}
        return
    with zipfile.ZipFile(path) as archive:
        prefix = f"{BASE_FOLDER}/"
        entries = [entry for entry in archive.infolist() if entry.filename.startswith(prefix) and not entry.is_dir()]
        yield {entry.filename.removeprefix(prefix): _of_zip(archive, entry) for entry in entries}


def _entries(folder: Path) -> list[Path]:
    return sorted(folder.iterdir()) if folder.is_dir() else []


def _of_folder(entry: Path) -> _File:
    is_file = entry.is_file()
    size = entry.stat().st_size if is_file else 0
    return _File(size, lambda: entry.open("rb"), "" if is_file else "is not a regular file")


def _of_zip(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> _File:
    problem = ""
    if stat.S_ISLNK(entry.external_attr >> 16) or entry.flag_bits & 0x1:
        problem = "is a link or encrypted"
    elif entry.filename.endswith(WEIGHTS_FILE) and entry.compress_type != zipfile.ZIP_STORED:
        problem = "is compressed: packed so, a small file could fill the disk"
    elif entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        problem = "is compressed in an unusual way"
    return _File(entry.file_size, lambda: archive.open(entry), problem)


def _problems(files: Mapping[str, _File]) -> list[str]:
    problems = [f"{BASE_FOLDER}/{name} is missing" for name in NEEDED if name not in files]
    for name, file in files.items():
        place = f"{BASE_FOLDER}/{name}"
        if name not in BASE_FILES:
            problems.append(f"{place} does not belong there")
        elif file.problem:
            problems.append(f"{place} {file.problem}")
        elif file.size > BASE_FILES[name]:
            problems.append(f"{place} holds more than {BASE_FILES[name]:,} bytes")
        elif name in _CHECKED_JSON or name == WEIGHTS_FILE:
            check = _check_weights if name == WEIGHTS_FILE else _check_json
            try:
                check(file, place)
            except ValueError as error:
                problems.append(str(error))
            except (zipfile.BadZipFile, EOFError, OSError) as error:
                problems.append(f"{place} cannot be read: {error}")
    return problems


def _check_json(file: _File, place: str) -> None:
    with file.open() as opened:
        content = parse_json(opened.read(file.size + 1), place)
    if refused := sorted(REFUSED_KEYS & set(_keys(content))):
        raise ValueError(f"{place} says {', '.join(refused)}, which makes transformers run or fetch something else")


def _keys(value: Any) -> Iterator[str]:
    for each in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from _keys(each)
    if isinstance(value, dict):
        yield from value


def _check_weights(file: _File, place: str) -> None:
    """Whether a safetensors file holds fp32 tensors side by side and nothing else."""
    with file.open() as opened:
        header = tensor_header(opened, file.size, place, most_bytes=_MAX_HEADER_BYTES, most_tensors=_MAX_TENSORS)
    if not header:
        raise ValueError(f"{place} holds no tensors")
    for name, entry in header.items():
        if not isinstance(entry, dict) or entry.get("dtype") != "F32":
            shown = json.dumps(name)[:80]
            raise ValueError(f"{place}: {shown} is not fp32, in which a base model is tuned")
