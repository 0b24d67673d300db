"""A network as the graph of its neurons: messages along its weights, whatever the order of neurons."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from math import prod
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from weightspace.metamodels.contract import Examples, UnfitError
from weightspace.metamodels.embed import Normaliser, layer_numbers, squash
from weightspace.metamodels.learner import Learner
from weightspace.train.config import TrainingConfig
from weightspace.weights.neurons import VECTORS
from weightspace.weights.population import Population
from weightspace.weights.spec import NetworkSpec

PLACES = 49
"""Places of a kernel that an edge has room for: 7x7, or the pixels of a flattened map; further ones are left out."""
TINY = 1e-12
"""Added below a square root, whose slope at 0 is infinite."""
LAYERS = 16
"""Layers that are told apart; deeper ones share the last."""


@dataclass(frozen=True)
class GroupEdges:
    """The weights between two groups of neurons.

    Attributes:
        into, out_of: positions of the groups that are written and read.
        layer: number of the layer.
        entries: (written, read, places) of flat weights.
    """

    into: int
    out_of: int
    layer: int
    entries: Tensor


@dataclass(frozen=True)
class GroupGraph:
    """What the reader needs of a spec: its groups, the edges between them, and the vectors of each group.

    Attributes:
        sizes: neurons of each group.
        edges: of every kernel.
        vectors: for each group pairs of a slot and the entries (neurons,) of flat weights that fill it.
    """

    sizes: tuple[int, ...]
    edges: tuple[GroupEdges, ...]
    vectors: tuple[tuple[tuple[int, Tensor], ...], ...]


@lru_cache(maxsize=1024)
def graph_of(spec: NetworkSpec) -> GroupGraph:
    """The graph of a spec.

    Raises:
        UnfitError: if a kernel does not lead from one group of neurons to another.
    """
    numbers = {group.name: number for number, group in enumerate(spec.groups)}
    edges: list[GroupEdges] = []
    sizes = [group.size for group in spec.groups]
    vectors: list[list[tuple[int, Tensor]]] = [[] for _ in spec.groups]
    for (leaf, place), layer in zip(spec.slices(), layer_numbers(spec), strict=True):
        entries = np.arange(place.start, place.stop).reshape(leaf.shape)
        if leaf.role == "kernel":
            ends = [axis.segments[0][0] for axis in leaf.axes[:2] if len(axis.segments) == 1]
            if len(ends) != 2 or ends[0].group is None:
                raise UnfitError(f"array {leaf.name!r} does not lead from one group of neurons to another")
            rest = prod(leaf.shape) // (ends[0].size * ends[1].size)
            shaped = entries.reshape(ends[0].size, ends[1].size, rest)[:, :, :PLACES]
            if "input" not in numbers and ends[1].group is None:  # of a single channel there is no group
                numbers["input"] = len(sizes)
                sizes.append(ends[1].size)
                vectors.append([])
            into, out_of = (numbers[end.group or "input"] for end in ends)
            edges.append(GroupEdges(into, out_of, min(layer, LAYERS - 1), torch.from_numpy(shaped.copy())))
        elif leaf.role in VECTORS and leaf.axes and leaf.axes[0].groups:
            factors = leaf.axes[0].segments[0]
            own = entries.reshape(factors[0].size, -1)[:, 0]
            vectors[numbers[leaf.axes[0].groups[0]]].append((VECTORS.index(leaf.role), torch.from_numpy(own.copy())))
    return GroupGraph(tuple(sizes), tuple(edges), tuple(map(tuple, vectors)))


@dataclass(frozen=True)
class Graphs:
    """A batch of networks: for each spec its graph, standardised weights (n, size), and places (n,) in the batch."""

    parts: tuple[tuple[GroupGraph, Tensor, Tensor], ...]

    def to(self, device: torch.device) -> Graphs:
        return Graphs(tuple((graph, weights.to(device), rows.to(device)) for graph, weights, rows in self.parts))


class GraphNetwork(nn.Module):
    """Rounds of messages along edges that are updated with them, then means and extremes over neurons and edges.

    Args:
        width: of what is known of a neuron, and of an edge.
        rounds: of messages.
        outputs: how many numbers come out.
    """

    def __init__(self, width: int, rounds: int, outputs: int) -> None:
        super().__init__()
        self.edge = nn.Sequential(nn.Linear(PLACES + 2, width), nn.GELU(), nn.Linear(width, width))
        self.node = nn.Linear(len(VECTORS), width)
        self.layer = nn.Embedding(LAYERS, width)
        self.rounds = nn.ModuleList(_Round(width) for _ in range(rounds))
        self.last = nn.Sequential(
            nn.LayerNorm(4 * width), nn.Linear(4 * width, 4 * width), nn.GELU(), nn.Linear(4 * width, outputs)
        )

    def forward(self, graphs: Graphs) -> Float[Tensor, "b outputs"]:
        found = [self._read(graph, weights) for graph, weights, _ in graphs.parts]
        rows = torch.cat([rows for _, _, rows in graphs.parts])
        return self.last(torch.cat(found)[rows.argsort()])

    def _read(self, graph: GroupGraph, weights: Float[Tensor, "n size"]) -> Float[Tensor, "n k"]:
        nodes = []
        for size, vectors in zip(graph.sizes, graph.vectors, strict=True):
            known = weights.new_zeros(len(weights), size, len(VECTORS))
            for slot, entries in vectors:
                known[:, :, slot] = known[:, :, slot] + weights[:, entries.to(weights.device)]
            nodes.append(self.node(known))
        edges = []
        for one in graph.edges:
            values = weights[:, one.entries.to(weights.device)]  # (n, written, read, places)
            whole = torch.stack(
                [values.mean(3), (values.square().mean(3) + TINY).sqrt()], 3
            )  # of the places that are seen
            padded = torch.cat([whole, nn.functional.pad(values, (0, PLACES - values.shape[3]))], 3)
            edges.append(self.edge(padded) + self.layer.weight[one.layer])
        for step in self.rounds:
            nodes, edges = step(graph, nodes, edges)
        neurons = torch.cat(nodes, 1)
        pooled = torch.stack([edge.mean((1, 2)) for edge in edges], 1)  # each layer counts alike
        return torch.cat([neurons.mean(1), neurons.amax(1), pooled.mean(1), pooled.amax(1)], 1)


class _Round(nn.Module):
    """Edges learn of the neurons at their ends, and neurons of the edges at theirs."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm_edge, self.norm_node = nn.LayerNorm(width), nn.LayerNorm(width)
        self.own, self.written, self.read = (nn.Linear(width, width) for _ in range(3))
        self.back = nn.Linear(width, width)
        self.update = nn.Sequential(nn.Linear(3 * width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))

    def forward(self, graph: GroupGraph, nodes: list[Tensor], edges: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        reads: list[list[Tensor]] = [[] for _ in nodes]
        given: list[list[Tensor]] = [[] for _ in nodes]
        known = [self.norm_node(node) for node in nodes]
        later = []
        for one, edge in zip(graph.edges, edges, strict=True):
            written, read = self.written(known[one.into])[:, :, None], self.read(known[one.out_of])[:, None]
            edge = edge + self.back(nn.functional.gelu(self.own(self.norm_edge(edge)) + written + read))
            reads[one.into].append(edge.mean(2))
            given[one.out_of].append(edge.mean(1))
            later.append(edge)
        found = []
        for node, own, read, written in zip(nodes, known, reads, given, strict=True):
            heard = [torch.stack(some).mean(0) if some else torch.zeros_like(own) for some in (read, written)]
            found.append(node + self.update(torch.cat([own, *heard], 2)))
        return found, later


class NeuralGraph(Learner):
    """A graph metanetwork in the manner of Lim et al. (2023) and Kofinas et al. (2024), small.

    Neurons are nodes with their bias and norms, weights are edges with all places of their kernel; what it answers does
    not depend on the order of neurons. Of kernels only the first 49 places are seen.

    Args:
        training: how it is trained.
        width: of what is known of a neuron, and of an edge.
        rounds: of messages.
    """

    name = "neural graph"

    def __init__(
        self,
        training: TrainingConfig,
        *,
        width: int = 16,
        rounds: int = 3,
        folder: str | Path | None = None,
        show: bool = False,
    ) -> None:
        super().__init__(training, folder=folder, show=show)
        self.width, self.rounds = width, rounds

    def settings(self) -> str:
        return f"{self.name} {self.width} {self.rounds}"

    def build(self, training: Examples, validation: Examples) -> nn.Module:  # noqa: ARG002
        self.normaliser = Normaliser.fit(training.networks, True, self.training.seed)
        return GraphNetwork(self.width, self.rounds, sum(self.answering.sizes))

    def read(self, networks: Population, generator: torch.Generator | None) -> Graphs:  # noqa: ARG002
        parts = []
        for spec, positions in networks.groups():
            mean, deviation = self.normaliser.columns(spec)
            weights = squash((torch.from_numpy(networks.read(positions)) - mean) / deviation)
            parts.append((graph_of(spec), weights, torch.from_numpy(positions)))
        return Graphs(tuple(parts))
