"""Tokens: flat weights cut into chunks of equal size, and the exact way back (Langosco et al., Figure 1)."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from weightspace.weights.spec import NetworkSpec

CHUNK_SIZES = (8, 1024)
"""Smallest and largest chunk (Figure 1: "from 8-1024 depending on the size of the base model")."""


def check_chunk_size(size: int) -> None:
    """Raise a ValueError unless `size` is a whole number from 8 to 1024."""
    low, high = CHUNK_SIZES
    if not low <= size <= high:
        raise ValueError(f"a chunk of {size} weights was asked for: choose from {low} to {high}")


def token_count(weights: int, size: int) -> int:
    """Number of tokens that `weights` weights make in chunks of `size`: ceil(weights / size)."""
    return -(-weights // size)


def chunk(
    weights: Float[Tensor, "*batch n"], size: int
) -> tuple[Float[Tensor, "*batch t size"], Bool[Tensor, "t size"]]:
    """Cut flat weights into tokens, zero-padding the last (Langosco et al., Figure 1).

    Args:
        weights: flat weights in `NetworkSpec` leaf order.
        size: weights per token, 8 to 1024.
    Returns:
        tokens (..., ceil(n / size), size), and a mask (ceil(n / size), size) that is False on padding.
    Raises:
        ValueError: on no weights at all, or a size outside 8 to 1024.
    """
    check_chunk_size(size)
    n = weights.shape[-1]
    if n == 0:
        raise ValueError("there are no weights to cut into chunks: the network is empty")
    count = token_count(n, size)
    padded = torch.nn.functional.pad(weights, (0, count * size - n))
    mask = torch.arange(count * size, device=weights.device) < n
    return padded.unflatten(-1, (count, size)), mask.unflatten(0, (count, size))


def unchunk(tokens: Float[Tensor, "*batch t size"], mask: Bool[Tensor, "t size"]) -> Float[Tensor, "*batch n"]:
    """The flat weights that `chunk` cut into `tokens`: its exact inverse."""
    return tokens.flatten(-2)[..., mask.flatten()]


def leaf_composition(spec: NetworkSpec, size: int) -> Float[Tensor, "t leaves"]:
    """Which share of each token comes from which leaf, for encodings of leaf and layer.

    Args:
        size: weights per token, 8 to 1024.
    Returns:
        (tokens, leaves), each row summing to 1 over the token's own weights; padding does not count.
    """
    check_chunk_size(size)
    count = token_count(spec.size, size)
    starts = torch.arange(count) * size  # (t,)
    ends = (starts + size).clamp(max=spec.size)
    offsets = torch.tensor(spec.offsets)  # (leaves + 1,)
    overlap = torch.minimum(ends[:, None], offsets[None, 1:]) - torch.maximum(starts[:, None], offsets[None, :-1])
    return overlap.clamp(min=0).float() / (ends - starts)[:, None]
