"""Write and read adapters: PEFT's two files, and beside them what PEFT has no place for.

An adapter whose virtual tokens stand in front of everything is a standard PEFT P_TUNING adapter. Any other placement
is written under another `peft_type` and other tensor names, so that PEFT, which always puts the prompt in front,
refuses it instead of computing something else.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import safetensors.torch
from pydantic import BaseModel, ValidationError
from torch import Tensor

from ptune_core import __version__
from ptune_core.adapters import tensors
from ptune_core.adapters.archive import PICKLE_SUFFIXES, read_files, write_files
from ptune_core.adapters.contents import DEEP, checked_encoder, checked_tensors, keys, prompt_config
from ptune_core.adapters.names import CONFIG_FILE, ENCODER_FILE, SIDECAR_FILE, TENSOR_FILE
from ptune_core.adapters.sidecar import (
    BASE_FOLDER,
    BASE_PLACE,
    FORMAT_VERSION,
    FRONT,
    TASK_TYPES,
    TEMPLATE,
    PeftConfig,
    Sidecar,
    dump_json,
    parts_from,
    problems_of,
    segments_from,
)
from ptune_core.adapters.tuned import check_base, write_base
from ptune_core.data.columns import inputs_of
from ptune_core.demo import DEMO
from ptune_core.errors import AdapterError, TemplateError
from ptune_core.model.head_input import HeadInput
from ptune_core.model.trained import TrainedPrompt
from ptune_core.plain_json import parse_json
from ptune_core.prompt.config import PEFT_VERSION
from ptune_core.prompt.kinds import EncoderKind, kind_of
from ptune_core.prompt.template import Literal, Segment, TargetKind, Template, VirtualTokens, parse_template
from ptune_core.prompt.verbalizer import answer_columns

FILE_LIMITS = {CONFIG_FILE: 2**16, SIDECAR_FILE: 2**24, TENSOR_FILE: 2**28, ENCODER_FILE: 2**30}
"""The files that are read, and the most bytes each may hold."""

Checked = TypeVar("Checked", bound=BaseModel)


def template_of(trained: TrainedPrompt) -> Template:
    """The template as it was trained: every group's count known, a chat expanded.

    Raises:
        AdapterError: `trained.segments` is empty where the template text does not say everything.
    """
    parsed = parse_template(trained.template)
    segments = trained.segments or parsed.segments
    unresolved = any(isinstance(segment, VirtualTokens) and segment.count is None for segment in segments)
    if unresolved or (parsed.messages and not trained.segments):
        raise AdapterError(
            "The trained prompt does not say where everything stands",
            got="a chat or an initial text without a count, and no segments",
            needed="the segments of the resolved and expanded template",
        )
    return Template(trained.template, segments, parsed.messages)


def is_peft_compatible(template: Template, head_input: HeadInput = HeadInput.MODEL, *, is_deep: bool = False) -> bool:
    """Whether stock PEFT gives the same scores: one group, before everything, an answer or the base model's own head.

    Args:
        template: Resolved and expanded.
        head_input: What a classification head reads.
        is_deep: Whether the prompt adds something before each layer, which P_TUNING has no place for.
    """
    is_front_alone = template.is_front and not is_deep
    return is_front_alone and template.target.kind is not TargetKind.MASK and head_input.is_models


def is_folder(base_model: str) -> bool:
    """Whether `base_model` is a path, or the demo model, which is one: in both cases not an id on the Hub."""
    is_path = base_model.startswith((".", "/", "~")) or "\\" in base_model or base_model.count("/") > 1
    return base_model == DEMO or is_path


def save_adapter(trained: TrainedPrompt, directory: Path) -> None:
    """Write the files of an adapter into `directory` and read them back.

    The prompt encoder is left out when it is larger than anyone would want to download (1 GiB).

    Raises:
        AdapterError: What was trained cannot be written as an adapter, or would not load again.
        DiskFull: There is no room.
    """
    template = template_of(trained)
    config = _config_of(trained, template)
    files = {
        CONFIG_FILE: dump_json(config.model_dump(), sort_keys=True),
        TENSOR_FILE: _tensor_file(trained, config.peft_type),
        SIDECAR_FILE: dump_json(_sidecar_of(trained, template), sort_keys=False),
    }
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in trained.encoder_state.items()}
    if 0 < sum(tensor.nbytes for tensor in state.values()) < FILE_LIMITS[ENCODER_FILE] - 2**20:
        files[ENCODER_FILE] = safetensors.torch.save(state, metadata={"format": "pt"})
    write_files(directory, files)
    if ENCODER_FILE not in files:
        (directory / ENCODER_FILE).unlink(missing_ok=True)
    if trained.tuned_base is not None:
        write_base(trained.tuned_base, directory / BASE_FOLDER)
    load_adapter(directory)


def load_adapter(path: Path) -> TrainedPrompt:
    """Read an adapter that PTune or PEFT wrote, trusting nothing in it.

    A PEFT adapter has no sidecar: its template becomes `[P*N] {text}[ANSWER:answer]` or `[P*N] {text} [HEAD:label]`,
    its labels `0`, `1`, …, `max_length` None, and `base_model` is empty if its config names none.

    Args:
        path: A folder or a zip file.

    Raises:
        AdapterError: Anything that is missing, unknown, damaged or contradictory, all of it at once.
    """
    path = Path(path)
    if path.name.lower().endswith(PICKLE_SUFFIXES):
        raise AdapterError(
            f"{path.name} is not opened, because such a file can run code",
            needed=f"a folder or a zip file with {CONFIG_FILE} and {TENSOR_FILE}",
            remedy="Save the adapter as safetensors; PEFT does so by default",
        )
    files = read_files(path, FILE_LIMITS)
    problems = [f"{name} is missing" for name in (CONFIG_FILE, TENSOR_FILE) if name not in files]
    config = _checked(PeftConfig, CONFIG_FILE, files, problems)
    sidecar = _checked(Sidecar, SIDECAR_FILE, files, problems)
    if config is not None and config.peft_type == TEMPLATE and SIDECAR_FILE not in files:
        problems.append(f"{SIDECAR_FILE} is missing, which says where the virtual tokens stand")
    if config and sidecar:
        _check_agreement(config, sidecar, problems)
    if sidecar and sidecar.tuned_from:
        problems += check_base(path)
    found = checked_tensors(files[TENSOR_FILE], config, sidecar, problems) if TENSOR_FILE in files else {}
    kind = sidecar.encoder if sidecar else None
    encoder_state = {name: found.pop(name) for name in list(found) if name.startswith(tensors.STATE_PREFIX)}
    encoder_state = {name.removeprefix(tensors.STATE_PREFIX): tensor for name, tensor in encoder_state.items()}
    if ENCODER_FILE in files:
        encoder_state = checked_encoder(files[ENCODER_FILE], config, kind, problems)
    if problems:
        raise AdapterError(
            f"The adapter {path.name} cannot be used",
            got="\n" + "\n".join(f"{number}. {problem}" for number, problem in enumerate(problems, start=1)),
            needed="an adapter that PTune exported, or a P_TUNING or PROMPT_TUNING adapter of PEFT for CAUSAL_LM, "
            "SEQ_2_SEQ_LM or SEQ_CLS",
        )
    assert config is not None
    trained = _trained(config, sidecar or _assumed_sidecar(config, found), found, encoder_state)
    if sidecar is None or sidecar.tuned_from is None:
        return trained
    origin = sidecar.tuned_from
    place = path / BASE_FOLDER if path.is_dir() else path
    return replace(trained, base_model=origin.base_model, revision=origin.revision, tuned_base=place)


def _config_of(trained: TrainedPrompt, template: Template) -> PeftConfig:
    count, token_dim = trained.prompt_embeddings.shape
    heads = sorted({name.split(".")[0] for name in trained.head})
    own, possible = trained.prompt_config, TASK_TYPES[template.target.kind]
    base_model, revision = _base_of(trained)
    values = {
        "base_model_name_or_path": base_model,
        "encoder_dropout": float(own.encoder_dropout),
        "encoder_hidden_size": own.encoder_hidden_size,
        "encoder_num_layers": own.encoder_num_layers,
        "encoder_reparameterization_type": kind_of(own).peft_type.value,
        "modules_to_save": heads or None,
        "num_attention_heads": own.num_attention_heads,
        "num_layers": own.num_layers,
        "num_transformer_submodules": 1,
        "num_virtual_tokens": count,
        "peft_type": FRONT
        if is_peft_compatible(template, trained.head_input, is_deep=trained.deep is not None)
        else TEMPLATE,
        "peft_version": PEFT_VERSION,
        "revision": revision,
        # The template says all but whether an answer is written by a decoder or by an encoder-decoder.
        "task_type": own.task_type if own.task_type in possible else possible[0],
        "token_dim": token_dim,
    }
    try:
        return PeftConfig.model_validate(values)
    except ValidationError as error:
        raise _unwritable(problems_of(error, CONFIG_FILE)) from None


def _base_of(trained: TrainedPrompt) -> tuple[str, str | None]:
    """Name and revision of the base model that the prompt works with."""
    return (trained.base_model, trained.revision) if trained.tuned_base is None else (BASE_PLACE, None)


def _sidecar_of(trained: TrainedPrompt, template: Template) -> dict[str, object]:
    base_model, revision = _base_of(trained)
    kind = kind_of(trained.prompt_config)
    try:
        values = {
            "format_version": FORMAT_VERSION,
            "ptune_version": __version__,
            "base_model": base_model,
            "revision": revision,
            "template": trained.template,
            "segments": parts_from(template.segments),
            # A chat template writes the special tokens of a conversation itself.
            "special_tokens": not template.messages,
            "labels": list(trained.labels),
            "verbalizer": trained.verbalizer,
            "columns": trained.columns,
            "max_length": trained.max_length,
            "precision": trained.precision,
            "encoder": None if kind.is_pefts else kind.value,
            "metrics": _as_json(trained.metrics),
            "settings": _as_json(trained.settings),
        }
        if not trained.head_input.is_models:
            values["head_input"] = str(trained.head_input)
        if trained.deep is not None:
            values["prompt_depth"] = "all"
        if trained.tuned_base is not None:  # else not there, so that older versions read the adapter
            values["tuned_from"] = {"base_model": trained.base_model, "revision": trained.revision}
        Sidecar.model_validate(values)
    except ValidationError as error:
        raise _unwritable(problems_of(error, SIDECAR_FILE)) from None
    return values


def _as_json(values: dict[str, Any]) -> Any:
    """As it will be read back. A number that is not finite, which JSON has no word for, becomes null."""
    return json.loads(json.dumps(values), parse_constant=lambda _: None)


def _unwritable(problems: list[str]) -> AdapterError:
    return AdapterError("The trained prompt cannot be written as an adapter", got="; ".join(problems))


def _tensor_file(trained: TrainedPrompt, peft_type: str) -> bytes:
    prompt_key, head_prefix = keys(peft_type)
    named = {prompt_key: trained.prompt_embeddings} | ({} if trained.deep is None else {DEEP: trained.deep})
    named |= {head_prefix + name: tensor for name, tensor in trained.head.items()}
    on_cpu = {name: tensor.detach().to("cpu").float().contiguous() for name, tensor in named.items()}
    return safetensors.torch.save(on_cpu, metadata={"format": "pt"})


def _checked(kind: type[Checked], name: str, files: dict[str, bytes], problems: list[str]) -> Checked | None:
    if name not in files:
        return None
    try:
        return kind.model_validate(parse_json(files[name], name))
    except ValidationError as error:
        problems += problems_of(error, name)
    except ValueError as error:
        problems.append(str(error))
    return None


def _check_agreement(config: PeftConfig, sidecar: Sidecar, problems: list[str]) -> None:
    """Whether the sidecar agrees with itself and with the config."""
    try:
        parsed = parse_template(sidecar.template)
    except TemplateError as error:
        problems.append(f"{SIDECAR_FILE}: {error}")
        return
    segments = segments_from(sidecar.segments)
    if parts_from(segments) != [part.model_dump(exclude_none=True) for part in sidecar.segments]:
        problems.append(f"{SIDECAR_FILE}: the first rows of the virtual token groups are wrong")
    if _skeleton(segments, parsed) != _skeleton(parsed.segments, parsed):
        problems.append(f"{SIDECAR_FILE}: the segments are not those of the template")
        return
    template = Template(sidecar.template, segments, parsed.messages)
    target = template.target
    named = {*inputs_of(template, answer_columns(sidecar.verbalizer or {})), target.column}
    has_answers, is_deep = sidecar.verbalizer is not None, sidecar.prompt_depth == "all"
    rules = {
        "the peft_type does not fit the place of the virtual tokens": (config.peft_type == FRONT)
        == is_peft_compatible(template, HeadInput(sidecar.head_input), is_deep=is_deep),
        "only a prompt in front of everything is deep": template.is_front or not is_deep,
        "head_input is of a classification head alone": sidecar.head_input == "model" or target.kind is TargetKind.HEAD,
        "the task_type does not fit the target": config.task_type in TASK_TYPES[target.kind],
        "num_virtual_tokens does not fit the template": template.num_virtual_tokens == config.num_virtual_tokens,
        "the base models differ": sidecar.base_model == config.base_model_name_or_path,
        "tuned_from and the base model do not fit": (sidecar.tuned_from is not None)
        == (sidecar.base_model == BASE_PLACE),
        "the revisions differ": sidecar.revision == config.revision,
        "the prompt encoders differ": sidecar.encoder is None
        or EncoderKind(sidecar.encoder).peft_type == config.encoder_reparameterization_type,
        "special_tokens does not fit the template": sidecar.special_tokens == (not parsed.messages),
        "labels occur twice": len(set(sidecar.labels)) == len(sidecar.labels),
        "the verbalizer has other labels": not has_answers or list(sidecar.verbalizer or ()) == sidecar.labels,
        "the labels do not fit the target": (len(sidecar.labels) >= 2 and not has_answers)
        if target.kind is TargetKind.HEAD
        else has_answers == bool(sidecar.labels),
        "columns names some that the template has not": sidecar.columns.keys() <= named,
    }
    problems += [f"{SIDECAR_FILE} and {CONFIG_FILE}: {rule}" for rule, holds in rules.items() if not holds]


def _skeleton(segments: tuple[Segment, ...], parsed: Template) -> list[Segment]:
    """What of `segments` the template text decides: no counts taken from an initial text, no literals of a chat."""
    open_groups = {group.group for group in parsed.groups if group.count is None}
    return [
        replace(segment, count=None) if isinstance(segment, VirtualTokens) and segment.group in open_groups else segment
        for segment in segments
        if not (parsed.messages and isinstance(segment, Literal))
    ]


def _trained(
    config: PeftConfig, sidecar: Sidecar, found: dict[str, Tensor], encoder_state: dict[str, Tensor]
) -> TrainedPrompt:
    prompt_embeddings = found["prompt_embeddings"][: config.num_virtual_tokens]
    if config.num_rows > config.num_virtual_tokens:
        # Of what PEFT keeps for an encoder-decoder only the encoder's virtual tokens are ever used.
        config, encoder_state = config.model_copy(update={"num_transformer_submodules": 1}), {}
    sized = config.model_copy(update={"token_dim": prompt_embeddings.shape[1]})
    return TrainedPrompt(
        prompt_embeddings=prompt_embeddings,
        template=sidecar.template,
        verbalizer=sidecar.verbalizer,
        labels=tuple(sidecar.labels),
        columns=sidecar.columns,
        base_model=sidecar.base_model,
        revision=sidecar.revision,
        head={name: tensor for name, tensor in found.items() if name not in ("prompt_embeddings", "deep")},
        encoder_state=encoder_state,
        prompt_config=prompt_config(sized, sidecar.encoder, inference_mode=not encoder_state),
        max_length=sidecar.max_length,
        metrics=sidecar.metrics,
        settings=sidecar.settings,
        precision=sidecar.precision,
        segments=segments_from(sidecar.segments),
        head_input=HeadInput(sidecar.head_input),
        deep=found.get("deep"),
    )


def _assumed_sidecar(config: PeftConfig, head: dict[str, Tensor]) -> Sidecar:
    """What a plain PEFT adapter does not say, as its users use it."""
    labels: list[str] = []
    template = f"[P*{config.num_virtual_tokens}] {{text}}[ANSWER:answer]"
    if config.task_type in TASK_TYPES[TargetKind.HEAD]:
        template = f"[P*{config.num_virtual_tokens}] {{text}} [HEAD:label]"
        num_labels = next(len(tensor) for name, tensor in head.items() if name in tensors.LAST_LAYERS)
        labels = [str(index) for index in range(num_labels)]
    values = {
        "format_version": FORMAT_VERSION,
        "ptune_version": __version__,
        "base_model": config.base_model_name_or_path or "",
        "revision": config.revision,
        "template": template,
        "segments": parts_from(parse_template(template).segments),
        "special_tokens": True,
        "labels": labels,
        "verbalizer": None,
        "columns": {},
        "max_length": None,
        "precision": "fp32",
        "metrics": {},
        "settings": {},
    }
    return Sidecar.model_validate(values)
