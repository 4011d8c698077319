"""What the inference process does: one base model at a time, any number of adapters, swapped per request.

An adapter is a handful of tensors beside the base model, never merged into it: the base model's own answer comes from
the same weights, without virtual tokens. B rows, P virtual tokens, H hidden size, C labels.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from ptune_core.adapters.adoption import adopt
from ptune_core.adapters.tuned import base_place
from ptune_core.errors import AdapterError, DataError, DeviceBusy, InferenceError, OutOfMemory
from ptune_core.inference.conversation import conversation
from ptune_core.inference.loaded import AdapterCache, BaseKey, LoadedAdapter, prompted_model, put_head_on
from ptune_core.inference.look import Outlines, look, measure
from ptune_core.inference.preview import preview
from ptune_core.inference.probabilities import probabilities
from ptune_core.inference.protocol import (
    Classification,
    Classify,
    Describe,
    Description,
    Generate,
    Generated,
    Import,
    Look,
    Measure,
    Preview,
    Request,
    Seen,
    build_request,
    join_parts,
)
from ptune_core.model.base import BaseModel, load_base_model, with_head_input
from ptune_core.model.device import BaseWeights
from ptune_core.model.generation import Sampling, stream
from ptune_core.model.lease import is_training
from ptune_core.model.past import Prefix
from ptune_core.model.prompted import PromptedModel

ROWS_PER_STEP = 16

NO_HEAD_NOTE = (
    "The base model alone has no answer here: its classification head was trained together with the virtual tokens."
)

TUNED_NOTE = (
    "The base model was trained too: on its own here means the tuned base model without the virtual tokens, not the "
    "base model before training."
)

_GIB = 2**30


@dataclass(frozen=True)
class Ready:
    """An adapter beside its base model, all on its device.

    Attributes:
        model: The base model with the adapter's template and verbalizer.
        prompt_embeddings: `[P, H]`; of a deep prompt `[(1 + L) * P, H]`, see `model.virtual`.
        prefix: What every row begins with, computed once; None where that cannot be.
    """

    model: PromptedModel
    prompt_embeddings: Tensor
    prefix: Prefix | None


class Engine:
    """Answers requests on one base model.

    Args:
        data_directory: Where the device lease is; None outside the app, where nothing says that a run is training.
    """

    def __init__(self, data_directory: Path | None = None) -> None:
        self._data_directory = data_directory
        self._adapters = AdapterCache()
        self._outlines = Outlines()
        self._base: BaseModel | None = None
        self._base_key: BaseKey | None = None
        self._ready: WeakKeyDictionary[LoadedAdapter, Ready] = WeakKeyDictionary()
        self._head_of: LoadedAdapter | None = None

    def base_key(self, request: Request) -> BaseKey | None:
        """The base model that `request` needs; None for a description, and for a look at a template.

        Raises:
            AdapterError: The adapter cannot be read, or does something else than what is asked.
            DataError: Values for some of the template's columns are missing.
        """
        if isinstance(request, Look | Measure | Import):
            return None
        adapter = self._adapters.get(request.adapter)
        if isinstance(request, Describe):
            return None
        if isinstance(request, Classify) and not adapter.classifies:
            raise AdapterError("This adapter writes text, it has no labels to choose from", remedy="Use chat")
        if isinstance(request, Generate) and adapter.classifies:
            raise AdapterError("This adapter chooses between labels, it does not write text", remedy="Use classify")
        _check_columns(request.rows if isinstance(request, Classify) else [request.values], adapter.columns)
        return adapter.base_key

    def answer(self, request: Request) -> Iterator[object]:
        """The parts of the reply, made one by one; see `protocol` for what they are.

        Raises:
            PTuneError: While iterating: what `base_key` raises, a base model that cannot be loaded or does not fit the
                adapter, memory that does not suffice.
        """
        match request:
            case Describe():
                yield self.describe(request)
            case Import():
                yield self._import(request)
            case Preview():
                yield self._preview(request)
            case Classify():
                yield from self._classify(request)
            case Generate():
                yield from self._generate(request)
            case Look():
                yield look(request, self._outlines)
            case Measure():
                yield measure(request, self._outlines)

    def idle_limit(self) -> float:
        """Seconds: short while a run trains on the GPU, which can use the memory; long on a CPU."""
        if self._base is None or self._base.device.type == "cpu":
            return 3600.0
        return 20.0 if self._is_training() else 900.0

    def describe(self, request: Describe) -> Description:
        """What an adapter is for.

        Raises:
            AdapterError: It cannot be read.
        """
        adapter = self._adapters.get(request.adapter)
        trained = adapter.trained
        return {
            "task": "classify" if adapter.classifies else "generate",
            "columns": list(adapter.columns),
            "data_columns": dict(trained.columns),
            "target": adapter.template.target.column,
            "labels": list(trained.labels),
            "template": trained.template,
            "base_model": trained.base_model,
            "base_weights": BaseWeights.FROZEN if trained.tuned_base is None else BaseWeights.TUNED,
            "revision": trained.revision,
            "num_virtual_tokens": len(trained.prompt_embeddings),
            "is_chat": bool(adapter.template.messages),
        }

    def classify(self, request: Classify) -> Classification:
        """All rows' label probabilities at once.

        Raises:
            PTuneError: As `base_key` and `answer`.
        """
        self.base_key(request)
        return join_parts(list(self._classify(request)))

    def _classify(self, request: Classify) -> Iterator[Classification]:
        adapter = self._adapters.get(request.adapter)
        for start in range(0, len(request.rows), ROWS_PER_STEP):
            rows = request.rows[start : start + ROWS_PER_STEP]
            with _memory_explained():
                yield self._classify_rows(adapter, rows, request.compare)

    def _classify_rows(
        self, adapter: LoadedAdapter, rows: Sequence[Mapping[str, str]], compare: bool
    ) -> Classification:
        ready = self._prepare(adapter)
        has_head = ready.model.base.head is not None
        return {
            "labels": list(adapter.trained.labels),
            "tuned": _tuned_probabilities(ready, rows),
            "base": _base_probabilities(ready.model, rows) if compare and not has_head else None,
            "note": _note(adapter, has_head) if compare else "",
        }

    def _generate(self, request: Generate) -> Iterator[Generated]:
        """Both texts grow by a token a step, from one base model with the same seed."""
        with _memory_explained():
            ready = self._prepare(self._adapters.get(request.adapter))
            model, prefix = ready.model, ready.prefix
            values = {"tuned": request.values, "base": request.values}
            if request.history:
                model, values = conversation(model, self._adapters.get(request.adapter).template, request)
                prefix = None
            sampling = Sampling(request.max_new_tokens, request.temperature, seed=request.seed)
            room = _room_for_answer(model, request.max_new_tokens)
            row = model.rows.row(values["tuned"], reserve=room)
            streams = {"tuned": stream(model, row, ready.prompt_embeddings, sampling, prefix)}
            if request.compare:
                streams["base"] = stream(model, model.base_rows.row(values["base"], reserve=room), None, sampling)
            texts = dict.fromkeys(streams, "")
            while streams:
                for name in list(streams):
                    text = next(streams[name], None)
                    if text is None:
                        del streams[name]
                    else:
                        texts[name] = text
                yield {"tuned": texts["tuned"], "base": texts.get("base")}

    def _import(self, request: Import) -> Description:
        out = Path(request.out)
        adopt(Path(request.adapter), out, request.usage.model_dump())
        return self.describe(build_request(Describe, {"adapter": str(out / "adapter")}))

    def _preview(self, request: Preview) -> Seen:
        with _memory_explained():
            ready = self._prepare(self._adapters.get(request.adapter))
        return preview(ready.model, request.values)

    def _prepare(self, adapter: LoadedAdapter) -> Ready:
        """Load the adapter's base model if another one is there, and put the adapter's head on it."""
        if self._base is None or self._base_key != adapter.base_key:
            self._unload()
            self._base, self._base_key = self._load_base(adapter), adapter.base_key
        if adapter not in self._ready:
            # Whether this base model can be computed in parts is tried once, not for each of its adapters.
            texts = next((ready.model.texts for ready in self._ready.values()), None)
            model = prompted_model(adapter, self._base, texts)
            prompt_embeddings = adapter.trained.prompt.to(self._base.device)
            self._ready[adapter] = Ready(model, prompt_embeddings, model.prefix(prompt_embeddings))
        if adapter is not self._head_of:
            put_head_on(self._base, adapter.trained.head)
            self._head_of = adapter
        return self._ready[adapter]

    def _unload(self) -> None:
        self._base = self._base_key = self._head_of = None
        self._ready.clear()
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def _load_base(self, adapter: LoadedAdapter) -> BaseModel:
        """Load into RAM first: only then is it known what the GPU must have room for."""
        key = adapter.base_key
        with base_place(adapter.trained) as (place, revision):
            loaded = load_base_model(
                place,
                target=key.target,
                num_labels=key.num_labels,
                revision=revision,
                device="cpu",
                precision=key.precision,
            )
        base = with_head_input(loaded, key.head_input)
        if torch.cuda.is_available():
            free, _ = torch.cuda.mem_get_info()
            check_gpu_room(base, free, is_training=self._is_training())
            nn.Module.to(base.model, "cuda")
        return base

    def _is_training(self) -> bool:
        return self._data_directory is not None and is_training(self._data_directory)


def check_gpu_room(base: BaseModel, free: int, *, is_training: bool) -> None:
    """Whether a base model that is in RAM fits beside what else is on the GPU: so that a run never lacks memory.

    Args:
        base: In RAM.
        free: Free bytes of the GPU.
        is_training: Whether a run is training on it.

    Raises:
        InferenceError: There is no room for its weights, a quarter more for work, and 1 GiB; `DeviceBusy` if a run is
            training.
    """
    weights = sum(tensor.numel() * tensor.element_size() for tensor in base.model.state_dict().values())
    needed = weights + weights // 4 + _GIB
    if free < needed:
        kind = DeviceBusy if is_training else InferenceError
        raise kind(
            "The GPU has no room left" + (" beside the run that is training" if is_training else ""),
            got=f"{free / _GIB:.1f} GiB free",
            needed=f"{needed / _GIB:.1f} GiB for {base.id}",
            remedy="Try again when the run has ended, or stop it" if is_training else "End what else is using the GPU",
        )


def _note(adapter: LoadedAdapter, has_head: bool) -> str:
    if has_head:
        return NO_HEAD_NOTE
    return TUNED_NOTE if adapter.trained.tuned_base is not None else ""


def _check_columns(rows: Sequence[Mapping[str, str]], columns: Sequence[str]) -> None:
    problems = []
    for number, row in enumerate(rows, start=1):
        if missing := [name for name in columns if name not in row]:
            problems.append(f"row {number}: no {', '.join(missing)}")
    if problems:
        raise DataError("Values for the template are missing", problems=problems[:10], needed=", ".join(columns))


def _tuned_probabilities(ready: Ready, rows: Sequence[Mapping[str, str]]) -> list[list[float]]:
    """Label probabilities `[B][C]` with the adapter's virtual tokens."""
    scores = ready.model.scores(ready.model.make_rows(rows), ready.prompt_embeddings, ready.prefix)
    return probabilities(scores).tolist()


def _base_probabilities(model: PromptedModel, rows: Sequence[Mapping[str, str]]) -> list[list[float]]:
    """Label probabilities `[B][C]` of the base model alone."""
    return probabilities(model.scores(model.make_rows(rows, prompted=False), None)).tolist()


def _room_for_answer(model: PromptedModel, max_new_tokens: int) -> int:
    """Tokens of the longest row to keep free, so that an answer fits into the base model's positions after it.

    At most half a row: an answer that is cut short is better than a text of which nothing is left.
    """
    positions = model.base.max_positions
    if positions is None or not model.base.is_causal:  # only a decoder's answer stands in the row
        return 0
    return min(max(0, model.max_length + max_new_tokens - positions), model.max_length // 2)


@contextmanager
def _memory_explained() -> Iterator[None]:
    """Memory that runs out as an `OutOfMemory` that says what to do."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        text = str(error)
        if not isinstance(error, MemoryError | torch.OutOfMemoryError) and "allocate memory" not in text:
            raise
        raise OutOfMemory(
            "Memory ran out while answering",
            got=text.split("\n")[0][:200],
            remedy="Shorten the text, or end what else is using the memory",
        ) from error
