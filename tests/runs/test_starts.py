"""Adapters that a run starts from: found under every name, copied once, and not read again."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ptune_core.errors import AdapterError
from ptune_core.runs.directory import RunDirectory
from ptune_core.runs.starts import read_starts
from ptune_core.runs.worker import train_here
from ptune_core.training.settings import RunSettings

ROWS = "text,label\n" + "".join(f"great film {i},good\nbad food {i},bad\n" for i in range(15))


def settings_for(folder: Path, data: Path, **changes: Any) -> RunSettings:
    values = {
        "base_model": str(folder), "data": str(data), "template": "{text~} [P*3][ANSWER:label]", "max_steps": 3,
        "eval_every": 3, "batch_size": 4, "encoder_hidden_size": 16, "device": "cpu", "precision": "fp32",
    }  # fmt: skip
    return RunSettings.parse(values | changes)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    path = tmp_path / "rows.csv"
    path.write_text(ROWS)
    return path


@pytest.fixture
def first(tiny_gpt2: Path, data: Path, tmp_path: Path) -> Path:
    """A run that has an adapter of three virtual tokens."""
    assert train_here(settings_for(tiny_gpt2, data), tmp_path / "first")["state"] == "finished"
    return tmp_path / "first"


def test_a_run_starts_from_the_adapter_of_another(first: Path, tiny_gpt2: Path, data: Path, tmp_path: Path) -> None:
    """At step 0 it is as good as the other at its end, whatever its own kind of prompt encoder."""
    lines: list[dict[str, Any]] = []
    settings = settings_for(
        tiny_gpt2, data, prompt_init="adapter", prompt_init_adapter=str(first), encoder_reparameterization_type="none"
    )
    train_here(settings, tmp_path / "second", report=lines.append)
    step_0 = next(line for line in lines if line["kind"] == "eval")
    result = RunDirectory(first).result()
    assert result is not None
    assert step_0["loss"] == pytest.approx(result["loss"], rel=1e-4)


def test_a_resumed_run_needs_the_other_adapter_no_more(
    first: Path, tiny_gpt2: Path, data: Path, tmp_path: Path
) -> None:
    settings = settings_for(tiny_gpt2, data, prompt_init="adapter", prompt_init_adapter=str(first / "adapter"))
    stopped = train_here(settings, tmp_path / "second", should_stop=lambda: True)
    assert stopped["state"] == "stopped"
    shutil.rmtree(first)
    assert train_here(settings, tmp_path / "second")["state"] == "finished"


def test_run_directory_folder_and_zip_are_the_same_adapter(first: Path, tmp_path: Path) -> None:
    places = [str(first), str(first / "adapter"), str(first / "adapter.zip")]
    settings = RunSettings.parse({"prompt_init": "adapter", "sweep": {"prompt_init_adapter": places}})
    starts = read_starts(settings, tmp_path / "starts")
    assert list(starts) == places
    assert all(vectors.shape == (3, 32) and np.array_equal(vectors, starts[places[0]]) for vectors in starts.values())
    assert len(list((tmp_path / "starts").iterdir())) == 3
    assert read_starts(settings, tmp_path / "none", keep=False).keys() == starts.keys()
    assert not (tmp_path / "none").exists(), "of several processes one keeps copies"


def test_only_adapters_that_a_trial_starts_from_are_read(tmp_path: Path) -> None:
    settings = RunSettings(prompt_init_adapter="/nowhere")
    assert read_starts(settings, tmp_path) == {}


def test_an_adapter_that_is_not_there_ends_the_run_with_its_name(tiny_gpt2: Path, data: Path, tmp_path: Path) -> None:
    missing = tmp_path / "missing.zip"
    settings = settings_for(tiny_gpt2, data, prompt_init="adapter", prompt_init_adapter=str(missing))
    with pytest.raises(AdapterError, match="no adapter at .*missing.zip"):
        read_starts(settings, tmp_path / "starts")
    result = train_here(settings, tmp_path / "run")
    assert result["state"] == "failed" and str(missing) in result["error"]["text"]


def test_an_adapter_that_adds_to_every_layer_is_no_start(
    first: Path, tiny_gpt2: Path, data: Path, tmp_path: Path
) -> None:
    """Its virtual tokens alone would be another prompt, and nobody would be told."""
    front = {"template": "[P*3] {text~}[ANSWER:label]", "prompt_depth": "all"}
    assert train_here(settings_for(tiny_gpt2, data, **front), tmp_path / "deep")["state"] == "finished"
    settings = settings_for(tiny_gpt2, data, prompt_init="adapter", prompt_init_adapter=str(tmp_path / "deep"))
    with pytest.raises(AdapterError, match="adds to every layer"):
        read_starts(settings, tmp_path / "starts")
    # The other way round nothing is lost: what layers add begins at zero.
    lines: list[dict[str, Any]] = []
    more = settings_for(tiny_gpt2, data, **front, prompt_init="adapter", prompt_init_adapter=str(first))
    assert train_here(more, tmp_path / "more", report=lines.append)["state"] == "finished"
