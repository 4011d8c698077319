"""`import`: templates in, settings or adapters out."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import save_file

from ptune_core.__main__ import main
from ptune_core.training.settings import RunSettings

NEMO = {
    "task_templates": [{
        "taskname": "boolq", "prompt_template": "<|VIRTUAL_PROMPT_0|> {text} <|VIRTUAL_PROMPT_1|> Answer : {label}",
        "total_virtual_tokens": 5, "virtual_token_splits": [2, 3], "truncate_field": "text", "answer_only_loss": True,
        "answer_field": "label",
    }],
    "p_tuning": {"encoder_type": "lstm", "encoder_hidden": 64},
}  # fmt: skip
OPENPROMPT = '{"placeholder": "text_a"} {"soft"} {"mask"}\n{"soft": "Is it"} {"placeholder": "text_a"} ? {"mask"} .\n'


@pytest.fixture
def nemo(tmp_path: Path) -> Path:
    (tmp_path / "nemo.json").write_text(json.dumps(NEMO))
    return tmp_path / "nemo.json"


@pytest.fixture
def words(tmp_path: Path) -> Path:
    (tmp_path / "words.json").write_text('{"no": ["bad", "awful"], "yes": ["great"]}')
    return tmp_path / "words.json"


def test_what_is_printed_are_settings(nemo: Path, words: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["import", str(nemo), "--verbalizer", str(words)]) == 0
    output, errors = capsys.readouterr()
    settings = RunSettings.from_yaml(output)
    assert settings.template == "[P*2] {text~} [P*3] Answer : [ANSWER:label]"
    assert settings.labels == {"no": " bad", "yes": " great"} and settings.encoder_hidden_size == 64
    assert set(yaml.safe_load(output)) == {
        "template", "labels", "encoder_reparameterization_type", "encoder_hidden_size", "encoder_num_layers",
        "encoder_dropout",
    }  # fmt: skip
    assert errors.count("note: ") == 2 and "no (1 more)" in errors


def test_a_line_of_openprompts_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "template.txt").write_text(OPENPROMPT)
    arguments = ["import", str(tmp_path / "template.txt"), "--choice", "1", "--target", "answer", "--column", "gold"]
    assert main(arguments) == 0
    assert yaml.safe_load(capsys.readouterr().out) == {"template": '[P="Is it"] {text_a~} ? [ANSWER:gold]'}


def test_template_and_vectors_make_an_adapter(nemo: Path, words: Path, tiny_gpt2: Path, tmp_path: Path) -> None:
    save_file({"prompt": torch.randn(5, 32)}, tmp_path / "v.safetensors")
    rest = ["--verbalizer", str(words), "--vectors", str(tmp_path / "v.safetensors"), "--base-model", str(tiny_gpt2)]
    assert main(["import", str(nemo), *rest, "--out", str(tmp_path / "adapter")]) == 0
    assert main(["import", str(nemo), *rest, "--out", str(tmp_path / "adapter.zip")]) == 0
    assert main(["export", str(tmp_path / "adapter"), "--out", str(tmp_path / "again.zip")]) == 0
    assert (tmp_path / "adapter.zip").read_bytes() == (tmp_path / "again.zip").read_bytes()
    (tmp_path / "in.csv").write_text("text\na fine film\na bad one\n")
    labelled = tmp_path / "out.csv"
    arguments = [
        "classify",
        str(tmp_path / "adapter.zip"),
        "--input",
        str(tmp_path / "in.csv"),
        "--output",
        str(labelled),
    ]
    assert main(arguments) == 0
    assert {row["label"] for row in csv.DictReader(labelled.read_text().splitlines())} <= {"no", "yes"}
    assert main(["import", str(nemo), *rest, "--out", str(tmp_path / "adapter")]) == 2, "nothing is replaced"


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["missing.yaml"], "missing.yaml"),
        ([], "one template"),
        (["--text", '{"soft"} {"mask"'], "never closed"),
        (["--text", "<|VIRTUAL_PROMPT_0|> {a}{b}"], "how many virtual tokens"),
        (["--text", "[P] {a}[ANSWER:b]", "--vectors", "x.safetensors"], "--base-model, --out"),
        (["--text", "[P] {a}[ANSWER:b]", "--vectors", "x.pt", "--base-model", "demo", "--out", "x"], "save_file"),
        (["--text", '{"soft"} {"mask"} {"post": 1}', "--target", "answer"], "'post'"),
        (["model.nemo"], "extractfile"),
        (["."], "--vectors"),
        (["--text", "[P] {a}[ANSWER:b]", "--front", "-1"], "below 0"),
        (["--text", '{"soft", "duplicate": 999} {"mask"}', "--target", "answer"], "at most 512"),
    ],
)
def test_mistakes_are_explained(
    arguments: list[str], told: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["import", *arguments]) == 2
    output, errors = capsys.readouterr()
    assert output == "" and errors.startswith("error: ") and told in errors and "Traceback" not in errors
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("content", [b"\xff\xfe", b"x" * (1 << 21) + b"y"])
def test_a_file_that_is_no_template_is_told(content: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "t.txt").write_bytes(content)
    assert main(["import", str(tmp_path / "t.txt")]) == 2
    assert "t.txt is" in capsys.readouterr().err
