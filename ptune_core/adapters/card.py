"""The model card of an adapter: what it is, what was measured, how to use it, in the form the Hub reads."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path, PurePath
from typing import Any

from ptune_core import __version__
from ptune_core.adapters.format import is_folder, is_peft_compatible, template_of
from ptune_core.adapters.sidecar import BASE_FOLDER
from ptune_core.adapters.snippet import example_row, packages_for
from ptune_core.data.columns import inputs_of
from ptune_core.demo import DEMO
from ptune_core.model.head_input import READS, reading
from ptune_core.model.trained import TrainedPrompt
from ptune_core.prompt.template import TargetKind, Template
from ptune_core.prompt.verbalizer import answer_columns

_METRIC_NAMES = {"accuracy": "Accuracy", "loss": "Loss"}


def model_card(trained: TrainedPrompt) -> str:
    """`README.md` of the adapter: front matter for the Hub, the run's numbers, the template, how to use it."""
    template = template_of(trained)
    parts = [
        front_matter(trained, "peft" if _is_peft_compatible(trained, template) else "ptune"),
        f"# {title(trained)}\n",
        _summary(trained, template),
        "## Numbers\n\n" + numbers(trained.metrics),
        "## Template\n\n" + block(trained.template),
    ]
    if trained.labels:
        parts.append("## Labels\n\n" + labels_of(trained))
    parts += ["## Use\n\n" + _usage(trained, template), "## Limits\n\n" + _limits(trained)]
    return "\n".join(parts)


def _is_peft_compatible(trained: TrainedPrompt, template: Template) -> bool:
    return is_peft_compatible(template, trained.head_input, is_deep=trained.deep is not None)


def _hub_id(base_model: str) -> str | None:
    """The base model's id on the Hub; None for folders, and for a bare name, which may be either."""
    return None if is_folder(base_model) or "/" not in base_model else base_model


def front_matter(trained: TrainedPrompt, library: str, *, is_whole: bool = False) -> str:
    """What the Hub reads; `library` is the one that loads the adapter, `is_whole`: with a frozen base model in it."""
    base = _hub_id(trained.base_model)
    values: dict[str, Any] = {}
    relation = "finetune" if is_whole or trained.tuned_base is not None else "adapter"
    if base is not None:
        values |= {"base_model": base, "base_model_relation": relation}
    values["library_name"] = library
    values["pipeline_tag"] = "text-classification" if trained.labels else "text-generation"
    values["tags"] = ["ptune", "p-tuning"] + ([f"base_model:{relation}:{base}"] if base else [])
    # JSON is YAML, and unlike bare YAML it needs no care with what is in the strings.
    lines = [f"{key}: {json.dumps(value, ensure_ascii=False)}" for key, value in values.items()]
    return "\n".join(["---", *lines, "---", ""])


def title(trained: TrainedPrompt) -> str:
    """The run's name, as words of one line."""
    return _line(str(trained.settings.get("name") or f"{_kind(trained)} {_base_name(trained)}"))


def _kind(trained: TrainedPrompt) -> str:
    return "P-tuning adapter for" if trained.tuned_base is None else "P-tuning adapter and tuned base model, from"


def _base_name(trained: TrainedPrompt) -> str:
    """The base model's name for people: without the folders of the machine it was trained on."""
    if trained.base_model == DEMO:
        return "PTune's demo model"
    return _hub_id(trained.base_model) or PurePath(trained.base_model).name or "an unnamed model"


def _summary(trained: TrainedPrompt, template: Template) -> str:
    base = _base_name(trained)
    link = _hub_id(trained.base_model)
    named = f"[{_line(base)}](https://huggingface.co/{link})" if link else _line(base)
    at = f" at revision `{trained.revision}`" if trained.revision else ""
    count, width = trained.prompt_embeddings.shape
    head = sum(tensor.numel() for tensor in trained.head.values())
    what = f"{count} virtual tokens of {width} numbers"
    if trained.deep is not None:
        what += f", which add as many to their hidden states before each of {len(trained.deep)} layers,"
    what += f" and a classification head of {head:,}" if head else ""
    what = what.removesuffix(",")
    task = {
        TargetKind.HEAD: f"It sorts texts into {len(trained.labels)} labels.",
        TargetKind.ANSWER: f"It sorts texts into {len(trained.labels)} labels by the word the model would go on with."
        if trained.labels
        else "It makes the model write an answer.",
    }.get(template.target.kind, "")
    weights = (
        "The base model was **frozen**: it is not in this download and stays as it is."
        if trained.tuned_base is None
        else f"The base model was **tuned**, its own weights together with the virtual tokens: all of it is in this "
        f"download, in `{BASE_FOLDER}/` ({_size(trained.tuned_base)}), and the virtual tokens fit no other."
    )
    return (
        f"{what[0].upper()}{what[1:]} for {named}{at}. {task}\n\n{weights}\n\n"
        f"Trained with PTune {__version__} by P-tuning ([arXiv 2103.10385](https://arxiv.org/abs/2103.10385)).\n"
    )


def numbers(metrics: Mapping[str, Any]) -> str:
    """What was measured, as a table and a few sentences."""
    value = metrics.get("value")
    if value is None:
        return "Nothing was measured.\n"
    metric = _line(str(metrics.get("metric", "value")))
    probe_rows = f"{_line(str(metrics.get('probe_train_rows')))} training rows"
    names = {
        "baseline_few_shot": "The base model before training, with "
        f"{_line(str(metrics.get('few_shot_examples')))} examples in its context",
        "baseline_zero_shot": "The base model before training, with the same template and no virtual tokens",
        "baseline_probe": "A probe of the frozen base model, without virtual tokens: a regression on what it makes of "
        + probe_rows,
        "baseline_majority": "Always the most frequent label",
    }
    rows = [("This adapter", _number(value) + _spread(metrics.get("interval")))]
    for key, text in names.items():
        if metrics.get(key) is not None:
            spread = _spread(metrics.get("probe_interval")) if key == "baseline_probe" else ""
            rows.append((text, _number(metrics[key]) + spread))
    table = [f"| On rows set aside for validation | {_METRIC_NAMES.get(metric, metric)} |", "|---|---|"]
    table += [f"| {name} | {number} |" for name, number in rows]
    return "\n".join([*table, "", *_facts(metrics)]).rstrip() + "\n"


def _spread(interval: object) -> str:
    match interval:
        case [low, high]:
            return f" (95 % interval {_number(low)} to {_number(high)})"
    return ""


def _facts(metrics: Mapping[str, Any]) -> list[str]:
    """What was measured, a sentence each."""
    facts = []
    if metrics.get("macro_f1") is not None:
        facts.append(f"Macro-F1 of this adapter: {_number(metrics['macro_f1'])}.")
    if metrics.get("steps") is not None:
        best_step = metrics.get("best_step")
        best = f"; the best one, kept here, was {_number(best_step)}" if best_step is not None else ""
        facts.append(f"Training took {_number(metrics['steps'])} steps{best}.")
        if best_step == 0:
            facts.append("**The virtual tokens added nothing here**: what is kept is how training began.")
    share = metrics.get("evaluation_share")
    if isinstance(share, float):
        facts.append(f"Evaluations took {share:.0%} of the time.")
    if read := reading(metrics.get("head")):
        facts.append(read)
    if metrics.get("data"):
        facts.append(_line(str(metrics["data"])).rstrip(".") + ".")
    return facts


def labels_of(trained: TrainedPrompt) -> str:
    """The labels, with their answers where they have some."""
    if trained.verbalizer is None:
        return ", ".join(_code(label) for label in trained.labels) + "\n"
    rows = [f"| {_code(label)} | {_code(answer)} |" for label, answer in trained.verbalizer.items()]
    return "\n".join(["| Label | Answer |", "|---|---|", *rows]) + "\n"


def _usage(trained: TrainedPrompt, template: Template) -> str:
    row = example_row(inputs_of(template, answer_columns(trained.verbalizer or {})))
    run = block(f"pip install {packages_for(trained, template)}\npython snippet.py '{row}'", "bash")
    if trained.tuned_base is not None:
        run += f"\nIt takes the base model from `{BASE_FOLDER}/`, a plain folder of transformers.\n"
    elif trained.base_model == DEMO:
        run += (
            "\nThe demo model comes with PTune and is on no Hub. The script finds it where `ptune_core` is installed, "
            "and in a clone of PTune that it is run or unzipped in. Anywhere else, name the clone's folder "
            "`ptune_core/demo/model` as the second argument.\n"
        )
    elif is_folder(trained.base_model):
        run += "\nThe base model was a folder on another machine: name yours as the second argument.\n"
    if _is_peft_compatible(trained, template):
        return (
            "The virtual tokens stand in front of the text: this is a standard P_TUNING adapter, and "
            "`PeftModel.from_pretrained` loads it. `snippet.py` shows how:\n\n" + run
        )
    why = "The virtual tokens do not stand in front of the text, which PEFT cannot express"
    if trained.deep is not None:
        why = "The virtual tokens add to their hidden states before each layer, which a P_TUNING adapter cannot express"
        if _has_keys_and_values(trained, template):
            run += (
                "\nStock PEFT runs them, with the same scores, as keys and values, which `python -m ptune_core export "
                "ADAPTER --format prefix --out prefix.zip` writes.\n"
            )
    elif is_peft_compatible(template):
        why = f"The classification head reads {READS[trained.head_input]}, which PEFT cannot express"
    return (
        f"{why}: `PeftModel.from_pretrained` refuses this adapter. PTune loads it, and so does `ptune_loader.py`, "
        "which needs torch, transformers and safetensors only. `snippet.py` shows how:\n\n" + run
    )


def _has_keys_and_values(trained: TrainedPrompt, template: Template) -> bool:
    """Whether the base model is a decoder that answers, or has a head that PEFT reads as it is read here."""
    is_decoder = template.target.kind is TargetKind.ANSWER or "score.weight" in trained.head
    return is_decoder and is_peft_compatible(template, trained.head_input)


def _limits(trained: TrainedPrompt) -> str:
    cut = f" Inputs longer than {trained.max_length} tokens are cut, in the columns only." if trained.max_length else ""
    if trained.tuned_base is not None:
        return (
            "The numbers hold for texts like the ones it was trained on. The tuned base model may have become worse at "
            f"everything else, and the virtual tokens work with it only, not with the one it was tuned from.{cut}\n"
        )
    return (
        "The numbers hold for texts like the ones it was trained on. It knows nothing that the base model does not, "
        f"shares its faults, and works with this base model only.{cut}\n"
    )


def _size(tuned_base: Path) -> str:
    """How large a tuned base model is, from its folder or from the zip that is mostly it."""
    files = [tuned_base] if tuned_base.is_file() else [path for path in tuned_base.iterdir() if path.is_file()]
    return f"{sum(path.stat().st_size for path in files) / 1e6:,.1f} MB"


def _number(value: Any) -> str:
    return f"{value:.3f}" if isinstance(value, float) else _line(str(value))


def _line(text: str) -> str:
    """Text from a person as plain words of one line of Markdown."""
    return "".join("\\" + char if char in "\\`*_[]<>|#" else char for char in " ".join(text.split()))


def _code(text: str) -> str:
    """Text of a label or an answer, its spaces shown, as code in a table cell."""
    shown = json.dumps(text, ensure_ascii=False).replace("|", "\\|").replace("`", "'")
    return f"`{shown}`"


def block(text: str, language: str = "text") -> str:
    """Text as it is, whatever is in it."""
    fence = "```"
    while fence in text:
        fence += "`"
    return f"{fence}{language}\n{text}\n{fence}\n"
