"""Trained prompts as a run would hand them over, for the tiny base models."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from ptune_core.model.trained import TrainedPrompt
from ptune_core.prompt.config import PromptEncoderConfig
from ptune_core.prompt.init import Prompt
from ptune_core.prompt.template import TargetKind, parse_template

HIDDEN = 32
METRICS = {
    "metric": "accuracy", "value": 0.91, "macro_f1": 0.9, "interval": [0.88, 0.94], "baseline_zero_shot": 0.52,
    "baseline_majority": 0.51, "steps": 300, "best_step": 240, "data": "Using 312 of 320 rows; 8 dropped: 8 empty text",
}  # fmt: skip

MakeTrained = Callable[..., TrainedPrompt]
Alone = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="session")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Alone]:
    """Runs code in a process that has never heard of PTune; exit code, output, errors. See `fork_server`."""
    out = tmp_path_factory.mktemp("alone")
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    server = subprocess.Popen(
        [sys.executable, "-P", str(Path(__file__).with_name("fork_server.py"))], cwd=out, env=environment, text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    assert server.stdin is not None and server.stdout is not None

    def run(code: str, cwd: Path, *path: Path) -> tuple[int, str, str]:
        order = {"code": code, "cwd": str(cwd), "path": [str(each) for each in path], "out": str(out)}
        server.stdin.write(json.dumps(order) + "\n")
        server.stdin.flush()
        exit_code = int(server.stdout.readline())
        return exit_code, (out / "out").read_text(), (out / "err").read_text()

    with server.stdin, server.stdout:
        yield run
        server.stdin.close()
        server.wait()


@pytest.fixture
def make_trained() -> MakeTrained:
    return _make_trained


def _make_trained(
    base: Path | str,
    template: str = "[P*4] {text}[ANSWER:label]",
    *,
    encoder: str = "MLP",
    answers: dict[str, str] | None = None,
    head_name: str | None = None,
    hidden: int = HIDDEN,
    task_type: str | None = "CAUSAL_LM",
    **changes: Any,
) -> TrainedPrompt:
    """A prompt with random weights and everything a run would add; `head_name` is `score` or `classifier`."""
    torch.manual_seed(7)
    parsed = parse_template(template)
    count = parsed.num_virtual_tokens
    is_head = parsed.target.kind is TargetKind.HEAD
    config = PromptEncoderConfig(
        task_type="SEQ_CLS" if is_head else task_type, num_virtual_tokens=count, token_dim=hidden,
        num_transformer_submodules=1, encoder_hidden_size=None if encoder == "none" else 16,
        encoder_reparameterization_type=encoder,
    )  # fmt: skip
    prompt = Prompt(config, torch.randn(count, hidden))
    for parameter in prompt.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    answers = {"negative": " terrible", "positive": " great"} if answers is None else answers
    head = {}
    if is_head:
        head[f"{head_name}.weight"] = torch.randn(len(answers), hidden)
        if head_name == "classifier":
            head[f"{head_name}.bias"] = torch.randn(len(answers))
    values: dict[str, Any] = {
        "prompt_embeddings": prompt().detach(),
        "template": template,
        "verbalizer": answers if answers and not is_head else None,
        "labels": tuple(answers),
        "columns": {name: name for name in parsed.columns},
        "base_model": str(base),
        "revision": None,
        "head": head,
        "encoder_state": {name: tensor.clone() for name, tensor in prompt.state_dict().items()},
        "prompt_config": config,
        "max_length": 48,
        "metrics": METRICS,
        "settings": {"name": "My run", "max_new_tokens": 8},
    }
    return TrainedPrompt(**(values | changes))
