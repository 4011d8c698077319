"""The adapters of a page: who sees which, those people bring, and the present state of a run."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest

from ptune_core.app.adapter_view import Origin, without_front_matter
from ptune_core.app.adapters import NEWEST, Adapters, Owners
from ptune_core.app.downloads import content_of, downloads_of
from ptune_core.errors import AdapterError, RunError, SettingsError
from ptune_core.inference.client import InferenceClient
from ptune_core.inference.protocol import Usage
from ptune_core.runs.directory import RunDirectory
from ptune_core.runs.run import Run
from ptune_core.runs.states import RunState
from ptune_core.training import newest
from ptune_core.training.settings import RunSettings
from ptune_core.ui.bringing import answers_text, parse_answers

SIDECAR = {
    "template": "[P*2] {text} [ANSWER:label]", "verbalizer": {"a": " x", "b": " y"}, "labels": ["a", "b"],
    "base_model": "me/model", "columns": {"text": "review"}, "metrics": {"steps": 7},
    "segments": [{"kind": "virtual_tokens", "group": 0, "count": 2, "first_row": 0}],
}  # fmt: skip


class Inference:
    """Writes what it is given to take in as an adapter; says what base model it names."""

    def __init__(self) -> None:
        self.base_model, self.usages, self.problem = "me/model", list[Usage](), ""

    def take_in(self, adapter: Path, out: Path, usage: Usage) -> dict[str, Any]:
        if self.problem:
            raise AdapterError("It cannot be used", got=self.problem)
        self.usages.append(usage)
        write_adapter(out)
        return {"base_model": self.base_model, "base_weights": "frozen"}


def write_adapter(out: Path, **changed: Any) -> None:
    shutil.rmtree(out / "adapter", ignore_errors=True)
    (out / "adapter").mkdir(parents=True)
    (out / "adapter" / "ptune.json").write_text(json.dumps(SIDECAR | changed))
    (out / "adapter" / "snippet.py").write_text("print()")
    (out / "adapter.zip").write_bytes(b"PK")


def make_run(tmp_path: Path, id: str, owner: str, state: RunState = RunState.FINISHED, **settings: Any) -> Run:
    path = tmp_path / "runs" / id
    path.mkdir(parents=True)
    directory = RunDirectory(path)
    directory.create({"id": id, "name": f"run {id}", "settings": {}})
    if state is RunState.RUNNING:
        directory.record("started")
    else:
        write_adapter(path)
        directory.write_result({"state": state, "value": 0.9})
    text = RunSettings(**settings).model_dump_json()
    return Run(id, f"run {id}", state, path, owner, 1.0, None, None, 1, "", text)


@pytest.fixture
def inference() -> Inference:
    return Inference()


@pytest.fixture
def make(tmp_path: Path, inference: Inference) -> Callable[..., Adapters]:
    def make(runs: list[Run] | None = None, *, shared: bool = True, **options: Any) -> Adapters:
        runs = runs or []

        def find(id: str, viewer: str) -> Run:
            found = next((run for run in runs if run.id == id and (not shared or run.owner == viewer)), None)
            if found is None:
                raise RunError("There is no such run")
            return found

        owners = Owners(find, lambda viewer: [run for run in runs if run.owner == viewer or not shared], str, shared)
        return Adapters(owners, cast(InferenceClient, inference), tmp_path / "adapters", **options)

    return make


@pytest.fixture
def zip_file(tmp_path: Path) -> Path:
    (tmp_path / "mine.zip").write_bytes(b"PK")
    return tmp_path / "mine.zip"


def test_what_was_brought_is_the_viewers_alone(make: Any, zip_file: Path) -> None:
    adapters = make()
    id = adapters.bring([zip_file], "me", Usage())
    assert [found for _, found in adapters.choices("me")] == [id] and adapters.choices("you") == []
    view = adapters.view(id, "me")
    assert (view.name, view.origin, view.labels, view.num_virtual_tokens) == ("mine", Origin.IMPORTED, ("a", "b"), 2)
    for refused in (adapters.view, adapters.locate, adapters.remove):
        with pytest.raises(RunError, match="no such adapter"):
            refused(id, "you")
    with pytest.raises(RunError):
        adapters.use_as(id, "you", Usage())
    adapters.remove(id, "me")
    assert adapters.choices("me") == [] and make(shared=False).choices("me") == []


def test_a_shared_page_keeps_them_for_a_week(make: Any, zip_file: Path, tmp_path: Path) -> None:
    ids = {shared: make(shared=shared).bring([zip_file], "me", Usage()) for shared in (True, False)}
    for id in ids.values():
        os.utime(tmp_path / "adapters" / id, (0, 0))
    newest_id = make(shared=False).bring([zip_file], "me", Usage())
    assert len(make(shared=False).choices("me")) == 3, "one's own machine forgets nothing"
    last = make().bring([zip_file], "me", Usage())
    assert {id for _, id in make().choices("me")} == {newest_id, last}


def test_a_refused_adapter_leaves_nothing(make: Any, zip_file: Path, inference: Inference, tmp_path: Path) -> None:
    inference.problem = "two things"
    with pytest.raises(AdapterError, match="two things"):
        make().bring([zip_file], "me", Usage())
    assert list((tmp_path / "adapters").iterdir()) == []


def test_no_folder_of_a_shared_machine_is_a_base_model(
    make: Any, zip_file: Path, inference: Inference, tmp_path: Path
) -> None:
    with pytest.raises(SettingsError, match="shared page"):
        make().bring([zip_file], "me", Usage(base_model=str(tmp_path)))
    inference.base_model = str(tmp_path)  # its own files say so
    with pytest.raises(SettingsError, match="shared page"):
        make().bring([zip_file], "me", Usage())
    assert list((tmp_path / "adapters").iterdir()) == []
    assert make(shared=False).bring([zip_file], "me", Usage())


@pytest.mark.parametrize("names", [[], ["a.zip", "b.zip"], ["a.zip", "adapter_config.json"], ["other.json"]])
def test_what_is_not_one_adapter(make: Any, tmp_path: Path, names: list[str]) -> None:
    with pytest.raises(AdapterError, match="not one adapter"):
        make().bring([tmp_path / name for name in names], "me", Usage())


def test_pickle_is_refused_with_what_to_do(make: Any, tmp_path: Path) -> None:
    with pytest.raises(AdapterError, match="can run code"):
        make().bring([tmp_path / "adapter_model.bin"], "me", Usage())


@pytest.mark.parametrize("id", ["", "../../etc", "0" * 31, "g" * 32, "0" * 32, "../" + NEWEST])
def test_what_is_no_id_opens_nothing(make: Any, id: str) -> None:
    with pytest.raises(RunError):
        make().view(id, "me")


def test_a_run_that_trains_is_asked_for_its_present_state(make: Any, tmp_path: Path) -> None:
    run = make_run(tmp_path, "1" * 16, "me", RunState.RUNNING)
    asked: list[float] = []

    def answer(seconds: float) -> None:  # as the worker does between two steps
        asked.append(seconds)
        if newest.is_asked(run.directory):
            newest.answered(run.directory)
            write_adapter(run.directory / newest.FOLDER)

    adapters = make([run], wait=answer)
    assert adapters.choices("me") == [("run 1111111111111111 · as it is now, still training", run.id + NEWEST)]
    view = adapters.view(run.id + NEWEST, "me")
    assert view.origin is Origin.NEWEST and "step 7" in view.about and view.downloads == ()
    assert len(asked) == 1
    adapters.view(run.id + NEWEST, "me")
    assert len(asked) == 1, "the one just written is young enough"
    with pytest.raises(RunError):
        adapters.view(run.id, "me")


def test_a_run_that_does_not_answer_has_nothing_to_try_yet(make: Any, tmp_path: Path) -> None:
    run = make_run(tmp_path, "1" * 16, "me", RunState.RUNNING)
    with pytest.raises(RunError, match="nothing to try yet"):
        make([run], wait=lambda seconds: None).view(run.id + NEWEST, "me")


def test_validation_rows_of_several_labels_are_offered_and_the_change_is_told(make: Any, tmp_path: Path) -> None:
    run = make_run(tmp_path, "1" * 16, "me")
    rows = [{"row": i, "input": {"text": f"text {i}"}, "gold": int(i > 5)} for i in range(8)]
    lines = [{"kind": "labels", "changed": 5, "kept": 8}, *rows]
    (run.directory / "predictions.jsonl").write_text("\n".join(map(json.dumps, lines)))
    view = make([run]).view(run.id, "me")
    assert view.proof == "The adapter changes the answer on 62% of 8 validation rows."
    assert {row["text"] for row in view.examples} == {"text 0", "text 1", "text 6", "text 7"}
    (run.directory / "predictions.jsonl").write_text("not JSON")
    assert make([run]).view(run.id, "me").proof == ""


def test_files_of_a_run_need_the_key_of_each(tmp_path: Path) -> None:
    mine, other = make_run(tmp_path, "1" * 16, "me"), make_run(tmp_path, "2" * 16, "you")
    lines = [{"kind": "step", "step": 1, "loss": 0.5}, {"kind": "eval", "step": 1, "loss": 0.4, "value": 0.9}]
    (mine.directory / "metrics.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\n")
    links = dict(downloads_of(mine))
    assert set(links) == {"Settings (YAML)", "Curve (CSV)"}
    key = links["Curve (CSV)"].partition("?key=")[2]
    content, name = content_of(mine, "metrics.csv", key)
    header, step, evaluation = content.decode().splitlines()
    assert header.startswith("step,epoch,loss") and step.startswith("1,,0.5,") and ",0.4,0.9," in evaluation
    assert name == "run-1111111111111111-metrics.csv"
    for run, file, tried in ((other, "metrics.csv", key), (mine, "settings.yaml", key), (mine, "metrics.csv", "é")):
        with pytest.raises(RunError, match="no such file"):
            content_of(run, file, tried)


def test_labels_and_answers_are_read_as_they_are_written() -> None:
    answers = parse_answers('positive = great\n negative=bad news \n\nneutral\nother = "x"')
    assert answers == {"positive": " great", "negative": " bad news", "neutral": " neutral", "other": "x"}
    assert parse_answers(answers_text(answers)) == answers
    assert answers_text({"0": "", "1": ""}) == "0\n1"


def test_a_card_is_shown_without_what_only_the_hub_reads() -> None:
    assert without_front_matter("---\ntags: []\n---\n# Title\n") == "# Title\n"
    assert without_front_matter("# Title\n---\n") == "# Title\n---\n"
