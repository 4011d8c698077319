"""Tiny random base models with real tokenizers, built in process: no network, a few milliseconds each."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from ptune_core.steady import keep_steady

keep_steady()  # before any test multiplies
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

if TYPE_CHECKING:
    from transformers import BertConfig, PreTrainedModel, PreTrainedTokenizerFast

CORPUS = [
    "the film was great and I loved every minute of it .",
    "a terrible , boring waste of time ; the food was bad .",
    "Answer : yes no good bad positive negative great terrible",
    "Question : is the capital of France Paris ? Answer :",
    "once upon a time there was a small dog who liked to run in the park",
] * 4


@pytest.fixture(autouse=True)
def isolated_data_directory(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Path]:
    """No test reads or writes the data directory of the person who runs it."""
    directory = tmp_path_factory.mktemp("ptune-data")
    monkeypatch.setenv("PTUNE_DATA_DIR", str(directory))
    yield directory


@pytest.fixture(autouse=True)
def drawn_alike() -> None:
    """What a test draws does not depend on the tests before it, nor on which process they went to."""
    if torch := sys.modules.get("torch"):
        torch.manual_seed(0)


@pytest.fixture(scope="session")
def tiny_gpt2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a 2-layer GPT-2 with hidden size 32, 64 positions and a byte-level BPE tokenizer."""
    from transformers import GPT2Config, GPT2LMHeadModel

    tokenizer = _byte_level_tokenizer()
    config = GPT2Config(
        vocab_size=len(tokenizer), n_embd=32, n_layer=2, n_head=4, n_positions=64,
        bos_token_id=tokenizer.eos_token_id, eos_token_id=tokenizer.eos_token_id, initializer_range=0.4,
    )  # fmt: skip
    return _saved(tmp_path_factory.mktemp("tiny-gpt2"), tokenizer, 0, lambda: GPT2LMHeadModel(config))


@pytest.fixture(scope="session")
def tiny_llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a 2-layer Llama (grouped-query attention, hidden size 32, 128 positions) with the same tokenizer."""
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer = _byte_level_tokenizer()
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=128, initializer_range=0.4, pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.eos_token_id, eos_token_id=tokenizer.eos_token_id,
    )  # fmt: skip
    return _saved(tmp_path_factory.mktemp("tiny-llama"), tokenizer, 1, lambda: LlamaForCausalLM(config))


@pytest.fixture(scope="session")
def tiny_bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a 2-layer BERT (hidden size 32, 64 positions) with a WordPiece tokenizer."""
    from transformers import BertModel

    tokenizer = _wordpiece_tokenizer()
    config = _bert_config(tokenizer)
    return _saved(tmp_path_factory.mktemp("tiny-bert"), tokenizer, 2, lambda: BertModel(config))


@pytest.fixture(scope="session")
def tiny_bert_lm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the same BERT with the layers that fill masks."""
    from transformers import BertForMaskedLM

    tokenizer = _wordpiece_tokenizer()
    config = _bert_config(tokenizer)
    return _saved(tmp_path_factory.mktemp("tiny-bert-lm"), tokenizer, 3, lambda: BertForMaskedLM(config))


@pytest.fixture(scope="session")
def tiny_t5(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a T5 of 2 and 2 layers (hidden size 32), with GPT-2's kind of tokenizer that ends texts."""
    from transformers import T5Config, T5ForConditionalGeneration

    tokenizer = _ending_tokenizer()
    config = T5Config(
        vocab_size=len(tokenizer), d_model=32, d_kv=8, d_ff=64, num_layers=2, num_heads=4, dropout_rate=0.1,
        pad_token_id=tokenizer.pad_token_id, eos_token_id=tokenizer.eos_token_id,
        decoder_start_token_id=tokenizer.pad_token_id, initializer_factor=2.0,
    )  # fmt: skip
    return _saved(tmp_path_factory.mktemp("tiny-t5"), tokenizer, 4, lambda: T5ForConditionalGeneration(config))


@pytest.fixture(scope="session")
def tiny_bart(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a BART of 2 and 2 layers (hidden size 32, 64 positions), whose answers begin with a forced token."""
    from transformers import BartConfig, BartForConditionalGeneration

    tokenizer = _ending_tokenizer()
    config = BartConfig(
        vocab_size=len(tokenizer), d_model=32, encoder_layers=2, decoder_layers=2, encoder_attention_heads=4,
        decoder_attention_heads=4, encoder_ffn_dim=64, decoder_ffn_dim=64, max_position_embeddings=64, init_std=0.4,
        pad_token_id=tokenizer.pad_token_id, bos_token_id=5, eos_token_id=tokenizer.eos_token_id,
        decoder_start_token_id=tokenizer.eos_token_id,
    )  # fmt: skip

    def make() -> BartForConditionalGeneration:
        model = BartForConditionalGeneration(config)
        model.final_logits_bias.normal_()
        model.generation_config.forced_bos_token_id = 5
        model.generation_config.forced_eos_token_id = None
        return model

    return _saved(tmp_path_factory.mktemp("tiny-bart"), tokenizer, 5, make)


def _saved(folder: Path, tokenizer: PreTrainedTokenizerFast, seed: int, make: Callable[[], PreTrainedModel]) -> Path:
    """The folder with a tokenizer and a model that is drawn with a seed."""
    import torch

    tokenizer.save_pretrained(folder)
    torch.manual_seed(seed)
    make().save_pretrained(folder)
    return folder


def _bert_config(tokenizer: PreTrainedTokenizerFast) -> BertConfig:
    from transformers import BertConfig

    return BertConfig(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        max_position_embeddings=64, initializer_range=0.4, pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip


def _ending_tokenizer() -> PreTrainedTokenizerFast:
    """A byte-level one that closes every text, as those of encoder-decoders do."""
    from tokenizers import processors

    tokenizer = _byte_level_tokenizer()
    end = tokenizer.eos_token
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single=f"$A {end}", pair=f"$A {end} $B {end}", special_tokens=[(end, tokenizer.eos_token_id)]
    )
    return tokenizer


def _byte_level_tokenizer() -> PreTrainedTokenizerFast:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=["<|endoftext|>", "<|pad|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<|endoftext|>", bos_token="<|endoftext|>", pad_token="<|pad|>"
    )


def _wordpiece_tokenizer() -> PreTrainedTokenizerFast:
    """Knows the corpus's characters and words; the library's trainer would number them otherwise in each process."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    words = sorted({word for text in CORPUS for word in text.lower().split()})
    characters = sorted({character for word in words for character in word})
    tokens = dict.fromkeys([*special, *characters, *(f"##{character}" for character in characters), *words])
    vocabulary = {token: number for number, token in enumerate(tokens)}
    tokenizer = Tokenizer(models.WordPiece(vocab=vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", tokenizer.token_to_id("[CLS]")), ("[SEP]", tokenizer.token_to_id("[SEP]"))],
    )  # fmt: skip
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="[UNK]", pad_token="[PAD]", cls_token="[CLS]", sep_token="[SEP]",
        mask_token="[MASK]",
    )  # fmt: skip


@pytest.fixture(scope="session")
def make_base():  # type: ignore[no-untyped-def]
    """Makes a tiny model of a family for one of PEFT's task types: the same weights each time, fp32, in eval mode."""
    return _make_base


def _make_base(family: str, task: str):  # type: ignore[no-untyped-def]
    import torch
    import transformers as hf

    small = {
        "vocab_size": 97, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "initializer_range": 0.2,
        "max_position_embeddings": 64, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0, "num_labels": 3,
    }  # fmt: skip
    grouped = small | {"intermediate_size": 48, "num_key_value_heads": 2}
    encoder = small | {"intermediate_size": 48, "type_vocab_size": 2}
    if task == "QUESTION_ANS":
        small["num_labels"] = grouped["num_labels"] = encoder["num_labels"] = 2
    sizes = {
        "gpt2": (hf.GPT2Config, {
            **{key: value for key, value in small.items() if not key.startswith(("hidden", "num_h", "num_a", "max"))},
            "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64,
        }),
        "llama": (hf.LlamaConfig, grouped),
        "qwen2": (hf.Qwen2Config, grouped),
        "gemma3": (hf.Gemma3TextConfig, grouped | {
            "num_key_value_heads": 1, "head_dim": 8, "sliding_window": 6,
            "layer_types": ["sliding_attention", "full_attention"],
        }),
        "opt": (hf.OPTConfig, small | {"ffn_dim": 48, "word_embed_proj_dim": 16, "init_std": 0.2}),
        "bert": (hf.BertConfig, encoder),
        "roberta": (hf.RobertaConfig, encoder | {"pad_token_id": 1, "bos_token_id": 0, "max_position_embeddings": 66}),
        "deberta": (hf.DebertaV2Config, encoder | {
            "relative_attention": True, "pos_att_type": ["p2c", "c2p"], "position_biased_input": True,
        }),
        "t5": (hf.T5Config, {
            "vocab_size": 97, "d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 2, "num_heads": 4,
            "initializer_factor": 2.0, "pad_token_id": 0, "eos_token_id": 2, "decoder_start_token_id": 0,
            "num_labels": small["num_labels"],
        }),
        "bart": (hf.BartConfig, {
            "vocab_size": 97, "d_model": 32, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 4,
            "decoder_attention_heads": 4, "encoder_ffn_dim": 48, "decoder_ffn_dim": 48, "max_position_embeddings": 64,
            "init_std": 0.2, "pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2, "decoder_start_token_id": 2,
            "num_labels": small["num_labels"], "forced_eos_token_id": None,
        }),
    }  # fmt: skip
    classes = {
        "CAUSAL_LM": hf.AutoModelForCausalLM, "SEQ_CLS": hf.AutoModelForSequenceClassification,
        "TOKEN_CLS": hf.AutoModelForTokenClassification, "QUESTION_ANS": hf.AutoModelForQuestionAnswering,
        "SEQ_2_SEQ_LM": hf.AutoModelForSeq2SeqLM, "FEATURE_EXTRACTION": hf.AutoModel,
    }  # fmt: skip
    config_class, values = sizes[family]
    torch.manual_seed(5)
    model = classes[task].from_config(config_class(**values)).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "EncDecAttention.o" in name:  # else a random T5 hardly hears its encoder
                parameter.mul_(8)
    return model
