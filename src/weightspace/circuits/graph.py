"""A transformer as a graph: what writes into its residual stream, what reads it, and which edges there can be."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Bool
from torch import Tensor

from weightspace.errors import NetworkError
from weightspace.transformers.shape import TransformerShape


@dataclass(frozen=True)
class Graph:
    """Nodes and possible edges, named as in MIB and EAP-IG: input, a0.h1, m0, logits; input->a0.h1<q>, a0.h1->m0.

    Attributes:
        layers, heads: of the transformer; every head reads by its query, its key and its value.
        width: of the residual stream.
        mlps: whether layers have MLPs.
    """

    layers: int
    heads: int
    width: int
    mlps: bool = True

    @classmethod
    def of(cls, shape: TransformerShape) -> Graph:
        """The graph of a transformer.

        Raises:
            NetworkError: if its stream is normalised after each half-layer, so that it is no sum of what nodes write.
        """
        if not shape.norm_first:
            raise NetworkError(
                f"the stream of {shape.family} is no sum of what its parts write: circuits need that it is"
            )
        return cls(shape.layers, shape.heads, shape.width, shape.hidden > 0)

    @cached_property
    def sources(self) -> tuple[str, ...]:
        """Nodes that write, in the order of the forward pass: 1 + layers * (heads + 1)."""
        names = ["input"]
        for layer in range(self.layers):
            names += [f"a{layer}.h{head}" for head in range(self.heads)] + ([f"m{layer}"] if self.mlps else [])
        return tuple(names)

    @cached_property
    def targets(self) -> tuple[str, ...]:
        """What nodes read by: layers * (3 * heads + 1) + 1."""
        names = []
        for layer in range(self.layers):
            names += [f"a{layer}.h{head}<{letter}>" for letter in "qkv" for head in range(self.heads)]
            names += [f"m{layer}"] if self.mlps else []
        return (*names, "logits")

    @cached_property
    def real(self) -> Bool[Tensor, "sources targets"]:
        """Which edges there are: from what is written before something is read."""
        seen = torch.tensor([self.written_before(target) for target in range(len(self.targets))])
        return torch.arange(len(self.sources))[:, None] < seen[None, :]

    @cached_property
    def belongs(self) -> Bool[Tensor, "sources targets"]:
        """By which targets each source reads itself."""
        owner = [target.split("<")[0] for target in self.targets]
        return torch.tensor([[each == source for each in owner] for source in self.sources])

    @property
    def edges(self) -> int:
        """How many edges there are."""
        return int(self.real.sum())

    def written_before(self, target: int) -> int:
        """How many sources have written before a target reads; they are the first ones."""
        name = self.targets[target]
        if name == "logits":
            return len(self.sources)
        layer, step = int(name[1:].split(".")[0]), self.heads + self.mlps
        return 1 + layer * step + (self.heads if name.startswith("m") else 0)

    def edge(self, name: str) -> tuple[int, int]:
        """Numbers of source and target of an edge, such as `input->a0.h1<q>`.

        Raises:
            NetworkError: if there is no such edge.
        """
        source, _, target = name.partition("->")
        if source not in self._source_numbers or target not in self._target_numbers:
            raise NetworkError(
                f"there is no edge {name!r}: edges are such as input->a0.h1<q>, a0.h1->m0 and m0->logits"
            )
        found = self._source_numbers[source], self._target_numbers[target]
        if not self.real[found]:
            raise NetworkError(f"there is no edge {name!r}: {target} reads before {source} has written")
        return found

    def name(self, source: int, target: int) -> str:
        """What an edge is called."""
        return f"{self.sources[source]}->{self.targets[target]}"

    def mask(self, edges: Iterable[str]) -> Bool[Tensor, "sources targets"]:
        """Some edges, by name."""
        made = torch.zeros_like(self.real)
        for name in edges:
            made[self.edge(name)] = True
        return made

    def source(self, name: str) -> int:
        """The number of a node that writes.

        Raises:
            NetworkError: if there is none of that name.
        """
        if name not in self._source_numbers:
            raise NetworkError(f"there is no node {name!r} that writes: known are {', '.join(self.sources[:6])} ...")
        return self._source_numbers[name]

    @cached_property
    def _source_numbers(self) -> dict[str, int]:
        return {name: number for number, name in enumerate(self.sources)}

    @cached_property
    def _target_numbers(self) -> dict[str, int]:
        return {name: number for number, name in enumerate(self.targets)}
