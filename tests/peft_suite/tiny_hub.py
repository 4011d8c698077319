"""What PEFT's tests take from the Hub, made here instead: tiny random models, a tokenizer, one adapter's config.

The files lie as `huggingface_hub` keeps them in its cache, so with that folder as cache everything is found offline
under the names that PEFT's tests use.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    BartConfig,
    BartForConditionalGeneration,
    BertConfig,
    BertForSequenceClassification,
    BertModel,
    DebertaConfig,
    DebertaModel,
    DebertaV2Config,
    DebertaV2Model,
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    GPT2Config,
    GPT2LMHeadModel,
    GPTJConfig,
    GPTJForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    LlamaForSequenceClassification,
    MistralConfig,
    MistralForCausalLM,
    OPTConfig,
    OPTForCausalLM,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
    RobertaConfig,
    RobertaForSequenceClassification,
    RobertaModel,
    T5Config,
    T5ForConditionalGeneration,
)

QUOTES = [
    "Be yourself; everyone else is already taken.",
    "So many books, so little time.",
    "A room without books is like a body without a soul.",
    "You only live once, but if you do it right, once is enough.",
]
"""Stand in for the data set of quotes that PEFT's tests with gradient checkpointing train on."""

VOCABULARY = 300
COMMIT = "0" * 40
ADAPTER, ADAPTER_REVISION = "peft-internal-testing/tiny-opt-lora-revision", "test"

# Generation may end with token 0 only; PEFT's inputs are made of 1 and 2.
SPECIAL = {"bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0}
USUAL: dict[str, Any] = {
    "vocab_size": VOCABULARY, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
    "num_attention_heads": 4, "max_position_embeddings": 256, "initializer_range": 0.2, **SPECIAL,
}  # fmt: skip
GROUPED: dict[str, Any] = {**USUAL, "num_key_value_heads": 2}
GPT: dict[str, Any] = {
    "vocab_size": VOCABULARY, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 256, "initializer_range": 0.2,
    **SPECIAL,
}  # fmt: skip
OPT: dict[str, Any] = {**USUAL, "ffn_dim": 64, "word_embed_proj_dim": 32, "init_std": 0.2}
DEBERTA: dict[str, Any] = {**USUAL, "relative_attention": True, "pos_att_type": ["p2c", "c2p"], "type_vocab_size": 0}
BART: dict[str, Any] = {
    "vocab_size": VOCABULARY, "d_model": 32, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 4,
    "decoder_attention_heads": 4, "encoder_ffn_dim": 64, "decoder_ffn_dim": 64, "max_position_embeddings": 256,
    "init_std": 0.2, "decoder_start_token_id": 0, "forced_eos_token_id": None, **SPECIAL,
}  # fmt: skip
T5: dict[str, Any] = {
    "vocab_size": VOCABULARY, "d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 2, "num_heads": 4,
    "decoder_start_token_id": 0, **SPECIAL,
}  # fmt: skip

MODELS: dict[str, tuple[Any, Any, dict[str, Any]]] = {
    "peft-internal-testing/tiny-random-OPTForCausalLM": (OPTForCausalLM, OPTConfig, OPT),
    "peft-internal-testing/tiny-random-GPT2LMHeadModel": (GPT2LMHeadModel, GPT2Config, GPT),
    "hf-internal-testing/tiny-random-gpt2": (GPT2LMHeadModel, GPT2Config, GPT),
    "peft-internal-testing/tiny-random-GPTJForCausalLM": (GPTJForCausalLM, GPTJConfig, {**GPT, "rotary_dim": 4}),
    "trl-internal-testing/tiny-random-LlamaForCausalLM": (LlamaForCausalLM, LlamaConfig, GROUPED),
    "hf-internal-testing/tiny-random-MistralForCausalLM": (MistralForCausalLM, MistralConfig, GROUPED),
    "peft-internal-testing/tiny-dummy-qwen2": (Qwen2ForCausalLM, Qwen2Config, GROUPED),
    "hf-internal-testing/tiny-random-Gemma3ForCausalLM": (
        Gemma3ForCausalLM, Gemma3TextConfig, {**GROUPED, "head_dim": 8, "query_pre_attn_scalar": 8},
    ),
    "peft-internal-testing/tiny-random-T5ForConditionalGeneration-calibrated": (
        T5ForConditionalGeneration, T5Config, T5,
    ),
    "peft-internal-testing/tiny-random-BartForConditionalGeneration": (BartForConditionalGeneration, BartConfig, BART),
    "peft-internal-testing/tiny-random-BertModel": (BertModel, BertConfig, USUAL),
    "peft-internal-testing/tiny-random-RobertaModel": (RobertaModel, RobertaConfig, USUAL),
    "peft-internal-testing/tiny-random-DebertaModel": (DebertaModel, DebertaConfig, DEBERTA),
    "peft-internal-testing/tiny-random-DebertaV2Model": (DebertaV2Model, DebertaV2Config, DEBERTA),
    "peft-internal-testing/tiny-random-BertForSequenceClassification": (
        BertForSequenceClassification, BertConfig, USUAL,
    ),
    "peft-internal-testing/tiny-random-RobertaForSequenceClassification": (
        RobertaForSequenceClassification, RobertaConfig, USUAL,
    ),
    "trl-internal-testing/tiny-LlamaForSequenceClassification-3.2": (
        LlamaForSequenceClassification, LlamaConfig, GROUPED,
    ),
}  # fmt: skip


def fill(cache: Path) -> None:
    """Write all of it into the folder that `HF_HUB_CACHE` names."""
    tokenizer = _tokenizer()
    for seed, (repository, (model_class, config_class, values)) in enumerate(MODELS.items()):
        torch.manual_seed(seed)
        folder = _snapshot(cache, repository, "main")
        model_class(config_class(**values)).save_pretrained(folder)
        tokenizer.save_pretrained(folder)
    adapter = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "base_model_name_or_path": next(iter(MODELS))}
    (_snapshot(cache, ADAPTER, ADAPTER_REVISION) / "adapter_config.json").write_text(json.dumps(adapter))


def _snapshot(cache: Path, repository: str, revision: str) -> Path:
    """Folder for the files of a repository at a revision."""
    root = cache / f"models--{repository.replace('/', '--')}"
    folder = root / "snapshots" / COMMIT
    folder.mkdir(parents=True)
    (root / "refs").mkdir()
    (root / "refs" / revision).write_text(COMMIT)
    return folder


def _tokenizer() -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=VOCABULARY, special_tokens=["<|end|>"], initial_alphabet=alphabet)
    tokenizer.train_from_iterator(QUOTES, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|end|>", bos_token="<|end|>")
