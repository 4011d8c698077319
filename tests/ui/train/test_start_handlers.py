"""The Run card's handlers, as plain functions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ptune_core.app import form
from ptune_core.app.drafts import Held
from ptune_core.app.measuring import Measurement, Stage
from ptune_core.app.texts import settings as setting_help
from ptune_core.demo import DEMO_TEMPLATE
from ptune_core.errors import RunError
from ptune_core.inference.look import Outlines
from ptune_core.training.settings import RunSettings
from ptune_core.ui.controls import control_of
from ptune_core.ui.train.start_handlers import RunHandlers

TEMPLATE = "[P*8] {text~} [ANSWER:label]"


@pytest.fixture
def handlers(service: Any) -> RunHandlers:
    return RunHandlers(service)


@pytest.fixture
def reviews(service: Any) -> str:
    rows = "".join(f"{'good' if i % 2 else 'poor'} text {i},{'good' if i % 2 else 'poor'}\n" for i in range(40))
    return service.uploads.add_text("text,label\n" + rows)


def held(token: str, **values: Any) -> Held:
    controls = {name: control_of(name).value for name in ("name", *form.MAIN, *form.OF_BASE_MODEL, *form.advanced())}
    values = {**controls, "base_model": "demo", "template": TEMPLATE, "halving": True, **values}
    sweep = values.pop("sweep", {})
    return Held(token, values, {}, {}, sweep)


def wrong(updates: dict[str, Any]) -> dict[str, str]:
    return {each["key"]: each["text"] for each in updates["checks"]["value"] if each["level"] == "stop"}


def test_what_is_fine_can_start(handlers: RunHandlers, service: Any, reviews: str) -> None:
    found = handlers.refresh("me", held(reviews))
    assert wrong(found) == {} and found["start"]["interactive"] and found["start"]["value"] == "Start training"
    assert not found["reason"]["visible"] and found["preset"] == "Balanced"
    assert found["advanced"]["label"] == "Advanced" and "comes with PTune" in found["about"]
    assert found["command"].startswith("python -m ptune_core train --out my-run")
    service.add()
    again = handlers.refresh("me", held(reviews))
    assert again["start"]["value"] == "Add to queue (starts after 1 run)" == handlers.start_label()["value"]


def fixes(updates: dict[str, Any]) -> dict[str, Any]:
    return {each["key"]: each.get("fix") for each in updates["checks"]["value"] if each["level"] == "stop"}


def test_answers_that_begin_with_one_token_cannot_start_and_other_words_are_offered(
    handlers: RunHandlers, service: Any
) -> None:
    """Bug: stars of 1 to 5 passed every check on the demo model, and the run failed at once."""
    service.outlines = Outlines()
    token = service.uploads.add_text("text,label\n" + "".join(f"a stay {i},{1 + i % 5}\n" for i in range(60)))
    found = handlers.refresh("me", held(token))
    assert set(wrong(found)) == {"answers"} and "begin with the same token" in wrong(found)["answers"]
    assert not found["start"]["interactive"] and fixes(found)["answers"] == "Use the labels without a space"


@pytest.mark.parametrize(
    ("values", "key", "said"),
    [
        ({"base_model": "/no/such/folder"}, "base model", "There is no base model in such a folder"),
        ({"template": "user: [P*3] {text}\nassistant: [ANSWER:label]"}, "template", "chat template"),
    ],
)
def test_what_the_base_model_cannot_do_is_told_before_the_run(
    handlers: RunHandlers, service: Any, reviews: str, values: dict[str, Any], key: str, said: str
) -> None:
    """Bug: both passed every check and failed when the run began."""
    service.outlines = Outlines()
    found = handlers.refresh("me", held(reviews, **values))
    assert set(wrong(found)) == {key} and said in wrong(found)[key]


def test_every_problem_comes_at_once_and_the_button_says_why(handlers: RunHandlers, reviews: str) -> None:
    values = {"learning_rate": 7, "max_steps": -1, "max_length": "9999", "prompt_init": "text"}
    found = handlers.refresh("me", held(reviews, **values))
    assert {"learning_rate", "max_steps", "length", "together"} == set(wrong(found))
    assert "Learning rate: " in wrong(found)["learning_rate"]
    assert not found["start"]["interactive"] and found["reason"]["visible"]
    assert found["command"] == "" and found["advanced"]["label"] == "Advanced · 2 changed"
    assert found["shown prompt_init_text"]["visible"] and not found["shown prompt_init_adapter"]["visible"]


@pytest.mark.parametrize(
    ("token", "values", "key"),
    [
        ("", {}, "rows"),
        ("../../etc", {}, "rows"),
        (None, {"template": "{text} [P*2"}, "template"),
        (None, {"sweep": {"learning_rate": ["fast"]}}, "sweep"),
        (None, {"template": "[P*2] {a} {b} {c} [ANSWER:label]"}, "rows"),
        (None, {"base_model": "google-bert/bert-base-uncased"}, "target"),
    ],
)
def test_what_cannot_start_has_a_reason(
    handlers: RunHandlers, reviews: str, token: str | None, values: dict[str, Any], key: str
) -> None:
    found = handlers.refresh("me", held(reviews if token is None else token, **values))
    assert list(wrong(found)) == [key] and found["reason"]["value"] and not found["start"]["interactive"]


def test_a_fix_is_what_its_check_offers(handlers: RunHandlers, reviews: str) -> None:
    assert handlers.fix("learning rate", "me", held(reviews, learning_rate=0.9)) == {"learning_rate": 0.003}
    assert handlers.fix("max_steps", "me", held(reviews, max_steps=-1)) == {"max_steps": 200}
    bert = handlers.fix("target", "me", held(reviews, base_model="google-bert/bert-base-uncased"))
    assert bert == {"template": "[P*8] {text~} [MASK:label]"}
    assert handlers.fix("learning rate", "me", held(reviews)) == {} == handlers.fix("no such", "me", held(reviews))


def test_a_preset_is_seen_in_its_controls(handlers: RunHandlers, reviews: str) -> None:
    quick = handlers.choose_preset("Quick")
    assert quick["max_steps"] < 200 and quick["epochs"] == ""
    assert handlers.refresh("me", held(reviews, **quick))["preset"] == "Quick"
    assert handlers.refresh("me", held(reviews, max_steps=61))["preset"] == "Custom"
    assert handlers.choose_preset("Custom") == {} == handlers.choose_preset("<b>")


def test_a_sweep_says_how_many(handlers: RunHandlers, reviews: str) -> None:
    sweep = {"encoder_reparameterization_type": ["MLP", "LSTM"], "virtual_tokens": ["2", "4", "8"]}
    assert "6 trainings in one run" in handlers.refresh("me", held(reviews, sweep=sweep))["sweep_count"]


def test_saved_settings_are_loaded_again(handlers: RunHandlers, reviews: str, tmp_path: Path) -> None:
    file = handlers.save(held(reviews, name="My run!", max_steps=61, sweep={"seed": ["1", "2"]}))
    assert file["name"] == "My-run-settings.yaml"
    path = tmp_path / "settings.yaml"
    path.write_text(file["text"], encoding="utf-8")
    filled, said = handlers.load(str(path))
    assert filled is not None and "card 2" in said
    assert (filled.values["max_steps"], filled.values["name"], filled.sweep["seed"]) == (61, "My run!", ["1", "2"])
    assert filled.roles["roles"] == {"text": "text", "label": "label"} and not filled.is_of_demo


def test_the_examples_rows_come_with_its_settings(handlers: RunHandlers, service: Any) -> None:
    file = handlers.save(held(service.uploads.demo()))
    assert RunSettings.from_yaml(file["text"]).data == "demo"
    filled, said = handlers.copy(file["text"])
    assert filled.is_of_demo and "example" in said


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (b"max_steps: -5\nlearning_rate: 99\nfoo: 1", ["Steps: ", "Learning rate: ", "foo: "]),
        (b"- a\n- b", ["mapping"]),
        (b"a: &a [x, x]\nb: [*a, *a]", ["refer to parts"]),
        (b"labels: " + b"[" * 50_000, ["nested"]),
        (b"seed: " + b"1" * 5000, ["not valid YAML"]),
        (b"seed: 2020-99-99", ["not valid YAML"]),
        (b"a: !!python/object/apply:os.system ['true']", ["not valid YAML"]),
        (b"\xff\xfe\x00", ["no text"]),
        (b"#" * 300_000, ["too large"]),
        (b"name: '<img src=x onerror=alert(1)>'\nmax_steps: x", ["Steps: "]),
    ],
)
def test_a_hostile_settings_file_is_refused_in_words(
    handlers: RunHandlers, tmp_path: Path, text: bytes, expected: list[str]
) -> None:
    path = tmp_path / "settings.yaml"
    path.write_bytes(text)
    filled, said = handlers.load(str(path))
    assert filled is None and 'class="problem"' in said and "<img" not in said
    assert all(each in said for each in expected)


def test_measuring_what_cannot_start_says_why(handlers: RunHandlers, service: Any) -> None:
    assert "data" in handlers.measure("me", held(""))["measured"]
    assert service.measures.of("me") is None


def test_every_control_says_what_it_does_in_plain_words() -> None:
    for name in ("name", "halving", *form.MAIN, *form.OF_BASE_MODEL, *form.advanced()):
        said = setting_help.of(name)
        assert said and len(said) < 260, name
        assert not [other for other in RunSettings.model_fields if "_" in other and other in said], name


def test_the_checks_count_the_rows_of_a_few_shot_run(handlers: RunHandlers, service: Any) -> None:
    rows = "".join(f"text {i},{'good' if i % 2 else 'poor'}\n" for i in range(200))
    token = service.uploads.add_text("text,label\n" + rows)

    def noted(**values: Any) -> dict[str, str]:
        checks = handlers.refresh("me", held(token, template="[P*16] {text~} [ANSWER:label]", **values))["checks"]
        return {each["key"]: each["text"] for each in checks["value"] if each["level"] == "note"}

    assert "virtual tokens" not in noted()
    assert "8 " in noted(examples_per_label=4)["virtual tokens"]


WAYS = {
    "answer": {"accuracy": 0.33, "rows": 64},
    "head": {"reads": "mean", "accuracy": 0.63, "rows": 1280},
}


def test_what_was_measured_becomes_a_check_whose_button_changes_the_template(
    handlers: RunHandlers, service: Any, reviews: str
) -> None:
    settings = RunSettings.parse({"template": TEMPLATE, "data": "uploaded rows"})
    measured = Measurement("", stage=Stage.DONE, settings=settings, token=reviews)
    measured.numbers = {"seconds": 7.0, "trials": 1, "peak_mib": 300.0, "trained": 9, "kept_bytes": 9, "ways": WAYS}
    service.measures._of["me"] = measured

    def way(updates: dict[str, Any]) -> dict[str, Any] | None:
        return next((each for each in updates["checks"]["value"] if each["key"] == "way"), None)

    found = way(handlers.tick("me", held(reviews)))
    assert found is not None and found["level"] == "note" and found["fix"] == "Use a classification head"
    assert "starts at 0.63 here (measured on 1,280 rows), answer words at 0.33 (on 64 rows)." in found["text"]
    fixed = handlers.fix("way", "me", held(reviews))
    assert fixed == {"template": "[P*4] {text~} [HEAD:label]"}
    after = way(handlers.refresh("me", held(reviews, **fixed)))
    assert after is not None and after["level"] == "good"
    assert way(handlers.refresh("somebody else", held(reviews))) is None
    assert way(handlers.refresh("me", held(reviews, base_weights="tuned"))) is None, "it was measured frozen"
    assert handlers.fix("way", "somebody else", held(reviews)) == {}


@pytest.fixture
def measured(service: Any, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The templates that were measured; nothing is started."""
    templates: list[str] = []

    def measure_run(viewer: str, settings: RunSettings, table: Any, *, unasked: bool) -> None:
        assert unasked
        templates.append(settings.template)
        token = table.path.parent.name
        service.measures._of[viewer] = Measurement("", stage=Stage.DONE, settings=settings, token=token)
        service.measures._of[viewer].numbers = {
            "seconds": 7.0, "trials": 1, "peak_mib": 300.0, "trained": 9, "kept_bytes": 9, "ways": WAYS,
        }  # fmt: skip

    service.measures_unasked = True
    monkeypatch.setattr(service, "measure_run", measure_run)
    return templates


def test_the_better_way_is_measured_where_nobody_asked(
    handlers: RunHandlers, measured: list[str], reviews: str
) -> None:
    """Bug: answer words were at 0.43 where a head begins at 0.63, and only who pressed Measure was told."""
    assert handlers.refresh("me", held(reviews))["quiet"].active
    assert not handlers.measure_unasked("me", held(reviews))["quiet"].active
    assert measured == [TEMPLATE]
    known = handlers.refresh("me", held(reviews, num_virtual_tokens=8, template="[P*8] {text~} [ANSWER:label]"))
    assert not known["quiet"].active, "the labels are as easy to tell apart with other virtual tokens"
    (way,) = (each for each in known["checks"]["value"] if each["key"] == "way")
    assert way["fix"] == "Use a classification head"


@pytest.mark.parametrize("why", ["a shared page", "a run trains", "not here", "too large", "free text", "the example"])
def test_what_takes_long_or_helps_nobody_is_not_measured_unasked(
    why: str, handlers: RunHandlers, service: Any, measured: list[str], reviews: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    changes: dict[str, Any] = {}
    if why == "a shared page":
        service.measures_unasked = False
    elif why == "a run trains":
        service.add(step=3)
    elif why == "not here":
        changes["base_model"] = "gpt2"
    elif why == "too large":
        monkeypatch.setattr("ptune_core.ui.train.start_handlers.MOST_MEASURED_UNASKED", {False: 1000, True: 1000})
    elif why == "the example":
        reviews, changes["template"] = service.uploads.demo(), DEMO_TEMPLATE
    else:
        changes["template"] = "[P*4] {text~} [TEXT:label]"
    form = held(reviews, **changes)
    assert not handlers.refresh("me", form)["quiet"].active
    handlers.measure_unasked("me", form)
    assert measured == []


def test_a_measurement_that_cannot_begin_unasked_is_not_told(
    handlers: RunHandlers, service: Any, reviews: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: Any, **__: Any) -> None:
        raise RunError("Somebody else is measuring")

    service.measures_unasked = True
    monkeypatch.setattr(service, "measure_run", refused)
    assert "Somebody" not in handlers.measure_unasked("me", held(reviews))["measured"]
