"""An adapter whose rows bring their own answers: the same scores in PTune, in its inference and without PTune."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest
import torch

from ptune_core.adapters.snippet import snippet
from ptune_core.errors import AdapterError
from ptune_core.inference.engine import Engine
from ptune_core.inference.loaded import LoadedAdapter, prompted_model
from ptune_core.inference.pool import AdapterPool
from ptune_core.inference.protocol import Classify
from ptune_core.model.base import load_base_model
from ptune_core.runs.worker import train_here
from ptune_core.training.settings import RunSettings

ROWS = [
    {"text": "the dog liked the park", "a": "Great .", "b": "a terrible , boring film"},
    {"text": "bad food", "a": "no", "b": "Answer : good"},
]
LABELS = {"0": " {a|lower_first}", "1": " {b}"}
BASES = [
    ("tiny_gpt2", "[P*2] {text} so[ANSWER:label]"),
    ("tiny_gpt2", "{text} [P*2][ANSWER:label]"),
    ("tiny_bert_lm", "{text} [P*2] is [MASK:label] ."),
    ("tiny_t5", "[P*2] {text}[ANSWER:label]"),
]


def trained(base: Path, template: str, tmp_path: Path) -> Path:
    rows = "text\ta\tb\tlabel\n" + "".join(f"dog {i}\tgreat\tbad film\t{i % 2}\n" for i in range(12))
    source = tmp_path / "rows.tsv"
    source.write_text(rows, encoding="utf-8")
    settings = {
        "base_model": str(base), "data": str(source), "template": template, "labels": LABELS, "max_steps": 2,
        "eval_every": 1, "encoder_hidden_size": 8, "device": "cpu", "precision": "fp32", "batch_size": 4,
    }  # fmt: skip
    result = train_here(RunSettings.parse(settings), tmp_path / "run")
    assert result["state"] == "finished", result
    assert result["labels"] == ["0", "1"]
    return tmp_path / "run" / "adapter"


def loader(adapter: Path) -> Any:
    """`ptune_loader.py` from the adapter's own folder."""
    spec = importlib.util.spec_from_file_location("ptune_loader_alone", adapter / "ptune_loader.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(("base", "template"), BASES)
def test_an_adapter_scores_the_same_everywhere(
    request: pytest.FixtureRequest, tmp_path: Path, base: str, template: str
) -> None:
    folder = request.getfixturevalue(base)
    adapter = trained(folder, template, tmp_path)
    loaded = LoadedAdapter(adapter)
    assert loaded.columns == ("text", "a", "b")
    model = prompted_model(
        loaded, load_base_model(str(folder), target=loaded.base_key.target, device="cpu", precision="fp32")
    )
    with torch.no_grad():
        rows = model.make_rows(ROWS)
        expected = model.label_logits(model.label_batch(rows), loaded.trained.prompt_embeddings)
    alone = loader(adapter).Adapter(adapter)
    torch.testing.assert_close(torch.stack([alone.logits(row) for row in ROWS]), expected, atol=1e-4, rtol=0)
    answered = Engine().classify(Classify(adapter=str(adapter), rows=ROWS, compare=False))
    torch.testing.assert_close(torch.tensor(answered["tuned"]), expected.softmax(dim=1), atol=1e-4, rtol=0)
    written = snippet(loaded.trained)
    assert "Adapter(" in written and "PeftModel" not in written, "stock PEFT compares no such answers"


def test_a_pool_of_adapters_takes_none_whose_rows_bring_answers(tmp_path: Path, tiny_gpt2: Path) -> None:
    loaded = LoadedAdapter(trained(tiny_gpt2, BASES[0][1], tmp_path))
    base = load_base_model(str(tiny_gpt2), target=loaded.base_key.target, device="cpu", precision="fp32")
    with pytest.raises(AdapterError, match="bring their own answers"):
        AdapterPool(base).add("x", loaded.trained)
