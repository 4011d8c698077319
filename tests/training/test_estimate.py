"""An estimate is measured on the run's own steps, and leaves nothing changed."""

from __future__ import annotations

from pathlib import Path

import pytest

from ptune_core.data.ingest import ingest_text
from ptune_core.data.table import Tables
from ptune_core.training import loop
from ptune_core.training.session import estimate_run
from ptune_core.training.settings import RunSettings

ROWS = "text,label\n" + "".join(f"{'word ' * (i % 20)} {i},{'good' if i % 2 else 'bad'}\n" for i in range(80))

TEMPLATES = ["[P*4] {text} [ANSWER:label]", "{text} [P*4][ANSWER:label]", "[P*4] {text} [HEAD:label]"]


@pytest.mark.parametrize(
    "template", ["[P*4] {text} [ANSWER:label]", "{text} [P*4][ANSWER:label]", "[P*4] {text} [HEAD:label]"]
)
def test_an_estimate_adds_up(tmp_path: Path, tiny_gpt2: Path, template: str, monkeypatch: pytest.MonkeyPatch) -> None:
    widths = []
    begin_step = loop.Trainer.begin_step

    def counted(trainer: loop.Trainer) -> object:
        widths.append(trainer.progress.step)
        return begin_step(trainer)

    monkeypatch.setattr(loop.Trainer, "begin_step", counted)
    settings = RunSettings.parse(
        {
            "base_model": str(tiny_gpt2), "data": "pasted", "template": template, "max_steps": 50, "eval_every": 10,
            "batch_size": 4, "device": "cpu", "precision": "fp32", "encoder_hidden_size": 16,
        }
    )  # fmt: skip
    found = estimate_run(settings, Tables(ingest_text(ROWS, tmp_path / "data")), tmp_path / "run")
    assert len(widths) == 6, "three steps, each without and with the text cache"
    in_first = 17  # 68 training rows in batches of 4
    steps = in_first * found.first_step + (50 - in_first) * found.later_step
    assert found.total == pytest.approx(found.preparing + steps + 7 * found.evaluation)
    assert min(found.preparing, found.first_step, found.later_step, found.evaluation) > 0
    assert found.peak_mib > 100 and found.gpu_peak_mib is None
    assert (found.text_cache_mib > 0) == template.startswith("{text}")
    assert not list((tmp_path / "run").glob("checkpoints/*"))
    assert "at most" in str(found) and "MiB of main memory" in str(found)
