"""`inspect`."""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ptune_core.commands.arguments import Commands, add_adapter
from ptune_core.errors import RunError, SettingsError
from ptune_core.files import read_lines
from ptune_core.prompt.template import TargetKind

if TYPE_CHECKING:
    from torch import Tensor

    from ptune_core.data.examples import Examples
    from ptune_core.model.base import BaseModel
    from ptune_core.model.trained import TrainedPrompt
    from ptune_core.training.leave_out import LeftOut
    from ptune_core.training.settings import RunSettings
    from ptune_core.training.snapshots import Snapshots

WIDEST_MATRIX = 32
"""Virtual tokens whose similarities are printed as a table; `--json` gives any number."""


def declare(commands: Commands) -> None:
    """Add this command to the command line."""
    command = commands.add_parser(
        "inspect",
        help="show what virtual tokens became, at the end or any step: words near them, length, movement, worth",
        description="Show the virtual tokens of an adapter, or of a run at any evaluation, while it goes on too.",
    )
    add_adapter(command)
    command.add_argument("--words", type=int, default=5, metavar="N", help="nearest words of each (default: 5)")
    when = command.add_mutually_exclusive_group()
    when.add_argument(
        "--step", type=int, metavar="N", help="a run at step N; --over-training lists the steps there are"
    )
    when.add_argument("--best", action="store_true", help="a run at its best evaluation, the default once it has ended")
    command.add_argument("--trial", type=int, metavar="N", help="of a sweep, trial N, from 1; without it the best")
    command.add_argument("--over-training", action="store_true", help="length and movement at each evaluation of a run")
    command.add_argument("--similarity", action="store_true", help="cosines between all virtual tokens")
    command.add_argument("--leave-out", action="store_true",
                         help="accuracy without each virtual token, on a run's validation or --data")  # fmt: skip
    command.add_argument("--data", type=Path, metavar="FILE", help="rows with labels to measure --leave-out on")
    command.add_argument("--json", action="store_true", help="one JSON object with all numbers, for scripts")
    command.set_defaults(run=inspect_command)


def inspect_command(arguments: argparse.Namespace) -> int:
    """Print virtual tokens beside the words of their base model, and what else was asked for."""
    from ptune_core.model.insight import as_text, over_training, similarity, virtual_tokens, word_norm
    from ptune_core.runs.baselines import baseline_list, findings
    from ptune_core.runs.terminal import score_lines

    if arguments.data is not None and not arguments.leave_out:
        raise SettingsError("--data is for --leave-out alone", got=str(arguments.data))
    subject = _Subject.find(arguments)
    trained, base = subject.trained, subject.base
    tokens = virtual_tokens(trained, base, max(1, arguments.words))
    found: dict[str, Any] = {
        "base_model": trained.base_model,
        "template": trained.template,
        "step": subject.step,
        "word_norm": word_norm(base),
        "tokens": [asdict(token) for token in tokens],
    }
    result = subject.result
    found |= {
        "value": result.get("value"),
        "interval": result.get("interval"),
        "baselines": [asdict(baseline) for baseline in baseline_list(result)],
        "head": result.get("head"),
        "notes": findings({}, result),
    }
    lines = [as_text(trained, base, tokens)]
    if score := score_lines(result):
        lines.append("\n".join(score))
    if arguments.similarity:
        found["similarity"] = similarity(trained.prompt_embeddings).tolist()
        lines.append(_matrix(found["similarity"]))
    if arguments.over_training:
        snapshots = subject.snapshots
        if snapshots is None:
            raise SettingsError("An adapter does not say how it was trained", needed="a run directory")
        found["over_training"] = [asdict(moment) for moment in over_training(snapshots.load_all())]
        lines.append(_course(found["over_training"]))
    if arguments.leave_out:
        left_out = subject.leave_out(arguments.data)
        found["leave_out"] = asdict(left_out)
        lines.append(_worth(left_out))
    print(json.dumps(found, ensure_ascii=False) if arguments.json else "\n\n".join(lines))
    return 0


@dataclass(frozen=True)
class _Subject:
    """What is inspected.

    Attributes:
        trained: With the prompt embeddings of the step that was asked for.
        settings: Of the run, or None for an adapter.
        directory: The run directory.
        snapshots: Of the run or the trial.
        step: The step, or None where it is not known.
        is_whole: Whether the classification head and a tuned base model are of the same step, or there are none.
        device: Where the base model goes: a look at the words leaves a GPU to whoever trains.
    """

    trained: TrainedPrompt
    settings: RunSettings | None = None
    directory: Path = Path()
    snapshots: Snapshots | None = None
    step: int | None = None
    is_whole: bool = True
    device: str = "cpu"

    @classmethod
    def find(cls, arguments: argparse.Namespace) -> _Subject:
        """The adapter or the run that is meant, at the step that is meant.

        Raises:
            RunError: There is no such trial, or nothing to be seen yet.
            CheckpointError: There is no such step.
        """
        from ptune_core.adapters.format import load_adapter

        given: Path = arguments.adapter
        if (given / "run.json").is_file():
            return _of_run(given, arguments)
        if arguments.step is not None or arguments.best or arguments.trial is not None:
            needed = "a run directory for --step, --best and --trial"
            raise SettingsError("An adapter is of one moment", got=str(given), needed=needed)
        return cls(load_adapter(given), device="auto" if arguments.leave_out else "cpu")

    @property
    def result(self) -> Mapping[str, Any]:
        """What was measured of this step; empty where that is another one."""
        metrics = self.trained.metrics
        return metrics if self.step in (None, metrics.get("best_step")) else {}

    @cached_property
    def base(self) -> BaseModel:
        """The base model; of a run, as the run uses it if something is to be computed with it."""
        from ptune_core.adapters.format import template_of
        from ptune_core.adapters.tuned import base_place
        from ptune_core.model.base import load_base_model

        trained = self.trained
        if not trained.base_model:
            raise SettingsError("The adapter does not say which base model it belongs to", got="no name",
                                remedy="Set base_model_name_or_path in its adapter_config.json")  # fmt: skip
        target = self.settings.parsed_template if self.settings else template_of(trained)
        kind = target.target.kind
        num_labels = max(2, len(trained.labels)) if kind is TargetKind.HEAD else None
        with base_place(trained) as (place, revision):
            return load_base_model(
                place, target=kind, num_labels=num_labels, revision=revision, device=self.device,
                precision=trained.precision if trained.precision in ("fp32", "bf16") else "auto",
            )  # fmt: skip

    def leave_out(self, data: Path | None) -> LeftOut:
        """Each virtual token's worth, on `data` or on the run's validation split."""
        from ptune_core.data.ingest import ingest
        from ptune_core.data.table import Tables, open_table
        from ptune_core.inference.loaded import put_head_on
        from ptune_core.model.prompted import PromptedModel
        from ptune_core.training.leave_out import leave_out_each
        from ptune_core.training.preparation import load_examples, make_task
        from ptune_core.training.settings import RunSettings

        trained = self.trained
        if not self.is_whole:
            raise SettingsError("What was trained beside the prompt up to this step was not kept",
                                got="a classification head or a tuned base model",
                                remedy="Leave out --step, for the best")  # fmt: skip
        with tempfile.TemporaryDirectory() as folder:
            scratch = Path(folder)
            if data is not None:
                examples = _examples_of(ingest(data, scratch), trained, self.settings)
            elif self.settings is not None:
                validation = self.directory / "validation"
                second = open_table(validation) if validation.exists() else None
                examples = load_examples(self.settings, Tables(open_table(self.directory / "data"), second))
            else:
                raise SettingsError("An adapter brings no rows to measure on", needed="--data FILE")
            settings = self.settings or RunSettings(template=trained.template)
            template = settings.parsed_template
            if trained.segments:
                template = replace(template, segments=trained.segments)
            model = PromptedModel(self.base, template, examples.verbalizer, max_length=trained.max_length)
            if trained.head:
                put_head_on(self.base, trained.head)
            return leave_out_each(make_task(model, examples, settings, scratch / "tokens"), trained.prompt)


def _examples_of(table: Any, trained: TrainedPrompt, settings: RunSettings | None) -> Examples:
    """All rows of a table as validation examples, with the adapter's labels."""
    from ptune_core.data.examples import SplitOptions, build_examples
    from ptune_core.prompt.template import parse_template

    template = settings.parsed_template if settings else parse_template(trained.template)
    labels = trained.verbalizer or ({label: label for label in trained.labels} or None)
    if labels is None:  # an adapter without labels writes text, whatever the column
        labels = {} if settings is None or settings.candidates else settings.labels
    columns = {name: column for name, column in trained.columns.items() if column in table.columns}
    return build_examples(
        table, template, columns=columns, labels=labels, split=SplitOptions(0.5, 1, 0), validation=table
    )


def _of_run(given: Path, arguments: argparse.Namespace) -> _Subject:
    """A run, or a trial of a sweep."""
    from ptune_core.adapters.format import load_adapter
    from ptune_core.model.device import BaseWeights
    from ptune_core.runs.directory import RunDirectory
    from ptune_core.training.snapshots import Snapshots
    from ptune_core.training.sweep import directory_of

    files = RunDirectory(given)
    settings, directory = files.settings(), given
    if settings.sweep:
        best = (files.result() or {}).get("trial")
        number = arguments.trial if arguments.trial is not None else None if best is None else best + 1
        if number is None or not 1 <= number <= len(settings.trials):
            raise RunError("The sweep's trial is not known", got=str(number or "none"),
                           needed=f"--trial 1 to {len(settings.trials)}")  # fmt: skip
        settings, directory = settings.trials[number - 1], directory_of(given, number - 1)
    elif arguments.trial is not None:
        raise SettingsError("This run is no sweep", got=f"--trial {arguments.trial}")
    snapshots = Snapshots(directory)
    device = "auto" if arguments.leave_out else "cpu"
    trained = load_adapter(directory / "adapter") if (directory / "adapter").is_dir() else None
    step = _best_step(directory / "metrics.jsonl") if arguments.best else arguments.step
    exported = None if trained is None else trained.metrics.get("best_step")
    if trained is not None and step in (None, exported):
        return _Subject(trained, settings, given, snapshots, exported, device=device)
    if step is None:
        there = ", ".join(map(str, snapshots.steps)) or "none yet"
        raise RunError("This run has no adapter", got=f"{given}, with steps {there}",
                       remedy="Look at --best or a --step; train with --out resumes the run")  # fmt: skip
    prompt_embeddings, start = snapshots.load(step), snapshots.load(snapshots.steps[0])
    trained = trained or _untold(settings, prompt_embeddings)
    deep = snapshots.load_deep(step)
    trained = replace(trained, prompt_embeddings=prompt_embeddings, deep=deep, encoder_state={"start": start}, head={})
    has_head = settings.parsed_template.target.kind is TargetKind.HEAD
    is_whole = not has_head and settings.base_weights is BaseWeights.FROZEN
    return _Subject(trained, settings, given, snapshots, step, is_whole, device)


def _untold(settings: RunSettings, prompt_embeddings: Tensor) -> TrainedPrompt:
    """What the settings of a run say of an adapter that there is not yet."""
    from ptune_core.model.trained import TrainedPrompt
    from ptune_core.prompt.config import PromptEncoderConfig

    return TrainedPrompt(
        prompt_embeddings=prompt_embeddings, template=settings.template, verbalizer=None, labels=(),
        columns=dict(settings.columns), base_model=settings.base_model, revision=settings.revision, head={},
        encoder_state={}, prompt_config=PromptEncoderConfig(), max_length=settings.max_length,
        precision=str(settings.precision),
    )  # fmt: skip


def _best_step(metrics: Path) -> int | None:
    """The step of the best evaluation so far."""
    try:
        lines = read_lines(metrics.read_bytes())
    except FileNotFoundError:
        return None
    return next((int(line["step"]) for line in reversed(lines) if line.get("kind") == "eval" and line["best"]), None)


def _matrix(rows: Sequence[Sequence[float]]) -> str:
    if len(rows) > WIDEST_MATRIX:
        return f"cosines: {len(rows)} virtual tokens are too many for a table; --json gives all"
    heading = "cosine" + "".join(f"{number:6}" for number in range(1, len(rows) + 1))
    return "\n".join([heading, *(f"{i:6}" + "".join(f"{x:6.2f}" for x in row) for i, row in enumerate(rows, start=1))])


def _course(moments: Sequence[Mapping[str, Any]]) -> str:
    """A line for each moment: averages and extremes over the virtual tokens."""
    lines = ["  step    norm (longest)   moved (farthest)   cosine between two"]
    for moment in moments:
        norm, moved, alike = moment["norm"], moment["moved"], moment["alike"]
        lines.append(
            f"{moment['step']:6} {sum(norm) / len(norm):7.3f} {max(norm):9.3f} {sum(moved) / len(moved):8.3f} "
            f"{max(moved):10.3f}   {'-' if alike is None else f'{alike:.2f}'}"
        )
    return "\n".join(lines)


def _worth(left_out: LeftOut) -> str:
    """A line for each virtual token, and for each group if there are several."""
    metric, whole = str(left_out.metric), left_out.whole
    lines = [f"left out   {metric:>8}   change     loss", f"nothing    {whole.value:8.3f}        -  {whole.loss:7.3f}"]
    named = [(f"token {number}", result) for number, result in enumerate(left_out.tokens, start=1)]
    if len(left_out.groups) > 1:
        named += [(f"group {number}", result) for number, result in enumerate(left_out.groups, start=1)]
    else:
        named += [("all", result) for result in left_out.groups]
    for name, result in named:
        lines.append(f"{name:10} {result.value:8.3f} {result.value - whole.value:+8.3f}  {result.loss:7.3f}")
    lines.append(
        f"{metric} of {left_out.examples} rows; what a token does, others may do when it is missing in training"
    )
    return "\n".join(lines)
