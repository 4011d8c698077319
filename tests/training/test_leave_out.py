"""What a virtual token is worth is what is lost without it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from ptune_core.data.batching import Row
from ptune_core.data.examples import SplitOptions, build_examples
from ptune_core.data.ingest import ingest_text
from ptune_core.model.base import load_base_model
from ptune_core.model.prompted import PromptedModel
from ptune_core.prompt.template import parse_template
from ptune_core.training.leave_out import LeftOut, leave_out_each, without
from ptune_core.training.tasks import Batching, LabelTask, TextTask

ROWS = "text,label\n" + "".join(f"great film {i},good\nbad food {i},bad\n" for i in range(15))


def task_of(folder: Path, template: str, tmp_path: Path) -> LabelTask | TextTask:
    parsed = parse_template(template)
    examples = build_examples(
        ingest_text(ROWS, tmp_path / "data"), parsed, columns={}, labels=None,
        split=SplitOptions(0.5, 1000, 0),
    )  # fmt: skip
    is_text = parsed.target.column == "text"
    base = load_base_model(str(folder), target=parsed.target.kind, num_labels=2, device="cpu", precision="fp32")
    model = PromptedModel(base, parsed, None if is_text else examples.verbalizer)
    kind = TextTask if is_text else LabelTask
    return kind(model, examples.train, examples.validation, Batching(4, 4, 0), tmp_path / "tokens")


def test_a_token_is_taken_out_of_all_its_places() -> None:
    row = Row((5, -1, 7, -2, -3, -1), num_cut=2)
    assert without(row, [0]) == Row((5, 7, -2, -3), num_cut=2)
    assert without(row, [1, 2]) == Row((5, -1, 7, -1), num_cut=2)


@pytest.mark.parametrize(
    ("base", "template", "without_second", "without_group"),
    [
        # What is left is another template, whose own evaluation is the measure.
        ("tiny_gpt2", "{text} [P*3] so [P*2][ANSWER:label]", "{text} [P*2] so [P*2][ANSWER:label]", "{text} so [P*2]"),
        ("tiny_llama", "It {text} [P:a] so [P*2] is [P:a][ANSWER:label]", "It {text} [P:a] so [P] is [P:a]",
         "It {text} so [P*2] is"),
        ("tiny_bert", "{text} [P*3] so [P*2] [HEAD:label]", "{text} [P*2] so [P*2]", "{text} so [P*2]"),
    ],
)  # fmt: skip
def test_without_it_the_result_is_that_of_the_smaller_template(
    base: str, template: str, without_second: str, without_group: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    task = task_of(request.getfixturevalue(base), template, tmp_path)
    torch.manual_seed(2)
    prompt = torch.randn(task.model.num_virtual_tokens, task.model.base.hidden_size)
    found = leave_out_each(task, prompt)
    assert len(found.tokens) == len(prompt) and len(found.groups) == 2 and found.examples == len(task.validation)
    whole = task.evaluate(prompt)
    assert (found.whole.value, found.whole.loss) == pytest.approx((whole.value, whole.loss), abs=1e-4)

    def by_hand(smaller: str, rows: Sequence[int]) -> float:
        target = template[template.rindex("[") :]
        text = smaller if smaller.endswith(target) else f"{smaller} {target}"
        model = PromptedModel(task.model.base, parse_template(text), task.model.verbalizer)
        left = LabelTask(model, task.train, task.validation, task.batching, tmp_path / "smaller")
        return left.evaluate(prompt[list(rows)]).loss

    count = task.model.template.groups[0].count or 0
    kept = [row for row in range(len(prompt)) if row != 1]
    assert found.tokens[1].loss == pytest.approx(by_hand(without_second, kept), abs=1e-4)
    assert found.groups[0].loss == pytest.approx(by_hand(without_group, range(count, len(prompt))), abs=1e-4)
    assert len({round(result.loss, 5) for result in found.tokens}) > 1


def test_text_to_generate_is_measured_by_its_loss(tiny_gpt2: Path, tmp_path: Path) -> None:
    task = task_of(tiny_gpt2, "{label} [P*2] so[ANSWER:text]", tmp_path)
    torch.manual_seed(2)
    prompt = torch.randn(2, task.model.base.hidden_size)
    found: LeftOut = leave_out_each(task, prompt)
    whole = task.evaluate(prompt)
    assert found.metric == "loss" and found.whole.value == pytest.approx(whole.loss, abs=1e-4)
    assert found.groups[0].loss == pytest.approx(task.zero_shot.loss, abs=1e-4), "without any it is the base model"
