"""Transformers whose circuits are known: compiled from programs, or made so by hand."""

from __future__ import annotations

from typing import Any

import torch

import weightspace as ws
from tests.transformers.hand_made import GPT2, LLAMA, gpt2_arrays, llama_arrays
from weightspace.decompiler.lens import weights
from weightspace.rasp.compiler.transformer import CompiledTransformer
from weightspace.transformers.loading import load_trained
from weightspace.transformers.trained import TrainedTransformer

CLEAN = torch.tensor([[0, 3, 5, 1, 1], [6, 2, 4, 0, 3], [5, 5, 2, 1, 6]])
CORRUPTED = torch.tensor([[2, 3, 1, 1, 4], [6, 0, 0, 2, 5], [1, 4, 3, 3, 2]])


def gpt2(**changed: Any) -> TrainedTransformer:
    """Three layers of two heads."""
    config = GPT2 | changed
    return load_trained(gpt2_arrays(config), config=config)


def llama() -> TrainedTransformer:
    """Two layers of four heads in groups of two."""
    return load_trained(llama_arrays(LLAMA), config=LLAMA)


def linear_heads() -> TrainedTransformer:
    """Two layers of two heads, without norms and MLPs, so that the logits are linear in what heads write."""
    rng = torch.Generator().manual_seed(0)

    def drawn(*shape: int) -> torch.Tensor:
        return 0.4 * torch.randn(*shape, generator=rng)

    arrays = {"embed.W_E": drawn(7, 8), "pos_embed.W_pos": drawn(10, 8), "unembed.W_U": drawn(8, 7)}
    for layer in range(2):
        arrays |= {f"blocks.{layer}.attn.W_{letter}": drawn(2, 8, 4) for letter in "QKV"}
        arrays[f"blocks.{layer}.attn.W_O"] = drawn(2, 4, 8)
    return load_trained(arrays, config={"normalization_type": None})


def compiled(text: str, vocab: str, longest: int) -> tuple[TrainedTransformer, CompiledTransformer]:
    """A program's transformer, read as if somebody had trained it."""
    program = ws.compile_program(text, vocab=vocab, max_seq_len=longest)
    config = {"act_fn": "relu", "normalization_type": None, "attention_dir": "bidirectional"}
    return load_trained(weights(program), config=config), program
