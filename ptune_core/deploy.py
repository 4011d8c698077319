"""From the Spacefile to the calls of `huggingface_hub` that would make a Space look like it. Nothing is sent.

`plan` is a pure function of the Spacefile, the folder and a Space's name, so the whole deployment can be read, and
tested, without a network. Every call is checked against the installed `huggingface_hub` before it is shown.
"""

from __future__ import annotations

import fnmatch
import inspect
import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ptune_core.errors import SettingsError


class Strict(BaseModel):
    """A part of the Spacefile: unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Versions(Strict):
    """The versions the builder must install; README and requirements.txt say them too."""

    gradio: str
    torch: str
    python: str


class Hardware(Strict):
    """The machine, and the seconds without a visitor after which it sleeps."""

    flavor: str
    sleep_time: int = Field(ge=-1)


class Secrets(Strict):
    """Names of secrets; no value is ever in the file."""

    names: list[str] = []


class Volume(Strict):
    """A storage bucket mounted into the Space; `{owner}` in its name stands for the Space's owner."""

    source: str = Field(pattern=r"^[^/]+/[^/]+$")
    mount_path: str = Field(pattern=r"^/.+")


class Upload(Strict):
    """Which files go up, as patterns relative to the folder of the Spacefile; `**` crosses folders."""

    include: list[str] = Field(min_length=1)
    exclude: list[str] = []


class Spacefile(Strict):
    """Desired state of a Space."""

    schema_version: int = Field(alias="schema", ge=1, le=1)
    private: bool
    versions: Versions
    hardware: Hardware
    variables: dict[str, str] = {}
    secrets: Secrets = Secrets()
    volumes: list[Volume] = []
    upload: Upload


@dataclass(frozen=True)
class Call:
    """One call of `huggingface_hub.HfApi`.

    Attributes:
        method: Name of the method.
        arguments: Its keyword arguments. A secret's value is never here: its place holds `$NAME`.
        reason: What it is for, one sentence.
    """

    method: str
    arguments: dict[str, Any]
    reason: str

    def __str__(self) -> str:
        arguments = ", ".join(f"{name}={value!r}" for name, value in self.arguments.items())
        return f"{self.method}({arguments})"


def read_spacefile(path: Path) -> Spacefile:
    """Read and check a Spacefile.

    Raises:
        SettingsError: There is none, it is not TOML, or it holds wrong or unknown keys; all of them are named.
    """
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise SettingsError(
            "There is no Spacefile here", got=str(path), remedy="Run this in the folder that holds app.py"
        ) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError("The Spacefile is not valid TOML", got=str(error)) from None
    try:
        return Spacefile.model_validate(values)
    except ValidationError as error:
        lines = [f"{'.'.join(str(part) for part in problem['loc'])}: {problem['msg']}" for problem in error.errors()]
        raise SettingsError("The Spacefile is wrong", got="; ".join(lines)) from None


def front_matter(readme: Path) -> dict[str, Any]:
    """The YAML block that opens a Space's README.

    Raises:
        SettingsError: The README is missing or has no such block.
    """
    text = readme.read_text(encoding="utf-8") if readme.is_file() else ""
    block = re.match(r"---\n(.*?)\n---\n", text, re.DOTALL)
    values = yaml.safe_load(block[1]) if block else None
    if not isinstance(values, dict):
        raise SettingsError("The README has no front matter", needed="a block of YAML between two lines ---")
    return values


def version_problems(spec: Spacefile, folder: Path) -> list[str]:
    """Where Spacefile, README front matter and requirements.txt name different versions; empty if they agree."""
    readme = front_matter(folder / "README.md")
    requirements = (folder / "requirements.txt").read_text(encoding="utf-8")
    pins = dict(re.findall(r"^([\w.-]+)==(\S+)", requirements, re.MULTILINE))
    pairs = [
        ("gradio", spec.versions.gradio, "requirements.txt", pins.get("gradio")),
        ("gradio", spec.versions.gradio, "README sdk_version", readme.get("sdk_version")),
        ("torch", spec.versions.torch, "requirements.txt", pins.get("torch")),
        ("python", spec.versions.python, "README python_version", readme.get("python_version")),
    ]
    return [
        f"{package}: Spacefile says {wanted}, {place} says {found}"
        for package, wanted, place, found in pairs
        if wanted != str(found)
    ]


def files_to_upload(spec: Spacefile, folder: Path) -> list[Path]:
    """The files that would go up, relative to `folder`, by the rules of `HfApi.upload_folder`.

    Raises:
        SettingsError: An include pattern that matches nothing, or README, app or requirements left behind.
    """
    paths = [path.relative_to(folder) for path in _files_below(folder)]
    include, exclude = spec.upload.include, spec.upload.exclude
    problems = [f"`{pattern}` matches no file" for pattern in include if not any(_matches(p, [pattern]) for p in paths)]
    chosen = [path for path in paths if _matches(path, include) and not _matches(path, exclude)]
    needed = ["README.md", "requirements.txt", str(front_matter(folder / "README.md").get("app_file", "app.py"))]
    problems += [f"the Space needs {name}, which would not go up" for name in needed if Path(name) not in chosen]
    if problems:
        raise SettingsError("The Spacefile's [upload] does not fit this folder", got="; ".join(problems))
    return sorted(chosen)


def _files_below(folder: Path) -> Iterator[Path]:
    """Files below `folder` without hidden ones: a virtual environment or a `.git` is never walked through."""
    for path in folder.iterdir():
        if path.name.startswith("."):
            continue
        if path.is_dir():
            yield from _files_below(path)
        else:
            yield path


def _matches(path: Path, patterns: list[str]) -> bool:
    return any(fnmatch.fnmatch(path.as_posix(), pattern) for pattern in patterns)


def plan(spec: Spacefile, folder: Path, repo_id: str) -> list[Call]:
    """The calls that make the Space `repo_id` (OWNER/NAME) look like `spec`, in order.

    Each can be repeated without harm, so a deployment that broke off is simply done again.

    Raises:
        SettingsError: Versions disagree, the upload patterns do not fit, or `repo_id` is not OWNER/NAME.
    """
    if not re.fullmatch(r"[\w-][\w.-]*/[\w-][\w.-]*", repo_id):
        raise SettingsError("This is not the name of a Space", got=repo_id, needed="OWNER/NAME")
    if problems := version_problems(spec, folder):
        raise SettingsError("The versions disagree", got="; ".join(problems), remedy="Make them the same")
    files_to_upload(spec, folder)
    return [*_storage(spec, repo_id), *_configuration(spec, repo_id), *_start(spec, folder, repo_id)]


def _storage(spec: Spacefile, repo_id: str) -> Iterator[Call]:
    for volume in _volumes(spec, repo_id):
        arguments = {"bucket_id": volume["source"], "private": True, "exist_ok": True}
        yield Call("create_bucket", arguments, "Storage that outlives restarts.")


def _configuration(spec: Spacefile, repo_id: str) -> Iterator[Call]:
    create = {"repo_type": "space", "space_sdk": "gradio", "private": spec.private, "exist_ok": True}
    yield Call("create_repo", {"repo_id": repo_id, **create}, "The Space itself, if it is not there yet.")
    visibility = {"repo_id": repo_id, "repo_type": "space", "private": spec.private}
    yield Call("update_repo_settings", visibility, "Its visibility, which create_repo leaves as it is if it is there.")
    for key, value in spec.variables.items():
        yield Call("add_space_variable", {"repo_id": repo_id, "key": key, "value": value}, "Seen by everyone.")
    for name in spec.secrets.names:
        secret = {"repo_id": repo_id, "key": name, "value": f"${name}"}
        yield Call("add_space_secret", secret, "Its value comes from your environment.")
    if volumes := _volumes(spec, repo_id):
        reason = "Replaces all mounts of the Space; each is given as a huggingface_hub.Volume."
        yield Call("set_space_volumes", {"repo_id": repo_id, "volumes": volumes}, reason)


def _start(spec: Spacefile, folder: Path, repo_id: str) -> Iterator[Call]:
    patterns = {"allow_patterns": spec.upload.include, "ignore_patterns": spec.upload.exclude}
    upload = {"repo_id": repo_id, "repo_type": "space", "folder_path": str(folder), **patterns}
    yield Call("upload_folder", upload, "The program; the Space is rebuilt from it.")
    hardware = {"repo_id": repo_id, "hardware": spec.hardware.flavor, "sleep_time": spec.hardware.sleep_time}
    yield Call("request_space_hardware", hardware, "The machine; most cost money.")
    yield Call("wait_for_space", {"repo_id": repo_id, "timeout": 1800}, "Until it runs or its build has failed.")


def _volumes(spec: Spacefile, repo_id: str) -> list[dict[str, str]]:
    owner = repo_id.split("/")[0]
    return [
        {"type": "bucket", "source": volume.source.replace("{owner}", owner), "mount_path": volume.mount_path}
        for volume in spec.volumes
    ]


def check(calls: list[Call]) -> None:
    """Check every call against the installed `huggingface_hub`: the method, its arguments and the hardware.

    Raises:
        SettingsError: Naming every call that the installed version would refuse.
    """
    import huggingface_hub

    problems = []
    for call in calls:
        method = getattr(huggingface_hub.HfApi, call.method, None)
        if method is None:
            problems.append(f"{call.method}: there is no such call")
            continue
        try:
            inspect.signature(method).bind(None, **call.arguments)
        except TypeError as error:
            problems.append(f"{call.method}: {error}")
        flavors = [flavor.value for flavor in huggingface_hub.SpaceHardware]
        flavor = call.arguments.get("hardware", flavors[0])
        if flavor not in flavors:
            problems.append(f"{call.method}: no hardware {flavor!r}; there are {', '.join(flavors)}")
    if problems:
        version = huggingface_hub.__version__
        raise SettingsError(f"huggingface_hub {version} would refuse the plan", got="; ".join(problems))


def explain(spec: Spacefile, folder: Path, repo_id: str, environment: Mapping[str, str]) -> str:
    """The plan in words: each call in order, who will see the Space, what goes up, which secrets `environment` lacks.

    Raises:
        SettingsError: As `plan` and `check`.
    """
    calls = plan(spec, folder, repo_id)
    check(calls)
    files = files_to_upload(spec, folder)
    megabytes = sum((folder / path).stat().st_size for path in files) / 1e6
    seen_by = (
        "private: only its owner, or members of the organisation that owns it, can open it"
        if spec.private
        else "public: anyone can open it, read its files and train in it"
    )
    lines = [f"Deploying to the Space {repo_id} would be these {len(calls)} calls of huggingface_hub.HfApi:"]
    for number, call in enumerate(calls, start=1):
        lines += [f"{number:>2}. {call}", f"    {call.reason}"]
    lines.append(
        f"The Space will be {seen_by}. A bucket made for it is private."
        if spec.volumes
        else f"The Space will be {seen_by}."
    )
    lines.append(f"Files: {len(files)}, {megabytes:.1f} MB.")
    for name in spec.secrets.names:
        state = "set in this environment" if environment.get(name) else "NOT set in this environment; needed to deploy"
        lines.append(f"Secret {name}: {state}.")
    lines.append("Nothing was sent: this was a dry run.")
    return "\n".join(lines)
