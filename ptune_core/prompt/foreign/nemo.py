"""NeMo's prompt learning (v1.11 to v1.23): `task_templates` and the encoder's block of its configuration.

A prompt template holds `<|VIRTUAL_PROMPT_0|>`, `<|VIRTUAL_PROMPT_1|>`, …, which stand for `virtual_token_splits[0]`, …
virtual tokens, and `{field}` for each field of the data. NeMo puts the vectors in as they come, whatever number a
marker has, so their order is that of the groups here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from ptune_core.errors import TemplateError
from ptune_core.prompt.foreign.common import MAX_TEXT, Imported, Problems, finish, is_column_name, load_config, shown
from ptune_core.prompt.grammar import MAX_COUNT
from ptune_core.prompt.template import Column, Literal, Segment, Target, TargetKind, VirtualTokens

SOURCE = "NeMo"
MARKER = "<|VIRTUAL_PROMPT_"
ENCODERS = {"tpmlp": "MLP", "mlp": "MLP", "lstm": "LSTM", "biglstm": "LSTM"}
_SLOT = re.compile(r"<\|VIRTUAL_PROMPT_([0-9]{1,4})\|>|\{([^{}\n]*)\}")
_TASK_KEYS = {
    "taskname", "prompt_template", "total_virtual_tokens", "virtual_token_splits", "truncate_field",
    "answer_only_loss", "answer_field",
}  # fmt: skip


def import_nemo(text: str, task: str | None = None, labels: dict[str, str] | None = None) -> Imported:
    """Translate a task of a NeMo configuration.

    Args:
        text: YAML or JSON: a whole configuration, its `model`, a mapping or list of `task_templates`, or one of them.
        task: Its taskname; None if there is but one.
        labels: Label -> answer words, if the answer is one of them: NeMo has none.

    Raises:
        TemplateError: With every problem and its place.
    """
    return import_config(load_config(text, SOURCE), task, labels)


def import_config(config: Any, task: str | None = None, labels: dict[str, str] | None = None) -> Imported:
    """Translate a task of a NeMo configuration that was read as plain data; see `import_nemo`."""
    model = _mapping(config, "model") or config
    tasks = model.get("task_templates", model) if isinstance(model, Mapping) else model
    tasks = [tasks] if isinstance(tasks, Mapping) else tasks
    if not isinstance(tasks, list) or not all(
        isinstance(item, Mapping) and "prompt_template" in item for item in tasks
    ):
        raise TemplateError(
            "This is no configuration of NeMo's prompt learning", got=shown(tasks),
            needed="task_templates, each with its prompt_template",
        )  # fmt: skip
    number = _choose([item.get("taskname") for item in tasks], task)
    chosen = tasks[number]
    text = chosen["prompt_template"]
    problems = Problems(text if isinstance(text, str) else "")
    notes = [f"{shown(key)} of the task is not used." for key in chosen if key not in _TASK_KEYS]
    settings: dict[str, Any] = {} if labels is None else {"labels": labels}
    segments: list[Segment] = []
    if not isinstance(text, str) or len(text) > MAX_TEXT:
        problems.add("prompt_template is no text of a usable length", got=shown(text), needed=f"up to {MAX_TEXT:,}")
    else:
        segments = _Task(chosen, text, problems, notes, f"task_templates[{number}]").segments()
    if isinstance(model, Mapping):
        settings |= _encoder(model, problems, notes)
        length = _mapping(model, "data").get("max_seq_length")
        if isinstance(length, int) and not isinstance(length, bool):
            settings["max_length"] = length
        segments = _with_start(segments, model, chosen.get("taskname"), notes)
    return finish(segments, problems, settings, notes, SOURCE)


class _Task:
    """One entry of `task_templates`."""

    def __init__(self, values: Mapping[str, Any], text: str, problems: Problems, notes: list[str], place: str) -> None:
        self.values, self.text, self.problems, self.notes, self.place = values, text, problems, notes, place

    def segments(self) -> list[Segment]:
        """The template's parts; what does not fit becomes a problem."""
        splits = self._splits()
        answer, shortened = self._field("answer_field"), self._field("truncate_field")
        markers = [match for match in _SLOT.finditer(self.text) if match[1] is not None]
        fields = [match for match in _SLOT.finditer(self.text) if match[1] is None]
        self._check_markers(markers, splits)
        self._check_fields(fields, answer, shortened)
        parts: list[Segment] = []
        at = groups = 0
        for match in _SLOT.finditer(self.text):
            parts.append(Literal(self._literal(at, match.start())))
            at = match.end()
            if match[1] is not None:
                number = int(match[1])
                parts.append(VirtualTokens(groups, splits[number] if number < len(splits) else 1))
                groups += 1
            elif match[2] == answer:
                parts.append(Target(TargetKind.ANSWER, match[2]))
            else:
                parts.append(Column(match[2], shorten_first=match[2] == shortened))
        return [*parts, Literal(self._literal(at, len(self.text)))]

    def _splits(self) -> list[int]:
        """`virtual_token_splits`, as far as it is usable."""
        total, splits = self.values.get("total_virtual_tokens"), self.values.get("virtual_token_splits")
        if not isinstance(splits, list) or not splits:
            needed = "a list with the virtual tokens of each marker, such as [20, 10]"
            self.problems.add(f"{self.place}.virtual_token_splits is missing", got=shown(splits), needed=needed)
            return []
        wrong = [split for split in splits if not _is_count(split)]
        if wrong:
            got, needed = ", ".join(map(shown, wrong[:5])), f"numbers from 1 to {MAX_COUNT}"
            self.problems.add(f"{self.place}.virtual_token_splits holds no usable numbers", got=got, needed=needed)
        elif total != sum(splits):
            self.problems.add(
                f"{self.place}: the splits do not add up to total_virtual_tokens",
                got=f"{sum(splits)} in virtual_token_splits, total_virtual_tokens: {shown(total)}",
            )  # fmt: skip
        return [split if _is_count(split) else 1 for split in splits]

    def _field(self, key: str) -> str | None:
        """A key that names a field, or none; the command lines of NeMo's scripts write None as a word."""
        value = self.values.get(key)
        if value is not None and not isinstance(value, str):
            self.problems.add(f"{self.place}.{key} is no field's name", got=shown(value))
            return None
        return None if value in ("None", "null", "") else value

    def _check_markers(self, markers: list[re.Match[str]], splits: list[int]) -> None:
        known = {match.start() for match in markers}
        at = self.text.find(MARKER)
        while at >= 0:
            if at not in known:
                self.problems.add("This marker is not whole", at, needed=f"{MARKER}0|>")
            at = self.text.find(MARKER, at + 1)
        seen: set[int] = set()
        for match in markers:
            number = int(match[1])
            if number in seen:
                self.problems.add("This marker stands here twice", match.start(), remedy="Number the markers from 0")
            elif splits and number >= len(splits):
                got, needed = f"{len(splits)} splits", f"a split for each of {number + 1} markers"
                self.problems.add(
                    "This marker has no entry in virtual_token_splits", match.start(), got=got, needed=needed
                )
            seen.add(number)
        if missing := [number for number in range(len(splits)) if number not in seen]:
            named = ", ".join(f"{MARKER}{number}|>" for number in missing[:5])
            self.problems.add("The template lacks markers that virtual_token_splits has numbers for", 0, needed=named)

    def _check_fields(self, fields: list[re.Match[str]], answer: str | None, shortened: str | None) -> None:
        for match in fields:
            if not is_column_name(match[2]):
                self.problems.add(
                    "A data column cannot be named so here", match.start(), got=shown(match[2]),
                    remedy="Rename the field in the template and in the data",
                )  # fmt: skip
        names = [match[2] for match in fields]
        if shortened is not None and shortened not in names:
            self.problems.add(f"{self.place}.truncate_field is no field of the template", got=shown(shortened))
        if self.values.get("answer_only_loss", True) is not True and answer is not None:
            self.notes.append("The loss is that of the answer alone here; NeMo's answer_only_loss is not true.")
        if answer is None:
            last = f', such as "{names[-1]}"' if names else ""
            self.problems.add(
                f"{self.place}.answer_field is missing, which says what is to be answered",
                needed=f"the field that ends the template{last}",
            )  # fmt: skip
            return
        if answer == shortened:
            self.problems.add(f"{self.place}: answer_field and truncate_field are the same", got=shown(answer))
        if answer not in names:
            self.problems.add(f"{self.place}.answer_field is no field of the template", got=shown(answer))
        elif fields[-1][2] != answer or fields[-1].end() != len(self.text):
            place = next(match.start() for match in reversed(fields) if match[2] == answer)
            self.problems.add("The answer field must end the template", place, got=shown(self.text[place:]))
        elif names.count(answer) > 1:
            place = next(match.start() for match in fields if match[2] == answer)
            self.problems.add("The answer is shown before it is asked for", place, remedy="Take it out here")
        elif not self.text[fields[-1].start() - 1 : fields[-1].start()].isspace():
            self.notes.append("There is a space before a generated answer here, which this template has not.")

    def _literal(self, start: int, end: int) -> str:
        """Text between two slots. A brace in it that another one follows would be part of a field in NeMo."""
        brace = self.text.find("{", start, end)
        if brace >= 0:
            line_end = self.text.find("\n", brace)
            if self.text.find("}", brace, line_end if line_end >= 0 else len(self.text)) >= 0:
                self.problems.add("A brace within the braces of a field", brace, needed="{field}")
        return self.text[start:end]


def _encoder(model: Mapping[str, Any], problems: Problems, notes: list[str]) -> dict[str, Any]:
    """The prompt encoder's settings."""
    if "p_tuning" not in model or model.get("virtual_prompt_style") == "prompt-tuning":
        if model.get("virtual_prompt_style") == "prompt-tuning":
            notes.append("NeMo trains these vectors without a prompt encoder; here there is one.")
        return {}
    values = _mapping(model, "p_tuning")
    kind = values.get("encoder_type", "tpmlp")
    encoder = ENCODERS.get(kind.lower()) if isinstance(kind, str) else None
    if encoder is None:
        problems.add("p_tuning.encoder_type is unknown", got=shown(kind), needed=", ".join(ENCODERS))
        return {}
    settings: dict[str, Any] = {"encoder_reparameterization_type": encoder}
    hidden = values.get("encoder_hidden")
    if hidden is not None:
        if not _is_count(hidden, most=65_536):
            problems.add("p_tuning.encoder_hidden is no size", got=shown(hidden))
        settings["encoder_hidden_size"] = hidden
    if encoder == "MLP":
        notes.append("The MLP has three layers here, as PEFT's; NeMo's has two unless p_tuning.num_layers says more.")
        return settings
    layers, dropout = values.get("num_layers", 2), values.get("dropout", 0.0)
    if not _is_count(layers, most=64):
        problems.add("p_tuning.num_layers is no number of layers", got=shown(layers))
    if isinstance(dropout, bool) or not isinstance(dropout, int | float) or not 0 <= dropout < 1:
        problems.add("p_tuning.dropout is no share", got=shown(dropout), needed="0 up to 1")
    return settings | {"encoder_num_layers": layers, "encoder_dropout": dropout}


def _with_start(segments: list[Segment], model: Mapping[str, Any], name: Any, notes: list[str]) -> list[Segment]:
    """The segments, with the text that NeMo's prompt tuning starts from, where it gives one."""
    tuning, tasks = _mapping(model, "prompt_tuning"), model.get("new_tasks")
    if model.get("virtual_prompt_style") != "prompt-tuning" or not isinstance(tasks, list) or name not in tasks:
        return segments
    texts, place = tuning.get("new_prompt_init_text"), tasks.index(name)
    text = texts[place] if isinstance(texts, list) and place < len(texts) else None
    if not isinstance(text, str) or not text.strip():
        return segments
    groups = [segment for segment in segments if isinstance(segment, VirtualTokens)]
    if len(groups) != 1:
        notes.append(f"The virtual tokens do not start from {shown(text)} here: it is for one group alone.")
        return segments
    started = VirtualTokens(0, groups[0].count, None, text)
    return [started if isinstance(segment, VirtualTokens) else segment for segment in segments]


def _choose(names: list[Any], wanted: str | None) -> int:
    """The number of the task that is meant."""
    if wanted is None and len(names) == 1:
        return 0
    if wanted is not None and wanted in names:
        return names.index(wanted)
    told = ", ".join(map(shown, names[:20])) or "none"
    if wanted is None:
        raise TemplateError("The configuration has several tasks", got=told, remedy="Choose one with --task")
    raise TemplateError("The configuration has no such task", got=shown(wanted), needed=told)


def _mapping(value: Any, key: str) -> Mapping[str, Any]:
    """`value[key]` if both are mappings, else an empty one."""
    found = value.get(key) if isinstance(value, Mapping) else None
    return found if isinstance(found, Mapping) else {}


def _is_count(value: Any, most: int = MAX_COUNT) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= most
