"""Small random transformers of each family, saved as Hugging Face saves them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

SMALL: dict[str, Any] = {
    "gpt2": ("GPT2Config", {"n_embd": 24, "n_head": 3, "n_layer": 2, "n_positions": 20, "vocab_size": 13}),
    "gpt2-untied": (
        "GPT2Config",
        {
            "n_embd": 24,
            "n_head": 3,
            "n_layer": 2,
            "n_positions": 20,
            "vocab_size": 13,
            "n_inner": 20,
            "tie_word_embeddings": False,
            "activation_function": "relu",
            "scale_attn_by_inverse_layer_idx": True,
        },
    ),
}
_LLAMA = {
    "hidden_size": 24,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "num_hidden_layers": 2,
    "intermediate_size": 20,
    "vocab_size": 13,
    "max_position_embeddings": 32,
}
_LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 100.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16,
}
_LINEAR = {"rope_type": "linear", "factor": 2.0, "rope_theta": 500.0}
SMALL |= {
    "llama": ("LlamaConfig", _LLAMA),
    "llama-tied-biased": (
        "LlamaConfig",
        _LLAMA | {"tie_word_embeddings": True, "attention_bias": True, "mlp_bias": True, "head_dim": 8},
    ),
    "llama-linear": (
        "LlamaConfig",
        _LLAMA | {"rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 500.0}},
    ),
    "llama3": ("LlamaConfig", _LLAMA | {"head_dim": 16, "rope_parameters": _LLAMA3}),
    "mistral": ("MistralConfig", _LLAMA | {"sliding_window": None}),
    "qwen2": ("Qwen2Config", _LLAMA),
    "bert": (
        "BertConfig",
        {
            "hidden_size": 24,
            "num_attention_heads": 3,
            "num_hidden_layers": 2,
            "intermediate_size": 20,
            "vocab_size": 13,
            "max_position_embeddings": 20,
        },
    ),
}
"""Class of the configuration, and its settings."""


def random_model(name: str, seed: int = 0) -> Any:
    """A model of Hugging Face's with weights that are large enough to matter."""
    reason = "transformers is not installed: pip install 'weightspace[dev]'"
    transformers = pytest.importorskip("transformers", reason=reason)
    kind, settings = SMALL[name]
    config = getattr(transformers, kind)(**settings, bos_token_id=1, eos_token_id=2)
    of = transformers.AutoModel if name == "bert" else transformers.AutoModelForCausalLM
    torch.manual_seed(seed)
    model = of.from_config(config, attn_implementation="eager").eval()
    for parameter in model.parameters():
        parameter.data += 0.3 * torch.randn_like(parameter)
    return model


def saved(name: str, folder: Path, **options: Any) -> Any:
    """A random model, saved into a folder."""
    model = random_model(name)
    model.save_pretrained(folder, **options)
    return model
