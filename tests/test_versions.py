"""The versions that README, Spacefile, requirements.txt and pyproject.toml name must be the same."""

from __future__ import annotations

import re
import shutil
import tomllib
from pathlib import Path

import pytest

from ptune_core.deploy import front_matter, read_spacefile, version_problems

ROOT = Path(__file__).parent.parent


def test_they_agree() -> None:
    assert version_problems(read_spacefile(ROOT / "Spacefile"), ROOT) == []


@pytest.mark.parametrize(
    ("file", "old", "new", "told"),
    [
        ("requirements.txt", r"gradio==.*", "gradio==6.30.0", "gradio: Spacefile says"),
        ("requirements.txt", r"torch==.*", "torch>=2", "torch: Spacefile says"),
        ("README.md", r"sdk_version: .*", "sdk_version: 5.0.0", "README sdk_version says 5.0.0"),
        ("README.md", r"python_version: .*", "python_version: 3.10", "README python_version says 3.1"),
        ("Spacefile", r"gradio = .*", 'gradio = "7.0.0"', "Spacefile says 7.0.0"),
    ],
)
def test_a_difference_is_told(tmp_path: Path, file: str, old: str, new: str, told: str) -> None:
    for name in ("README.md", "Spacefile", "requirements.txt"):
        shutil.copy(ROOT / name, tmp_path)
    text = (tmp_path / file).read_text(encoding="utf-8")
    changed = re.sub(old, new, text, count=1)
    assert changed != text
    (tmp_path / file).write_text(changed, encoding="utf-8")
    problems = version_problems(read_spacefile(tmp_path / "Spacefile"), tmp_path)
    assert any(told in problem for problem in problems)


def test_one_python_everywhere() -> None:
    """The Space, the type checker and the linter assume the oldest Python that is allowed."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    oldest = re.match(r">=([\d.]+)", project["project"]["requires-python"])
    assert oldest is not None
    assert front_matter(ROOT / "README.md")["python_version"] == oldest[1]
    assert project["tool"]["mypy"]["python_version"] == oldest[1]
    assert project["tool"]["ruff"]["target-version"] == "py" + oldest[1].replace(".", "")


@pytest.mark.parametrize("file", ["requirements.txt", "requirements-dev.txt"])
def test_everything_is_pinned(file: str) -> None:
    for line in (ROOT / file).read_text(encoding="utf-8").splitlines():
        assert re.fullmatch(r"-r requirements\.txt|[\w.-]+==[\w.]+", line), line
