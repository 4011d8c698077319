"""Verbalizer: label <-> answer words, or what each row says the words are. No torch."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Self

from ptune_core.errors import SettingsError
from ptune_core.prompt.segments import FILTERS, Column, Literal

_COLUMN = re.compile(r"\{\s*([^{}|\n]*[^{}|\s])\s*((?:\|[^{}|\n]*)*)\}")


@dataclass(frozen=True)
class Verbalizer:
    """The answer words of every label; the order of `answers` is the order of the label indices.

    An answer with a column in it, such as ``{0: " {choice1}", 1: " {choice2|lower_first}"}``, is filled from the row:
    each row brings its own choices. One label's may, and then all answers are compared by all of their words.
    """

    answers: dict[str, str]

    @classmethod
    def from_labels(cls, labels: Sequence[str], answers: Mapping[str, str] | None = None) -> Self:
        """The verbalizer of `labels`, in their order.

        Args:
            labels: Labels of the data.
            answers: Label -> answer words. None: every label, after a space, is its own answer.

        Raises:
            SettingsError: `answers` lacks labels, names labels that are not there, or holds answers without words; or
                there are fewer than two labels. All of it at once.
        """
        problems = []
        if len(set(labels)) < 2:
            problems.append(f"there are {len(set(labels))} labels, and it takes two to choose from")
        if answers is None:
            answers = {label: f" {label}" for label in labels}
        if missing := [label for label in labels if label not in answers]:
            problems.append(f"no answer for {_listed(missing)}")
        if unknown := [label for label in answers if label not in labels]:
            problems.append(f"the data has no label {_listed(unknown)}")
        if empty := [label for label in labels if label in answers and not answers[label].strip()]:
            problems.append(f"the answer for {_listed(empty)} is empty")
        parts = [part for label in labels for part in _parts(answers.get(label, ""))]
        filters = {name for part in parts if isinstance(part, Column) for name in part.filters}
        if strange := sorted(filters - set(FILTERS)):
            problems.append(f"there is no filter {_listed(strange)}, only {', '.join(FILTERS)}")
        if problems:
            raise SettingsError(
                "The labels and their answers do not fit together",
                got="; ".join(problems),
                needed=f"one answer for each of {_listed(list(labels))}",
            )
        return cls({label: answers[label] for label in labels})

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels; their places are the label indices."""
        return tuple(self.answers)

    @cached_property
    def columns(self) -> tuple[str, ...]:
        """Data columns that answers are filled from, each once, in order; empty: all rows have the same answers."""
        return answer_columns(self.answers)

    def filled(self, values: Mapping[str, str]) -> tuple[str, ...]:
        """The answers of one row, in the order of the labels.

        Args:
            values: Column -> text, those of `columns` at least.
        """
        return tuple(
            "".join(
                part.text if isinstance(part, Literal) else part.apply(values[part.name]) for part in _parts(answer)
            )
            for answer in self.answers.values()
        )

    def token_ids(self, encode: Callable[[str], list[int]]) -> dict[str, list[int]]:
        """Label -> token ids of its answer.

        Args:
            encode: Token ids of a text, without special tokens.
        """
        return {label: encode(answer) for label, answer in self.answers.items()}

    def first_ids(self, encode: Callable[[str], list[int]]) -> list[int]:
        """The token by which each answer is told from the others, [C]: its first one.

        Raises:
            SettingsError: Answers that begin with the same token or have none; all of them are named.
        """
        ids = self.token_ids(encode)
        self._raise(
            self.problems(ids), "answers that differ in their first token", "Choose other words for these labels"
        )
        return [tokens[0] for tokens in ids.values()]

    def mask_ids(self, encode: Callable[[str], list[int]], count: int) -> list[list[int]]:
        """The tokens that fill `count` mask tokens for each label, [C][count].

        Raises:
            SettingsError: Answers of more or fewer tokens, or answers that are the same; all of them are named.
        """
        ids = self.token_ids(encode)
        needed = f"different answers of {count} tokens"
        self._raise(self.problems(ids, count), needed, "Choose other words, or write [MASK*n:column]")
        return list(ids.values())

    def problems(self, ids: Mapping[str, Sequence[int]], masks: int | None = None) -> list[tuple[tuple[str, ...], str]]:
        """Why answers cannot be told apart: the labels concerned and a sentence for each reason.

        Args:
            ids: Label -> token ids of its answer.
            masks: How many mask tokens the answers fill; None: they follow the text, and their first tokens count.
        """
        if masks is None:
            wrong = {label: "has no token" for label, tokens in ids.items() if not tokens}
            keys, how = {label: tuple(tokens[:1]) for label, tokens in ids.items()}, "begin with the same token"
        else:
            wrong = {
                label: f"has {len(tokens)} tokens, the template {masks} mask tokens"
                for label, tokens in ids.items()
                if len(tokens) != masks
            }
            keys, how = {label: tuple(tokens) for label, tokens in ids.items()}, "have the same tokens"
        by_key: dict[tuple[int, ...], list[str]] = {}
        for label, key in keys.items():
            if key:
                by_key.setdefault(key, []).append(label)
        found: list[tuple[tuple[str, ...], str]] = [
            ((label,), f"the answer {self.answers[label]!r} {what}") for label, what in wrong.items()
        ]
        for key, labels in by_key.items():
            if len(labels) > 1:
                answers = ", ".join(repr(self.answers[label]) for label in labels)
                found.append((tuple(labels), f"the answers {answers} {how} {key}"))
        return found

    def _raise(self, problems: Sequence[tuple[tuple[str, ...], str]], needed: str, remedy: str) -> None:
        if problems:
            what = "The answers cannot be told apart with the tokenizer of the base model"
            raise SettingsError(what, got="; ".join(told for _, told in problems), needed=needed, remedy=remedy)


def answer_columns(answers: Mapping[str, str]) -> tuple[str, ...]:
    """Data columns that `answers` (label -> answer words) are filled from, each once, in order."""
    parts = [part for answer in answers.values() for part in _parts(answer)]
    return tuple(dict.fromkeys(part.name for part in parts if isinstance(part, Column)))


def _parts(answer: str) -> list[Literal | Column]:
    """An answer as text and columns; a brace that names no column is text."""
    parts: list[Literal | Column] = []
    at = 0
    for match in _COLUMN.finditer(answer):
        filters = tuple(name.strip() for name in match[2].split("|")[1:])
        parts += [Literal(answer[at : match.start()]), Column(match[1], filters=filters)]
        at = match.end()
    return [*parts, Literal(answer[at:])]


def _listed(labels: Sequence[str], most: int = 20) -> str:
    shown = ", ".join(repr(label) for label in labels[:most])
    return shown if len(labels) <= most else f"{shown} and {len(labels) - most} more"
