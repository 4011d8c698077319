"""What a run's result stands beside."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def baselines(result: Mapping[str, Any]) -> dict[str, float]:
    """``{"majority": 0.51, "zero-shot": 0.64, "8 examples in context": 0.71}``: those that were measured.

    Args:
        result: Of `result.json`.
    """
    examples = f"{result.get('few_shot_examples')} examples in context"
    names = {"majority": "majority", "zero-shot": "zero_shot", examples: "few_shot"}
    found = {name: result.get(f"baseline_{key}") for name, key in names.items()}
    return {name: value for name, value in found.items() if value is not None}
