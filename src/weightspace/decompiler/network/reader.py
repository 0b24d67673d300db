"""The reader: messages along the edges of a transformer's graph, the same whatever its parts are called."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from weightspace.decompiler.network.batch import GraphBatch
from weightspace.decompiler.network.graph import ANCHORS, MOST_LAYERS


def _large(weights: Tensor) -> Tensor:
    """A number of any size on a scale on which it can be read."""
    return torch.asinh(weights) / 3


def _small(weights: Tensor) -> Tensor:
    """Small numbers alone: a factor of 3 is not heard beside the hundreds of a numerical step."""
    return weights / 2 * torch.exp(-((weights / 6) ** 2))


class Edges:
    """The edges of a batch, each matrix in several scales, since its entries are 1, or hundreds.

    Attributes:
        first: scales of (b, d, u), second: of (b, u, d), scores and moves: of (b, h, d, d).
        mass: (b, h, 4, d) how strongly a head reads a direction as query, as key, moves it, and writes it.
    """

    def __init__(self, g: GraphBatch) -> None:
        self.first = [g.first.clamp(-1.5, 1.5), (g.first / 100).clamp(-4, 4), _large(g.first), _small(g.first)]
        self.second = [g.second.clamp(-1.5, 1.5), (g.second / 4).clamp(-3, 3)]
        self.scores = [g.scores.clamp(-1.5, 1.5), _large(g.scores)]
        self.moves = [g.moves.clamp(-1.5, 1.5)]
        scores, moves = self.scores[0].abs(), self.moves[0].abs()
        self.mass = torch.stack([scores.amax(3), scores.amax(2), moves.amax(3), moves.amax(2)], 2)


class Message(nn.Module):
    """What a kind of nodes says along one matrix, in each of its scales."""

    def __init__(self, width: int, size: int, scales: int) -> None:
        super().__init__()
        self.size = size
        self.content = nn.Linear(width, size * scales)

    def forward(self, edges: list[Tensor], nodes: Tensor) -> Tensor:
        """Args: edges: (b, to, from) each; nodes: (b, from, width). Returns: (b, to, size * scales)"""
        said = self.content(nodes).split(self.size, -1)
        return torch.cat([edge @ part for edge, part in zip(edges, said, strict=True)], -1)


class Update(nn.Module):
    """x + what was heard, then x + MLP(norm(x))."""

    def __init__(self, width: int, heard: int) -> None:
        super().__init__()
        self.heard, self.norm0, self.norm = nn.Linear(heard, width), nn.LayerNorm(heard), nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.Linear(width, width))

    def forward(self, x: Tensor, heard: Tensor) -> Tensor:
        x = x + self.heard(self.norm0(heard))
        return x + self.mlp(self.norm(x))


class Round(nn.Module):
    """Units hear directions, heads hear directions, directions hear both, and each other through heads."""

    def __init__(self, width: int, size: int) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(5))
        self.unit_reads, self.unit_writes = Message(width, size, 4), Message(width, size, 2)
        self.units = Update(width, 6 * size)
        self.head_hears = nn.Linear(width, 4 * size)
        self.heads = Update(width, 4 * size)
        self.read_by, self.written_by = Message(width, size, 4), Message(width, size, 2)
        self.queries, self.keys = nn.Linear(width, 2 * size), nn.Linear(width, 2 * size)
        self.sources, self.results = nn.Linear(width, size), nn.Linear(width, size)
        self.head_says = nn.ModuleList(nn.Linear(width, size) for _ in range(4))
        self.directions = Update(width, 16 * size)
        self.size = size

    def forward(self, e: Edges, d: Tensor, u: Tensor, h: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        size = self.size
        nd = self.norms[0](d)
        first = [edge.transpose(1, 2) for edge in e.first]
        second = [edge.transpose(1, 2) for edge in e.second]
        u = self.units(u, torch.cat([self.unit_reads(first, nd), self.unit_writes(e.second, nd)], -1))
        said = self.head_hears(nd).unflatten(-1, (4, size))  # (b, d, 4, size)
        h = self.heads(h, torch.einsum("bhkd,bdks->bhks", e.mass, said).flatten(2))
        nu, nh = self.norms[1](u), self.norms[2](h)
        heard = [self.read_by(e.first, nu), self.written_by(second, nu)]
        asked, keyed = self.queries(nd).split(size, -1), self.keys(nd).split(size, -1)
        source, result = self.sources(nd), self.results(nd)
        own = [says(nh)[:, :, None] for says in self.head_says]  # (b, h, 1, size): which head it is that speaks
        for scores, query, key in zip(e.scores, asked, keyed, strict=True):
            heard.append((scores @ (key[:, None] + own[0])).sum(1))
            heard.append((scores.transpose(2, 3) @ (query[:, None] + own[1])).sum(1))
        moves = e.moves[0]
        heard.append((moves @ (result[:, None] + own[2])).sum(1))
        heard.append((moves.transpose(2, 3) @ (source[:, None] + own[3])).sum(1))
        for kind, says in enumerate(own):
            heard.append(torch.einsum("bhd,bhs->bds", e.mass[:, :, kind], says[:, :, 0]))
        d = self.directions(d, torch.cat(heard, -1))
        return d, u, h


class Reader(nn.Module):
    """Weights in, one vector for each direction, hidden unit and head out.

    Equivariant: another order of directions, units or heads gives the same vectors in that order.

    Args:
        width: of a node's vector.
        rounds: of messages.
        size: of a message, in each scale of each matrix.
    """

    def __init__(self, width: int, rounds: int, size: int) -> None:
        super().__init__()
        self.anchors = nn.Linear(ANCHORS, width)
        self.layers = nn.Embedding(2 * MOST_LAYERS, width)
        self.rounds = nn.ModuleList(Round(width, size) for _ in range(rounds))
        self.kinds = nn.Parameter(torch.randn(3, width) * 0.3)
        self.norm = nn.LayerNorm(width)
        for module in self.modules():
            if isinstance(module, Update):
                last = module.mlp[2]
                assert isinstance(last, nn.Linear)
                nn.init.normal_(last.weight, std=width**-0.5 / (2 * rounds) ** 0.5)

    def forward(self, g: GraphBatch) -> tuple[Float[Tensor, "b nodes width"], Bool[Tensor, "b nodes"]]:
        """Vectors of the nodes, and which of them are there."""
        edges = Edges(g)
        d = self.anchors(g.anchors)
        u, h = self.layers(g.unit_layer), self.layers(g.head_layer + MOST_LAYERS)
        for round_ in self.rounds:
            d, u, h = round_(edges, d, u, h)
        return self.norm(torch.cat([d + self.kinds[0], u + self.kinds[1], h + self.kinds[2]], 1)), g.present
