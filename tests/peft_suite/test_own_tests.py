"""PEFT's own tests of P-tuning pass with our prompt encoder and config in place of PEFT's.

They are those of its sdist that `PromptEncoder or prompt_encoder` selects: configs, six decoders, two encoder-decoders,
sequence classifiers, feature extraction; saving, loading, training, generating, adding and removing adapters.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
FILES = (
    "test_config.py", "test_decoder_models.py", "test_encoder_decoder_models.py", "test_seq_classifier.py",
    "test_feature_extraction_models.py",
)  # fmt: skip
NEEDS_THE_HUB = "test_config.py::TestPeftConfig::test_from_pretrained_cache_dir[PromptEncoderConfig-mandatory_kwargs25]"
"""Downloads an adapter's config into an empty cache."""

PASS_WITH_PEFT = 283
"""Of 0.21.2's tests with PEFT's own encoder, without a network."""


def test_they_pass_with_our_encoder(tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST", "HF_"))}
    environment |= {
        "HF_HOME": str(tmp_path), "HF_HUB_CACHE": str(tmp_path / "hub"), "HF_HUB_OFFLINE": "1",
        "PTUNE_PEFT_REPORT": str(report), "PYTHONPATH": os.pathsep.join([str(HERE), str(ROOT)]),
    }  # fmt: skip
    options = [
        "-c", os.devnull, "--rootdir", ".", "--import-mode=importlib", "-p", "no:cacheprovider", "-p", "plugin", "-q",
        "--disable-warnings", "-k", "PromptEncoder or prompt_encoder", "--deselect", f"tests/{NEEDS_THE_HUB}",
    ]  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, *(f"tests/{name}" for name in FILES)], cwd=own_tests(),
        env=environment, capture_output=True, text=True, timeout=1800,
    )  # fmt: skip
    told = done.stdout[-5000:] + done.stderr[-2000:]
    assert done.returncode == 0, told
    counts = json.loads(report.read_text())
    assert counts["passed"] >= PASS_WITH_PEFT, told
    assert {"failed", "error"}.isdisjoint(counts), told
    assert min(counts["configs"], counts["encoders"], counts["forward passes"]) >= PASS_WITH_PEFT
    assert [name for name in counts if name.startswith("PEFT's own")] == []


def test_they_are_those_of_the_installed_version() -> None:
    required = re.search(r"^peft==(\S+)$", (ROOT / "requirements-dev.txt").read_text(), re.MULTILINE)
    fetched = re.search(r"^peft==(\S+) --hash", (ROOT / ".ci" / "peft-sdist.txt").read_text(), re.MULTILINE)
    assert required is not None and fetched is not None
    assert version("peft") == required[1] == fetched[1]


def own_tests() -> Path:
    """The folder that holds PEFT's tests; a run without them is no run of all tests, so it fails."""
    folder = Path(sys.prefix) / f"peft-{version('peft')}"
    if not folder.is_dir():
        pytest.fail(f"PEFT's own tests are not in {folder}: run {sys.executable} .ci/fetch_peft_tests.py once")
    return folder
