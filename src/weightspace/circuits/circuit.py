"""A circuit: nodes and edges with scores, those that are kept, and MIB's JSON of it."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from weightspace.circuits.graph import Graph
from weightspace.errors import UnreadableError
from weightspace.files.atomic import write_atomically
from weightspace.files.json_text import json_object

LARGEST = 2**29
"""Bytes of a file of JSON that are read; a Llama of 8 billion parameters has 1.6 million edges."""


@dataclass(frozen=True, eq=False)
class Circuit:
    """Scores of all edges of a graph, and which edges are kept.

    Attributes:
        scores: of each edge, 0 where there is none.
        kept: the edges of the circuit.
        node_scores: of each node that writes, or None.
    """

    graph: Graph
    scores: Float[Tensor, "sources targets"]
    kept: Bool[Tensor, "sources targets"]
    node_scores: Float[Tensor, " sources"] | None = None

    @classmethod
    def of(cls, graph: Graph, edges: Iterable[str]) -> Circuit:
        """A circuit of named edges, which have score 1."""
        kept = graph.mask(edges)
        return cls(graph, kept.float(), kept)

    def __repr__(self) -> str:
        return f"<Circuit: {int(self.kept.sum()):,} of {self.graph.edges:,} edges>"

    @property
    def edges(self) -> dict[str, float]:
        """The edges of the circuit with their scores, by name."""
        return {self.graph.name(*place): float(self.scores[tuple(place)]) for place in self.kept.nonzero().tolist()}

    @property
    def nodes(self) -> tuple[str, ...]:
        """The nodes that edges of the circuit leave."""
        return tuple(self.graph.sources[number] for number in self.kept.any(1).nonzero().flatten().tolist())

    def top(self, count: int, *, absolute: bool = True, prune: bool = True) -> Circuit:
        """The circuit of the `count` edges with the highest scores.

        Args:
            absolute: whether the size of a score counts and not its sign.
            prune: whether edges are left out that lead nowhere, or come from a node into which nothing leads.
        """
        scores = (self.scores.abs() if absolute else self.scores).masked_fill(~self.graph.real, -torch.inf)
        order = scores.flatten().argsort(descending=True, stable=True)[: min(count, self.graph.edges)]
        kept = torch.zeros(scores.numel(), dtype=torch.bool)
        kept[order] = True
        return replace(self, kept=self._pruned(kept.view_as(scores)) if prune else kept.view_as(scores))

    def top_nodes(self, count: int, *, absolute: bool = True) -> Circuit:
        """The circuit of the nodes with the highest scores, with every edge between them; the input is always kept."""
        given = self.scores.sum(1) if self.node_scores is None else self.node_scores
        scores = (given.abs() if absolute else given).clone()
        scores[0] = torch.inf
        chosen = torch.zeros(len(scores), dtype=torch.bool)
        chosen[scores.argsort(descending=True, stable=True)[: count + 1]] = True
        return replace(self, kept=self._pruned(self.graph.real & chosen[:, None]))

    def _pruned(self, kept: Bool[Tensor, "sources targets"]) -> Bool[Tensor, "sources targets"]:
        """Without nodes that nothing enters or nothing leaves, until nothing changes (EAP-IG's `Graph.prune`)."""
        belongs = self.graph.belongs
        while True:
            entered = (belongs & kept.any(0)[None, :]).any(1)
            entered[0] = True
            alive = entered & kept.any(1)
            reads = (belongs & alive[:, None]).any(0)
            reads[-1] = True
            smaller = kept & alive[:, None] & reads[None, :]
            if bool((smaller == kept).all()):
                return kept
            kept = smaller

    def to_json(self, path: str | Path) -> None:
        """Write MIB's JSON, which EAP-IG's `Graph.from_json` reads; the file appears whole or not at all."""
        alive = set(self.nodes)
        nodes: dict[str, dict[str, Any]] = {name: {"in_graph": name in alive} for name in self.graph.sources}
        nodes["logits"] = {"in_graph": bool(self.kept[:, -1].any())}
        if self.node_scores is not None:
            for name, score in zip(self.graph.sources, self.node_scores.tolist(), strict=True):
                nodes[name]["score"] = score
        edges = {
            self.graph.name(source, target): {
                "score": float(self.scores[source, target]),
                "in_graph": bool(self.kept[source, target]),
            }
            for source, target in self.graph.real.nonzero().tolist()
        }
        g = self.graph
        cfg = {"n_layers": g.layers, "n_heads": g.heads, "parallel_attn_mlp": False, "d_model": g.width}
        write_atomically(Path(path), json.dumps({"cfg": cfg, "nodes": nodes, "edges": edges}).encode())

    @classmethod
    def from_json(cls, path: str | Path) -> Circuit:
        """Read MIB's JSON; edges that it does not name have score 0 and are not kept.

        Raises:
            UnreadableError: if it cannot be read, or is not of that form.
        """
        said = _object(Path(path))
        try:
            cfg, nodes, edges = said["cfg"], said["nodes"], said["edges"]
            sizes = [cfg[name] for name in ("n_layers", "n_heads", "d_model")]
            if cfg.get("parallel_attn_mlp"):
                raise ValueError("attention and MLP run side by side in its model, which is not read here")
            if not all(isinstance(size, int) and not isinstance(size, bool) and 0 < size < 10**5 for size in sizes):
                raise ValueError(f"its sizes are {sizes}")
            graph = Graph(*sizes, mlps="m0" in nodes)
            made = cls(graph, torch.zeros(graph.real.shape), torch.zeros_like(graph.real), _node_scores(graph, nodes))
            for name, about in edges.items():
                place = graph.edge(name)
                score, kept = about["score"], about["in_graph"]
                made.scores[place] = 0.0 if score is None else float(score)
                made.kept[place] = bool(kept)
        except KeyError as error:
            raise UnreadableError(f"{path} is no circuit of MIB's: it lacks {error}") from None
        except (TypeError, AttributeError):
            raise UnreadableError(f"{path} is no circuit of MIB's: what it says is of another form") from None
        except ValueError as error:
            raise UnreadableError(f"{path} is no circuit of MIB's: {error}") from None
        return made


def _node_scores(graph: Graph, nodes: dict[str, Any]) -> Float[Tensor, " sources"] | None:
    said = {name: about["score"] for name, about in nodes.items() if isinstance(about, dict) and "score" in about}
    return torch.tensor([float(said.get(name, torch.nan)) for name in graph.sources]) if said else None


def _object(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            raw = file.read(LARGEST + 1)
        if len(raw) > LARGEST:
            raise ValueError(f"it is larger than {LARGEST:,} bytes")
        return json_object(raw)
    except OSError as error:
        raise UnreadableError(f"{path} cannot be read: {(error.strerror or str(error)).lower()}") from None
    except ValueError as error:
        raise UnreadableError(f"{path} is no circuit of MIB's: {error}") from None
