"""A transformer as a graph: heads and MLPs are nodes, and how much one reads of what another writes are the edges.

Nothing depends on the basis of the stream, on that inside a head, on the order of hidden units, or on a scale that a
unit's two weights share where the activation lets it through (exactly for ReLU).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float
from torch import Tensor

from weightspace.errors import NetworkError
from weightspace.pairs.correspondence import Slot, slots_of
from weightspace.transformers.trained import TrainedTransformer
from weightspace.transformers.weights import LayerWeights

PORTS = ("query", "key", "value", "mlp", "answer")
TINY = 1e-12


@dataclass(frozen=True, eq=False)
class ComponentGraph:
    """What writes and what reads, in the order of the forward pass.

    Attributes:
        slots: heads and MLPs.
        writers: the rows of the edges: None for tokens, None for places, then all slots.
        readers: the columns: (slot, port), the answer with None.
        strength: (writers, readers) the norm of the product of what one writes and the other reads; 0 where the
            reader does not stand behind the writer.
        written, read: (writers,), (readers,) norms of each alone.
        ranks: (writers,) the effective rank of what each writes: (sum of squares) squared over the sum of fourth powers
            of singular values.
        tokens, places: (heads, n, n) the scores of each head between tokens and between places alone, queries in rows,
            as far as the embedding says them; each centred over its keys.
    """

    slots: tuple[Slot, ...]
    writers: tuple[Slot | None, ...]
    readers: tuple[tuple[Slot | None, str], ...]
    strength: Float[Tensor, "writers readers"]
    written: Float[Tensor, " writers"]
    read: Float[Tensor, " readers"]
    ranks: Float[Tensor, " writers"]
    tokens: Float[Tensor, "heads tokens tokens"]
    places: Float[Tensor, "heads places places"]

    @property
    def width_free(self) -> Float[Tensor, "writers readers"]:
        """Strengths over both norms, which are at most 1."""
        return self.strength / (self.written[:, None] * self.read[None] + TINY)

    @cached_property
    def flow(self) -> Float[Tensor, " writers"]:
        """How much of the answer comes from each, shares being passed back: each reader's goes to those it reads.

        A reader with three ports gives each of them the same. 0 to 1.
        """
        squared = self.strength**2
        shares = squared / (squared.sum(0, keepdim=True) + TINY)
        found = torch.zeros(len(self.writers))
        position = {slot: number for number, slot in enumerate(self.writers) if slot is not None}
        for number in reversed(range(len(self.readers))):
            slot, port = self.readers[number]
            whole = torch.ones(()) if slot is None else found[position[slot]]
            found = found + shares[:, number] * whole / (3 if port in ("query", "key", "value") else 1)
        return found


def component_graph(transformer: TrainedTransformer) -> ComponentGraph:
    """The graph of a transformer's weights alone.

    Raises:
        NetworkError: if it has rotary positions, gates, heads that share keys, or norms behind its halves.
    """
    shape = transformer.shape
    if shape.rotary is not None or shape.gated or shape.key_heads != shape.heads or not shape.norm_first:
        raise NetworkError(
            f"{transformer.where} is of the family {shape.family} with rotary positions, gates, shared keys or norms "
            "behind its halves: component graphs are made of transformers with learned positions and plain MLPs"
        )
    ends = transformer.ends
    assert ends.positions is not None
    centred = shape.norm != "none"
    embed, places = (_spread(_without_mean(each, centred)) for each in (ends.embed, ends.positions))
    writing: list[tuple[Slot | None, Tensor]] = [(None, embed), (None, places)]
    reading: list[tuple[Slot | None, str, Tensor]] = []
    of_tokens, of_places = [], []
    for layer in range(shape.layers):
        weights = transformer.layer(layer)
        for head in range(shape.heads):
            slot = Slot(layer, head)
            query, key, value, out = _head(weights, head, shape.scale, centred)
            reading += [(slot, "query", query), (slot, "key", key), (slot, "value", value)]
            writing.append((slot, out))
            scores = _scores(weights, head, shape.scale, centred)
            of_tokens.append(_between(embed, scores))
            of_places.append(_between(places, scores))
        if shape.hidden:
            first, second = _mlp(weights, centred)
            reading.append((Slot(layer), "mlp", first))
            writing.append((Slot(layer), second))
    unembed = ends.unembed
    assert unembed is not None
    answer = _read(unembed - unembed.mean(1, keepdim=True), ends.final_gain, centred)
    reading.append((None, "answer", answer))
    return _graph(tuple(slots_of(shape.layers, shape.heads)), writing, reading, of_tokens, of_places)


def _graph(
    slots: tuple[Slot, ...],
    writing: list[tuple[Slot | None, Tensor]],
    reading: list[tuple[Slot | None, str, Tensor]],
    of_tokens: list[Tensor],
    of_places: list[Tensor],
) -> ComponentGraph:
    strength = torch.zeros(len(writing), len(reading))
    for row, (writer, out) in enumerate(writing):
        for column, (reader, _, into) in enumerate(reading):
            if writer is None or reader is None or _behind(writer, reader):
                strength[row, column] = torch.linalg.matrix_norm(out @ into)
    values = [torch.linalg.svdvals(out) for _, out in writing]
    return ComponentGraph(
        slots,
        tuple(slot for slot, _ in writing),
        tuple((slot, port) for slot, port, _ in reading),
        strength,
        torch.stack([torch.linalg.matrix_norm(out) for _, out in writing]),
        torch.stack([torch.linalg.matrix_norm(into) for _, _, into in reading]),
        torch.stack([(each**2).sum() ** 2 / ((each**4).sum() + TINY) for each in values]),
        torch.stack(of_tokens),
        torch.stack(of_places),
    )


def _behind(writer: Slot, reader: Slot) -> bool:
    """Whether a component sees what another one writes."""
    return writer.layer < reader.layer or (writer.layer == reader.layer and writer.is_head and not reader.is_head)


def _without_mean(rows: Tensor, centred: bool) -> Tensor:
    """Rows of the stream as a norm leaves them, if there is one."""
    return rows - rows.mean(1, keepdim=True) if centred else rows


def _spread(rows: Tensor) -> Tensor:
    """What differs from row to row: what all have in common says nothing."""
    return rows - rows.mean(0, keepdim=True)


def _read(matrix: Tensor, gain: Tensor | None, centred: bool) -> Tensor:
    """A matrix that reads the stream, with the norm before it."""
    found = matrix if gain is None else matrix * gain[:, None]
    return found - found.mean(0, keepdim=True) if centred else found


def _head(weights: LayerWeights, head: int, scale: float, centred: bool) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """What a head's queries, keys and values read, and what it writes, each up to a rotation inside the head."""
    q, k, v = (_read(each[head], weights.norm1_gain, centred) for each in (weights.w_q, weights.w_k, weights.w_v))
    out = _without_mean(weights.w_o[head], centred)
    query, key = q @ _triangle(k).T * scale, k @ _triangle(q).T * scale
    return query, key, v @ _triangle(out.T).T, _triangle(v) @ out


def _triangle(matrix: Tensor) -> Tensor:
    """R of QR: what is left of a matrix when the basis of its rows' space does not matter."""
    return torch.linalg.qr(matrix)[1]


def _scores(weights: LayerWeights, head: int, scale: float, centred: bool) -> Tensor:
    """Scores of directions of the stream, queries in rows."""
    q, k = (_read(each[head], weights.norm1_gain, centred) for each in (weights.w_q, weights.w_k))
    return q @ k.T * scale


def _between(rows: Tensor, scores: Tensor) -> Tensor:
    found = rows @ scores @ rows.T
    return found - found.mean(1, keepdim=True)


def _mlp(weights: LayerWeights, centred: bool) -> tuple[Tensor, Tensor]:
    """What an MLP reads and writes, unit by unit, each by as much as its other half is large."""
    assert weights.w_in is not None and weights.w_out is not None
    first = _read(weights.w_in, weights.norm2_gain, centred)
    second = _without_mean(weights.w_out, centred)
    return first * second.norm(dim=1), second * first.norm(dim=0)[:, None] / math.sqrt(len(second))
