"""Compiled layers: the same numbers, from a number of graphs that neither depth nor lengths raise.

Compiled by `aot_eager`, which takes the same graphs apart as inductor and then lets torch compute them: no C++ compiler
is needed, and it takes no time.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._dynamo.backends.registry import lookup_backend
from torch.nn import functional
from transformers import AutoTokenizer, GPT2Config, GPT2LMHeadModel

from ptune_core.errors import SettingsError
from ptune_core.model import compiled
from ptune_core.model.base import load_base_model
from ptune_core.model.compiled import LayerPast, compile_layers
from ptune_core.model.generation import Sampling, complete
from ptune_core.model.kernels import use_onednn
from ptune_core.model.prompted import PromptedModel
from ptune_core.prompt.template import TargetKind, parse_template
from ptune_core.prompt.verbalizer import Verbalizer

# torch shows nobody this warning of its own, but warnings are errors here before it can hide them.
pytestmark = pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning")

TEXTS = ["great film", "the food was bad and boring and a terrible waste of time", "no", "once upon a time"]
TEMPLATES = {
    "front": "[P*4] {text} :[ANSWER:label]",
    "after": "{text} is [P*4][ANSWER:label]",
    "between": "The text : {text} [P*2] was [P*2][ANSWER:label]",
    "head": "[P*4] {text} [HEAD:label]",
}


class Graphs:
    """`aot_eager`, counting the graphs that it is given."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, graph: Any, inputs: Any) -> Any:
        self.count += 1
        return lookup_backend("aot_eager")(graph, inputs)


def load(folder: Path, template: str) -> PromptedModel:
    parsed = parse_template(template)
    torch.manual_seed(0)  # of a new head
    base = load_base_model(str(folder), target=parsed.target.kind, num_labels=2, device="cpu", precision="fp32")
    answers = None if parsed.target.kind is TargetKind.HEAD else {"bad": " bad", "good": " good"}
    return PromptedModel(base, parsed, Verbalizer.from_labels(["bad", "good"], answers))


def numbers(model: PromptedModel, texts: list[str], copies: int = 1) -> list[Tensor]:
    """Logits without gradients, then loss and gradient of the prompts."""
    generator = torch.Generator().manual_seed(7)
    size = (copies * model.num_virtual_tokens, model.base.hidden_size)
    prompt = torch.randn(size, generator=generator).requires_grad_(True)
    rows = model.make_rows([{"text": text} for text in texts])
    with torch.no_grad():
        logits = model.label_logits(model.label_batch(rows, copies=copies), prompt)
    labels = torch.arange(len(logits)) % 2
    batch = model.label_batch(rows, labels[: len(rows)].tolist(), copies=copies)
    loss = functional.cross_entropy(model.label_logits(batch, prompt), labels)
    return [logits, loss.detach(), *torch.autograd.grad(loss, [prompt])]


def assert_same(found: list[Tensor], expected: list[Tensor]) -> None:
    for ours, theirs in zip(found, expected, strict=True):
        assert float((ours - theirs).norm() / theirs.norm()) < 1e-5


@pytest.mark.parametrize(
    ("base", "template", "batches"),
    [("tiny_gpt2", "front", [TEXTS, ["bad"], TEXTS[1:]]), ("tiny_llama", "between", [TEXTS, TEXTS[:2]])],
)
def test_losses_and_gradients_are_those_of_plain_layers(
    base: str, template: str, batches: list[list[str]], request: pytest.FixtureRequest
) -> None:
    model = load(request.getfixturevalue(base), TEMPLATES[template])
    expected = [numbers(model, texts) for texts in batches]
    several = numbers(model, TEXTS, copies=3)
    graphs = Graphs()
    compile_layers(model.base, graphs)
    for texts, numbers_of in zip(batches, expected, strict=True):
        assert_same(numbers(model, texts), numbers_of)
    assert_same(numbers(model, TEXTS, copies=3), several)
    most = graphs.count
    assert 0 < most <= 12, "a graph for each way a layer is called"
    for words in range(2, 9):  # lengths that did not come before
        numbers(model, [" ".join(["film"] * words), "a great film", "bad"])
    assert graphs.count == most, "it is compiled anew for other lengths"


def test_depth_does_not_raise_the_number_of_graphs(tiny_gpt2: Path, tmp_path: Path) -> None:
    counts = {}
    for depth in (2, 5):
        config = GPT2Config.from_pretrained(tiny_gpt2, n_layer=depth)
        GPT2LMHeadModel(config).save_pretrained(tmp_path)
        AutoTokenizer.from_pretrained(tiny_gpt2).save_pretrained(tmp_path)
        model = load(tmp_path, TEMPLATES["after"])
        graphs = Graphs()
        compile_layers(model.base, graphs)
        with torch.no_grad():
            rows = model.make_rows([{"text": text} for text in TEXTS])
            model.label_logits(model.label_batch(rows), torch.zeros(4, 32))
        counts[depth] = graphs.count
    assert counts[2] == counts[5] == 2, "the texts, and what comes after them"


def test_encoders_are_compiled_too(tiny_bert: Path) -> None:
    model = load(tiny_bert, TEMPLATES["head"])
    expected = numbers(model, TEXTS)
    graphs = Graphs()
    compile_layers(model.base, graphs)
    assert_same(numbers(model, TEXTS), expected)
    assert graphs.count > 0


def test_the_same_text_is_written(tiny_llama: Path) -> None:
    """What is generated as a sample goes on from the cache that compiled layers have filled."""
    model = load(tiny_llama, TEMPLATES["after"])
    prompt = torch.randn(4, 32, generator=torch.Generator().manual_seed(3))
    [row] = model.make_rows([{"text": TEXTS[1]}])
    expected = complete(model, row, prompt, Sampling(max_new_tokens=8))
    graphs = Graphs()
    compile_layers(model.base, graphs)
    assert complete(model, row, prompt, Sampling(max_new_tokens=8)) == expected != ""
    assert 0 < graphs.count <= 2, "single tokens are not worth a graph"


def test_beyond_the_most_graphs_layers_are_plain(tiny_gpt2: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiled, "MOST_GRAPHS", 1)
    model = load(tiny_gpt2, TEMPLATES["after"])
    expected = numbers(model, TEXTS)
    graphs = Graphs()
    compile_layers(model.base, graphs)
    assert_same(numbers(model, TEXTS), expected)
    assert graphs.count == 1


def test_onednn_is_left_where_layers_are_compiled(tiny_gpt2: Path) -> None:
    """Inductor cannot lower it; the last layer, which computes target rows alone, keeps it."""
    model = load(tiny_gpt2, TEMPLATES["after"])
    use_onednn(model.base.body)
    compile_layers(model.base, "aot_eager")
    first, last = model.base.model.transformer.h
    assert not any("forward" in vars(module) for module in first.mlp.modules())
    assert "forward" not in vars(last) and "forward" in vars(last.mlp.c_fc)


def refuse(graph: Any, inputs: Any) -> Any:
    raise RuntimeError("No working C++ compiler found")


def test_what_cannot_be_compiled_is_told_with_the_way_out(tiny_gpt2: Path) -> None:
    model = load(tiny_gpt2, TEMPLATES["after"])
    compile_layers(model.base, refuse)
    with pytest.raises(SettingsError, match=r"No working C\+\+ compiler found.* g\+\+ .*Set compile to off"):
        numbers(model, TEXTS)


def test_a_layer_that_asks_its_cache_for_more_is_refused(tiny_gpt2: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = load(tiny_gpt2, TEMPLATES["after"])
    compile_layers(model.base, "aot_eager")
    monkeypatch.delattr(LayerPast, "update")
    with pytest.raises(SettingsError, match="cannot compile the layers.*Set compile to off"):
        numbers(model, TEXTS)


def test_a_layers_past_is_what_transformers_cache_has_of_it() -> None:
    keys, values, more = torch.randn(1, 2, 5, 4), torch.randn(1, 2, 5, 4), torch.randn(1, 2, 3, 4)
    past = LayerPast(keys, values, keeps=True)
    assert past.get_seq_length() == 5 and LayerPast(None, None, keeps=False).get_seq_length() == 0
    found = past.update(more, more + 1, 7)
    assert [tensor.shape[2] for tensor in found] == [8, 8] and torch.equal(found[0][:, :, 5:], more)
    assert past.made is not None and past.made[0] is more
