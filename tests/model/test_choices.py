"""Answers that a row brings itself: scored by all of their tokens, as if each were appended alone."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch.nn import functional

from ptune_core.model.base import load_base_model
from ptune_core.model.prompted import PromptedModel
from ptune_core.prompt.template import TargetKind, parse_template
from ptune_core.prompt.verbalizer import Verbalizer

ROWS = [
    {"text": "the dog liked the park", "a": "great .", "b": "a terrible , boring film"},
    {"text": "bad food", "a": "Answer : no", "b": "good"},
    {"text": "France", "a": "good", "b": "yes ."},
]
TEMPLATES = ["[P*3] {text} is [ANSWER:label]", "{text} so [P*2] it is [P*1][ANSWER:label]", "[P*3][ANSWER:label]"]


def choosing(folder: Path, template: str) -> PromptedModel:
    base = load_base_model(str(folder), target=TargetKind.ANSWER, device="cpu", precision="fp32")
    verbalizer = Verbalizer.from_labels(["first", "second"], {"first": " {a}", "second": " not {b|lower_first}"})
    return PromptedModel(base, parse_template(template), verbalizer)


def one_by_one(model: PromptedModel, prompt: torch.Tensor) -> torch.Tensor:
    """Mean log-probability of every answer, each in a pass of its own over its whole row."""
    assert model.verbalizer is not None
    scores = []
    for values in ROWS:
        row = model.rows.row(values)
        for answer in model.verbalizer.filled(values):
            ids = model.rows.encode_answer(answer)
            logits = model.base.model(inputs_embeds=model.embed([*row.ids, *ids], prompt)).logits[0]
            wanted = logits[len(row.ids) - 1 : -1].log_softmax(dim=-1)
            scores.append(wanted[torch.arange(len(ids)), ids].mean())
    return torch.stack(scores).view(len(ROWS), -1)


@pytest.mark.parametrize("template", TEMPLATES)
@pytest.mark.parametrize("base", ["tiny_gpt2", "tiny_llama"])
def test_scores_are_mean_log_probabilities(request: pytest.FixtureRequest, base: str, template: str) -> None:
    model = choosing(request.getfixturevalue(base), template)
    prompt = torch.randn(3, 32)
    rows = model.make_rows(ROWS)
    with torch.no_grad():
        expected = one_by_one(model, prompt)
        torch.testing.assert_close(model.label_logits(model.label_batch(rows), prompt), expected, atol=1e-4, rtol=0)
        torch.testing.assert_close(model.scores(rows, prompt, model.prefix(prompt)), expected, atol=1e-4, rtol=0)


def test_copies_learn_as_each_prompt_alone(tiny_llama: Path) -> None:
    model = choosing(tiny_llama, TEMPLATES[1])
    prompts = [torch.randn(3, 32, requires_grad=True) for _ in range(2)]
    rows, gold = model.make_rows(ROWS), [0, 1, 1]
    together = model.label_batch(rows, gold, copies=2)
    losses = functional.cross_entropy(model.label_logits(together, torch.cat(prompts)), together.labels)
    gradients = torch.autograd.grad(losses, prompts)
    for prompt, gradient in zip(prompts, gradients, strict=True):
        batch = model.label_batch(rows, gold)
        alone = functional.cross_entropy(model.label_logits(batch, prompt), batch.labels) / 2
        torch.testing.assert_close(gradient, torch.autograd.grad(alone, prompt)[0], atol=1e-4, rtol=1e-3)


def test_room_is_kept_for_the_longest_answer(tiny_gpt2: Path) -> None:
    model = choosing(tiny_gpt2, "{text} [P*3][ANSWER:label]")
    long = {"text": "great film " * 60, "a": "good", "b": "bad " * 20}
    [row] = model.make_rows([long])
    assert row.num_cut > 0 and len(row.ids) + max(map(len, row.choices)) == model.max_length
