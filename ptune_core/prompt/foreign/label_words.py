"""Verbalizers of OpenPrompt: label words from JSON, or from its text files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ptune_core.errors import TemplateError
from ptune_core.prompt.foreign.common import Problems, load_json, shown

MAX_TEXT = 1 << 20
"""Characters of a file of label words: knowledgeable verbalizers hold thousands of words."""

MAX_LABELS = 1000
WITHOUT_PREFIX = "<!>"
"""Before a word that takes no prefix."""


def read_label_words(
    text: str, *, is_json: bool, choice: int = 0, prefix: str = " "
) -> tuple[dict[str, str], list[str]]:
    """Answers of the labels, `{label: " word"}`, and what is not the same here.

    Args:
        text: JSON: `{label: word or words}`, a list of such, or a list of words or lists of words, whose labels are
            0, 1, …. Else text: a line for each label 0, 1, … with its words between commas; an empty line begins
            another verbalizer.
        is_json: Which of the two.
        choice: Which verbalizer of several, from 0.
        prefix: What is put before each word.

    Raises:
        TemplateError: With every problem.
    """
    if len(text) > MAX_TEXT:
        got, needed = f"{len(text):,} characters", f"at most {MAX_TEXT:,}"
        raise TemplateError("The label words are too many", got=got, needed=needed)
    if is_json:
        return label_words(load_json(text, "The verbalizer"), choice=choice, prefix=prefix)
    return label_words(_from_lines(text), choice=choice, prefix=prefix)


def label_words(value: Any, *, choice: int = 0, prefix: str = " ") -> tuple[dict[str, str], list[str]]:
    """Answers of the labels from plain data; see `read_label_words`.

    Raises:
        TemplateError: With every problem.
    """
    problems = Problems()
    chosen = _chosen(value, choice, problems)
    labelled = chosen if isinstance(chosen, Mapping) else dict(enumerate(chosen))
    if not 2 <= len(labelled) <= MAX_LABELS:
        got, needed = f"{len(labelled)} labels", f"2 to {MAX_LABELS}"
        problems.add("There are too few or too many labels", got=got, needed=needed)
        problems.fail("The verbalizer cannot be imported")
    answers: dict[str, str] = {}
    several: list[str] = []
    for label, words in labelled.items():
        words = [words] if isinstance(words, str) else words
        if not isinstance(label, str | int) or isinstance(label, bool):
            problems.add("A label is no text", got=shown(label))
        elif not isinstance(words, Sequence) or not words or not all(isinstance(word, str) for word in words):
            problems.add(
                f"The label {shown(str(label))} has no words", got=shown(words), needed="a word, or a list of them"
            )
        elif not (word := words[0].removeprefix(WITHOUT_PREFIX)).strip():
            problems.add(f"The first word of the label {shown(str(label))} is empty")
        else:
            answers[str(label)] = word if words[0].startswith(WITHOUT_PREFIX) else prefix + word.strip()
            several += [f"{label} ({len(words) - 1} more)"] * (len(words) > 1)
    if problems:
        problems.fail("The verbalizer cannot be imported")
    if not several:
        return answers, []
    more = f" and {len(several) - 10} more labels" if len(several) > 10 else ""
    return answers, [
        f"Only the first word of each label is used, where OpenPrompt averages: {', '.join(several[:10])}{more}."
    ]


def _chosen(value: Any, choice: int, problems: Problems) -> Mapping[Any, Any] | Sequence[Any]:
    """One verbalizer, of several if there are several."""
    if isinstance(value, list) and value and all(isinstance(item, dict) for item in value):
        if choice < len(value):
            chosen: dict[Any, Any] = value[choice]
            return chosen
        problems.add("There are fewer verbalizers", got=f"choice {choice}", needed=f"0 to {len(value) - 1}")
        problems.fail("The verbalizer cannot be imported")
    if isinstance(value, dict | list):
        return value
    problems.add("This is no verbalizer", got=shown(value), needed='{"label": ["word"], …} or [["word"], …]')
    problems.fail("The verbalizer cannot be imported")


def _from_lines(text: str) -> list[dict[str, list[str]]]:
    """The verbalizers of a text file: a line for each label, an empty line between two verbalizers."""
    found: list[dict[str, list[str]]] = []
    lines: list[str] = []
    for line in [*text.splitlines(), ""]:
        if line.strip():
            lines.append(line.strip())
        elif lines:
            found.append({str(label): words.split(",") for label, words in enumerate(lines)})
            lines = []
    return found or [{}]
