"""What is said of options: which values they may have, and what is wrong with one. No torch is imported."""

from __future__ import annotations

from enum import StrEnum

from pydantic import ValidationError
from pydantic.fields import FieldInfo


def bounds_text(field: FieldInfo) -> str:
    """The allowed values of one option in words, such as ``1 to 4096``; empty if anything goes."""
    if isinstance(field.annotation, type) and issubclass(field.annotation, StrEnum):
        return "One of: " + ", ".join(field.annotation)
    low, high = field_bounds(field)
    if low is None or high is None:
        return ""
    return f"{low:g} to {high:g}" if isinstance(low, float) or isinstance(high, float) else f"{low} to {high}"


def field_bounds(field: FieldInfo) -> tuple[float | None, float | None]:
    """Lowest and highest allowed number of an option (None: unbounded); exclusive bounds are given as they are."""
    low = high = None
    for constraint in field.metadata:
        low = getattr(constraint, "ge", getattr(constraint, "gt", low))
        high = getattr(constraint, "le", getattr(constraint, "lt", high))
    return low, high


def describe(error: ValidationError) -> str:
    """Every problem of every option, one line each."""
    lines = []
    for problem in error.errors():
        place = ".".join(str(part) for part in problem["loc"]) or "settings"
        if problem["type"] == "extra_forbidden":
            lines.append(f"{place}: there is no such option. `python -m ptune_core init-settings` lists them all")
        elif problem["type"] == "value_error":
            lines.append(problem["msg"].removeprefix("Value error, "))
        else:
            lines.append(f"{place}: {problem['msg']} (got {_short(problem['input'])})")
    return lines[0] if len(lines) == 1 else "\n".join(f"{i}. {line}" for i, line in enumerate(lines, start=1))


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
