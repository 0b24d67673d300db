"""A transformer's weights as a graph: directions, hidden units and heads are nodes, its matrices the edges."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from weightspace.rasp.compiler.bare import BareTransformer
from weightspace.rasp.functions import is_number
from weightspace.rasp.language import BOS, PAD

MOST_TOKENS, MOST_PLACES = 12, 16
"""So many rows of each embedding are seen; what is beyond them is read like any other direction."""
ANSWER = MOST_TOKENS + 2 + MOST_PLACES
"""The column of the answer's directions; the next holds the number each stands for, a tenth of it, within -4 to 4."""
ANCHORS = ANSWER + 2
MOST_LAYERS = 20


@dataclass(frozen=True, eq=False)
class Graph:
    """One transformer. Nothing depends on the order of directions, units or heads, but for the order of the nodes.

    Attributes:
        anchors: (directions, ANCHORS) float32: what each token, BOS, PAD and each place write to a direction, whether
            the answer is read there, and which number that is, where it is known.
        first, second: (directions, units) and (units, directions) of all layers side by side.
        unit_layer: (units,) layer of each.
        scores: (heads, directions, directions): query directions by key directions, in units of the softmax's coldness.
        moves: (heads, directions, directions): from what is aggregated to where it is written.
        head_layer: (heads,) layer of each.
    """

    anchors: np.ndarray
    first: np.ndarray
    second: np.ndarray
    unit_layer: np.ndarray
    scores: np.ndarray
    moves: np.ndarray
    head_layer: np.ndarray

    @property
    def nodes(self) -> int:
        return len(self.anchors) + len(self.unit_layer) + len(self.head_layer)


def graph_of(bare: BareTransformer) -> Graph:
    """The graph of a transformer; heads and units that are all zero are left out."""
    width, space = bare.width, bare.space
    anchors = np.zeros((width, ANCHORS), np.float32)
    rows = [row for row, value in enumerate(space) if value not in (BOS, PAD)][:MOST_TOKENS]
    anchors[:, : len(rows)] = bare.tokens[rows].T
    anchors[:, MOST_TOKENS] = bare.tokens[space.index(BOS)]
    anchors[:, MOST_TOKENS + 1] = bare.tokens[space.index(PAD)]
    places = bare.positions[1 : 1 + MOST_PLACES]
    anchors[:, MOST_TOKENS + 2 : MOST_TOKENS + 2 + len(places)] = places.T
    if bare.readout is not None:
        anchors[:, ANSWER] = np.abs(bare.readout.directions).max(1)
        values = bare.readout.values or ()
        if values and all(map(is_number, values)):
            numbers = np.array([float(value) for value in values if is_number(value)], np.float32)
            anchors[:, ANSWER + 1] = np.clip(np.abs(bare.readout.directions) @ (numbers / 10), -4, 4)
    used = np.abs(bare.first).max(1) + np.abs(bare.second).max(2) > 0  # (layers, hidden)
    layer, unit = np.nonzero(used)
    heads = []
    for number in range(bare.num_layers):
        for head in range(bare.num_heads):
            own = bare.head(head)
            if bare.value[number, :, own].any() and bare.linear[number, own].any():
                heads.append((number, own))
    scores = np.zeros((len(heads), width, width), np.float32)
    moves = np.zeros((len(heads), width, width), np.float32)
    scale = 100 * (bare.key_size**0.5 if bare.mode == "fixed" else 1.0)
    for place, (number, own) in enumerate(heads):
        scores[place] = bare.query[number, :, own] @ bare.key[number, :, own].T / scale
        moves[place] = bare.value[number, :, own] @ bare.linear[number, own]
    return Graph(
        anchors,
        np.ascontiguousarray(bare.first[layer, :, unit].T),
        bare.second[layer, unit],
        layer,
        scores,
        moves,
        np.array([number for number, _ in heads], np.int64),
    )


def renamed(graph: Graph, random: np.random.Generator) -> Graph:
    """The graph with its directions, its units within each layer and its heads within each layer in a random order."""
    directions = random.permutation(len(graph.anchors))
    units, heads = (np.lexsort([random.random(len(layers)), layers]) for layers in (graph.unit_layer, graph.head_layer))
    return Graph(
        graph.anchors[directions],
        np.ascontiguousarray(graph.first[np.ix_(directions, units)]),
        np.ascontiguousarray(graph.second[np.ix_(units, directions)]),
        graph.unit_layer[units],
        np.ascontiguousarray(graph.scores[np.ix_(heads, directions, directions)]),
        np.ascontiguousarray(graph.moves[np.ix_(heads, directions, directions)]),
        graph.head_layer[heads],
    )


def disturbed(graph: Graph, share: float, random: np.random.Generator) -> Graph:
    """The graph under Gaussian noise of `share` of each matrix's standard deviation, layer by layer.

    Scores and moves are products of two matrices; here each gets noise as such, which stands for noise on both.
    """

    def noise(matrix: np.ndarray) -> np.ndarray:
        scale = share * float(matrix.std())
        return matrix + np.float32(scale) * random.standard_normal(matrix.shape, np.float32) if scale else matrix

    first, second = graph.first.copy(), graph.second.copy()
    for layer in np.unique(graph.unit_layer):
        own = graph.unit_layer == layer
        first[:, own], second[own] = noise(first[:, own]), noise(second[own])
    anchors = graph.anchors.copy()
    anchors[:, :ANSWER] = noise(anchors[:, :ANSWER])
    scores = np.stack([noise(matrix) for matrix in graph.scores]) if len(graph.scores) else graph.scores
    moves = np.stack([noise(matrix) for matrix in graph.moves]) if len(graph.moves) else graph.moves
    return Graph(anchors, first, second, graph.unit_layer, scores, moves, graph.head_layer)


def squeezed(graph: Graph, share: float, random: np.random.Generator) -> Graph:
    """The graph as it looks through a stream of `share` as many directions: each direction leaks into others.

    The directions that are kept are the strongest of what is written, each unit and row weighted at random, as their
    activity would.
    """
    width = len(graph.anchors)
    kept = min(width, int(np.ceil(share * width)))
    written = np.concatenate([graph.anchors.T[:ANSWER], graph.second, *graph.moves])
    scale = np.sqrt((written**2).sum(1, keepdims=True))
    written = written / np.maximum(scale, 1e-6) * random.gamma(1.0, 1.0, (len(written), 1)).astype(np.float32)
    _, basis = np.linalg.eigh(written.T @ written)
    basis = basis[:, width - kept :]
    leak = (basis @ basis.T).astype(np.float32)
    anchors = graph.anchors.copy()
    anchors[:, :ANSWER] = leak @ anchors[:, :ANSWER]
    return Graph(
        anchors,
        leak @ graph.first,
        graph.second @ leak,
        graph.unit_layer,
        leak @ graph.scores @ leak,
        leak @ graph.moves @ leak,
        graph.head_layer,
    )
