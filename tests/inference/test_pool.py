"""Many adapters over one base model: mixed batches give what each adapter gives alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from ptune_core.adapters.format import load_adapter, save_adapter
from ptune_core.errors import AdapterError
from ptune_core.inference.loaded import LoadedAdapter, prompted_model, put_head_on
from ptune_core.inference.pool import AdapterPool
from ptune_core.inference.probabilities import probabilities
from ptune_core.model.base import BaseModel, load_base_model
from ptune_core.model.trained import TrainedPrompt
from ptune_core.prompt.template import TargetKind

FRONT = " {text}[ANSWER:label]"
TEXTS = ["the film was great", "a terrible waste of time ; the food was bad and I loved every minute", "", "great"]
TWO = {"negative": " bad", "positive": " good"}
THREE = {"no": " no", "yes": " yes", "maybe": " time"}
ADAPTERS = [
    ("[P*4] {text}[ANSWER:label]", TWO),
    ("[P*4] {text}[ANSWER:label]", THREE),
    ("[P*4] {text}[ANSWER:label]", TWO),
    ("{text} [P*7][ANSWER:label]", TWO),
    ("Question : [P*2] {text} [P*3] Answer :[ANSWER:label]", THREE),
]


def load(folder: Path, target: TargetKind = TargetKind.ANSWER, num_labels: int | None = None) -> BaseModel:
    return load_base_model(str(folder), target=target, num_labels=num_labels, device="cpu", precision="fp32")


def alone(base: BaseModel, adapter: Path, text: str) -> list[float]:
    loaded = LoadedAdapter(adapter)
    model = prompted_model(loaded, base)
    put_head_on(base, loaded.trained.head)
    with torch.no_grad():
        scores = model.scores(model.make_rows([{"text": text}]), loaded.trained.prompt)
    return probabilities(scores)[0].tolist()


def assert_same(found: list[list[float]], expected: list[list[float]]) -> None:
    assert len(found) == len(expected)
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("prefix_mib", [0, 64, 0.008], ids=["none stored", "all stored", "some stored"])
@pytest.mark.parametrize("base", ["tiny_gpt2", "tiny_llama"])
def test_mixed_batches_are_what_each_adapter_gives_alone(
    base: str, prefix_mib: float, request: pytest.FixtureRequest, make_adapter: Callable[..., Path]
) -> None:
    folder = request.getfixturevalue(base)
    model = load(folder)
    adapters = [
        make_adapter(folder, template, seed=seed, labels=labels) for seed, (template, labels) in enumerate(ADAPTERS)
    ]
    pool = AdapterPool(model, batch_size=6, prefix_mib=prefix_mib)
    for i, adapter in enumerate(adapters):
        pool.add(str(i), load_adapter(adapter))
    requests = [(str(i), {"text": text}) for text in TEXTS for i in range(len(adapters)) if text or i > 2]
    expected = [alone(model, adapters[int(name)], values["text"]) for name, values in requests]
    for _ in range(2):
        assert_same(pool.classify(requests), expected)
    assert pool.prefix_mib <= prefix_mib and bool(pool.prefix_mib) == bool(prefix_mib)
    if prefix_mib == 64:
        with_room = pool.prefix_mib
        pool.remove("0")
        assert pool.prefix_mib < with_room


@pytest.mark.parametrize("prefix_mib", [0, 64], ids=["none stored", "all stored"])
def test_deep_adapters_are_mixed_with_others(
    prefix_mib: float, tiny_gpt2: Path, make_adapter: Callable[..., Path], tmp_path: Path
) -> None:
    model = load(tiny_gpt2)
    folders = [
        make_adapter(tiny_gpt2, template, seed=seed, labels=labels) for seed, (template, labels) in enumerate(ADAPTERS)
    ]
    for seed, (folder, count) in enumerate(
        [(folders[1], 4), (make_adapter(tiny_gpt2, f"[P*6]{FRONT}", labels=TWO), 6)]
    ):
        torch.manual_seed(seed)
        save_adapter(replace(load_adapter(folder), deep=torch.randn(2, count, 32)), tmp_path / f"deep-{seed}")
        folders.append(tmp_path / f"deep-{seed}")
    pool = AdapterPool(model, batch_size=16, prefix_mib=prefix_mib)
    for i, adapter in enumerate(folders):
        pool.add(str(i), load_adapter(adapter))
    requests = [(str(i), {"text": text}) for text in TEXTS if text for i in range(len(folders))]
    expected = [alone(model, folders[int(name)], values["text"]) for name, values in requests]
    assert_same(pool.classify(requests), expected)
    assert expected[1] != pytest.approx(expected[5]), "what is added makes a difference"


def test_decoder_heads_are_mixed(tiny_llama: Path, make_adapter: Callable[..., Path]) -> None:
    model = load(tiny_llama, TargetKind.HEAD, 2)
    adapters = [make_adapter(tiny_llama, "[P*4] {text} [HEAD:label]", seed=seed, labels=TWO) for seed in range(3)]
    pool = AdapterPool(model)
    for i, adapter in enumerate(adapters):
        pool.add(str(i), load_adapter(adapter))
    requests = [(str(i), {"text": text}) for text in TEXTS for i in range(3) if text]
    expected = [alone(model, adapters[int(name)], values["text"]) for name, values in requests]
    assert_same(pool.classify(requests), expected)
    assert pool.classify(requests[:1])[0] != pytest.approx(pool.classify([("1", requests[0][1])])[0])


def test_heads_of_an_encoder_are_refused(tiny_bert: Path) -> None:
    with pytest.raises(AdapterError, match="cannot share a batch"):
        AdapterPool(load(tiny_bert, TargetKind.HEAD, 2))


def trained_for(folder: Path, make_adapter: Callable[..., Path], **changes: object) -> TrainedPrompt:
    template, labels = ADAPTERS[0]
    return replace(load_adapter(make_adapter(folder, template, labels=labels)), **changes)


def test_adapters_come_and_go_and_hold_their_own_tensors_only(
    tiny_gpt2: Path, make_adapter: Callable[..., Path]
) -> None:
    pool = AdapterPool(load(tiny_gpt2))
    trained = trained_for(tiny_gpt2, make_adapter)
    for i in range(100):
        pool.add(str(i), trained)
    bytes_each = 4 * 32 * 4 + 2 * 8
    assert len(pool) == 100 and pool.mib * 2**20 == 100 * bytes_each
    assert "7" in pool
    before = pool.classify([("7", {"text": "great"})])
    trained.prompt_embeddings.zero_()
    assert pool.classify([("7", {"text": "great"})]) == before, "it holds a copy"
    pool.add("7", replace(trained, prompt_embeddings=trained.prompt_embeddings + 1))
    assert len(pool) == 100 and pool.classify([("7", {"text": "great"})]) != before
    pool.remove("7")
    assert "7" not in pool
    for ask in (lambda: pool.remove("7"), lambda: pool.classify([("7", {"text": "great"})])):
        with pytest.raises(AdapterError, match="no adapter '7' in the pool"):
            ask()
    assert pool.classify([]) == []


def test_a_replaced_adapter_does_not_answer_from_what_was_stored(
    tiny_gpt2: Path, make_adapter: Callable[..., Path]
) -> None:
    trained = trained_for(tiny_gpt2, make_adapter)
    other = replace(trained, prompt_embeddings=trained.prompt_embeddings * -1)
    request = [("a", {"text": "great"})]
    answers = []
    for prefix_mib in (0, 64):
        pool = AdapterPool(load(tiny_gpt2), prefix_mib=prefix_mib)
        pool.add("a", trained)
        pool.classify(request)
        pool.add("a", other)
        answers.append(pool.classify(request))
    assert_same(*answers)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"labels": (), "verbalizer": None}, "writes text"),
        ({"base_model": "someone/other"}, "another base model"),
        ({"prompt_embeddings": torch.zeros(4, 16)}, "does not fit.*4 virtual tokens of size 16.*4 of size 32"),
    ],
)
def test_what_does_not_belong_is_refused(
    changes: dict[str, object], message: str, tiny_gpt2: Path, make_adapter: Callable[..., Path]
) -> None:
    pool = AdapterPool(load(tiny_gpt2))
    with pytest.raises(AdapterError, match=message):
        pool.add("a", trained_for(tiny_gpt2, make_adapter, **changes))
    assert len(pool) == 0


def test_a_head_of_another_shape_is_refused(tiny_llama: Path, make_adapter: Callable[..., Path]) -> None:
    pool = AdapterPool(load(tiny_llama, TargetKind.HEAD, 2))
    trained = load_adapter(make_adapter(tiny_llama, "[P*4] {text} [HEAD:label]", labels=TWO))
    with pytest.raises(AdapterError, match="head does not fit"):
        pool.add("a", replace(trained, head={"score.weight": torch.zeros(3, 32)}))
