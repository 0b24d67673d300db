"""Llamas written as llama.cpp's converter writes them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

LAYER = {
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}


def permuted(rows: np.ndarray, heads: int) -> np.ndarray:
    """`LlamaModel.permute` of llama.cpp's convert_hf_to_gguf.py."""
    return rows.reshape(heads, 2, rows.shape[0] // heads // 2, *rows.shape[1:]).swapaxes(1, 2).reshape(rows.shape)


def write_gguf(model: Any, path: Path, architecture: str, **changed: int) -> None:
    """A Llama or Qwen2 of Hugging Face's as GGUF, some keys changed."""
    gguf = pytest.importorskip("gguf", reason="gguf is not installed: pip install 'weightspace[gguf]'")
    c = model.config
    writer = gguf.GGUFWriter(path, architecture)
    said = {
        "block_count": c.num_hidden_layers,
        "context_length": c.max_position_embeddings,
        "embedding_length": c.hidden_size,
        "feed_forward_length": c.intermediate_size,
        "attention.head_count": c.num_attention_heads,
        "attention.head_count_kv": c.num_key_value_heads,
        "rope.dimension_count": c.hidden_size // c.num_attention_heads,
        **changed,
    }
    for name, value in said.items():
        writer.add_uint32(f"{architecture}.{name}", value)
    writer.add_float32(f"{architecture}.attention.layer_norm_rms_epsilon", c.rms_norm_eps)
    writer.add_float32(f"{architecture}.rope.freq_base", c.rope_parameters["rope_theta"])
    writer.add_array("tokenizer.ggml.tokens", [f"token {number}" for number in range(c.vocab_size)])
    for name, tensor in model.state_dict().items():
        array = np.ascontiguousarray(tensor.numpy())
        if architecture == "llama" and ".q_proj" in name:
            array = permuted(array, c.num_attention_heads)
        if architecture == "llama" and ".k_proj" in name:
            array = permuted(array, c.num_key_value_heads)
        writer.add_tensor(_name(name), np.ascontiguousarray(array))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _name(name: str) -> str:
    if name.startswith("model.layers."):
        _, _, number, rest = name.split(".", 3)
        what, _, kind = rest.rpartition(".")
        return f"blk.{number}.{LAYER[what]}.{kind}"
    ends = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}
    return f"{ends[name.removesuffix('.weight')]}.weight"
