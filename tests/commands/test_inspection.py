"""`inspect`: any step of a run, what it says of virtual tokens, and how it fails."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from ptune_core.__main__ import main
from ptune_core.adapters.format import load_adapter
from ptune_core.training.snapshots import Snapshots


@pytest.fixture(scope="module")
def reviews(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "reviews.csv"
    words = [("great", "pos"), ("bad", "neg")] * 12
    path.write_text(
        "\n".join(["text,label", *(f"film {i} was {word} ,{label}" for i, (word, label) in enumerate(words))])
    )
    return path


def train(out: Path, folder: Path, data: Path, *more: str) -> Path:
    options = {"base_model": folder, "data": data, "max_steps": 4, "eval_every": 2, "device": "cpu",
               "encoder_hidden_size": 16}  # fmt: skip
    given = [part for option, value in options.items() for part in ("--set", f"{option}={value}")]
    assert main(["train", "--out", str(out), *given, *(part for option in more for part in ("--set", option))]) == 0
    return out


@pytest.fixture(scope="module")
def run(tiny_gpt2: Path, reviews: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A short finished run with two groups of virtual tokens. Tests only read it."""
    return train(
        tmp_path_factory.mktemp("runs") / "run", tiny_gpt2, reviews, "template={text~} [P*2] so [P][ANSWER:label]"
    )


def inspected(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    capsys.readouterr()
    assert main(["inspect", *arguments, "--json"]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def test_every_evaluation_of_a_run_can_be_looked_at(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    snapshots = Snapshots(run)
    assert snapshots.steps == [0, 2, 4]
    for step in snapshots.steps:
        found = inspected(capsys, str(run), "--step", str(step), "--words", "2")
        norms = snapshots.load(step).norm(dim=1).tolist()
        assert found["step"] == step and [len(token["nearest"]) for token in found["tokens"]] == [2, 2, 2]
        assert [token["norm"] for token in found["tokens"]] == pytest.approx(norms, rel=1e-5)
    # It starts at words of the vocabulary.
    start = inspected(capsys, str(run), "--step", "0")
    assert [token["moved"] for token in start["tokens"]] == [0, 0, 0]
    assert [token["nearest"][0]["cosine"] for token in start["tokens"]] == pytest.approx([1, 1, 1], abs=1e-5)


def test_the_best_is_the_adapter(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    best = json.loads((run / "result.json").read_text())["best_step"]
    assert torch.equal(Snapshots(run).load(best), load_adapter(run / "adapter").prompt_embeddings)
    plain, asked = inspected(capsys, str(run)), inspected(capsys, str(run), "--best")
    assert plain == asked and plain["step"] == best


def test_length_movement_and_likeness_over_training(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = inspected(capsys, str(run), "--step", "4", "--over-training", "--similarity")
    first, *_, last = found["over_training"]
    assert first["step"] == 0 and first["moved"] == [0, 0, 0] and min(last["moved"]) > 0
    assert last["norm"] == pytest.approx([token["norm"] for token in found["tokens"]], rel=1e-5)
    assert last["moved"] == pytest.approx([token["moved"] for token in found["tokens"]], rel=1e-4)
    matrix = found["similarity"]
    assert [matrix[i][i] for i in range(3)] == pytest.approx([1, 1, 1], abs=1e-5)
    assert sum(matrix[i][j] for i in range(3) for j in range(3) if i != j) / 6 == pytest.approx(last["alike"], abs=1e-5)


def test_worth_is_measured_on_the_validation_split_of_the_run(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result = json.loads((run / "result.json").read_text())
    found = inspected(capsys, str(run), "--leave-out")["leave_out"]
    assert found["whole"]["value"] == pytest.approx(result["value"])
    assert found["whole"]["loss"] == pytest.approx(result["loss"], abs=1e-4)
    assert found["examples"] == result["validation_examples"]
    assert len(found["tokens"]) == 3 and len(found["groups"]) == 2
    evaluations = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    at_two = next(line for line in evaluations if line["kind"] == "eval" and line["step"] == 2)
    earlier = inspected(capsys, str(run), "--leave-out", "--step", "2")["leave_out"]
    assert earlier["whole"]["loss"] == pytest.approx(at_two["loss"], abs=1e-4)


def test_worth_on_a_file_with_the_adapter_alone(run: Path, reviews: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = inspected(capsys, str(run / "adapter.zip"), "--leave-out", "--data", str(reviews))
    assert found["leave_out"]["examples"] == 24 and found["step"] is None


def test_it_is_readable_without_json(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert main(["inspect", str(run), "--similarity", "--over-training", "--leave-out"]) == 0
    words, score, matrix, course, worth = capsys.readouterr().out.split("\n\n")
    assert score.startswith("accuracy ") and "; baseline: majority " in score and ", probe " in score
    assert "what this frozen model gives without virtual tokens" in score
    assert words.startswith("token") and len(matrix.splitlines()) == 4 and len(course.splitlines()) == 4
    assert [line.split()[0] for line in worth.splitlines()[1:7]] == [
        "nothing",
        "token",
        "token",
        "token",
        "group",
        "group",
    ]


def test_a_sweep_is_looked_at_trial_by_trial(
    tiny_gpt2: Path, reviews: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = train(tmp_path / "run", tiny_gpt2, reviews, "template={text~} [P*2][ANSWER:label]",
                "sweep={learning_rate: [0.001, 0.05]}", "max_steps=2")  # fmt: skip
    slow, fast = (inspected(capsys, str(out), "--trial", str(trial), "--step", "2") for trial in (1, 2))
    assert max(token["moved"] for token in slow["tokens"]) < min(token["moved"] for token in fast["tokens"])
    best = json.loads((out / "result.json").read_text())["trial"]
    assert inspected(capsys, str(out)) == inspected(capsys, str(out), "--trial", str(best + 1))
    assert main(["inspect", str(out), "--trial", "3"]) == 2 and "1 to 2" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["{run}", "--step", "3"], "Needed: 0, 2, 4"),
        (["{run}", "--trial", "1"], "no sweep"),
        (["{run}/adapter", "--step", "2"], "of one moment"),
        (["{run}/adapter", "--over-training"], "run directory"),
        (["{run}/adapter", "--leave-out"], "--data"),
        (["{run}", "--data", "x.csv"], "--leave-out"),
    ],
)
def test_what_cannot_be_shown_is_explained(
    run: Path, arguments: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    assert main(["inspect", *(part.format(run=run) for part in arguments)]) == 2
    output, errors = capsys.readouterr()
    assert output == "" and told in errors


def test_a_run_that_goes_on_is_looked_at_too(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Everything but what training writes at its end."""
    going = tmp_path / "run"
    going.mkdir()
    for name in ("run.json", "metrics.jsonl", "prompts", "data"):
        (going / name).symlink_to(run / name)
    capsys.readouterr()
    assert main(["inspect", str(going)]) == 2
    assert "with steps 0, 2, 4" in capsys.readouterr().err
    found, finished = inspected(capsys, str(going), "--best", "--leave-out"), inspected(capsys, str(run), "--leave-out")
    assert found["tokens"] == finished["tokens"]
    assert found["leave_out"]["whole"]["loss"] == pytest.approx(finished["leave_out"]["whole"]["loss"], abs=1e-4)


@pytest.mark.parametrize("template", ["{text~} [P*2][ANSWER:label]", "[P*2] {text~} [HEAD:label]"])
def test_worth_is_not_measured_with_weights_of_another_step(
    tiny_gpt2: Path, reviews: Path, tmp_path: Path, template: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """The prompt of an early step was measured with the base model as tuned up to the best one."""
    out = train(tmp_path / "run", tiny_gpt2, reviews, f"template={template}", "base_weights=tuned", "max_steps=2")
    result = json.loads((out / "result.json").read_text())
    other = next(step for step in (0, 2) if step != result["best_step"])
    assert main(["inspect", str(out), "--leave-out", "--step", str(other)]) == 2
    assert "was not kept" in capsys.readouterr().err
    whole = inspected(capsys, str(out), "--leave-out", "--step", str(result["best_step"]))["leave_out"]["whole"]
    assert whole["loss"] == pytest.approx(result["loss"], abs=1e-4)


@pytest.mark.parametrize("option", ["labels={}", "candidates=[great, bad]"])
def test_worth_of_a_prompt_that_fills_masks_with_text(
    tiny_bert_lm: Path, tmp_path: Path, option: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """The few different words of a file were taken for labels that the adapter does not have."""
    data = tmp_path / "data.csv"
    data.write_text("\n".join(["text,word", *(f"film {i} was,{'great' if i % 2 else 'bad'}" for i in range(24))]))
    out = train(tmp_path / "run", tiny_bert_lm, data, "template=[P*2] {text~} [MASK:word]", option)
    for source in (out, out / "adapter.zip"):
        found = inspected(capsys, str(source), "--leave-out", "--data", str(data))["leave_out"]
        assert found["examples"] == 24


def test_a_deep_prompt_is_seen_by_its_input_and_measured_with_its_layers(
    tiny_gpt2: Path, reviews: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    template = "template=[P*3] {text~}[ANSWER:label]"
    run = train(tmp_path / "run", tiny_gpt2, reviews, template, "prompt_depth=all", "learning_rate=0.1")
    found = inspected(capsys, str(run), "--step", "4", "--over-training", "--leave-out")
    assert len(found["tokens"]) == 3 and [len(moment["norm"]) for moment in found["over_training"]] == [3, 3, 3]
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    last = next(line for line in reversed(lines) if line["kind"] == "eval")
    assert found["leave_out"]["whole"]["loss"] == pytest.approx(last["loss"], rel=1e-4)
    deep = Snapshots(run).load_deep(4)
    assert deep is not None and deep.shape == (2, 3, 32) and deep.abs().max() > 0
