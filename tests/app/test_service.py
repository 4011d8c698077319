"""The service over a real store: who sees what, and what the page is told about a run."""

from __future__ import annotations

import json
import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from ptune_core.app import texts
from ptune_core.app.results import PARTS
from ptune_core.app.service import Service
from ptune_core.app.uploads import Uploads
from ptune_core.errors import DataError, PTuneError, RunError, SettingsError
from ptune_core.inference.client import InferenceClient
from ptune_core.runs.directory import RunDirectory
from ptune_core.runs.launcher import Launcher
from ptune_core.runs.states import RunState
from ptune_core.runs.store import Store
from ptune_core.training.settings import RunSettings
from ptune_core.ui.runs.tab import download_button
from ptune_core.ui.show import answered

LINES = [
    {"kind": "plan", "steps": 4, "metric": "accuracy"},
    {"kind": "baseline", "majority": 0.5, "zero_shot": 0.6},
    {"kind": "step", "step": 1, "loss": 0.7, "seconds": 1.0},
    {"kind": "eval", "step": 1, "loss": 0.6, "value": 0.8, "best": True, "seconds": 1.0},
]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "data")


@pytest.fixture(params=[False, True], ids=["own machine", "space"])
def shared(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


@pytest.fixture
def service(store: Store, tmp_path: Path, shared: bool) -> Iterator[Service]:
    with InferenceClient(tmp_path / "inference.log", store.data_dir) as inference:
        yield Service(store, Launcher(store), inference, Uploads(tmp_path / "uploads"), shared=shared)


@pytest.fixture
def run_id(service: Service) -> str:
    token = service.uploads.add_text("text,label\n" + "".join(f"text {i},{i % 2}\n" for i in range(8)))
    return service.start(RunSettings(name="mine"), token, viewer="anna", key="1")


def finish(store: Store, run_id: str) -> RunDirectory:
    store.claim_next()
    directory = RunDirectory(store.get(run_id, None).directory)
    directory.metrics.write_text("".join(json.dumps(line) + "\n" for line in LINES))
    directory.adapter.mkdir()
    (directory.adapter / "snippet.py").write_text("print()\n")
    directory.adapter_zip.write_bytes(b"zip")
    directory.write_result(
        {
            "state": "finished", "metric": "accuracy", "value": 0.8, "seconds": 72, "labels": ["0", "1"],
            "baseline_majority": 0.5, "baseline_zero_shot": 0.6,
        }
    )  # fmt: skip
    return directory


def test_a_stranger_on_a_space_finds_nothing_and_at_home_everybody_everything(
    service: Service, run_id: str, shared: bool
) -> None:
    asked = {"run": run_id, "viewer": "bob"}
    if not shared:
        assert service.view(run_id, "bob").name == "mine"
        assert [row["id"] for row in service.overview(asked)["runs"]] == [run_id]
        service.stop(run_id, "bob")
        assert service.view(run_id, "bob").state is RunState.STOPPED
        return
    assert service.overview(asked)["runs"] == [] and service.overview({})["runs"] == []
    for forbidden in (
        lambda: service.view(run_id, "bob"),
        lambda: service.poll(asked),
        lambda: service.stop(run_id, "bob"),
        lambda: service.resume(run_id, "bob"),
        lambda: service.delete(run_id, "bob"),
        lambda: service.classify(run_id, "bob", {"text": "a"}),
        lambda: list(service.generate(run_id, "bob", {"text": "a"})),
    ):
        with pytest.raises(RunError, match="not found"):
            forbidden()
    assert service.view(run_id, "anna").state is RunState.QUEUED


def test_the_viewers_id_is_not_stored(service: Service, store: Store, run_id: str) -> None:
    assert "anna" not in (store.get(run_id, None).directory / "run.json").read_text()


@pytest.mark.parametrize("run", ["../../etc", "", None, 7, "0" * 16, "x" * 10_000, {"a": 1}])
def test_strange_questions_are_not_found(service: Service, run: object) -> None:
    with pytest.raises(RunError, match="not found"):
        service.poll({"run": run, "cursor": "x", "epoch": -1, "viewer": []})


def test_a_waiting_run_says_its_place(service: Service, run_id: str) -> None:
    token = service.uploads.add_text("text,label\na,1\nb,0\nc,1\nd,0\n")
    second = service.start(RunSettings(name="second"), token, viewer="anna", key="2")
    assert "next in the queue" in service.view(run_id, "anna").headline
    assert "number 2 in the queue" in service.view(second, "anna").headline
    overview = service.overview({"viewer": "anna"})
    assert overview["active"]["id"] == run_id and [each["id"] for each in overview["waiting"]] == [second]


def test_a_finished_run_shows_its_result_beside_the_baselines(service: Service, store: Store, run_id: str) -> None:
    directory = finish(store, run_id)
    view = service.view(run_id, "anna")
    assert view.headline == "Done after 1 min 12 s. Accuracy **0.800** (before: majority 0.500, zero-shot 0.600)."
    assert view.state is RunState.FINISHED
    assert view.files == (("snippet.py", 8),)
    ((called, chosen),) = service.choices("anna")
    assert called.startswith("mine · 0.800 · ") and chosen == run_id
    newest = service.overview({"viewer": "anna"})["newest"]
    assert newest["ended"] and newest["line"] == view.headline.replace("**", "") and newest["warning"] == ""
    assert service.adapter_zip(run_id) == (directory.adapter_zip, "mine-adapter.zip")
    answer = service.poll({"run": run_id, "cursor": 0, "epoch": 0, "viewer": "anna"})
    assert answer["done"] and answer["evals"]["value"] == [0.8]
    assert json.dumps(answer) and json.dumps(service.overview({"viewer": "anna"}))


@pytest.mark.parametrize("shared", [False], indirect=True)
def test_a_tuned_base_model_is_said_and_counted_in_what_is_downloaded(service: Service, store: Store) -> None:
    token = service.uploads.add_text("text,label\n" + "".join(f"text {i},{i % 2}\n" for i in range(8)))
    run_id = service.start(RunSettings(name="mine", base_weights="tuned"), token, viewer="anna", key="2")
    directory = finish(store, run_id)
    (directory.adapter / "base_model").mkdir()
    (directory.adapter / "base_model" / "model.safetensors").write_bytes(bytes(2_000_000))
    directory.adapter_zip.write_bytes(bytes(2_000_000))
    result = json.loads(directory.result_file.read_text())
    directory.write_result(result | {"base_weights": "tuned"})
    view = service.view(run_id, "anna")
    assert ("base_model/model.safetensors", 2_000_000) in view.files and view.base_weights == "tuned"
    assert view.headline.endswith("Base model tuned.")
    assert download_button(view)["value"] == "Download tuned model and adapter (.zip, 2.0 MB)"
    assert service.adapter_zip(run_id)[1] == "mine-tuned-model.zip"


def test_files_removed_underneath_are_told_and_hide_no_other_run(service: Service, store: Store, run_id: str) -> None:
    # The page told of an error inside itself, on every load, or that the run waits in the queue.
    directory = finish(store, run_id)
    shutil.rmtree(directory.data)
    assert service.view(run_id, "anna").has_adapter
    shutil.rmtree(directory.adapter)
    assert not service.view(run_id, "anna").has_adapter and service.choices("anna") == []
    with pytest.raises(RunError, match="no adapter"):
        service.classify(run_id, "anna", {"text": "a"})
    shutil.rmtree(directory.path)
    assert service.overview({"viewer": "anna"})["runs"] == [] and service.choices("anna") == []
    for ask in (lambda: service.view(run_id, "anna"), lambda: service.poll({"run": run_id, "viewer": "anna"})):
        with pytest.raises(RunError, match="files of this run are gone"):
            ask()


def test_no_adapter_no_download(service: Service, run_id: str) -> None:
    with pytest.raises(RunError, match="no adapter yet"):
        service.adapter_zip(run_id)
    with pytest.raises(RunError, match="no adapter yet"):
        service.classify(run_id, "anna", {"text": "a"})


def test_uploads_open_only_by_their_token(service: Service, tmp_path: Path) -> None:
    token = service.uploads.add_text("text,label\na,1\nb,0\n")
    assert service.uploads.open(token).num_rows == 2
    for wrong in ("", None, "..", f"../uploads/{token}", token.upper() + "0", "f" * 32):
        with pytest.raises(DataError):
            service.uploads.open(wrong)


def test_a_file_that_cannot_be_read_leaves_nothing_behind(service: Service, tmp_path: Path) -> None:
    with pytest.raises(DataError):
        service.uploads.add_text("")
    assert list((tmp_path / "uploads").iterdir()) == []


def test_a_shared_page_reads_no_folder_of_its_machine(service: Service, shared: bool, tmp_path: Path) -> None:
    token = service.uploads.add_text("text,label\n" + "".join(f"text {i},{i % 2}\n" for i in range(8)))
    settings = RunSettings(base_model=str(tmp_path))
    if not shared:
        assert service.start(settings, token, viewer="anna", key="2")
        assert service.active() == 1
        return
    with pytest.raises(SettingsError, match="folder of this machine"):
        service.start(settings, token, viewer="anna", key="2")
    with pytest.raises(SettingsError, match="folder of this machine"):
        service.measure_run("anna", settings, service.uploads.open(token))
    assert service.measures.of("anna") is None and service.active() == 0


def test_a_shared_page_starts_from_no_adapter_of_its_machine(service: Service, shared: bool, tmp_path: Path) -> None:
    """It would show whether there is one, and give what others have trained."""
    token = service.uploads.add_text("text,label\n" + "".join(f"text {i},{i % 2}\n" for i in range(8)))
    for number, values in enumerate(({}, {"sweep": {"prompt_init_adapter": ["a", "b"]}})):
        settings = RunSettings.parse({"prompt_init": "adapter", "prompt_init_adapter": str(tmp_path)} | values)
        if not shared:
            assert service.start(settings, token, viewer="anna", key=f"3{number}")
            continue
        with pytest.raises(SettingsError, match="adapter of this machine"):
            service.start(settings, token, viewer="anna", key=f"3{number}")


def test_a_run_of_another_version_is_shown_and_can_be_deleted(service: Service, store: Store, run_id: str) -> None:
    """Bug: one whose settings this version does not accept took the list of adapters from everybody."""
    finish(store, run_id)
    with sqlite3.connect(store.data_dir / "runs.sqlite3") as database:
        old = json.loads(store.get(run_id, None).settings_json) | {"max_steps": -1, "of_then": True}
        database.execute("UPDATE runs SET settings = ? WHERE id = ?", (json.dumps(old), run_id))
    database.close()
    asked = {"run": run_id, "viewer": "anna"}
    view = service.view(run_id, "anna")
    assert "of_then: true" in view.settings and not view.can_resume and "**0.800 accuracy**" in view.score
    (alarm,) = service.alarms(asked)["alarms"]
    assert alarm["text"] == texts.OUTDATED and "max_steps" in alarm["note"] and not alarm["fixes"]
    assert [id for _, id in service.choices("anna")] == [run_id]
    assert [row["id"] for row in service.overview(asked)["runs"]] == [run_id]
    assert service.poll(asked)["steps"]["x"] == [1]
    assert service.compare({"runs": [{"run": run_id}], "viewer": "anna"})
    assert service.adapter_zip(run_id)[0].is_file()
    for part in PARTS:
        answered(service.results)({**asked, "part": part})
    for refused in (lambda: service.retry(run_id, {}, "anna"), lambda: service.resume(run_id, "anna")):
        with pytest.raises(PTuneError):
            refused()
    service.delete(run_id, "anna")
    assert service.overview(asked)["runs"] == []
