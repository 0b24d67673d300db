"""What a transformer is besides its weights: sizes, norms, activation, positions."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

NormKind = Literal["layer", "rms", "scale", "none"]
"""LayerNorm; RMSNorm; LayerNorm whose gain and shift were folded into what reads it; nothing."""


@dataclass(frozen=True)
class Rotary:
    """Rotary positions (RoPE): pairs of a query's and a key's numbers are turned by an angle that grows with the place.

    Attributes:
        base: the slowest pair turns by about 1 / base per place.
        size: how many numbers of a head are turned, an even number; the rest stays.
        neighbours: numbers 0 and 1 make a pair, 2 and 3 ...; else 0 and size / 2, 1 and size / 2 + 1 ...
        linear: angles are divided by it.
        llama3: (factor, low, high, original positions) of Llama 3's scaling, or None.
    """

    base: float
    size: int
    neighbours: bool = False
    linear: float = 1.0
    llama3: tuple[float, float, float, float] | None = None

    def frequencies(self) -> Float[Tensor, " pairs"]:
        """By which angle each pair turns from one place to the next, in radians: (size / 2,)."""
        plain = self.base ** (-torch.arange(0, self.size, 2, dtype=torch.float32) / self.size)
        if self.llama3 is None:
            return plain / self.linear
        factor, low, high, original = self.llama3
        turns = original * plain / (2 * math.pi)  # that a pair makes over the positions of the original model
        kept = ((turns - low) / (high - low)).clamp(0, 1)
        return plain * (kept + (1 - kept) / factor)


@dataclass(frozen=True)
class TransformerShape:
    """Sizes and settings of a transformer.

    Attributes:
        family: how its arrays are named: gpt2, llama, qwen2, mistral, bert, transformer_lens.
        vocabulary: tokens that it reads.
        outputs: logits at each place; 0 if it has none.
        positions: longest input.
        width: of the residual stream.
        heads, key_heads: query heads of a layer, and key-value heads that groups of them share.
        head_size: numbers of a query, a key and a value.
        hidden: units of a layer's MLP; 0 if it has none.
        gated: whether the MLP multiplies its activated units with a second projection.
        norm_first: each half-layer reads a normalised stream, and the last stream is normalised; else (BERT) the
            stream is normalised after each half-layer.
        scale: scores are queries times keys times this.
        causal: whether a place sees only itself and what is before it.
        rotary: None for learned positions.
    """

    family: str
    vocabulary: int
    outputs: int
    positions: int
    width: int
    layers: int
    heads: int
    key_heads: int
    head_size: int
    hidden: int
    activation: str
    norm: NormKind
    epsilon: float
    scale: float
    gated: bool = False
    norm_first: bool = True
    causal: bool = True
    rotary: Rotary | None = None
    scale_by_layer: bool = False
    """Whether the scores of layer l are divided by l + 1, too (a setting of GPT-2)."""

    @property
    def group(self) -> int:
        """Query heads to a key-value head."""
        return self.heads // self.key_heads
