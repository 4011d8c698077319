"""`deploy --dry-run`: what it plans, and what it refuses to plan."""

from __future__ import annotations

import inspect
import re
import shutil
from pathlib import Path

import huggingface_hub
import pytest

from ptune_core.deploy import Call, check, explain, files_to_upload, plan, read_spacefile
from ptune_core.errors import SettingsError

ROOT = Path(__file__).parent.parent


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A small copy of what the Spacefile speaks of."""
    for name in ("README.md", "Spacefile", "requirements.txt", "LICENSE"):
        shutil.copy(ROOT / name, tmp_path)
    for name in ("app.py", "ptune_core/errors.py", "ptune_core/demo/model/model.safetensors"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("content")
    for name in (".venv/lib/app.py", ".env", "ptune_core/__pycache__/errors.cpython-311.pyc", "tests/test_x.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("must not go up")
    return tmp_path


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new, 1), encoding="utf-8")


def test_the_plan_goes_from_storage_to_a_running_space(folder: Path) -> None:
    calls = plan(read_spacefile(folder / "Spacefile"), folder, "ada/ptune")
    check(calls)
    order = [call.method for call in calls]
    assert order[:2] == ["create_bucket", "create_repo"]
    assert order[-3:] == ["upload_folder", "request_space_hardware", "wait_for_space"]
    by_name = {call.method: call.arguments for call in calls}
    assert by_name["create_bucket"]["bucket_id"] == "ada/ptune-data"
    assert by_name["set_space_volumes"]["volumes"] == [
        {"type": "bucket", "source": "ada/ptune-data", "mount_path": "/data"}
    ]
    (volume,) = [huggingface_hub.Volume(**values) for values in by_name["set_space_volumes"]["volumes"]]
    assert (volume.source, volume.mount_path) == ("ada/ptune-data", "/data")
    for call in calls:  # a deployment that broke off is done again
        if "exist_ok" in inspect.signature(getattr(huggingface_hub.HfApi, call.method)).parameters:
            assert call.arguments["exist_ok"] is True


def test_every_variable_and_secret_is_set(folder: Path) -> None:
    spec = read_spacefile(folder / "Spacefile")
    calls = plan(spec, folder, "ada/ptune")
    variables = {c.arguments["key"]: c.arguments["value"] for c in calls if c.method == "add_space_variable"}
    assert variables == spec.variables
    assert [c.arguments["key"] for c in calls if c.method == "add_space_secret"] == spec.secrets.names


def test_runs_are_kept_on_the_mounted_storage() -> None:
    """Else they would be lost at every restart of the Space, without a banner that says so."""
    spec = read_spacefile(ROOT / "Spacefile")
    (volume,) = spec.volumes
    assert Path(spec.variables["PTUNE_DATA_DIR"]).is_relative_to(volume.mount_path)
    assert Path(spec.variables["HF_HOME"]).is_relative_to(volume.mount_path)


def test_a_secret_is_never_shown(folder: Path) -> None:
    spec = read_spacefile(folder / "Spacefile")
    text = explain(spec, folder, "ada/ptune", {"HF_TOKEN": "hf_very_secret"})
    assert "hf_very_secret" not in text
    assert "Secret HF_TOKEN: set" in text
    assert "Secret HF_TOKEN: NOT set" in explain(spec, folder, "ada/ptune", {})


@pytest.mark.parametrize(("private", "told"), [("false", "will be public: anyone"), ("true", "will be private: only")])
def test_who_will_see_the_space_is_told_and_made_so(folder: Path, private: str, told: str) -> None:
    """Bug: the visibility stood only among the arguments of create_repo, which changes no Space that is there."""
    edit(folder / "Spacefile", "private = false", f"private = {private}")
    spec = read_spacefile(folder / "Spacefile")
    assert told in explain(spec, folder, "ada/ptune", {})
    calls = plan(spec, folder, "ada/ptune")
    (settings,) = [call.arguments for call in calls if call.method == "update_repo_settings"]
    assert settings == {"repo_id": "ada/ptune", "repo_type": "space", "private": spec.private}
    order = [call.method for call in calls]
    assert order.index("update_repo_settings") < order.index("upload_folder"), "nothing goes up before it is private"


def test_only_the_program_goes_up(folder: Path) -> None:
    names = [path.as_posix() for path in files_to_upload(read_spacefile(folder / "Spacefile"), folder)]
    assert names == [
        "LICENSE",
        "README.md",
        "app.py",
        "ptune_core/demo/model/model.safetensors",
        "ptune_core/errors.py",
        "requirements.txt",
    ]


def test_the_same_files_as_huggingface_hub_would_choose(folder: Path) -> None:
    spec = read_spacefile(folder / "Spacefile")
    (upload,) = [call.arguments for call in plan(spec, folder, "ada/ptune") if call.method == "upload_folder"]
    every = [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]
    chosen = huggingface_hub.utils.filter_repo_objects(
        every, allow_patterns=upload["allow_patterns"], ignore_patterns=upload["ignore_patterns"]
    )
    assert sorted(chosen) == [path.as_posix() for path in files_to_upload(spec, folder)]


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ('"ptune_core/**"', '"ptune/**"', r"`ptune/\*\*` matches no file"),
        ('"app.py", ', "", r"needs app\.py"),
        ('python = "3.11"', 'python = "3.12"', "python: Spacefile says 3.12, README python_version says 3.11"),
        ("[hardware]", "[hardware]\nstorage = 'small'", r"hardware\.storage"),
        ("schema = 1", "schema = 2", "schema"),
        ('mount_path = "/data"', 'mount_path = "data"', r"volumes\.0\.mount_path"),
        ("private = false", "private = ", "not valid TOML"),
        ('flavor = "cpu-basic"', 'flavor = "cpu-basics"', "no hardware 'cpu-basics'; there are cpu-basic"),
    ],
)
def test_a_wrong_spacefile_is_told(folder: Path, old: str, new: str, told: str) -> None:
    edit(folder / "Spacefile", old, new)
    with pytest.raises(SettingsError, match=told):
        explain(read_spacefile(folder / "Spacefile"), folder, "ada/ptune", {})


@pytest.mark.parametrize("repo_id", ["ptune", "", "a/b/c", "ada/pt une", "../x", "https://hf.co/ada/ptune"])
def test_a_name_that_is_no_space_is_told(folder: Path, repo_id: str) -> None:
    with pytest.raises(SettingsError, match="OWNER/NAME"):
        plan(read_spacefile(folder / "Spacefile"), folder, repo_id)


def test_a_missing_spacefile_is_told(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="no Spacefile here"):
        read_spacefile(tmp_path / "Spacefile")


def test_a_readme_without_front_matter_is_told(folder: Path) -> None:
    (folder / "README.md").write_text("# PTune\n")
    with pytest.raises(SettingsError, match="no front matter"):
        plan(read_spacefile(folder / "Spacefile"), folder, "ada/ptune")


def test_calls_that_the_installed_library_lacks_are_all_told() -> None:
    calls = [
        Call("request_space_storage", {"repo_id": "ada/ptune"}, "gone since huggingface_hub 2"),
        Call("create_repo", {"repo_id": "ada/ptune", "space_storage": "small"}, "gone since huggingface_hub 2"),
    ]
    with pytest.raises(SettingsError, match=re.escape("request_space_storage: there is no such call; create_repo: ")):
        check(calls)
