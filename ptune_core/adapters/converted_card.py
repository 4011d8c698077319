"""Cards of adapters in another form than their own: what the zip is, and Python that loads and runs it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePath

from ptune_core.adapters.card import READS, block, front_matter, labels_of, numbers, title
from ptune_core.adapters.export import with_whole_path
from ptune_core.adapters.format import is_folder
from ptune_core.adapters.row_text import RowText
from ptune_core.demo import DEMO
from ptune_core.model.prompted import PromptedModel
from ptune_core.model.trained import TrainedPrompt
from ptune_core.prompt.template import TargetKind

_START = """# pip install torch transformers peft
import torch
from peft import {peft}
from transformers import {auto_class}, AutoTokenizer

FOLDER = "."  # where the zip was unpacked
BASE_MODEL = {base_model}
tokenizer = AutoTokenizer.from_pretrained({tokenizer})
base = {auto_class}.from_pretrained(BASE_MODEL{revision}{num_labels}, dtype=torch.{dtype})
"""

_MORE_ROWS = """NEW = {new_ids}  # the ids of the added tokens
if base.get_input_embeddings().num_embeddings < len(tokenizer):
    base.resize_token_embeddings(len(tokenizer), mean_resizing=False)
suppressed = base.generation_config.suppress_tokens or []
base.generation_config.suppress_tokens = [*suppressed, *NEW]  # they stand in inputs and never in an answer
"""

_LOAD = """model = PeftModel.from_pretrained(base, FOLDER).eval()

text = {text}
inputs = tokenizer(text, add_special_tokens=False, return_tensors="pt", return_token_type_ids=False)
"""

_ANSWERS = """answers = {answers}  # label: first token of its answer
with torch.no_grad():
    scores = model(**inputs).logits[0, -1, list(answers.values())].float()
print(dict(zip(answers, scores.softmax(0).tolist())))
"""

_LABELS = """with torch.no_grad():
    scores = model(**inputs).logits[0].float()
print(dict(zip({labels}, scores.softmax(0).tolist())))
"""

_GENERATE = """new = model.generate(**inputs, max_new_tokens={max_new_tokens}, do_sample=False)
print(tokenizer.decode(new[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True))
"""

_MERGE = """whole = model.merge_and_unload()  # a plain model, which has the new rows
whole.save_pretrained("whole")
tokenizer.save_pretrained("whole")
"""

_SENTENCE = """# pip install sentence-transformers
from sentence_transformers import SentenceTransformer

FOLDER = "."  # where the zip was unpacked
LABELS = {labels}
model = SentenceTransformer(FOLDER)
scores = model.encode(["Write a text here."], convert_to_tensor=True)  # one number for each label
for row in scores.float().softmax(1).tolist():
    print(dict(zip(LABELS, row)))
"""


def prefix_card(trained: TrainedPrompt, prompted: PromptedModel, text: RowText) -> str:
    """`README.md` of a PREFIX_TUNING adapter."""
    what = (
        f"{len(trained.prompt_embeddings)} virtual tokens that stood in front, as the keys and values that the frozen "
        "base model computes of them: a PREFIX_TUNING adapter of PEFT, with the same scores as the adapter it "
        "was made from. It cannot be trained further; keep the original for that.\n"
    )
    return "\n".join([*_top(trained, what), _text_part(text), _load_part(_code(trained, prompted, text))])


def vocabulary_card(trained: TrainedPrompt, prompted: PromptedModel, text: RowText, new_ids: Sequence[int]) -> str:
    """`README.md` of a TRAINABLE_TOKENS adapter with its tokenizer."""
    what = (
        f"{len(new_ids)} virtual tokens as tokens of the vocabulary: the base model's tokenizer with the tokens "
        f"`{text.names[0]}` to `{text.names[-1]}` added, and a TRAINABLE_TOKENS adapter of PEFT with their embeddings. "
        "A text with these tokens, through the model below or the plain model it can be merged into, is what was "
        "trained. The scores of all other tokens are those of the original adapter.\n\n"
        "The new tokens have scores too, which mean nothing. An answer must not hold them: `suppress_tokens` keeps "
        "them out of transformers' `generate`, and goes into the `generation_config.json` of the merged model. A "
        "server that does not read it needs the same list as forbidden tokens.\n"
    )
    merge = (
        "## One plain model, for any server\n\nAfter the lines above, this writes a folder that needs neither PEFT nor "
        "PTune:\n\n" + block(_MERGE.rstrip("\n"), "python")
    )
    load = _load_part(_code(trained, prompted, text, new_ids))
    return "\n".join([*_top(trained, what), _text_part(text), load, merge])


def sentence_card(trained: TrainedPrompt, prompt: str, max_length: int, num_bytes: int) -> str:
    """`README.md` of a folder of sentence-transformers.

    Args:
        trained: The adapter.
        prompt: What stands before every text.
        max_length: The longest row in tokens.
        num_bytes: Size of the base model's weights.
    """
    what = (
        f"The frozen base model with {len(trained.prompt_embeddings)} virtual tokens as tokens of its vocabulary and "
        f"a classification head for {len(trained.labels)} labels: a folder that `SentenceTransformer` loads as it is. "
        f"The base model's weights are in it ({num_bytes / 1e6:,.1f} MB). What `encode` gives for a text are the "
        "scores of the labels, the same as those of the P-tuning adapter it was made from, and no embedding to compare "
        f"texts by: a softmax over them makes probabilities. The head reads {READS[trained.head_input]}. It cannot be "
        "trained further as an adapter; keep the original for that.\n"
    )
    how = (
        "`encode`, `encode_query` and `encode_document` put this before every text by themselves; a `prompt` of your "
        f"own in its place would leave the virtual tokens out. Of longer texts the first {max_length} tokens are "
        f"read, these included. The names of the virtual tokens must not stand in a text.\n\n{block(prompt)}"
    )
    return "\n".join(
        [
            *_top(trained, what, "sentence-transformers", is_whole=True),
            "## Labels\n\n" + labels_of(trained),
            "## Prompt\n\n" + how,
            _load_part(_SENTENCE.format(labels=list(trained.labels))),
        ]
    )


def _top(trained: TrainedPrompt, what: str, library: str = "peft", *, is_whole: bool = False) -> list[str]:
    front = front_matter(trained, library, is_whole=is_whole)
    return [front, f"# {title(trained)}\n", what, "## Numbers\n\n" + numbers(trained.metrics)]


def _text_part(text: RowText) -> str:
    how = (
        "Columns stand in braces, with PTune's filters that they pass through behind a bar. The text is tokenised with "
        "`add_special_tokens=False`."
    )
    return f"## Text\n\n{how}\n\n{block(text.pattern)}"


def _load_part(code: str) -> str:
    return "## Load\n\n" + block(code.rstrip("\n"), "python")


def _code(trained: TrainedPrompt, prompted: PromptedModel, text: RowText, new_ids: Sequence[int] = ()) -> str:
    """The lines that load the adapter and run it on one row."""
    base, kind = prompted.base, prompted.template.target.kind
    is_head = kind is TargetKind.HEAD
    where, imported = repr(trained.base_model), "PeftModel"
    if trained.base_model == DEMO:
        where = '"ptune_core/demo/model"  # a folder in every clone of PTune: write where yours is'
    elif is_folder(with_whole_path(trained).base_model):
        # Where it lay is nobody's business who reads the card.
        copy = PurePath(trained.base_model).name
        where = f"PeftConfig.from_pretrained(FOLDER).base_model_name_or_path  # or wherever your copy of {copy!r} is"
        imported = "PeftConfig, PeftModel"
    if is_head:
        finish = _LABELS.format(labels=list(trained.labels))
    elif prompted.answer_ids is not None:
        finish = _ANSWERS.format(answers=dict(zip(trained.labels, prompted.answer_ids.tolist(), strict=True)))
    else:
        limit = trained.settings.get("max_new_tokens")
        finish = _GENERATE.format(max_new_tokens=limit if isinstance(limit, int) else 64)
    start = _START.format(
        auto_class="AutoModelForSequenceClassification" if is_head else "AutoModelForCausalLM",
        peft=imported,
        base_model=where,
        tokenizer="FOLDER" if new_ids else "BASE_MODEL" + _revision(trained),
        revision=_revision(trained),
        num_labels=f", num_labels={len(trained.labels)}" if is_head else "",
        dtype=str(base.embedding_weight.dtype).removeprefix("torch."),
    )
    more = _MORE_ROWS.format(new_ids=list(new_ids)) if new_ids else ""
    row = dict.fromkeys(text.template.columns, "Write a text here.")
    return start + more + _LOAD.format(text=repr(text(row))) + finish


def _revision(trained: TrainedPrompt) -> str:
    return f", revision={trained.revision!r}" if trained.revision else ""
