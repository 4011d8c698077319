"""What the base-model card and the Run card say of what was found, as HTML whose every part is escaped. No gradio."""

from __future__ import annotations

import html
import os
from collections.abc import Mapping
from typing import Any

from ptune_core.app import texts
from ptune_core.app.measuring import Measurement, Stage
from ptune_core.demo import DEMO
from ptune_core.model.facts import BaseFacts, is_path
from ptune_core.prompt.segments import TargetKind
from ptune_core.runs.live import duration
from ptune_core.training.checks import FP32_BYTES, Machine, memory

_KINDS = {TargetKind.ANSWER: "writes text", TargetKind.MASK: "fills masks", TargetKind.HEAD: "sorts texts into labels"}


def about_model(base_model: str, facts: BaseFacts | None, machine: Machine) -> str:
    """The line under the base model: size, kind, whether it fits, and where it comes from."""
    if not base_model:
        return _line("Choose a base model.")
    if facts is None:
        if is_path(base_model):
            return _line(texts.NO_SUCH_FOLDER)
        return _line(
            f"Its size is not known yet. {_from_hub()} If its page asks for acceptance, accept there and set HF_TOKEN "
            "before the app is started."
        )
    parts = []
    if facts.parameters is not None:
        parts.append(f"{texts.many(facts.parameters)} parameters")
    if facts.targets:
        parts.append(_KINDS[facts.targets[0]])
    if facts.parameters is not None:
        needed = facts.parameters * FP32_BYTES
        fits = "fits" if needed <= machine.free else "does not fit"
        where = "of the GPU's memory " if machine.has_gpu else ""
        parts.append(f"{fits}: {memory(needed)} of {memory(machine.free)} {where}free")
    where_from = "comes with PTune" if base_model == DEMO else "on this machine" if facts.is_here else _from_hub()
    return _line(" · ".join([*parts, where_from]))


def _from_hub() -> str:
    if os.environ.get("HF_HUB_OFFLINE", "") in ("1", "true", "True", "ON", "YES"):
        return "Not on this machine, and PTune is offline: choose another, or a folder."
    return "Fetched from the Hub when the run starts."


def measured(found: Measurement | None, fingerprint: str, seconds: float) -> str:
    """How the newest measurement stands, and what it gave.

    Args:
        found: The measurement, if there is one.
        fingerprint: Of the form as it is now; empty if it cannot start.
        seconds: Since the measurement began.
    """
    if found is None or found.stage is Stage.CALLED_OFF:
        return _line(texts.ABOUT_MEASURE)
    if found.stage is Stage.RUNNING:
        return f'<p class="working" role="status">Measuring on 3 real steps, {duration(seconds)} so far…</p>'
    if found.stage is Stage.FAILED:
        return f'<div class="problem" role="alert"><pre>{html.escape(found.error)}</pre></div>'
    is_old = found.fingerprint != fingerprint
    said = f"<p>{html.escape(estimate(found.numbers))}</p>"
    if is_old:
        return f'<div class="quiet old" role="status"><p><b>Measured with other settings:</b></p>{said}</div>'
    warnings = "".join(f'<p class="warning">{html.escape(str(each))}</p>' for each in found.numbers.get("warnings", ()))
    return f'<div role="status">{said}{warnings}</div>'


def estimate(numbers: Mapping[str, Any]) -> str:
    """What a measurement gave, in two sentences."""
    room = f"{_mib(numbers['peak_mib'])} of memory"
    if numbers.get("gpu_peak_mib") is not None:
        room += f", {_mib(numbers['gpu_peak_mib'])} of the GPU's"
    if numbers.get("disk_mib"):
        room += f", {_mib(numbers['disk_mib'])} on disk"
    is_sweep = numbers["trials"] > 1
    early = f" for all {numbers['trials']} trainings if none stops early" if is_sweep else " if it does not stop early"
    return (
        f"About {duration(numbers['seconds'])}{early}, {room} (measured on 3 steps). "
        f"Trains {texts.many(numbers['trained'])} values; keeps {texts.size(numbers['kept_bytes'])}."
    )


def _mib(mib: float) -> str:
    return memory(int(mib * 2**20))


def escaped(text: str) -> str:
    """Text with its line breaks, as HTML."""
    return html.escape(text).replace("\n", "<br>")


def _line(text: str) -> str:
    return f'<p class="quiet">{html.escape(text)}</p>'
