"""A prompt in front as keys and values: a PREFIX_TUNING adapter of PEFT, with the same logits.

A causal base model computes the keys and values of what stands in front from nothing but itself. Whoever has them needs
neither the virtual tokens nor room for their rows. P virtual tokens, L layers, h key/value heads, d their size.
"""

from __future__ import annotations

from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor

from ptune_core.adapters.conversion import base_for, common_config, refusal, write_converted
from ptune_core.adapters.converted_card import prefix_card
from ptune_core.adapters.format import is_peft_compatible, template_of
from ptune_core.adapters.row_text import find_row_text
from ptune_core.adapters.sidecar import TASK_TYPES
from ptune_core.model.base import BaseModel
from ptune_core.model.past import Past, go_on
from ptune_core.model.trained import TrainedPrompt
from ptune_core.model.virtual import Added

FORM = "keys and values (PREFIX_TUNING)"


def export_prefix(trained: TrainedPrompt, zip_path: Path) -> None:
    """Write the adapter as a zip with a PREFIX_TUNING adapter and a card that says how to load it.

    Raises:
        AdapterError: The virtual tokens do not stand in front, or this base model's keys and values cannot stand for
            them in PEFT.
        BaseModelError: The base model cannot be loaded.
        DiskFull: There is no room.
    """
    template = template_of(trained)
    if not is_peft_compatible(template, trained.head_input):
        raise refusal(
            FORM,
            got=trained.template,
            needed="a template whose only group of virtual tokens stands before everything else",
            remedy="Export it in the format vocabulary, which can express any place",
        )
    prompted = base_for(trained, template)
    if prompted.texts is None:
        raise refusal(FORM, got=f"{trained.base_model}: {prompted.why_not_in_parts}", needed="a causal decoder")
    base = prompted.base
    prompt_embeddings = trained.prompt_embeddings.to(base.embedding_weight.dtype)
    with torch.no_grad():
        past = go_on(base, None, prompt_embeddings[None], _added(trained))
    _check(base, past)
    num_heads, _, head_size = past.layers[0][0].shape[1:]
    config = common_config(trained) | {
        "encoder_hidden_size": num_heads * head_size,
        "modules_to_save": sorted({name.split(".")[0] for name in trained.head}) or None,
        "num_attention_heads": num_heads,
        "num_layers": len(past.layers),
        "num_transformer_submodules": 1,
        "num_virtual_tokens": len(prompt_embeddings),
        "peft_type": "PREFIX_TUNING",
        "prefix_projection": False,
        "task_type": TASK_TYPES[template.target.kind][0],
        "token_dim": num_heads * head_size,
    }
    tensors = {"prompt_embeddings": flattened(past)} | {f"base_model.{name}": t for name, t in trained.head.items()}
    text = find_row_text(prompted.rows, base.tokenizer, [""] * len(prompt_embeddings))
    write_converted(
        zip_path,
        card=prefix_card(trained, prompted, text),
        config=config,
        tensors=safetensors.torch.save({name: t.contiguous() for name, t in tensors.items()}, {"format": "pt"}),
    )


def _added(trained: TrainedPrompt) -> Added | None:
    """What a deep prompt adds before each layer to its own positions."""
    if trained.deep is None:
        return None
    return Added(tuple(trained.deep), torch.arange(len(trained.prompt_embeddings))[None])


def flattened(past: Past) -> Tensor:
    """Keys and values of one row as PEFT keeps them, `[P, L * 2 * h * d]` fp32."""
    states = torch.stack([states[0] for layer in past.layers for states in layer])
    return states.permute(2, 0, 1, 3).flatten(1).float()


def _check(base: BaseModel, past: Past) -> None:
    """Whether PEFT would give each layer back what is in `past`.

    Raises:
        AdapterError: It cannot.
    """
    config = base.model.config.get_text_config(decoder=True)
    shapes = {tuple(states.shape) for layer in past.layers for states in layer}
    if len(past.layers) != config.num_hidden_layers or len(shapes) > 1:
        found = ", ".join(map(str, sorted(shapes)))
        raise refusal(
            FORM,
            got=f"{base.id}: {len(past.layers)} of {config.num_hidden_layers} layers, keys and values {found}",
            needed="a base model all of whose layers have keys and values of one shape",
        )
