"""A network leaf by leaf: chunks attend to each other in windows, windows make a vector of their leaf."""

from __future__ import annotations

from functools import lru_cache

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from weightspace.metamodels.config import MetaModelConfig
from weightspace.metamodels.embed import Embedding, Normaliser, TokenBatch, leaf_kinds, squash
from weightspace.metamodels.encoder import Encoder
from weightspace.weights.chunks import check_chunk_size, token_count
from weightspace.weights.spec import NetworkSpec


@lru_cache(maxsize=4096)
def _places(spec: NetworkSpec, size: int, window: int) -> Int[Tensor, "w 2"]:
    """For each window the number of its leaf, and how many chunks it has."""
    places = []
    for number, leaf in enumerate(spec.leaves):
        chunks = token_count(leaf.size, size)
        places += [(number, min(window, chunks - first)) for first in range(0, chunks, window)]
    return torch.tensor(places)


def cut(x: Float[Tensor, "b n"], length: int) -> Float[Tensor, "b w length"]:
    """Weights in parts of `length`, the last one padded with zeros."""
    count = token_count(x.shape[1], length)
    return F.pad(x, (0, count * length - x.shape[1])).unflatten(1, (count, length))


def leaf_tokens(
    weights: Float[Tensor, "b n"], spec: NetworkSpec, normaliser: Normaliser, size: int, window: int
) -> TokenBatch:
    """Networks of one spec as windows: `window` chunks of `size` weights, each of one leaf alone.

    Args:
        weights: (b, spec.size).
    """
    check_chunk_size(size)
    mean, deviation = normaliser.columns(spec)
    x = squash((weights - mean) / deviation)
    values = torch.cat([cut(x[:, place], size * window) for _, place in spec.slices()], 1)
    places = _places(spec, size, window)
    kinds = leaf_kinds(spec)[places[:, 0]]
    mask = torch.ones(values.shape[:2], dtype=torch.bool)
    many = (len(x), -1, -1)
    return TokenBatch(values, mask, kinds.expand(many), places=places.expand(many))


class LeafEmbedding(nn.Module):
    """Windows of chunks to one vector a leaf, linear in the number of weights.

    A chunk is embedded as in the paper's reading, with its place in the window for a position, and attends to the other
    chunks of its window. The vector of a leaf is a linear map of mean and largest value of each number over its chunks:
    both can be gathered window by window, so that a leaf larger than memory has the same vector as one in memory.

    Args:
        config: of which `chunk_size`, `width`, `window`, `window_depth`, `heads`, `dropout`, `embedding` and
            `layer_encoding` are read.
    """

    def __init__(self, config: MetaModelConfig) -> None:
        super().__init__()
        width, self.size, self.window = config.width, config.chunk_size, config.window
        self.chunks = Embedding(self.size, width, config.window, config.layer_encoding, config.embedding)
        self.encoder = Encoder(width, config.window_depth, config.heads, False, config.dropout)
        self.leaf = nn.Linear(2 * width, width)

    def gather(
        self, values: Float[Tensor, "w v"], counts: Int[Tensor, " w"], kinds: Float[Tensor, "w k"]
    ) -> tuple[Float[Tensor, "w d"], Float[Tensor, "w d"]]:
        """Sum, and largest value of each number, over the chunks of each window.

        Args:
            values: windows of up to `config.window` chunks.
            counts: how many of the chunks are there; in windows of none the results are 0 and minus infinity.
        """
        chunks = values.unflatten(1, (-1, self.size))  # (w, c, size)
        places = torch.arange(chunks.shape[1], device=values.device)
        there = places < counts[:, None]  # (w, c)
        x = self.chunks(TokenBatch(chunks, there, kinds[:, None].expand(-1, chunks.shape[1], -1)))
        # An empty window looks at its first chunk, as attention to nothing is NaN
        x = self.encoder(x, places < counts[:, None].clamp(min=1))  # (w, c, d)
        return x.masked_fill(~there[..., None], 0).sum(1), x.masked_fill(~there[..., None], -torch.inf).amax(1)

    def vectors(
        self, sums: Float[Tensor, "b l d"], largest: Float[Tensor, "b l d"], counts: Int[Tensor, "b l"]
    ) -> Float[Tensor, "b l d"]:
        """The vector of each leaf, from what `gather` says of all its windows and the number of its chunks."""
        return self.leaf(torch.cat([sums / counts[..., None].clamp(min=1), largest], 2))

    def forward(self, tokens: TokenBatch) -> tuple[Float[Tensor, "b l d"], Bool[Tensor, "b l"]]:
        """Vectors of the leaves of each network, and a mask that is False where it has fewer than another."""
        assert tokens.places is not None
        number, counts = tokens.places.unbind(2)  # (b, w)
        b, w = number.shape
        sums, largest = (
            x.unflatten(0, (b, w))
            for x in self.gather(tokens.values.flatten(0, 1), counts.flatten(), tokens.kinds.flatten(0, 1))
        )
        leaves = int(number.max()) + 1
        every = number[..., None].expand_as(sums)
        total = sums.new_zeros(b, leaves, sums.shape[2]).scatter_add(1, every, sums)
        most = largest.new_full(total.shape, -torch.inf).scatter_reduce(1, every, largest, "amax")
        chunks = counts.new_zeros(b, leaves).scatter_add(1, number, counts)
        mask = chunks > 0
        return self.vectors(total, most.masked_fill(~mask[..., None], 0), chunks), mask
