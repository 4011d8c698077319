"""NeMo's task templates, and NeMo's own checks of them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from ptune_core.errors import TemplateError
from ptune_core.prompt.foreign.nemo import import_nemo
from ptune_core.prompt.template import parse_template

BOOLQ = {
    "taskname": "boolq",
    "prompt_template": "<|VIRTUAL_PROMPT_0|> Passage: {passage} <|VIRTUAL_PROMPT_1|> \nQuestion: {question} "
    "\nAnswer: {answer}",
    "total_virtual_tokens": 30,
    "virtual_token_splits": [20, 10],
    "truncate_field": "passage",
    "answer_only_loss": True,
    "answer_field": "answer",
}  # fmt: skip


def task(**changes: Any) -> str:
    return json.dumps({"task_templates": [BOOLQ | changes]})


def told_by(text: str, name: str | None = None) -> str:
    with pytest.raises(TemplateError) as caught:
        import_nemo(text, name)
    return str(caught.value)


def test_nemos_own_example() -> None:
    found = import_nemo(task())
    assert found.template == "[P*20] Passage: {passage~} [P*10] \nQuestion: {question} \nAnswer: [ANSWER:answer]"
    assert found.settings == {}
    parsed = parse_template(found.template)
    assert [group.count for group in parsed.groups] == [20, 10] and parsed.target.column == "answer"


def test_yaml_with_the_encoder_and_the_longest_row() -> None:
    text = """
model:
  virtual_prompt_style: 'p-tuning'
  task_templates: # one of them
  - taskname: "rte"
    prompt_template: "<|VIRTUAL_PROMPT_0|>{premise}\\n{hypothesis}\\nAnswer: {answer}"
    total_virtual_tokens: 9
    virtual_token_splits: [9]
    truncate_field: null
    answer_only_loss: True
    answer_field: "answer"
  p_tuning: {encoder_type: "biglstm", dropout: 0.1, num_layers: 3, encoder_hidden: 256, init_std: 0.023}
  data: {max_seq_length: 512}
"""
    found = import_nemo(text, labels={"yes": " yes", "no": " no"})
    assert found.template == "[P*9]{premise}\n{hypothesis}\nAnswer: [ANSWER:answer]"
    assert found.settings == {
        "labels": {"yes": " yes", "no": " no"}, "encoder_reparameterization_type": "LSTM", "encoder_hidden_size": 256,
        "encoder_num_layers": 3, "encoder_dropout": 0.1, "max_length": 512,
    }  # fmt: skip
    assert found.notes == ()


def test_the_mlp_is_told_to_be_another() -> None:
    model = {"task_templates": [BOOLQ], "p_tuning": {"dropout": 0.0, "num_layers": 2}}
    found = import_nemo(json.dumps({"model": model}))
    assert found.settings == {"encoder_reparameterization_type": "MLP"}
    assert any("three layers" in note for note in found.notes)


def test_prompt_tuning_starts_from_its_text() -> None:
    one = BOOLQ | {"prompt_template": "<|VIRTUAL_PROMPT_0|>{passage} A: {answer}", "virtual_token_splits": [30]}
    model = {
        "virtual_prompt_style": "prompt-tuning", "new_tasks": ["other", "boolq"], "task_templates": [one],
        "prompt_tuning": {"new_prompt_init_methods": ["text", "text"], "new_prompt_init_text": ["x", 'say "yes"']},
    }  # fmt: skip
    assert import_nemo(json.dumps(model)).template == '[P*30="say \\"yes\\""]{passage~} A: [ANSWER:answer]'


def test_groups_come_in_the_order_in_which_nemo_fills_them() -> None:
    """NeMo puts its vectors in from left to right; a marker's number only says how many it takes."""
    text = "<|VIRTUAL_PROMPT_1|>{passage} <|VIRTUAL_PROMPT_0|>{question} A: {answer}"
    assert import_nemo(task(prompt_template=text)).template == "[P*10]{passage~} [P*20]{question} A: [ANSWER:answer]"


def test_literal_text_stays_literal() -> None:
    text = "<|VIRTUAL_PROMPT_0|>[P] \\ } {passage}{question} <|VIRTUAL_PROMPT_1|> { A: {answer}"
    found = told_by(task(prompt_template=text))
    assert "brace within" in found
    found = import_nemo(task(prompt_template=text.replace("{ A", "A"))).template
    assert found.startswith("[P*20]\\[P] \\\\ }} {passage~}{question} [P*10] A:")


def test_spaces_that_nemo_tokenises_and_ptune_does_not_are_told() -> None:
    [note] = [note for note in import_nemo(task()).notes if "Spaces" in note]
    assert "' '" in note and "Answer" not in note


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"virtual_token_splits": [20, 9]}, "do not add up"),
        ({"virtual_token_splits": [20]}, "no entry in virtual_token_splits"),
        ({"virtual_token_splits": [10, 10, 10]}, "lacks markers"),
        ({"virtual_token_splits": [31, -1]}, "no usable numbers"),
        ({"virtual_token_splits": "20, 10"}, "virtual_token_splits is missing"),
        ({"total_virtual_tokens": None}, "do not add up"),
        ({"answer_field": "passage", "truncate_field": None}, "must end the template"),
        ({"answer_field": "other"}, "answer_field is no field"),
        ({"answer_field": None}, 'such as "answer"'),
        ({"answer_field": "answer", "truncate_field": "answer"}, "are the same"),
        ({"truncate_field": "other"}, "truncate_field is no field"),
        ({"prompt_template": BOOLQ["prompt_template"] + "."}, "must end the template"),
        ({"prompt_template": "<|VIRTUAL_PROMPT_0|><|VIRTUAL_PROMPT_0|> {passage} {answer}"}, "stands here twice"),
        ({"prompt_template": "<|VIRTUAL_PROMPT_0|><|VIRTUAL_PROMPT_x|> {passage} {answer}"}, "not whole"),
        ({"prompt_template": "<|VIRTUAL_PROMPT_0|>{answer}<|VIRTUAL_PROMPT_1|> {passage} {answer}"}, "shown before"),
        ({"prompt_template": "<|VIRTUAL_PROMPT_0|><|VIRTUAL_PROMPT_1|>{ passage } {} {passage} {answer}"}, "named so"),
        ({"prompt_template": 7}, "no text"),
        ({"truncate_field": ["a"]}, "no field's name"),
    ],
)
def test_nemos_checks_are_errors(changes: dict[str, Any], told: str) -> None:
    assert told in told_by(task(**changes))


def test_all_problems_come_at_once() -> None:
    told = told_by(task(virtual_token_splits=[1, 2], truncate_field="x", answer_field="y"))
    assert [f"\n{number}. " in told for number in range(1, 5)] == [True, True, True, False]


def test_a_task_is_chosen_by_name() -> None:
    several = json.dumps([BOOLQ, BOOLQ | {"taskname": "other", "virtual_token_splits": [15, 15]}])
    assert "[P*15]" in import_nemo(several, "other").template
    assert "'boolq', 'other'" in told_by(several) and "'boolq', 'other'" in told_by(several, "third")


@pytest.mark.parametrize(
    "text",
    ["[]", "7", "x: 1", "task_templates: {a: 1}", "a: [", "a: &x 1\nb: *x", "!!python/object/apply:os.system [ls]",
     "[" * 5000, "a: 2020-13-45", "{[]: 1}", "? {a: b}\n: c", "<<: 3", "\x00", "x" * 100_000],
)  # fmt: skip
def test_what_is_no_configuration_is_told(text: str) -> None:
    assert told_by(text)


def test_references_cannot_make_an_endless_value() -> None:
    lines = ["a0: &a0 {x: 1}"] + [f"a{i}: &a{i} {{<<: [{', '.join([f'*a{i - 1}'] * 9)}]}}" for i in range(1, 40)]
    assert "references" in told_by("\n".join(lines))
