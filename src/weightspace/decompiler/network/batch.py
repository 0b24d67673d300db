"""Graphs of transformers side by side, as tensors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from weightspace.decompiler.network.graph import ANCHORS, MOST_LAYERS, Graph


@dataclass(frozen=True, eq=False)
class GraphBatch:
    """Graphs side by side, padded with zeros.

    Attributes:
        anchors: (b, d, ANCHORS)
        first, second: (b, d, u), (b, u, d)
        unit_layer: (b, u)
        scores, moves: (b, h, d, d)
        head_layer: (b, h)
        present: (b, d + u + h) False on padding.
    """

    anchors: Tensor
    first: Tensor
    second: Tensor
    unit_layer: Tensor
    scores: Tensor
    moves: Tensor
    head_layer: Tensor
    present: Tensor

    def to(self, device: torch.device) -> GraphBatch:
        return GraphBatch(*(getattr(self, name).to(device, non_blocking=True) for name in self.__dataclass_fields__))


def collate(graphs: Sequence[Graph]) -> GraphBatch:
    """Graphs as one batch."""
    b = len(graphs)
    d = max(len(g.anchors) for g in graphs)
    u = max(1, max(len(g.unit_layer) for g in graphs))
    h = max(1, max(len(g.head_layer) for g in graphs))
    anchors = np.zeros((b, d, ANCHORS), np.float32)
    first, second = np.zeros((b, d, u), np.float32), np.zeros((b, u, d), np.float32)
    scores, moves = np.zeros((b, h, d, d), np.float32), np.zeros((b, h, d, d), np.float32)
    unit_layer, head_layer = np.zeros((b, u), np.int64), np.zeros((b, h), np.int64)
    present = np.zeros((b, d + u + h), bool)
    for i, g in enumerate(graphs):
        nd, nu, nh = len(g.anchors), len(g.unit_layer), len(g.head_layer)
        anchors[i, :nd] = g.anchors
        first[i, :nd, :nu], second[i, :nu, :nd] = g.first, g.second
        scores[i, :nh, :nd, :nd], moves[i, :nh, :nd, :nd] = g.scores, g.moves
        unit_layer[i, :nu], head_layer[i, :nh] = g.unit_layer, g.head_layer
        present[i, :nd] = present[i, d : d + nu] = present[i, d + u : d + u + nh] = True
    limit = MOST_LAYERS - 1
    arrays = (anchors, first, second, unit_layer.clip(0, limit), scores, moves, head_layer.clip(0, limit), present)
    return GraphBatch(*map(torch.from_numpy, arrays))
