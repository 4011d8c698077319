"""Use a PTune adapter without PTune: needs torch, transformers and safetensors, and the files beside this one.

    from ptune_loader import Adapter

    adapter = Adapter("folder of the adapter")
    adapter.classify({"text": "What a film!"})     # {"negative": 0.03, "positive": 0.97}
    adapter.generate({"text": "Once upon a time"})  # for adapters that write text, or fill mask tokens with it

`ptune.json` lists the segments of the template in order: literals, columns, virtual tokens, special tokens, target. The
model's input is made of them as in training: text that stands together is tokenised as one string, a virtual token is
one row of the prompt embeddings, and if the input is too long only columns are cut. A base model that was tuned
together with them lies in `base_model/`. With `prompt_depth` all, `ptune.deep` is added to the hidden states of the
virtual tokens before each layer.
"""

from __future__ import annotations

import json
import re
from functools import partial
from inspect import signature
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    AutoModelForSeq2SeqLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
)
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_outputs import BaseModelOutput

Row = dict[str, str]
Piece = tuple[list[int], dict[str, Any] | None]
"""Token ids (virtual token i is -(i + 1)), and the column they come from, if any."""

FILTERS = {
    "strip_punct": lambda value: value.rstrip(".,;:!?…。，、；：！？ \t\n"),
    "lower_first": lambda value: value[:1].lower() + value[1:],
    "upper_first": lambda value: value[:1].upper() + value[1:],
    "lower": str.lower,
    "strip": str.strip,
}


_COLUMN = re.compile(r"\{\s*([^{}|\n]*[^{}|\s])\s*((?:\|[^{}|\n]*)*)\}")
"""A column in an answer, as in ` {choice1|lower_first}`."""


def _filtered(row: Row, match: re.Match[str]) -> str:
    value = row[match[1]]
    for name in match[2].split("|")[1:]:
        value = FILTERS[name.strip()](value)
    return value


class Rows:
    """Turns the columns of one example into token ids, as the adapter in `folder` was trained.

    Args:
        folder: Where `ptune.json` and `adapter_config.json` are.
        tokenizer: The base model's tokenizer.
    """

    def __init__(self, folder: str | Path, tokenizer: Any) -> None:
        self.info = json.loads((Path(folder) / "ptune.json").read_text(encoding="utf-8"))
        config = json.loads((Path(folder) / "adapter_config.json").read_text(encoding="utf-8"))
        self.is_peft = config["peft_type"] == "P_TUNING"
        groups = [i for i, segment in enumerate(self.info["segments"]) if segment["kind"] == "virtual_tokens"]
        self.is_front = groups == [0] and self.info["special_tokens"]
        self.tokenizer = tokenizer
        self.target = next(segment["target"] for segment in self.info["segments"] if segment["kind"] == "target")
        self.answer_follows = self.target == "ANSWER" and config["task_type"] == "CAUSAL_LM"
        # Some tokenizers put a word boundary before a text themselves: a space in front would be a token of its own.
        self.drops_space = len(self.encode(" a")) > len(self.encode("a"))
        self.brings_answers = any(_COLUMN.search(text) for text in (self.info["verbalizer"] or {}).values())
        self.prefix, self.suffix = self._special_affixes()
        written = [s.get("token") for s in self.info["segments"] if self.target == "MASK" or s["kind"] != "target"]
        self.separates_texts = "SEP" in written[:-1]  # one that is written in a text begins no second text

    def encode(self, text: str) -> list[int]:
        """Token ids without special tokens."""
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def answer_ids(self, answer: str) -> list[int]:
        """The tokens that tell an answer from the others: its first one, or all that fill mask tokens."""
        ids = self.encode(answer.removeprefix(" ") if self.drops_space else answer)
        return ids if self.target == "MASK" else ids[:1]

    def own_answers(self, row: Row) -> list[list[int]]:
        """Token ids of the answers that a row brings itself, in the order of the labels."""
        texts = [_COLUMN.sub(lambda match: _filtered(row, match), text) for text in self.info["verbalizer"].values()]
        return [self.encode(text.removeprefix(" ") if self.drops_space else text) for text in texts]

    def ids(self, row: Row, reserve: int = 0) -> list[int]:
        """One row of the input: token ids, and -(i + 1) for virtual token i; not longer than in training.

        `reserve` tokens are kept free for an answer.
        """
        pieces = self._pieces(row)
        length = sum(len(ids) for ids, _ in pieces) + reserve
        excess = length - (self.info["max_length"] or length)
        while excess > 0:
            cuttable = [(c["shorten_first"], len(ids), -i) for i, (ids, c) in enumerate(pieces) if c and ids]
            where = -max(cuttable)[2]  # the column marked ~, else the longest, else the first
            ids, column = pieces[where]
            kept = max(0, len(ids) - excess)
            excess -= len(ids) - kept
            pieces[where] = (ids[:kept], column)
        return [number for ids, _ in pieces for number in ids]

    def _pieces(self, row: Row) -> list[Piece]:
        pieces: list[Piece] = []
        run: list[tuple[str, dict[str, Any] | None]] = []
        mask_id, unknown = self.tokenizer.mask_token_id, self.tokenizer.unk_token_id
        for segment in [*self.info["segments"], {"kind": "end"}]:
            if segment["kind"] == "literal":
                run.append((segment["text"], None))
            elif segment["kind"] == "column":
                value = row[segment["name"]]
                for name in segment["filters"]:
                    value = FILTERS[name](value)
                run.append((value, segment))
            else:
                is_mask = segment.get("target") == "MASK"
                if is_mask and run and run[-1][1] is None:
                    run[-1] = (run[-1][0].rstrip(" "), None)  # no tokenizer puts a space before a mask token
                for ids, column in self._tokenise(run):
                    if self.target == "MASK":  # one that somebody wrote into the text is an unknown word
                        other = self.tokenizer.pad_token_id if unknown is None else unknown
                        ids = [other if token_id == mask_id else token_id for token_id in ids]
                    pieces.append((ids, column))
                run = []
                if is_mask:
                    pieces.append(([mask_id] * segment["count"], None))
                if segment["kind"] == "virtual_tokens":
                    first = segment["first_row"]
                    pieces.append(([-(i + 1) for i in range(first, first + segment["count"])], None))
                elif segment["kind"] == "special":
                    pieces.append(([getattr(self.tokenizer, segment["token"].lower() + "_token_id")], None))
        # PEFT puts the prompt before everything, so before the tokenizer's own first special token too.
        pieces.insert(1 if self.is_front else 0, (self.prefix, None))
        return [*pieces, (self.suffix, None)]

    def _tokenise(self, run: list[tuple[str, dict[str, Any] | None]]) -> list[Piece]:
        """Tokenise text that stands together as one string; every token belongs to the part it ends in."""
        text = "".join(part for part, _ in run)
        dropped = 1 if self.drops_space and text.startswith(" ") else 0
        encoded = self.tokenizer(text[dropped:], add_special_tokens=False, return_offsets_mapping=True)
        pieces: list[Piece] = [([], column) for _, column in run]
        ends = [sum(len(part) for part, _ in run[: i + 1]) - dropped for i in range(len(run))]
        at = 0
        for token_id, (start, end) in zip(encoded["input_ids"], encoded["offset_mapping"], strict=True):
            while max(start, end - 1) >= ends[at] and at < len(ends) - 1:
                at += 1
            pieces[at][0].append(token_id)
        return pieces

    def _special_affixes(self) -> tuple[list[int], list[int]]:
        """The tokenizer's own special tokens before and after a text, where the template does not write its own."""
        plain, full = self.encode("a"), list(self.tokenizer("a")["input_ids"])
        starts = [i for i in range(len(full) - len(plain) + 1) if full[i : i + len(plain)] == plain]
        if not starts or not self.info["special_tokens"]:
            return [], []
        skipped = ("virtual_tokens",) if self.target == "MASK" else ("virtual_tokens", "target")
        written = [s.get("token") for s in self.info["segments"] if s["kind"] not in skipped]
        prefix = [] if written[:1] in (["CLS"], ["BOS"]) else full[: starts[0]]
        suffix = [] if self.answer_follows or written[-1:] in (["SEP"], ["EOS"]) else full[starts[0] + len(plain) :]
        return prefix, suffix


class Adapter:
    """A base model with the adapter in `folder`.

    Args:
        folder: Where the adapter's files are.
        base_model: Hub id or folder; None takes the one the adapter was trained on, unless it is PTune's demo model. Of
            no use to an adapter that brings its own.
        device: Such as `cpu` or `cuda`.
        dtype: Number format of the base model; None takes the one it had in training.
    """

    def __init__(
        self,
        folder: str | Path,
        base_model: str | Path | None = None,
        device: str = "cpu",
        dtype: torch.dtype | None = None,
    ) -> None:
        tensors = load_file(Path(folder) / "adapter_model.safetensors", device=device)
        info = json.loads((Path(folder) / "ptune.json").read_text(encoding="utf-8"))
        dtype = dtype or (torch.float32 if info["precision"] == "fp32" else torch.bfloat16)
        where = {"revision": info["revision"]} if base_model is None else {}
        base_model = Path(folder) / "base_model" if "tuned_from" in info else base_model or info["base_model"]
        self.rows = Rows(folder, AutoTokenizer.from_pretrained(base_model, **where))
        self.labels: list[str] = info["labels"]
        self.prompt_embeddings = tensors.pop("prompt_embeddings" if self.rows.is_peft else "ptune.prompt_embeddings")
        self.deep = tensors.pop("ptune.deep", None)  # [L, P, H]
        self.model: Any
        self.start_ids: list[int] = []
        self.reads = info.get("head_input", "model")
        head = {name.removeprefix("ptune.head.").removeprefix("base_model."): t.float() for name, t in tensors.items()}
        if self.reads != "model":  # one layer on what is read of the last hidden states
            self.model = AutoModel.from_pretrained(base_model, dtype=dtype, **where)
            self.is_causal = "score.weight" in head  # as decoders' heads are called
            self.head = tuple(head[name] for name in sorted(head, reverse=True))
        elif self.rows.target != "HEAD":
            config = AutoConfig.from_pretrained(base_model, **where)
            kind: Any = AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM
            kind = AutoModelForMaskedLM if self.rows.target == "MASK" else kind
            self.model = kind.from_pretrained(base_model, dtype=dtype, **where)
            self.answer_ids = [self.rows.answer_ids(answer) for answer in (info["verbalizer"] or {}).values()]
            if config.is_encoder_decoder:
                own = (self.model.generation_config, self.model.config)
                for name in ("decoder_start_token_id", "forced_bos_token_id"):
                    self.start_ids += [id for c in own if (id := getattr(c, name, None)) is not None][:1]
        else:
            self.model = AutoModelForSequenceClassification.from_pretrained(
                base_model, dtype=dtype, num_labels=len(self.labels), **where
            )
            module = self.model.get_submodule(next(iter(head)).split(".")[0]).float()  # fp32, whatever the model is
            module.register_forward_pre_hook(lambda _, inputs: tuple(tensor.float() for tensor in inputs))
            if self.model.load_state_dict(head, strict=False).unexpected_keys:
                raise ValueError(f"the adapter's classification head {sorted(head)} does not fit the base model")
        self.model = self.model.to(device).eval()
        self.reads_token_types = "token_type_ids" in signature(self.model.forward).parameters
        self.is_reading_row = False
        layers = [layer for layer in self.model.base_model.modules() if isinstance(layer, GradientCheckpointingLayer)]
        for layer, added in zip(layers, () if self.deep is None else self.deep, strict=self.deep is not None):
            layer.register_forward_pre_hook(partial(self._add, added), with_kwargs=True)

    def _add(self, added: Tensor, _: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Before each layer a deep prompt adds to the hidden states of its tokens, which are a row's first."""
        if not self.is_reading_row:
            return None
        hidden = args[0] if args else kwargs["hidden_states"]
        more = added.to(hidden.dtype)
        hidden = torch.cat([hidden[:, : len(more)] + more, hidden[:, len(more) :]], dim=1)
        return ((hidden, *args[1:]), kwargs) if args else (args, kwargs | {"hidden_states": hidden})

    def _read_row(self, inputs: dict[str, Any]) -> Any:
        """What the model makes of a whole row, virtual tokens included."""
        self.is_reading_row = True
        try:
            return self.model(**inputs)
        finally:
            self.is_reading_row = False

    def inputs(self, row: Row) -> dict[str, Tensor]:
        """What the model is given for one row: `inputs_embeds` [1, T, H], `attention_mask` [1, T], and more."""
        return self._inputs(self.rows.ids(row), self.start_ids)

    def _inputs(self, numbers: list[int], written: list[int]) -> dict[str, Tensor]:
        ids = torch.tensor([numbers], device=self.model.device)
        text = self.model.get_input_embeddings()(ids.clamp(min=0))
        prompt = self.prompt_embeddings.to(text.dtype)[(-ids - 1).clamp(min=0)]
        embeddings = torch.where((ids < 0).unsqueeze(-1), prompt, text)
        given = {"inputs_embeds": embeddings, "attention_mask": torch.ones_like(ids)}
        if self.start_ids:
            given["decoder_input_ids"] = torch.tensor([written], device=self.model.device)
        separator = self.rows.tokenizer.sep_token_id if self.rows.separates_texts else None
        if separator is not None and self.reads_token_types and getattr(self.model.config, "type_vocab_size", 0) > 1:
            after = (ids == separator).long()
            given["token_type_ids"] = (after.cumsum(1) - after).clamp(max=1)
        return given

    @torch.no_grad()
    def logits(self, row: Row) -> Tensor:
        """One score per label, `[C]`."""
        if self.rows.brings_answers and self.rows.target != "HEAD":
            answers = self.rows.own_answers(row)
            longest = 0 if self.start_ids else max(map(len, answers))
            return torch.stack([self._score(self.rows.ids(row, longest), answer) for answer in answers])
        inputs = self.inputs(row)
        if self.reads != "model":
            hidden = self._read_row(inputs).last_hidden_state[0, self._read(row)].float()
            return torch.nn.functional.linear(hidden.mean(0), *self.head)
        logits = self._read_row(inputs).logits[0].float()
        if self.rows.target == "HEAD":
            return logits
        at = self._masks(row) if self.rows.target == "MASK" else [len(logits) - 1]
        return torch.stack([logits[at, ids].sum() for ids in self.answer_ids])

    def _score(self, ids: list[int], answer: list[int]) -> Tensor:
        """Mean log-probability of the tokens of an answer that its row brings."""
        mask_id, first, written = self.rows.tokenizer.mask_token_id, len(ids) - 1, self.start_ids
        if self.rows.target == "MASK":
            first = ids.index(mask_id)
            ids = [*ids[:first], *[mask_id] * len(answer), *(number for number in ids[first:] if number != mask_id)]
        elif self.start_ids:
            first, written = len(self.start_ids) - 1, [*self.start_ids, *answer[:-1]]
        else:
            ids = [*ids, *answer[:-1]]
        logits = self._read_row(self._inputs(ids, written)).logits[0, first : first + len(answer)].float()
        return logits.log_softmax(-1)[torch.arange(len(answer)), answer].mean()

    def _read(self, row: Row) -> list[int]:
        """Which positions the head reads: never a virtual token, unless it is a decoder's last position."""
        numbers, tokenizer = self.rows.ids(row), self.rows.tokenizer
        if self.reads == "last" and self.is_causal:
            return [len(numbers) - 1]
        text = [i for i, number in enumerate(numbers) if number >= 0] or list(range(len(numbers)))
        if self.reads in ("first", "last"):
            return [text[0] if self.reads == "first" else text[-1]]
        begins = (tokenizer.cls_token_id, tokenizer.bos_token_id)  # in first place no part of a mean
        return text[1:] or text if numbers[text[0]] in begins else text

    def _masks(self, row: Row) -> list[int]:
        """Where the mask tokens stand."""
        return [i for i, number in enumerate(self.rows.ids(row)) if number == self.rows.tokenizer.mask_token_id]

    def classify(self, row: Row) -> dict[str, float]:
        """Label -> probability, for the columns of one example."""
        return dict(zip(self.labels, self.logits(row).softmax(0).tolist(), strict=True))

    @torch.no_grad()
    def generate(self, row: Row, max_new_tokens: int = 64) -> str:
        """The likeliest continuation, token by token, up to the end-of-text token or the last position."""
        inputs = self.inputs(row)
        if self.rows.target == "MASK":
            return self.rows.tokenizer.decode(self._read_row(inputs).logits[0, self._masks(row)].argmax(-1))
        configured = self.model.generation_config.eos_token_id
        end_ids = {*(configured if isinstance(configured, list) else [configured]), self.rows.tokenizer.eos_token_id}
        used, name = (
            (len(self.start_ids), "decoder_input_ids") if self.start_ids else (len(self.rows.ids(row)), "input_ids")
        )
        if positions := getattr(self.model.config, "max_position_embeddings", None):
            max_new_tokens = min(max_new_tokens, positions - used)
        token_ids: list[int] = []
        output = self._read_row(inputs | {"use_cache": True})
        again: dict[str, Any] = {}
        if self.start_ids:
            read = BaseModelOutput(last_hidden_state=output.encoder_last_hidden_state)
            again = {"encoder_outputs": read, "attention_mask": inputs["attention_mask"]}
        while len(token_ids) < max_new_tokens and (token_id := int(output.logits[0, -1].argmax())) not in end_ids:
            token_ids.append(token_id)
            step = {name: torch.tensor([[token_id]], device=self.model.device)}
            output = self.model(**step, **again, past_key_values=output.past_key_values, use_cache=True)
        return self.rows.tokenizer.decode(token_ids, skip_special_tokens=True)
