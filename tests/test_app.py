"""The flags of app.py."""

from __future__ import annotations

import argparse
import importlib.util
from pathlib import Path

import pytest

import app
from ptune_core.errors import SettingsError


def test_a_password_comes_from_the_flag_or_the_environment_and_goes_no_further() -> None:
    environ = {"PTUNE_AUTH": "ana:se:cret", "PTUNE_DATA_DIR": "/x"}
    assert app.login(None, environ) == [("ana", "se:cret")]
    assert environ == {"PTUNE_DATA_DIR": "/x"}, "workers would have inherited the password"
    assert app.login("bob:b", {"PTUNE_AUTH": "ana:a"}) == [("bob", "b")]
    assert app.login(None, {}) is None


@pytest.mark.parametrize("flag", ["ana", "ana:", ":secret", ""])
def test_half_a_login_is_refused(flag: str) -> None:
    # An empty password would have let everybody in.
    with pytest.raises(SettingsError, match="NAME:PASSWORD"):
        app.login(None, {"PTUNE_AUTH": flag})


def test_mcp_without_its_package_says_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PTUNE_DATA_DIR", str(tmp_path / "data"))
    find = importlib.util.find_spec
    monkeypatch.setattr(app, "find_spec", lambda name: None if name == "mcp" else find(name))
    with pytest.raises(SettingsError, match="pip install 'mcp"):
        app.serve(argparse.Namespace(mcp=True, auth=None))
    assert not (tmp_path / "data").exists()
