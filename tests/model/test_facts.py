"""What is known of base models before they are loaded agrees with what they are once loaded."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import pytest

from ptune_core.model.base import load_base_model
from ptune_core.model.catalogue import CATALOGUE, entry_of, settings_of
from ptune_core.model.facts import BaseFacts, base_facts
from ptune_core.prompt.template import TargetKind
from ptune_core.training.settings import RunSettings


def test_the_demo_model_is_what_its_files_say() -> None:
    facts, entry = base_facts("demo"), entry_of("demo")
    base = load_base_model("demo", target=TargetKind.ANSWER)
    assert facts is not None and entry is not None and facts.is_here
    assert facts.parameters == entry.parameters == base.model.num_parameters()
    assert facts.hidden_size == entry.hidden_size == base.hidden_size
    assert facts.max_positions == entry.max_positions == base.max_positions
    assert facts.targets == entry.targets and TargetKind.ANSWER in facts.targets


def test_catalogue_settings_are_settings() -> None:
    for entry in CATALOGUE:
        assert RunSettings.parse(entry.settings) and entry.target in entry.targets
    assert settings_of("demo") == {} == settings_of("no/such-model")


def folder(tmp_path: Path, **config: object) -> str:
    (tmp_path / "config.json").write_text(json.dumps(config))
    return str(tmp_path)


@pytest.mark.parametrize(
    ("architecture", "targets"),
    [
        ("LlamaForCausalLM", (TargetKind.ANSWER, TargetKind.HEAD)),
        ("GPT2LMHeadModel", (TargetKind.ANSWER, TargetKind.HEAD)),
        ("RobertaForMaskedLM", (TargetKind.MASK, TargetKind.HEAD)),
        ("BertModel", (TargetKind.HEAD,)),
        ("SomethingNew", ()),
    ],
)
def test_kind_of_a_folder(tmp_path: Path, architecture: str, targets: tuple[TargetKind, ...]) -> None:
    facts = base_facts(folder(tmp_path, architectures=[architecture], n_positions=77))
    assert facts is not None and facts.targets == targets and facts.max_positions == 77


def test_an_encoder_decoder_writes(tmp_path: Path) -> None:
    facts = base_facts(folder(tmp_path, architectures=["T5ForConditionalGeneration"], is_encoder_decoder=True))
    assert facts is not None and facts.targets == (TargetKind.ANSWER,)


@pytest.mark.parametrize("config", ["", "[]", "{", "[" * 100_000, '{"architectures": 7, "hidden_size": "x"}'])
def test_damaged_files_are_no_facts_and_no_error(tmp_path: Path, config: str) -> None:
    (tmp_path / "config.json").write_text(config)
    (tmp_path / "model.safetensors").write_bytes(struct.pack("<Q", 2**60))
    assert base_facts(str(tmp_path)) in (None, BaseFacts(is_here=True))


def test_folders_stay_unread_where_strangers_are(tmp_path: Path) -> None:
    assert base_facts(folder(tmp_path, architectures=["BertModel"]), may_read_folders=False) is None


@pytest.mark.parametrize("id", ["not an id!!", "", "/no/such/folder", "../..", "x" * 500])
def test_what_cannot_be_is_not_known(id: str) -> None:
    assert base_facts(id) is None
