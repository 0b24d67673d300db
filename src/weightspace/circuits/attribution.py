"""Scores of edges: edge attribution patching, with integrated gradients or not, and ACDC's greedy removal."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from weightspace.circuits.circuit import Circuit
from weightspace.circuits.graph import Graph
from weightspace.circuits.patching import Kept, Written, readers, run_circuit, written
from weightspace.errors import NetworkError
from weightspace.transformers.places import Place
from weightspace.transformers.trained import Inputs, TrainedTransformer

Metric = Callable[[Tensor], Tensor]
"""Of logits (batch, place, outputs): a number for each input, (batch,)."""


def edge_attribution(
    transformer: TrainedTransformer, inputs: Inputs, corrupted: Inputs, metric: Metric, *, steps: int = 0
) -> Circuit:
    """How much the metric would change if an edge carried what its source writes on corrupted inputs, to first order.

    Edge attribution patching (EAP, Syed et al. 2023; Nanda 2022): the difference of what a source writes times the
    gradient of the metric at what a target reads, summed over places and width, mean over inputs. With `steps`, EAP-IG
    (Hanna et al. 2024): gradients are the mean over `steps` inputs between the corrupted and the clean embeddings.

    Args:
        inputs, corrupted: pairs of inputs of equal lengths.
        steps: 0 for gradients at the clean inputs alone.
    Returns:
        a circuit of all edges; `top` takes those with the largest scores. A score is the change of the metric from
        clean to corrupted: negative where the edge helps.
    """
    graph = Graph.of(transformer.shape)
    clean, other = written(transformer, inputs), written(transformer, corrupted)
    if clean.shape != other.shape:
        raise NetworkError(
            f"inputs and corrupted inputs are pairs of equal length: {clean.shape[:2]}, {other.shape[:2]}"
        )
    difference = other - clean
    scores = torch.zeros(graph.real.shape)
    # from next to the corrupted embeddings to the clean ones, as in EAP-IG
    shares = [1.0] if steps < 1 else [step / steps for step in range(1, steps + 1)]
    for share in shares:
        start = other[:, :, 0] + share * (clean[:, :, 0] - other[:, :, 0])
        gradients = target_gradients(transformer, inputs, metric, start)
        scores += torch.einsum("bpsw,bptw->st", difference, gradients)
    scores = (scores / (len(shares) * len(clean))).masked_fill(~graph.real, 0)
    return Circuit(graph, scores, graph.real.clone())


def target_gradients(
    transformer: TrainedTransformer, inputs: Inputs, metric: Metric, start: Float[Tensor, "batch place width"]
) -> Float[Tensor, "batch place targets width"]:
    """The gradient of the metric's sum at what every target reads.

    Args:
        start: the stream before the first layer.
    """
    probes: list[Tensor] = []

    def probed(value: Tensor) -> Tensor:
        probes.append(torch.zeros_like(value).requires_grad_())
        return value + probes[-1]

    replace = {Place("resid_pre", 0): start} | {place: probed for place, _, _ in readers(Graph.of(transformer.shape))}
    logits = transformer.run(inputs, replace=replace, gradients=True).logits
    found = torch.autograd.grad(metric(logits).sum(), probes, allow_unused=True)
    whole = [torch.zeros_like(probe) if each is None else each for each, probe in zip(found, probes, strict=True)]
    return torch.cat([each if each.dim() == 4 else each.unsqueeze(2) for each in whole], 2)


def acdc(
    transformer: TrainedTransformer, inputs: Inputs, other: Written, threshold: float, *, loss: Metric | None = None
) -> Circuit:
    """Automatic circuit discovery (Conmy et al. 2023): edges are removed one by one, from the logits back to the input.

    An edge stays out if the loss rises by less than `threshold` without it. It costs a forward pass an edge: a baseline
    for small transformers.

    Args:
        other: what removed edges carry, as for `run_circuit`.
        loss: of logits, (batch,); unless given the divergence KL(whole transformer, circuit), mean over places.
    Returns:
        the circuit that is left; the score of an edge is the rise of the loss when it was tried.
    """
    graph = Graph.of(transformer.shape)
    _, mask = transformer.encode(inputs)
    judge = loss or divergence_from(transformer.run(inputs).logits, mask)
    kept, scores = graph.real.clone(), torch.zeros(graph.real.shape)

    def loss_of(edges: Kept) -> float:
        return float(judge(run_circuit(transformer, inputs, edges, other)).mean())

    best = loss_of(kept)
    for target in reversed(range(len(graph.targets))):
        if not _is_read(graph, kept, target):
            kept[:, target] = False
            continue
        for source in reversed(range(graph.written_before(target))):
            kept[source, target] = False
            found = loss_of(kept)
            scores[source, target] = found - best
            if found - best < threshold:
                best = found
            else:
                kept[source, target] = True
    return Circuit(graph, scores, kept)


def _is_read(graph: Graph, kept: Kept, target: int) -> bool:
    """Whether the node of a target writes over any edge that is left."""
    node = graph.targets[target].split("<")[0]
    return node == "logits" or bool(kept[graph.source(node)].any())


def divergence_from(reference: Float[Tensor, "batch place outputs"], mask: Tensor) -> Metric:
    """The divergence KL(reference, logits) of what is answered, mean over the real places of each input."""
    expected = reference.log_softmax(-1)
    real = mask.float()

    def divergence(logits: Tensor) -> Tensor:
        each = (expected.exp() * (expected - logits.log_softmax(-1))).sum(-1)
        return (each * real).sum(1) / real.sum(1)

    return divergence
