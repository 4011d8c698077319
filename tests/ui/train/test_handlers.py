"""The Train tab's handlers, as plain functions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ptune_core.app.drafts import Held, answers_of, chosen_columns
from ptune_core.data.hub import HubSplit
from ptune_core.prompt.template import parse_template
from ptune_core.ui.train.handlers import PLACEMENTS, Brought, TrainHandlers, placement_of

TEMPLATE = "{text~} [P*8][ANSWER:label]"
MODEL = ("demo", "", "")


@pytest.fixture
def handlers(service: Any) -> TrainHandlers:
    return TrainHandlers(service)


def write(tmp_path: Path, text: str) -> str:
    path = tmp_path / "rows.csv"
    path.write_text(text, encoding="utf-8")
    return str(path)


@pytest.fixture
def reviews(tmp_path: Path, handlers: TrainHandlers) -> str:
    """Token of 20 rows whose columns have names of their own."""
    rows = "".join(f"text number {i},{'good' if i % 2 else 'poor'},{i}\n" for i in range(20))
    token, _ = handlers.read_file(write(tmp_path, "review,verdict,stars\n" + rows))
    return token


def show(
    handlers: TrainHandlers, token: str, template: str = TEMPLATE, *, answers: Any = None, few: int = 0, **chosen: str
) -> list[Any]:
    roles = {"token": token, "roles": chosen} if chosen else None
    return handlers.show_data(token, template, answers, roles, few, *MODEL)


@pytest.fixture
def file(tmp_path: Path) -> Brought:
    """What the data card holds with the rows of `reviews`."""
    return Brought("Upload", file=str(tmp_path / "rows.csv"))


def held(token: str, answers: Any = None, roles: Any = None, **values: Any) -> Held:
    values = {"template": TEMPLATE, "base_model": "demo", **values}
    return Held(token, values, answers_of(answers), chosen_columns(roles, token))


def test_columns_are_found_by_themselves_and_can_be_corrected(handlers: TrainHandlers, reviews: str) -> None:
    roles, report, answers, preview = show(handlers, reviews)
    assert roles["roles"] == {"text": "review", "label": "verdict"}
    assert roles["columns"] == ["review", "verdict", "stars"] and roles["rows"][0] == ["text number 0", "poor", "0"]
    assert roles["choices"] == [["text", "{text}"], ["label", "label"]]
    assert "all 20 rows" in report
    assert answers["pairs"] == [["good", " good"], ["poor", " poor"]]
    assert ["text number 0", "column"] in preview["plain"]
    assert preview["chips"] == ["{review}", "{stars}", "[P*8]", "[ANSWER:label]"]
    assert preview["question"]["columns"] == {"text": "review", "label": "verdict"}
    assert preview["question"]["labels"] == {"good": " good", "poor": " poor"}

    roles, _, answers, _ = show(handlers, reviews, "{text} [P][HEAD:label]", text="review", label="stars")
    assert roles["roles"] == {"text": "review", "label": "stars"}
    assert answers["pairs"] == [], "a classification head needs no answer words"


def test_a_column_that_is_not_to_be_used_stays_so(
    handlers: TrainHandlers, service: Any, reviews: str, file: Brought
) -> None:
    roles, report, _, _ = show(handlers, reviews, text="", label="verdict")
    assert roles["roles"] == {"text": "", "label": "verdict"}
    assert "No column of the data is read for {text}" in report and "Choose one over the columns" in report
    chosen = {"token": reviews, "roles": {"text": "", "label": "verdict"}}
    run_id, said = handlers.start("me", "key", held(reviews, roles=chosen), file)
    assert run_id is None and "is read for {text}" in said and not service.runs
    # Other rows: what was not to be used of these says nothing of them.
    assert handlers.show_data(reviews, TEMPLATE, None, {**chosen, "token": "0" * 32}, 0, *MODEL)[0]["roles"] == {
        "text": "review",
        "label": "verdict",
    }


def test_answers_typed_by_hand_stay(handlers: TrainHandlers, reviews: str) -> None:
    _, _, answers, _ = show(handlers, reviews, answers=[["good", " yes"], ["other", " never"]])
    assert answers["pairs"] == [["good", " yes"], ["poor", " poor"]]


def test_every_column_of_a_template_gets_a_role(handlers: TrainHandlers, reviews: str) -> None:
    roles = show(handlers, reviews, "{review} [P*3] {stars}[ANSWER:verdict]")[0]
    assert roles["roles"] == {"review": "review", "stars": "stars", "verdict": "verdict"}
    assert roles["choices"][-1] == ["verdict", "verdict (target)"]


@pytest.mark.parametrize("nonsense", [[], "x", 7, {"roles": 3}, {"roles": {"text": ["review"], "label": "nowhere"}}])
def test_what_a_browser_may_send_for_roles_and_answers_is_read_or_left(
    handlers: TrainHandlers, reviews: str, nonsense: Any
) -> None:
    roles, report, answers, _ = handlers.show_data(reviews, TEMPLATE, nonsense, nonsense, 0, *MODEL)
    assert roles["roles"] == {"text": "review", "label": "verdict"} and "all 20 rows" in report
    assert answers["pairs"] == [["good", " good"], ["poor", " poor"]]


def test_problems_of_a_file_are_numbered(handlers: TrainHandlers, tmp_path: Path) -> None:
    token, said = handlers.read_file(write(tmp_path, ""))
    assert token == "" and 'class="problem"' in said


def test_a_column_that_none_was_found_for_is_named_with_what_to_do(handlers: TrainHandlers) -> None:
    # The page told of a column '' that nobody had chosen, and not what to do.
    token, _ = handlers.read_pasted("hello\n")
    said = show(handlers, token)[1]
    assert "no column was found for {label}" in said and "Choose a data column" in said and "&#x27;&#x27;" not in said


def test_the_report_is_one_line_and_the_rest_is_folded(handlers: TrainHandlers) -> None:
    rows = "".join(f"text {i},{'ab'[i % 2]}\n" for i in range(20))
    token, _ = handlers.read_pasted("text,label\n" + rows + "text 0,a\ntext 1,a\n,a\n<b>x</b>,<i>a</i>\n")
    report = show(handlers, token)[1]
    line, details = report.split("<details", 1)
    assert "<b>Using 23 of 24 rows.</b> 1 dropped: 1 empty text." in line
    assert "empty text: row 24" in details and "(row 22)" in details and "another label: row 23" in details
    assert "&lt;i&gt;a&lt;/i&gt;" in details and "<i>" not in report
    assert details.count('class="bar-row"') == 3


def test_few_shot_says_how_many_rows_are_used(
    handlers: TrainHandlers, service: Any, reviews: str, file: Brought
) -> None:
    report = show(handlers, reviews, few=4)[1]
    assert "Using all 20 rows." in report and "8 to train on, at most 4 for each label, and 3 to validate" in report
    run_id, _ = handlers.start("me", "key", held(reviews, examples_per_label=4), file)
    assert service.runs[run_id].settings.examples_per_label == 4


HUB = [
    HubSplit("o/n", "default", "train", ("default/train/0000.parquet",)),
    HubSplit("o/n", "default", "test", ("default/test/0000.parquet",)),
]


def test_a_hub_data_set_offers_its_splits_and_reads_the_first(
    handlers: TrainHandlers, service: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []
    monkeypatch.setattr(service.uploads, "hub_splits", lambda reference: HUB)
    monkeypatch.setattr(service.uploads, "add_hub", lambda reference: read.append(reference) or "0" * 32)
    split, token, _ = handlers.read_reference("o/n")
    assert [text for text, _ in split["choices"]] == ["default · train", "default · test"] and split["visible"]
    assert token == "0" * 32 and read == [split["value"]] == ["hf://datasets/o/n?config=default&split=train"]
    split, _, _ = handlers.read_reference("hf://datasets/o/n/data.csv")
    assert not split["visible"] and read[1] == "hf://datasets/o/n/data.csv"


def test_a_hub_that_cannot_be_reached_is_told(handlers: TrainHandlers) -> None:
    for reference in ("o/n", "hf://datasets/o/n/data.csv"):  # the tests run with HF_HUB_OFFLINE
        split, token, said = handlers.read_reference(reference)
        assert not split["visible"] and token == "" and "The Hub cannot be reached" in said
    assert "OWNER/NAME" in handlers.read_reference("what?")[2]


def test_start_hands_over_what_the_form_says(
    handlers: TrainHandlers, service: Any, reviews: str, file: Brought
) -> None:
    answers = [["good", " fine"], ["poor", " bad"]]
    form = held(reviews, answers=answers, max_steps=7, max_length=None, name="")
    run_id, _ = handlers.start("me", "key", form, file)
    settings = service.runs[run_id].settings
    assert settings.columns == {"text": "review", "label": "verdict"}
    assert settings.labels == {"good": " fine", "poor": " bad"}
    assert (settings.max_steps, settings.max_length, settings.data) == (7, None, "rows.csv")
    again, _ = handlers.start("me", "key", held(reviews), file)
    assert again == run_id and len(service.runs) == 1


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"template": "{text} [P*2]"}, "target"),
        ({"learning_rate": 7.0}, "learning rate: "),
        ({"max_steps": -5}, "steps: "),
        ({"template": "{a} {b} {c} {d} [P][ANSWER:label]"}, "column"),
    ],
)
def test_what_cannot_start_says_why_under_the_button(
    handlers: TrainHandlers, service: Any, reviews: str, file: Brought, change: dict[str, Any], expected: str
) -> None:
    run_id, said = handlers.start("me", "key", held(reviews, **change), file)
    assert run_id is None and expected in said.lower() and 'class="problem"' in said
    assert not service.runs


def test_without_data_nothing_starts(handlers: TrainHandlers, service: Any) -> None:
    for token in ("", None, "../../etc", "0" * 32):
        run_id, said = handlers.start("me", "key", held(token), Brought("Example"))
        assert run_id is None and "data" in said
    assert not service.runs


PASTED = "text,label\n" + "".join(f"row {i},{'good' if i % 2 else 'poor'}\n" for i in range(8))


@pytest.mark.parametrize(
    ("now", "remedy"),
    [
        (Brought("Paste", pasted=PASTED + "one more,good\n"), "Use these rows"),
        (Brought("Paste"), "Use these rows"),
        (Brought("Hub", reference="somebody/else"), "Fetch"),
        (Brought("Upload", file="/tmp/other.csv"), "the file"),
        (Brought("Example"), "Example"),
    ],
)
def test_other_rows_than_the_card_holds_are_not_trained_on(
    handlers: TrainHandlers, service: Any, now: Brought, remedy: str
) -> None:
    """Bug: rows edited after they were read, or a source without rows, and Start trained the rows of before."""
    token, _ = handlers.read_pasted(PASTED)
    run_id, said = handlers.start("me", "key", held(token), now)
    assert run_id is None and "changed since it was read" in said and remedy in said
    assert handlers.start("me", "key", held(token), Brought("Paste", pasted=PASTED))[0] in service.runs


def test_a_source_gives_the_rows_that_it_holds(
    handlers: TrainHandlers, service: Any, reviews: str, file: Brought, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bug: the example's rows stayed the rows of a source that held none."""
    for source in ("Upload", "Paste", "Hub"):
        *groups, _, token, said = handlers.show_source(Brought(source))
        assert token == "" and "yet" in said
        assert [group["visible"] for group in groups] == [source == name for name in ("Upload", "Paste", "Hub")]
    for now in (file, Brought("Paste", pasted=PASTED), Brought("Example")):
        *_, token, _ = handlers.show_source(now)
        assert service.uploads.is_of(token, now.origin)
    add_hub = service.uploads.add_text
    monkeypatch.setattr(service.uploads, "add_hub", lambda reference: add_hub(f"text,label\n{reference},a\nb,c\n"))
    *_, token, _ = handlers.show_source(Brought("Hub", reference="a/b", split="hf://datasets/a/b@c/d"))
    assert service.uploads.open(token).preview[0]["text"] == "hf://datasets/a/b@c/d"


def test_a_file_of_the_hub_leaves_no_split_of_another_data_set(
    handlers: TrainHandlers, service: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The split that was read before would be what the card seems to hold, and nothing could start."""
    add_text = service.uploads.add_text
    monkeypatch.setattr(service.uploads, "add_hub", lambda reference: add_text(PASTED))
    splits, token, _ = handlers.read_reference("hf://datasets/a/b/file.csv")
    assert token and splits["value"] is None and not splits["visible"]


def test_rows_that_are_left_are_read_once(handlers: TrainHandlers) -> None:
    token, _ = handlers.leave_pasted(PASTED, "")
    assert isinstance(token, str) and token
    for unchanged in (handlers.leave_pasted(PASTED, token), handlers.leave_pasted("  ", token)):
        assert not any(isinstance(each, str) for each in unchanged)
    other, _ = handlers.leave_pasted(PASTED + "one more,good\n", token)
    assert isinstance(other, str) and other != token


def test_template_message_and_slider_follow_the_template(handlers: TrainHandlers, reviews: str) -> None:
    def check(template: str) -> Any:
        return handlers.check_template(template, reviews, None, None, *MODEL)

    message, slider, preview, placement = check("{text} [P*2")
    assert "value" not in placement, "what is half typed is no other placement"
    assert message["visible"] and "^" in message["value"] and not slider["interactive"] and "value" not in preview
    message, slider, preview, placement = check("[P*5] {text}[ANSWER:label]")
    assert placement == "In front"
    assert not message["visible"] and slider["value"] == 5 and ["P×5", "virtual"] in preview["plain"]
    _, slider, _, placement = check("[P*5] {text} [P*5][ANSWER:label]")
    assert placement == "Around the text"
    assert not slider["interactive"], "one number cannot say the counts of two groups"


@pytest.mark.parametrize(
    ("template", "placement"),
    [
        *((template, name) for name, template in PLACEMENTS.items()),
        ("It is about {text}. [P*3][P*3] Answer:[ANSWER:label]", "After the text"),
        ("{text} [P*3] {other} [P*3][ANSWER:label]", None),
        ("{text} [P*3] [MASK:label]", None),
        ("user: [P*3] {text}\nassistant: [ANSWER:label]", "Chat"),
    ],
)
def test_a_template_is_called_by_its_placement(template: str, placement: str | None) -> None:
    assert placement_of(parse_template(template)) == placement


def test_a_template_of_ones_own_is_not_replaced_without_a_word(
    handlers: TrainHandlers, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    monkeypatch.setattr("gradio.Info", lambda text, **_: told.append(text))
    handlers.place("Chat", PLACEMENTS["In front"])
    handlers.place("Chat", "  ")
    assert told == []
    handlers.place("Chat", "{text} [P*3] so: [ANSWER:label] <b>")
    handlers.suit_model("google-bert/bert-base-uncased", "{text} [P*3] so: [ANSWER:label]")
    assert [text.endswith("[ANSWER:label] &lt;b&gt;") for text in told] == [True, False]


def test_slider_rewrites_the_only_group(handlers: TrainHandlers) -> None:
    assert handlers.write_count(12, TEMPLATE) == "{text~} [P*12][ANSWER:label]"


def test_a_model_for_classification_heads_brings_its_template(handlers: TrainHandlers) -> None:
    template, placement = handlers.suit_model("google-bert/bert-base-uncased", TEMPLATE)
    assert template == PLACEMENTS[placement] and "[HEAD:label]" in template
    kept, _ = handlers.suit_model("openai-community/gpt2", TEMPLATE)
    assert not isinstance(kept, str), "a template that suits the model is not replaced"
