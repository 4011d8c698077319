"""What every other form of an adapter needs: its base model, the fields all of PEFT's configs have, and the zip."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ptune_core.adapters.archive import write_files, write_zip
from ptune_core.adapters.export import with_whole_path
from ptune_core.adapters.names import CARD_FILE, CONFIG_FILE, TENSOR_FILE
from ptune_core.adapters.sidecar import dump_json
from ptune_core.errors import AdapterError
from ptune_core.model.base import load_base_model, with_head_input
from ptune_core.model.prompted import PromptedModel
from ptune_core.model.trained import TrainedPrompt
from ptune_core.prompt.config import PEFT_VERSION
from ptune_core.prompt.template import TargetKind, Template
from ptune_core.prompt.verbalizer import Verbalizer, answer_columns


def base_for(trained: TrainedPrompt, template: Template) -> PromptedModel:
    """The adapter's base model with its template, on the CPU, in the precision its users run it in.

    Raises:
        AdapterError: The adapter does not name its base model, or does not fit it.
        BaseModelError: It cannot be loaded.
    """
    if not trained.base_model:
        raise AdapterError(
            "The adapter does not say which base model it belongs to",
            remedy="Set base_model_name_or_path in its adapter_config.json",
        )
    if trained.tuned_base is not None:
        raise AdapterError(
            "The adapter brings its own tuned base model, which this form has no place for",
            needed="an adapter of a frozen base model",
            remedy="Export it in the usual form, which holds both",
        )
    if columns := answer_columns(trained.verbalizer or {}):
        raise AdapterError(
            "The adapter compares answers that each row brings, which no lines for plain models say how to do",
            got=f"answers from {', '.join(columns)}",
            needed="the same answers for all rows",
            remedy="Export it in the usual form, whose zip has a script that compares them",
        )
    loaded = load_base_model(
        trained.base_model,
        target=template.target.kind,
        num_labels=len(trained.labels) if template.target.kind is TargetKind.HEAD else None,
        revision=trained.revision,
        device="cpu",
        precision="fp32" if trained.precision == "fp32" else "bf16",
    )
    base = with_head_input(loaded, trained.head_input)
    width = trained.prompt_embeddings.shape[1]
    if width != base.hidden_size:
        raise AdapterError(
            f"The adapter does not fit the base model {base.id}",
            got=f"virtual tokens of size {width}",
            needed=f"size {base.hidden_size}",
        )
    verbalizer = Verbalizer.from_labels(trained.labels, trained.verbalizer) if trained.labels else None
    return PromptedModel(base, template, verbalizer, max_length=trained.max_length)


def common_config(trained: TrainedPrompt) -> dict[str, Any]:
    """The fields of `adapter_config.json` that are the same for all of PEFT's methods."""
    return {
        "auto_mapping": None,
        "base_model_name_or_path": with_whole_path(trained).base_model,
        "inference_mode": True,
        "peft_version": PEFT_VERSION,
        "revision": trained.revision,
    }


def refusal(form: str, *, got: str, needed: str = "", remedy: str = "") -> AdapterError:
    """The error that says why an adapter cannot be exported in a form."""
    return AdapterError(f"This adapter cannot be exported as {form}", got=got, needed=needed, remedy=remedy)


def write_converted(
    zip_path: Path,
    *,
    card: str,
    config: Mapping[str, object],
    tensors: bytes,
    others: Mapping[str, bytes] | None = None,
) -> None:
    """Write an adapter of PEFT with its card as a zip, which appears complete or not at all.

    Raises:
        AdapterError: The file cannot be written.
        DiskFull: There is no room.
    """
    files = {CARD_FILE: card.encode(), CONFIG_FILE: dump_json(config, sort_keys=True), TENSOR_FILE: tensors}
    files |= others or {}
    with tempfile.TemporaryDirectory() as folder:
        write_files(Path(folder), files)
        write_zip(zip_path, Path(folder), list(files))
