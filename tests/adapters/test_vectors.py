"""Vectors trained elsewhere, as adapters: the same logits as by hand, and nothing opened that could run code."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from peft import PromptTuningConfig, get_peft_model
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from ptune_core.adapters.archive import refuse_pickle
from ptune_core.adapters.export import export_adapter
from ptune_core.adapters.format import load_adapter
from ptune_core.adapters.vectors import adapter_of
from ptune_core.errors import AdapterError, PTuneError
from ptune_core.inference.engine import Engine
from ptune_core.inference.protocol import Classify, build_request
from ptune_core.model.base import BaseModel, load_base_model
from ptune_core.prompt.template import TargetKind

# PEFT 0.21.2 asks transformers 5 for attributes by their old names.
pytestmark = pytest.mark.filterwarnings("ignore:.*is deprecated and will be removed in v6:FutureWarning")

LABELS = {"0": " bad", "1": " great"}
TEXT = "the film was great"
TEMPLATE = "[P*2] {text} [P*3] Answer :[ANSWER:label]"


@pytest.fixture
def base(tiny_gpt2: Path) -> BaseModel:
    return load_base_model(str(tiny_gpt2), target=TargetKind.ANSWER, device="cpu", precision="fp32")


@torch.no_grad()
def by_hand(folder: Path, pieces: list[str | torch.Tensor]) -> torch.Tensor:
    """Probabilities of the labels behind text and vectors, without PTune."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    tokenizer, words = AutoTokenizer.from_pretrained(folder), model.get_input_embeddings()
    rows = [words(torch.tensor(tokenizer(piece)["input_ids"])) if isinstance(piece, str) else piece for piece in pieces]
    logits = model(inputs_embeds=torch.cat(rows)[None]).logits[0, -1]
    return logits[[tokenizer(answer)["input_ids"][0] for answer in LABELS.values()]].softmax(dim=0)


def classified(adapter: Path) -> list[float]:
    fields = {"adapter": str(adapter), "rows": [{"text": TEXT}], "compare": False}
    return Engine().classify(build_request(Classify, fields))["tuned"][0]


@pytest.mark.parametrize("names", [["prompt"], ["soft.1.weight", "soft.0.weight"]])
def test_the_adapter_answers_as_the_vectors_do(base: BaseModel, tiny_gpt2: Path, tmp_path: Path, names) -> None:
    torch.manual_seed(0)
    vectors = torch.randn(5, base.hidden_size)
    parts = [vectors] if len(names) == 1 else [vectors[2:].clone(), vectors[:2].clone()]
    save_file(dict(zip(names, parts, strict=True)), tmp_path / "v.safetensors")
    trained = adapter_of(TEMPLATE, LABELS, tmp_path / "v.safetensors", base)
    export_adapter(trained, tmp_path / "adapter", tmp_path / "adapter.zip")
    expected = by_hand(tiny_gpt2, [vectors[:2], f" {TEXT}", vectors[2:], " Answer :"])
    for place in ("adapter", "adapter.zip"):
        assert classified(tmp_path / place) == pytest.approx(expected.tolist(), abs=1e-4)


def test_prompt_tuning_of_peft_is_a_front_prompt(base: BaseModel, tiny_gpt2: Path, tmp_path: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(tiny_gpt2, dtype=torch.float32)
    theirs = get_peft_model(model, PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=4)).eval()
    theirs.save_pretrained(tmp_path / "peft")
    loaded = load_adapter(tmp_path / "peft")
    assert loaded.template == "[P*4] {text}[ANSWER:answer]"
    vectors = theirs.get_prompt_embedding_to_save("default").detach()
    assert torch.equal(loaded.prompt_embeddings, vectors)
    # With labels, which PEFT does not know.
    trained = adapter_of("[P*4] {text}[ANSWER:label]", LABELS, tmp_path / "peft", base)
    export_adapter(trained, tmp_path / "adapter", tmp_path / "adapter.zip")
    ids = torch.tensor([AutoTokenizer.from_pretrained(tiny_gpt2)(TEXT)["input_ids"]])
    with torch.no_grad():
        logits = theirs(input_ids=ids, attention_mask=torch.ones_like(ids)).logits[0, -1]
    chosen = logits[[base.tokenizer(answer)["input_ids"][0] for answer in LABELS.values()]].softmax(dim=0)
    assert classified(tmp_path / "adapter") == pytest.approx(chosen.tolist(), abs=1e-4)


@pytest.mark.parametrize(
    ("tensors", "told"),
    [
        ({"prompt": (4, 32)}, r"shape \[4, 32\], not \[5, 32\]"),
        ({"prompt": (5, 16)}, r"\[5, 16\]"),
        ({"a.0": (2, 32), "a.1": (2, 32)}, r"a\.1 has the shape \[2, 32\], not \[3, 32\]"),
        ({"a": (2, 32), "b": (3, 32)}, "group.0"),
        ({"a.0": (2, 32), "a.1": (3, 32), "a.2": (1, 32)}, "2 named by the group's number"),
    ],
)
def test_vectors_that_do_not_fit_are_told(base: BaseModel, tmp_path: Path, tensors, told: str) -> None:
    save_file({name: torch.zeros(shape) for name, shape in tensors.items()}, tmp_path / "v.safetensors")
    with pytest.raises(AdapterError, match=told):
        adapter_of(TEMPLATE, LABELS, tmp_path / "v.safetensors", base)


@pytest.mark.parametrize("content", [b"", b"\x80\x04.", b"\xff" * 100])
def test_what_is_no_safetensors_file_is_told(base: BaseModel, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "v.safetensors").write_bytes(content)
    with pytest.raises(AdapterError, match="not a complete safetensors file"):
        adapter_of(TEMPLATE, None, tmp_path / "v.safetensors", base)


@pytest.mark.parametrize("name", ["model.nemo", "prompt.pt", "x.CKPT", "pytorch_model.bin", "a.pkl"])
def test_files_that_can_run_code_are_refused_with_the_lines_to_run(tmp_path: Path, name: str) -> None:
    with pytest.raises(AdapterError, match="can run code") as caught:  # it is not even there
        refuse_pickle(tmp_path / name)
    lines = str(caught.value).splitlines()[-3:]
    assert "save_file" in lines[2] and "safetensors" in lines[0] and "eval" not in str(caught.value)


def test_a_head_does_not_come_with_vectors(base: BaseModel, tmp_path: Path) -> None:
    with pytest.raises(AdapterError, match="no adapter"):
        adapter_of("[P*2] {text} [HEAD:label]", LABELS, tmp_path / "v.safetensors", base)


def test_labels_that_begin_alike_are_told(base: BaseModel, tmp_path: Path) -> None:
    with pytest.raises(PTuneError, match="begin with the same token"):
        adapter_of(TEMPLATE, {"0": " bad", "1": " bad"}, tmp_path / "v.safetensors", base)
