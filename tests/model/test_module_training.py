"""A prompted module in training: what changes, what is state, several adapters, transformers' Trainer, PEFT's bugs."""

from __future__ import annotations

import copy
import inspect
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import Trainer, TrainingArguments

from ptune_core.errors import SettingsError
from ptune_core.model.module import PromptedModule
from ptune_core.prompt.config import PromptEncoderConfig

MakeBase = Callable[[str, str], Any]

V = 4
IDS = torch.tensor([[11, 12, 13, 14, 15, 16], [21, 22, 23, 24, 25, 26]])
CASES: dict[str, tuple[str, dict[str, Tensor]]] = {
    "CAUSAL_LM": ("gpt2", {"labels": IDS}),
    "SEQ_CLS": ("bert", {"labels": torch.tensor([0, 2])}),
    "TOKEN_CLS": ("deberta", {"labels": IDS % 3}),
    "QUESTION_ANS": ("roberta", {"start_positions": torch.tensor([1, 2]), "end_positions": torch.tensor([3, 2])}),
    "SEQ_2_SEQ_LM": ("t5", {"labels": torch.tensor([[5, 2], [6, 2]])}),
}
HEADS = {
    "CAUSAL_LM": set(),
    "SEQ_CLS": {"classifier.weight", "classifier.bias"},
    "TOKEN_CLS": {"classifier.weight", "classifier.bias"},
    "QUESTION_ANS": {"qa_outputs.weight", "qa_outputs.bias"},
    "SEQ_2_SEQ_LM": set(),
}


def config_for(task: str, **values: Any) -> PromptEncoderConfig:
    return PromptEncoderConfig(task_type=task, num_virtual_tokens=V, encoder_hidden_size=16, **values)


def module_of(make_base: MakeBase, task: str, family: str | None = None, **values: Any) -> PromptedModule:
    base = make_base(family or CASES[task][0], task)
    torch.manual_seed(6)
    return PromptedModule(base, config_for(task, **values))


@pytest.mark.parametrize("task", CASES)
def test_only_the_prompt_and_the_head_change(make_base: MakeBase, task: str) -> None:
    module = module_of(make_base, task)
    base = module.base_model
    before = {name: tensor.clone() for name, tensor in base.state_dict().items()}
    trained = {name: p for name, p in module.named_parameters() if p.requires_grad}
    start = {name: p.detach().clone() for name, p in trained.items()}
    assert {name.removeprefix("adapters.default.head.") for name in trained if ".head." in name} == HEADS[task]
    optimizer = torch.optim.SGD(module.parameters(), lr=1.0)
    module(IDS, **CASES[task][1]).loss.backward()
    optimizer.step()
    after = base.state_dict()
    assert set(after) == set(before) and all(torch.equal(after[name], before[name]) for name in before)
    unused = "mlp_head.0.bias"  # a ReLU may be closed for it
    assert all(not torch.equal(p, start[name]) or name.endswith(unused) for name, p in trained.items())
    assert not any(part.training for part in base.modules())


def test_the_base_models_dropout_is_off(make_base: MakeBase) -> None:
    """PEFT bug: train mode brings dropout back into the frozen base model."""
    module = module_of(make_base, "SEQ_CLS")
    assert module.training and module.config.hidden_dropout_prob > 0
    assert torch.equal(module(IDS).logits, module.train()(IDS).logits)
    assert torch.equal(module(IDS).logits, module.eval()(IDS).logits)


def test_the_config_is_not_changed(make_base: MakeBase) -> None:
    """PEFT bug: the config that is passed in is filled in place, and its list of modules grows."""
    config = config_for("SEQ_CLS", modules_to_save=["classifier"])
    before = copy.deepcopy(config)
    module = PromptedModule(make_base("bert", "SEQ_CLS"), config)
    module.add_adapter("other", config)
    assert config == before
    completed = module.adapter.config
    assert (completed.token_dim, completed.num_layers, completed.num_attention_heads) == (32, 2, 4)
    assert completed.modules_to_save == ["classifier"] and completed.encoder_hidden_size == 16


def test_sizes_are_those_of_the_word_embeddings(make_base: MakeBase) -> None:
    """PEFT bug: hidden_size is taken, which OPT-350m's word embeddings do not have."""
    module = PromptedModule(
        make_base("opt", "CAUSAL_LM"), PromptEncoderConfig(task_type="CAUSAL_LM", num_virtual_tokens=V)
    )
    assert (module.adapter.config.token_dim, module.adapter.config.encoder_hidden_size) == (16, 16)
    assert module(IDS, labels=IDS).loss.isfinite()


def test_a_start_is_where_training_starts(make_base: MakeBase) -> None:
    start = torch.randn(V, 32)
    base = make_base("gpt2", "CAUSAL_LM")
    assert torch.equal(PromptedModule(base, config_for("CAUSAL_LM"), start=start).prompt_embeddings(), start)
    with pytest.raises(SettingsError, match="another shape"):
        PromptedModule(base, config_for("CAUSAL_LM"), start=start[:2])


def test_state_is_what_is_trained(make_base: MakeBase) -> None:
    module = module_of(make_base, "SEQ_CLS")
    module.add_adapter("other", config_for("SEQ_CLS"))
    for parameter in module.adapters.parameters():
        nn.init.normal_(parameter)
    state = module.state_dict()
    trainable = {name for name, _ in module.adapters.named_parameters(prefix="adapters")}
    flags = {f"adapters.{name}.in_front" for name in ("default", "other")}
    assert set(state) == trainable | flags
    other = module_of(make_base, "SEQ_CLS")
    other.add_adapter("other", config_for("SEQ_CLS"))
    assert not torch.equal(other.prompt_embeddings("other"), module.prompt_embeddings("other"))
    other.load_state_dict(state)  # strict: nothing of the base model is missed
    assert torch.equal(other.prompt_embeddings("other"), module.prompt_embeddings("other"))
    with pytest.raises(RuntimeError, match="adapters.default.head.classifier.bias"):
        del state["adapters.default.head.classifier.bias"]
        other.load_state_dict(state)
    # Inside another module too, as data parallel training puts it.
    assert set(nn.ModuleDict({"module": module}).state_dict()) == {f"module.{name}" for name in trainable | flags}
    copied = pickle.loads(pickle.dumps(copy.deepcopy(module)))
    assert torch.equal(copied(IDS).logits, module(IDS).logits)


def test_adapters_take_turns(make_base: MakeBase) -> None:
    """PEFT bug: inactive encoders keep their gradients."""
    module = module_of(make_base, "SEQ_CLS")
    first = module(IDS).logits
    module.add_adapter("other", PromptEncoderConfig(task_type="SEQ_CLS", num_virtual_tokens=2, encoder_hidden_size=8))
    assert torch.equal(module(IDS).logits, first)
    module.set_adapter("other")
    assert not torch.equal(module(IDS).logits, first)
    trained = {name.split(".")[1] for name, parameter in module.named_parameters() if parameter.requires_grad}
    assert trained == {"other"} and module.active_adapter == "other"
    with pytest.raises(SettingsError, match="in use"):
        module.delete_adapter("other")
    module.set_adapter("default")
    module.delete_adapter("other")
    assert torch.equal(module(IDS).logits, first) and list(module.adapters) == ["default"]
    for act in (lambda: module.set_adapter("other"), lambda: module.prompt_embeddings("other")):
        with pytest.raises(SettingsError, match="no such adapter. Got: 'other'. Needed: default"):
            act()
    for name in ("default", "a.b", "", "keys"):
        with pytest.raises(SettingsError, match="cannot have this name"):
            module.add_adapter(name, config_for("SEQ_CLS"))


@pytest.mark.parametrize("task", CASES)
def test_without_adapter_it_is_the_base_model(make_base: MakeBase, task: str) -> None:
    """PEFT bug: disable_adapter raises for heads, and leaves the trained head in place where it does not."""
    family, labels = CASES[task]
    expected = make_base(family, task).requires_grad_(False)(IDS, **labels)
    module = module_of(make_base, task)
    with torch.no_grad():
        for parameter in module.adapter.head.parameters():
            parameter.normal_()
    for _ in range(2):
        with module.disable_adapter(), module.disable_adapter():
            found = module(IDS, **labels)
        assert type(found) is type(expected) and torch.equal(found.loss, expected.loss)
        assert not torch.equal(module(IDS, **labels).loss, expected.loss)
    with pytest.raises(ZeroDivisionError), module.disable_adapter():
        _ = 1 / 0
    assert not torch.equal(module(IDS, **labels).loss, expected.loss)


def test_only_its_own_forward_sees_the_head(make_base: MakeBase) -> None:
    module = module_of(make_base, "SEQ_CLS")
    base = module.base_model
    own = dict(base.named_parameters())
    with pytest.raises(ValueError, match="batch_size"):
        module(IDS, labels=torch.tensor([0, 1, 2]))  # a forward that fails leaves nothing behind
    assert all(parameter is own[name] for name, parameter in base.named_parameters())


def test_a_bf16_base_model_has_an_fp32_head(make_base: MakeBase) -> None:
    """PEFT bug: the head's copy is bf16, so small updates are lost."""
    base = make_base("bert", "SEQ_CLS").to(torch.bfloat16)
    module = PromptedModule(base, config_for("SEQ_CLS"))
    assert {parameter.dtype for parameter in module.adapter.parameters()} == {torch.float32}
    output = module(IDS, labels=torch.tensor([0, 2]))
    assert output.logits.dtype == torch.bfloat16
    output.loss.backward()
    assert all(parameter.grad is not None for parameter in module.adapter.head.parameters())


@pytest.mark.parametrize(("task", "family"), [("CAUSAL_LM", "gpt2"), ("SEQ_CLS", "bert"), ("SEQ_2_SEQ_LM", "bart")])
def test_checkpointed_activations_give_the_same_gradients(make_base: MakeBase, task: str, family: str) -> None:
    labels = CASES[task][1]
    # A trained module inside a layer is recomputed as it was.
    modules_to_save = {"gpt2": ["h.1.mlp.c_fc"], "bert": ["layer.1.output.dense"], "bart": ["encoder.layers.1.fc1"]}
    grads, kept = [], []
    for checkpointed in (False, True):
        module = module_of(make_base, task, family, modules_to_save=modules_to_save[family])
        with torch.no_grad():
            for parameter in module.adapter.head.parameters():
                parameter.add_(torch.ones_like(parameter) * 0.01)
        if checkpointed:
            module.activation_checkpointing_enable()
        sizes: list[int] = []
        with torch.autograd.graph.saved_tensors_hooks(lambda t, s=sizes: s.append(t.numel()) or t, lambda t: t):
            loss = module(IDS, **labels).loss
        kept.append(sum(sizes))
        loss.backward()
        grads.append([parameter.grad for parameter in module.parameters() if parameter.requires_grad])
        assert not any("forward" in vars(part) for part in module.base_model.modules())
    for one, other in zip(*grads, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)
    assert kept[1] < 0.7 * kept[0]
    with pytest.raises(SettingsError, match="use_reentrant"):
        module.activation_checkpointing_enable({"use_reentrant": True})


# transformers' Trainer.


class Rows(torch.utils.data.Dataset):  # type: ignore[type-arg]
    def __init__(self, task: str) -> None:
        generator = torch.Generator().manual_seed(1)
        self.rows = []
        for i in range(24):
            ids = torch.randint(3, 97, (6,), generator=generator)
            # Bare tokenizers return token types, which only some models take.
            row = {
                "input_ids": ids,
                "attention_mask": torch.ones(6, dtype=torch.long),
                "token_type_ids": torch.zeros_like(ids),
            }
            if task == "QUESTION_ANS":
                row["start_positions"] = row["end_positions"] = torch.tensor(i % 6)
            else:
                row["labels"] = ids if task == "CAUSAL_LM" else torch.tensor(i % 3)
            self.rows.append(row)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return self.rows[index]


def trainer_of(module: PromptedModule, task: str, directory: Path, **options: Any) -> Trainer:
    usual: dict[str, Any] = {
        "per_device_train_batch_size": 4, "max_steps": 6, "save_steps": 2, "logging_steps": 1, "eval_steps": 2,
        "eval_strategy": "steps", "learning_rate": 0.05, "use_cpu": True, "report_to": [], "disable_tqdm": True,
        "seed": 3, "dataloader_pin_memory": False,
    }  # fmt: skip
    arguments = TrainingArguments(str(directory), **(usual | options))
    return Trainer(module, arguments, train_dataset=Rows(task), eval_dataset=Rows(task))


def losses_of(trainer: Trainer) -> list[float]:
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


@pytest.mark.parametrize(("task", "encoder"), [("CAUSAL_LM", "MLP"), ("SEQ_CLS", "LSTM")])
def test_trainer_resumes_exactly(make_base: MakeBase, task: str, encoder: str, tmp_path: Path) -> None:
    """PEFT bug: resume_from_checkpoint puts finished prompt embeddings into the input of the live encoder."""
    values = {"encoder_reparameterization_type": encoder}
    module = module_of(make_base, task, **values)
    whole = trainer_of(module, task, tmp_path)
    whole.train()
    again = module_of(make_base, task, **values)
    resumed = trainer_of(again, task, tmp_path)
    resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-4"))
    assert losses_of(resumed) == losses_of(whole) and len(losses_of(whole)) == 6
    expected = module.state_dict()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in again.state_dict().items())


def test_trainer_goes_back_to_the_best(make_base: MakeBase, tmp_path: Path) -> None:
    """PEFT bug: load_best_model_at_end makes a worse model of the best, silently."""
    module = module_of(make_base, "SEQ_CLS")
    # Larger and larger steps, so that the first checkpoint is the best.
    schedule = {"learning_rate": 3.0, "lr_scheduler_type": "constant_with_warmup", "warmup_steps": 6}
    best = {"load_best_model_at_end": True, "metric_for_best_model": "eval_loss"}
    trainer = trainer_of(module, "SEQ_CLS", tmp_path, **schedule, **best)
    trainer.train()
    evaluated = [entry["eval_loss"] for entry in trainer.state.log_history if "eval_loss" in entry]
    assert trainer.state.best_metric == min(evaluated) < evaluated[-1]
    assert trainer.evaluate()["eval_loss"] == trainer.state.best_metric


@pytest.mark.parametrize("task", ["CAUSAL_LM", "SEQ_CLS"])
def test_trainers_predictions_belong_to_the_text(make_base: MakeBase, task: str, tmp_path: Path) -> None:
    """PEFT bug: logits have a row for every virtual token, and labels have not."""
    trainer = trainer_of(module_of(make_base, task), task, tmp_path)
    prediction = trainer.predict(Rows(task))
    assert prediction.predictions.shape == ((24, 6, 97) if task == "CAUSAL_LM" else (24, 3))
    assert prediction.label_ids.shape == prediction.predictions.shape[:-1]


def test_trainer_evaluates_answers_of_a_text(make_base: MakeBase, tmp_path: Path) -> None:
    module = module_of(make_base, "QUESTION_ANS")
    trainer = trainer_of(module, "QUESTION_ANS", tmp_path, label_names=["start_positions", "end_positions"])
    prediction = trainer.predict(Rows("QUESTION_ANS"))
    assert [each.shape for each in prediction.predictions] == [(24, 6), (24, 6)]
    assert prediction.metrics["test_loss"] > 0


def test_trainer_accumulates_gradients_as_one_batch(make_base: MakeBase, tmp_path: Path) -> None:
    results = []
    for size, accumulated in ((8, 1), (4, 2)):
        module = module_of(make_base, "CAUSAL_LM")
        batches = {"per_device_train_batch_size": size, "gradient_accumulation_steps": accumulated, "max_steps": 1}
        plain = {"save_strategy": "no", "eval_strategy": "no", "optim": "sgd", "max_grad_norm": 0.0}
        trainer_of(module, "CAUSAL_LM", tmp_path, **batches, **plain).train()
        results.append(module.prompt_embeddings())
    torch.testing.assert_close(results[0], results[1], rtol=1e-4, atol=1e-4)


def test_trainer_smooths_the_next_tokens_labels(make_base: MakeBase, tmp_path: Path) -> None:
    module = module_of(make_base, "CAUSAL_LM")
    trainer = trainer_of(module, "CAUSAL_LM", tmp_path, label_smoothing_factor=0.1)
    found = trainer.compute_loss(module, {"input_ids": IDS, "labels": IDS})
    logits = module(IDS).logits[:, :-1].flatten(0, 1)
    expected = nn.functional.cross_entropy(logits, IDS[:, 1:].flatten(), label_smoothing=0.1)
    torch.testing.assert_close(found, expected)


def test_trainer_finds_what_it_looks_for(make_base: MakeBase) -> None:
    names = list(inspect.signature(module_of(make_base, "CAUSAL_LM").forward).parameters)
    assert {"input_ids", "attention_mask", "token_type_ids", "labels", "start_positions"} <= set(names)
    assert module_of(make_base, "CAUSAL_LM").accepts_loss_kwargs
    module = module_of(make_base, "CAUSAL_LM", "gpt2")
    assert module.device == torch.device("cpu") and module.generation_config is module.base_model.generation_config
