"""Readers to hold the graph's against: rows of its matrices, or flat chunks of them, through a transformer encoder."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from weightspace.decompiler.network.batch import GraphBatch
from weightspace.decompiler.network.graph import ANCHORS, MOST_LAYERS
from weightspace.metamodels.encoder import Encoder

CHUNK = 128
"""Entries of a flat chunk, as in the paper's experiment."""
MOST_ROW = 96
"""Entries of a row that are read; every transformer of the training has fewer directions."""
MOST_PLACES = 512
"""Rows or chunks of a matrix that have an encoding of their own; those beyond share the last."""
KINDS = ("anchors", "first", "second", "scores", "moves")


def _scaled(weights: Tensor) -> Tensor:
    """Each entry in two scales, as the graph's reader has them."""
    return torch.cat([weights.clamp(-1.5, 1.5), torch.asinh(weights) / 3], -1)


class PlainReader(nn.Module):
    """Tokens of weights, each embedded linearly, plus what matrix, what layer and what place; then an encoder.

    What is all zero is left out. Nothing here knows that a direction's name does not matter: names are drawn anew for
    each network that such a reader is trained on (`graph.renamed`).

    Args:
        width: of a token's vector.
        depth, heads: of the encoder.
        rows: a token for each direction's embeddings, each hidden unit's two vectors, and each row of a head's
            products; else each matrix is flattened and cut into chunks (Langosco et al., section 3.3).
    """

    def __init__(self, width: int, depth: int, heads: int, rows: bool) -> None:
        super().__init__()
        self.rows = rows
        self.size = size = MOST_ROW if rows else CHUNK
        self.weights = nn.Linear(2 * size, width)
        self.kind, self.layer = nn.Embedding(len(KINDS), width), nn.Embedding(MOST_LAYERS, width)
        self.place = nn.Embedding(MOST_PLACES, width)
        for table in (self.kind, self.layer, self.place):
            nn.init.normal_(table.weight, std=0.3)
        self.encoder = Encoder(width, depth, heads, False, 0.0)

    def tokens(self, kind: str, matrix: Tensor) -> Tensor:
        """A matrix as (tokens, size)."""
        if self.rows:
            rows = (matrix.T if kind == "first" else matrix)[:, : self.size]
            return nn.functional.pad(rows, (0, self.size - rows.shape[1]))
        flat = matrix.flatten()
        return nn.functional.pad(flat, (0, -len(flat) % self.size)).view(-1, self.size)

    def forward(self, g: GraphBatch) -> tuple[Tensor, Tensor]:
        """Vectors (b, tokens, width), and (b, tokens) which of them are there."""
        values, codes = [], []
        for number in range(len(g.present)):
            own, encodings = [], []
            for kind, layer, matrix in _matrices(g, number):
                tokens = self.tokens(kind, matrix)
                place = torch.arange(len(tokens), device=tokens.device).clamp(max=MOST_PLACES - 1)
                code = torch.stack([torch.full_like(place, KINDS.index(kind)), torch.full_like(place, layer), place], 1)
                kept = tokens.any(1)
                own.append(tokens[kept])
                encodings.append(code[kept])
            values.append(torch.cat(own))
            codes.append(torch.cat(encodings))
        lengths = torch.tensor([len(own) for own in values], device=g.present.device)
        value, code = pad_sequence(values, batch_first=True), pad_sequence(codes, batch_first=True)
        present = torch.arange(value.shape[1], device=lengths.device) < lengths[:, None]
        x = self.weights(_scaled(value)) + self.kind(code[..., 0]) + self.layer(code[..., 1]) + self.place(code[..., 2])
        return self.encoder(x, present), present


def _matrices(g: GraphBatch, number: int) -> Iterator[tuple[str, int, Tensor]]:
    """The matrices of one graph of a batch, without what pads them: kind, layer, (rows, columns)."""
    d, u = g.anchors.shape[1], g.first.shape[2]
    present = g.present[number]
    nd, nu, nh = (int(part.sum()) for part in present.split([d, u, len(present) - d - u]))
    yield "anchors", 0, g.anchors[number, :nd, :ANCHORS]
    layers = g.unit_layer[number, :nu]
    for layer in layers.unique().tolist():
        own = layers == layer
        yield "first", layer, g.first[number, :nd, :nu][:, own]
        yield "second", layer, g.second[number, :nu, :nd][own]
    for head, layer in enumerate(g.head_layer[number, :nh].tolist()):
        yield "scores", layer, g.scores[number, head, :nd, :nd]
        yield "moves", layer, g.moves[number, head, :nd, :nd]
