"""Read named files from a folder or a zip that anyone may have made, and write a zip that is the same every time."""

from __future__ import annotations

import os
import shutil
import stat
import struct
import zipfile
import zlib
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from ptune_core.errors import AdapterError, DiskFull, PTuneError
from ptune_core.files import NO_ROOM, sync

PICKLE_SUFFIXES = (".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt")
"""Files that can run code when they are opened. None of them is ever opened here."""

CONVERT = {
    ".nemo": """import tarfile, torch; from safetensors.torch import save_file; TASK = "the taskname"
weights = torch.load(tarfile.open("FILE.nemo").extractfile("./model_weights.ckpt"), map_location="cpu")
save_file({"prompt": next(t.float().contiguous() for part in weights.values() for name, t in part.items() \
if name.endswith(f"prompt_table.{TASK}.prompt_embeddings.weight"))}, "prompt.safetensors")""",
    ".pt": """from safetensors.torch import save_file  # `template` is the trained MixedTemplate
vectors = template.soft_embedding.weight[1:]  # SoftTemplate: soft_embeds; Ptuning: what its heads make of new_embedding
save_file({"prompt": vectors.detach().float().contiguous().cpu()}, "prompt.safetensors")""",
}
"""Three lines each, to be run where such a file was made and is trusted."""

_MAX_DIRECTORY_BYTES = 2**16
_END_RECORD = struct.Struct("<4s4H2LH")
_END_MAGIC = b"PK\x05\x06"
_ENCRYPTED = 0x1
_OF_MACOS = "__MACOSX/"
"""What a Mac puts beside the files of a folder that it packs."""
_FIRST_ZIP_DATE = (1980, 1, 1, 0, 0, 0)


def read_files(path: Path, limits: Mapping[str, int]) -> dict[str, bytes]:
    """The content of those named files that exist in a folder, or at the top of a zip or of the one folder in it.

    Nothing is ever extracted to disk, and nothing but the named files is opened.

    Args:
        path: A folder or a zip file.
        limits: File name -> most bytes it may hold.

    Raises:
        AdapterError: `path` is neither, or the archive or a file in it is not to be trusted; all reasons at once.
    """
    try:
        if path.is_dir():
            return _read_folder(path, limits)
        if path.is_file():
            return _read_zip(path, limits)
    except OSError as error:
        raise AdapterError(f"The adapter {path} cannot be read", got=error.strerror or str(error)) from error
    raise AdapterError(f"There is no adapter at {path}", needed="a folder or a zip file that PTune or PEFT wrote")


def refuse_pickle(path: Path) -> None:
    """Refuse files that can run code when they are opened, saying how to make one that cannot.

    Raises:
        AdapterError: By the name alone; the file is not opened.
    """
    suffix = path.suffix.lower()
    if suffix == ".nemo" or suffix in PICKLE_SUFFIXES:
        lines = CONVERT[".nemo" if suffix in (".nemo", ".ckpt") else ".pt"].replace("\n", "\n    ")
        raise AdapterError(
            f"{path.name} is not opened, because such a file can run code",
            needed="a .safetensors file with the vectors",
            remedy=f"Make it where the file was made:\n    {lines}",
        )


def write_files(directory: Path, files: Mapping[str, bytes]) -> None:
    """Write `files` into `directory`, each one on the disk before the next, and their names too when this returns.

    Raises:
        DiskFull: There is no room.
        AdapterError: The folder cannot be written.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
        for name, content in files.items():
            with (directory / name).open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
        sync(directory)
    except OSError as error:
        raise write_error(directory, error) from error


def write_zip(zip_path: Path, directory: Path, names: Sequence[str], stored: Collection[str] = ()) -> None:
    """Pack those of `names` that exist in `directory`, in that order; the same content gives the same bytes.

    A reader never sees half an archive: it appears under its name when it is complete. Files in `stored` are not
    compressed, and may be larger than the memory.

    Raises:
        DiskFull: There is no room.
        AdapterError: The file cannot be written.
    """
    unfinished = zip_path.with_name(zip_path.name + ".tmp")
    try:
        with unfinished.open("wb") as file:
            with zipfile.ZipFile(file, "w") as archive:
                for name in names:
                    if (directory / name).is_file():
                        _pack(archive, directory / name, _entry(name), name in stored)
            file.flush()
            os.fsync(file.fileno())
        os.replace(unfinished, zip_path)
        sync(zip_path.parent)
    except OSError as error:
        with suppress(OSError):  # such as a folder that is a file: the error below says so
            unfinished.unlink(missing_ok=True)
        raise write_error(zip_path, error) from error


def write_error(path: Path, error: OSError) -> PTuneError:
    """The error that says why nothing could be written at `path`."""
    if error.errno in NO_ROOM:
        return DiskFull("There is no room to write the adapter", got=str(path), remedy="Free some space and try again")
    return AdapterError(f"The adapter {path} cannot be written", got=error.strerror or str(error))


def _pack(archive: zipfile.ZipFile, path: Path, entry: zipfile.ZipInfo, is_stored: bool) -> None:
    if not is_stored:
        archive.writestr(entry, path.read_bytes(), compresslevel=6)
        return
    entry.compress_type, entry.file_size = zipfile.ZIP_STORED, path.stat().st_size
    with path.open("rb") as source, archive.open(entry, "w") as target:
        shutil.copyfileobj(source, target, 2**20)


def _entry(name: str) -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo(name, _FIRST_ZIP_DATE)
    entry.create_system = 3
    entry.external_attr = (stat.S_IFREG | 0o644) << 16
    entry.compress_type = zipfile.ZIP_DEFLATED
    return entry


def _read_folder(folder: Path, limits: Mapping[str, int]) -> dict[str, bytes]:
    found, problems = {}, []
    for name, limit in limits.items():
        file_path = folder / name
        if not file_path.exists():
            continue
        if not file_path.is_file():
            problems.append(f"{name} is not a regular file")
            continue
        with file_path.open("rb") as file:
            content = file.read(limit + 1)
        if len(content) > limit:
            problems.append(_too_large(name, limit))
        found[name] = content
    _raise_if(problems, folder)
    return found


def _read_zip(path: Path, limits: Mapping[str, int]) -> dict[str, bytes]:
    _check_directory_size(path)
    found: dict[str, bytes] = {}
    problems = []
    try:
        with zipfile.ZipFile(path) as archive:
            folder = _only_folder([entry.filename for entry in archive.infolist()], limits)
            for entry in archive.infolist():
                name = entry.filename.removeprefix(folder)
                if entry.filename.startswith(_OF_MACOS):
                    continue
                if name.lower().endswith(PICKLE_SUFFIXES):
                    problems.append(f"{name!r} can run code when it is opened; only .safetensors and .json are read")
                elif _leaves_the_folder(name):
                    problems.append(f"{name!r} points outside the archive")
                elif name in found:
                    problems.append(f"{name} is in the archive twice")
                elif name not in limits:
                    continue
                elif stat.S_ISLNK(entry.external_attr >> 16) or entry.flag_bits & _ENCRYPTED:
                    problems.append(f"{name} is a link or encrypted")
                elif entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                    problems.append(f"{name} is compressed in an unusual way")
                else:
                    with archive.open(entry) as file:
                        found[name] = file.read(limits[name] + 1)
                    if len(found[name]) > limits[name]:
                        problems.append(_too_large(name, limits[name]))
    except (zipfile.BadZipFile, NotImplementedError, EOFError, ValueError, zlib.error) as error:
        raise AdapterError(f"The zip file {path.name} is damaged", got=str(error)) from error
    _raise_if(problems, path)
    return found


def _only_folder(names: Sequence[str], wanted: Collection[str]) -> str:
    """The one folder that everything is in, as `folder/`, if none of the wanted files is at the top; else empty."""
    mine = [name for name in names if not name.startswith(_OF_MACOS)]
    top = {name.split("/", 1)[0] for name in mine}
    if len(top) != 1 or any(name in wanted or "/" not in name for name in mine):
        return ""
    return f"{top.pop()}/"


def _check_directory_size(path: Path) -> None:
    """Refuse a zip with a huge table of contents before `zipfile` builds an object for each entry."""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - 2**16 - _END_RECORD.size))
        tail = file.read()
    where = tail.rfind(_END_MAGIC)
    if where < 0 or len(tail) - where < _END_RECORD.size:
        raise AdapterError(
            f"{path.name} is not a zip file",
            needed="a folder or a zip file with adapter_config.json and adapter_model.safetensors",
        )
    directory_bytes = _END_RECORD.unpack_from(tail, where)[5]
    if directory_bytes > _MAX_DIRECTORY_BYTES:
        raise AdapterError(f"The zip file {path.name} has far too many entries for an adapter")


def _leaves_the_folder(name: str) -> bool:
    return name.startswith(("/", "\\")) or ".." in name.replace("\\", "/").split("/") or ":" in name


def _too_large(name: str, limit: int) -> str:
    return f"{name} holds more than {limit:,} bytes"


def _raise_if(problems: Sequence[str], path: Path) -> None:
    if problems:
        raise AdapterError(f"The adapter {path.name} cannot be used", got="; ".join(problems))
