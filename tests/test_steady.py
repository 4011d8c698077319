"""Wherever a training begins, MKL is told to be strict before it multiplies, unless somebody said something else."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from transformers import AutoTokenizer

from ptune_core.steady import STEADY, keep_steady

HERE = """
import json, os, sys
from pathlib import Path
from ptune_core.runs.worker import train_here
from ptune_core.training.settings import RunSettings

def train(*_, **__):
    print(json.dumps([os.environ.get("MKL_CBWR"), "torch" in sys.modules]))
    return {}

train_here(RunSettings(), Path(sys.argv[1]), train=train)
"""
MULTIPLY = "import torch; from ptune_core.steady import keep_steady; keep_steady(); torch.ones(8, 8) @ torch.ones(8, 8)"


def environment(**changes: str) -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name not in STEADY} | changes


def output_of(code: str, *arguments: str, **changes: str) -> str:
    command = [sys.executable, "-c", code, *arguments]
    done = subprocess.run(command, env=environment(**changes), capture_output=True, text=True, check=True)
    return done.stdout


@pytest.mark.parametrize(("given", "expected"), [({}, "AUTO,STRICT"), ({"MKL_CBWR": "AVX2"}, "AVX2")])
def test_a_training_in_this_process_is_steady(given: dict[str, str], expected: str, tmp_path: Path) -> None:
    assert output_of(HERE, str(tmp_path / "run"), **given).splitlines() == [f'["{expected}", false]']


@pytest.mark.skipif(not torch.backends.mkl.is_available(), reason="this torch has no MKL")
def test_mkl_hears_of_it_though_torch_was_imported_before() -> None:
    assert "CNR:AUTO,STRICT" in output_of(MULTIPLY, MKL_VERBOSE="1")


def test_nobody_is_overruled() -> None:
    environ = {"MKL_CBWR": "OFF"}
    keep_steady(environ)
    assert environ == {"MKL_CBWR": "OFF"}


def test_the_tests_are_steady() -> None:
    assert os.environ["MKL_CBWR"]


def test_the_models_of_the_tests_are_the_same_in_every_run(tiny_gpt2: Path, tiny_bert: Path) -> None:
    """Bug: a tokenizer of theirs was trained anew in every process, with other numbers for its tokens each time.

    Every run of the tests had other models then, and what was true of nearly all of them was red now and again.
    """
    texts = ("the film was great", "a wonderful restaurant")
    found = [AutoTokenizer.from_pretrained(folder)(list(texts))["input_ids"] for folder in (tiny_gpt2, tiny_bert)]
    assert found == [
        [[333, 390, 264, 300], [66, 260, 268, 69, 259, 71, 86, 77, 222, 83, 281, 85, 66, 86, 83, 309, 85]],
        [
            [2, 90, 68, 95, 72, 3],
            [2, 10, 31, 51, 50, 41, 42, 54, 43, 57, 48, 26, 42, 55, 56, 38, 57, 54, 38, 50, 56, 3],
        ],
    ]
