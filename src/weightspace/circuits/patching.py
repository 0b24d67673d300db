"""Edges patched: a transformer run so that chosen edges carry what another run, or an ablation, would have written."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from weightspace.circuits.graph import Graph
from weightspace.transformers.places import Place, Replacement
from weightspace.transformers.trained import Inputs, TrainedTransformer

Written = Float[Tensor, "batch place sources width"]
"""What every node writes into the stream; sizes of 1 are laid over batch and places."""
Kept = Bool[Tensor, "sources targets"]


def written(transformer: TrainedTransformer, inputs: Inputs) -> Written:
    """What every node writes on some inputs, in the order of `Graph.sources`."""
    graph = Graph.of(transformer.shape)
    places = [place for place, _ in _writers(graph)]
    run = transformer.run(inputs, read=places, logits=False)
    return torch.cat([_by_source(run[place], place) for place in places], 2)


def mean_written(transformer: TrainedTransformer, inputs: Inputs, *, by_place: bool = False) -> Written:
    """The mean of what every node writes, over inputs and, unless `by_place`, over places; padding is left out."""
    _, mask = transformer.encode(inputs)
    found, real = written(transformer, inputs), mask[:, :, None, None].float()
    axes = (0,) if by_place else (0, 1)
    return (found * real).sum(axes, keepdim=True) / real.sum(axes, keepdim=True).clamp(min=1)


def zero_written(transformer: TrainedTransformer) -> Written:
    """Nothing written by any node, (1, 1, sources, width)."""
    graph = Graph.of(transformer.shape)
    return torch.zeros(1, 1, len(graph.sources), graph.width)


def run_circuit(
    transformer: TrainedTransformer,
    inputs: Inputs,
    kept: Kept,
    other: Written,
    *,
    gradients: bool = False,
) -> Float[Tensor, "batch place outputs"]:
    """The logits where every edge outside a circuit carries something else.

    A target reads the stream less what comes over edges that are not kept, plus what `other` says that their sources
    write. So with all edges kept nothing changes, and with none every node reads what it would read in the other run.

    Args:
        kept: the circuit.
        other: what comes over all other edges: `written` of corrupted inputs, `mean_written`, `zero_written`.
    """
    graph = Graph.of(transformer.shape)
    dropped = (graph.real & ~kept).float()
    so_far: list[Tensor] = []  # what sources write now, less what they write in the other run

    def recorded(place: Place, first: int) -> Callable[[Tensor], Tensor]:
        def record(value: Tensor) -> Tensor:
            now = _by_source(value, place)
            so_far.append(now - other[:, :, first : first + now.shape[2]])
            return value

        return record

    def patched(first: int, count: int) -> Callable[[Tensor], Tensor]:
        def patch(value: Tensor) -> Tensor:
            difference = torch.cat(so_far, 2)
            edges = dropped[: difference.shape[2], first : first + count]
            if not edges.any():
                return value
            change = torch.einsum("bpsw,st->bptw", difference, edges)
            return value - (change if value.dim() == 4 else change.squeeze(2))

        return patch

    replace: dict[Place, Replacement] = {}
    for place, first in _writers(graph):
        replace[place] = recorded(place, first)
    for place, first, count in readers(graph):
        replace[place] = patched(first, count)
    return transformer.run(inputs, replace=replace, gradients=gradients).logits


def patch_edges(
    transformer: TrainedTransformer, inputs: Inputs, corrupted: Inputs, edges: Mapping[str, object] | list[str]
) -> Float[Tensor, "batch place outputs"]:
    """Path patching: the logits where some edges carry what their sources write on corrupted inputs of equal length."""
    graph = Graph.of(transformer.shape)
    return run_circuit(transformer, inputs, graph.real & ~graph.mask(edges), written(transformer, corrupted))


def _writers(graph: Graph) -> list[tuple[Place, int]]:
    """The places at which nodes write, and the number of the first node of each."""
    found, number = [(Place("resid_pre", 0), 0)], 1
    for layer in range(graph.layers):
        found.append((Place("result", layer), number))
        number += graph.heads
        if graph.mlps:
            found.append((Place("mlp_out", layer), number))
            number += 1
    return found


def readers(graph: Graph) -> list[tuple[Place, int, int]]:
    """The places at which nodes read, the number of the first target of each, and how many targets it is."""
    found: list[tuple[Place, int, int]] = []
    number = 0
    for layer in range(graph.layers):
        for kind in ("q_input", "k_input", "v_input"):
            found.append((Place(kind, layer), number, graph.heads))
            number += graph.heads
        if graph.mlps:
            found.append((Place("mlp_input", layer), number, 1))
            number += 1
    return [*found, (Place("resid_post", graph.layers - 1), number, 1)]


def _by_source(value: Tensor, place: Place) -> Written:
    return value if place.kind == "result" else value.unsqueeze(2)
