"""Tiny random causal models of many families."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, Gemma3TextConfig, MistralConfig, OPTConfig, Qwen2Config
from transformers.configuration_utils import PreTrainedConfig

COMMON = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "max_position_embeddings": 64}
FAMILIES: dict[str, Callable[[int], PreTrainedConfig]] = {
    "opt": lambda size: OPTConfig(
        vocab_size=size, ffn_dim=64, word_embed_proj_dim=16, init_std=0.4, **COMMON
    ),
    "qwen2": lambda size: Qwen2Config(
        vocab_size=size, intermediate_size=64, num_key_value_heads=2, initializer_range=0.4, **COMMON
    ),
    "gemma3": lambda size: Gemma3TextConfig(
        vocab_size=size, intermediate_size=64, num_key_value_heads=1, head_dim=8, sliding_window=6,
        layer_types=["sliding_attention", "full_attention"], initializer_range=0.4, **COMMON,
    ),
    "mistral": lambda size: MistralConfig(
        vocab_size=size, intermediate_size=64, num_key_value_heads=2, sliding_window=5, initializer_range=0.4, **COMMON
    ),
}  # fmt: skip
CAUSAL = ["gpt2", "llama", *FAMILIES]
"""GPT-2, Llama with grouped queries, OPT with projected embeddings, Qwen2, Gemma 3 and Mistral with sliding windows."""


@pytest.fixture(scope="session", params=CAUSAL)
def family(request: pytest.FixtureRequest) -> str:
    """Name of a family of causal models; a test that takes it runs for all of them."""
    return str(request.param)


@pytest.fixture(scope="session")
def causal_folder(tmp_path_factory: pytest.TempPathFactory, tiny_gpt2: Path, tiny_llama: Path) -> Callable[[str], Path]:
    """Folder of a tiny causal model by family, made once."""
    made = {"gpt2": tiny_gpt2, "llama": tiny_llama}

    def folder(family: str) -> Path:
        if family not in made:
            tokenizer = AutoTokenizer.from_pretrained(tiny_gpt2)
            config = FAMILIES[family](len(tokenizer))
            config.pad_token_id = tokenizer.pad_token_id
            config.bos_token_id = config.eos_token_id = tokenizer.eos_token_id
            torch.manual_seed(4)
            made[family] = tmp_path_factory.mktemp(f"tiny-{family}")
            AutoModelForCausalLM.from_config(config).save_pretrained(made[family])
            tokenizer.save_pretrained(made[family])
        return made[family]

    return folder
