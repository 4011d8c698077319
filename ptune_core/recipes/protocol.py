"""Run a recipe: every part with every seed is a run directory, measured once on its test rows.

OUT/recipe.json            what was asked for; another recipe, base model or data in OUT is refused
OUT/PART/data/*.jsonl      the rows as the template wants them, one file for each split
OUT/PART/seed-N/           the run directory of one training
OUT/PART/seed-N/test.json  what was measured, written last: a part that has it is not repeated
"""

from __future__ import annotations

import json
import random
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from ptune_core.data.ingest import ingest, load_source
from ptune_core.data.table import read_rows
from ptune_core.demo import DEMO
from ptune_core.errors import DataError, RunError, SettingsError
from ptune_core.files import atomic_write
from ptune_core.model.base_kind import fills_masks
from ptune_core.recipes.measure import Measurer
from ptune_core.recipes.recipe import PartFile, Recipe
from ptune_core.recipes.rows import Split, adapt
from ptune_core.recipes.scores import SCORES, majority
from ptune_core.runs.directory import RunDirectory
from ptune_core.runs.states import RunState
from ptune_core.runs.worker import train_here
from ptune_core.training.settings import RunSettings

HUB = "hub"
_SHARES_SEED = 0


@dataclass(frozen=True)
class Options:
    """What a person chose about a recipe.

    Attributes:
        out: Folder for everything that is written.
        data: Folder with the data set, or `hub`.
        settings: Options of every run, on top of the recipe's.
        seeds: Instead of the recipe's.
        only: Parts to run; empty: all.
        limit: At most so many rows of each split; None: all.
    """

    out: Path
    data: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    seeds: tuple[int, ...] = ()
    only: tuple[str, ...] = ()
    limit: int | None = None


@dataclass(frozen=True)
class Result:
    """What one run came to.

    Attributes:
        part: Which part.
        seed: Which seed.
        tuned: Measure -> value with the trained virtual tokens.
        zero_shot: The same for the base model alone with this template; None where there is none.
        manual: The same with the prompt that people wrote; None without one.
        majority: The same for the best constant; None where there is none.
        train_rows: Rows learnt from.
        test_rows: Rows measured on.
        all_test_rows: Rows of the test set, with those that could not be used.
        base_model: Which base model.
        base_weights: Whether it was frozen or tuned.
        steps: Optimizer steps made.
        seconds: Of the training.
    """

    part: str
    seed: int
    tuned: dict[str, float]
    zero_shot: dict[str, float] | None
    manual: dict[str, float] | None
    majority: dict[str, float] | None
    train_rows: int
    test_rows: int
    all_test_rows: int
    base_model: str
    base_weights: str
    steps: int
    seconds: float


@dataclass(frozen=True)
class Failure:
    """A run that came to nothing, such as a relation whose objects the base model has no tokens for."""

    part: str
    seed: int
    reason: str


def run_recipe(recipe: Recipe, options: Options, tell: Callable[[str], None]) -> Iterator[Result | Failure]:
    """Run what is left to run, part by part; results of runs that are done come at once.

    Args:
        recipe: Which.
        options: How.
        tell: Receives one line about what is happening.

    Yields:
        One result for each part and seed, or why there is none.

    Raises:
        PTuneError: The data cannot be read, the settings are wrong, or a run was stopped; what is done stays, and the
            next call goes on.
        KeyboardInterrupt: As it came; the next call goes on from the last checkpoint.
    """
    parts = recipe.chosen(list(options.only))
    _claim(recipe, options)
    measurer = Measurer()
    base_model = str(options.settings.get("base_model", DEMO))
    masked = fills_masks(base_model, options.settings.get("revision"))
    for part in parts:
        for seed in options.seeds or recipe.seeds:
            run = RunDirectory((options.out / part / f"seed-{seed}").absolute())
            done: Result | Failure | None = _read_result(run)
            if done is None:
                tell(f"{part}, seed {seed}")
                done = _run_part(_Run(recipe, part, seed, options, masked), measurer)
            if isinstance(done, Result):
                atomic_write(run.path / "test.json", json.dumps(asdict(done), indent=1).encode())
            yield done


def _claim(recipe: Recipe, options: Options) -> None:
    """Note in OUT what is run there, or refuse to mix it with something else."""
    asked = {
        "recipe": recipe.name, "data": options.data, "settings": dict(options.settings), "limit": options.limit
    }  # fmt: skip
    file = options.out / "recipe.json"
    options.out.mkdir(parents=True, exist_ok=True)
    if not file.exists():
        atomic_write(file, json.dumps(asked, indent=1).encode())
        return
    before = json.loads(file.read_bytes())
    if before != json.loads(json.dumps(asked)):
        raise RunError(
            "The directory holds results of another recipe, other data or other options",
            got=json.dumps(asked),
            needed=json.dumps(before),
            remedy="Choose another --out directory",
        )


def _read_result(run: RunDirectory) -> Result | None:
    try:
        return Result(**json.loads((run.path / "test.json").read_bytes()))
    except FileNotFoundError:
        return None


@dataclass(frozen=True)
class _Run:
    """One part with one seed; `masked`: the base model fills masks."""

    recipe: Recipe
    part: str
    seed: int
    options: Options
    masked: bool

    def settings(self, files: Mapping[Split, Path]) -> RunSettings:
        plan = self.recipe.parts[self.part]
        words: dict[str, Any] = {"seed": self.seed, "data": str(files[Split.TRAIN])}
        if plan.candidates is not None:
            words["candidates"] = [word for line in _lines(self.options, plan.candidates) if (word := line.strip())]
        if Split.DEV in files:
            words["validation_data"] = str(files[Split.DEV])
        return self.recipe.settings(self.part, {**words, **self.options.settings}, masked=self.masked)


def _run_part(chosen: _Run, measurer: Measurer) -> Result | Failure:
    recipe, part, seed, options = chosen.recipe, chosen.part, chosen.seed, chosen.options
    plan = recipe.parts[part]
    files = _prepare(plan, options, options.out / part / "data")
    run = RunDirectory((options.out / part / f"seed-{seed}").absolute())
    settings = chosen.settings(files)
    result = train_here(settings, run.path)
    if result["state"] == RunState.STOPPED:
        raise RunError(f"{part} with seed {seed} was stopped", remedy="The same command goes on from there")
    if result["state"] != RunState.FINISHED:
        reason = (result.get("error") or {}).get("text") or result["reason"]
        return Failure(part, seed, str(reason))
    target = settings.parsed_template.target.column
    with tempfile.TemporaryDirectory() as folder:
        test = ingest(files[Split.TEST], Path(folder))
        found = measurer.predict(run, test, _manual_template(chosen, target))
    score = SCORES[plan.score]

    def measured(predicted: Sequence[str] | None) -> dict[str, float] | None:
        return None if predicted is None else score.measure(found.rows, predicted, target)

    return Result(
        part, seed,
        tuned=score.measure(found.rows, found.tuned, target),
        zero_shot=measured(found.base),
        manual=measured(found.manual),
        majority=majority(score, found.rows, target),
        train_rows=result["train_examples"],
        test_rows=len(found.rows),
        all_test_rows=test.num_rows,
        base_model=settings.base_model,
        base_weights=result["base_weights"],
        steps=result["steps"],
        seconds=round(result["seconds"], 1),
    )  # fmt: skip


def _prepare(plan: PartFile, options: Options, folder: Path) -> dict[Split, Path]:
    """The rows of every split as JSONL files; made once."""
    done = folder / "done.json"
    if not done.exists():
        folder.mkdir(parents=True, exist_ok=True)
        splits = []
        for split, rows in _splits(plan, options):
            rows = islice(rows, options.limit)
            text = "".join(f"{json.dumps(row, ensure_ascii=False)}\n" for row in rows)
            atomic_write(folder / f"{split}.jsonl", text.encode())
            splits.append(split)
        atomic_write(done, json.dumps(splits).encode())
    return {Split(name): (folder / f"{name}.jsonl").absolute() for name in json.loads(done.read_bytes())}


def _splits(plan: PartFile, options: Options) -> Iterator[tuple[Split, Iterator[dict[str, str]]]]:
    sources = _sources(plan, options)
    if "all" not in sources:
        for name, source in sources.items():
            yield Split(name), adapt(plan.rows, _read(source), Split(name), source)
        return
    rows = list(_read(sources["all"]))
    random.Random(_SHARES_SEED).shuffle(rows)
    ends = [round(len(rows) * sum(plan.shares[: i + 1])) for i in range(3)]
    for split, start, end in zip(Split, [0, *ends], ends, strict=False):
        yield split, adapt(plan.rows, rows[start:end], split, sources["all"])


def _sources(plan: PartFile, options: Options) -> Mapping[str, str]:
    """Split, or `all` -> where its rows are."""
    if options.data == HUB:
        if not plan.hub:
            raise SettingsError("This data set is not on the Hub in a form that can be read", needed="--data FOLDER")
        return {str(split): address for split, address in plan.hub.items()}
    folder = Path(options.data).expanduser()
    for files in plan.files:
        found = {split: folder / name for split, name in files.items()}
        if all(path.is_file() for path in found.values()):
            return {split: str(path) for split, path in found.items()}
    raise DataError(
        "The folder does not hold the data set",
        got=str(folder),
        needed=" or ".join(", ".join(files.values()) for files in plan.files),
        remedy="python -m ptune_core recipe --list says where it is from",
    )


def _read(source: str) -> Iterator[dict[str, str]]:
    with tempfile.TemporaryDirectory() as folder:
        table = load_source(source, Path(folder))
        yield from read_rows(table, table.columns)


def _lines(options: Options, name: str) -> list[str]:
    path = Path(options.data).expanduser() / name
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError("The folder does not hold the data set", got=f"{path}: {error}", needed=name) from error


def _manual_template(chosen: _Run, target: str) -> str | None:
    """LAMA's own prompt for a relation as a template; None if there is none that this kind of base model can follow.

    A decoder reads up to where the object stands. The virtual token stands for nothing: the base model is asked alone.
    """
    plan = chosen.recipe.parts[chosen.part]
    if plan.manual is None:
        return None
    lines = _lines(chosen.options, plan.manual)
    try:
        written = {str(row["relation"]): str(row["template"]) for row in map(json.loads, lines)}
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{plan.manual} cannot be read",
            got=f"{type(error).__name__}: {error}",
            needed='a line {"relation": "P17", "template": "[X] … [Y] ."} for each relation',
        ) from error
    text = written.get(chosen.part, "").replace("[X]", "{sub_label}")
    before, _, after = text.partition("[Y]")
    if chosen.masked:
        return f"{before}[MASK:{target}]{after} [P]" if "{sub_label}" in text else None
    return f"{before.rstrip()}[P][ANSWER:{target}]" if "{sub_label}" in before else None
