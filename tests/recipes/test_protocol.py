"""A recipe from a folder of rows to its table, on a tiny model: what runs, what is repeated, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from ptune_core.__main__ import main
from ptune_core.errors import DataError, RunError, SettingsError
from ptune_core.recipes import protocol
from ptune_core.recipes.protocol import Failure, Options, Result, run_recipe
from ptune_core.recipes.recipe import load_recipe, parse_recipe, recipe_names
from ptune_core.recipes.report import as_text, as_values

SMALL = {"max_steps": 2, "eval_every": 1, "encoder_hidden_size": 8, "device": "cpu", "precision": "fp32"}


def write(path: Path, rows: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


@pytest.fixture
def copa(tmp_path: Path) -> Path:
    """COPA in FewGLUE's form."""
    folder = tmp_path / "data"
    rows = [
        {"premise": f"dog {i} ran.", "choice1": "It was great.", "choice2": "The food was bad.", "question": "cause",
         "label": i % 2, "idx": i}
        for i in range(6)
    ]  # fmt: skip
    for name, count in (("train", 6), ("dev32", 4), ("val", 5)):
        write(folder / "COPA" / f"{name}.jsonl", rows[:count])
    return folder


@pytest.fixture
def lama(tmp_path: Path) -> Path:
    """Two relations of LAMA; the objects of the second are not one token of the tiny model."""
    folder = tmp_path / "lama"
    words = ["great", "film", "good"]
    write(folder / "facts" / "P17.jsonl", [{"sub_label": f"dog {i}", "obj_label": words[i % 3]} for i in range(20)])
    write(folder / "facts" / "P19.jsonl", [{"sub_label": f"dog {i}", "obj_label": "Zanzibar"} for i in range(20)])
    write(folder / "LAMA_relations.jsonl", [{"relation": "P17", "template": "[X] was a [Y] ."}])
    (folder / "common_vocabs").mkdir()
    (folder / "common_vocabs" / "common_vocab_cased.txt").write_text("great\nfilm\nZanzibar\n", encoding="utf-8")
    return folder


def outcomes(name: str, options: Options) -> list[Result | Failure]:
    return list(run_recipe(load_recipe(name), options, lambda line: None))


def changes(base: Path, more: Mapping[str, Any] | None = None) -> dict[str, Any]:
    return {**SMALL, "base_model": str(base), **(more or {})}


def test_choices_with_two_seeds_and_what_is_done_stays_done(
    copa: Path, tiny_gpt2: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = Options(tmp_path / "out", str(copa), changes(tiny_gpt2), seeds=(1, 2), only=("COPA",))
    found = outcomes("fewglue", options)
    assert [(result.part, result.seed) for result in found] == [("COPA", 1), ("COPA", 2)]
    first = found[0]
    assert isinstance(first, Result)
    assert (first.train_rows, first.test_rows, first.majority) == (12, 5, {"accuracy": 0.6})
    assert first.zero_shot is not None and first.manual is None

    monkeypatch.setattr(protocol, "train_here", None)
    assert outcomes("fewglue", options) == found, "nothing is trained again"
    values = as_values(load_recipe("fewglue"), found)
    tuned = [result.tuned["accuracy"] for result in found if isinstance(result, Result)]
    assert values["parts"][0]["tuned"] == pytest.approx(sum(tuned) / 2)
    text = as_text(load_recipe("fewglue"), found)
    assert "±" in text and "0.600" in text and "chance" in text and "base model frozen" in text


def test_a_tuned_base_model_is_told_and_is_no_baseline(copa: Path, tiny_gpt2: Path, tmp_path: Path) -> None:
    tuned = {"base_weights": "tuned", "base_learning_rate": 0.01, "max_steps": 6}
    found = [
        outcomes("fewglue", Options(tmp_path / name, str(copa), changes(tiny_gpt2, more), seeds=(1,), only=("COPA",)))
        for name, more in (("frozen", {}), ("tuned", tuned))
    ]
    (frozen,), (result,) = found
    assert isinstance(frozen, Result) and isinstance(result, Result)
    assert (frozen.base_weights, result.base_weights) == ("frozen", "tuned")
    assert result.zero_shot == frozen.zero_shot
    assert "base model tuned" in as_text(load_recipe("fewglue"), [result])


def test_a_vocabulary_restricts_what_is_predicted(lama: Path, tiny_gpt2: Path, tmp_path: Path) -> None:
    options = Options(tmp_path / "out", str(lama), changes(tiny_gpt2), only=("P17", "P19"))
    found, failed = outcomes("lama", options)
    assert isinstance(found, Result) and set(found.tuned) == {"P@1"}
    assert found.manual is not None and found.zero_shot is not None
    assert found.test_rows < found.all_test_rows == 4, "'good' is not in the vocabulary"
    assert isinstance(failed, Failure) and "answer among the candidates" in failed.reason
    text = as_text(load_recipe("lama"), [found, failed])
    assert "P19, seed 34: no result" in text and "could not be used" in text


def test_what_was_stopped_goes_on(copa: Path, tiny_gpt2: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = Options(tmp_path / "out", str(copa), changes(tiny_gpt2), seeds=(1, 2), only=("COPA",))
    whole = protocol.train_here
    with monkeypatch.context() as patched:
        patched.setattr(protocol, "train_here", lambda *given: whole(*given, should_stop=lambda: True))
        with pytest.raises(RunError, match="COPA with seed 1 was stopped"):
            outcomes("fewglue", options)
    assert len([found for found in outcomes("fewglue", options) if isinstance(found, Result)]) == 2


def test_a_masked_model_has_templates_of_its_own(lama: Path, tiny_bert_lm: Path, tmp_path: Path) -> None:
    options = Options(tmp_path / "out", str(lama), changes(tiny_bert_lm), only=("P17",))
    [found] = outcomes("lama", options)
    assert isinstance(found, Result) and found.manual is not None
    stored = json.loads((tmp_path / "out" / "P17" / "seed-34" / "run.json").read_bytes())
    assert stored["settings"]["template"] == "[P*3] {sub_label} [P*3] [MASK:obj_label] [P*3]"
    with pytest.raises(SettingsError, match="WSC has no template for a masked"):
        load_recipe("fewglue").settings("WSC", {}, masked=True)


def test_text_is_generated_and_compared(tiny_gpt2: Path, tmp_path: Path) -> None:
    target = {"span2_index": 3, "span1_index": 1, "span1_text": "dog", "span2_text": "it"}
    rows = [{"text": f"the dog liked it {i} .", "target": target, "label": i % 2 == 0} for i in range(6)]
    for name in ("train", "dev32", "val"):
        write(tmp_path / "data" / "WSC" / f"{name}.jsonl", rows)
    options = Options(
        tmp_path / "out", str(tmp_path / "data"), changes(tiny_gpt2, {"max_new_tokens": 2}), seeds=(1,), only=("WSC",)
    )
    [found] = outcomes("fewglue", options)
    assert isinstance(found, Result) and (found.train_rows, found.test_rows) == (3, 6)
    assert found.majority == {"accuracy": 0.5}


def test_the_command_prints_a_table_and_refuses_to_mix(
    copa: Path, tiny_gpt2: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = ["--data", str(copa), "--out", str(tmp_path / "out"), "--base-model", str(tiny_gpt2)]
    own = ["--set", *(f"{option}={value}" for option, value in SMALL.items())]
    command = ["recipe", "fewglue", *place, "--only", "COPA", "--seeds", "5", "--limit", "4"]
    assert main([*command, *own]) == 0
    assert "COPA  accuracy" in capsys.readouterr().out
    kept = json.loads((tmp_path / "out" / "results.json").read_bytes())
    assert kept["runs"][0]["test_rows"] == 4 and kept["training"][0].startswith("base model frozen")
    assert main([*command, *own, "max_steps=3"]) == 2
    assert "another recipe, other data or other options" in capsys.readouterr().err


def test_every_recipe_is_valid(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["recipe", "--list"]) == 0
    listed = capsys.readouterr().out
    for name in recipe_names():
        recipe = load_recipe(name)
        assert name in listed
        for part in recipe.parts:
            assert recipe.settings(part, {}).parsed_template.num_virtual_tokens > 0
    assert len(load_recipe("lama").parts) == 41


def test_what_is_wrong_is_told(copa: Path, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="no such recipe"):
        load_recipe("glue")
    with pytest.raises(SettingsError, match="no such part"):
        outcomes("fewglue", Options(tmp_path / "a", str(copa), only=("XYZ",)))
    with pytest.raises(DataError, match="BoolQ/train.jsonl"):
        outcomes("fewglue", Options(tmp_path / "b", str(copa), only=("BoolQ",)))
    with pytest.raises(SettingsError, match="not on the Hub"):
        outcomes("lama", Options(tmp_path / "c", "hub", only=("P17",)))
    with pytest.raises(SettingsError, match="names what is not there"):
        parse_recipe("x", "about: a\nneeds: b\nseeds: [0]\nparts: {a: {rows: no, score: accuracy}}")


@pytest.mark.parametrize("line", ["P17 [X] [Y]", '{"relation": "P17"}', "[1]"])
def test_prompts_that_cannot_be_read_are_told(lama: Path, tiny_gpt2: Path, tmp_path: Path, line: str) -> None:
    """They ended in a JSONDecodeError, KeyError or TypeError after the training."""
    (lama / "LAMA_relations.jsonl").write_text(line + "\n", encoding="utf-8")
    with pytest.raises(DataError, match="LAMA_relations.jsonl cannot be read"):
        outcomes("lama", Options(tmp_path / "out", str(lama), changes(tiny_gpt2), seeds=(0,), only=("P17",)))


def test_a_limit_that_leaves_nothing_is_refused(copa: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """-1 ended in a ValueError."""
    for limit in ("0", "-1"):
        asked = ["recipe", "fewglue", "--data", str(copa), "--out", str(tmp_path / "out"), "--limit", limit]
        assert main(asked) == 2 and "at least 1" in capsys.readouterr().err


def test_another_recipe_needs_another_folder(copa: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "recipe.json").write_text('{"recipe": "lama"}')
    with pytest.raises(RunError, match="Choose another --out"):
        outcomes("fewglue", Options(tmp_path / "out", str(copa)))
