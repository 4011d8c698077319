"""The script in an adapter's zip: runs it on one row, with stock PEFT where PEFT can, else with the small loader.

It fetches a base model of the Hub by its id. A base model that is a folder may be elsewhere where the script runs, so
its second argument names it, and PTune's demo model is looked for. One that was tuned lies beside the script.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import PurePath

from ptune_core.adapters.format import is_folder, is_peft_compatible, template_of
from ptune_core.adapters.sidecar import BASE_FOLDER
from ptune_core.data.columns import inputs_of
from ptune_core.demo import DEMO
from ptune_core.model.trained import TrainedPrompt
from ptune_core.prompt.config import TaskType
from ptune_core.prompt.template import TargetKind, Template
from ptune_core.prompt.verbalizer import answer_columns

_START = '''"""{what}

    pip install {packages}
    python snippet.py '{example}'{folder}
"""

import json
import sys
{finder}from pathlib import Path

{imports}

HERE = Path(__file__).resolve().parent
COLUMNS = {columns}
given = sys.argv[1] if len(sys.argv) > 1 else {row}
try:
    row = json.loads(given)
except ValueError:
    row = given
if len(COLUMNS) == 1 and not isinstance(row, dict):
    row = {{COLUMNS[0]: given}}
if not isinstance(row, dict) or not set(COLUMNS) <= set(row):
    sys.exit(f"The row does not fill the template. Got: {{given}}. Needed: a JSON object with {{', '.join(COLUMNS)}}.")

{base_model}'''

_FROM_FOLDER = """BASE_MODEL = sys.argv[2] if len(sys.argv) > 2 else {default}
if not (Path(BASE_MODEL) / "config.json").is_file():
    sys.exit(
        f"The base model of this adapter is not here. Got: no config.json in {{BASE_MODEL}}. "
        {needed}
        "Name that folder after the row: python snippet.py ROW FOLDER"
    )

"""

_BESIDE = f"""BASE_MODEL = HERE / "{BASE_FOLDER}"  # trained together with the virtual tokens, which fit no other

"""

_DEMO_FOLDER = """# PTune's demo model is on no Hub: it is in ptune_core, installed or in a clone around you or here.
places = [*sys.path, str(Path.cwd()), *map(str, HERE.parents)]
ptune = PathFinder.find_spec("ptune_core", places)
demo_model = str(Path(ptune.origin).parent / "demo" / "model") if ptune and ptune.origin else "ptune_core/demo/model"
"""

_LOAD_PEFT = """tokenizer = AutoTokenizer.from_pretrained(BASE_MODEL{revision})
base = {auto_class}.from_pretrained(BASE_MODEL{revision}{num_labels}, dtype=torch.{dtype})
model = PeftModel.from_pretrained(base, str(HERE)).eval()

rows = Rows(HERE, tokenizer)
ids = [number for number in rows.ids(row) if number >= 0]  # PEFT puts the virtual tokens in front by itself
inputs = {{"input_ids": torch.tensor([ids]), "attention_mask": torch.ones(1, len(ids), dtype=torch.long)}}
"""

_ANSWER_LOGITS = """answers = {answers}
answer_ids = [rows.answer_ids(answer)[0] for answer in answers.values()]
with torch.no_grad():
    logits = model(**inputs).logits[0, -1, answer_ids].float()
"""

_HEAD_LOGITS = """with torch.no_grad():
    logits = model(**inputs).logits[0].float()
"""

_DECODER_START = """# What the answers of this base model begin with.
own = (base.generation_config, base.config)
start = [
    next(getattr(c, name) for c in own if getattr(c, name, None) is not None)
    for name in ("decoder_start_token_id", "forced_bos_token_id")
    if any(getattr(c, name, None) is not None for c in own)
]
"""

_DECODER_INPUTS = """inputs["decoder_input_ids"] = torch.tensor([start])
"""

_PRINT_LABELS = """for label, probability in zip({labels}, logits.softmax(0).tolist(), strict=True):
    print(f"{{label}}\\t{{probability:.6f}}")
"""

_GENERATE = """end = tokenizer.eos_token_id
generated = model.generate(
    **inputs, max_new_tokens={max_new_tokens}{more}, do_sample=False, repetition_penalty=1.0, pad_token_id=end
)
print(tokenizer.decode(generated[0, {given} :], skip_special_tokens=True))
"""

_LOADER_CLASSIFY = """for label, probability in Adapter({adapter}).classify(row).items():
    print(f"{{label}}\\t{{probability:.6f}}")
"""

_LOADER_GENERATE = """print(Adapter({adapter}).generate(row, max_new_tokens={max_new_tokens}))
"""


def snippet(trained: TrainedPrompt) -> str:
    """Python source that prints one line `label<TAB>probability` per label, or the generated text.

    It stands in the adapter's folder beside `ptune_loader.py`, and takes the row as one argument: a JSON object, or the
    text itself where the template has one column. Where the base model is a folder, that folder may follow.
    """
    template = template_of(trained)
    by_peft = _by_peft(trained, template)
    is_head = template.target.kind is TargetKind.HEAD
    writes_apart = trained.prompt_config.task_type == TaskType.SEQ_2_SEQ_LM
    auto_class = "AutoModelForSeq2SeqLM" if writes_apart else "AutoModelForCausalLM"
    auto_class = "AutoModelForSequenceClassification" if is_head else auto_class
    is_elsewhere = trained.tuned_base is None
    values = {
        "revision": f", revision={trained.revision!r}" if trained.revision and is_elsewhere else "",
        "num_labels": f", num_labels={len(trained.labels)}" if is_head else "",
        "auto_class": auto_class,
        "dtype": "float32" if trained.precision == "fp32" else "bfloat16",
        "answers": repr(trained.verbalizer),
        "labels": "answers" if trained.verbalizer else repr(list(trained.labels)),
        # Without a base model, the loader takes the one beside it, or that ptune.json names, at its revision.
        "adapter": "HERE, BASE_MODEL" if is_folder(trained.base_model) and is_elsewhere else "HERE",
        "max_new_tokens": _max_new_tokens(trained),
        # The first of what its answers begin with is not counted as new.
        "more": " + len(start) - 1" if writes_apart else "",
        "given": "len(start)" if writes_apart else "len(ids)",
    }
    start = _start(trained, template, auto_class)
    if by_peft:
        begin = _LOAD_PEFT + (_DECODER_START if writes_apart else "")
        logits = _HEAD_LOGITS if is_head else (_DECODER_INPUTS if writes_apart else "") + _ANSWER_LOGITS
        finish = logits + _PRINT_LABELS if trained.labels else _GENERATE
        return start + (begin + finish).format(**values)
    return start + (_LOADER_CLASSIFY if trained.labels else _LOADER_GENERATE).format(**values)


def _max_new_tokens(trained: TrainedPrompt) -> int:
    """The run's setting; its default where the adapter, which may be a stranger's, says no number."""
    value = trained.settings.get("max_new_tokens")
    return value if isinstance(value, int) else 64


def _by_peft(trained: TrainedPrompt, template: Template) -> bool:
    """Whether stock PEFT runs the adapter as it is: it compares no answers that differ from row to row."""
    is_deep = trained.deep is not None
    brings_answers = bool(answer_columns(trained.verbalizer or {}))
    return is_peft_compatible(template, trained.head_input, is_deep=is_deep) and not brings_answers


def example_row(columns: Sequence[str], value: str = "Write a text here.") -> str:
    """A row to try, to stand in single quotes in a shell."""
    return value if len(columns) == 1 else json.dumps(dict.fromkeys(columns, value)).replace("'", "\\u0027")


def packages_for(trained: TrainedPrompt, template: Template) -> str:
    """What `pip install` needs for the script."""
    return f"torch transformers {'peft' if _by_peft(trained, template) else 'safetensors'}"


def _start(trained: TrainedPrompt, template: Template, auto_class: str) -> str:
    by_peft = _by_peft(trained, template)
    if by_peft:
        what = "Run this adapter with stock PEFT."
        imports = (
            "import torch\nfrom peft import PeftModel\n"
            "from ptune_loader import Rows  # beside this file: makes token ids as in training\n"
            f"from transformers import {auto_class}, AutoTokenizer"
        )
    else:
        why = "whose rows bring their own answers"
        if not is_peft_compatible(template):
            why = "whose virtual tokens PEFT cannot place"
        elif trained.deep is not None:
            why = "whose virtual tokens add to every layer, which PEFT's P_TUNING cannot"
        elif not trained.head_input.is_models:
            why = "whose classification head reads what PEFT has no way to read"
        what = f"Run this adapter, {why}."
        imports = "from ptune_loader import Adapter  # beside this file"
    columns = inputs_of(template, answer_columns(trained.verbalizer or {}))
    row = example_row(columns)
    is_elsewhere = trained.tuned_base is None
    return _START.format(
        what=what,
        packages=packages_for(trained, template),
        example=row.replace("\\", "\\\\"),
        folder=" [FOLDER OF THE BASE MODEL]" if is_folder(trained.base_model) and is_elsewhere else "",
        finder="from importlib.machinery import PathFinder\n" if trained.base_model == DEMO and is_elsewhere else "",
        imports=imports,
        base_model=_base_model(trained.base_model, by_peft) if is_elsewhere else _BESIDE if by_peft else "",
        columns=repr(list(columns)),
        row=repr(row),
    )


def _base_model(name: str, by_peft: bool) -> str:
    """The lines that set `BASE_MODEL`, where it is needed."""
    if name == DEMO:
        needed = "Needed: PTune's demo model, which is ptune_core/demo/model in a clone of PTune. "
        return _DEMO_FOLDER + _FROM_FOLDER.format(default="demo_model", needed=repr(needed))
    if is_folder(name):
        needed = f"Needed: the folder of the model it was trained on, {PurePath(name).name}. "
        return _FROM_FOLDER.format(default=repr(name), needed=repr(needed))
    return f"BASE_MODEL = {name!r}\n\n" if by_peft else ""
