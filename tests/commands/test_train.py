"""`estimate --json`: what the page's Run card reads."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ptune_core.__main__ import main
from ptune_core.data.ingest import ingest_text

ROWS = "text,label\n" + "".join(f"word {i},{'good' if i % 2 else 'bad'}\n" for i in range(40))


@pytest.mark.parametrize(
    ("template", "encoder", "kept", "trained"),
    [
        ("[P*3] {text} [ANSWER:label]", "none", 3, (3, 0)),
        ("[P*3] {text} [ANSWER:label]", "MLP", 3, (3 + 16 + 16 + 1, 16 + 16 * 16 + 16)),
        ("[P*3] {text} [HEAD:label]", "none", 3 + 2, (3 + 2, 0)),
    ],
)
def test_numbers_are_one_json_object(
    tmp_path: Path, tiny_gpt2: Path, capsys: pytest.CaptureFixture[str],
    template: str, encoder: str, kept: int, trained: tuple[int, int],
) -> None:  # fmt: skip
    """`kept` times H values, and `trained[0]` times H and `trained[1]`: three layers of an MLP of width 16."""
    ingest_text(ROWS, tmp_path / "rows")
    options = [
        f"base_model={tiny_gpt2}", "data=gone.csv", f"template={template}", "max_steps=3", "device=cpu",
        "precision=fp32", f"encoder_reparameterization_type={encoder}", "encoder_hidden_size=16",
        "sweep={seed: [0, 1]}",
    ]  # fmt: skip
    assert main(["estimate", "--json", "--rows", str(tmp_path / "rows"), "--set", *options]) == 0
    numbers = json.loads(capsys.readouterr().out.splitlines()[-1])
    hidden = json.loads((tiny_gpt2 / "config.json").read_text())["n_embd"]
    assert numbers["trained"] == trained[0] * hidden + trained[1] and numbers["kept_bytes"] == 4 * kept * hidden
    assert (numbers["trials"], numbers["steps"], numbers["disk_mib"]) == (2, 3, 0)
    assert numbers["seconds"] > 0 and numbers["peak_mib"] > 100 and numbers["gpu_peak_mib"] is None
