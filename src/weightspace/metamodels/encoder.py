"""The transformer: pre-norm layers of attention and GELU MLPs, causal or not, with padding masked."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F


class Attention(nn.Module):
    """Multi-head self-attention."""

    def __init__(self, width: int, heads: int, causal: bool) -> None:
        super().__init__()
        self.heads, self.causal = heads, causal
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def forward(self, x: Float[Tensor, "b t d"], mask: Bool[Tensor, "b 1 1 t"] | None) -> Float[Tensor, "b t d"]:
        b, t, d = x.shape
        q, k, v = self.qkv(x).view(b, t, 3, self.heads, d // self.heads).permute(2, 0, 3, 1, 4)  # (b, heads, t, d/h)
        if self.causal and mask is not None:
            mask = mask & torch.ones(t, t, dtype=torch.bool, device=x.device).tril()
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=self.causal and mask is None)
        return self.out(mixed.transpose(1, 2).reshape(b, t, d))


class Layer(nn.Module):
    """x + attention(norm(x)), then x + MLP(norm(x)); the MLP is four times as wide."""

    def __init__(self, width: int, heads: int, causal: bool, dropout: float) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = Attention(width, heads, causal)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Float[Tensor, "b t d"], mask: Bool[Tensor, "b 1 1 t"] | None) -> Float[Tensor, "b t d"]:
        x = x + self.dropout(self.attention(self.norm1(x), mask))
        return x + self.dropout(self.mlp(self.norm2(x)))


class Encoder(nn.Module):
    """A stack of layers and a last norm.

    The maps that write into the residual stream start smaller by sqrt(2 * depth), as in GPT-2, so that its variance
    does not grow with depth.
    """

    def __init__(self, width: int, depth: int, heads: int, causal: bool, dropout: float) -> None:
        super().__init__()
        self.layers = nn.ModuleList(Layer(width, heads, causal, dropout) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        for layer in self.layers:
            assert isinstance(layer, Layer)
            for module in layer.modules():
                if isinstance(module, nn.Linear):
                    nn.init.normal_(module.weight, std=width**-0.5)
                    nn.init.zeros_(module.bias)
            last = layer.mlp[2]
            assert isinstance(last, nn.Linear)
            nn.init.normal_(last.weight, std=(4 * width) ** -0.5 / (2 * depth) ** 0.5)
            nn.init.normal_(layer.attention.out.weight, std=width**-0.5 / (2 * depth) ** 0.5)

    def forward(self, x: Float[Tensor, "b t d"], mask: Bool[Tensor, "b t"] | None = None) -> Float[Tensor, "b t d"]:
        """Args: mask: False on padding; None where there is none, which lets attention take its fastest path."""
        padded = None if mask is None else mask[:, None, None, :]
        for layer in self.layers:
            x = layer(x, padded)
        return self.norm(x)
