"""The folder and the zip that a person takes home, and the script in it, run as that person would."""

from __future__ import annotations

import ast
import json
import os
import re
import runpy
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml

import ptune_core
from ptune_core.adapters import ptune_loader
from ptune_core.adapters.card import model_card, numbers
from ptune_core.adapters.export import export_adapter, export_zip
from ptune_core.adapters.format import load_adapter
from ptune_core.adapters.names import EXPORTED
from ptune_core.adapters.snippet import snippet
from ptune_core.demo import DEMO, DEMO_MODEL
from ptune_core.errors import AdapterError
from ptune_core.model.trained import TrainedPrompt

# PEFT 0.21.2 asks transformers 5 for attributes by their old names.
pytestmark = pytest.mark.filterwarnings("ignore:.*is deprecated and will be removed in v6:FutureWarning")

ROW = {"text": 'the film wasn\'t "great"'}


def run_snippet(
    directory: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, row: str = json.dumps(ROW)
) -> str:
    """Run `snippet.py` as a script and return what it prints."""
    monkeypatch.setattr(sys, "argv", ["snippet.py", row])
    monkeypatch.syspath_prepend(str(directory))
    monkeypatch.delitem(sys.modules, "ptune_loader", raising=False)
    capsys.readouterr()
    runpy.run_path(str(directory / "snippet.py"), run_name="__main__")
    monkeypatch.delitem(sys.modules, "ptune_loader")
    return capsys.readouterr().out


def probabilities(printed: str) -> dict[str, float]:
    return {label: float(number) for label, number in (line.split("\t") for line in printed.splitlines())}


def test_the_zip_holds_the_whole_adapter_and_nothing_else(make_trained, tmp_path) -> None:
    trained = make_trained("some/model")
    export_adapter(trained, tmp_path / "adapter", tmp_path / "adapter.zip")
    (tmp_path / "adapter" / "private.txt").write_text("not to be shared")
    export_zip(tmp_path / "adapter", tmp_path / "adapter.zip")
    with zipfile.ZipFile(tmp_path / "adapter.zip") as archive:
        assert archive.namelist() == list(EXPORTED)
        assert archive.testzip() is None
    assert torch.equal(load_adapter(tmp_path / "adapter.zip").prompt_embeddings, trained.prompt_embeddings)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["adapter", "adapter.zip"]


def test_the_same_adapter_gives_the_same_bytes(make_trained, tmp_path, monkeypatch) -> None:
    contents = []
    for name, zone in (("a", "UTC"), ("b", "Asia/Tokyo")):
        monkeypatch.setenv("TZ", zone)
        time.tzset()
        export_adapter(make_trained("some/model"), tmp_path / name / "adapter", tmp_path / name / "adapter.zip")
        contents.append((tmp_path / name / "adapter.zip").read_bytes())
    monkeypatch.undo()
    time.tzset()
    assert contents[0] == contents[1]


def test_a_later_adapter_replaces_the_whole_folder(make_trained, tmp_path) -> None:
    directory, archive = tmp_path / "adapter", tmp_path / "adapter.zip"
    export_adapter(make_trained("some/model"), directory, archive)
    later = make_trained("some/model", "{text} [P*2][ANSWER:label]", encoder_state={})
    export_adapter(later, directory, archive)
    assert load_adapter(directory).template == load_adapter(archive).template == later.template
    assert not (directory / "prompt_encoder.safetensors").exists()
    broken = replace(later, prompt_embeddings=torch.full((2, 32), float("nan")))
    with pytest.raises(AdapterError):
        export_adapter(broken, directory, archive)
    assert load_adapter(directory).template == load_adapter(archive).template == later.template
    assert sorted(path.name for path in tmp_path.iterdir()) == ["adapter", "adapter.zip"]


@pytest.mark.parametrize("encoder", ["MLP", "LSTM"])
@pytest.mark.parametrize(
    ("base", "template", "head_name"),
    [
        ("tiny_gpt2", "[P*4] Review: {text|strip}[ANSWER:label]", None),
        ("tiny_llama", "[P*4] {text~} [EOS] It was[ANSWER:label]", None),
        ("tiny_gpt2", "[P*4] {text} [HEAD:label]", "score"),
        ("tiny_bert", "[P*4] {text} [HEAD:label]", "classifier"),
    ],
)
def test_the_script_says_by_stock_peft_what_ptune_says(
    base, template, head_name, encoder, make_trained, tmp_path, request, capsys, monkeypatch
) -> None:
    answers = {"it's": " no", 'a "quoted" {label}\\': " yes"}
    folder = request.getfixturevalue(base)
    trained = make_trained(folder, template, encoder=encoder, head_name=head_name, answers=answers)
    export_adapter(trained, tmp_path, tmp_path / "adapter.zip")
    assert "from peft import PeftModel" in (tmp_path / "snippet.py").read_text()
    printed = probabilities(run_snippet(tmp_path, capsys, monkeypatch))
    # test_ptune_loader.py holds the loader to PromptedModel.
    assert printed == pytest.approx(ptune_loader.Adapter(tmp_path).classify(ROW), abs=1e-4)
    assert tuple(printed) == trained.labels


@pytest.mark.parametrize("base", ["tiny_t5", "tiny_bart", "tiny_bert_lm"])
@pytest.mark.parametrize("answers", [{"n": "bad", "p": "great"}, {}])
@pytest.mark.parametrize("place", ["[P*4] {text}", "{text} [P*4]"])
def test_the_script_of_other_kinds_says_the_same(
    base, answers, place, make_trained, tmp_path, capsys, monkeypatch, request
) -> None:
    target, task_type = ("[MASK:label]", None) if base == "tiny_bert_lm" else ("[ANSWER:label]", "SEQ_2_SEQ_LM")
    folder = request.getfixturevalue(base)
    settings = {"max_new_tokens": 9}
    trained = make_trained(folder, f"{place} {target}", answers=answers, task_type=task_type, settings=settings)
    export_adapter(trained, tmp_path, tmp_path / "adapter.zip")
    alone = ptune_loader.Adapter(tmp_path)
    printed = run_snippet(tmp_path, capsys, monkeypatch)
    if answers:
        assert probabilities(printed) == pytest.approx(alone.classify(ROW), abs=1e-4)
    else:
        assert printed == alone.generate(ROW, max_new_tokens=9) + "\n"


@pytest.mark.filterwarnings("ignore:Position ids are not supported:UserWarning")
@pytest.mark.parametrize("template", ["[P*4] {text}[ANSWER:label]", "{text} [P*4][ANSWER:label]"])
def test_the_script_writes_text(template, tiny_llama, make_trained, tmp_path, capsys, monkeypatch) -> None:
    trained = make_trained(tiny_llama, template, answers={}, settings={"max_new_tokens": 11})
    export_adapter(trained, tmp_path, tmp_path / "adapter.zip")
    expected = ptune_loader.Adapter(tmp_path).generate(ROW, max_new_tokens=11)
    assert expected
    assert run_snippet(tmp_path, capsys, monkeypatch) == expected + "\n"


def test_the_script_of_another_placement_runs_in_a_fresh_process_without_ptune(
    tiny_gpt2, make_trained, tmp_path
) -> None:
    trained = make_trained(tiny_gpt2, "{text} [P*4][ANSWER:label]")
    export_adapter(trained, tmp_path / "adapter", tmp_path / "adapter.zip")
    with zipfile.ZipFile(tmp_path / "adapter.zip") as archive:
        archive.extractall(tmp_path / "home")
    code = "import sys; sys.modules.update(ptune_core=None, peft=None); import runpy; runpy.run_path('snippet.py')"
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, "-c", code, json.dumps(ROW)], cwd=tmp_path / "home", env=environment, capture_output=True,
        text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    expected = ptune_loader.Adapter(tmp_path / "adapter").classify(ROW)
    assert probabilities(done.stdout) == pytest.approx(expected, abs=1e-4)


@pytest.fixture
def run_alone(alone: Callable[..., tuple[int, str, str]]) -> Callable[..., tuple[int, str, str]]:
    """Runs the script of an unzipped adapter as its reader would; exit code, output, errors."""

    def run(folder: Path, *arguments: object, cwd: Path, path: Sequence[Path] = ()) -> tuple[int, str, str]:
        argv = [str(folder / "snippet.py"), json.dumps(ROW), *map(str, arguments)]
        start = f"import runpy, sys\nsys.argv = {argv!r}\nsys.path[0] = {str(folder)!r}"
        code = f"{start}\nrunpy.run_path({argv[0]!r}, run_name='__main__')"
        return alone(code, cwd, *path)

    return run


def unzipped(trained: TrainedPrompt, place: Path) -> Path:
    export_adapter(trained, place / "run" / "adapter", place / "run" / "adapter.zip")
    with zipfile.ZipFile(place / "run" / "adapter.zip") as archive:
        archive.extractall(place / "home")
    return place / "home"


@pytest.mark.parametrize("template", ["[P*4] {text} [ANSWER:label]", "{text} [P*4][ANSWER:label]"])
def test_the_script_finds_the_demo_model_from_the_unzipped_folder(template, make_trained, tmp_path, run_alone) -> None:
    """Bug: the script named the demo model by a folder of PTune's clone, and ran nowhere else."""
    folder = unzipped(make_trained(DEMO, template, hidden=256), tmp_path)
    clone = Path(ptune_core.__file__).parents[1]
    expected = ptune_loader.Adapter(folder, DEMO_MODEL).classify(ROW)
    for found in (
        run_alone(folder, cwd=folder, path=[clone]),
        run_alone(folder, cwd=clone),
        run_alone(folder, DEMO_MODEL, cwd=tmp_path),
    ):
        assert found[0] == 0, found[2]
        assert probabilities(found[1]) == pytest.approx(expected, abs=1e-4)


def test_the_script_says_which_base_model_it_lacks(make_trained, tmp_path, run_alone) -> None:
    cases = [(DEMO, "ptune_core/demo/model in a clone"), ("./models/mine", "the model it was trained on, mine")]
    for number, (base, needed) in enumerate(cases):
        folder = unzipped(make_trained(base, "{text} [P*4][ANSWER:label]"), tmp_path / str(number))
        for arguments in ((), (tmp_path / "nowhere",)):
            code, _, errors = run_alone(folder, *arguments, cwd=tmp_path)
            assert code == 1 and needed in errors and "python snippet.py ROW FOLDER" in errors
            assert "Traceback" not in errors and (not arguments or str(arguments[0]) in errors)


def test_the_script_takes_a_text_or_says_which_row_it_needs(
    tiny_gpt2, make_trained, tmp_path, capsys, monkeypatch
) -> None:
    """Bug: a text that was no JSON object ended in a traceback of the JSON parser."""
    folder = unzipped(make_trained(tiny_gpt2, "{text} [P*4][ANSWER:label]"), tmp_path / "one")
    for row, text in (("a fine film", "a fine film"), ("1984", "1984"), ('{"text": "{"}', "{")):
        printed = run_snippet(folder, capsys, monkeypatch, row)
        assert probabilities(printed) == pytest.approx(ptune_loader.Adapter(folder).classify({"text": text}), abs=1e-4)
    with pytest.raises(SystemExit, match="a JSON object with text."):
        run_snippet(folder, capsys, monkeypatch, '{"title": "a fine film"}')

    folder = unzipped(make_trained(tiny_gpt2, "{title} {body} [P*4][ANSWER:label]"), tmp_path / "two")
    for row in ("a fine film", '["a", "b"]', '{"title": "a"}'):
        with pytest.raises(SystemExit, match=f"Got: {re.escape(row)}. Needed: a JSON object with title, body."):
            run_snippet(folder, capsys, monkeypatch, row)


def test_a_base_model_in_a_relative_folder_is_found_from_elsewhere(
    tiny_gpt2, make_trained, tmp_path, monkeypatch
) -> None:
    """Bug: the adapter named it as it was typed, and the card showed `models/mine` as a model of the Hub."""
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "mine").symlink_to(tiny_gpt2)
    monkeypatch.chdir(tmp_path)
    folder = unzipped(make_trained("models/mine"), tmp_path)
    monkeypatch.chdir("/")
    place = str(tmp_path / "models" / "mine")
    assert load_adapter(folder).base_model == place
    assert json.loads((folder / "adapter_config.json").read_text())["base_model_name_or_path"] == place
    assert "huggingface.co/models/mine" not in (folder / "README.md").read_text()
    assert ptune_loader.Adapter(folder).classify(ROW)
    assert f"else {place!r}" in (folder / "snippet.py").read_text()


@pytest.mark.parametrize("template", ["[P*4] {text} [ANSWER:label]", "{text} [P*4][ANSWER:label]"])
def test_the_script_loads_a_base_model_of_the_hub_at_its_revision(template, tiny_gpt2, make_trained, tmp_path) -> None:
    """Bug: where PEFT cannot place the virtual tokens, the script gave the loader an argument that it has not."""
    commit = "607a30d783dfa663caf39e06633721c8d4cfcd7e"
    snapshots = tmp_path / "hub" / "models--some--model" / "snapshots"
    snapshots.mkdir(parents=True)
    (snapshots / commit).symlink_to(tiny_gpt2)
    folder = unzipped(make_trained("some/model", template, revision=commit), tmp_path)
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment |= {"HF_HUB_CACHE": str(tmp_path / "hub"), "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, str(folder / "snippet.py"), json.dumps(ROW)]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert probabilities(done.stdout) == pytest.approx(ptune_loader.Adapter(folder, tiny_gpt2).classify(ROW), abs=1e-4)


def test_a_base_model_of_the_hub_is_not_mistaken_for_a_folder(make_trained, tmp_path, monkeypatch) -> None:
    (tmp_path / "some" / "model").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    folder = unzipped(make_trained("some/model", revision="607a30d"), tmp_path)
    assert load_adapter(folder).base_model == "some/model"
    assert "\nBASE_MODEL = 'some/model'\n" in (folder / "snippet.py").read_text()


@pytest.mark.parametrize("template", ["[P*4] {text}[ANSWER:label]", "{text} [P*4][ANSWER:label]"])
def test_nothing_a_person_wrote_can_become_code_of_the_script(template, make_trained) -> None:
    evil = "x\"''' + __import__('os').system('true') + \\ {0} \n\"\"\""
    answers = {evil: " a", "b": " " + evil}
    trained = make_trained(evil.replace("\n", ""), template, answers=answers, settings={"name": evil})
    trained = replace(trained, template=template.replace("{text}", "{a'\"\\b}"), columns={})
    calls = [node for node in ast.walk(ast.parse(snippet(trained))) if isinstance(node, ast.Call)]
    assert "__import__" not in {call.func.id for call in calls if isinstance(call.func, ast.Name)}


@pytest.mark.parametrize("template", ["[P*4] {text}[ANSWER:label]", "{text} [P*4][ANSWER:label]"])
def test_nothing_in_a_strangers_adapter_can_become_code_of_the_script(template, make_trained) -> None:
    """Bug: max_new_tokens of ptune.json was written into the script as it stood there."""
    trained = make_trained("some/model", template, answers={}, settings={"max_new_tokens": "__import__('os')"})
    assert "__import__" not in snippet(trained)
    assert "max_new_tokens=64" in snippet(trained)


def test_the_card_tells_the_numbers_and_what_the_hub_reads(make_trained) -> None:
    trained = make_trained("openai-community/gpt2", revision="607a30d")
    card = model_card(trained)
    _, front, body = card.split("---\n", 2)
    matter = yaml.safe_load(front)
    assert matter["base_model"] == "openai-community/gpt2"
    assert (matter["library_name"], matter["pipeline_tag"]) == ("peft", "text-classification")
    assert set(matter["tags"]) >= {"p-tuning", "ptune"}
    numbers = ("0.910", "0.880 to 0.940", "0.520", "0.510", "Using 312 of 320 rows")
    assert [shown for shown in ("# My run", *numbers, "607a30d", '" great"') if shown not in body] == []
    other = model_card(make_trained("openai-community/gpt2", "{text} [P*4][ANSWER:label]", answers={}))
    assert yaml.safe_load(other.split("---\n")[1])["library_name"] == "ptune"
    assert "PEFT cannot express" in other


def test_the_card_of_a_folder_does_not_show_where_it_was(make_trained) -> None:
    for base in ("/home/somebody/models/my-model", "./my-model"):
        card = model_card(make_trained(base))
        assert "my-model" in card
        assert "somebody" not in card
        assert "base_model" not in yaml.safe_load(card.split("---\n")[1])


def test_what_people_write_stays_text_in_the_card(make_trained) -> None:
    evil = "# </td><script>alert(1)</script> | [x](http://evil) `\n---\nlicense: evil"
    # Bug: all but `data` stood in the card as they were, and an interval that was none ended the export.
    metrics = dict.fromkeys(("data", "value", "metric", "interval", "steps", "best_step", "macro_f1"), evil)
    trained = make_trained("some/model", answers={evil: " a", "b": evil}, settings={"name": evil}, metrics=metrics)
    card = model_card(trained)
    assert yaml.safe_load(card.split("---\n")[1]).keys() >= {"base_model"}
    assert "license" not in yaml.safe_load(card.split("---\n")[1])
    title = next(line for line in card.splitlines() if line.startswith("# "))
    assert "\\<script\\>" in title
    assert "\\[x\\]" in title
    assert "\n---\nlicense" not in card
    assert "\n<script>" not in card


def test_the_card_has_the_probe_with_its_interval_and_says_when_nothing_was_added() -> None:
    head = {"head_input": "mean", "why": "measured", "accuracies": {"model": 0.44, "mean": 0.63}, "rows": 2000}
    metrics = {
        "value": 0.64, "metric": "accuracy", "interval": [0.62, 0.66], "best_step": 0, "steps": 200, "head": head,
        "baseline_majority": 0.05, "baseline_zero_shot": None, "baseline_probe": 0.63, "probe_interval": [0.6, 0.66],
        "probe_train_rows": 900, "evaluation_share": 0.18,
    }  # fmt: skip
    said = numbers(metrics)
    assert "900 training rows | 0.630 (95 % interval 0.600 to 0.660) |" in said and "same template" not in said
    assert "**The virtual tokens added nothing here**" in said and "Evaluations took 18% of the time." in said
    assert "measured on 2,000 rows: mean 0.63, model 0.44." in said
    assert "added nothing" not in numbers(metrics | {"best_step": 10})
