"""A reader of weights as they were compiled: messages along the graph, and between directions that stand side by side.

Compilers lay directions out in the order of an S-op's values, which says what no matrix does: whether a table adds or
subtracts. Directions that were shuffled have no such order, and a network of this kind is not for them.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

from weightspace.decompiler.network.batch import GraphBatch
from weightspace.decompiler.network.graph import MOST_LAYERS
from weightspace.decompiler.network.reader import Edges, Reader

MOST_DIRECTIONS = 128
"""Directions that have an encoding of their place; those beyond share the last."""


class Neighbours(nn.Module):
    """x + what the directions before and after say."""

    def __init__(self, width: int, size: int) -> None:
        super().__init__()
        self.norm, self.said, self.heard = nn.LayerNorm(width), nn.Linear(width, 2 * size), nn.Linear(2 * size, width)
        nn.init.normal_(self.heard.weight, std=0.5 * (2 * size) ** -0.5)

    def forward(self, x: Float[Tensor, "b d width"], present: Bool[Tensor, "b d"]) -> Float[Tensor, "b d width"]:
        before, after = (self.said(self.norm(x)) * present[..., None]).chunk(2, -1)
        return x + self.heard(torch.cat([F.pad(before, (0, 0, 1, 0))[:, :-1], F.pad(after, (0, 0, 0, 1))[:, 1:]], -1))


class OrderedReader(Reader):
    """As `Reader`, equivariant to the order of units and heads, but not of directions."""

    def __init__(self, width: int, rounds: int, size: int) -> None:
        super().__init__(width, rounds, size)
        self.places = nn.Embedding(MOST_DIRECTIONS, width)
        self.neighbours = nn.ModuleList(Neighbours(width, size) for _ in range(rounds))
        nn.init.normal_(self.places.weight, std=0.3)

    def forward(self, g: GraphBatch) -> tuple[Float[Tensor, "b nodes width"], Bool[Tensor, "b nodes"]]:
        """Vectors of the nodes, and which of them are there."""
        edges = Edges(g)
        count = g.anchors.shape[1]
        present = g.present[:, :count]
        place = torch.arange(count, device=g.anchors.device).clamp(max=MOST_DIRECTIONS - 1)
        d = self.anchors(g.anchors) + self.places(place)
        u, h = self.layers(g.unit_layer), self.layers(g.head_layer + MOST_LAYERS)
        for round_, neighbours in zip(self.rounds, self.neighbours, strict=True):
            d, u, h = round_(edges, neighbours(d, present), u, h)
        return self.norm(torch.cat([d + self.kinds[0], u + self.kinds[1], h + self.kinds[2]], 1)), g.present
