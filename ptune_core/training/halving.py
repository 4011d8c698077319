"""Successive halving: of the settings of a sweep the worse half ends early, at up to three rungs.

Of settings that train together half go on, as in Jamieson and Talwalkar (2016). Of those that train one after the
other, those go on that are in the better half of all that came as far before them: the stopping rule of ASHA (Li et
al., 2020). What counts is the best result up to the rung, of trials that differ in the seed alone the mean: they are
there for that mean, and are not compared with each other.

Decisions depend on nothing but evaluations that are in the checkpoints, and are the same in all processes. So all
processes decide alike, and a resumed sweep decides as an undisturbed one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean

from ptune_core.training.loop import Trainer
from ptune_core.training.metrics import Metric
from ptune_core.training.preparation import RUNGS
from ptune_core.training.settings import RunSettings
from ptune_core.training.trial import Trial


class Halving:
    """Which trials of a sweep end early.

    Args:
        metric: What decides which result is better.
        settings: How many settings are compared with each other: so many rungs as halve them to one. With 1 nothing
            ends early.
    """

    def __init__(self, metric: Metric, settings: int) -> None:
        self._metric = metric
        self._first_rung = max(0, len(RUNGS) - math.ceil(math.log2(settings)))
        self._at_rung: list[list[Trial]] = [[] for _ in RUNGS]
        self._group: list[Trial] = []
        self._outdone: set[Trainer] = set()
        self._rung = len(RUNGS)

    def begin(self, trials: Sequence[Trial]) -> None:
        """Go on with trials that train together, after those before them have ended."""
        self.outdone()
        self._group, self._outdone, self._rung = list(trials), set(), self._first_rung

    def outdone(self) -> set[Trainer]:
        """Of the trials that train together now, the trainers that have to end."""
        while self._rung < len(RUNGS) and all(self._is_known(trial) for trial in self._group):
            self._compare()
            self._rung += 1
        return self._outdone

    @property
    def going_on(self) -> list[Trial]:
        """Of the trials that train together now, those that do not have to end, best first."""
        trials = [trial for trial in self._group if trial.trainer not in self._outdone]
        return sorted(trials, key=lambda trial: self._metric.order(*(trial.best or self._metric.worst)))

    def _is_known(self, trial: Trial) -> bool:
        """Whether the trial can be compared at the next rung, or never will be.

        After a kill between two checkpoints some have further to go than others.
        """
        return trial.trainer in self._outdone or trial.ended is not None or trial.standing(self._rung) is not None

    def _compare(self) -> None:
        """Judge the trials that train together at the next rung."""
        group, there = self.going_on, self._at_rung[self._rung]
        # One by one, rounding up would let whoever comes second of three pass, however bad the first was.
        are_first = not there
        there += group
        standings: dict[str, list[tuple[float, float]]] = {}
        for trial in there:
            if standing := trial.standing(self._rung):
                standings.setdefault(without_seed(trial.settings), []).append(standing)

        def place(setting: str) -> tuple[float, float]:
            values, losses = zip(*standings[setting], strict=True)
            return self._metric.order(fmean(values), fmean(losses))

        ranked = sorted(standings, key=place)
        own = {without_seed(trial.settings) for trial in group}
        places = math.ceil(len(own) / 2)
        of_all = places if are_first else max(1, len(ranked) // 2)
        go_on = set([setting for setting in ranked if setting in own][:places]) & set(ranked[:of_all])
        self._outdone |= {trial.trainer for trial in group if without_seed(trial.settings) not in go_on}


def without_seed(settings: RunSettings) -> str:
    """What trials have in common that differ in the seed alone."""
    return settings.model_dump_json(exclude={"seed"})
