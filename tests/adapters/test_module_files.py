"""Adapters of a prompted module: PEFT's files both ways, exact continuing, and what is refused."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from peft import PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from ptune_core.adapters.format import load_adapter
from ptune_core.adapters.module_files import load_into, load_module, save_module
from ptune_core.adapters.tensors import STATE_PREFIX
from ptune_core.errors import AdapterError, SettingsError
from ptune_core.model.module import PromptedModule
from ptune_core.prompt.config import PromptEncoderConfig

# PEFT 0.21.2 asks transformers 5 for attributes by their old names.
pytestmark = pytest.mark.filterwarnings("ignore:.*is deprecated and will be removed in v6:FutureWarning")

MakeBase = Callable[[str, str], Any]

V = 4
IDS = torch.tensor([[11, 12, 13, 14, 15, 16], [21, 22, 23, 24, 25, 26]])
FAMILIES = {
    "CAUSAL_LM": ("gpt2", "llama", "gemma3", "opt"),
    "SEQ_CLS": ("bert", "roberta", "gpt2", "qwen2"),
    "TOKEN_CLS": ("bert", "deberta", "llama"),
    "QUESTION_ANS": ("bert", "roberta"),
    "SEQ_2_SEQ_LM": ("t5", "bart"),
    "FEATURE_EXTRACTION": ("bert", "deberta", "gpt2"),
}
CASES = [(task, family) for task, families in FAMILIES.items() for family in families]
ENCODERS = ("MLP", "LSTM")


def values_for(task: str, family: str, encoder: str, **changes: Any) -> dict[str, Any]:
    values = {
        "task_type": task, "num_virtual_tokens": V, "encoder_hidden_size": 16,
        "encoder_reparameterization_type": encoder,
    }  # fmt: skip
    if family == "opt":
        values["token_dim"] = 16  # PEFT bug: it takes hidden_size, which these word embeddings have not
    return values | changes


def module_of(base: Any, task: str, family: str, encoder: str = "MLP", **changes: Any) -> PromptedModule:
    torch.manual_seed(6)
    module = PromptedModule(base, PromptEncoderConfig(**values_for(task, family, encoder, **changes)))
    scramble(module.adapter)
    return module


def scramble(part: nn.Module) -> None:
    for parameter in part.parameters():
        if parameter.requires_grad:
            nn.init.normal_(parameter, std=0.3)


def peft_of(base: Any, task: str, family: str, encoder: str) -> Any:
    torch.manual_seed(7)
    model = get_peft_model(base, peft.PromptEncoderConfig(**values_for(task, family, encoder)))
    scramble(model)
    return model.eval()


@torch.no_grad()
def outputs(model: Any, task: str) -> Tensor:
    """What a model says about `IDS`, virtual rows cut off."""
    extra: dict[str, Any] = {}
    if task == "SEQ_2_SEQ_LM":
        extra["decoder_input_ids"] = torch.tensor([[2, 5, 6], [2, 7, 8]])
    output = model(input_ids=IDS, attention_mask=torch.ones_like(IDS), **extra)
    if task == "QUESTION_ANS":
        values = torch.stack([output.start_logits, output.end_logits], dim=-1)
    else:
        values = output["last_hidden_state" if task == "FEATURE_EXTRACTION" else "logits"]
    return values if task in ("SEQ_CLS", "SEQ_2_SEQ_LM") else values[:, -IDS.shape[1] :]


def close(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5 * max(1.0, float(expected.abs().max())))


@pytest.mark.parametrize("encoder", ENCODERS)
@pytest.mark.parametrize(("task", "family"), CASES)
def test_ours_load_in_peft(make_base: MakeBase, task: str, family: str, encoder: str, tmp_path: Path) -> None:
    module = module_of(make_base(family, task), task, family, encoder)
    save_module(module, tmp_path)
    theirs = PeftModel.from_pretrained(make_base(family, task), str(tmp_path)).eval()
    close(outputs(theirs, task), outputs(module.eval(), task))


@pytest.mark.parametrize("encoder", ENCODERS)
@pytest.mark.parametrize(("task", "family"), CASES)
def test_pefts_load_here(make_base: MakeBase, task: str, family: str, encoder: str, tmp_path: Path) -> None:
    theirs = peft_of(make_base(family, task), task, family, encoder)
    theirs.save_pretrained(tmp_path)
    # As PEFT loads it: with the LSTM its live model rounds differently from what it saves.
    expected = outputs(PeftModel.from_pretrained(make_base(family, task), str(tmp_path)).eval(), task)
    torch.testing.assert_close(expected, outputs(theirs, task), rtol=0, atol=1e-4)
    module = load_module(make_base(family, task), tmp_path)
    close(outputs(module, task), expected)
    assert not any(parameter.requires_grad for parameter in module.parameters())
    # PEFT keeps no encoder: its prompt embeddings are the start of a fresh one, which adds nothing yet.
    trainable = load_module(make_base(family, task), tmp_path, is_trainable=True)
    close(outputs(trainable, task), expected)
    assert torch.equal(trainable.prompt_embeddings(), module.prompt_embeddings())


@pytest.mark.parametrize(("task", "family"), CASES)
def test_the_files_are_pefts(make_base: MakeBase, task: str, family: str, tmp_path: Path) -> None:
    base = make_base(family, task)
    save_module(module_of(base, task, family), tmp_path / "ours", with_encoder=False)
    peft_of(make_base(family, task), task, family, "MLP").save_pretrained(tmp_path / "theirs")
    ours, theirs = (json.loads((tmp_path / name / "adapter_config.json").read_text()) for name in ("ours", "theirs"))
    # PEFT bug: the list names modules that the base model lacks, each twice.
    assert set(ours.pop("modules_to_save") or ()) <= set(theirs.pop("modules_to_save") or ())
    assert ours == theirs
    files = [load_file(tmp_path / name / "adapter_model.safetensors") for name in ("ours", "theirs")]
    shapes = [{name: (tensor.shape, tensor.dtype) for name, tensor in file.items()} for file in files]
    assert shapes[0] == shapes[1]


@pytest.mark.parametrize("encoder", ENCODERS)
def test_the_same_seed_starts_where_peft_starts(make_base: MakeBase, encoder: str) -> None:
    values = values_for("SEQ_2_SEQ_LM", "t5", encoder)
    base = make_base("t5", "SEQ_2_SEQ_LM")
    torch.manual_seed(3)
    module = PromptedModule(base, PromptEncoderConfig(**values))
    torch.manual_seed(3)
    theirs = get_peft_model(module.base_model, peft.PromptEncoderConfig(**values))
    close(module.prompt_embeddings(), theirs.get_prompt_embedding_to_save("default").detach())
    assert module.prompt_embeddings().shape == (2 * V, 32)


@pytest.mark.parametrize("submodules", [1, 2])
@pytest.mark.parametrize("encoder", ENCODERS)
def test_an_encoder_decoder_takes_the_first_rows(
    make_base: MakeBase, encoder: str, submodules: int, tmp_path: Path
) -> None:
    module = module_of(
        make_base("t5", "SEQ_2_SEQ_LM"), "SEQ_2_SEQ_LM", "t5", encoder, num_transformer_submodules=submodules
    )
    loss = module(IDS, labels=torch.tensor([[5, 2], [6, 2]])).loss
    loss.backward()
    table = module.adapter.prompt.encoder.embedding.weight.grad
    assert table.shape == (V * submodules, 32) and table[:V].abs().sum() > 0
    # The LSTM reads the other rows too; the MLP does not, as in PEFT.
    assert submodules == 1 or bool(table[V:].abs().sum() > 0) == (encoder == "LSTM")
    save_module(module, tmp_path)
    assert load_file(tmp_path / "adapter_model.safetensors")["prompt_embeddings"].shape == (V * submodules, 32)
    theirs = PeftModel.from_pretrained(make_base("t5", "SEQ_2_SEQ_LM"), str(tmp_path)).eval()
    close(outputs(theirs, "SEQ_2_SEQ_LM"), outputs(module.eval(), "SEQ_2_SEQ_LM"))


@pytest.mark.parametrize("name", ["transformer.ln_f", "lm_head"])
def test_modules_to_save_that_a_person_names(make_base: MakeBase, name: str, tmp_path: Path) -> None:
    """The vocabulary head too, which is tied to the word embeddings: only the head is trained."""
    short = name.removeprefix("transformer.")
    module = module_of(make_base("gpt2", "CAUSAL_LM"), "CAUSAL_LM", "gpt2", modules_to_save=[short])
    module(IDS, labels=IDS).loss.backward()
    assert all(p.grad is not None and bool(p.grad.any()) for p in module.adapter.head.parameters())
    save_module(module, tmp_path)
    names = {each for each in load_file(tmp_path / "adapter_model.safetensors") if not each.startswith(STATE_PREFIX)}
    assert names - {"prompt_embeddings", f"base_model.{name}.bias"} == {f"base_model.{name}.weight"}
    theirs = PeftModel.from_pretrained(make_base("gpt2", "CAUSAL_LM"), str(tmp_path)).eval()
    close(outputs(theirs, "CAUSAL_LM"), outputs(module, "CAUSAL_LM"))
    close(outputs(load_module(make_base("gpt2", "CAUSAL_LM"), tmp_path), "CAUSAL_LM"), outputs(module, "CAUSAL_LM"))


def steps(module: PromptedModule, optimizer: torch.optim.Optimizer, count: int) -> list[float]:
    losses = []
    for _ in range(count):
        loss = module(IDS, labels=torch.tensor([0, 2])).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def optimizer_of(module: PromptedModule) -> torch.optim.Optimizer:
    return torch.optim.AdamW([p for p in module.parameters() if p.requires_grad], lr=1e-3)


@pytest.mark.parametrize("encoder", ENCODERS)
@pytest.mark.parametrize("with_start", [False, True])
def test_training_goes_on_exactly(make_base: MakeBase, encoder: str, with_start: bool, tmp_path: Path) -> None:
    """PEFT bug: the encoder is lost, and loading over a live one corrupts it silently."""
    config = PromptEncoderConfig(**values_for("SEQ_CLS", "bert", encoder))
    start = torch.randn(V, 32) if with_start else None
    module = PromptedModule(make_base("bert", "SEQ_CLS"), config, start=start)
    optimizer = optimizer_of(module)
    steps(module, optimizer, 3)
    save_module(module, tmp_path)
    state = copy.deepcopy(optimizer.state_dict())
    expected = steps(module, optimizer, 3)
    again = load_module(make_base("bert", "SEQ_CLS"), tmp_path, is_trainable=True)
    assert again.training
    optimizer = optimizer_of(again)
    optimizer.load_state_dict(state)
    assert steps(again, optimizer, 3) == expected
    assert torch.equal(again.prompt_embeddings(), module.prompt_embeddings())


def test_what_is_saved_does_not_depend_on_the_mode(make_base: MakeBase, tmp_path: Path) -> None:
    """PEFT bug: saving in train mode writes prompt embeddings with the encoder's dropout in them."""
    module = module_of(make_base("gpt2", "CAUSAL_LM"), "CAUSAL_LM", "gpt2", "LSTM", encoder_dropout=0.5)
    assert not torch.equal(module.adapter.prompt(), module.adapter.prompt())
    contents = []
    for mode in (True, True, False):
        module.train(mode)
        save_module(module, tmp_path)
        contents.append((tmp_path / "adapter_model.safetensors").read_bytes())
        assert all(part.training == mode for part in module.adapter.modules())
    assert len(set(contents)) == 1


def test_any_other_placement_is_refused_by_peft(make_base: MakeBase, tmp_path: Path) -> None:
    module = module_of(make_base("bert", "SEQ_CLS"), "SEQ_CLS", "bert")
    row = torch.tensor([[11, -1, -2, 12, 13, -3, -4]])
    module(row, labels=torch.tensor([1])).loss.backward()
    save_module(module, tmp_path)
    with pytest.raises(KeyError, match="PTUNE_TEMPLATE"):
        PeftModel.from_pretrained(make_base("bert", "SEQ_CLS"), str(tmp_path))
    for is_trainable in (False, True):
        again = load_module(make_base("bert", "SEQ_CLS"), tmp_path, is_trainable=is_trainable)
        close(again(row).logits.detach(), module(row).logits.detach())
        assert not again.adapter.in_front
        save_module(again, tmp_path)


def test_to_look_at_other_placements_changes_nothing(make_base: MakeBase, tmp_path: Path) -> None:
    module = module_of(make_base("bert", "SEQ_CLS"), "SEQ_CLS", "bert")
    module.eval()(torch.tensor([[11, -1, -2]]))
    save_module(module, tmp_path)
    PeftModel.from_pretrained(make_base("bert", "SEQ_CLS"), str(tmp_path))


@pytest.mark.parametrize(("task", "family"), [("CAUSAL_LM", "gpt2"), ("SEQ_CLS", "bert")])
def test_the_app_reads_it_too(make_base: MakeBase, task: str, family: str, tmp_path: Path) -> None:
    module = module_of(make_base(family, task), task, family, "LSTM")
    save_module(module, tmp_path)
    trained = load_adapter(tmp_path)
    assert torch.equal(trained.prompt_embeddings, module.prompt_embeddings())
    assert set(trained.encoder_state) == set(module.adapter.prompt.state_dict())
    assert set(trained.head) == {name for name, _ in module.adapter.head.named_parameters()}


def test_several_adapters_from_files(make_base: MakeBase, tmp_path: Path) -> None:
    first = module_of(make_base("bert", "SEQ_CLS"), "SEQ_CLS", "bert")
    save_module(first, tmp_path / "first")
    second = module_of(make_base("bert", "SEQ_CLS"), "SEQ_CLS", "bert", "LSTM", num_virtual_tokens=2)
    scramble(second.adapter)
    save_module(second, tmp_path / "second")
    both = load_module(make_base("bert", "SEQ_CLS"), tmp_path / "first", adapter_name="first")
    load_into(both, tmp_path / "second", "second", is_trainable=True)
    close(outputs(both, "SEQ_CLS"), outputs(first, "SEQ_CLS"))
    both.set_adapter("second")
    close(outputs(both, "SEQ_CLS"), outputs(second, "SEQ_CLS"))
    save_module(both, tmp_path / "again", "first")
    assert torch.equal(
        load_module(make_base("bert", "SEQ_CLS"), tmp_path / "again").prompt_embeddings(), first.prompt_embeddings()
    )
    with pytest.raises(SettingsError, match="cannot have this name"):  # never over a live encoder
        load_into(both, tmp_path / "first", "second")


Change = Callable[[dict[str, Tensor], dict[str, Any]], object]
DAMAGE: dict[str, tuple[Change, str]] = {
    "a tensor more": (lambda t, c: t.update(evil=torch.zeros(1)), "'evil' does not belong here"),
    "no prompt": (lambda t, c: t.pop("prompt_embeddings"), "'prompt_embeddings' is missing"),
    "no head": (lambda t, c: t.pop("base_model.classifier.weight"), "'base_model.classifier.weight' is missing"),
    "half an encoder": (lambda t, c: t.pop(STATE_PREFIX + "encoder.mlp_head.0.bias"), "mlp_head.0.bias' is missing"),
    "another shape": (
        lambda t, c: t.update(prompt_embeddings=torch.zeros(V + 1, 32)),
        "has the shape [5, 32], not [4, 32]",
    ),
    "not a number": (lambda t, c: t["prompt_embeddings"].fill_(torch.nan), "values that are not finite"),
    "another encoder": (lambda t, c: t["prompt_embeddings"].add_(1.0), "makes other prompt embeddings"),
    "another method": (lambda t, c: c.update(peft_type="LORA"), "peft_type"),
    "another task": (lambda t, c: c.update(task_type="POETRY"), "task_type"),
    "no task": (lambda t, c: c.pop("task_type"), "task_type"),
    "no size": (lambda t, c: c.update(num_virtual_tokens=None), "num_virtual_tokens"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damaged_files_are_refused(make_base: MakeBase, damage: str, tmp_path: Path) -> None:
    change, message = DAMAGE[damage]
    save_module(module_of(make_base("bert", "SEQ_CLS"), "SEQ_CLS", "bert"), tmp_path)
    tensors = load_file(tmp_path / "adapter_model.safetensors")
    config = json.loads((tmp_path / "adapter_config.json").read_text())
    change(tensors, config)
    save_file(tensors, tmp_path / "adapter_model.safetensors")
    (tmp_path / "adapter_config.json").write_text(json.dumps(config))
    module = module_of(make_base("bert", "SEQ_CLS"), "SEQ_CLS", "bert")
    with pytest.raises(AdapterError) as error:
        load_into(module, tmp_path, "other", is_trainable=True)
    assert message in str(error.value)
    assert list(module.adapters) == ["default"]


def test_what_is_not_there_or_not_opened(make_base: MakeBase, tmp_path: Path) -> None:
    base = make_base("bert", "SEQ_CLS")
    (tmp_path / "adapter_model.bin").write_bytes(b"a pickle")
    with pytest.raises(AdapterError, match=r"(?s)adapter_config.json is missing.*adapter_model.safetensors is missing"):
        load_module(base, tmp_path)
    with pytest.raises(AdapterError, match="There is no adapter"):
        load_module(base, tmp_path / "nowhere")
    (tmp_path / "adapter_config.json").write_text("[]")
    (tmp_path / "adapter_model.safetensors").write_bytes(b"torn")
    with pytest.raises(AdapterError, match="holds a list"):
        load_module(base, tmp_path)


def test_another_base_model_is_told(make_base: MakeBase, tmp_path: Path) -> None:
    save_module(module_of(make_base("gpt2", "CAUSAL_LM"), "CAUSAL_LM", "gpt2"), tmp_path)
    with pytest.raises(SettingsError, match="token_dim is not the width"):
        load_module(make_base("opt", "CAUSAL_LM"), tmp_path)
    with pytest.raises(SettingsError, match="Needed: a base model for CAUSAL_LM"):
        load_module(make_base("bert", "SEQ_CLS"), tmp_path)


def test_broken_values_are_not_written(make_base: MakeBase, tmp_path: Path) -> None:
    module = module_of(make_base("bert", "SEQ_CLS"), "SEQ_CLS", "bert")
    with torch.no_grad():
        next(module.adapter.head.parameters()).fill_(torch.nan)
    with pytest.raises(AdapterError, match="Got: base_model.classifier.weight"):
        save_module(module, tmp_path)
    assert not list(tmp_path.iterdir())
