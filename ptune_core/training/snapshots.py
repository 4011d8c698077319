"""Prompt embeddings as they were at the evaluations of a run, so that one can look back at how they came about.

P virtual tokens, H hidden size. However long the run, a bounded number is kept, spread over all its steps.
"""

from __future__ import annotations

import os
from pathlib import Path

import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor

from ptune_core.errors import CheckpointError

FOLDER = "prompts"
"""Name of the folder in a run's or a trial's directory."""

KEPT_AT_MOST = 64
KEPT_AT_LEAST = 8
ROOM = 64 * 2**20
"""Bytes that all snapshots of a run may take, unless the fewest that are kept are larger."""

_NAME, _DEEP = "prompt_embeddings", "deep"


class Snapshots:
    """The snapshots of one run, or of one trial of a sweep.

    Args:
        directory: Its directory; a folder is made there with the first one.
    """

    def __init__(self, directory: Path) -> None:
        self.folder = directory / FOLDER

    @property
    def steps(self) -> list[int]:
        """The steps there are snapshots of, ascending."""
        names = (path.stem.removeprefix("step-") for path in self.folder.glob("step-*.safetensors"))
        return sorted(int(name) for name in names if name.isdigit())

    def record(self, step: int, prompt_embeddings: Tensor, best_step: int, deep: Tensor | None = None) -> None:
        """Keep `[P, H]` prompt embeddings; of too many, one of those that lie closest together goes.

        Args:
            step: Optimizer steps done.
            prompt_embeddings: As they are now.
            best_step: The step of the best evaluation so far, which stays.
            deep: What a deep prompt adds before each layer, `[L, P, H]`; None for any other.

        Raises:
            OSError: The disk is full or cannot be written; the others are untouched.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        tensors = {_NAME: prompt_embeddings} | ({} if deep is None else {_DEEP: deep})
        tensors = {name: tensor.detach().float().cpu().contiguous() for name, tensor in tensors.items()}
        # Whole after a kill. Not forced to the disk, which takes longer than all the rest: after a power cut the last
        # ones may be damaged, and nothing but a look back is lost.
        unfinished = self.folder / ".tmp-snapshot"
        unfinished.write_bytes(safetensors.torch.save(tensors))
        os.replace(unfinished, self._path(step))
        most = max(KEPT_AT_LEAST, min(KEPT_AT_MOST, ROOM // max(1, sum(tensor.nbytes for tensor in tensors.values()))))
        steps = self.steps
        while len(steps) > most:
            inner = [place for place in range(1, len(steps) - 1) if steps[place] != best_step]
            closest = min(inner, key=lambda place: steps[place + 1] - steps[place - 1])
            os.unlink(self._path(steps.pop(closest)))

    def forget_after(self, step: int) -> None:
        """Drop those after `step`: training goes on from there. -1 drops all."""
        for later in self.steps:
            if later > step:
                os.unlink(self._path(later))

    def load(self, step: int) -> Tensor:
        """`[P, H]` fp32 as they were at `step`.

        Raises:
            CheckpointError: There is none of that step, or its file is damaged.
        """
        return self._load(step)[_NAME]

    def load_deep(self, step: int) -> Tensor | None:
        """What a deep prompt added before each layer at `step`, `[L, P, H]` fp32; None for any other.

        Raises:
            CheckpointError: As `load`.
        """
        return self._load(step).get(_DEEP)

    def _load(self, step: int) -> dict[str, Tensor]:
        try:
            found = safetensors.torch.load(self._path(step).read_bytes())
            return {_NAME: found[_NAME], **found}
        except FileNotFoundError:
            raise CheckpointError(
                "There is no snapshot of this step", got=str(step), needed=", ".join(map(str, self.steps)) or "none",
                remedy="A snapshot is taken at each evaluation; of very many, some are kept",
            ) from None  # fmt: skip
        except (OSError, SafetensorError, KeyError) as error:
            raise CheckpointError(f"The snapshot of step {step} is damaged", got=str(error)[:300]) from error

    def load_all(self) -> dict[int, Tensor]:
        """Step -> `[P, H]`, ascending."""
        return {step: self.load(step) for step in self.steps}

    def _path(self, step: int) -> Path:
        return self.folder / f"step-{step:06d}.safetensors"
