"""Virtual tokens as tokens: rows added to the vocabulary, anywhere in a text.

The zip has the base model's tokenizer with P tokens more, and a TRAINABLE_TOKENS adapter of PEFT with their embeddings.
A text with these tokens, through a plain model, then is the row of training. P virtual tokens, V vocabulary, H size.

Where a base model's output vocabulary is its input embedding (tied), the new rows stand there too, at its end. Scores
of the old tokens stay what they are; the new ones get scores of their own, as they get random ones where the two are
apart. No answer must hold them, so generation has to suppress them: the card's lines do, and what they merge says so.
"""

from __future__ import annotations

import copy
import tempfile
from pathlib import Path
from typing import Any

import safetensors.torch
from torch import Tensor

from ptune_core.adapters.added_tokens import add_tokens, embedding_scale
from ptune_core.adapters.conversion import base_for, common_config, refusal, write_converted
from ptune_core.adapters.converted_card import vocabulary_card
from ptune_core.adapters.format import template_of
from ptune_core.adapters.row_text import find_row_text
from ptune_core.adapters.sidecar import TASK_TYPES
from ptune_core.model.base import BaseModel
from ptune_core.model.trained import TrainedPrompt
from ptune_core.prompt.template import TargetKind

FORM = "vocabulary rows (TRAINABLE_TOKENS)"


def export_vocabulary(trained: TrainedPrompt, zip_path: Path) -> None:
    """Write the adapter as a zip with tokenizer, TRAINABLE_TOKENS adapter and a card that says how to load them.

    Raises:
        AdapterError: It has a classification head, which this kind of adapter cannot carry, or the base model's
            tokenizer or embedding does not let tokens stand for the virtual ones.
        BaseModelError: The base model cannot be loaded.
        DiskFull: There is no room.
    """
    template = template_of(trained)
    if template.target.kind is not TargetKind.ANSWER:
        raise refusal(FORM, got=f"a [{template.target.kind}] target", needed="a template with [ANSWER]")
    if trained.deep is not None:
        raise refusal(
            FORM,
            got="virtual tokens that add to every layer",
            needed="an adapter with prompt_depth: input",
            remedy="Export it in the format prefix",
        )
    prompted = base_for(trained, template)
    base = prompted.base
    if not base.is_causal:
        raise refusal(FORM, got=f"{base.id}, an {base.kind}", needed="a causal decoder")
    tokenizer: Any = copy.deepcopy(base.tokenizer)
    names, new_ids = add_tokens(tokenizer, len(trained.prompt_embeddings), FORM)
    text = find_row_text(prompted.rows, tokenizer, names)
    rows = (trained.prompt_embeddings / embedding_scale(base, FORM)).contiguous()
    places = [f"base_model.model.{place}.trainable_tokens_delta" for place in _places(base)]
    config = common_config(trained) | {
        "init_weights": True,
        "peft_type": "TRAINABLE_TOKENS",
        "target_modules": _places(base)[0],
        "task_type": TASK_TYPES[template.target.kind][0],
        "token_indices": new_ids,
    }
    with tempfile.TemporaryDirectory() as folder:
        tokenizer.save_pretrained(folder)
        tokenizer_files = {path.name: path.read_bytes() for path in sorted(Path(folder).iterdir()) if path.is_file()}
    write_converted(
        zip_path,
        card=vocabulary_card(trained, prompted, text, new_ids),
        config=config,
        tensors=safetensors.torch.save({place: rows.clone() for place in places}, {"format": "pt"}),
        others=tokenizer_files,
    )


def _places(base: BaseModel) -> list[str]:
    """Names of the input embedding and, where it is the same matrix, the output vocabulary."""
    head: Any = base.model.get_output_embeddings()
    modules = [base.word_embeddings]
    if head is not None and _same(head.weight, base.embedding_weight):
        modules.append(head)
    names = {id(module): name for name, module in base.model.named_modules()}
    return [names[id(module)] for module in modules]


def _same(one: Tensor, other: Tensor) -> bool:
    return one.data_ptr() == other.data_ptr()
