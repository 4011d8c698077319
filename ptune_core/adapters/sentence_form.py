"""A classification head on an encoder as a folder of sentence-transformers, which its stock package loads.

Virtual tokens are tokens of the vocabulary that stand in front of every text by the model's prompt. The special token
that the tokenizer puts before a text comes after them in training, so it is part of the prompt too, and the exported
tokenizer adds only what follows a text. Pooling that leaves the prompt out (`include_prompt: false`) then is the mean
over what training's head reads, and a Dense layer is that head. sentence-transformers itself is not needed here.

P virtual tokens, C labels, W width of a hidden state, B texts, T positions.
"""

from __future__ import annotations

import copy
import json
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from itertools import takewhile
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from tokenizers import processors
from torch import Tensor
from torch.nn import functional

from ptune_core.adapters.added_tokens import add_tokens, embedding_scale
from ptune_core.adapters.archive import write_error, write_files, write_zip
from ptune_core.adapters.conversion import base_for, refusal
from ptune_core.adapters.converted_card import sentence_card
from ptune_core.adapters.format import template_of
from ptune_core.adapters.names import CARD_FILE
from ptune_core.adapters.row_text import PROBES
from ptune_core.adapters.sidecar import dump_json
from ptune_core.data.affixes import special_affixes
from ptune_core.model.base import BaseKind, BaseModel
from ptune_core.model.head import ENCODER_HEAD
from ptune_core.model.head_input import HeadInput
from ptune_core.model.outline import load_outline
from ptune_core.model.prompted import PromptedModel
from ptune_core.model.source import quiet
from ptune_core.model.trained import TrainedPrompt
from ptune_core.model.tuned import BASE_FILES, WEIGHTS_FILE, save_base_model
from ptune_core.prompt.template import Column, Literal, Special, Target, TargetKind, Template, VirtualTokens

FORM = "a model of sentence-transformers"

PROMPT_NAMES = ("classify", "query", "document")
"""The default prompt, and those that `encode_query` and `encode_document` take in its place."""

_MODES = {HeadInput.MEAN: "mean_tokens", HeadInput.LAST: "lasttoken", HeadInput.FIRST: "cls_token"}
_POOLING, _DENSE = "1_Pooling", "2_Dense"


def export_sentence_transformers(trained: TrainedPrompt, zip_path: Path) -> int:
    """Write the adapter with its base model as a zip that `SentenceTransformer` loads when it is unpacked.

    Returns:
        Bytes of the base model's weights in it.

    Raises:
        AdapterError: It is no classification head on an encoder, or its template, head or tokenizer asks for what
            sentence-transformers cannot do, or what was made does not have the adapter's scores.
        BaseModelError: The base model cannot be loaded.
        DiskFull: There is no room.
    """
    template = template_of(trained)
    _check(trained, template)
    prompted = base_for(trained, template)
    base = prompted.base
    if base.kind is not BaseKind.ENCODER:
        raise refusal(FORM, got=f"{base.id}, a {base.kind}", needed="a classification head on an encoder")
    _put_head_on(base, trained)
    base.model.float()  # the package would round the head to the base model's bf16
    try:
        with tempfile.TemporaryDirectory(dir=zip_path.parent, prefix=".tmp-sentence-") as scratch:
            folder = Path(scratch) / "model"
            num_bytes, files = _write_model(prompted, trained, folder)
            (folder / _POOLING).mkdir()
            (folder / _DENSE).mkdir()
            write_files(folder, files)
            write_zip(zip_path, folder, [*files, *BASE_FILES], stored=[WEIGHTS_FILE])
            return num_bytes
    except OSError as error:
        raise write_error(zip_path, error) from error


def _write_model(prompted: PromptedModel, trained: TrainedPrompt, folder: Path) -> tuple[int, dict[str, bytes]]:
    """Write base model and tokenizer, try them, and make all other files; bytes of the weights, and those files."""
    base = prompted.base
    examples = _examples(prompted)
    rows = prompted.make_rows([dict.fromkeys(prompted.template.columns, text) for text in examples])
    expected = prompted.scores(rows, trained.prompt_embeddings)
    tokenizer, names, new_ids = _tokenizer(prompted, len(trained.prompt_embeddings))
    _add_rows(base, trained, len(tokenizer), new_ids)
    body: Any = base.body
    save_base_model(replace(base, model=body, tokenizer=tokenizer), folder)
    _make_plain(folder / "tokenizer_config.json", base.tokenizer.model_input_names)
    # As whoever unpacks the zip will have it: transformers rebuilds some tokenizers when it reads them.
    read = load_outline(str(folder), target=TargetKind.HEAD).tokenizer
    ids = [[number if number >= 0 else new_ids[-number - 1] for number in row.ids] for row in rows]
    prompt = _find_prompt(prompted, read, names, examples, ids)
    found = _scores(base, read, prompt, [prompt + text for text in examples], trained)
    if not torch.allclose(found, expected, rtol=1e-3, atol=1e-3 * float(expected.abs().max())):
        raise refusal(
            FORM,
            got=f"{base.id} and {trained.template}, of which it would read other positions than training did",
            needed="virtual tokens in front, and no more than the tokenizer's own special tokens around the text",
        )
    num_bytes = (folder / WEIGHTS_FILE).stat().st_size
    card = sentence_card(trained, prompt, prompted.max_length, num_bytes)
    return num_bytes, {CARD_FILE: card.encode()} | _configs(prompted, trained, prompt)


def _check(trained: TrainedPrompt, template: Template) -> None:
    """Refuse what can be known to be impossible before the base model is loaded."""
    segments = [segment for segment in template.segments if not isinstance(segment, Target)]
    columns = [i for i, segment in enumerate(segments) if isinstance(segment, Column)]
    needed, remedy = "one column of text, with virtual tokens and special tokens alone in front of it", ""
    literal = _literal(template)
    got = trained.template
    if template.target.kind is not TargetKind.HEAD:
        got, needed = f"a [{template.target.kind}] target", "a template with [HEAD], on an encoder"
    elif trained.deep is not None:
        got = "virtual tokens that add to every layer, for which it has no place"
        needed, remedy = "an adapter that was trained in the input alone", "Train it with prompt_depth: input"
    elif trained.head_input not in _MODES:
        got = "a classification head that reads what the base model's own class reads"
        needed, remedy = "a head on an encoder that reads the text", "Train it with head_input: mean"
    elif template.messages or len(columns) != 1:
        got += ", a chat" if template.messages else f", with {len(columns)} columns"
    elif any(isinstance(segment, Column) and segment.filters for segment in segments):
        got, needed = f"{got}, whose column has filters", "a column as it is"
    elif not all(isinstance(segment, VirtualTokens | Special) for segment in _before(template)):
        pass
    elif not all(isinstance(segment, Special) for segment in segments[columns[0] + 1 :]):
        needed = "nothing but special tokens behind the text, which no prompt can bring"
    elif literal.strip() and trained.head_input is HeadInput.MEAN:
        got = f"a head that reads the mean over the template's own {literal.strip()!r} and the text"
        needed = "no words before the text: sentence-transformers leaves all of a prompt out of its mean"
    elif trained.head_input is HeadInput.FIRST and template.is_front:
        got = "a head that reads the special token between virtual tokens and text"
        needed = "one that reads the text, or a row's very first position"
        remedy = "Train it with head_input: mean, or with a template such as [CLS] [P*20] {text} [SEP] [HEAD:label]"
    else:
        return
    raise refusal(FORM, got=got, needed=needed, remedy=remedy)


def _before(template: Template) -> list[object]:
    """What stands before the column and the words that belong to it."""
    before = list(takewhile(lambda segment: not isinstance(segment, Column), template.segments))
    while before and isinstance(before[-1], Literal):
        before.pop()
    return list(before)


def _literal(template: Template) -> str:
    """The template's own text right before its column."""
    before = list(takewhile(lambda segment: not isinstance(segment, Column), template.segments))
    words = takewhile(lambda segment: isinstance(segment, Literal), reversed(before))
    return "".join(reversed([word.text for word in words if isinstance(word, Literal)]))


def _put_head_on(base: BaseModel, trained: TrainedPrompt) -> None:
    head: Any = base.head
    found = {name.removeprefix(f"{ENCODER_HEAD}."): tensor for name, tensor in trained.head.items()}
    needed = {name: tuple(tensor.shape) for name, tensor in head.state_dict().items()}
    if {name: tuple(tensor.shape) for name, tensor in found.items()} != needed:
        got = ", ".join(f"{name} {tuple(tensor.shape)}" for name, tensor in trained.head.items())
        wanted = ", ".join(f"{name} {shape}" for name, shape in needed.items())
        raise refusal(FORM, got=got, needed=f"a head of the base model's size: {wanted}")
    head.load_state_dict(found)


def _examples(prompted: PromptedModel) -> list[str]:
    """Texts of all kinds: empty, with the tokenizer's own special tokens written out, and one that is cut."""
    tokenizer = prompted.base.tokenizer
    written = " ".join(str(token) for token in (tokenizer.sep_token, tokenizer.cls_token) if token is not None)
    return [*PROBES, "", f"one {written} two", "word by word, " * prompted.max_length]


def _tokenizer(prompted: PromptedModel, count: int) -> tuple[Any, list[str], list[int]]:
    """The base model's tokenizer with P more tokens, which adds what follows a text only; their names and ids."""
    base = prompted.base
    tokenizer: Any = copy.deepcopy(base.tokenizer)
    names, new_ids = add_tokens(tokenizer, count, FORM)
    kinds = [segment.kind.lower() for segment in prompted.template.segments if isinstance(segment, Special)]
    behind = len(kinds) - sum(isinstance(segment, Special) for segment in _before(prompted.template))
    suffix = [getattr(tokenizer, f"{kind}_token") for kind in kinds[len(kinds) - behind :]]
    suffix += tokenizer.convert_ids_to_tokens(list(special_affixes(base.tokenizer, prompted.template)[1]))
    ids = tokenizer.convert_tokens_to_ids(suffix)
    backend = tokenizer.backend_tokenizer
    backend.no_truncation()
    backend.no_padding()
    backend.post_processor = processors.TemplateProcessing(
        single=["$A", *suffix], pair=["$A", *suffix, "$B:1", *(f"{token}:1" for token in suffix)],
        special_tokens=list(zip(suffix, ids, strict=True)),
    )  # fmt: skip
    tokenizer.padding_side = tokenizer.truncation_side = "right"
    tokenizer.model_max_length = prompted.max_length
    return tokenizer, names, new_ids


@torch.no_grad()
def _add_rows(base: BaseModel, trained: TrainedPrompt, num_tokens: int, new_ids: Sequence[int]) -> None:
    """Put the virtual tokens into the word embedding, `[V + P, H]`, and names of labels into the configuration."""
    body: Any = base.body
    scale = embedding_scale(base, FORM)
    for name in base.invented:  # random layers behind the last hidden states, which nothing here reads
        base.model.get_parameter(name).zero_()
    with quiet():
        body.resize_token_embeddings(max(num_tokens, len(base.embedding_weight)), mean_resizing=False)
    body.get_input_embeddings().weight[list(new_ids)] = trained.prompt_embeddings / scale
    body.config.id2label = dict(enumerate(trained.labels))
    body.config.label2id = {label: i for i, label in enumerate(trained.labels)}


def _make_plain(config_path: Path, input_names: Sequence[str]) -> None:
    """Let transformers take the tokenizer as its file says; a family's own class makes it anew, with its affixes."""
    config = json.loads(config_path.read_bytes())
    config |= {"tokenizer_class": "PreTrainedTokenizerFast", "model_input_names": list(input_names)}
    config_path.write_bytes(dump_json(config, sort_keys=True))


def _find_prompt(
    prompted: PromptedModel, tokenizer: Any, names: Sequence[str], texts: Sequence[str], ids: Sequence[Sequence[int]]
) -> str:
    """What to put before `texts` so that the tokenizer makes the `ids` of training of them.

    Raises:
        AdapterError: Nothing does.
    """
    numbers = prompted.rows.fixed_prefix
    before = "".join(names[-i - 1] if i < 0 else tokenizer.convert_ids_to_tokens(i) for i in numbers)
    literal = _literal(prompted.template)
    for words in dict.fromkeys((literal, " " + literal.removeprefix(" "), literal.removeprefix(" "))):
        whole = [before + words + text for text in texts]
        if tokenizer(whole, truncation=True, max_length=prompted.max_length)["input_ids"] == ids:
            return before + words
    raise refusal(
        FORM,
        got=f"the tokenizer of {prompted.base.id}, which makes other tokens of the template as one text than training",
        remedy="Export it in the format peft, whose zip has a script that makes the rows as in training",
    )


@torch.no_grad()
def _scores(base: BaseModel, tokenizer: Any, prompt: str, texts: Sequence[str], trained: TrainedPrompt) -> Tensor:
    """Scores `[B, C]` of texts with their prompt, by the rules of sentence-transformers."""
    made = tokenizer(texts, padding=True, truncation=True, return_tensors="pt")
    body: Any = base.body
    hidden = body(**{name: tensor for name, tensor in made.items() if base.accepts(name)}).last_hidden_state
    mask = made["attention_mask"]
    if trained.head_input is HeadInput.MEAN:
        alone = tokenizer(prompt)["input_ids"]
        mask = mask.clone()
        mask[:, : len(alone) - (alone[-1] in tokenizer.all_special_ids)] = 0  # a last special token is not the prompt's
        read = (hidden * mask[..., None]).sum(1) / mask.sum(1, keepdim=True).clamp(min=1e-9)
    else:
        at = mask.sum(1) - 1 if trained.head_input is HeadInput.LAST else torch.zeros(len(mask), dtype=torch.long)
        read = hidden[torch.arange(len(mask)), at]
    head = {name.removeprefix(f"{ENCODER_HEAD}."): tensor.float() for name, tensor in trained.head.items()}
    return functional.linear(read, head["weight"], head["bias"])


def _configs(prompted: PromptedModel, trained: TrainedPrompt, prompt: str) -> dict[str, bytes]:
    """What sentence-transformers reads beside the base model; its older versions know these names too."""
    head = {name.removeprefix(f"{ENCODER_HEAD}."): tensor.float() for name, tensor in trained.head.items()}
    num_labels, width = head["weight"].shape
    types = {"": "Transformer", _POOLING: "Pooling", _DENSE: "Dense"}
    modules = [
        {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{name}"}
        for i, (path, name) in enumerate(types.items())
    ]
    pooling: dict[str, object] = {f"pooling_mode_{mode}": False for mode in ("max_tokens", *_MODES.values())}
    pooling |= {
        "word_embedding_dimension": width,
        f"pooling_mode_{_MODES[trained.head_input]}": True,
        "include_prompt": trained.head_input is not HeadInput.MEAN,
    }
    dense = {
        "in_features": width, "out_features": num_labels, "bias": True,
        "activation_function": "torch.nn.modules.linear.Identity",
    }  # fmt: skip
    values: dict[str, object] = {
        "modules.json": modules,
        "config_sentence_transformers.json": {
            "model_type": "SentenceTransformer",
            "prompts": dict.fromkeys(PROMPT_NAMES, prompt),
            "default_prompt_name": PROMPT_NAMES[0],
            "similarity_fn_name": None,
        },
        "sentence_bert_config.json": {"max_seq_length": prompted.max_length, "do_lower_case": False},
        f"{_POOLING}/config.json": pooling,
        f"{_DENSE}/config.json": dense,
    }
    files = {name: json.dumps(value, indent=2, ensure_ascii=False).encode() for name, value in values.items()}
    linear = {f"linear.{name}": tensor.detach().cpu().contiguous() for name, tensor in head.items()}
    return files | {f"{_DENSE}/model.safetensors": safetensors.torch.save(linear, {"format": "pt"})}
