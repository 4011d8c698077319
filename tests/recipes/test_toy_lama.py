"""The paper's point on a small world: wording decides what a frozen model tells, and virtual tokens find the wording.

arXiv 2103.10385, sections 1 and 4.1. P@1 is measured over the whole vocabulary, on subjects that nothing was tuned or
chosen on. The base model knows every fact.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from torch import Tensor

from ptune_core.data.batching import Row
from ptune_core.data.examples import Examples, SplitOptions, build_examples
from ptune_core.data.ingest import ingest
from ptune_core.model.base import load_base_model
from ptune_core.model.prompted import PromptedModel
from ptune_core.prompt.init import Prompt
from ptune_core.prompt.template import TargetKind
from ptune_core.recipes.measure import Measurer
from ptune_core.runs.directory import RunDirectory
from ptune_core.runs.worker import train_here
from ptune_core.training.loop import Trainer, train
from ptune_core.training.metrics import Metric
from ptune_core.training.preparation import make_schedule, prompt_config
from ptune_core.training.settings import RunSettings
from ptune_core.training.tasks import Batching, CandidateTask
from tests.recipes.toy_lama import DEV, TEST, TRAIN, make_base_model, make_facts, write_rows

PAPER = "[P*3] {sub} [P*3][ANSWER:obj]"


@dataclass(frozen=True)
class World:
    """The base model, its words, and the rows of one relation."""

    folder: Path
    words: list[str]
    train: Path
    dev: Path
    test: Path

    @property
    def base(self) -> Path:
        return self.folder / "base"

    def digest(self) -> str:
        return hashlib.sha256((self.base / "model.safetensors").read_bytes()).hexdigest()


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    folder = tmp_path_factory.mktemp("toy-lama")
    facts = make_facts()
    words = make_base_model(facts, folder / "base")
    splits = {"train": TRAIN, "dev": DEV, "test": TEST}
    files = [write_rows(facts, "birthplace", subjects, folder / f"{name}.csv") for name, subjects in splits.items()]
    return World(folder, words, *files)


def settings_for(world: World, template: str, **changes: object) -> RunSettings:
    values = {
        "base_model": str(world.base), "data": str(world.train), "validation_data": str(world.dev),
        "candidates": world.words, "template": template, "max_steps": 200, "learning_rate": 0.01, "batch_size": 32,
        "eval_every": 25, "patience": 0, "checkpoint_every": 1000, "device": "cpu", "precision": "fp32", "seed": 34,
    }  # fmt: skip
    return RunSettings.parse(values | changes)


def examples_of(world: World, settings: RunSettings, held_out: Path, folder: Path) -> Examples:
    return build_examples(
        ingest(world.train, folder / "rows"), settings.parsed_template, columns={}, labels={},
        split=SplitOptions(0.1, 10, 0), validation=ingest(held_out, folder / "held-out"),
    )  # fmt: skip


def task_on(world: World, template: str, folder: Path, kind: type[CandidateTask] = CandidateTask) -> CandidateTask:
    """A task whose validation rows are the test subjects."""
    base = load_base_model(str(world.base), target=TargetKind.ANSWER, device="cpu", precision="fp32")
    settings = settings_for(world, template)
    found = examples_of(world, settings, world.test, folder)
    model = PromptedModel(base, settings.parsed_template, None)
    return kind(model, found.train, found.validation, Batching(32, 64, 0), folder, candidates=world.words)


def tuned(world: World, template: str, folder: Path, **changes: object) -> float:
    """P@1 on the test subjects after P-tuning, by the way every run takes."""
    settings = settings_for(world, template, **changes)
    assert train_here(settings, folder / "run")["state"] == "finished"
    test = ingest(world.test, folder / "test")
    found = Measurer().predict(RunDirectory(folder / "run"), test)
    assert len(found.rows) == len(TEST)
    return sum(row["obj"] == said for row, said in zip(found.rows, found.tuned, strict=True)) / len(TEST)


def test_one_swapped_word_costs_a_manual_prompt_everything(world: World, tmp_path: Path) -> None:
    manual = task_on(world, "{sub} was born in[P][ANSWER:obj]", tmp_path).zero_shot.value
    swapped = task_on(world, "{sub} was born as[P][ANSWER:obj]", tmp_path).zero_shot.value
    assert manual >= 0.95 and swapped <= 0.1


@pytest.mark.parametrize("encoder", ["LSTM", "MLP"])
def test_p_tuning_finds_what_the_frozen_model_knows(world: World, tmp_path: Path, encoder: str) -> None:
    before = world.digest()
    assert tuned(world, PAPER, tmp_path, encoder_reparameterization_type=encoder) >= 0.95
    assert world.digest() == before


def test_virtual_tokens_in_front_alone_do_much_worse(world: World, tmp_path: Path) -> None:
    """As many as the paper's, where PEFT puts them. Here the model never saw an object right after a subject."""
    assert tuned(world, "[P*6] {sub} [ANSWER:obj]", tmp_path) <= 0.6


class _OffByOne(CandidateTask):
    """The loss of THUDM's GPT code for LAMA: the label stands at the last virtual token, and transformers shifts it.

    So training scores what follows the last but one position, while Hit@1 reads the last.
    """

    def losses(self, position: int, prompts: Sequence[Tensor]) -> Iterator[tuple[Tensor, int]]:
        chosen = self.order.indices(position)
        rows = [Row(row.ids[:-1]) for row in self.train_rows.rows(chosen)]
        batch = self.model.text_batch(rows, self._answers([self._train_gold[i] for i in chosen]))
        yield self.model.text_losses(batch, prompts[0]).sum()[None], len(chosen)


def trained_on(task: CandidateTask, world: World) -> float:
    settings = settings_for(world, PAPER)
    torch.manual_seed(settings.seed)
    prompt = Prompt(prompt_config(settings, task.model.base, task.model.template), None)
    trainer = Trainer(prompt, None, make_schedule(settings, task.num_examples), Accelerator(cpu=True))
    for _ in train([trainer], task, Metric.ACCURACY, lambda: False):
        pass
    prompt.eval()
    with torch.no_grad():
        return task.evaluate(prompt()).value


def test_the_loss_is_at_the_last_position_and_one_before_it_costs_facts(world: World, tmp_path: Path) -> None:
    task = task_on(world, PAPER, tmp_path)
    shifted = task_on(world, PAPER, tmp_path, _OffByOne)
    prompt = torch.randn(6, task.model.base.hidden_size, requires_grad=True)

    # What THUDM's code computes: a label at the last position of the row, shifted by transformers itself.
    [row, *_] = task.train_rows.rows([0])
    [gold] = task._answers([task._train_gold[0]])
    labels = torch.full((1, len(row.ids)), -100)
    labels[0, -1] = gold[0]
    released = task.model.base.model(inputs_embeds=task.model.embed(row.ids, prompt), labels=labels).loss
    assert (torch.autograd.grad(released, prompt)[0][-1] == 0).all(), "its last virtual token learns nothing"
    batch = task.model.text_batch([Row(row.ids[:-1])], [gold])
    torch.testing.assert_close(task.model.text_losses(batch, prompt)[0], released, atol=1e-4, rtol=1e-4)

    [(ours, _)] = task.losses(0, [prompt])
    assert (torch.autograd.grad(ours.sum(), prompt)[0][-1] != 0).any()
    # 1.00 and 0.50 with this MLP; an LSTM, which ties the last virtual token to the others, loses less (0.70 to 1.00).
    assert trained_on(task, world) - trained_on(shifted, world) >= 0.2
