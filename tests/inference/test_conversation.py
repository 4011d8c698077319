"""A conversation of several turns, from a template that was trained on one."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from ptune_core.errors import InferenceError
from ptune_core.inference.conversation import with_turns
from ptune_core.inference.engine import Engine
from ptune_core.inference.protocol import Generate, Turn
from ptune_core.model.base import load_base_model
from ptune_core.model.suiting import resolve_template
from ptune_core.prompt.template import Column, Target, TargetKind, VirtualTokens, parse_template

TEXT = "system: be kind\nuser: [P*2] {question}\nassistant: [ANSWER:answer]"


@pytest.fixture
def chat_model(tiny_llama: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "chat-model"
    shutil.copytree(tiny_llama, folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.chat_template = "{% for m in messages %}<{{ m.role }}> {{ m.content }} {% endfor %}"
    tokenizer.save_pretrained(folder)
    return folder


def test_earlier_turns_are_columns_with_the_virtual_tokens_of_the_user_block() -> None:
    whole = with_turns(parse_template(TEXT), 2)
    assert [message.role for message in whole.messages] == ["system"] + ["user", "assistant"] * 3
    assert sum(isinstance(part, VirtualTokens) for part in whole.segments) == 3 and whole.num_virtual_tokens == 2
    columns = [part.name for part in whole.segments if isinstance(part, Column)]
    assert len(set(columns)) == 5 and columns[-1] == "question" and isinstance(whole.segments[-1], Target)


def test_each_model_reads_its_own_answers(chat_model: Path, make_adapter: Callable[..., Path]) -> None:
    base = load_base_model(str(chat_model), target=TargetKind.ANSWER, device="cpu", precision="fp32")
    adapter = make_adapter(chat_model, TEXT, segments=resolve_template(parse_template(TEXT), base).segments)
    engine = Engine()

    def texts(tuned: str, base: str) -> Any:
        turn = Turn(values={"question": "the film"}, tuned=tuned, base=base)
        request = Generate(adapter=str(adapter), values={"question": "was good"}, history=[turn], max_new_tokens=8)
        *_, last = engine.answer(request)
        return last

    first, other_base, other_tuned = texts("yes", "no"), texts("yes", "terrible"), texts("great", "no")
    assert first["tuned"] == other_base["tuned"] and first["base"] == other_tuned["base"]
    assert first["base"] != other_base["base"] and first["tuned"] != other_tuned["tuned"]


def test_a_template_without_roles_holds_no_conversation(tiny_gpt2: Path, make_adapter: Callable[..., Path]) -> None:
    adapter = make_adapter(tiny_gpt2, "[P*2] {text}[ANSWER:answer]")
    turn = Turn(values={"text": "a"}, tuned="b")
    with pytest.raises(InferenceError, match="conversation"):
        list(Engine().answer(Generate(adapter=str(adapter), values={"text": "c"}, history=[turn])))
