"""The page's actions for programs: through gradio_client over a page, and what they refuse."""

from __future__ import annotations

import re
import runpy
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gradio as gr
import pytest
from gradio_client import Client, handle_file

from ptune_core.app.measuring import Measurement, Stage
from ptune_core.demo import DEMO_LABELS
from ptune_core.errors import DataError, PTuneError, SettingsError
from ptune_core.runs.states import RunState
from ptune_core.ui.api.endpoints import Api

pytestmark = pytest.mark.filterwarnings("ignore::pandas.errors.Pandas4Warning")

ENDPOINTS = {
    "list_runs", "preview", "measure", "start_run", "run_status", "run_metrics", "run_results", "stop_run",
    "resume_run", "move_run_up", "use_trial", "delete_run", "list_adapters", "bring_adapter", "remove_adapter",
    "classify", "generate", "label_rows", "adapter_link", "push_adapter",
}  # fmt: skip
NOT_UPLOADED: Any = {"path": "/etc/hostname"}
ROWS = "text,label\ngood,yes\nbad,no\nfine,yes\npoor,no\n"


@pytest.fixture
def client(site: str, tmp_path: Path) -> Iterator[Client]:
    with_client = Client(site, verbose=False, download_files=str(tmp_path))
    yield with_client
    with_client.close()


def test_exactly_these_endpoints_are_public(build_with: Callable[..., Any]) -> None:
    page = build_with(ephemeral=False)
    public = [each["api_name"] for each in page.config["dependencies"] if each["api_visibility"] != "private"]
    assert sorted(public) == sorted(ENDPOINTS)


def test_every_parameter_is_typed_and_explained(build_with: Callable[..., Any], service: Any) -> None:
    build_with(ephemeral=False)
    for endpoint in Api(service).endpoints():
        said, parameters, _ = gr.utils.get_function_description(endpoint)
        assert said.endswith(".") and all(parameters.values()), endpoint.__name__
    info = build_with(ephemeral=False).get_api_info()
    for name, endpoint in info["named_endpoints"].items():
        for parameter in endpoint["parameters"]:
            assert parameter["type"], f"{name}: {parameter['parameter_name']}"


def test_a_run_from_start_to_download(client: Client, service: Any) -> None:
    started = client.predict(settings="max_steps: 60\nname: mine", api_name="/start_run")
    assert "Using" in started["summary"]
    run_id = started["id"]
    run = service.runs[run_id]
    assert (run.settings.max_steps, run.settings.name, run.settings.labels) == (60, "mine", DEMO_LABELS)
    assert [each["id"] for each in client.predict(api_name="/list_runs")] == [run_id]

    run.step = 60
    news = client.predict(run_id=run_id, api_name="/run_metrics")
    assert news["steps"]["x"] == list(range(1, 61)) and not news["done"]
    run.step = 62
    more = client.predict(run_id=run_id, cursor=news["cursor"], epoch=news["epoch"], api_name="/run_metrics")
    assert more["steps"]["x"] == [61, 62]

    assert client.predict(run_id=run_id, api_name="/stop_run")["state"] == RunState.STOPPED
    status = client.predict(run_id=run_id, api_name="/run_status")
    assert status["has_adapter"] and status["step"] == 62 and "**" not in status["headline"]
    answer = client.predict(adapter=run_id, values={"text": "a fine film"}, api_name="/classify")
    assert answer["tuned"] == {"negative": 0.03, "positive": 0.97} and answer["base"]["positive"] == 0.51
    text = client.predict(adapter=run_id, values={"text": "Once"}, max_new_tokens=5, api_name="/generate")
    assert text["tuned"].startswith("once once")
    assert client.predict(adapter=run_id, api_name="/adapter_link")["link"] == f"adapters/{run_id}.zip"
    assert client.predict(run_id=run_id, api_name="/delete_run") == {"deleted": run_id}
    assert not service.runs


def test_an_adapter_from_elsewhere_labels_rows(client: Client, service: Any, tmp_path: Path) -> None:
    zipped = tmp_path / "theirs.zip"
    zipped.write_bytes(b"PK")
    brought = client.predict(file=handle_file(str(zipped)), api_name="/bring_adapter")["adapter"]
    assert [each["id"] for each in client.predict(api_name="/list_adapters")] == [brought]
    found = client.predict(adapter=brought, rows="text\na\nb\n", api_name="/label_rows")
    assert found["csv"] == "text,label\na,positive\nb,positive\n" and found["labels"] == {"positive": 2}
    pushed = client.predict(adapter=brought, name="me/mine", api_name="/push_adapter")
    assert pushed == {"address": "https://hub.test/me/mine?private=True"}, "private unless said otherwise"
    assert client.predict(adapter=brought, api_name="/remove_adapter") == {"removed": brought}
    assert client.predict(api_name="/list_adapters") == []


@pytest.mark.parametrize("arguments", [{}, {"name": "a/b", "file": {"path": "/etc/hostname"}}, {"name": "  "}])
def test_one_adapter_is_brought_at_a_time(service: Any, arguments: Any) -> None:
    with pytest.raises(PTuneError, match="One adapter is needed"):
        Api(service).bring_adapter(**arguments)
    with pytest.raises(DataError, match="was not uploaded"):
        Api(service).bring_adapter(file=NOT_UPLOADED)


def test_rows_to_label_come_one_way(service: Any) -> None:
    run = service.add(state=RunState.FINISHED)
    with pytest.raises(DataError, match="Rows are needed once"):
        Api(service).label_rows(run.id)
    with pytest.raises(DataError, match="was not uploaded"):
        Api(service).label_rows(run.id, file=NOT_UPLOADED)


def test_a_run_is_measured_before_it_starts(service: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, int]] = []
    done, failed = Measurement("f", stage=Stage.DONE, numbers={"seconds": 4.5}), Measurement("f", stage=Stage.FAILED)
    failed.error = "Memory ran out."
    for each in (done, failed):
        each.ended.set()
    answers = iter([done, failed])

    def measure_run(viewer: str, settings: Any, table: Any) -> Measurement:
        asked.append((viewer, settings.max_steps))
        return next(answers)

    monkeypatch.setattr(service, "measure_run", measure_run)
    assert Api(service).measure("max_steps: 60", viewer="me") == {"seconds": 4.5}
    with pytest.raises(PTuneError, match="Memory ran out"):
        Api(service).measure("max_steps: 60", viewer="me")
    assert asked == [("me by program", 60)] * 2, "the page's form of the same viewer goes on with its own"


def test_results_of_a_run_come_in_parts(client: Client, service: Any) -> None:
    run = service.add(state=RunState.FINISHED)
    asked: list[dict[str, Any]] = []
    service.results = lambda question: asked.append(question) or {"total": 0}
    assert client.predict(run_id=run.id, part="samples", api_name="/run_results") == {"total": 0}
    assert asked == [{"run": run.id, "part": "samples", "offset": 0, "order": "wrong", "viewer": ""}]


def test_an_uploaded_file_is_read_and_another_one_is_not(client: Client, service: Any, tmp_path: Path) -> None:
    own = tmp_path / "mine.csv"
    own.write_text(ROWS, encoding="utf-8")
    found = client.predict(file=handle_file(str(own)), api_name="/preview")
    assert found["columns"] == {"text": "text", "label": "label"} and found["labels"] == {"yes": 2, "no": 2}
    assert found["summary"] == "Using all 4 rows"
    for path in ("/etc/hostname", str(own)):
        named: Any = {"path": path}
        with pytest.raises(DataError, match="was not uploaded"):
            Api(service).preview(file=named)


def test_an_error_is_a_sentence_for_the_program(client: Client) -> None:
    with pytest.raises(Exception, match="There is no such run"):
        client.predict(run_id="ffffffffffffffff", api_name="/run_status")
    with pytest.raises(Exception, match="learning_rate"):
        client.predict(settings="learning_rate: many", api_name="/start_run")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"settings": "[1"}, "not valid YAML"),
        ({"settings": "validation_data: /etc/passwd"}, "validation_data"),
        ({"settings": " " * 200_000}, "too long"),
        ({"rows": ROWS, "data": "hf://datasets/a/b/c.csv"}, "more than one way"),
        ({"data": "/etc/passwd"}, "Hub"),
        ({"rows": "text,label\nonly one,yes\n"}, "too few"),
    ],
)
def test_what_cannot_be_trained_on_is_refused(service: Any, arguments: dict[str, str], said: str) -> None:
    with pytest.raises(PTuneError, match=said):
        Api(service).start_run(**arguments)
    assert not service.runs


def test_values_must_be_the_templates_columns(service: Any) -> None:
    run = service.add(state=RunState.FINISHED)
    wrong: list[Any] = [{}, {"text": 1}, {"text": "a", "more": "b"}, None]
    for values in wrong:
        with pytest.raises(SettingsError, match="text for text"):
            Api(service).classify(run.id, values)
    assert service.tries == []


def test_strangers_need_a_key_that_cannot_be_guessed(service: Any) -> None:
    # Without one everybody who left it out would have had the same runs.
    service.is_shared = True
    for viewer in ("", "anna", "a" * 65):
        with pytest.raises(SettingsError, match="nobody can guess"):
            Api(service).list_runs(viewer)
    assert Api(service).list_runs("a" * 16) == []


def test_the_readmes_lines_run(site: str, service: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    readme = (Path(__file__).parents[3] / "README.md").read_text(encoding="utf-8")
    (code,) = (block for block in re.findall(r"```python\n(.*?)```", readme, re.DOTALL) if "gradio_client" in block)
    (tmp_path / "client.py").write_text(code.replace("http://127.0.0.1:7860", site), encoding="utf-8")
    runpy.run_path(str(tmp_path / "client.py"))
    (run,) = service.runs.values()
    assert run.settings.max_steps == 60 and run.id in capsys.readouterr().out
