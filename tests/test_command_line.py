"""The command line: what it prints, what it leaves behind, and how it fails."""

from __future__ import annotations

import ast
import csv
import io
import json
import os
import re
import runpy
import shlex
import signal
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

from ptune_core.__main__ import build_parser, main
from ptune_core.commands.arguments import override_value, read_settings
from ptune_core.commands.train import stop_on_interrupt
from ptune_core.demo import DEMO_MODEL
from ptune_core.errors import SettingsError
from ptune_core.training.settings import RunSettings

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def reviews(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 rows of two classes that a word decides."""
    path = tmp_path_factory.mktemp("data") / "reviews.csv"
    words = [("great", "pos"), ("bad", "neg")] * 12
    rows = [f"film {number} was {word} ,{label}" for number, (word, label) in enumerate(words)]
    path.write_text("\n".join(["text,label", *rows]) + "\n")
    return path


@pytest.fixture(scope="module")
def run(tiny_gpt2: Path, reviews: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a short finished run. Tests only read it."""
    out = tmp_path_factory.mktemp("runs") / "run"
    options = {"base_model": tiny_gpt2, "data": reviews, "max_steps": 4, "eval_every": 2, "device": "cpu"}
    arguments = [part for option, value in options.items() for part in ("--set", f"{option}={value}")]
    assert main(["train", "--out", str(out), *arguments, "--set", "template={text~} [P*2][ANSWER:label]"]) == 0
    return out


def test_no_torch_is_loaded_until_it_is_needed() -> None:
    code = """if True:
        import contextlib, io, sys
        from ptune_core.__main__ import main
        with contextlib.redirect_stdout(io.StringIO()):
            main(["init-settings"]), main(["deploy", "--dry-run"])
            with contextlib.suppress(SystemExit): main(["--help"])
        assert "torch" not in sys.modules and "gradio" not in sys.modules
    """
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


def test_init_settings_is_read_back_unchanged(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["init-settings"]) == 0
    path = tmp_path / "settings.yaml"
    path.write_text(capsys.readouterr().out)
    assert read_settings(path, []) == RunSettings()
    options = set(re.findall(r"^(\w+):", path.read_text(), re.MULTILINE))
    assert options == set(RunSettings.model_fields)


@pytest.mark.parametrize(
    ("option", "text", "value"),
    [
        ("max_steps", "150", 150),
        ("learning_rate", "1e-3", 1e-3),
        ("epochs", "null", None),
        ("template", "[P*8] {text} [HEAD:label]", "[P*8] {text} [HEAD:label]"),  # broken YAML
        ("base_model", "1234567", "1234567"),  # a number as YAML
        ("revision", "", None),
        ("name", "no", "no"),  # false as YAML
        ("labels", "{bad: ' No', good: ' Yes'}", {"bad": " No", "good": " Yes"}),
        ("columns", "{text: headline}", {"text": "headline"}),
        ("device", "cpu", "cpu"),
    ],
)
def test_set_reads_each_kind_of_option(option: str, text: str, value: Any) -> None:
    settings = read_settings(None, [f"{option}={text}"])
    assert getattr(settings, option) == value


def test_set_wins_over_the_file(tmp_path: Path) -> None:
    path = tmp_path / "settings.yaml"
    path.write_text("max_steps: 7\nseed: 3\n")
    settings = read_settings(path, ["max_steps=9"])
    assert (settings.max_steps, settings.seed) == (9, 3)


def test_every_wrong_value_is_told_at_once(tmp_path: Path) -> None:
    with pytest.raises(SettingsError) as caught:
        read_settings(None, ["max_steps=many", "lerning_rate=1", "batch_size=0"])
    assert all(option in str(caught.value) for option in ("max_steps", "lerning_rate", "batch_size"))


def test_one_set_takes_several_options() -> None:
    arguments = build_parser().parse_args(
        ["train", "--out", "x", "--set", "seed=3", "labels={0: No}", "--set", "name=a"]
    )
    settings = read_settings(None, arguments.overrides)
    assert (settings.seed, settings.labels, settings.name) == (3, {"0": "No"}, "a")


def test_a_value_that_is_no_yaml_is_told() -> None:
    with pytest.raises(SettingsError, match="--set labels"):
        override_value("labels", "{a: ")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["train", "missing.yaml", "--out", "x"], "missing.yaml"),
        (["train", "--out", "x", "--set", "max_steps"], "OPTION=VALUE"),
        (["train", "--out", "x", "--set", "template=no target [P]"], "target"),
        (["deploy"], "--dry-run"),
        (["classify", "missing", "--input", "a.csv", "--output", "b.csv"], "missing"),
        (["export", "missing", "--out", "a.zip"], "missing"),
    ],
)
def test_an_error_is_a_message_and_not_a_traceback(
    arguments: list[str], told: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    output, errors = capsys.readouterr()
    assert output == ""
    assert errors.startswith("error: ") and told in errors and "Traceback" not in errors
    assert list(tmp_path.glob("*")) == []


def test_train_leaves_the_promised_files(run: Path) -> None:
    result = json.loads((run / "result.json").read_text())
    assert result["state"] == "finished" and result["metric"] == "accuracy" and result["steps"] == 4
    assert 0.0 <= result["value"] <= 1.0 and result["baseline_majority"] == 0.5
    assert result["baseline_zero_shot"] is not None and result["seconds"] > 0
    kinds = [json.loads(line)["kind"] for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert kinds.count("step") == 4 and kinds.count("eval") == 3
    names = set(zipfile.ZipFile(run / "adapter.zip").namelist())
    assert {"adapter_config.json", "adapter_model.safetensors"} <= names
    assert (run / "adapter" / "adapter_config.json").is_file()


def test_train_says_how_it_went(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = tmp_path / "settings.yaml"
    settings.write_text(json.dumps(json.loads((run / "run.json").read_text())["settings"]))
    assert main(["train", str(settings), "--out", str(tmp_path / "again")]) == 0
    output, errors = capsys.readouterr()
    assert re.search(r"^Using .*\b24\b.* rows", errors, re.MULTILINE)
    assert re.search(r"^step 4/4: validation loss [\d.]+, accuracy [\d.]+", errors, re.MULTILINE)
    assert output.startswith("finished after 4 steps")
    told = (
        r"^accuracy [\d.]+ \([\d.]+ to [\d.]+\) at step \d; baseline: majority 0.500, zero-shot [\d.]+, "
        r"\d+ examples in context [\d.]+, probe [\d.]+"
    )
    assert re.search(told, output, re.MULTILINE)
    assert f"adapter: {tmp_path / 'again' / 'adapter.zip'}" in output


def test_classify_adds_label_and_probabilities(run: Path, tmp_path: Path) -> None:
    source, target = tmp_path / "new.csv", tmp_path / "labelled.csv"
    source.write_text('id,text\n007,"the film was great , truly"\n008,NA\n')
    assert main(["classify", str(run / "adapter"), "--input", str(source), "--output", str(target)]) == 0
    rows = list(csv.DictReader(io.StringIO(target.read_text(encoding="utf-8"))))
    assert list(rows[0]) == ["id", "text", "label", "p_neg", "p_pos"]
    assert [(row["id"], row["text"]) for row in rows] == [("007", "the film was great , truly"), ("008", "NA")]
    for row in rows:
        shares = {label: float(row[f"p_{label}"]) for label in ("neg", "pos")}
        assert sum(shares.values()) == pytest.approx(1.0, abs=1e-4)
        assert row["label"] == max(shares, key=shares.__getitem__)


def test_a_run_directory_stands_for_its_adapter(run: Path, tmp_path: Path) -> None:
    assert main(["export", str(run), "--out", str(tmp_path / "a.zip")]) == 0
    assert main(["export", str(run / "adapter"), "--out", str(tmp_path / "b.zip")]) == 0
    assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "b.zip").read_bytes()
    assert (tmp_path / "a.zip").read_bytes() == (run / "adapter.zip").read_bytes()


def test_an_adapter_is_exported_in_another_form_or_refused(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["export", str(run), "--out", str(tmp_path / "a.zip"), "--format", "vocabulary"]) == 0
    with zipfile.ZipFile(tmp_path / "a.zip") as archive:
        assert json.loads(archive.read("adapter_config.json"))["peft_type"] == "TRAINABLE_TOKENS"
    assert main(["export", str(run), "--out", str(tmp_path / "b.zip"), "--format", "prefix"]) == 2
    assert "stands before everything else" in capsys.readouterr().err and not (tmp_path / "b.zip").exists()


def test_a_run_without_adapter_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "run.json").write_text("{}")
    assert main(["chat", str(tmp_path)]) == 2
    assert "has no adapter" in capsys.readouterr().err


def test_chat_names_the_labels_of_each_line(
    run: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The empty one in the middle once ended the inference process: alone, the base model had nothing to read."""
    monkeypatch.setattr(sys, "stdin", io.StringIO("film 1 was great\n\nfilm 2 was bad\n"))
    assert main(["chat", str(run), "--base"]) == 2
    output, errors = capsys.readouterr()
    assert "error: The text is empty" in errors
    assert len(output.splitlines()) == 4
    for answer, start in zip(output.splitlines(), ["", "base: "] * 2, strict=True):
        found = re.fullmatch(start + r"(pos|neg) ([\d.]+) · (pos|neg) ([\d.]+)", answer)
        assert found and float(found[2]) >= float(found[4]) and found[1] != found[3]


def test_chat_writes_on_from_each_line(
    tiny_gpt2: Path,
    reviews: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = tmp_path / "settings.yaml"
    settings = {
        "base_model": tiny_gpt2,
        "data": reviews,
        "template": "{label} [P*2] means:[ANSWER:text]",
        "max_steps": 1,
    }
    path.write_text(
        json.dumps({name: str(value) if isinstance(value, Path) else value for name, value in settings.items()})
    )
    assert main(["train", str(path), "--out", str(tmp_path / "run")]) == 0
    capsys.readouterr()
    monkeypatch.setattr(sys, "stdin", io.StringIO("neg\npos\n"))
    assert main(["chat", str(tmp_path / "run"), "--max-new-tokens", "5"]) == 0
    answers = capsys.readouterr().out
    assert answers.count("\n") >= 2 and answers.replace("\n", "")


def test_the_first_interrupt_asks_and_the_second_breaks_off() -> None:
    with stop_on_interrupt() as should_stop:
        assert not should_stop()
        os.kill(os.getpid(), signal.SIGINT)
        assert should_stop()
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_inspect_prints_a_line_for_each_virtual_token(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(run), "--words", "2"]) == 0
    heading, first, second, alike, *_ = capsys.readouterr().out.splitlines()
    assert heading.split()[:3] == ["token", "norm", "moved"] and alike.startswith("cosine between")
    assert [line.split()[0] for line in (first, second)] == ["1", "2"] and first.count(", ") == 1


def test_the_readme_names_only_real_commands() -> None:
    blocks = re.findall(r"```sh\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines() if line.startswith("python -m ptune_core ")]
    commands = {shlex.split(line, comments=True)[3] for line in lines}
    for line in lines:
        words = shlex.split(line.split(">")[0], comments=True)[3:]
        assert build_parser().parse_args(words).run
    assert commands == {
        "train",
        "check",
        "estimate",
        "alarms",
        "classify",
        "chat",
        "export",
        "inspect",
        "import",
        "recipe",
        "init-settings",
        "serve",
        "deploy",
    }


def test_the_readmes_python_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    app, own_loop, _ = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    assert '"max_steps": 60' in app and '"ptune_core/demo/model"' in own_loop
    (tmp_path / "app.py").write_text(app.replace('"max_steps": 60', '"max_steps": 2'))
    (tmp_path / "own_loop.py").write_text(own_loop.replace("ptune_core/demo/model", str(DEMO_MODEL)))
    monkeypatch.chdir(tmp_path)
    runpy.run_path(str(tmp_path / "own_loop.py"))
    assert len(ast.literal_eval(capsys.readouterr().out)) == 2
    assert (tmp_path / "my-adapter" / "adapter_model.safetensors").is_file()
    runpy.run_path(str(tmp_path / "app.py"))
    first, *answers = capsys.readouterr().out.splitlines()
    assert "after 2 steps" in first
    found = [ast.literal_eval(answer) for answer in answers]
    assert [(set(each), round(sum(each.values()), 4)) for each in found] == [({"negative", "positive"}, 1.0)] * 2


def test_ci_runs_the_line_that_the_readme_names() -> None:
    readme, ci = (ROOT / "README.md").read_text(encoding="utf-8"), (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    line = "bash .ci/test"
    assert f"```sh\n{line}\n```" in readme
    assert ci.rstrip().endswith(f"exec {line}")


def test_the_readme_points_at_files_that_are_there() -> None:
    places = re.findall(r"\]\(([^)]+)\)", (ROOT / "README.md").read_text(encoding="utf-8"))
    missing = [place for place in places if not place.startswith("https://") and not (ROOT / place).is_file()]
    assert len(places) > 5 and missing == []


def test_the_readme_maps_the_whole_house() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    parts = {path.name for path in (ROOT / "ptune_core").iterdir() if not path.name.startswith("_")} | {"__main__.py"}
    mapped = set(re.findall(r"^  ([\w.]+?)/? {2,}\S", readme, re.MULTILINE))
    assert mapped == parts


@pytest.mark.parametrize("inside", ["", "/run"])
def test_an_out_folder_that_cannot_be_made_is_explained(
    reviews: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], inside: str
) -> None:
    taken = tmp_path / "taken"
    taken.touch()
    assert main(["train", "--out", f"{taken}{inside}", "--set", f"data={reviews}"]) == 2
    assert f"error: {taken}{inside} cannot be read or written. Got: " in capsys.readouterr().err


def test_results_that_cannot_be_written_are_explained(
    run: Path, reviews: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    taken = tmp_path / "taken"
    taken.touch()
    assert main(["export", str(run), "--out", f"{taken}/adapter.zip"]) == 2
    assert main(["classify", str(run), "--input", str(reviews), "--output", f"{taken}/labelled.csv"]) == 2
    assert capsys.readouterr().err.count("cannot be written. Got: Not a directory") == 2
