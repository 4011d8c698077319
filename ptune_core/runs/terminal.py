"""A run as text in a terminal: progress while it trains, and what it came to."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from ptune_core.model.device import BaseWeights
from ptune_core.model.head_input import reading, reading_in_peft
from ptune_core.runs.baselines import Baseline, baseline_list, evaluated, findings, interval_of, number_of, of_line
from ptune_core.runs.live import duration
from ptune_core.training.metrics import Metric


class Progress:
    """Says where a run stands: on a terminal in one line that changes, elsewhere only what is worth keeping."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream
        self._is_terminal = stream.isatty()
        self._line_open = False
        self._steps = 0
        self._metric = "value"
        self._trials = 1
        self._rows = 0
        self._told: set[str] = set()
        self._first: tuple[int, float] | None = None

    def show(self, line: dict[str, Any]) -> None:
        """Show one line of `metrics.jsonl`."""
        match line["kind"]:
            case "phase" if line.get("bytes", 0) < line.get("of", 0):
                self._change(f"{line['phase']}: {line['bytes'] / 1e6:,.0f} of {line['of'] / 1e6:,.0f} MB")
            case "phase":
                self._keep(line["phase"] + self._which(line.get("trials", [])))
            case "plan":
                self._steps, self._metric, self._trials = line["steps"], line["metric"], line.get("trials", 1)
                self._keep(line["data"])
                if "base" in line:
                    self._keep(base_line(line["base"]))
                self._rows = line.get("validation_examples", 0)
                for sentence in (reading(line.get("head")), reading_in_peft(line.get("head")), evaluated(line, {})):
                    if sentence:
                        self._keep(sentence)
                for warning in line["warnings"]:
                    self._keep(f"warning: {warning}")
            case "follow":
                self._keep(f"trial {line['to'] + 1} from here on")
            case "resume":
                self._keep(f"resuming after step {line['step']}")
            case "baseline":
                self._baselines(line)
            case "eval":
                star = ", best so far" if line["best"] else ""
                numbers = _numbers(**{"loss": line["loss"], self._metric: line["value"]})
                rows = f" on {line['rows']:,} rows" if line.get("rows", self._rows) < self._rows else ""
                self._keep(f"step {line['step']}/{self._steps}: validation {numbers}{rows}{star}")
            case "final":
                numbers = _numbers(**{"loss": line["loss"], self._metric: line["value"]})
                self._keep(f"all {line['rows']:,} validation rows, at step {line['step']}: {numbers}{_spread(line)}")
                self._baselines(line.get("baseline") or {})
            case "step":
                self._step(line["step"], line["loss"])

    def _which(self, trials: Sequence[int]) -> str:
        """Of a sweep, which trials a phase is about, counted from 1."""
        if self._trials == 1 or not trials:
            return ""
        return f" trial {', '.join(str(number + 1) for number in trials)} of {self._trials}"

    def _baselines(self, line: dict[str, Any]) -> None:
        """Those that were not told yet: some are measured when training has ended."""
        new = [one for one in baseline_list(of_line(line)) if one.name not in self._told]
        self._told |= {one.name for one in new}
        if new:
            self._keep("baseline: " + _beside(new))

    def end_line(self) -> None:
        """Leave the changing line, so that what follows stands on its own."""
        if self._line_open:
            print(file=self._stream)
        self._line_open = False

    def _step(self, step: int, loss: float) -> None:
        if not self._is_terminal:
            return
        first_step, started = self._first = self._first or (step, time.monotonic())
        elapsed = time.monotonic() - started
        rate = (step - first_step) / elapsed if elapsed else 0.0
        left = f" · {rate:.1f} steps/s · {duration((self._steps - step) / rate)} left" if rate else ""
        self._change(f"step {step}/{self._steps} · loss {loss:.3f}{left}")

    def _change(self, text: str) -> None:
        """Show a line that the next one takes the place of, where that can be."""
        if self._is_terminal:
            self._write(text)
            self._line_open = True

    def _keep(self, text: str) -> None:
        self._write(text)
        print(file=self._stream, flush=True)
        self._line_open = False

    def _write(self, text: str) -> None:
        start, rest = ("\r", "\x1b[K") if self._is_terminal else ("", "")
        print(start + text + rest, end="", file=self._stream, flush=True)


def _numbers(**values: float | None) -> str:
    return ", ".join(f"{name.replace('_', '-')} {value:.3f}" for name, value in values.items() if value is not None)


def _beside(baselines: Sequence[Baseline]) -> str:
    """``majority 0.500, probe 0.630 (0.600 to 0.660 on 1,200 rows)``."""
    return ", ".join(f"{one.name} {one.value:.3f}{f' ({one.band})' if one.band else ''}" for one in baselines)


def _spread(numbers: Mapping[str, Any]) -> str:
    interval = interval_of(numbers.get("interval"))
    return "" if interval is None else f" ({interval[0]:.3f} to {interval[1]:.3f})"


def base_line(base: dict[str, Any]) -> str:
    """What a plan says of the base model."""
    if base["weights"] == BaseWeights.FROZEN:
        return "base model: frozen"
    return (
        f"base model: tuned, {base['parameters']:,} weights of its own learn too; at most {base['disk_mib']:,.0f} MiB "
        f"on disk, and the download holds it ({base['download_mib']:,.0f} MiB)"
    )


def summary(result: dict[str, Any], directory: Path) -> str:
    """What a run that did not fail came to, in a few lines, from its `result.json`."""
    took = f"{result['steps'] or 0} steps and {duration(result['seconds'])}"
    lines = [f"{result['state']} after {took}: {result['reason']}"]
    if result["value"] is None:
        return lines[0] + "\nIt ended before the first evaluation, so there is no adapter."
    lines += score_lines(result)
    is_tuned = result.get("base_weights") == BaseWeights.TUNED
    lines.append(f"{'adapter with the tuned base model' if is_tuned else 'adapter'}: {directory / 'adapter.zip'}")
    if result.get("sweep"):
        lines += ["", *ranking_lines(result["sweep"], result["metric"])]
    if result.get("over_seeds"):
        lines += ["", *seed_lines(result["over_seeds"], result["metric"])]
    return "\n".join(lines)


def score_lines(result: Mapping[str, Any]) -> list[str]:
    """A result beside its baselines, and what else is to be known of it; nothing without one."""
    if (value := number_of(result.get("value"))) is None:
        return []
    metric = next((name for name in Metric if name == result.get("metric")), "value")
    step = number_of(result.get("best_step"))
    beside = _beside(baseline_list(result))
    said = f"{metric} {value:.3f}{_spread(result)}{'' if step is None else f' at step {step:g}'}"
    return [said + (f"; baseline: {beside}" if beside else ""), *findings({}, result)]


def ranking_lines(ranking: Sequence[dict[str, Any]], metric: str) -> list[str]:
    """A sweep's trials as a table, best first; the trial's number is that of its folder in `sweep/`."""
    options = list(ranking[0]["settings"])
    rows = [["trial", *options, metric, "best step", "steps", ""]]
    for trial in ranking:
        value = "none" if trial["value"] is None else f"{trial['value']:.3f}"
        numbers = [value, str(trial["best_step"]), str(trial["steps"]), trial["reason"]]
        rows.append([f"{trial['trial'] + 1:02d}", *(str(trial["settings"][option]) for option in options), *numbers])
    return _table(rows)


def seed_lines(settings: Sequence[dict[str, Any]], metric: str) -> list[str]:
    """Mean and spread of each setting over its seeds as a table, best first."""
    options = list(settings[0]["settings"])
    rows = [[*options, f"mean {metric}", "std", "seeds"]]
    for row in settings:
        spread = "" if row["std"] is None else f"{row['std']:.3f}"
        chosen = (str(row["settings"][option]) for option in options)
        rows.append([*chosen, f"{row['mean']:.3f}", spread, str(len(row["trials"]))])
    return _table(rows)


def _table(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
